"""Dynamic and weight-only INT8 on small graphs: shapes as goldens, numbers against float64."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.algorithms.build_plan import assemble
from onnxq.algorithms.dynamic_int8 import decide_dynamic, select_dynamic
from onnxq.algorithms.weights_int8 import (
    BlockForm,
    decide_blocks,
    decide_per_channel,
    select_weights,
)
from onnxq.errors import PlanError
from onnxq.graph.io import to_bytes
from onnxq.graph.sites import find_sites
from onnxq.passes.execute import execute
from onnxq.recipe import RuleOutcome, WeightOverride
from onnxq.runtime.kernels import executed
from onnxq.targets import load_target
from tests.given_stats import LABELS, plan_for, run_time_config
from tests.rounded import rounded_to
from tests.small_models import graph_text, normal, normalized, run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.plan import Plan

CPU = load_target("cpu")
BLOCK_16 = BlockForm(16, 4)
MATMUL = "g (float[N, L, K] x) => (float[N, L, 6] y) { y = MatMul(x, w) }"
GEMM = "g (float[N, K] x) => (float[N, 6] y) { y = Gemm(x, w, b) }"
GEMM_T = "g (float[N, K] x) => (float[N, 6] y) { y = Gemm<transB = 1>(x, w, b) }"
SIBLINGS = """g (float[N, 16] x) => (float[N, 6] y, float[N, 6] z) {
    y = MatMul(x, w)
    z = MatMul(x, v)
}"""
BODY = """g (float[N, 16] x, bool c) => (float[N, 6] y) {
    y = If(c) <then_branch = t () => (float[N, 6] p) { p = MatMul(x, w) },
               else_branch = e () => (float[N, 6] q) { q = MatMul(x, v) }>
}"""
LSTM = """g (float[T, N, 5] x) => (float[T, 1, N, 4] y, float[1, N, 4] h) {
    y, h = LSTM<hidden_size = 4>(x, w, r, b)
}"""


def dynamic(model: ir.Model) -> Plan:
    selection = select_dynamic(model, find_sites(model), CPU, {})
    return assemble(
        LABELS, selection, "int8-dynamic", decide_dynamic(model, run_time_config(selection))
    )


def weights(model: ir.Model, form: str, block: BlockForm = BLOCK_16) -> Plan:
    blocks = form == "blocks"
    sites = find_sites(model)
    selection = select_weights(model, sites, CPU, {}, kernels=blocks, floats=not blocks)
    found = run_time_config(selection)
    if form == "blocks":
        fields = decide_blocks(model, found, block)
    else:
        fields = decide_per_channel(model, found, folded=form == "folded")
    return assemble(LABELS, selection, "int8-weights", fields)


def at_run_time(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """DynamicQuantizeLinear by its specification, and back."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = np.float32((high - low) / 255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    coded = np.clip(np.rint(x / scale) + zero, 0, 255)
    return np.asarray((coded.astype(float) - zero) * float(scale))


def per_channel(plan: Plan, name: str, w: NDArray[np.float32], axis: int) -> NDArray[np.float64]:
    shape = [1, 1]
    shape[axis] = -1
    scale = plan.arrays[f"weight/{name}/scale"].astype(float).reshape(shape)
    schemes = {entry.initializer: entry.scheme for entry in plan.weights}
    schemes |= {entry.initializer: entry.scheme for entry in plan.dynamic}
    return np.asarray(rounded_to(w, scale, schemes[name].bits, schemes[name].pairs) * scale)


def in_blocks(plan: Plan, name: str, w: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """``[K, N]`` through blocks of ``size`` along K, block by block."""
    scale = plan.arrays[f"block/{name}/scale"].astype(float).T
    result = np.empty(w.shape)
    for start in range(0, w.shape[0], size):
        part = w[start : start + size].astype(float)
        row = scale[start // size]
        result[start : start + size] = np.clip(np.rint(part / row), -127, 127) * row
    return result


def ops(model: ir.Model) -> list[str]:
    return [node.op for node in executed(to_bytes(model))]


def close(found: NDArray[Any], expected: NDArray[Any], tolerance: float = 1e-4) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_dynamic_matmul_is_the_standard_form() -> None:
    model = normalized(MATMUL.replace("K", "16"), w=normal(0, 16, 6))
    text = graph_text(execute(dynamic(model), model))
    assert [line.partition("(")[0] for line in text.splitlines()] == [
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "Cast",
        "Mul",
        "Mul",
    ]
    assert text.splitlines()[-1].endswith("-> y")


@pytest.mark.parametrize("text", [MATMUL, GEMM, GEMM_T])
def test_dynamic_numbers(text: str) -> None:
    w, b = normal(0, 16, 6), normal(1, 6)
    stored = np.ascontiguousarray(w.T) if "transB" in text else w
    bias = {} if text is MATMUL else {"b": b}
    model = normalized(text.replace("K", "16"), w=stored, **bias)
    plan = dynamic(model)
    x = normal(2, *((3, 5, 16) if text is MATMUL else (7, 16)))
    quantized = execute(plan, model)
    rounded = per_channel(plan, "w", stored, plan.dynamic[0].axis)
    rounded = rounded.T if "transB" in text else rounded
    expected = at_run_time(x) @ rounded + (0 if text is MATMUL else b)
    for level in ("none", "all"):
        close(run(quantized, {"x": x}, level)[0], expected)
    assert "DynamicQuantizeMatMul" in ops(quantized)


@pytest.mark.parametrize("text", [MATMUL, GEMM_T])
def test_dynamic_weights_with_one_scale_for_the_tensor(text: str) -> None:
    w = normal(0, 6, 16) if "transB" in text else normal(0, 16, 6)
    text = text.replace("K", "16").replace(", b)", ")")
    model = normalized(text, w=w)
    found = select_dynamic(model, find_sites(model), CPU, {})
    rule = RuleOutcome(weight=WeightOverride(granularity="tensor", bits=7))
    ruled = replace(run_time_config(found), outcomes={site.name: rule for site in found.chosen})
    plan = assemble(LABELS, found, "int8-dynamic", decide_dynamic(model, ruled))
    assert len(set(plan.arrays["weight/w/scale"].tolist())) == 1
    x = normal(2, *((3, 5, 16) if "transB" not in text else (7, 16)))
    close(run(execute(plan, model), {"x": x})[0], run(model, {"x": x})[0], 0.05)


def test_a_rule_that_blocks_cannot_keep_is_named() -> None:
    model = normalized(MATMUL.replace("K", "32"), w=normal(0, 32, 6))
    found = select_weights(model, find_sites(model), CPU, {}, kernels=True, floats=False)
    (site,) = found.chosen
    assert decide_blocks(model, run_time_config(found), BLOCK_16)["warnings"] == ()
    ruled = replace(
        run_time_config(found), outcomes={site.name: RuleOutcome(weight=WeightOverride(bits=7))}
    )
    (said,) = decide_blocks(model, ruled, BLOCK_16)["warnings"]
    assert said.startswith(f"{site.name}: a rule says")


def test_a_rule_holds_for_an_lstm_too() -> None:
    model = normalized(LSTM, w=normal(0, 1, 16, 5), r=normal(1, 1, 16, 4), b=normal(2, 1, 32))
    found = select_dynamic(model, find_sites(model), CPU, {})
    rule = RuleOutcome(weight=WeightOverride(bits=7))
    (site,) = found.chosen
    fields = decide_dynamic(model, replace(run_time_config(found), outcomes={site.name: rule}))
    assert [entry.bits for entry in fields["recurrent"]] == [7]


def test_products_that_read_one_activation_share_its_quantizer() -> None:
    model = normalized(SIBLINGS, w=normal(0, 16, 6), v=normal(1, 16, 6))
    quantized = execute(dynamic(model), model)
    assert sum(node.op_type == "DynamicQuantizeLinear" for node in quantized.graph) == 1
    assert ops(quantized).count("MatMulIntegerToFloat") == 2


@pytest.mark.parametrize("scheme", ["int8-dynamic", "blocks", "folded", "dq"])
def test_weights_inside_bodies_are_quantized_where_nothing_has_to_be_observed(scheme: str) -> None:
    model = normalized(BODY, w=normal(0, 16, 6), v=normal(1, 16, 6))
    plan = dynamic(model) if scheme == "int8-dynamic" else weights(model, scheme)
    assert {site.decision for site in plan.sites} == {plan.sites[0].decision} != {"float"}
    quantized = execute(plan, model)
    names = set(quantized.graph.initializers)
    assert not names & {"w", "v"}
    for choice in (True, False):
        feeds = {"x": normal(2, 4, 16), "c": np.asarray(choice)}
        close(run(quantized, feeds)[0], run(model, feeds)[0], 0.05)
        close(run(quantized, feeds, "all")[0], run(model, feeds)[0], 0.05)


def test_lstm_keeps_its_outputs_and_runs_in_the_integer_kernel() -> None:
    constants = {"w": normal(0, 1, 16, 5), "r": normal(1, 1, 16, 4), "b": normal(2, 1, 32)}
    model = normalized(LSTM, **constants)
    plan = dynamic(model)
    assert [site.decision for site in plan.sites] == ["int8-dynamic"]
    quantized = execute(plan, model)
    feeds = {"x": normal(3, 7, 2, 5)}
    for found, expected in zip(run(quantized, feeds), run(model, feeds), strict=True):
        close(found, expected, 0.1)
    assert ops(quantized) == ["DynamicQuantizeLSTM"]
    # One scale for each gate and unit: no value is further from its weight than half a step.
    for name in ("w", "r"):
        scale = plan.arrays[f"weight/{name}/scale"]
        assert scale.shape == (1, 16)


def test_conv_stays_float_and_says_why() -> None:
    text = "g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) { y = Conv(x, w) }"
    model = normalized(text, w=normal(0, 4, 3, 3, 3))
    (site,) = dynamic(model).sites
    assert site.decision == "float"
    assert "ConvInteger" in site.reason
    (site,) = weights(model, "blocks").sites
    assert site.decision == "float"
    assert "DequantizeLinear in front of it would run at every inference" in site.reason
    (site,) = weights(model, "dq").sites
    assert site.decision == "int8-weights"


@pytest.mark.parametrize("length", [16, 40, 70])
@pytest.mark.parametrize("text", [MATMUL, GEMM, GEMM_T])
def test_blocks_of_float_activations(text: str, length: int) -> None:
    """Lengths that are no multiple of the block, too; level 1 keeps activations float32."""
    w, b = normal(0, length, 6), normal(1, 6)
    stored = np.ascontiguousarray(w.T) if "transB" in text else w
    bias = {} if text is MATMUL else {"b": b}
    model = normalized(text.replace("K", str(length)), w=stored, **bias)
    plan = weights(model, "blocks", BlockForm(32, 1))
    x = normal(2, *((3, 5, length) if text is MATMUL else (7, length)))
    rounded = in_blocks(plan, "w", w, 32)
    expected = x.astype(float) @ rounded + (0 if text is MATMUL else b)
    quantized = execute(plan, model)
    for level in ("none", "all"):
        close(run(quantized, {"x": x}, level)[0], expected, 1e-3)
    assert ops(quantized) == ["MatMulNBits"]


def test_blocks_of_int8_activations_are_close() -> None:
    model = normalized(MATMUL.replace("K", "64"), w=normal(0, 64, 6))
    quantized = execute(weights(model, "blocks", BlockForm(32, 4)), model)
    feeds = {"x": normal(2, 3, 5, 64)}
    close(run(quantized, feeds)[0], run(model, feeds)[0], 0.02)


def test_an_input_of_one_dimension_is_declined() -> None:
    text = "g (float[16] x) => (float[6] y) { y = MatMul(x, w) }"
    (site,) = weights(normalized(text, w=normal(0, 16, 6)), "blocks").sites
    assert site.decision == "float"
    assert "1 dimension" in site.reason


LEFT = "g (float[N, 32, L] x) => (float[N, 6, L] y) { y = MatMul(w, x) }"
EXPERTS = "g (float[2, L, 32] x) => (float[2, L, 6] y) { y = MatMul(x, w) }"


@pytest.mark.parametrize(
    ("text", "shape", "words"),
    [(LEFT, (6, 32), "stands on the left"), (EXPERTS, (2, 32, 6), "3 dimensions")],
)
def test_weights_on_the_left_and_of_experts_are_quantized_alone(
    text: str, shape: tuple[int, ...], words: str
) -> None:
    model = normalized(text, w=normal(0, *shape))
    for plan in (dynamic(model), plan_for(model, {})):
        (site,) = plan.sites
        assert site.decision == "float"
        assert words in site.reason
    x = normal(1, 2, 32, 5) if text is LEFT else normal(1, 2, 5, 32)
    for form in ("blocks", "dq", "folded"):
        plan = weights(model, form, BlockForm(16, 1))
        (site,) = plan.sites
        if form == "blocks" and text is EXPERTS:
            assert "multiplies by a matrix" in site.reason
            continue
        assert site.decision == "int8-weights"
        quantized = execute(plan, model)
        close(run(quantized, {"x": x}, "all")[0], run(model, {"x": x})[0], 0.02)
        assert ("MatMulNBits" in ops(quantized)) == (form == "blocks")


def test_a_weight_on_the_left_of_something_of_unknown_rank_has_no_kernel() -> None:
    model = normalized(
        LEFT.replace("MatMul(w, x)", "MatMul(w, n)").replace("{", "{ n = Neg(x)"),
        w=normal(0, 6, 32),
    )
    model.graph[0].outputs[0].shape = None
    (site,) = weights(model, "blocks").sites
    assert "unknown rank" in site.reason


@pytest.mark.parametrize("form", ["dq", "folded"])
def test_weights_per_channel_are_those_of_the_plan(form: str) -> None:
    w = normal(0, 16, 6)
    model = normalized(MATMUL.replace("K", "16"), w=w)
    plan = weights(model, form)
    x = normal(2, 3, 5, 16)
    close(run(execute(plan, model), {"x": x})[0], x.astype(float) @ per_channel(plan, "w", w, 1))


@pytest.mark.parametrize(("op", "shape"), [("Conv", (6, 4, 3)), ("Conv<group = 2>", (6, 2, 3, 3))])
def test_folded_weights_cost_nothing_once_the_model_is_loaded(
    op: str, shape: tuple[int, ...]
) -> None:
    space = (8,) * (len(shape) - 2)
    dims, out = (", ".join([size] * len(space)) for size in ("8", "6"))
    text = f"g (float[N, 4, {dims}] x) => (float[N, 6, {out}] y) {{ y = {op}(x, w) }}"
    w = normal(0, *shape)
    model = normalized(text, w=w)
    plan = weights(model, "folded")
    quantized = execute(plan, model)
    stored = [v for v in quantized.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    assert [tuple(v.shape or ()) for v in stored] == [shape]
    assert not {"Cast", "Mul", "DequantizeLinear"} & set(ops(quantized))
    feeds = {"x": normal(2, 3, 4, *space)}
    expected = run(model, feeds)[0]
    for level in ("none", "all"):
        found = run(quantized, feeds, level)[0]
        assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_a_weight_that_two_sites_read_is_stored_once() -> None:
    text = SIBLINGS.replace("v)", "w)")
    text = text.replace("z = MatMul(x, w)", "n = Neg(x) z = MatMul(n, w)")
    model = normalized(text, w=normal(0, 16, 6))
    forms = [weights(model, form) for form in ("blocks", "folded", "dq")]
    for plan in (dynamic(model), *forms):
        quantized = execute(plan, model)
        integers = [
            value
            for value in quantized.graph.initializers.values()
            if value.dtype in (ir.DataType.INT8, ir.DataType.UINT8)
        ]
        assert len([value for value in integers if len(value.shape or ()) > 1]) == 1


@pytest.mark.parametrize(
    "change", [{"pairs": (5,)}, {"pairs": (0, 0)}, {"pairs": (1,)}, {"axis": 7}]
)
@pytest.mark.parametrize("kind", ["dynamic", "weights"])
def test_axes_that_a_weight_does_not_have_are_the_plans_fault(
    kind: str, change: dict[str, Any]
) -> None:
    """Along the output channels no products are summed."""
    model = normalized(MATMUL.replace("K", "16"), w=normal(0, 16, 6))
    plan = dynamic(model) if kind == "dynamic" else weights(model, "folded")
    (entry,) = getattr(plan, kind)
    damaged = plan.model_copy(update={kind: (entry.model_copy(update=change),)})
    with pytest.raises(PlanError, match="axes of 'w'"):
        execute(damaged, model)


def test_lstms_that_share_a_weight_share_its_integers() -> None:
    text = """g (float[T, N, 5] x) => (float[T, 1, N, 4] y, float[T, 1, N, 4] z) {
        y, h, c = LSTM<hidden_size = 4>(x, w, r)
        z, i, d = LSTM<hidden_size = 4>(x, w, r)
    }"""
    model = normalized(text, w=normal(0, 1, 16, 5), r=normal(1, 1, 16, 4))
    found = select_dynamic(model, find_sites(model), CPU, {})
    rule = RuleOutcome(weight=WeightOverride(bits=7))
    for site in found.chosen:
        ruled = replace(run_time_config(found), outcomes={site.name: rule})
        plan = assemble(LABELS, found, "int8-dynamic", decide_dynamic(model, ruled))
        x = normal(2, 6, 3, 5)
        expected, got = run(model, {"x": x}), run(execute(plan, model), {"x": x})
        for one, other in zip(expected, got, strict=True):
            close(other, one, 0.05)
