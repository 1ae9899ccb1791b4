"""Models that end the process which loads them, found out in a process of their own."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnxq.errors import ModelError
from onnxq.graph.edit import all_nodes, nodes_below
from onnxq.graph.transposed import transposed_products
from onnxq.runtime.apart import load_apart

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_HALVES: Final = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_TYPES: Final = frozenset({"dtype", "output_dtype", "to"})
"""Attributes that name the type of what a node makes."""


def check_survives(models: Iterable[tuple[Path, ir.Model]]) -> None:
    """Refuse models that end the process which loads them on the CPU.

    Only models with floats of 16 bits, or with a Transpose and a Cast in front of a product, are
    tried out: no other has been seen to. So nobody else waits for a second process.

    Args:
        models: Each file, with what is in it.

    Raises:
        ModelError: One does.
    """
    for path, model in models:
        if not (_has_halves(model) or any(found.cast for found in transposed_products(model))):
            continue
        found = load_apart(path)
        if found.died:
            code, remedy = "model.dies", f"`onnxq lint {path}` says what is behind it"
            raise ModelError(code, found.refusal, where=str(path), remedy=remedy)


def _has_halves(model: ir.Model) -> bool:
    values = chain(model.graph.inputs, model.graph.initializers.values())
    bodies = (node for function in model.functions.values() for node in nodes_below(function))
    nodes = chain(all_nodes(model), bodies)
    return any(value.dtype in _HALVES for value in values) or any(map(_makes_halves, nodes))


def _makes_halves(node: ir.Node) -> bool:
    """Whether a node says that it makes them: few files say the type of every value."""
    if any(output.dtype in _HALVES for output in node.outputs):
        return True
    return any(_names_halves(attribute) for attribute in node.attributes.values())


def _names_halves(attribute: ir.Attr) -> bool:
    if attribute.is_ref():
        return False
    if attribute.type == ir.AttributeType.TENSOR:
        return attribute.as_tensor().dtype in _HALVES
    return attribute.name in _TYPES and attribute.value in _HALVES
