"""What the rules of the CPU provider claim, seen on the installed ONNX Runtime itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import pytest

from onnxq.errors import ModelError
from onnxq.lint import lint
from onnxq.runtime.kernels import executed
from onnxq.runtime.machine import inspect_machine
from tests.lint.cases import BIAS, CASES, GEMM, INT32, TINY, lost
from tests.lint.models import (
    CHANNELS,
    CONV,
    F32,
    KERNEL8,
    MATRIX,
    OUT,
    PAIR,
    PARAMETERS,
    RNG,
    W8,
    Constants,
    as_input,
    conv,
    matmul,
    ops,
    outputs,
    plain,
    proto,
    without_names,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

X = RNG.normal(size=(4, 16)).astype(F32)
IMAGE = RNG.normal(size=(1, 8, 10, 10)).astype(F32)
INTEGER = {"QLinearMatMul", "QGemm", "QLinearConv", "MatMulIntegerToFloat"}


@pytest.mark.parametrize(
    "rule",
    ["missing-output-pair", "activation-not-absorbed", "covered-product", "axis-not-fused",
     "quantizer-not-alone", "wide-activations", "not-in-integers"],
)  # fmt: skip
def test_the_broken_model_runs_in_float_and_the_other_in_integers(rule: str) -> None:
    assert not INTEGER & set(ops(CASES[rule].broken))
    assert INTEGER & set(ops(CASES[rule].fine))


@pytest.mark.skipif(not inspect_machine().x86, reason="int8 activations become uint8 on x86 alone")
def test_an_int8_activation_that_is_read_twice_keeps_what_reads_it_in_float() -> None:
    case = CASES["int8-activations"]
    assert "Add" in ops(case.broken)
    assert "QLinearAdd" in ops(case.fine)
    once = "b = Abs(x) bq = QuantizeLinear(b, s, z) bd = DequantizeLinear(bq, s, z) t = Add(xd, bd)"
    int8: Constants = {"s": F32(0.03), "z": np.int8(0), "s2": F32(0.1), "z2": np.int8(0)}
    assert "QLinearAdd" in ops(proto(plain(f"{PAIR} {once} {OUT}"), **int8))


@pytest.mark.parametrize("covering", ["Add(t, c)", "Clip(t, low)", "Relu(t)"])
def test_what_stands_behind_a_product_covers_it_and_behind_a_copy_does_not(covering: str) -> None:
    used: Constants = {**MATRIX, "c": BIAS, "low": F32(-1)}
    covered = matmul(f"t = MatMul(xd, wd) r = {covering} y = Neg(r)", "")
    copied = matmul(f"p = MatMul(xd, wd) t = Sum(p) r = {covering} y = Neg(r)", "")
    assert not INTEGER & set(ops(proto(covered, **PARAMETERS, **used)))
    assert "MatMulIntegerToFloat" in ops(proto(copied, **PARAMETERS, **used))


def test_a_wide_activation_becomes_a_product_that_rounds_it_in_blocks() -> None:
    assert "MatMulNBits" in ops(CASES["wide-activations"].broken)


def test_a_weight_that_is_an_input_is_not_fused() -> None:
    text = plain("wd = DequantizeLinear<axis = 1>(w, ws, wz) y = MatMul(x, wd)", to="float[4, 32]")
    assert ops(proto(text, **MATRIX)) == ["MatMulNBits"]
    assert "DequantizeLinear" in ops(as_input(proto(text, **MATRIX), "w"))


def test_nodes_without_names_cannot_be_told_apart() -> None:
    model = without_names(proto(matmul("t = Gemm(xd, wd)"), **PARAMETERS, **MATRIX))
    names = [node.name for node in executed(model.SerializeToString())]
    assert len(names) > len(set(names))


@pytest.mark.parametrize("scale", [0.0, np.inf, np.nan])
def test_a_scale_that_is_no_positive_number_ruins_the_output(scale: float) -> None:
    model = proto(matmul(), **{**PARAMETERS, **MATRIX, "ws": np.full(32, scale, F32)})
    right = outputs(CASES["scale-not-positive"].fine, {"x": X}, "none")
    found = outputs(model, {"x": X}, "none")
    assert np.ptp(right) > 1
    assert not np.isfinite(found).all() or np.ptp(found) == 0


def test_a_second_pair_changes_nothing_and_is_taken_out() -> None:
    pair = "{0}q = QuantizeLinear({0}, s, z) {1} = DequantizeLinear({0}q, s, z)"
    text = plain(f"{pair.format('x', 'd')} {pair.format('d', 'e')} y = Exp(e)")
    twice = proto(text, s=F32(0.05), z=np.uint8(128))
    once = proto(text.replace("Exp(e)", "Exp(d)"), s=F32(0.05), z=np.uint8(128))
    assert np.array_equal(outputs(twice, {"x": X}, "none"), outputs(once, {"x": X}, "none"))
    assert sorted(ops(twice)) == ["DequantizeLinear", "Exp", "QuantizeLinear"]


def test_a_pair_of_different_scales_multiplies() -> None:
    text = plain("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s2, z)")
    model = proto(text, s=F32(0.05), s2=F32(0.1), z=np.uint8(128))
    assert outputs(model, {"x": X}, "all") == pytest.approx(2 * X, abs=0.06)


@pytest.mark.parametrize("rule", ["weight-dequantized-each-run", "table-dequantized"])
def test_all_of_a_constant_is_dequantized_in_each_run(rule: str) -> None:
    broken, fine = (
        executed(model.SerializeToString()) for model in (CASES[rule].broken, CASES[rule].fine)
    )
    assert any(n.op == "DequantizeLinear" and n.inputs[0] == "w" for n in broken)
    assert not any(n.op == "DequantizeLinear" and n.inputs[0] == "w" for n in fine)


def differs(model: onnx.ModelProto, feeds: Constants) -> float:
    """The greatest difference that optimizing makes, over the greatest output."""
    written, run = outputs(model, feeds, "none"), outputs(model, feeds, "all")
    return float(np.abs(written - run).max() / np.abs(written).max())


@pytest.mark.parametrize("bias", ["Gemm(xd, wd, b)", "MatMul(xd, wd) t = Add(m, b)"])
def test_a_bias_beyond_int32_gives_wrong_numbers_without_a_word(bias: str) -> None:
    product = f"t = {bias}" if bias.startswith("Gemm") else f"m = {bias}"
    right = proto(matmul(product), **PARAMETERS, **MATRIX, b=BIAS)
    wrong = proto(matmul(product), **PARAMETERS, **TINY, b=BIAS)
    assert differs(right, {"x": X}) < 0.05
    assert differs(wrong, {"x": X}) > 0.5
    assert INTEGER & set(ops(wrong))


def test_a_bias_that_stays_float_may_be_as_large_as_it_likes(tmp_path: Path) -> None:
    """With a float output and three axes the Add is not merged: no kernel rounds the bias."""
    text = matmul("m = MatMul(xd, wd) y = Add(m, b)", "")
    text = text.replace("float[4, 16]", "float[N, 4, 16]").replace(
        "float[4, 32]", "float[N, 4, 32]"
    )
    model = proto(text, **PARAMETERS, **TINY, b=BIAS)
    assert ops(model) == ["QuantizeLinear", "MatMulIntegerToFloat", "Add"]
    assert differs(model, {"x": X[None]}) < 1e-6
    found = {finding.rule for finding in lint(write(model, tmp_path / "model.onnx")).findings}
    assert "bias-overflow" not in found


def test_a_conv_bias_beyond_int32_gives_wrong_numbers_too() -> None:
    tiny: Constants = {**CONV, "ws": np.full(8, 1e-9, F32)}
    model = proto(conv("t = Conv(xd, wd, b)"), **PARAMETERS, **tiny, b=BIAS[:8])
    assert differs(model, {"x": IMAGE}) > 0.5


def test_a_gemm_takes_its_bias_for_one_of_another_scale() -> None:
    b = np.full(32, 5000, np.int32)
    right = proto(GEMM, **PARAMETERS, **MATRIX, **{**INT32, "b": b})
    wrong = proto(GEMM, **PARAMETERS, **MATRIX, **{**INT32, "b": b, "bs": INT32["bs"] * F32(2)})
    assert differs(right, {"x": X}) < 0.05
    assert differs(wrong, {"x": X}) > 0.2
    assert "QGemm" in ops(wrong)


def test_a_conv_with_a_bias_of_another_scale_stays_in_float() -> None:
    text = conv("bd = DequantizeLinear<axis = 0>(b, bs) t = Conv(xd, wd, bd)")
    scales = (CHANNELS[:8] * F32(0.03)).astype(F32)
    b: Constants = {"b": np.arange(8).astype(np.int32), "bs": scales}
    assert INTEGER & set(ops(proto(text, **PARAMETERS, **CONV, **b)))
    wrong: Constants = {**b, "bs": scales * F32(2)}
    assert not INTEGER & set(ops(proto(text, **PARAMETERS, **CONV, **wrong)))


def test_scales_along_the_wrong_axis_of_a_conv_are_taken_for_those_of_channels() -> None:
    assert differs(CASES["axis-misread"].fine, {"x": IMAGE}) < 0.05
    assert differs(CASES["axis-misread"].broken, {"x": IMAGE}) > 0.5


def test_where_their_number_differs_it_fails_at_run_time() -> None:
    text = conv(axis=1).replace("float[1, 8, 8, 8] y", "float[1, 4, 8, 8] y")
    model = proto(text, **PARAMETERS, **{**CONV, "w": KERNEL8[:4]})
    assert outputs(model, {"x": IMAGE}, "none").shape == (1, 4, 8, 8)
    with pytest.raises(ModelError, match="filter scale shape invalid"):
        outputs(model, {"x": IMAGE}, "all")


def test_scales_along_the_wrong_axis_of_a_gemm_too() -> None:
    text = "wd = DequantizeLinear<axis = 1>(w, ws, wz) t = Gemm<transB = 1>(xd, wd)"
    square: Constants = {"w": W8[:, :16], "ws": CHANNELS[:16], "wz": np.zeros(16, np.int8)}
    body = matmul(text.partition(" t = ")[2].join(("t = ", "")), axis=1)
    model = proto(body.replace("float[4, 32]", "float[4, 16]"), **PARAMETERS, **square)
    assert differs(model, {"x": X}) > 0.2


def test_products_of_float8_run_in_float() -> None:
    found = ops(CASES["float8-pairs"].broken)
    assert "Conv" in found
    assert found.count("DequantizeLinear") == 2


@pytest.mark.parametrize("between", ["b = Identity(a)", "b = Transpose<perm = [0, 1]>(a)"])
def test_a_relu_in_front_of_float8_is_lost_with_a_zero_point_alone(between: str) -> None:
    feeds = {"x": X}
    for zero_point in (False, True):
        model = lost("Relu", zero_point=zero_point, between=between)
        written, run = (outputs(model, feeds, level) for level in ("none", "all"))
        assert written.min() >= 0
        assert (run.min() < 0) == zero_point


def test_a_clip_in_front_of_float8_does_not_load_with_a_zero_point() -> None:
    with pytest.raises(ModelError, match="y_zero_point"):
        outputs(lost("Clip", zero_point=True), {"x": X}, "all")
    assert outputs(lost("Clip", zero_point=False), {"x": X}, "all").min() >= 0


@pytest.mark.parametrize("op", ["Relu", "Clip"])
def test_without_two_rewrites_float8_is_right(op: str) -> None:
    session = ort.InferenceSession(
        lost(op, zero_point=True).SerializeToString(),
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["ReluQuantRewrite", "ClipQuantRewrite"],
    )
    assert session.run(None, {"x": X})[0].min() >= 0
