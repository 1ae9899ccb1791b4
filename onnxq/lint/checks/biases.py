"""Biases of int32, which only the CPU provider dequantizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.graph.edit import all_nodes
from onnxq.lint.finding import at
from onnxq.lint.qdq import (
    gives_output,
    input_of,
    integer_type,
    is_dq,
    rank_of,
    scale_of,
    stored_integers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.lint.finding import Seen
    from onnxq.lint.view import View


def int32_biases(view: View) -> Iterator[Seen]:
    """Each DequantizeLinear of int32; it can be folded where it reads a constant vector.

    Not where it gives an output of its graph, which a node must make.
    """
    for node in all_nodes(view.model):
        if not is_dq(node) or integer_type(node) != ir.DataType.INT32:
            continue
        known = stored_integers(node) is not None and scale_of(node) is not None
        foldable = known and (rank_of(node) or 0) < 2 and not gives_output(node)
        value = input_of(node, 0)
        name = "" if value is None else value.name
        yield at(node, f"it dequantizes int32 {name!r}", fixable=foldable)
