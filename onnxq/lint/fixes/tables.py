"""Looks integers up and dequantizes those, instead of a whole table.

Cases:
    - one scale: ``Gather(DQ(w, s, z), i)`` becomes ``DQ(Gather(w, i), s, z)``, the same bits;
    - a scale for each row and no zero point: ``Gather(DQ(w, s), i)`` becomes
      ``Cast(Gather(w, i)) * Unsqueeze(Gather(s, i))``, the same bits too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import (
    NameScope,
    all_nodes,
    consumers,
    initializer,
    remove_if_unread,
    replace_input,
)
from onnxq.graph.insert import put_behind
from onnxq.lint.fixes.registry import fix
from onnxq.lint.qdq import axis_of, dq_of, gives_output, integer_type, rank_of

if TYPE_CHECKING:
    from onnxq.graph.insert import Attributes


@fix("table-dequantized")
def look_up_integers(model: ir.Model, names: frozenset[str]) -> None:
    """Put the Gather in front of the DequantizeLinear."""
    fresh = NameScope(model)
    for gather in [node for node in all_nodes(model) if node.name in names]:
        dq = dq_of(gather, 0)
        if dq is None or dq.inputs[0] is None:
            continue
        kind = integer_type(dq)
        replace_input(gather, 0, dq.inputs[0])
        if axis_of(dq) is None:
            parameters = [value for value in dq.inputs[1:] if value is not None]
            put_behind(gather, dq.op_type, fresh, others=parameters, domain=dq.domain)
        else:
            _scale_rows(model, gather, dq, fresh)
        gather.outputs[0].type = ir.TensorType(kind)
        if not consumers(dq.outputs[0]) and not gives_output(dq) and dq.graph is not None:
            read = [value for value in dq.inputs if value is not None]
            dq.graph.remove(dq, safe=True)
            for value in read:
                remove_if_unread(value)


def _scale_rows(model: ir.Model, gather: ir.Node, dq: ir.Node, fresh: NameScope) -> None:
    """Cast the integers that were looked up, and multiply them by the scales of their rows."""
    scale, rank = dq.inputs[1], rank_of(dq)
    if scale is None or rank is None or gather.graph is None:
        return
    missing = np.arange(-(rank - 1), 0, dtype=np.int64)
    axes = initializer(model, fresh(f"{gather.name}.axes"), missing)
    rows = _behind(gather, "Gather", [scale, gather.inputs[1]], scale, fresh, {"axis": 0})
    factors = _behind(gather, "Unsqueeze", [rows, axes], scale, fresh, {})
    kind = scale.dtype or ir.DataType.FLOAT
    # The last that is put directly behind the Gather comes first.
    put_behind(gather, "Mul", fresh, others=[factors])
    put_behind(gather, "Cast", fresh, attributes={"to": int(kind)})


def _behind(
    gather: ir.Node,
    op: str,
    inputs: list[ir.Value | None],
    like: ir.Value,
    fresh: NameScope,
    attributes: Attributes,
) -> ir.Value:
    """A node in front of the Gather, so that it stands before what reads it."""
    output = ir.Value(name=fresh(f"{gather.name}.{op.lower()}"), type=like.type)
    node = ir.node(op, inputs, attributes, outputs=[output], name=fresh(f"{gather.name}/{op}"))
    if gather.graph is not None:
        gather.graph.insert_before(gather, node)
    return output
