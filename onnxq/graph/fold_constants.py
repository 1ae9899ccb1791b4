"""Constant expressions of bounded size are computed.

Declined: what makes an output of a graph; random operators; ConstantOfShape, which is smaller than
its result; Q/DQ, which says how a weight is quantized; anything with a large input.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import optimizer

FOLD_INPUT_ELEMENTS = 8192
FOLD_OUTPUT_ELEMENTS = 512 * 512
_KEEP = frozenset(
    {
        "ConstantOfShape",
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)


class FoldConstantsPass(ir.passes.InPlacePass):
    """Compute constant expressions of bounded size."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place."""
        optimizer.fold_constants(
            model,
            onnx_shape_inference=False,
            input_size_limit=FOLD_INPUT_ELEMENTS,
            output_size_limit=FOLD_OUTPUT_ELEMENTS,
            should_fold=_should_fold,
        )
        for graph in model.graphs():
            values = [*graph.initializers.values()]
            values += [output for node in graph for output in node.outputs]
            for value in values:
                value.metadata_props.pop("pkg.onnxscript.optimizer.folded_from", None)
        return ir.passes.PassResult(model, modified=True)

    def __repr__(self) -> str:
        """The pass's name."""
        return "FoldConstantsPass()"


def _should_fold(node: ir.Node) -> bool | None:
    if node.op_type in _KEEP or any(output.is_graph_output() for output in node.outputs):
        return False
    sizes = [v.const_value.size for v in node.inputs if v is not None and v.const_value is not None]
    # Its own rule folds a Transpose of any size, into memory; FoldLayoutPass has had its turn.
    return False if sizes and max(sizes) > FOLD_INPUT_ELEMENTS else None
