"""Take out Relu and Clip nodes that the quantizer behind them performs anyway.

Case: ``Conv -> Clip -> QuantizeLinear`` where quantizing alone saturates at both bounds of the clip
(:func:`onnxq.numerics.affine.saturates`). A node in between would keep ONNX Runtime from fusing the
Conv into an integer kernel. The producer's output takes over the name of the node that goes, so
that the tensor that was observed keeps its name.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.graph.edit import remove_if_unread
from onnxq.passes.base import Editor, PlanPass


class AbsorbActivations(PlanPass):
    """Remove the nodes of ``plan.absorbed``."""

    def requires(self, model: ir.Model) -> None:
        """Every node that goes has one data input and its output is not a graph output."""
        editor = Editor(model)
        for entry in self.plan.absorbed:
            node = editor.node(entry.node)
            if node.outputs[0].is_graph_output():
                message = f"{entry.node} feeds a graph output"
                raise ir.passes.PreconditionError(message)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewire the readers and remove the nodes, and bounds that nobody else reads."""
        editor = Editor(model)
        for entry in self.plan.absorbed:
            node = editor.node(entry.node)
            before, after = node.inputs[0], node.outputs[0]
            if before is None:
                continue
            name = after.name
            after.replace_all_uses_with(before)
            bounds = [value for value in node.inputs[1:] if value is not None]
            model.graph.remove(node, safe=True)
            for value in dict.fromkeys(bounds):
                remove_if_unread(value)
            after.name = editor.fresh(f"{name}_absorbed")
            before.name = name
        return ir.passes.PassResult(model, modified=bool(self.plan.absorbed))
