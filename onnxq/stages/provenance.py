"""What a plan says of where it comes from and of how its result did."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from onnxq.plan import Provenance
from onnxq.runtime.machine import versions

if TYPE_CHECKING:
    from onnxq.plan import Plan
    from onnxq.recipe import Recipe
    from onnxq.verify.verification import Verification

_PACKAGES: Final = ("onnxruntime", "onnxruntime-gpu", "onnx")
_DIGITS: Final = 4
"""Significant digits of what is noted: the rest is the processor's order of additions."""


def with_origin(plan: Plan, recipe: Recipe) -> Plan:
    """The plan with what it was made of: recipe and versions."""
    found = versions()
    # How much memory the work may take, and what it keeps where, changes no byte of its result.
    left_out: dict[str, Any] = {"calibration": {"memory_budget"}, "engine_cache": True}
    wanted = recipe.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
    origin = Provenance(
        recipe={key: value for key, value in wanted.items() if value != {}},
        versions={name: found[name] for name in _PACKAGES if name in found},
    )
    return plan.model_copy(update={"provenance": origin})


def with_measured(plan: Plan, found: Verification) -> Plan:
    """The plan with what its result came to: accuracy, not speed, which is the machine's."""
    if plan.provenance is None:
        return plan
    measured = {k: _rounded(v) for k, v in _accuracy(found).items() if v is not None}
    origin = plan.provenance.model_copy(update={"measured": measured})
    return plan.model_copy(update={"provenance": origin})


def _accuracy(found: Verification) -> dict[str, float | int | str | None]:
    fidelity = found.fidelity
    if not fidelity.compared:
        return {}
    noted: dict[str, float | int | str | None] = {
        "on": "made-up inputs" if found.made_up else "samples",
        "samples": fidelity.samples,
        "output": fidelity.output,
        "sqnr_db": fidelity.sqnr_db,
        "cosine": fidelity.cosine,
        "equal_share": fidelity.equal_share,
        "top1_agreement": fidelity.top1_agreement,
        "float_accuracy": fidelity.float_accuracy,
        "quantized_accuracy": fidelity.quantized_accuracy,
    }
    if fidelity.language is not None:
        keys = ("kl_nats", "float_perplexity", "quantized_perplexity")
        noted |= {key: getattr(fidelity.language, key) for key in keys}
    return noted


def _rounded(value: float | str) -> float | int | str:
    """Fewer digits; what is not finite as a text, since JSON has no number for it."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else str(value)
