"""Whether a model that was rewritten to export well still computes the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from onnxq.errors import UsageError
from onnxq.export.calls import run_module

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

_CLOSE: Final = {"torch.float32": 1e-4, "torch.float16": 1e-2, "torch.bfloat16": 5e-2}
_WINDOWS: Final = ("sliding_window", "attention_chunk_size", "window_size", "attention_window")


def sees_a_window(config: Any) -> bool:
    """Whether a layer sees only the last tokens, which short examples would not tell."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return any(kind != "full_attention" for kind in kinds)
    return any(getattr(config, name, None) for name in _WINDOWS)


def agree(module: nn.Module, reference: nn.Module, sets: Sequence[Mapping[str, Tensor]]) -> bool:
    """Whether the first outputs differ by rounding alone."""
    for inputs in sets:
        try:
            found, right = run_module(module, inputs)[0], run_module(reference, inputs)[0]
        except UsageError:
            return False
        limit = _CLOSE[str(right.dtype)] * float(right.abs().max())
        if not float((found - right).abs().max()) <= limit:
            return False
    return True
