"""Write into the model's metadata what it is and what it was compared on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.passes.base import PlanPass

if TYPE_CHECKING:
    from onnxq.plan import Plan

COMPARED_KEY = "onnxq.compared_on"


class Stamp(PlanPass):
    """Add ``onnxq.*`` entries to the metadata; everything else there stays."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add the entries."""
        model.metadata_props.update(metadata(self.plan))
        return ir.passes.PassResult(model, modified=True)


def metadata(plan: Plan) -> dict[str, str]:
    """The entries for a plan."""
    quantized = sum(site.decision != "float" for site in plan.sites)
    return {
        "onnxq.version": plan.onnxq_version,
        "onnxq.scheme": plan.scheme,
        "onnxq.format": plan.format,
        "onnxq.target": plan.target,
        "onnxq.sites": f"{quantized} of {len(plan.sites)} quantized",
        "onnxq.float_model": plan.model_digest,
        "onnxq.calibration_data": plan.data_digest,
        COMPARED_KEY: "held-out samples"
        if plan.independent
        else "samples that calibration saw: not independently verified",
    }
