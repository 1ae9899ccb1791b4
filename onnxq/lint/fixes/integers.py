"""Writes int8 activations as uint8.

Case: ``Q(x, s, z) -> DQ(q, s, z)`` of int8 becomes the same of uint8 with zero points 128 higher:
each integer stands for the number that it stood for, 128 above. Pairs whose integers somebody else
reads are left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import NameScope, all_nodes, initializer, remove_if_unread, replace_input
from onnxq.lint.checks.cpu_fusion import can_be_uint8
from onnxq.lint.fixes.registry import fix
from onnxq.lint.qdq import input_of, offsets, readers, scale_of, zero_point_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHIFT: Final = 128


@fix("int8-activations")
def to_uint8(model: ir.Model, names: frozenset[str]) -> None:
    """Write all pairs in uint8, so that no two types meet; ``names`` are those that must be."""
    del names
    fresh = NameScope(model)
    made: dict[ir.Value | None, ir.Value] = {}
    for q in [node for node in all_nodes(model) if can_be_uint8(node)]:
        for node in _pair(q):
            old = input_of(node, 2)
            key = old or input_of(node, 1)
            if key not in made:
                made[key] = initializer(model, fresh(f"{_name(node, old)}.uint8"), _shifted(node))
            replace_input(node, 2, made[key])
            if "output_dtype" in node.attributes and node is q:
                node.attributes.pop("output_dtype")
            if old is not None:
                remove_if_unread(old)
        q.outputs[0].type = ir.TensorType(ir.DataType.UINT8)


def _pair(q: ir.Node) -> Iterator[ir.Node]:
    yield q
    yield from readers(q)


def _name(node: ir.Node, zero_point: ir.Value | None) -> str:
    return (zero_point.name if zero_point is not None else None) or f"{node.name}.zero_point"


def _shifted(node: ir.Node) -> np.ndarray:
    offset, scale = np.asarray(zero_point_of(node), np.int16), scale_of(node)
    return ((offset if scale is None else offsets(offset, scale)) + _SHIFT).astype(np.uint8)
