"""Wherever a weight hides: close to float in integer kernels, or skipped with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from onnxq.algorithms import lookup_tables
from onnxq.errors import ModelError
from onnxq.pipeline import QuantizeResult, RunOptions, apply, inspect, quantize
from onnxq.recipe import CalibrationSettings, Recipe
from onnxq.targets import load_target
from tests.small_models import Feeds, normal, proto, run

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.recipe import Scheme

RECIPE = Recipe(channel_scaling="off", calibration=CalibrationSettings(method="minmax"))


@dataclass(frozen=True)
class Case:
    """A graph, its weights and inputs, and what becomes of its sites.

    ``sites`` holds for each site ``"int8"`` or words of the reason.
    """

    text: str
    sites: tuple[str, ...]
    weights: dict[str, NDArray[Any]]
    inputs: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"x": (6, 16)})
    fixed: dict[str, NDArray[Any]] = field(default_factory=dict)
    opset: int = 17

    def feeds(self, seed: int) -> Feeds:
        return {**{n: normal(seed, *s) for n, s in self.inputs.items()}, **self.fixed}


def linear(body: str, *sites: str, **weights: NDArray[Any]) -> Case:
    return Case(f"g (float[N, 16] x) => (float[N, M] y) {{ {body} }}", sites, weights)


def conv(attributes: str, kernel: tuple[int, ...], *dims: int) -> Case:
    out = ", ".join(["1", str(kernel[0]), *"DHW"[-len(dims) :]])
    ins = ", ".join(map(str, (1, 4, *dims)))
    text = f"""g (float[{ins}] x) => (float[{out}] y) {{
        c = Conv<{attributes}>(x, w, b) r = Relu(c) y = Tanh(r)
    }}"""
    weights = {"w": normal(0, *kernel), "b": normal(1, kernel[0])}
    return Case(text, ("int8",), weights, {"x": (1, 4, *dims)})


def fused(text: str, *sites: str, **weights: NDArray[Any]) -> Case:
    return Case(text, sites, weights, {"x": (2, 5, 16)})


W, V, B = normal(0, 16, 12), normal(1, 12, 16), normal(2, 12)
IDS = {"ids": np.asarray([3, 1, 7, 0])}
GEMMS = {
    "gemm": linear("y = Gemm(x, w, b)", "int8", w=W, b=B),
    "gemm transB": linear("y = Gemm<transB = 1>(x, w)", "int8", w=W.T.copy()),
    "gemm transA": Case(
        "g (float[16, N] x) => (float[N, 12] y) { y = Gemm<transA = 1>(x, w) }",
        ("int8",),
        {"w": W},
        {"x": (16, 6)},
    ),
    "gemm alpha, beta": linear("y = Gemm<alpha = 0.5, beta = 2.0>(x, w, b)", "int8", w=W, b=B),
    "gemm scalar bias": linear("y = Gemm(x, w, b)", "int8", w=W, b=np.asarray(B[0])),
    "gemm bias of rows": linear("y = Gemm(x, w, b)", "int8", w=W, b=normal(3, 6, 1)),
    "gemm bias of one row": linear("y = Gemm(x, w, b)", "int8", w=W, b=B.reshape(1, 12)),
    "gemm bias of one element": linear("y = Gemm(x, w, b)", "int8", w=W, b=B[:1].copy()),
    "gemm bias of all elements": linear("y = Gemm(x, w, b)", "int8", w=W, b=normal(3, 6, 12)),
    "gemm bias at run time": linear(
        "s = ReduceMean<axes = [1]>(x) y = Gemm<beta = 0.5>(x, w, s)", "int8", w=W
    ),
}
CONVS = {
    "conv 1-D": conv("kernel_shape = [3]", (6, 4, 3), 9),
    "conv 2-D": conv("pads = [1, 1, 1, 1]", (6, 4, 3, 3), 7, 7),
    "conv 3-D": conv("strides = [1, 2, 1]", (6, 4, 2, 3, 3), 4, 5, 5),
    "conv grouped": conv("group = 2", (6, 2, 3, 3), 7, 7),
    "conv depthwise": conv("group = 4", (4, 1, 3, 3), 7, 7),
    "conv dilated": conv("dilations = [2, 2]", (6, 4, 3, 3), 9, 9),
    "conv same upper": conv('auto_pad = "SAME_UPPER", strides = [2, 2]', (6, 4, 3, 3), 7, 7),
    "conv same lower": conv('auto_pad = "SAME_LOWER", strides = [2, 2]', (6, 4, 2, 2), 7, 7),
    "conv valid": conv('auto_pad = "VALID"', (6, 4, 3, 3), 7, 7),
    "conv transposed, grouped": Case(
        """g (float[1, 4, 5, 5] x) => (float[1, 6, H, K] y) {
            c = ConvTranspose<group = 2>(x, w) y = Tanh(c)
        }""",
        ("groups share the scales",),
        {"w": normal(0, 4, 3, 3, 3)},
        {"x": (1, 4, 5, 5)},
    ),
}
LOOKUPS = {
    "embedding": Case(
        "g (int64[N] ids, float[N, 16] x) => (float[N, 16] y) "
        "{ e = Gather(table, ids) y = Add(e, x) }",
        ("int8",),
        {"table": normal(0, 8, 16)},
        {"x": (4, 16)},
        IDS,
    ),
    "tied embedding": Case(
        """g (int64[N] ids) => (float[N, 8] y) {
            e = Gather(table, ids) n = Tanh(e) t = Transpose(table) y = MatMul(n, t)
        }""",
        ("int8", "int8"),
        {"table": normal(0, 8, 16)},
        {},
        IDS,
    ),
}
PLACES = {
    "einsum": linear('y = Einsum<equation = "nk,km->nm">(x, w)', "int8", w=W),
    "einsum that is no product": linear(
        'y = Einsum<equation = "nk,nk->nk">(x, w)', "'nk,nk->nk'", w=normal(0, 6, 16)
    ),
    "behind a chain": linear(
        "a = Identity(w) b = Cast<to = 11>(a) c = Transpose(b) d = Cast<to = 1>(c) "
        "y = MatMul(x, d)",
        "int8",
        w=W.T.copy(),
    ),
    "in a Constant node": Case(
        """g (float[N, 4] x) => (float[N, 2] y) {
            w = Constant<value = float[4, 2] {1, -2, 3, 4, -1, 2, 0.5, 1}>() y = MatMul(x, w)
        }""",
        ("int8",),
        {},
        {"x": (6, 4)},
    ),
    "stored in float16": linear(
        "v = Cast<to = 1>(w) y = MatMul(x, v)", "int8", w=W.astype(np.float16)
    ),
    "reshaped": linear(
        "s = Constant<value_ints = [16, -1]>() m = Reshape(w, s) y = MatMul(x, m)",
        "int8",
        w=W.reshape(-1),
    ),
    "on the left": Case(
        "g (float[16, N] x) => (float[12, N] y) { y = MatMul(w, x) }",
        ("on the left",),
        {"w": W.T.copy()},
        {"x": (16, 6)},
    ),
    "shared": linear(
        "h = MatMul(x, w) t = Tanh(h) k = MatMul(t, v) z = MatMul(k, w) y = Concat<axis = 0>(h, z)",
        *["int8"] * 3,
        w=W,
        v=V,
    ),
    "vector": linear(
        "z = MatMul(x, w) y = Unsqueeze(z, one)",
        "1 dimension",
        w=W[:, 0].copy(),
        one=np.asarray([1]),
    ),
    "rank 3": Case(
        "g (float[2, N, 16] x) => (float[2, N, 12] y) { y = MatMul(x, w) }",
        ("int8",),
        {"w": W.reshape(1, 16, 12)},
        {"x": (2, 6, 16)},
    ),
    "batched": Case(
        "g (float[2, N, 16] x) => (float[2, N, 12] y) { y = MatMul(x, w) }",
        ("3 dimensions",),
        {"w": normal(0, 2, 16, 12)},
        {"x": (2, 6, 16)},
    ),
    "overridable": Case(
        "g (float[N, 16] x, float[16, 12] w) => (float[N, 16] y) "
        "{ h = MatMul(x, w) y = MatMul(h, v) }",
        ("a caller may replace it", "int8"),
        {"w": W, "v": V},
    ),
    "captured by If": Case(
        """g (float[N, 16] x, bool c) => (float[N, 12] y) {
            h = MatMul(x, w)
            y = If (c) <
                then_branch = tb () => (float[N, 12] o) { o = MatMul(x, w) },
                else_branch = eb () => (float[N, 12] p) { p = Neg(h) }
            >
        }""",
        ("int8", "inside the body of If"),
        {"w": W},
        fixed={"c": np.asarray(False)},
    ),
    "captured by Loop": Case(
        """g (float[N, 16] x, int64 n) => (float[N, 12] y) {
            z = Loop (n, , x) <
                body = b (int64 i, bool k, float[N, 16] a) => (bool kk, float[N, 16] r) {
                    kk = Identity(k) m = MatMul(a, s) r = Tanh(m) }
            >
            y = MatMul(z, w)
        }""",
        ("inside the body of Loop", "int8"),
        {"w": W, "s": normal(3, 16, 16)},
        fixed={"n": np.asarray(2)},
    ),
    "captured by Scan": Case(
        """g (float[6, 16] x) => (float[6, 12] y) {
            y = Scan <num_scan_inputs = 1,
                body = b (float[16] a) => (float[12] r) { r = MatMul(a, w) }>(x)
        }""",
        ("inside the body of Scan",),
        {"w": W},
    ),
}
RECURRENT = {
    op: Case(
        f"""g (float[5, 2, 16] x) => (float[5, 1, 2, 4] y) {{
            y, , = {op}<hidden_size = 4>(x, w, r)
        }}""".replace("y, ,", "y, , " if op == "LSTM" else "y, "),
        (f"no integer kernel for {op}",),
        {"w": normal(0, 1, gates * 4, 16), "r": normal(1, 1, gates * 4, 4)},
        {"x": (5, 2, 16)},
    )
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
}
HEAD = "g (float[2, 5, 16] x) => (float[2, 5, M] y)"
PROJECTIONS = {name: normal(seed, 16, 16) / 4 for seed, name in enumerate("wvu")}
FUSED = {
    "attention of its parts": fused(
        f"""{HEAD} {{
            q = MatMul(x, w) k = MatMul(x, v) m = MatMul(x, u) t = Transpose<perm = [0, 2, 1]>(k)
            s = MatMul(q, t) p = Softmax<axis = -1>(s) y = MatMul(p, m)
        }}""",
        *["int8"] * 3,
        *["two activations"] * 2,
        **PROJECTIONS,
    ),
    "attention of one node": Case(
        f"""{HEAD} {{
            q = MatMul(x, w) k = MatMul(x, v) m = MatMul(x, u)
            y = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, m)
        }}""",
        ("int8",) * 3,
        PROJECTIONS,
        {"x": (2, 5, 16)},
        opset=23,
    ),
    "FusedMatMul": fused(
        f"{HEAD} {{ y = com.microsoft.FusedMatMul<alpha = 0.25, transB = 1>(x, w) }}",
        "int8",
        w=W.T.copy(),
    ),
    "FusedConv": Case(
        """g (float[1, 4, 7, 7] x) => (float[1, 6, 5, 5] y) {
            c = com.microsoft.FusedConv<activation = "Relu">(x, w, b) y = Tanh(c)
        }""",
        ("int8",),
        {"w": normal(0, 6, 4, 3, 3), "b": normal(1, 6)},
        {"x": (1, 4, 7, 7)},
    ),
    "BiasGelu": fused(
        f"{HEAD} {{ h = MatMul(x, w) y = com.microsoft.BiasGelu(h, b) }}", "int8", w=W, b=B
    ),
    "SkipLayerNormalization": fused(
        f"""{HEAD} {{
            h = MatMul(x, w) y = com.microsoft.SkipLayerNormalization(h, x, g, b)
        }}""",
        "int8",
        w=normal(0, 16, 16),
        g=normal(1, 16),
        b=normal(2, 16),
    ),
    "Attention": fused(
        f"{HEAD} {{ y = com.microsoft.Attention<num_heads = 2>(x, w, b) }}",
        "com.microsoft::Attention",
        w=normal(0, 16, 48) / 4,
        b=normal(1, 48),
    ),
    "MultiHeadAttention": fused(
        f"""{HEAD} {{
            q = MatMul(x, w) k = MatMul(x, v) y = com.microsoft.MultiHeadAttention<num_heads = 2>(
                q, k, k)
        }}""",
        "int8",
        "int8",
        w=normal(0, 16, 16) / 4,
        v=normal(1, 16, 16) / 4,
    ),
}
OTHER_VALUES = {
    "sequence": linear(
        "h = MatMul(x, w) r = Tanh(h) s = SequenceConstruct(h, r) "
        "y = ConcatFromSequence<axis = 0>(s)",
        "int8",
        w=W,
    ),
    "optional": Case(
        """g (float[N, 16] x) => (float[N, 12] y, bool has) {
            y = MatMul(x, w) o = Optional(x) has = OptionalHasElement(o)
        }""",
        ("int8",),
        {"w": W},
    ),
    "string": Case(
        """g (float[N, 16] x, string[K] text) => (float[N, 12] y, string[K] same) {
            y = MatMul(x, w) same = Identity(text)
        }""",
        ("int8",),
        {"w": W},
        fixed={"text": np.asarray(["a", "ü"], object)},
    ),
}
CASES = {
    **GEMMS,
    **CONVS,
    **LOOKUPS,
    **PLACES,
    **RECURRENT,
    **FUSED,
    **OTHER_VALUES,
}


@pytest.fixture(autouse=True)
def _small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of any size are stored as integers."""
    monkeypatch.setattr(lookup_tables, "_SMALL_TABLE", 0)


def check(model: Path, case: Case, *, least: float = 20.0) -> QuantizeResult:
    """Quantize, and compare decisions, reasons and outputs."""
    output = model.with_name("quantized.onnx")
    samples = [case.feeds(seed) for seed in range(10, 16)]
    shown = [(site.decision, site.reason) for site in inspect(model, recipe=RECIPE).sites]
    result = quantize(model, samples, output, recipe=RECIPE, options=RunOptions(timing=None))
    assert [(site.decision, site.reason) for site in result.plan.sites] == shown
    for (decision, reason), wanted in zip(shown, case.sites, strict=True):
        assert decision == "int8" if wanted == "int8" else wanted in reason, reason
    if "int8" in case.sites:
        assert result.verification is not None
        kernels, fidelity = result.verification.kernels, result.verification.fidelity
        assert (
            kernels.integer
            == kernels.planned
            == sum(
                1 for site in result.plan.sites if site.decision == "int8" and site.op != "Gather"
            )
        )
        assert (fidelity.sqnr_db or 0) > least
    assert_close(model, output, case.feeds(99), least)
    return result


def assert_close(model: Path, output: Path, feeds: Feeds, least: float) -> None:
    """Every float output has ``least`` decibels, every other one is equal."""
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = list(
        zip(run(model, feeds), run(output, feeds, "all"), strict=True)
    )
    for before, found in pairs:
        assert before.dtype == found.dtype
        if before.dtype.kind == "f":
            noise = np.sum((before.astype(np.float64) - found) ** 2)
            assert noise <= np.sum(before.astype(np.float64) ** 2) / 10 ** (least / 10)
        else:
            np.testing.assert_array_equal(before, found)


def save(path: Path, case: Case) -> Path:
    model = proto(case.text, **case.weights)
    model.opset_import[0].version = case.opset
    model.ir_version = 9 if case.opset < 21 else 11
    model.opset_import.add(domain="com.microsoft", version=1)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", CASES)
def test_form(tmp_path: Path, name: str) -> None:
    check(save(tmp_path / "m.onnx", CASES[name]), CASES[name])


@pytest.mark.parametrize("scheme", ["int8-dynamic", "int8-weights"])
@pytest.mark.parametrize("name", CASES)
def test_form_in_other_schemes(tmp_path: Path, name: str, scheme: Scheme) -> None:
    """Close to float, or left with a reason that ``inspect`` shows too."""
    case, output = CASES[name], tmp_path / "o.onnx"
    model, recipe = save(tmp_path / "m.onnx", case), Recipe(scheme=scheme)
    samples = [case.feeds(seed) for seed in range(10, 13)]
    result = quantize(model, samples, output, recipe=recipe, options=RunOptions(timing=None))
    found = [(site.decision, site.reason) for site in result.plan.sites]
    assert all(bool(reason) is (decision == "float") for decision, reason in found)
    shown = inspect(model, samples, recipe=recipe).sites
    assert [(site.decision, site.reason) for site in shown] == found
    assert_close(model, output, case.feeds(99), least=20.0)


# Versions, types and names, all on one small network.

NETWORK = Case(
    "g (float[N, 16] x) => (float[N, 12] y) { h = Gemm(x, w, b) t = Tanh(h) y = MatMul(t, v) }",
    ("int8", "int8"),
    {"w": normal(0, 16, 12), "b": normal(1, 12), "v": normal(2, 12, 12)},
)


NEWEST_OPSET = load_target("cpu").max_opset or onnx.defs.onnx_opset_version()


@pytest.mark.parametrize("opset", range(7, NEWEST_OPSET + 1))
def test_opsets(tmp_path: Path, opset: int) -> None:
    model = proto(NETWORK.text, **NETWORK.weights)
    model.opset_import[0].version = opset
    model.ir_version = max(3, onnx.helper.find_min_ir_version_for(list(model.opset_import)))
    if model.ir_version < 4:
        _list_among_inputs(model)
    onnx.save(model, tmp_path / "m.onnx")
    check(tmp_path / "m.onnx", NETWORK)


@pytest.mark.parametrize("opset", range(NEWEST_OPSET + 1, onnx.defs.onnx_opset_version() + 1))
@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int8-weights"])
def test_opsets_without_integer_kernels_are_refused(
    tmp_path: Path, opset: int, scheme: Scheme
) -> None:
    model = proto(NETWORK.text, **NETWORK.weights)
    model.opset_import[0].version, model.ir_version = opset, onnx.IR_VERSION
    onnx.save(model, tmp_path / "m.onnx")
    samples, recipe = [NETWORK.feeds(seed) for seed in range(3)], Recipe(scheme=scheme)
    with pytest.raises(ModelError, match=f"opset {opset}, where cpu quantizes") as caught:
        quantize(tmp_path / "m.onnx", samples, tmp_path / "o.onnx", recipe=recipe)
    assert caught.value.where == str(tmp_path / "m.onnx")
    assert str(NEWEST_OPSET) in caught.value.remedy
    assert inspect(tmp_path / "m.onnx", recipe=recipe).sites


@pytest.mark.parametrize("version", range(3, onnx.IR_VERSION + 1))
def test_ir_versions(tmp_path: Path, version: int) -> None:
    model = proto(NETWORK.text, **NETWORK.weights)
    model.ir_version = version
    if version < 4:
        _list_among_inputs(model)
    onnx.save(model, tmp_path / "m.onnx")
    check(tmp_path / "m.onnx", NETWORK)


def _list_among_inputs(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)


NAMES = {
    "empty": {"nodes": ["", "", ""], "w": "w", "t": "t"},
    "unicode": {"nodes": ["größe", "层/0", "\u200b"], "w": "重み", "t": "выход"},
    "collide": {
        "nodes": ["x_quantized", "t_dequantized", "w_quantized"],
        "w": "x_scale",
        "t": "w_quantized",
    },
    "collide more": {"nodes": ["y", "x", "w"], "w": "x_zero_point", "t": "x_dequantized"},
}


@pytest.mark.parametrize("name", NAMES)
def test_names(tmp_path: Path, name: str) -> None:
    model = proto(NETWORK.text, **NETWORK.weights)
    renamed = {"w": str(NAMES[name]["w"]), "t": str(NAMES[name]["t"])}
    for tensor in model.graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for node, given in zip(model.graph.node, NAMES[name]["nodes"], strict=True):
        node.name = given
        node.input[:] = [renamed.get(value, value) for value in node.input]
        node.output[:] = [renamed.get(value, value) for value in node.output]
    onnx.save(model, tmp_path / "m.onnx")
    check(tmp_path / "m.onnx", NETWORK)


BRANCHES = Case(
    """g (float[N, 16] x, bool c) => (float[N, 12] y) {
        [n] h = MatMul(x, w)
        [m] y = If (c) <
            then_branch = n () => (float[N, 12] o) { [n] o = Neg(h) },
            else_branch = n () => (float[N, 12] o) { [n] o = Abs(h) }
        >
    }""",
    ("int8",),
    {"w": W},
    fixed={"c": np.asarray(True)},
)


def test_names_that_bodies_double(tmp_path: Path) -> None:
    check(save(tmp_path / "m.onnx", BRANCHES), BRANCHES)


def test_names_that_one_graph_doubles_are_refused(tmp_path: Path) -> None:
    """ONNX Runtime runs no such float model, so that nothing could be compared with it."""
    model = proto(NETWORK.text, **NETWORK.weights)
    for node in model.graph.node:
        node.name = "a"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"two nodes with same node name \(a\)") as caught:
        quantize(tmp_path / "m.onnx", [NETWORK.feeds(0)] * 2, tmp_path / "o.onnx", recipe=RECIPE)
    assert caught.value.where == str(tmp_path / "m.onnx")
    assert caught.value.remedy


def test_weights_inside_functions(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 17, "local": 1]>
    g (float[N, 4] x) => (float[N, 4] y) {
        h = local.layer <factor = 0.5>(x) y = local.layer <factor = 2.0>(h)
    }
    <domain: "local", opset_import: ["" : 17]>
    layer <factor> (a) => (b) {
        w = Constant<value = float[4, 4] {1,2,3,4,-1,2,-3,4,5,1,0,-2,2,2,1,1}>()
        f = Constant<value_float: float = @factor>() m = MatMul(a, w) t = Tanh(m) b = Mul(t, f)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    case = Case("", ("int8", "int8"), {}, {"x": (6, 4)})
    check(tmp_path / "m.onnx", case)


@pytest.mark.parametrize(
    ("kind", "words"), [("float16", "int8"), ("double", "DOUBLE; onnxq quantizes FLOAT")]
)
def test_other_types(tmp_path: Path, kind: str, words: str) -> None:
    dtype = {"float16": np.float16, "double": np.float64}[kind]
    weights = {name: array.astype(dtype) for name, array in NETWORK.weights.items()}
    case = Case(NETWORK.text.replace("float", kind), (words, words), weights)
    model = save(tmp_path / "m.onnx", case)
    output = tmp_path / "o.onnx"
    samples = [{"x": normal(seed, 6, 16).astype(dtype)} for seed in range(6)]
    result = quantize(model, samples, output, recipe=RECIPE, options=RunOptions(timing=None))
    for site in result.plan.sites:
        assert site.decision == "int8" if words == "int8" else words in site.reason
    feeds = {"x": normal(99, 6, 16).astype(dtype)}
    wanted, found = run(model, feeds)[0], run(output, feeds, "all")[0]
    assert found.dtype == wanted.dtype
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


def test_float16_is_applied_from_its_plan_to_the_same_bytes(tmp_path: Path) -> None:
    weights = {name: array.astype(np.float16) for name, array in NETWORK.weights.items()}
    model = save(tmp_path / "m.onnx", Case(NETWORK.text.replace("float", "float16"), (), weights))
    samples = [{"x": normal(seed, 6, 16).astype(np.float16)} for seed in range(6)]
    options = RunOptions(timing=None, plan_out=tmp_path / "plan")
    quantize(model, samples, tmp_path / "o.onnx", recipe=RECIPE, options=options)
    apply(model, tmp_path / "plan", tmp_path / "p.onnx")
    assert (tmp_path / "o.onnx").read_bytes() == (tmp_path / "p.onnx").read_bytes()


def test_bfloat16_is_named(tmp_path: Path) -> None:
    """ONNX Runtime's CPU provider does not run such a model at all."""
    text = """g (float[N, 16] x) => (float[N, 12] y) {
        k = Cast<to = 16>(x) v = Cast<to = 16>(w) h = MatMul(k, v) y = Cast<to = 1>(h)
    }"""
    onnx.save(proto(text, w=W), tmp_path / "m.onnx")
    (site,) = inspect(tmp_path / "m.onnx").sites
    assert "BFLOAT16" in site.reason
    assert "export it in float32" in site.reason
    with pytest.raises(ModelError) as caught:
        quantize(tmp_path / "m.onnx", [{"x": normal(0, 6, 16)}] * 2, tmp_path / "o.onnx")
    assert caught.value.where == str(tmp_path / "m.onnx")


def test_lengths_that_vary_and_no_rows_at_all(tmp_path: Path) -> None:
    text = "g (float[B, T, 16] x) => (float[B, T, 12] y) { h = MatMul(x, w) y = Tanh(h) }"
    model = save(tmp_path / "m.onnx", Case(text, (), {"w": W}))
    shapes = [(1, 3, 16), (2, 1, 16), (4, 9, 16), (3, 2, 16)]
    samples = [{"x": normal(i, *shape)} for i, shape in enumerate(shapes)]
    options = RunOptions(timing=None, eval_data=samples[:3])
    result = quantize(model, samples, tmp_path / "o.onnx", recipe=RECIPE, options=options)
    assert [site.decision for site in result.plan.sites] == ["int8"]
    for shape in (*shapes, (0, 3, 16), (2, 0, 16), (7, 1, 16)):
        feeds = {"x": normal(50, *shape)}
        wanted, found = run(model, feeds)[0], run(tmp_path / "o.onnx", feeds, "all")[0]
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max(initial=0) < 0.3


def test_a_weight_without_elements(tmp_path: Path) -> None:
    text = """g (float[N, 16] x) => (float[N, 12] y) {
        z = MatMul(x, e) h = MatMul(z, f) k = MatMul(x, w) y = Concat<axis = 0>(h, k)
    }"""
    weights = {"e": np.zeros((16, 0), np.float32), "f": np.zeros((0, 12), np.float32), "w": W}
    case = Case(text, ("is empty", "is empty", "int8"), weights)
    check(save(tmp_path / "m.onnx", case), case)
