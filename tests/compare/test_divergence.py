"""The first node that differs is named, on graphs where it is known which that is."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnxq.compare import divergence, side
from onnxq.compare.divergence import diverge
from onnxq.compare.origin import Search
from onnxq.errors import DataError, ModelError, UsageError
from onnxq.runtime.session import open_session
from tests.cli.conftest import IMAGES, MODEL
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.compare.divergence import Divergence
    from onnxq.graph.segment import Segment
    from onnxq.runtime.session import Session, SessionSettings

CHAIN = """g (float[n, 8] x) => (float[n, 8] y) {
    [first] a = MatMul(x, u)
    [bend] b = Tanh(a)
    [second] c = MatMul(b, v)
    [sum] d = Add(c, b)
    [third] y = MatMul(d, w)
}"""
WEIGHTS = {name: normal(seed, 8, 8) for seed, name in enumerate("uvw")}
SAMPLES = [{"x": normal(seed, 2, 8)} for seed in (7, 8)]


def only(*models: Path, **options: Any) -> Divergence:
    """What was found between two runs."""
    (other,) = diverge(models, options.pop("data", SAMPLES), **options).others
    assert other.divergence is not None
    return other.divergence


def pair(folder: Path, one: str, other: str, **changed: NDArray[Any]) -> tuple[Path, Path]:
    """A model of the chain's weights, and another with some weights changed."""
    weights = {name: array for name, array in WEIGHTS.items() if f", {name})" in one}
    return (
        write(folder / "one.onnx", one, **weights),
        write(folder / "other.onnx", other, **{**weights, **changed}),
    )


def moved(name: str) -> NDArray[Any]:
    """A weight of the chain with one element changed."""
    array = WEIGHTS[name].copy()
    array[3, 5] += 0.5
    return array


def test_models_that_agree(tmp_path: Path) -> None:
    found = diverge(pair(tmp_path, CHAIN, CHAIN), SAMPLES)
    assert found.agree
    (other,) = found.others
    assert (other.error, other.output, other.samples) == (0.0, "y", 2)
    assert other.divergence is None


def test_nan_in_both_runs_is_told(tmp_path: Path) -> None:
    text = "g (float[n, 8] x) => (float[n, 8] y, float[n, 8] z) {{ y = {}(x) z = Neg(x) }}"
    models = [write(tmp_path / f"{op}.onnx", text.format(op)) for op in ("Log", "Sqrt")]
    below = -np.ones((2, 8), np.float32)
    found = diverge(models, [{"x": below}])
    assert found.agree
    (note,) = found.notes
    assert note.startswith("run 2, output 'y': 16 of 16 elements are NaN or Inf in both runs")
    assert note.endswith("nothing was compared")
    assert found.others[0].unseen == ("y",)
    below[0] = 1
    some = diverge(models[:1], [{"x": below}], levels=("none", "all"))
    assert "8 of 16 elements" in some.notes[0]
    assert some.notes[0].endswith("only the others were compared")
    assert some.others[0].unseen == ()


def test_a_changed_constant_in_the_middle(tmp_path: Path) -> None:
    found = only(*pair(tmp_path, CHAIN, CHAIN, v=moved("v")))
    assert (found.kind, found.node, found.op, found.output) == ("node", "second", "MatMul", "c")
    assert found.nodes == ("second",)
    b = np.tanh(SAMPLES[0]["x"] @ WEIGHTS["u"])
    expected, other = b @ WEIGHTS["v"], b @ moved("v")
    error = np.linalg.norm(expected - other) / np.linalg.norm(expected)
    assert found.own_error == pytest.approx(error, rel=1e-4)
    assert found.error == pytest.approx(error, rel=1e-4)
    row = int(np.abs(b[:, 3]).argmax())
    assert found.place == (row, 5)
    assert found.expected == pytest.approx(expected[row, 5], rel=1e-4)
    assert found.found == pytest.approx(other[row, 5], rel=1e-4)
    (fed,) = found.fed
    assert (fed.name, fed.dtype, fed.shape, fed.error) == ("b", "float32", (2, 8), 0.0)
    assert (fed.low, fed.high) == pytest.approx((b.min(), b.max()), rel=1e-4)
    assert found.runs_as == found.other_runs_as == ("MatMul",)
    assert found.differences == (
        "the constant v of second differs in 1 of 64 elements, by up to 0.5",
    )
    assert found.walked == (2, 2)


def test_a_replaced_operator(tmp_path: Path) -> None:
    found = only(*pair(tmp_path, CHAIN, CHAIN.replace("Tanh(a)", "Erf(a)")))
    assert (found.node, found.differences) == ("bend", ("bend is a Erf, not a Tanh",))


def test_an_attribute_and_a_node_without_a_name(tmp_path: Path) -> None:
    text = CHAIN.replace("[bend] b = Tanh(a)", "b = LeakyRelu<alpha = 0.1>(a)")
    found = only(*pair(tmp_path, text, text.replace("0.1", "0.5")))
    assert (found.node, found.op, found.output) == ("", "LeakyRelu", "b")
    assert found.differences == ("alpha of b is 0.5, not 0.10000000149011612",)


def test_a_body_that_differs_and_more_nodes(tmp_path: Path) -> None:
    text = """g (float[n, 8] x) => (float[n, 8] y) {
        yes = Constant<value = bool {1}>()
        [choice] a = If(yes) <
            then_branch = t () => (float[n, 8] b) { b = Tanh(x) },
            else_branch = e () => (float[n, 8] c) { c = Neg(x) }>
        [last] y = Identity(a)
    }"""
    more = text.replace("b = Tanh(x)", "b = Sigmoid(x)")
    found = only(*pair(tmp_path, text, more))
    assert found.differences == ("then_branch of choice is not the same",)
    more = "g (float[n, 8] x) => (float[n, 8] y) { p = Abs(x) q = Abs(p) r = Exp(q) y = Neg(r) }"
    less = "g (float[n, 8] x) => (float[n, 8] y) { y = Neg(x) }"
    assert only(*pair(tmp_path, less, more)).differences[0] == "has more nodes: 2 Abs, Exp"


def test_branches_do_not_mislead(tmp_path: Path) -> None:
    """In topological order agreeing values stand behind the differing ones."""
    text = """g (float[n, 8] x) => (float[n, 8] y) {
        [left] a = MatMul(x, u)
        [right] b = MatMul(x, v)
        [left2] c = Tanh(a)
        [right2] d = Tanh(b)
        [far] e = MatMul(x, w)
        [join] f = Add(c, d)
        [end] y = Add(f, e)
    }"""
    assert only(*pair(tmp_path, text, text, u=moved("u"))).node == "left"
    assert only(*pair(tmp_path, text, text, u=moved("u"), v=moved("v"))).node == "left"
    assert only(*pair(tmp_path, text, text, v=moved("v"), w=moved("w"))).node == "right"


def test_an_error_that_shrinks_and_grows_again(tmp_path: Path) -> None:
    text = """g (float[n, 8] x) => (float[n, 8] y) {
        big = Constant<value = float {100000.0}>()
        [origin] a = MatMul(x, u)
        [more] b = Tanh(a)
        [hide] c = Add(b, big)
        [keep] d = Add(c, big)
        [back] e = Sub(d, big)
        [show] f = Sub(e, big)
        [end] y = Neg(f)
    }"""
    found = only(*pair(tmp_path, text, text, u=moved("u")), tolerance=1e-3)
    assert (found.kind, found.node) == ("node", "origin")
    assert found.later == "f"


def test_many_small_errors_add_up(tmp_path: Path) -> None:
    lines = "".join(f"[n{i}] a{i + 1} = Mul(a{i}, k)\n" for i in range(40))
    text = f"g (float[n, 8] x) => (float[n, 8] y) {{ a0 = Neg(x)\n{lines} y = Neg(a40) }}"
    models = [
        write(tmp_path / f"{k}.onnx", text, k=np.array([k], np.float32)) for k in (1.0, 1.0001)
    ]
    found = only(*models, tolerance=1.05e-3)
    assert (found.kind, found.node) == ("accumulated", "n10")
    assert found.error == pytest.approx(1.0001**11 - 1, rel=1e-2)
    assert found.greatest[1] == pytest.approx(1e-4, rel=1e-2)
    assert found.walked == (11, 11)


def test_what_is_fused_differs_although_no_node_does(tmp_path: Path) -> None:
    """Products on the border of two integers are rounded otherwise by QLinearMatMul."""
    text = """g (float[n, 8] x) => (float[n, 8] y) {
        s = Constant<value = float {0.1}>()
        t = Constant<value = float {0.2}>()
        z = Constant<value = uint8 {128}>()
        o = Constant<value = int8 {0}>()
        q = QuantizeLinear(x, s, z)
        a = DequantizeLinear(q, s, z)
        b = DequantizeLinear(i, s, o)
        [product] c = MatMul(a, b)
        r = QuantizeLinear(c, t, z)
        d = DequantizeLinear(r, t, z)
        [end] y = Neg(d)
    }"""
    integers = np.random.default_rng(0).integers(-4, 5, (8, 8)).astype(np.int8) * 5
    model = write(tmp_path / "m.onnx", text, i=integers)
    data = [{"x": (np.random.default_rng(1).integers(-9, 10, (200, 8)) / 5).astype(np.float32)}]
    found = only(model, data=data, levels=["none", "all"])
    assert (found.kind, found.op, found.output) == ("fusion", "DequantizeLinear", "d")
    assert "product" in found.nodes
    assert "QLinearMatMul" in found.fused
    assert "QLinearMatMul" not in found.runs_as
    assert [fed.name for fed in found.fed] == ["x"]
    assert found.greatest[1] < 1e-6


def test_a_weight_in_blocks_at_two_levels(tmp_path: Path) -> None:
    """MatMulNBits, which ONNX Runtime makes of it, rounds activations to 8 bits."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[n, 64] x) => (float[n, 16] y)
    <float[64, 64] u, int4[64, 16] q, float[2, 16] s>
    {
        [first] a = MatMul(x, u)
        [weight] w = DequantizeLinear<axis = 0, block_size = 32>(q, s)
        [blocks] b = MatMul(a, w)
        [end] y = Tanh(b)
    }"""
    model = parser.parse_model(text)
    integers = np.random.default_rng(0).integers(-8, 8, (64, 16))
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(normal(0, 64, 64), "u"),
            onnx.helper.make_tensor("q", onnx.TensorProto.INT4, (64, 16), integers.flatten()),
            numpy_helper.from_array(np.full((2, 16), 0.01, np.float32), "s"),
        ]
    )
    path = tmp_path / "blocks.onnx"
    onnx.save(model, path)
    found = only(path, data=[{"x": normal(1, 4, 64)}], levels=["none", "all"])
    assert (found.kind, found.node, found.nodes) == ("node", "blocks", ("weight", "blocks"))
    assert found.fused == ("MatMulNBits",)
    assert found.differences == ()


def test_accuracy_level_4_against_0(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (float[n, 64] x) => (float[n, 16] y)
    {
        [first] a = MatMul(x, u)
        [blocks] b = com.microsoft.MatMulNBits<
            K = 64, N = 16, bits = 4, block_size = 32, accuracy_level = 0>(a, q, s)
        [end] y = Tanh(b)
    }"""
    paths = []
    for level in (0, 4):
        model = parser.parse_model(text.replace("accuracy_level = 0", f"accuracy_level = {level}"))
        random = np.random.default_rng(0)
        arrays: dict[str, NDArray[Any]] = {
            "u": normal(0, 64, 64),
            "q": random.integers(0, 256, (16, 2, 16)).astype(np.uint8),
            "s": np.full((16, 2), 0.01, np.float32),
        }
        for name, array in arrays.items():
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        paths.append(tmp_path / f"{level}.onnx")
        onnx.save(model, paths[-1])
    found = only(*paths, data=[{"x": normal(1, 4, 64)}])
    assert (found.kind, found.node, found.op) == ("node", "blocks", "MatMulNBits")
    assert found.differences == ("accuracy_level of blocks is 4, not 0",)
    assert 1e-3 < found.own_error < 0.1


def test_a_quantizer_that_stands_for_a_relu_is_no_difference(tmp_path: Path) -> None:
    one = "g (float[n, 8] x) => (float[n, 8] y) { [p] a = MatMul(x, u) [r] b = Relu(a) [e] y = MatMul(b, v) }"  # noqa: E501
    other = """g (float[n, 8] x) => (float[n, 8] y) {
        s = Constant<value = float {0.0625}>()
        z = Constant<value = uint8 {0}>()
        [p] b = MatMul(x, u)
        [q] i = QuantizeLinear(b, s, z)
        [d] c = DequantizeLinear(i, s, z)
        [e] y = MatMul(c, v)
    }"""
    exact = {"u": np.eye(8, dtype=np.float32), "v": WEIGHTS["v"]}
    one_path = write(tmp_path / "one.onnx", one, **exact)
    found = only(
        one_path,
        write(tmp_path / "other.onnx", other, **{**exact, "v": moved("v")}),
        data=[{"x": np.arange(-8, 8, dtype=np.float32).reshape(2, 8) / 16}],
    )
    assert found.node == "e"


def test_the_other_side_may_read_what_the_reference_does_not(tmp_path: Path) -> None:
    text = """g (float[n, 8] x) => (float[n, 8] y, float[n, 8] z) {
        one = Constant<value = float {1.0}>()
        [first] a = MatMul(x, u)
        [same] e = Mul(a, one)
        [bend] k = Tanh(a)
        [second] y = MatMul(k, v)
        [side] z = Neg(e)
    }"""
    models = pair(tmp_path, text, text.replace("Tanh(a)", "Tanh(e)"), v=moved("v"))
    found = only(*models)
    assert (found.kind, found.node, found.walked) == ("node", "second", (2, 2))


def test_one_name_for_two_values_of_other_exports(tmp_path: Path) -> None:
    one = """g (float[n, 8] x) => (float[n, 8] y) {
        [first] v1 = MatMul(x, u)
        [bend] v2 = Tanh(v1)
        [half] v3 = Slice(v2, from, to, axis)
        [again] v4 = Concat<axis = 1>(v3, v3)
        [second] y = MatMul(v4, v)
    }"""
    other = one.replace("v2", "t").replace("v3", "v2")
    places = {name: np.array([at]) for name, at in (("from", 0), ("to", 4), ("axis", 1))}
    weights = {"u": WEIGHTS["u"], "v": WEIGHTS["v"], **places}
    found = only(
        write(tmp_path / "one.onnx", one, **weights),
        write(tmp_path / "other.onnx", other, **{**weights, "v": moved("v")}),
    )
    assert (found.node, found.output) == ("second", "y")


SCALED = """g (float[b, n, 8] x) => (float[b, n, 8] y) {
    [first] a = MatMul(x, u)
    [norm] b = Mul(a, gain)
    [bend] c = Relu(b)
    [second] d = MatMul(c, v)
    [queries] q = MatMul(d, wq)
    [keys] k = MatMul(d, wk)
    [turn] t = Transpose<perm = [0, 2, 1]>(k)
    [scores] s = MatMul(q, t)
    [soft] p = Softmax(s)
    [mix] m = MatMul(p, d)
    [third] y = MatMul(m, w)
}"""
MANY = [{"x": normal(9, 2, 16, 8)}]


@pytest.mark.parametrize("planted", ["third", "norm"])
def test_a_value_at_other_scales_is_passed_over_where_they_are_divided_out(
    planted: str, tmp_path: Path
) -> None:
    factor = np.linspace(0.25, 4, 8, dtype=np.float32)
    gain = np.linspace(1, 2, 8, dtype=np.float32)
    weights = {**WEIGHTS, "wq": normal(4, 8, 8), "wk": normal(5, 8, 8), "gain": gain}
    scaled = {
        "gain": gain * factor,
        "v": weights["v"] / factor[:, None],
        "wq": weights["wq"] * factor,
        "wk": weights["wk"] / factor,
    }
    if planted == "third":
        scaled["w"] = moved("w")
    else:
        del scaled["v"]  # the factors stay in what reads it
    one = write(tmp_path / "one.onnx", SCALED, **weights)
    other = write(tmp_path / "other.onnx", SCALED, **{**weights, **scaled})
    found = only(one, other, data=MANY)
    assert (found.kind, found.node) == ("node", planted)
    # Found by bisecting, or by the walk; all that lie in front of what differs are.
    assert set(found.rescaled) == ({"b", "c", "q", "k", "t"} if planted == "third" else set())


def test_a_body_that_captures(tmp_path: Path) -> None:
    text = """g (float[n, 8] x) => (float[n, 8] y) {
        [first] a = MatMul(x, u)
        zero = Constant<value = float {0.0}>()
        [total] t = ReduceSum<keepdims = 0>(x)
        [above] c = Greater(t, zero)
        [choice] b = If (c) <
            then_branch = h1 () => (float[n, 8] o1) { o1 = Mul(a, v) },
            else_branch = h2 () => (float[n, 8] o2) { o2 = Add(a, v) }
        >
        [end] y = Tanh(b)
    }"""
    weights = {"u": WEIGHTS["u"], "v": normal(1, 8)}
    one = write(tmp_path / "one.onnx", text, **weights)
    swapped = text.replace("Mul(a, v)", "Max(a, v)").replace("Add(a, v)", "Min(a, v)")
    found = only(one, write(tmp_path / "other.onnx", swapped, **weights))
    assert (found.node, found.op) == ("choice", "If")
    assert {fed.name for fed in found.fed} >= {"a"}
    moved_bias = write(tmp_path / "moved.onnx", text, u=moved("u"), v=weights["v"])
    assert only(one, moved_bias).node == "first"


def test_integers_between_belong_to_what_they_lead_to(tmp_path: Path) -> None:
    text = """g (float[n, 8] x) => (float[n, 2] y, int64[n, 2] at) {
        k = Constant<value = int64[1] {2}>()
        [first] a = MatMul(x, u)
        [top] best, at = TopK(a, k)
        [as_float] f = Cast<to = 1>(at)
        [end] y = Mul(f, best)
    }"""
    found = only(
        *pair(tmp_path, text, text.replace("TopK(a", "TopK<largest = 0>(a"), u=WEIGHTS["u"])
    )
    assert (found.node, found.output) == ("top", "best")
    other = write(tmp_path / "moved.onnx", text, u=-WEIGHTS["u"])
    assert only(write(tmp_path / "one.onnx", text, u=WEIGHTS["u"]), other).node == "first"


def test_single_values_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading more values at once would keep ONNX Runtime from fusing, and take their memory."""
    counts: list[int] = []

    def count(model: bytes | Path, settings: SessionSettings) -> Session:
        session = open_session(model, settings)
        counts.append(len(session.outputs))
        return session

    monkeypatch.setattr(side, "open_session", count)
    only(*pair(tmp_path, CHAIN, CHAIN, w=moved("w")))
    assert set(counts) == {1}


def test_large_weights_lie_in_a_folder_that_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(side, "_IN_MEMORY", 0)
    found = only(*pair(tmp_path, CHAIN, CHAIN, v=moved("v")))
    assert (found.node, found.runs_as) == ("second", ("MatMul",))
    assert list(folder.iterdir()) == []


def test_what_vanishes_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Search, "error", lambda self, name: 0.0)
    found = only(*pair(tmp_path, CHAIN, CHAIN, v=moved("v")))
    assert (found.kind, found.output, found.fed) == ("vanishes", "y", ())


def test_the_walk_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "WALK_SECONDS", -1.0)
    found = only(*pair(tmp_path, CHAIN, CHAIN, w=moved("w")))
    assert (found.node, found.walked) == ("third", (0, 4))


def test_sequences_belong_to_what_they_lead_to(tmp_path: Path) -> None:
    text = """g (float[n, 8] x) => (float[n, 8] y) {
        k = Constant<value = int64 {0}>()
        [first] a = MatMul(x, u)
        [parts] s = SequenceConstruct(a, x)
        [taken] b = SequenceAt(s, k)
        [end] y = MatMul(b, v)
    }"""
    one, other = pair(tmp_path, text, text, u=WEIGHTS["u"], v=moved("v"))
    assert only(one, other).node == "end"
    found = only(one, write(tmp_path / "moved.onnx", text, u=moved("u"), v=WEIGHTS["v"]))
    assert found.node == "first"


def test_nodes_that_do_not_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The difference is then told with the fewest nodes that do."""
    real = side.SideGraph.run

    def run(graph: side.SideGraph, segment: Segment, values: Any) -> Any:
        if [node.name for node in segment.nodes] == ["second"]:
            code, text = "runtime.load", "it has no kernel"
            raise ModelError(code, text)
        return real(graph, segment, values)

    monkeypatch.setattr(side.SideGraph, "run", run)
    found = only(*pair(tmp_path, CHAIN, CHAIN, v=moved("v")))
    assert (found.kind, found.node, found.nodes) == ("node", "second", ("bend", "second"))
    later = only(*pair(tmp_path, CHAIN, CHAIN, w=moved("w")))
    assert (later.node, later.walked) == ("third", (2, 4))


def test_the_first_sample_that_differs(tmp_path: Path) -> None:
    text = "g (float[n, 8] x) => (float[n, 8] y) { [cut] a = Min(x, m) [end] y = Neg(a) }"
    models = [write(tmp_path / f"{m}.onnx", text, m=np.array([m], np.float32)) for m in (9.0, 2.0)]
    data = [{"x": np.full((1, 8), value, np.float32)} for value in (1, 3, 8)]
    (other,) = diverge(models, data).others
    assert (other.sample, other.samples) == ("sample 1", 2)
    assert other.divergence is not None
    assert other.divergence.node == "cut"


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    one, other = pair(tmp_path, CHAIN, CHAIN, v=moved("v"))
    for path in (one, other):
        onnx.save(
            onnx.load(path),
            path,
            save_as_external_data=True,
            location=f"{path.stem}.data",
            size_threshold=0,
        )
    assert only(one, other).node == "second"


def test_infinities_of_both_sides_are_not_where_the_difference_is_greatest(
    tmp_path: Path,
) -> None:
    text = "g (float[n, 8] x) => (float[n, 8] y) { a = Reciprocal(x) y = Mul(a, k) }"
    one, other = (
        write(tmp_path / f"{k}.onnx", text, k=np.full(8, k, np.float32)) for k in (1, 1.5)
    )
    data = [{"x": np.array([[0, 1, 2, 3, 4, 5, 6, 0.5]], np.float32)}]
    found = only(one, other, data=data)
    assert (found.place, found.expected, found.found) == ((0, 7), 2.0, 3.0)


def test_nan_on_one_side(tmp_path: Path) -> None:
    found = only(*pair(tmp_path, CHAIN, CHAIN, v=WEIGHTS["v"] * np.float32(np.nan)))
    assert (found.node, found.own_error) == ("second", np.inf)
    assert np.isnan(found.found or 0)


def test_what_is_refused(tmp_path: Path) -> None:
    one, other = pair(tmp_path, CHAIN, CHAIN)
    with pytest.raises(UsageError, match="nothing that could diverge"):
        diverge([one], SAMPLES)
    with pytest.raises(UsageError, match="tolerance"):
        diverge([one, other], SAMPLES, tolerance=float("nan"))
    with pytest.raises(DataError, match="shape"):
        diverge([one, other], [{"x": np.ones((1, 9), np.float32)}])
    different = write(tmp_path / "d.onnx", CHAIN.replace("y", "z"), **WEIGHTS)
    with pytest.raises(ModelError, match="outputs are z"):
        diverge([one, different], SAMPLES)


def test_a_convolution_in_the_middle_of_fashion_resnet(tmp_path: Path) -> None:
    model = onnx.load(MODEL)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    chosen = convolutions[len(convolutions) // 2]
    (weight,) = (w for w in model.graph.initializer if w.name == chosen.input[1])
    array = numpy_helper.to_array(weight).copy()
    array[0] *= 1.5
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(model, tmp_path / "other.onnx")
    found = only(MODEL, tmp_path / "other.onnx", data=IMAGES)
    assert (found.kind, found.node) == ("node", chosen.name)


@pytest.mark.slow
@pytest.mark.parametrize("planted", ["weight", "operator"])
def test_a_node_in_the_middle_of_minilm(planted: str, tmp_path: Path) -> None:
    folder = MODEL.parents[1] / ".cache/minilm"
    if not (folder / "model.onnx").is_file():
        pytest.skip("MiniLM is not built: make models")
    model = onnx.load(folder / "model.onnx")
    weights = {w.name: w for w in model.graph.initializer}
    nodes = list(model.graph.node)
    middle = nodes[len(nodes) // 2 :]
    if planted == "weight":
        chosen = next(n for n in middle if n.op_type == "MatMul" and n.input[1] in weights)
        weight = weights[chosen.input[1]]
        array = numpy_helper.to_array(weight).copy()
        array[0] *= 3
        weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    else:
        chosen = next(n for n in middle if n.op_type == "Softmax")
        chosen.op_type = "LogSoftmax"
    onnx.save(model, tmp_path / "other.onnx")
    found = only(folder / "model.onnx", tmp_path / "other.onnx", data=str(folder / "evaluation"))
    assert (found.kind, found.node) == ("node", chosen.name)
    assert found.differences
