"""What --fix must leave as it is, or must do otherwise, because the plain repair would be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxq.lint import lint
from tests.lint.cases import CASES, LOOKUP
from tests.lint.models import (
    CHANNELS,
    F32,
    MATRIX,
    PAIR,
    PARAMETERS,
    RNG,
    W8,
    conv,
    matmul,
    outputs,
    packed,
    plain,
    proto,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

F16: Final = np.float16
X: Final = {"x": RNG.normal(size=(4, 16)).astype(F32)}
S: Final[dict[str, Any]] = {"s": F32(0.03), "z": np.uint8(128)}
TABLE: Final = np.tile(W8, (4, 1))
AGAIN: Final = "q2 = QuantizeLinear(xd, s, z) d2 = DequantizeLinear(q2, s, z)"


def pair_in_body(outside: str) -> str:
    """A pair in a branch, whose values are the branch's output and are made outside of it."""
    return f"""g (bool c, float[4, 16] x) => (float[4, 16] y) {{ {outside}
        y = If (c) <
            then_branch = t () => (float[4, 16] a) {{
                q = QuantizeLinear(v, s, z) a = DequantizeLinear(q, s, z) }},
            else_branch = e () => (float[4, 16] b) {{ b = Tanh(v) }}>
    }}"""


def bias_in_body() -> str:
    """A bias that is a branch's output."""
    return """g (bool c, float[32] x) => (float[32] y) {
        y = If (c) <
            then_branch = t () => (float[32] a) { a = DequantizeLinear(b, bs) },
            else_branch = e () => (float[32] b2) { b2 = Identity(x) }>
    }"""


BIAS: Final[dict[str, Any]] = {"b": np.arange(32).astype(np.int32), "bs": F32(0.01)}
LEFT: Final[dict[str, tuple[str, str, onnx.ModelProto]]] = {
    "a pair of two scales": (
        "cpu",
        "idle-pair",
        proto(
            plain("xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s2, z) y = Tanh(xd)"),
            **S,
            s2=F32(0.06),
        ),
    ),
    "a pair that changes the type": (
        "cpu",
        "idle-pair",
        proto(
            plain(
                "t = Tanh(x) q = QuantizeLinear(t, h, z) d = DequantizeLinear(q, s, z) y = Tanh(d)",
                "float16[4, 16]",
                "float[4, 16]",
            ),
            opset=21,
            **{**S, "s": F32(F16(0.03))},
            h=F16(0.03),
        ),
    ),
    "a branch's output that is made outside": (
        "cpu",
        "idle-pair",
        proto(pair_in_body("v = Tanh(x)"), **S),
    ),
    "the second pair has another scale": (
        "cpu",
        "pair-twice",
        proto(
            plain(
                f"{PAIR} q2 = QuantizeLinear(xd, s, z) d2 = DequantizeLinear(q2, s2, z) "
                "y = Tanh(d2)"
            ),
            **S,
            s2=F32(0.06),
        ),
    ),
    "a table of 4 bits": (
        "cpu",
        "table-dequantized",
        proto(
            LOOKUP.format("d = DequantizeLinear(w, ws) y = Gather(d, x)"),
            opset=21,
            w=packed("w", (TABLE // 16).astype(ml_dtypes.int4)),
            ws=F32(0.1),
        ),
    ),
    "a bias that is an output": (
        "tensorrt",
        "tensorrt-bias",
        proto(
            "g (float[4, 32] x) => (float[4, 32] y, float[32] d) "
            "{ d = DequantizeLinear(b, bs) y = Add(x, d) }",
            **BIAS,
        ),
    ),
    "a bias that is a branch's output": ("cuda", "cuda-int32-bias", proto(bias_in_body(), **BIAS)),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_cannot_be_repaired_is_told_and_left(case: str, tmp_path: Path) -> None:
    target, rule, model = LEFT[case]
    path, output = write(model, tmp_path / "model.onnx"), tmp_path / "fixed.onnx"
    result = lint(path, target, fix_to=output)
    assert {f.fixable for f in result.findings if f.rule == rule} == {False}
    assert rule not in {fixed.rule for fixed in result.fixed}


def half(text: str) -> str:
    """The same in float16."""
    return text.replace("float[", "float16[")


_HALF: Final[dict[str, Any]] = {"s": F16(0.03), "z": np.uint8(128), "wz": np.int8(0), "w": W8}
REPAIRED: Final[dict[str, tuple[str, str, onnx.ModelProto, dict[str, Any]]]] = {
    "a Relu of float16": (
        "cpu",
        "covered-product",
        proto(
            half(matmul("t = MatMul(xd, wd) r = Relu(t) y = Neg(r)", "")),
            opset=21,
            **{**_HALF, "ws": CHANNELS.astype(F16), "wz": np.zeros(32, np.int8)},
        ),
        {"x": X["x"].astype(F16)},
    ),
    "integers of a bias beyond float16": (
        "tensorrt",
        "tensorrt-bias",
        proto(
            half(matmul("bd = DequantizeLinear(b, bs) t = Gemm(xd, wd, bd) y = Neg(t)", "")),
            opset=21,
            **{**_HALF, "ws": CHANNELS.astype(F16), "wz": np.zeros(32, np.int8)},
            b=np.linspace(-200_000, 200_000, 32).astype(np.int32),
            bs=F16(0.0002),
        ),
        {"x": X["x"].astype(F16)},
    ),
    "a table of ONNX Runtime's own 16 bits": (
        "cpu",
        "table-dequantized",
        proto(
            LOOKUP.format("d = com.microsoft.DequantizeLinear(w, ws, wz) y = Gather(d, x)"),
            w=TABLE.astype(np.int16).astype(np.uint16),
            ws=F32(0.1),
            wz=np.uint16(7),
        ),
        {"x": np.array([3, 0, 63, 5], np.int64)},
    ),
    "a table that is an output too": (
        "cpu",
        "table-dequantized",
        proto(
            LOOKUP.format("d = DequantizeLinear(w, ws) y = Gather(d, x)").replace(
                "y)", "y, float[64, 32] d)", 1
            ),
            w=TABLE,
            ws=F32(0.1),
        ),
        {"x": np.array([3, 0, 63, 5], np.int64)},
    ),
    "integers that something else reads": (
        "cpu",
        "pair-twice",
        proto(
            plain(f"{PAIR} {AGAIN} t = Tanh(d2) c = Cast<to = 1>(q2) y = Add(t, c)"),
            **S,
        ),
        X,
    ),
    "a zero point of one element beside a scale of none": (
        "cpu",
        "int8-activations",
        proto(
            matmul("m = MatMul(xd, wd) n = Neg(xd)", "y = Add(m, m)"),
            **{**PARAMETERS, "z": np.array([-7], np.int8)},
            **MATRIX,
        ),
        X,
    ),
}


@pytest.mark.parametrize("case", REPAIRED)
def test_what_is_repaired_gives_the_same_bits(case: str, tmp_path: Path) -> None:
    target, rule, model, feeds = REPAIRED[case]
    path, output = write(model, tmp_path / "model.onnx"), tmp_path / "fixed.onnx"
    result = lint(path, target, fix_to=output)
    if rule == "int8-activations" and rule not in {fixed.rule for fixed in result.fixed}:
        pytest.skip("int8 activations become uint8 on x86 alone")
    assert rule in {fixed.rule for fixed in result.fixed}
    fixed = onnx.load(output)
    onnx.checker.check_model(fixed, full_check=True)
    assert [o.name for o in fixed.graph.output] == [o.name for o in model.graph.output]
    assert np.array_equal(outputs(fixed, feeds, "none"), outputs(model, feeds, "none"))
    assert np.isfinite(outputs(fixed, feeds, "none")).all()


def test_pairs_of_other_integers_are_not_the_same_pair(tmp_path: Path) -> None:
    """int8 in front of uint8 at zero point 0 is a Relu."""
    text = plain(
        "q = QuantizeLinear(x, s, zi) d = DequantizeLinear(q, s, zi)"
        "q2 = QuantizeLinear(d, s, zu) d2 = DequantizeLinear(q2, s, zu) y = Tanh(d2)"
    )
    model = proto(text, s=F32(0.03), zi=np.int8(0), zu=np.uint8(0))
    assert "pair-twice" not in {f.rule for f in lint(write(model, tmp_path / "m.onnx")).findings}


@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt"])
@pytest.mark.parametrize(
    "model",
    [
        proto(
            matmul("m = MatMul(xd, wd) t = Add(m, b)", axis=0),
            **PARAMETERS,
            w=W8,
            ws=CHANNELS[:16],
            wz=np.zeros(16, np.int8),
            b=RNG.normal(size=32).astype(F32),
        ),
        proto(
            matmul("t = Gemm(xd, wd, b)", axis=0),
            **PARAMETERS,
            w=W8,
            ws=CHANNELS[:16],
            wz=np.zeros(16, np.int8),
            b=RNG.normal(size=32).astype(F32),
        ),
        proto(
            conv("t = Conv(xd, wd, b)"),
            **PARAMETERS,
            w=RNG.integers(-9, 9, (8, 8, 3, 3)).astype(np.int8),
            ws=CHANNELS[:5],
            wz=np.zeros(5, np.int8),
            b=np.ones(8, F32),
        ),
        proto(
            plain("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z2)"),
            s=CHANNELS[:16],
            z=np.zeros(4, np.uint8),
            z2=np.zeros(3, np.uint8),
        ),
        proto(conv(), **PARAMETERS, w=W8[0], ws=F32(0.1), wz=np.int8(0)),
        proto(matmul("t = Gemm(xd, wd)"), **PARAMETERS, w=np.int8(9), ws=F32(0.1), wz=np.int8(0)),
        proto(
            conv(),
            opset=21,
            **PARAMETERS,
            w=packed("w", np.ones(8, ml_dtypes.float8_e4m3fn)),
            ws=F32(0.1),
            wz=packed("wz", np.zeros((), ml_dtypes.float8_e4m3fn)),
        ),
    ],
    ids=["MatMul", "Gemm", "Conv", "pair", "Conv of a vector", "Gemm of a number", "float8"],
)
def test_what_no_operator_takes_is_no_fault_of_the_checks(
    model: onnx.ModelProto, target: str, tmp_path: Path
) -> None:
    assert lint(write(model, tmp_path / "model.onnx"), target).counting


def test_zero_points_of_a_lookup_that_are_one_number_are_no_fault_of_the_checks(
    tmp_path: Path,
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(CASES["cuda-lookup-zero-points"].broken)
    (zero_points,) = (tensor for tensor in model.graph.initializer if tensor.name == "wz")
    zero_points.CopyFrom(numpy_helper.from_array(np.asarray(8, np.uint8), "wz"))
    rules = {found.rule for found in lint(write(model, tmp_path / "model.onnx"), "cuda").findings}
    assert "cuda-lookup-zero-points" not in rules
