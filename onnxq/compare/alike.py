"""Whether models can be compared: the same inputs by name, the same outputs by place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.errors import ModelError
from onnxq.runtime.provider_options import device_in_use
from onnxq.runtime.start import require_started

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxq.graph.structure import Summary, ValueSummary


def distinct_providers(names: Sequence[str]) -> list[str]:
    """The names as given, without those that mean an earlier one again; all of them start.

    Two devices of one provider are two.

    Raises:
        ProviderError: One is not there, its library does not load, or it does not start: a device
            that is not there, an option that it does not know.
    """
    found: dict[tuple[str, int], str] = {}
    for name in names:
        full = require_started(name)
        found.setdefault((full, device_in_use(name)), name)
    return list(found.values())


def check_alike(models: Sequence[tuple[Path, Summary]]) -> None:
    """Refuse models that differ in inputs or outputs from the first of them.

    Raises:
        ModelError: One does; the message says how.
    """
    (first, expected), *others = models
    for path, found in others:
        difference = _difference("input", _by_name(expected.inputs), _by_name(found.inputs))
        # Outputs are compared by their place, inputs are fed by their name.
        difference = difference or _difference("output", expected.outputs, found.outputs)
        if difference:
            code, text = "compare.models_differ", f"{difference} (the first model is {first})"
            remedy = "compare models that take the same inputs and give the same outputs"
            raise ModelError(code, text, where=str(path), remedy=remedy)


def _by_name(values: Sequence[ValueSummary]) -> list[ValueSummary]:
    return sorted(values, key=lambda value: value.name)


def _difference(kind: str, expected: Sequence[ValueSummary], found: Sequence[ValueSummary]) -> str:
    """What differs, in words; empty if the data of one fits the other."""
    wanted, given = [value.name for value in expected], [value.name for value in found]
    if wanted != given:
        return f"its {kind}s are {', '.join(given)} where the first model has {', '.join(wanted)}"
    for one, other in zip(expected, found, strict=True):
        if one.type_text != other.type_text or not _shapes_agree(one, other):
            return (
                f"{kind} {one.name!r} is {_type_of(other)} where the first model has "
                f"{_type_of(one)}"
            )
    return ""


def _shapes_agree(one: ValueSummary, other: ValueSummary) -> bool:
    """Whether the ranks are equal and no two fixed lengths differ."""
    if one.shape is None or other.shape is None:
        return True
    return len(one.shape) == len(other.shape) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int))
        for a, b in zip(one.shape, other.shape, strict=True)
    )


def _type_of(value: ValueSummary) -> str:
    dims = "..." if value.shape is None else ", ".join(str(dim or "?") for dim in value.shape)
    return f"{value.type_text}[{dims}]"
