"""Write into the model's metadata what it is, where it comes from and how it did.

No date and no path: the same model, data and versions give the same bytes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.passes.base import PlanPass
from onnxq.plan import plan_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.plan import Plan, Provenance

PREFIX = "onnxq."
"""Of every key."""

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
        COMPARED_KEY: _compared_on(plan),
        **({} if plan.provenance is None else _origin(plan, plan.provenance)),
    }


def _compared_on(plan: Plan) -> str:
    measured = {} if plan.provenance is None else plan.provenance.measured
    if plan.independent:
        return "held-out samples"
    what = (
        "made-up inputs"
        if measured.get("on") == "made-up inputs"
        else "samples that calibration saw"
    )
    return f"{what}: not independently verified"


def _origin(plan: Plan, found: Provenance) -> dict[str, str]:
    return {
        "onnxq.plan": plan_digest(plan),
        "onnxq.recipe": _text(found.recipe),
        "onnxq.made_with": _text(found.versions),
        "onnxq.measured": _text(found.measured),
    }


def _text(found: Mapping[str, object]) -> str:
    return json.dumps(found, sort_keys=True)
