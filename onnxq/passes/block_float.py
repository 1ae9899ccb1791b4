"""A weight in blocks that becomes float before it is read, by ONNX's own operators.

Two forms, written once for each weight however many nodes read it:

* ``dq``: ``integers -> DequantizeLinear -> readers``, at each inference unless the provider has a
  kernel for the pair. Along one axis of the weight in its own layout; where more than one axis is
  summed over (Conv), along the rows of ``[N, K]``, with a Reshape behind.
* ``folded``: ``integers [N, K] -> Cast -> Sub(zero_point) -> Mul(scale) -> readers``, which ONNX
  Runtime computes once when it loads the model, with what brings scales to ``[N, K]`` and the
  product into the weight's own layout.

Symmetric integers are stored signed and without zero points. Types of 4 bits want opset 21, those
of 2 bits opset 25.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.errors import PlanError
from onnxq.graph.opset import opset_version
from onnxq.plan import Reader

if TYPE_CHECKING:
    from onnxq.passes.base import Editor
    from onnxq.passes.block_weight import BlockWeight
    from onnxq.plan import BlockEntry

_FLOAT = ir.DataType.FLOAT

_Steps = list[tuple[str, list[tuple[int, ...]]]]
"""Operators with their constant inputs."""


class FloatWeights:
    """Writes weights that are float where they are read."""

    def __init__(self, editor: Editor) -> None:
        """Nothing is written yet."""
        self._editor = editor
        self._made: dict[tuple[str, str], ir.Value] = {}

    def __call__(self, entry: BlockEntry, weight: BlockWeight) -> None:
        """Let the node of ``entry`` read the weight in its form.

        Raises:
            PlanError: The model's opset lacks the operators.
        """
        version = opset_version(self._editor.model)
        if version < entry.minimum_opset:
            text = f"weights of {entry.bits} bits in the form {entry.form!r} want opset"
            code, text = "plan.opset", f"{text} {entry.minimum_opset}; the model has {version}"
            raise PlanError(code, text, where=entry.node, remedy="make the plan again")
        key = weight.name, entry.form
        if key not in self._made:
            self._made[key] = self._written(entry, weight)
        place = Reader(node=entry.node, input=entry.weight)
        self._editor.rewire((place,), self._made[key])

    def _written(self, entry: BlockEntry, weight: BlockWeight) -> ir.Value:
        make = self._dequantized if entry.form == "dq" else self._folded
        nodes = make(weight)
        self._editor.put_first(tuple(nodes))
        value = nodes[-1].outputs[0]
        value.shape = ir.Shape(weight.layout.shape)
        return value

    def _dequantized(self, weight: BlockWeight) -> list[ir.Node]:
        editor, layout, name = self._editor, weight.layout, weight.name
        own = _one_axis(weight)
        scale, zero, attributes = weight.scale, weight.zero_point, {"axis": 1}
        if own and weight.blocks == 1 and len(layout.order) == len(layout.sums) + 1:
            scale, zero, attributes = scale[:, 0], zero[:, 0], {"axis": layout.order[0]}
        elif own:
            scale, zero = layout.restore(scale), layout.restore(zero)
            attributes = {"axis": layout.sums[0], "block_size": weight.block_size}
        else:
            attributes["block_size"] = weight.block_size
        inputs = [
            editor.constant(f"{name}_quantized", weight.stored(own_layout=own)),
            editor.constant(f"{name}_scale", scale),
        ]
        if not weight.symmetric:
            inputs.append(editor.constant(f"{name}_zero_point", weight.typed(zero)))
        base = f"{name}_dequantized"
        made = [editor.add("DequantizeLinear", inputs, base, _FLOAT, attributes)]
        return made if own else made + self._to_own_layout(made[0].outputs[0], weight)

    def _folded(self, weight: BlockWeight) -> list[ir.Node]:
        editor, name = self._editor, weight.name
        to = {"to": int(_FLOAT)}
        coded = editor.constant(f"{name}_quantized", weight.stored(own_layout=False))
        nodes = [editor.add("Cast", [coded], f"{name}_cast", _FLOAT, to)]
        terms = [("Mul", editor.constant(f"{name}_scale", weight.scale[..., None]))]
        if not weight.symmetric:
            points = weight.typed(weight.zero_point[..., None])
            zero = editor.constant(f"{name}_zero_point", points)
            nodes.append(editor.add("Cast", [zero], f"{name}_zero_point_cast", _FLOAT, to))
            terms.insert(0, ("Sub", nodes[-1].outputs[0]))
        value = nodes[0].outputs[0]
        for op, column in terms:
            spread = self._spread(column, weight)
            inputs = [value, spread[-1].outputs[0]]
            nodes += [*spread, editor.add(op, inputs, f"{name}_{op.lower()}", _FLOAT)]
            value = nodes[-1].outputs[0]
        return nodes + self._to_own_layout(value, weight)

    def _spread(self, column: ir.Value, weight: BlockWeight) -> list[ir.Node]:
        """``[N, blocks, 1]`` as ``[N, K]``."""
        base, layout, size = f"{column.name}", weight.layout, weight.block_size
        wide = (layout.channels, weight.blocks, size)
        steps: _Steps = [("Expand", [wide]), ("Reshape", [(wide[0], weight.blocks * size)])]
        if weight.blocks * size > layout.length:
            steps.append(("Slice", [(0,), (layout.length,), (1,)]))
        return self._steps(column, base, steps)

    def _to_own_layout(self, value: ir.Value, weight: BlockWeight) -> list[ir.Node]:
        """``[N, K]`` as the weight's own layout."""
        layout, base = weight.layout, f"{weight.name}_matrix"
        nodes = []
        if len(layout.shape) > 2:
            nodes = self._steps(value, base, [("Reshape", [layout.ordered])])
            value = nodes[-1].outputs[0]
        if layout.inverse != tuple(range(len(layout.shape))):
            perm = {"perm": layout.inverse}
            nodes.append(self._editor.add("Transpose", [value], f"{base}_transposed", _FLOAT, perm))
        return nodes

    def _steps(self, value: ir.Value, base: str, steps: _Steps) -> list[ir.Node]:
        """Operators one after another, each with constants of integers."""
        nodes: list[ir.Node] = []
        for op, arguments in steps:
            kind = f"{base}_{op.lower()}"
            constants = [
                self._editor.constant(f"{kind}_argument", np.asarray(argument, np.int64))
                for argument in arguments
            ]
            nodes.append(self._editor.add(op, [value, *constants], kind, _FLOAT))
            value = nodes[-1].outputs[0]
        return nodes


def _one_axis(weight: BlockWeight) -> bool:
    """Whether DequantizeLinear takes the weight in its own layout.

    Not integers of 2 bits ``[K, N]`` of which N is no multiple of 4: ONNX Runtime 1.32 would make
    MatMulNBits of DequantizeLinear and MatMul, and transposes them wrongly.
    """
    layout = weight.layout
    misread = weight.bits == 2 and layout.order == (1, 0) and layout.channels % 4
    return len(layout.sums) == 1 and not misread
