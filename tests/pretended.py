"""A provider that is not there, pretended: its sessions run on the CPU, their options are noted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from onnxq.runtime import providers

if TYPE_CHECKING:
    import pytest

Options = Mapping[str, str]


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    refusal: Callable[[Options], str] = lambda options: "",
) -> list[Options]:
    """Let a provider start in this process.

    Args:
        monkeypatch: What takes it back.
        name: Its short name.
        refusal: Why it refuses these options, in ONNX Runtime's words; empty if it does not.

    Returns:
        The options of each of its sessions, in the order of their opening.
    """
    full, noted = providers.SHORT[name], list[Options]()
    real, chain = ort.InferenceSession, (full, providers.CPU)

    def opened(source: Any, options: Any, *, providers: Any, **rest: Any) -> Any:
        for provider, given in providers:
            if provider == full:
                if why := refusal(given):
                    raise RuntimeError(why)
                noted.append(given)
        inner = real(source, options, providers=["CPUExecutionProvider"], **rest)
        monkeypatch.setattr(inner, "get_providers", lambda: [name for name, _ in providers])
        return inner

    monkeypatch.setattr(providers, "available", lambda: chain)
    monkeypatch.setattr(providers, "why_not_loaded", lambda full: "")
    monkeypatch.setattr(ort, "InferenceSession", opened)
    return noted
