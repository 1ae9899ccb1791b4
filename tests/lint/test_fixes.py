"""What --fix repairs: the rule is kept afterwards, and the outputs are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import pytest

from onnxq.errors import BoundMissedError, InternalError, UsageError
from onnxq.lint import fixes, lint, repair
from onnxq.runtime.kernels import count_kernels, executed
from tests.lint.cases import BASE, CASES, INT32, LOOKUP
from tests.lint.models import (
    F32,
    MATRIX,
    PAIR,
    PARAMETERS,
    RNG,
    W8,
    Constants,
    matmul,
    outputs,
    plain,
    proto,
    without_names,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

X: Final = {"x": RNG.normal(size=(4, 16)).astype(F32)}
IDS: Final = {"x": np.array([3, 0, 63, 5], np.int64)}
ROWS: Final[Constants] = {"w": np.tile(W8, (4, 1)), "ws": np.linspace(0.1, 0.2, 64).astype(F32)}
TWICE = (
    "m = MatMul(xd, wd) mq = QuantizeLinear(m, s2, z2) md = DequantizeLinear(mq, s2, z2)"
    "t = Add(md, md)"
)
RELU = matmul("t = MatMul(xd, wd) r = Relu(t) y = Neg(r)", "")
RESIDUAL = (
    "g (float[4, 16] x, float[4, 32] r) => (float[4, 32] y) {"
    f"{PAIR} wd = DequantizeLinear<axis = 1>(w, ws, wz) t = MatMul(xd, wd) y = Add(r, t) }}"
)

CLIP = matmul("t = MatMul(xd, wd) r = Clip(t, low) y = Neg(r)", "")
GIVEN = matmul(
    "y = MatMul(xd, wd) yq = QuantizeLinear(y, s2, z2) yd = DequantizeLinear(yq, s2, z2)"
    "z3 = Sigmoid(yd)",
    "",
).replace("(float[4, 32] y)", "(float[4, 32] y, float[4, 32] z3)")
BIASED = matmul(
    "bd = DequantizeLinear<axis = 0>(b, bs) m = MatMul(xd, wd) t = Add(m, bd)"
    "tq = QuantizeLinear(t, s2, z2) td = DequantizeLinear(tq, s2, z2) e = Exp(t) y = Mul(e, td)",
    "",
)
STACKED = RNG.normal(size=(3, 4, 16))
TRANSPOSED = """g (double[3, 4, 16] x) => (float[4, 3, 32] y) {
    t = Transpose<perm = [1, 0, 2]>(x) c = Cast<to = 1>(t) y = MatMul(c, w)
}"""
_INT8 = {"z": np.int8(-7), "z2": np.int8(5)}

EXACT: Final[dict[str, tuple[str, onnx.ModelProto, dict[str, Any]]]] = {
    "initializer-is-input": ("cpu", CASES["initializer-is-input"].broken, X),
    "unnamed-node": ("cpu", CASES["unnamed-node"].broken, X),
    "int8-activations": ("cpu", proto(matmul(TWICE), **{**PARAMETERS, **_INT8}, **MATRIX), X),
    "pair-twice": ("cpu", CASES["pair-twice"].broken, X),
    "table-dequantized": ("cpu", CASES["table-dequantized"].broken, IDS),
    "table-dequantized, a scale each row": (
        "cpu",
        proto(LOOKUP.format("d = DequantizeLinear<axis = 0>(w, ws) y = Gather(d, x)"), **ROWS),
        IDS,
    ),
    "covered-product": ("cpu", CASES["covered-product"].broken, X),
    "covered-product, Relu": ("cpu", proto(RELU, **PARAMETERS, **MATRIX), X),
    "covered-product, residual": (
        "cpu",
        proto(RESIDUAL, **PARAMETERS, **MATRIX),
        {**X, "r": RNG.normal(size=(4, 32)).astype(F32)},
    ),
    "covered-product, Clip": ("cpu", proto(CLIP, **PARAMETERS, **MATRIX, low=F32(-0.5)), X),
    "quantizer-not-alone": ("cpu", CASES["quantizer-not-alone"].broken, X),
    "quantizer-not-alone, an output": ("cpu", proto(GIVEN, **PARAMETERS, **MATRIX), X),
    "quantizer-not-alone, biased": ("cpu", proto(BIASED, **PARAMETERS, **MATRIX, **INT32), X),
    "transpose-and-cast": ("cpu", proto(TRANSPOSED, w=W8.astype(F32)), {"x": STACKED}),
    "tensorrt-bias": ("tensorrt", CASES["tensorrt-bias"].broken, X),
    "cuda-int32-bias": ("cuda", CASES["cuda-int32-bias"].broken, X),
}


@pytest.mark.parametrize("case", EXACT)
def test_the_outputs_stay_what_they_were_and_a_second_repair_has_nothing_to_do(
    case: str, tmp_path: Path
) -> None:
    target, model, feeds = EXACT[case]
    rule = case.partition(",")[0]
    path, output = write(model, tmp_path / "model.onnx"), tmp_path / "fixed.onnx"
    result = lint(path, target, fix_to=output)
    assert rule in {fixed.rule for fixed in result.fixed}
    assert rule not in {finding.rule for finding in result.findings}
    fixed = onnx.load(output)
    onnx.checker.check_model(fixed, full_check=True)
    expected = outputs(model, feeds, "none")
    assert np.array_equal(outputs(fixed, feeds, "none"), expected)
    assert result.sqnr_db == float("inf")
    assert not any(finding.fixable for finding in result.findings)
    again = tmp_path / "again.onnx"
    second = lint(output, target, fix_to=again)
    assert (second.fixed, second.findings) == ((), result.findings)
    # What is fine is handed on, bit for bit; what is not is not written again.
    assert again.exists() == (not result.counting)
    assert not again.exists() or again.read_bytes() == output.read_bytes()


@pytest.mark.parametrize(
    "case", [name for name in EXACT if name.startswith(("covered-product", "quantizer-not-alone"))]
)
def test_an_uncovered_product_runs_in_integers(case: str, tmp_path: Path) -> None:
    _, model, _ = EXACT[case]
    path, output = write(model, tmp_path / "model.onnx"), tmp_path / "fixed.onnx"
    lint(path, fix_to=output)
    assert (count_kernels(path).integer, count_kernels(output).integer) == (0, 1)


def test_an_idle_pair_goes_and_only_its_rounding_with_it(tmp_path: Path) -> None:
    model = proto(plain(f"{PAIR} y = Tanh(xd)"), s=F32(0.03), z=np.uint8(128))
    path, output = write(model, tmp_path / "model.onnx"), tmp_path / "fixed.onnx"
    result = lint(path, fix_to=output)
    assert [fixed.rule for fixed in result.fixed] == ["idle-pair"]
    assert [node.op for node in executed(output)] == ["Tanh"]
    assert outputs(onnx.load(output), X, "all") == pytest.approx(np.tanh(X["x"]), abs=1e-6)
    assert result.sqnr_db is not None
    assert 20 < result.sqnr_db < 60
    assert len(onnx.load(output).graph.initializer) == 0


def test_where_a_pair_gives_the_models_output_what_is_in_front_gets_its_name(
    tmp_path: Path,
) -> None:
    text = plain("t = Tanh(x) q = QuantizeLinear(t, s, z) y = DequantizeLinear(q, s, z)")
    model = proto(text, s=F32(0.01), z=np.uint8(128))
    path, output = write(model, tmp_path / "model.onnx"), tmp_path / "fixed.onnx"
    assert lint(path, fix_to=output).findings == ()
    fixed = onnx.load(output)
    onnx.checker.check_model(fixed, full_check=True)
    assert [node.op_type for node in fixed.graph.node] == ["Tanh"]
    assert fixed.graph.output == model.graph.output


def test_a_pair_between_the_models_input_and_output_is_left(tmp_path: Path) -> None:
    text = plain("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)")
    path = write(proto(text, s=F32(0.01), z=np.uint8(128)), tmp_path / "model.onnx")
    (finding,) = lint(path).findings
    assert (finding.rule, finding.fixable) == ("idle-pair", False)


def test_output_dtype_goes_where_the_model_does_not_load(tmp_path: Path) -> None:
    path = write(CASES["int8-output-dtype"].broken, tmp_path / "model.onnx")
    if not {"int8-output-dtype"} & {finding.rule for finding in lint(path).findings}:
        pytest.skip("int8 activations become uint8 on x86 alone")
    result = lint(path, fix_to=tmp_path / "fixed.onnx")
    assert "int8-output-dtype" in {fixed.rule for fixed in result.fixed}
    assert not {"int8-output-dtype", "does-not-load"} & {f.rule for f in result.findings}


def test_a_table_that_a_product_reads_too_stays_for_it(tmp_path: Path) -> None:
    text = """g (int64[4] i, float[4, 32] x) => (float[4, 32] y, float[4, 64] l) {
        d = DequantizeLinear(w, ws) y = Gather(d, i)
        dt = Transpose<perm = [1, 0]>(d) l = MatMul(x, dt) }"""
    model = proto(text, w=ROWS["w"], ws=F32(0.1))
    path, output = write(model, tmp_path / "model.onnx"), tmp_path / "fixed.onnx"
    result = lint(path, fix_to=output)
    assert [fixed.rule for fixed in result.fixed] == ["table-dequantized"]
    assert result.sqnr_db == float("inf")


def test_rows_with_an_offset_are_not_repaired(tmp_path: Path) -> None:
    text = LOOKUP.format("d = DequantizeLinear<axis = 0>(w, ws, wz) y = Gather(d, x)")
    model = proto(text, **ROWS, wz=np.full(64, 3, np.int8))
    (finding,) = lint(write(model, tmp_path / "model.onnx")).findings
    assert (finding.rule, finding.fixable) == ("table-dequantized", False)


def test_every_fix_is_tested() -> None:
    tested = {case.partition(",")[0] for case in EXACT}
    assert tested | {"idle-pair", "int8-output-dtype"} == set(fixes.registered())


def test_nothing_to_repair_writes_the_model_as_it_was(tmp_path: Path) -> None:
    path, output = write(BASE, tmp_path / "model.onnx"), tmp_path / "fixed.onnx"
    result = lint(path, fix_to=output)
    assert (result.fixed, result.output, result.sqnr_db) == ((), output, float("inf"))
    before, after = (
        [(node.name, node.op_type, list(node.input), list(node.output)) for node in graph.node]
        for graph in (onnx.load(path).graph, onnx.load(output).graph)
    )
    assert before == after


def test_what_a_repair_brings_to_light_is_repaired_too(tmp_path: Path) -> None:
    """Of two pairs in a row neither is idle before one of them is gone."""
    again = "x2 = QuantizeLinear(xd, s, z) d2 = DequantizeLinear(x2, s, z)"
    model = proto(plain(f"{PAIR} {again} y = Tanh(d2)"), s=F32(0.03), z=np.uint8(128))
    path, output = write(model, tmp_path / "model.onnx"), tmp_path / "fixed.onnx"
    assert [finding.rule for finding in lint(path).findings] == ["pair-twice"]
    result = lint(path, fix_to=output)
    assert result.findings == ()
    assert [node.op_type for node in onnx.load(output).graph.node] == ["Tanh"]


def test_where_nothing_of_what_is_wrong_can_be_repaired_nothing_is_written(tmp_path: Path) -> None:
    path, output = write(BASE, tmp_path / "model.onnx"), tmp_path / "fixed.onnx"
    output.write_bytes(b"before")
    result = lint(path, "tensorrt", fix_to=output)
    assert (result.output, result.fixed, result.sqnr_db) == (None, (), None)
    assert result.why_not_written
    assert result.counting
    assert output.read_bytes() == b"before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fixed.onnx", "model.onnx"]


def test_a_fix_that_does_nothing_is_not_said_to_have_fixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = {**fixes.registered(), "idle-pair": lambda model, names: None}
    monkeypatch.setattr(fixes, "registered", lambda: idle)
    path, output = write(CASES["idle-pair"].broken, tmp_path / "model.onnx"), tmp_path / "fixed"
    result = lint(path, fix_to=output)
    assert (result.fixed, result.output) == ((), None)
    assert [finding.rule for finding in result.counting] == ["idle-pair"]


def test_a_repair_that_changes_the_outputs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = write(CASES["idle-pair"].broken, tmp_path / "model.onnx"), tmp_path / "fixed"
    output.write_bytes(b"before")
    monkeypatch.setattr(repair, "_LEAST_SQNR_DB", 1000)
    with pytest.raises(BoundMissedError, match="agree to"):
        lint(path, fix_to=output)
    assert output.read_bytes() == b"before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fixed", "model.onnx"]


def test_a_repair_that_breaks_the_model_is_a_fault_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ruin(model: ir.Model, names: frozenset[str]) -> None:
        for node in model.graph:
            if node.name in names:
                node.op_type = "Nonsense"

    path, output = write(CASES["pair-twice"].broken, tmp_path / "model.onnx"), tmp_path / "fixed"
    broken = {**fixes.registered(), "pair-twice": ruin}
    monkeypatch.setattr(fixes, "registered", lambda: broken)
    with pytest.raises(InternalError, match="no valid ONNX model"):
        lint(path, fix_to=output)
    assert not output.exists()


def test_what_does_not_load_is_repaired_as_far_as_can_be(tmp_path: Path) -> None:
    model = without_names(CASES["opset-too-new"].broken)
    path, output = write(model, tmp_path / "model.onnx"), tmp_path / "fixed.onnx"
    result = lint(path, fix_to=output)
    assert [fixed.rule for fixed in result.fixed] == ["unnamed-node"]
    assert {"does-not-load", "opset-too-new"} <= {finding.rule for finding in result.findings}
    assert result.sqnr_db is None
    assert "does not run on made-up inputs" in result.why_not_compared


def test_the_model_itself_is_not_replaced(tmp_path: Path) -> None:
    path = write(CASES["idle-pair"].broken, tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="replace"):
        lint(path, fix_to=path)


def test_pairs_and_products_in_bodies_are_seen_and_repaired(tmp_path: Path) -> None:
    text = """g (bool c, float[4, 16] x) => (float[4, 16] y) {
        y = If (c) <
            then_branch = t () => (float[4, 16] a) {
                q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) a = Tanh(d) },
            else_branch = e () => (float[4, 16] b) { b = Identity(x) }>
    }"""
    model = proto(text, s=F32(0.03), z=np.uint8(128))
    path, output = write(model, tmp_path / "model.onnx"), tmp_path / "fixed.onnx"
    result = lint(path, fix_to=output)
    assert "idle-pair" in {fixed.rule for fixed in result.fixed}
    assert not result.counting
    found = outputs(onnx.load(output), {"c": np.array(True), **X}, "all")
    assert found == pytest.approx(np.tanh(X["x"]), abs=1e-6)


def test_a_bias_with_other_readers_is_folded_for_all(tmp_path: Path) -> None:
    text = matmul("bd = DequantizeLinear(b, bs) m = Gemm(xd, wd, bd) t = Add(m, bd)")
    model = proto(text, **PARAMETERS, **MATRIX, b=np.arange(32).astype(np.int32), bs=F32(0.01))
    path, output = write(model, tmp_path / "model.onnx"), tmp_path / "fixed.onnx"
    assert lint(path, "tensorrt", fix_to=output).sqnr_db == float("inf")
