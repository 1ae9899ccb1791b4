"""Plans from statistics that a test gives, without running any model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.algorithms.build_plan import PlanLabels, decide
from onnxq.algorithms.selection import select
from onnxq.algorithms.static_int8 import Int8Config
from onnxq.calibration.stats import Stats, TensorStats
from onnxq.graph.sites import find_sites
from onnxq.recipe import CalibrationSettings
from onnxq.runtime.machine import inspect_machine
from onnxq.targets import load_target, weight_scheme

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from onnxq.algorithms.selection import Selection
    from onnxq.numerics.schemes import Scheme
    from onnxq.plan import Plan
    from onnxq.recipe import RuleOutcome

LABELS = PlanLabels(
    model_digest="sha256:model", scheme="int8", target="cpu", minimum_opset=13, independent=True
)


def plan_for(
    model: ir.Model,
    ranges: Mapping[str, tuple[float, float]],
    *,
    keep_float: Mapping[str, str] | None = None,
    outcomes: Mapping[str, RuleOutcome] | None = None,
    weight: Scheme | None = None,
    activation: Scheme | None = None,
) -> Plan:
    """The static INT8 plan for the CPU where each tensor has the given extrema.

    A tensor that gets a scale of its own and is not among ``ranges`` is a KeyError; one that is
    among them and gets none, an AssertionError: so ``ranges`` says who shares a scale. Weights have
    the integers that this machine adds up without saturation, unless ``weight`` says otherwise.
    """
    target = load_target("cpu")
    selection = select(model, find_sites(model), target, keep_float or {})
    settings = CalibrationSettings(method="minmax")
    coded = activation or target.activation
    possible = weight_scheme(target, inspect_machine())
    pairwise = weight is None and possible.pairwise
    integers = weight or possible.scheme
    config = Int8Config(selection, coded, integers, settings, outcomes or {}, pairwise)
    stats = Stats("sha256:model", "sha256:data", 1)
    for name, (low, high) in ranges.items():
        stats.tensors[name] = TensorStats(2, [low], [high])
    chosen = {name: options[0] for name, options in config.candidates(stats).items()}
    assert chosen.keys() == ranges.keys()
    return decide(model, config, chosen, stats, LABELS)


def run_time_config(selection: Selection) -> Int8Config:
    """What dynamic INT8 is asked to do on this machine, by default."""
    weight = weight_scheme(load_target("cpu"), inspect_machine())
    return Int8Config(
        selection=selection,
        activation=load_target("cpu").activation,
        weight=weight.scheme,
        calibration=CalibrationSettings(),
        outcomes={},
        pairwise=weight.pairwise,
        ranges="run time",
    )
