"""For each rule a model that breaks it and one that does not, as small a step apart as can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import ml_dtypes
import numpy as np

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
    packed,
    plain,
    proto,
    without_names,
)

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Case:
    """Two models, and on what they are judged.

    Attributes:
        broken: Breaks the rule.
        fine: Does not.
        vnni: Whether the processor has VNNI.
        loads: Whether ONNX Runtime is asked too; slower.
    """

    broken: onnx.ModelProto
    fine: onnx.ModelProto
    vnni: bool = True
    loads: bool = False


def _symmetric(text: str, **constants: Any) -> onnx.ModelProto:
    parameters: Constants = {"s": F32(0.03), "z": np.int8(0), "s2": F32(0.1), "z2": np.int8(0)}
    return proto(text, **{**parameters, **constants})


BASE = proto(matmul(), **PARAMETERS, **MATRIX)
FLOAT = proto(plain("y = MatMul(x, w)", to="float[4, 32]"), w=W8.astype(F32))
SYMMETRIC = _symmetric(matmul(), **MATRIX)
FULL: Constants = {**MATRIX, "w": np.full((16, 32), 127, np.int8)}
BIAS = RNG.normal(size=32).astype(F32)
GEMM = matmul("bd = DequantizeLinear<axis = 0>(b, bs) t = Gemm(xd, wd, bd)")
INT32: Constants = {"b": np.arange(32).astype(np.int32), "bs": (CHANNELS * F32(0.03)).astype(F32)}
SHARED = "t = MatMul(xd, wd) tq = QuantizeLinear(t, s2, z2) td = DequantizeLinear(tq, s2, z2)"
TINY: Constants = {**MATRIX, "ws": np.full(32, 1e-9, F32)}
TABLE: Constants = {"w": np.tile(W8, (4, 1)), "ws": F32(0.1), "wz": np.int8(0)}
LOOKUP = "g (int64[4] x) => (float[4, 32] y) {{ {} }}"
BLOCK4 = RNG.integers(-7, 7, (64, 32)).astype(ml_dtypes.int4)
BLOCK_TEXT = "wd = DequantizeLinear<axis = 0, block_size = 32>(w, ws) y = MatMul(x, wd)"
WIDE16: Constants = {"z": np.uint16(32768), "z2": np.uint16(32768)}


def _nbits(bits: int, size: int, level: int, kind: str = "float") -> onnx.ModelProto:
    attributes = f"K = 64, N = 8, bits = {bits}, block_size = {size}, accuracy_level = {level}"
    blocks = -(-64 // size)
    return proto(
        plain(
            f"y = com.microsoft.MatMulNBits<{attributes}>(x, w, ws)",
            of=f"{kind}[4, 64]",
            to=f"{kind}[4, 8]",
        ),
        w=RNG.integers(0, 255, (8, blocks, size * bits // 8)).astype(np.uint8),
        ws=np.full((8, blocks), 0.01, "float16" if kind == "float16" else "float32"),
    )


def _lookup(blocks: int) -> onnx.ModelProto:
    """Rows of several blocks, a zero point of its own for each."""
    draw = np.random.default_rng(0)
    attributes = "bits = 4, block_size = 32, gather_axis = 0, quantize_axis = 1"
    return proto(
        plain(
            "zero = Mul(x, none) i = Add(zero, rows) "
            f"y = com.microsoft.GatherBlockQuantized<{attributes}>(w, i, ws, wz)",
            of="int64[4]",
            to=f"float[4, {blocks * 32}]",
        ),
        none=np.int64(0),
        rows=np.asarray([1, 3, 6, 15]),
        w=draw.integers(0, 255, (16, blocks * 16)).astype(np.uint8),
        ws=np.full((16, blocks), 0.1, F32),
        wz=draw.integers(0, 255, (16, -(-blocks // 2))).astype(np.uint8),
    )


def _transposed(kind: str) -> onnx.ModelProto:
    text = "t = Transpose<perm = [1, 0, 2]>(x) y = MatMul(t, w)"
    values = (f"{kind}[5, 2, 8]", f"{kind}[2, 5, 8]")
    dtype = "float16" if kind == "float16" else "float32"
    return proto(plain(text, *values), w=RNG.normal(size=(8, 8)).astype(dtype))


def _residual(*, quantized: bool) -> onnx.ModelProto:
    other = "rq = QuantizeLinear(r, s, z) rd = DequantizeLinear(rq, s, z)" if quantized else ""
    added = "rd" if quantized else "r"
    weight = "wd = DequantizeLinear<axis = 0>(w, ws, wz) c = Conv<pads = [1, 1, 1, 1]>(xd, wd)"
    text = f"{PAIR} {weight} {other} t = Add(c, {added}) {OUT}"
    values = "(float[1, 8, 10, 10] x, float[1, 8, 10, 10] r) => (float[1, 8, 10, 10] y)"
    return _symmetric(f"g {values} {{ {text} }}", **CONV)


E4M3: Final = ml_dtypes.float8_e4m3fn
FP8: Constants = {"s": F32(0.03), "z": np.asarray(0, E4M3)}
FP8_PAIR: Final = "aq = QuantizeLinear<output_dtype = 17>(a, s) ad = DequantizeLinear(aq, s)"


def _float8_conv(channels: int) -> onnx.ModelProto:
    """A Conv of 16 outputs in FP8."""
    pair = FP8_PAIR.replace("a, s", "x, s")
    weight = "wd = DequantizeLinear<axis = 0>(w, ws) y = Conv(ad, wd)"
    values = (f"float[1, {channels}, 8, 8]", "float[1, 16, 6, 6]")
    kernel = RNG.normal(size=(16, channels, 3, 3)).astype(E4M3)
    return proto(
        plain(f"{pair} {weight}", *values), opset=21, w=kernel, ws=np.ones(16, F32), s=F32(0.03)
    )


def lost(op: str, *, zero_point: bool, between: str = "b = Identity(a)") -> onnx.ModelProto:
    """A Relu or Clip in front of a quantizer of FP8, with a zero point or without."""
    front = "n = Neg(x) " + ("a = Relu(n)" if op == "Relu" else "a = Clip(n, lo, hi)")
    bounds: Constants = {} if op == "Relu" else {"lo": F32(0), "hi": F32(6)}
    with_it = "q = QuantizeLinear(b, s, z) y = DequantizeLinear(q, s, z)"
    without = "q = QuantizeLinear<output_dtype = 17>(b, s) y = DequantizeLinear(q, s)"
    text = f"{front} {between} {with_it if zero_point else without}"
    constants = {**FP8, **bounds} if zero_point else {"s": FP8["s"], **bounds}
    return proto(plain(text), opset=21, **constants)


CASES: Final[dict[str, Case]] = {
    # Of any target.
    "does-not-load": Case(proto(matmul(), opset=28, **PARAMETERS, **MATRIX), BASE, loads=True),
    "initializer-is-input": Case(as_input(proto(matmul(), **PARAMETERS, **MATRIX), "w"), BASE),
    "unnamed-node": Case(without_names(proto(matmul(), **PARAMETERS, **MATRIX)), BASE),
    "foreign-domain": Case(
        proto(plain("y = somebody.Else(x)"), domains={"somebody": 1}), proto(plain("y = Relu(x)"))
    ),
    "float64-product": Case(
        proto(plain("y = MatMul(x, w)", "double[4, 16]", "double[4, 32]"), w=W8.astype(float)),
        FLOAT,
    ),
    "scale-not-positive": Case(
        proto(matmul(), **{**PARAMETERS, **MATRIX, "ws": np.zeros(32, F32)}), BASE
    ),
    "pair-differs": Case(
        proto(matmul().replace("(xq, s, z)", "(xq, s2, z)"), **PARAMETERS, **MATRIX), BASE
    ),
    "float8-pairs": Case(_float8_conv(16), BASE),
    "pair-twice": Case(
        proto(
            matmul(
                "q2 = QuantizeLinear(xd, s, z) d2 = DequantizeLinear(q2, s, z) t = MatMul(d2, wd)"
            ),
            **PARAMETERS,
            **MATRIX,
        ),
        BASE,
    ),
    # CPU: does it load?
    "transpose-and-cast": Case(_transposed("float16"), _transposed("float")),
    "bfloat16-kernels": Case(
        proto(plain("y = Relu(x)", "bfloat16[4]")), proto(plain("y = Identity(x)", "bfloat16[4]"))
    ),
    "opset-too-new": Case(
        proto(matmul(), opset=28, **PARAMETERS, **MATRIX),
        proto(matmul(), opset=27, **PARAMETERS, **MATRIX),
    ),
    "int8-output-dtype": Case(
        _symmetric(
            matmul().replace("QuantizeLinear(x,", "QuantizeLinear<output_dtype = 3>(x,"),
            **MATRIX,
            opset=21,
        ),
        _symmetric(matmul(), **MATRIX, opset=21),
    ),
    # CPU: does it run in integers?
    "idle-pair": Case(
        proto(plain(f"{PAIR} y = Tanh(xd)"), **PARAMETERS),
        proto(plain(f"{PAIR} t = Sigmoid(xd) {OUT}"), **PARAMETERS),
    ),
    "float-op-between-pairs": Case(
        proto(plain(f"{PAIR} t = Tanh(xd) {OUT}"), **PARAMETERS),
        proto(plain(f"{PAIR} t = Sigmoid(xd) {OUT}"), **PARAMETERS),
    ),
    "int8-activations": Case(
        _symmetric(plain(f"{PAIR} t = Add(xd, xd) {OUT}")),
        proto(plain(f"{PAIR} t = Add(xd, xd) {OUT}"), **PARAMETERS),
    ),
    "missing-output-pair": Case(
        proto(conv("y = Conv(xd, wd)", ""), **PARAMETERS, **CONV),
        proto(conv(), **PARAMETERS, **CONV),
    ),
    "activation-not-absorbed": Case(
        proto(conv("c = Conv(xd, wd) t = Relu(c)"), **PARAMETERS, **CONV),
        proto(conv("c = Conv(xd, wd) t = Relu(c)"), **{**PARAMETERS, "z2": np.uint8(0)}, **CONV),
    ),
    "covered-product": Case(
        proto(matmul("t = MatMul(xd, wd) y = Add(t, b)", ""), **PARAMETERS, **MATRIX, b=BIAS),
        proto(matmul("t = MatMul(xd, wd) y = Sum(t, b)", ""), **PARAMETERS, **MATRIX, b=BIAS),
        loads=True,
    ),
    "quantizer-not-alone": Case(
        proto(matmul(f"{SHARED} e = Exp(t) y = Mul(e, td)", ""), **PARAMETERS, **MATRIX),
        proto(matmul(f"{SHARED} e = Exp(td) y = Mul(e, td)", ""), **PARAMETERS, **MATRIX),
        loads=True,
    ),
    "wide-activations": Case(proto(matmul(), **{**PARAMETERS, **WIDE16}, **MATRIX, opset=21), BASE),
    # A bias that is no constant, which no other rule is about.
    "not-in-integers": Case(
        proto(
            "g (float[4, 16] x, float[32] c) => (float[4, 32] y) {"
            f"{PAIR} wd = DequantizeLinear<axis = 1>(w, ws, wz) t = Gemm(xd, wd, c) {OUT} }}",
            **PARAMETERS,
            **MATRIX,
        ),
        proto(matmul("t = Gemm(xd, wd, c)"), **PARAMETERS, **MATRIX, c=BIAS),
        loads=True,
    ),
    "axis-not-fused": Case(
        proto(
            matmul(axis=0),
            **{**PARAMETERS, "w": W8, "ws": CHANNELS[:16], "wz": np.zeros(16, np.int8)},
        ),
        BASE,
    ),
    "dynamic-conv": Case(
        proto(
            plain(
                "q, sc, zp = DynamicQuantizeLinear(x) t = ConvInteger(q, w, zp, wz)"
                "f = Cast<to = 1>(t) y = Mul(f, sc)",
                "float[1, 8, 10, 10]",
                "float[1, 8, 8, 8]",
            ),
            w=KERNEL8,
            wz=np.int8(0),
        ),
        proto(conv(), **PARAMETERS, **CONV),
    ),
    # CPU: is it fast?
    "uint8-weights": Case(
        proto(
            matmul(),
            **PARAMETERS,
            w=(W8.astype(np.int16) + 128).astype(np.uint8),
            ws=CHANNELS,
            wz=np.full(32, 128, np.uint8),
        ),
        BASE,
    ),
    "weight-dequantized-each-run": Case(
        proto(
            plain(
                "wd = DequantizeLinear<axis = 0>(w, ws, wz) y = Gemm<transB = 1>(x, wd)",
                "float[4, 32]",
                "float[4, 64]",
            ),
            w=np.tile(W8, (4, 1)),
            ws=np.full(64, 0.01, F32),
            wz=np.zeros(64, np.int8),
        ),
        proto(
            plain(
                "wd = DequantizeLinear<axis = 1>(w, ws, wz) y = MatMul(x, wd)",
                "float[4, 64]",
                "float[4, 32]",
            ),
            w=np.tile(W8, (4, 1)),
            ws=CHANNELS,
            wz=np.zeros(32, np.int8),
        ),
        loads=True,
    ),
    "table-dequantized": Case(
        proto(LOOKUP.format("d = DequantizeLinear(w, ws, wz) y = Gather(d, x)"), **TABLE),
        proto(LOOKUP.format("d = Gather(w, x) y = DequantizeLinear(d, ws, wz)"), **TABLE),
    ),
    "slow-block-kernel": Case(_nbits(8, 32, 0), _nbits(8, 32, 4)),
    "block-length": Case(_nbits(2, 16, 4), _nbits(2, 32, 4)),
    "float16-on-cpu": Case(
        proto(plain("y = MatMul(x, w)", "float16[4, 16]", "float16[4, 32]"), w=W8.astype("f2")),
        FLOAT,
    ),
    # CPU: is it accurate?
    "saturating-weights": Case(proto(matmul(), **PARAMETERS, **FULL), BASE, vnni=False),
    "saturating-weights-elsewhere": Case(proto(matmul(), **PARAMETERS, **FULL), BASE),
    "bias-overflow": Case(
        proto(matmul("t = Gemm(xd, wd, b)"), **PARAMETERS, **TINY, b=BIAS),
        proto(matmul("t = Gemm(xd, wd, b)"), **PARAMETERS, **MATRIX, b=BIAS),
    ),
    "bias-scale": Case(
        proto(GEMM, **PARAMETERS, **MATRIX, **{**INT32, "bs": INT32["bs"] * F32(2)}),
        proto(GEMM, **PARAMETERS, **MATRIX, **INT32),
    ),
    "float8-lost-activation": Case(lost("Relu", zero_point=True), lost("Relu", zero_point=False)),
    "axis-misread": Case(
        proto(conv(axis=1), **PARAMETERS, **CONV), proto(conv(), **PARAMETERS, **CONV)
    ),
    "optimizing-changes-results": Case(
        proto(conv(axis=1), **PARAMETERS, **CONV),
        proto(conv(), **PARAMETERS, **CONV),
        loads=True,
    ),
    # TensorRT.
    "tensorrt-zero-point": Case(BASE, SYMMETRIC),
    "tensorrt-integer-type": Case(BASE, SYMMETRIC),
    "tensorrt-bias": Case(
        _symmetric(GEMM, **MATRIX, **INT32),
        _symmetric(matmul("t = Gemm(xd, wd, b)"), **MATRIX, b=BIAS),
    ),
    "tensorrt-convtranspose-axis": Case(
        _symmetric(conv("t = ConvTranspose<pads = [2, 2, 2, 2]>(xd, wd)", axis=1), **CONV),
        _symmetric(conv("t = ConvTranspose<pads = [2, 2, 2, 2]>(xd, wd)", axis=0), **CONV),
    ),
    "tensorrt-activation-axis": Case(
        _symmetric(matmul(), **MATRIX, s=np.full(16, 0.03, F32), z=np.zeros(16, np.int8)),
        SYMMETRIC,
    ),
    "tensorrt-scale-computed": Case(
        _symmetric(matmul("a = Abs(s) q = QuantizeLinear(x, a, z) t = MatMul(xd, wd)"), **MATRIX),
        SYMMETRIC,
    ),
    "tensorrt-integer-operators": Case(
        proto(plain("q, sc, zp = DynamicQuantizeLinear(x) y = DequantizeLinear(q, sc, zp)")),
        SYMMETRIC,
    ),
    "tensorrt-contrib-operators": Case(
        proto(plain("y = com.microsoft.QuickGelu(x)")), proto(plain("y = Relu(x)"))
    ),
    "tensorrt-no-importer": Case(
        proto(plain("y = BitwiseNot(x)", "int32[4]"), opset=18),
        proto(plain("y = Neg(x)", "int32[4]"), opset=18),
    ),
    "tensorrt-weight-per-tensor": Case(
        _symmetric(matmul(), w=W8, ws=F32(0.1), wz=np.int8(0)), SYMMETRIC
    ),
    "tensorrt-residual": Case(_residual(quantized=False), _residual(quantized=True)),
    "tensorrt-int4": Case(
        proto(
            plain("wd = DequantizeLinear(w, ws) y = MatMul(x, wd)", "float[4, 64]", "float[4, 31]"),
            opset=21,
            w=packed("w", BLOCK4[:, :31]),
            ws=F32(0.1),
        ),
        proto(
            plain(BLOCK_TEXT, "float[4, 64]", "float[4, 32]"),
            opset=21,
            w=packed("w", BLOCK4),
            ws=np.full((2, 32), 0.1, F32),
        ),
    ),
    "tensorrt-float8-conv": Case(_float8_conv(3), _float8_conv(16)),
    "tensorrt-dynamic-shape": Case(
        proto(plain("y = Relu(x)", "float[N, 16]")), proto(plain("y = Relu(x)"))
    ),
    "tensorrt-opset": Case(
        proto(plain("y = Relu(x)"), opset=26), proto(plain("y = Relu(x)"), opset=25)
    ),
    # CUDA.
    "cuda-int8-pairs": Case(BASE, FLOAT),
    "cuda-integer-operators": Case(
        proto(plain("q, sc, zp = DynamicQuantizeLinear(x) y = DequantizeLinear(q, sc, zp)")),
        FLOAT,
    ),
    "cuda-int32-bias": Case(
        proto(GEMM, **PARAMETERS, **MATRIX, **INT32),
        # Between pairs ONNX Runtime would make a float bias int32 by itself.
        proto(plain("y = Gemm(x, w, b)", to="float[4, 32]"), w=W8.astype(F32), b=BIAS),
    ),
    "cuda-16-bit-pairs": Case(
        proto(matmul(), **{**PARAMETERS, **WIDE16}, **MATRIX, opset=21), BASE
    ),
    "cuda-float32-blocks": Case(_nbits(4, 32, 4), _nbits(4, 32, 4, "float16")),
    "cuda-block-width": Case(_nbits(2, 32, 4), _nbits(4, 32, 4)),
    "cuda-bfloat16": Case(
        proto(plain("c = Cast<to = 16>(x) r = Relu(c) y = Cast<to = 1>(r)"), opset=21),
        proto(plain("c = Cast<to = 10>(x) r = Relu(c) y = Cast<to = 1>(r)"), opset=21),
    ),
    "cuda-lookup-zero-points": Case(_lookup(3), _lookup(4)),
}
