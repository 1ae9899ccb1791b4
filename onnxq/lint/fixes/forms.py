"""Writes the same model in another form.

Cases:
    - nodes get names of their own;
    - initializers leave the inputs;
    - a QuantizeLinear loses ``output_dtype``, which its zero point's type says as well;
    - ``Add(a, b)`` becomes ``Sum(a, b)`` and ``Relu(a)`` becomes ``Max(a, 0)``, which compute the
      same and are not merged with the product in front of them;
    - ``Clip(a, ...)`` becomes ``Clip(Sum(a), ...)``, and so does whatever reads a product that a
      quantizer reads too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxq.graph.edit import NameScope, all_nodes, copy_output, initializer, replace_input
from onnxq.graph.names import UniqueNamesPass
from onnxq.lint.fixes.registry import fix
from onnxq.lint.qdq import activation_dq, float_type, maker


@fix("unnamed-node")
def name_nodes(model: ir.Model, names: frozenset[str]) -> None:
    """Name every node and value uniquely; ``names`` are those that they get."""
    del names
    UniqueNamesPass()(model)


@fix("initializer-is-input")
def take_out_of_inputs(model: ir.Model, names: frozenset[str]) -> None:
    """Take all initializers out of the inputs; it is no matter of single nodes."""
    del names
    common.RemoveInitializersFromInputsPass()(model)


@fix("int8-output-dtype")
def drop_output_dtype(model: ir.Model, names: frozenset[str]) -> None:
    """Drop what the zero point says as well."""
    for node in all_nodes(model):
        if node.name in names:
            node.attributes.pop("output_dtype")


@fix("covered-product")
def uncover(model: ir.Model, names: frozenset[str]) -> None:
    """Write what stands behind the product so that it is not merged with it."""
    fresh = NameScope(model)
    zeros: dict[ir.DataType, ir.Value] = {}
    for node in tuple(all_nodes(model)):
        if node.name in names and node.op_type == "Add":
            node.op_type = "Sum"
        elif node.name in names and node.op_type == "Relu":
            node.op_type = "Max"
            kind = _product_type(node)
            if kind not in zeros:
                zeros[kind] = initializer(model, fresh("zero"), np.zeros((), kind.numpy()))
            replace_input(node, 1, zeros[kind])
        elif node.name in names and (product := maker(node, 0)) is not None:
            copy_output(product, fresh)


def _product_type(relu: ir.Node) -> ir.DataType:
    """The type of the product that a Relu reads, which its DequantizeLinear tells."""
    product = maker(relu, 0)
    dq = None if product is None else activation_dq(product)
    return (None if dq is None else float_type(dq)) or ir.DataType.FLOAT


@fix("quantizer-not-alone")
def copy_shared(model: ir.Model, names: frozenset[str]) -> None:
    """Put a Sum of one operand behind products that a quantizer and others read."""
    fresh = NameScope(model)
    for node in tuple(all_nodes(model)):
        if node.name in names:
            copy_output(node, fresh)
