"""Gemm in its plain form: ``x B + c`` with a constant vector c, or none.

Cases, for a Gemm with a constant B of rank 2 that no caller can override:
    - ``alpha``: multiplied into B; declined where products leave the normal range of the type;
    - ``beta`` with a constant C: multiplied into C; ``beta = 0`` with a finite C drops it;
    - a constant C of one element or of shape [1, N]: the vector [N];
    - a constant C of shape [M, 1] or [M, N], and a C that is computed or may be overridden: an Add
      behind, with a Mul by ``beta`` in front of it where ``beta`` is not 1;
    - ``transA``: a Transpose in front, which ONNX Runtime merges again if the Gemm stays float; of
      an activation that is one's Transpose already, what that reads.
The derived constants remember their origin (``derived.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.derived import Deriver, Reshaped, Scaled, Step, stays_normal
from onnxq.graph.edit import (
    constant_array,
    initializer,
    is_overridable,
    nodes_below,
    remove_if_unread,
    replace_input,
)
from onnxq.graph.insert import put_before, put_behind
from onnxq.graph.weighted import plain_constant

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PlainGemmPass(ir.passes.InPlacePass):
    """Bring every Gemm with a weight into its plain form."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place, in the graph and its subgraphs."""
        derive = Deriver(model)
        changed = False
        for node in list(nodes_below(model.graph)):
            if node.op_type == "Gemm" and not node.domain:
                changed |= _rewrite(node, derive)
        return ir.passes.PassResult(model, changed)

    def __repr__(self) -> str:
        """The pass's name."""
        return "PlainGemmPass()"


def _rewrite(node: ir.Node, derive: Deriver) -> bool:
    weight = plain_constant(node, 1, derive.model)
    tensor = None if weight is None else weight.const_value
    if weight is None or tensor is None or len(tensor.shape) != 2 or tensor.size == 0:
        return False
    old = node.inputs[1:]
    changed = _fold_alpha(node, weight, derive)
    columns = int(tensor.shape.numpy()[0 if node.attributes.get_int("transB", 0) else 1])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        changed |= _plain_bias(node, columns, derive)
    if node.attributes.get_int("transA", 0):
        _transpose_activation(node, derive)
        node.attributes.pop("transA")
        changed = True
    for value in old:
        if changed and value is not None:
            remove_if_unread(value)
    return changed


def _transpose_activation(node: ir.Node, derive: Deriver) -> None:
    """Two Transposes would be taken out by ONNX Runtime, and the quantizer stand elsewhere then."""
    front = node.inputs[0].producer() if node.inputs[0] is not None else None
    turned = front is not None and front.op_type == "Transpose" and front.graph is node.graph
    if front is not None and turned and front.attributes.get_ints("perm", (1, 0)) == (1, 0):
        node.replace_input_with(0, front.inputs[0])
        return
    put_before(node, 0, "Transpose", derive.fresh, attributes={"perm": [1, 0]})


def _fold_alpha(node: ir.Node, weight: ir.Value, derive: Deriver) -> bool:
    alpha = node.attributes.get_float("alpha", 1.0)
    if alpha == 1.0 or not stays_normal(weight, alpha):
        return False
    node.replace_input_with(1, derive(weight, (Scaled(alpha),), "scaled"))
    node.attributes.pop("alpha")
    return True


def _plain_bias(node: ir.Node, columns: int, derive: Deriver) -> bool:
    value = node.inputs[2]
    beta = node.attributes.get_float("beta", 1.0)
    if value is None:
        return False
    array = None if is_overridable(value, derive.model) else constant_array(value)
    if array is not None and beta == 0 and np.isfinite(array).all():
        node.resize_inputs(2)
    elif array is None or plain_constant(node, 2, derive.model) is None:
        _add_behind(node, value, beta, derive)
    elif array.shape == (columns,) and beta == 1.0:
        return False
    elif array.size == 1 or (array.size == columns and array.shape[-1] == columns):
        _vector(node, value, array, columns, derive)
    else:
        _add_behind(node, value, beta, derive)
    node.attributes.pop("beta", None)
    return True


def _vector(
    node: ir.Node, value: ir.Value, array: NDArray[np.generic], columns: int, derive: Deriver
) -> None:
    """Read a constant bias of one row as a vector of all columns, times ``beta``."""
    beta = node.attributes.get_float("beta", 1.0)
    if array.size == columns:
        steps: list[Step] = [Reshaped((columns,)), Scaled(beta)]
        replace_input(node, 2, derive(value, steps, "vector"))
        return
    full = np.broadcast_to(Scaled(beta).of(array).reshape(1), (columns,))
    name = derive.fresh(f"{value.name}.vector")
    replace_input(node, 2, initializer(derive.model, name, np.ascontiguousarray(full)))


def _add_behind(node: ir.Node, bias: ir.Value, beta: float, derive: Deriver) -> None:
    node.resize_inputs(2)
    add = put_behind(node, "Add", derive.fresh, others=(bias,))
    if add is None or beta == 1.0:
        return
    dtype = (bias.dtype or ir.DataType.FLOAT).numpy()
    name = derive.fresh(f"{node.name}/beta")
    factor = initializer(derive.model, name, np.asarray(beta, dtype))
    put_before(add, 1, "Mul", derive.fresh, others=(factor,))
