"""Convert nodes and weights to float16 or bfloat16; the mirror image is ``graph/widen.py``.

Cases, for a value that one side has in 16 bits and the other in float32:
    - an output of a converted node: it keeps its name and has 16 bits; a Cast to float32 behind it
      serves all who read float32;
    - one that is an output of its graph: the Cast behind it takes over the name, so that names and
      types of the model's outputs, and of bodies', stay;
    - an input of a converted node that is float32: a Cast behind whoever makes it, or at the head
      of the graph whose input it is, serves all who read 16 bits, in bodies too;
    - a constant: its rounded twin, made when the model is written, is read by converted nodes; a
      constant of ``plan.half_weights`` exists only so, and others read a Cast of it, which ONNX
      Runtime computes once when it loads the model;
    - a Cast that is itself converted: it casts to 16 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnxq.errors import PlanError
from onnxq.graph.derived import Converted, Deriver
from onnxq.graph.edit import consumers
from onnxq.passes.base import Editor, PlanPass

if TYPE_CHECKING:
    from onnxq.plan import HalfNodeEntry, Plan

_FLOAT: Final = ir.DataType.FLOAT
_TYPES: Final = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}


class ToHalf(PlanPass):
    """Convert what ``plan.half_nodes`` and ``plan.half_weights`` name."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Convert in place."""
        _Narrowing(model, self.plan).run()
        return ir.passes.PassResult(model, modified=True)


class _Narrowing:
    def __init__(self, model: ir.Model, plan: Plan) -> None:
        self.model = model
        self.plan = plan
        self.editor = Editor(model)
        self.derive = Deriver(model)
        # One collector of names for both.
        self.derive.fresh = self.editor.fresh
        self._narrow_inputs = {(e.node, index) for e in plan.half_nodes for index in e.inputs}
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        made: dict[ir.Value, ir.DataType] = {}
        for entry in self.plan.half_nodes:
            for value in self._outputs(entry):
                made[value] = _TYPES[entry.type]
        for entry in self.plan.half_nodes:
            self._read_narrow(entry, made)
        for value, kind in made.items():
            value.type = ir.TensorType(kind)
            self._serve_float(value)
        for weight in self.plan.half_weights:
            self._store(weight.initializer, _TYPES[weight.type])
        self.editor.drop_if_unread(list(self.model.graph.initializers))

    def _outputs(self, entry: HalfNodeEntry) -> list[ir.Value]:
        node = self.editor.node(entry.node)
        _check(entry.outputs, len(node.outputs), entry)
        if node.op_type == "Cast" and not node.domain:
            node.attributes["to"] = ir.AttrInt64("to", int(_TYPES[entry.type]))
        return [node.outputs[index] for index in entry.outputs]

    def _read_narrow(self, entry: HalfNodeEntry, made: dict[ir.Value, ir.DataType]) -> None:
        node, kind = self.editor.node(entry.node), _TYPES[entry.type]
        _check(entry.inputs, len(node.inputs), entry)
        for index in entry.inputs:
            value = node.inputs[index]
            if value is not None and made.get(value) != kind:
                node.replace_input_with(index, self._narrow(value, kind))

    def _narrow(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        constant = value.is_initializer() and not value.is_graph_input()
        if constant and value.graph is self.model.graph:
            return self.derive(value, (Converted(kind),), kind.name.lower())
        return self._cast(value, kind)

    def _serve_float(self, value: ir.Value) -> None:
        """Let all who read float32 read a Cast of a value that has 16 bits now."""
        wide = [
            (node, index)
            for node, index in consumers(value)
            if (node.name or "", index) not in self._narrow_inputs
        ]
        graph = value.graph
        if isinstance(graph, ir.Graph) and value.is_graph_output():
            result = self._cast(value, _FLOAT)
            for place, output in enumerate(list(graph.outputs)):
                if output is value:
                    graph.outputs[place] = result
            value.name, result.name = result.name, value.name
        for node, index in wide:
            node.replace_input_with(index, self._cast(value, _FLOAT))

    def _store(self, name: str, kind: ir.DataType) -> None:
        value = self.editor.value(name)
        if value.const_value is None:
            code, text = "plan.unknown_name", f"the plan stores {name!r}, which is no constant"
            raise PlanError(code, text, remedy="make a plan for this model")
        narrow = self.derive(value, (Converted(kind),), kind.name.lower())
        if value.uses():
            value.replace_all_uses_with(self._cast(narrow, _FLOAT))

    def _cast(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        key = (value, kind)
        if key not in self._casts:
            base = f"{value.name}.{'float32' if kind == _FLOAT else kind.name.lower()}"
            node = self.editor.add("Cast", [value], base, kind, {"to": int(kind)})
            node.outputs[0].shape = value.shape
            self.editor.put_behind(value, node)
            self._casts[key] = node.outputs[0]
        return self._casts[key]


def _check(places: tuple[int, ...], count: int, entry: HalfNodeEntry) -> None:
    if any(not 0 <= place < count for place in places):
        code, text = "plan.unknown_name", f"the plan names inputs or outputs of {entry.node!r}"
        remedy = "make a plan for this model"
        raise PlanError(code, f"{text} that it does not have", remedy=remedy)
