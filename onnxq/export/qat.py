"""Modules that were trained with fake quantization export as QuantizeLinear and DequantizeLinear.

    fake quantizers of torch.ao and torchao (modules with ``scale``, ``zero_point``, ``quant_min``,
        ``quant_max``): what they learned becomes constant. They choose at run time whether to
        observe and to round, which no exporter can follow.
    quantized_decomposed (torchao's ``convert_pt2e``): PyTorch's exporter knows its operators.
Integers of fewer than 8 bits or of a narrowed range (-127 to 127) become 8 bits, and what would be
beyond the range is cut off in front: the values are the same.
"""

from __future__ import annotations

import copy
import importlib
from typing import TYPE_CHECKING, Any, Final

import onnx_ir as ir

if TYPE_CHECKING:
    from torch import Tensor, nn

_INTEGERS: Final = {ir.DataType.INT8: (-128, 127), ir.DataType.UINT8: (0, 255)}
_TRAITS: Final = ("scale", "zero_point", "quant_min", "quant_max", "fake_quant_enabled")


def with_fixed_fake_quantizers(module: nn.Module) -> nn.Module:
    """A copy whose fake quantizers only round; the module itself if there is none."""
    if not any(_is_fake_quantizer(part) for part in module.modules()):
        return module
    found = copy.deepcopy(module)
    for parent in list(found.modules()):
        for name, part in list(parent.named_children()):
            if _is_fake_quantizer(part):
                setattr(parent, name, _fixed(part))
    return found


def _is_fake_quantizer(part: Any) -> bool:
    return all(hasattr(part, name) for name in _TRAITS)


def _fixed(part: Any) -> nn.Module:
    import torch

    load_operators()
    operators = torch.ops.quantized_decomposed
    low, high = int(part.quant_min), int(part.quant_max)
    kind = torch.int8 if low < 0 else torch.uint8
    whole = (torch.iinfo(kind).min, torch.iinfo(kind).max)
    axis = int(getattr(part, "ch_axis", -1))
    scale = part.scale.detach().float().reshape(-1)
    zero_point = part.zero_point.detach().to(kind).reshape(-1)
    edges = [(bound - zero_point.double()) * scale.double() for bound in (low, high)]

    class PerChannel(torch.nn.Module):  # type: ignore[misc]
        """Rounds each channel to what was learned."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", scale)
            self.register_buffer("zero_point", zero_point)
            self.register_buffer("low", edges[0].float())
            self.register_buffer("high", edges[1].float())

        def forward(self, value: Tensor) -> Tensor:
            if (low, high) != whole:
                shape = [1] * value.ndim
                shape[axis] = -1
                value = torch.maximum(value, self.low.reshape(shape))
                value = torch.minimum(value, self.high.reshape(shape))
            named = (self.scale, self.zero_point, axis, *whole, kind)
            integers = operators.quantize_per_channel(value, *named)
            return operators.dequantize_per_channel(integers, *named)

    class PerTensor(torch.nn.Module):  # type: ignore[misc]
        """Rounds to what was learned."""

        def forward(self, value: Tensor) -> Tensor:
            if (low, high) != whole:
                value = torch.clamp(value, float(edges[0]), float(edges[1]))
            named = (float(scale), int(zero_point), *whole, kind)
            return operators.dequantize_per_tensor(
                operators.quantize_per_tensor(value, *named), *named
            )

    if not bool(part.fake_quant_enabled.reshape(-1)[0]):
        return torch.nn.Identity()
    return PerTensor() if scale.numel() == 1 else PerChannel()


def drop_idle_clips(model: ir.Model) -> None:
    """Remove each Clip of integers to all that their type holds: kernels do not fuse over it."""
    for node in list(model.graph):
        bounds = [value.const_value for value in node.inputs[1:] if value is not None]
        value = node.inputs[0] if node.op_type == "Clip" and len(bounds) == 2 else None
        if value is None or value.dtype is None or None in bounds or value.dtype not in _INTEGERS:
            continue
        found = tuple(int(bound.numpy()) for bound in bounds if bound is not None)
        if found == _INTEGERS[value.dtype]:
            node.outputs[0].replace_all_uses_with(value)
            model.graph.remove(node, safe=True)


def load_operators() -> None:
    """Register the operators of quantized_decomposed with PyTorch."""
    importlib.import_module("torch.ao.quantization.fx._decomposed")
