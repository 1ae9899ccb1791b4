"""Execute a plan: the passes in their order, on a clone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.passes.absorb_activations import AbsorbActivations
from onnxq.passes.insert_qdq import InsertQDQ
from onnxq.passes.quantize_biases import QuantizeBiases
from onnxq.passes.quantize_embeddings import QuantizeEmbeddings
from onnxq.passes.quantize_weights import QuantizeWeights
from onnxq.passes.scale_channels import ScaleChannels
from onnxq.passes.stamp import Stamp

if TYPE_CHECKING:
    from onnxq.plan import Plan


def execute(plan: Plan, model: ir.Model) -> ir.Model:
    """The quantized model; ``model`` (normalized, of the plan's opset) stays as it is."""
    sequence = ir.passes.Sequential(
        ScaleChannels(plan.scalings, plan.arrays),
        AbsorbActivations(plan),
        QuantizeEmbeddings(plan),
        QuantizeBiases(plan),
        QuantizeWeights(plan),
        InsertQDQ(plan),
        Stamp(plan),
    )
    return sequence(model.clone()).model
