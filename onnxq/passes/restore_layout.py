"""Write the original of a rearranged weight again where the rearranged one makes the file larger.

Normalization turns ``Transpose(w)``, ``Cast(w)`` and the like into initializers of their own
(``graph/derived.py``). Where every reader is quantized they are gone by now. Those that are still
read as float stay if that costs nothing, which is so for a weight that was only transposed. Cases
that become ``w -> nodes -> readers`` again, once for each rearrangement:

* a tied weight whose float original stays for others, or that is rearranged in several ways;
* a weight that is stored in fewer bits than it is computed in;
* a tied weight of which all forms are stored in 16 bits: the plain one serves the others.

ONNX Runtime computes these nodes once, when it loads the model.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.derived import Converted, Origin, Reshaped, Step, Transposed, origin_of
from onnxq.passes.base import Editor

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORTH = 1024
"""Least saving in bytes; a node and its names take some hundred."""


class RestoreLayout(ir.passes.InPlacePass):
    """Restore originals where that makes the file smaller; a plan plays no part."""

    def __repr__(self) -> str:
        """The pass's name."""
        return "RestoreLayout()"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Restore in place."""
        groups: defaultdict[int, list[tuple[ir.Value, Origin]]] = defaultdict(list)
        present: dict[int, ir.Value] = {}
        for value in model.graph.initializers.values():
            origin = origin_of(value)
            if origin is not None:
                groups[id(origin.tensor)].append((value, origin))
            elif value.const_value is not None:
                present[id(value.const_value)] = value
        known = [_from_converted(members, present.get(key)) for key, members in groups.items()]
        worth = [pair for pair in known if pair[0] and _saving(*pair) >= _WORTH]
        if not worth:
            return ir.passes.PassResult(model, modified=False)
        editor = Editor(model)
        for members, source in worth:
            _restore(editor, members, source)
        return ir.passes.PassResult(model, modified=True)


def _from_converted(
    members: list[tuple[ir.Value, Origin]], source: ir.Value | None
) -> tuple[list[tuple[ir.Value, Origin]], ir.Value | None]:
    """Those to write again, and from what: the original, or what was converted and no more."""
    plain = [m for m in members if len(m[1].steps) == 1 and isinstance(m[1].steps[0], Converted)]
    if source is not None or not plain:
        return members, source
    value, origin = plain[0]
    others = [
        (other, replace(found, steps=found.steps[:-1]))
        for other, found in members
        if other is not value and found.steps[-1:] == origin.steps
    ]
    return (others, value) if others else (members, source)


def _saving(members: Sequence[tuple[ir.Value, Origin]], source: ir.Value | None) -> int:
    tensors = [value.const_value for value, _ in members]
    kept = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    return kept - (members[0][1].tensor.nbytes if source is None else 0)


def _restore(
    editor: Editor, members: Sequence[tuple[ir.Value, Origin]], source: ir.Value | None
) -> None:
    if source is None:
        origin = members[0][1]
        source = editor.constant(origin.name, origin.tensor)
    for derived, origin in members:
        value = source
        nodes = []
        for step in origin.steps:
            node = _node(editor, value, step)
            nodes.append(node)
            value = node.outputs[0]
        editor.put_first(tuple(nodes))
        derived.replace_all_uses_with(value)
        editor.drop_if_unread((derived.name or "",))


def _node(editor: Editor, value: ir.Value, step: Step) -> ir.Node:
    dtype = value.dtype or ir.DataType.FLOAT
    inputs = [value]
    attributes: dict[str, int | tuple[int, ...]] = {}
    base = f"{value.name}"
    if isinstance(step, Transposed):
        op, attributes = "Transpose", {"perm": step.order}
    elif isinstance(step, Converted):
        op, attributes, dtype = "Cast", {"to": int(step.dtype)}, step.dtype
    elif isinstance(step, Reshaped):
        op = "Reshape"
        inputs.append(editor.constant(f"{base}_shape", np.asarray(step.shape, np.int64)))
    else:
        op = "Mul"
        factor = np.asarray(step.factor, dtype.numpy())
        inputs.append(editor.constant(f"{base}_factor", factor))
    return editor.add(op, inputs, f"{base}_{op.lower()}", dtype, attributes)
