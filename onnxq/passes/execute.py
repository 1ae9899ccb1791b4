"""Execute a plan: the passes in their order, on a clone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.errors import OnnxqError
from onnxq.garbage import paced_collection
from onnxq.passes.absorb_activations import AbsorbActivations
from onnxq.passes.bound_masks import BoundMasks
from onnxq.passes.insert_qdq import InsertQDQ
from onnxq.passes.keep_apart import KeepApart
from onnxq.passes.pack_blocks import PackBlocks
from onnxq.passes.quantize_biases import QuantizeBiases
from onnxq.passes.quantize_constants import QuantizeConstants
from onnxq.passes.quantize_dynamic import QuantizeDynamic
from onnxq.passes.quantize_embeddings import QuantizeEmbeddings
from onnxq.passes.quantize_recurrent import QuantizeRecurrent
from onnxq.passes.quantize_weights import QuantizeWeights
from onnxq.passes.restore_layout import RestoreLayout
from onnxq.passes.scale_channels import ScaleChannels
from onnxq.passes.stamp import Stamp
from onnxq.passes.to_half import ToHalf
from onnxq.passes.to_qoperator import ToQOperator

if TYPE_CHECKING:
    from onnxq.plan import Plan


def execute(plan: Plan, model: ir.Model) -> ir.Model:
    """The quantized model; ``model`` (normalized, of the plan's opset) stays as it is.

    Raises:
        PlanError: The plan names what the model does not have, or lacks an array.
    """
    steps: tuple[tuple[object, ir.passes.PassBase], ...] = (
        (plan.scalings, ScaleChannels(plan.scalings, plan.arrays)),
        (plan.absorbed, AbsorbActivations(plan)),
        (plan.embeddings, QuantizeEmbeddings(plan)),
        (plan.dynamic, QuantizeDynamic(plan)),
        (plan.recurrent, QuantizeRecurrent(plan)),
        ((*plan.blocks, *plan.block_embeddings), PackBlocks(plan)),
        (plan.biases, QuantizeBiases(plan)),
        (plan.constants, QuantizeConstants(plan)),
        (plan.weights, QuantizeWeights(plan)),
        (plan.activations, InsertQDQ(plan)),
        (plan.kept_apart, KeepApart(plan)),
        (plan.masks, BoundMasks(plan.masks)),
        (plan.half_nodes or plan.half_weights, ToHalf(plan)),
        (True, RestoreLayout()),
        (plan.format == "qoperator", ToQOperator(plan)),
        (True, Stamp(plan)),
    )
    sequence = ir.passes.Sequential(*(step for entries, step in steps if entries))
    try:
        with paced_collection(len(model.graph)):
            return sequence(model.clone()).model
    except ir.passes.PassError as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise refusal from error


def _refusal(error: BaseException | None) -> OnnxqError | None:
    """The refusal of ours that the library has wrapped, if there is one."""
    while error is not None and not isinstance(error, OnnxqError):
        error = error.__cause__
    return error
