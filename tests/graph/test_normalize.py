"""Normalization changes the form of a model and not what it computes."""

from __future__ import annotations

import logging
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import parser

from onnxq.graph import edit, io
from onnxq.graph.normalize import normalize
from onnxq.graph.opset import raise_opset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Parse = Callable[[str], ir.Model]
    Run = Callable[[ir.Model, Mapping[str, NDArray[np.generic]]], list[NDArray[Any]]]

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
W43 = "{1,2,3,4,5,6,7,8,9,10,11,12}"

FUNCTIONS = f"""<ir_version: 8, opset_import: ["" : 17, "local": 1]>
agraph (float[N,4] x) => (float[N,3] y, float[N,3] z) {{
  y = local.outer(x)
  h = local.scaled <factor = 3.0>(x)
  z = local.outer(h)
}}
<domain: "local", opset_import: ["" : 17, "local": 1]>
outer (a) => (b) {{
  w = Constant<value = float[4,3] {W43}>()
  s = local.scaled <factor = 0.5>(a)
  b = MatMul(s, w)
}}
<domain: "local", opset_import: ["" : 17]>
scaled <factor> (a) => (b) {{
  f = Constant<value_float: float = @factor>()
  b = Mul(a, f)
}}"""

SUBGRAPHS = (
    HEAD
    + f"""agraph (float[N,4] x, bool c) => (float[N,3] y, float[N,4] z)
<float[4,3] w = {W43}> {{
  h = Relu(x)
  [choice] z = If(c) <
    then_branch = tb () => (float[N,4] o) {{ k = Constant<value_float=2.0>() o = Mul(h, k) }},
    else_branch = eb () => (float[N,4] o) {{
      k = Constant<value_floats=[1.0,2.0,3.0,4.0]>() t = Mul(h, k) o = Identity(t) }} >
  y = MatMul(h, w)
}}"""
)

UNSORTED = (
    HEAD
    + """agraph (float[N,4] x) => (float[N,4] y) {
  y = Add(b, a)
  b = Tanh(a)
  a = Relu(x)
}"""
)

DUPLICATE_NAMES = (
    HEAD
    + """agraph (float[N,4] x, bool c) => (float[N,4] y) {
  [n] a = Relu(x)
  [n_1] b = Tanh(a)
  [n] d = Sigmoid(b)
  [n] y = If(c) <
    then_branch = tb () => (float[N,4] r) { [n] r = Exp(d) },
    else_branch = eb () => (float[N,4] r) { [n] r = Neg(d) } >
}"""
)

CONSTANTS = (
    HEAD
    + f"""agraph (float[N,12] x) => (float[M,3] y, float[2] fixed) {{
  one = Constant<value_int=1>()
  four = Constant<value_ints=[4]>()
  minus = Constant<value_ints=[-1]>()
  shape = Concat<axis=0>(minus, four)
  r = Reshape(x, shape)
  w = Constant<value = float[3,4] {W43}>()
  wt = Transpose<perm=[1,0]>(w)
  w2 = Identity(wt)
  a = MatMul(r, w2)
  b = MatMul(r, wt)
  y = Add(a, b)
  fixed = Constant<value = float[2] {{1, 2}}>()
}}"""
)

DUPLICATES = (
    HEAD
    + f"""agraph (float[N,4] x) => (float[N,3] y, float[N,3] z)
<float[4,3] w1 = {W43}, float[4,3] w2 = {W43}> {{
  a = MatMul(x, w1)
  b = MatMul(x, w2)
  y = Relu(a)
  z = Relu(b)
}}"""
)

PASS_THROUGH = (
    HEAD
    + """agraph (float[2] x) => (float[2] x, float[2] w, float[2] y)
<float[2] w = {1, 2}> { y = Identity(x) }"""
)

MODELS = {
    "functions": FUNCTIONS,
    "subgraphs": SUBGRAPHS,
    "unsorted": UNSORTED,
    "duplicate names": DUPLICATE_NAMES,
    "constants": CONSTANTS,
    "duplicates": DUPLICATES,
}


def _feeds(model: ir.Model, seed: int) -> list[dict[str, NDArray[np.generic]]]:
    """Random inputs, once for each value of a condition."""
    rng = np.random.default_rng(seed)
    feeds = []
    for flag in (True, False):
        feed: dict[str, NDArray[np.generic]] = {}
        for value in model.graph.inputs:
            shape = [dim if isinstance(dim, int) else 2 for dim in value.shape or ()]
            is_flag = value.dtype == ir.DataType.BOOL
            feed[value.name or ""] = (
                np.array(flag) if is_flag else rng.normal(size=shape).astype(np.float32)
            )
        feeds.append(feed)
    return feeds


@pytest.mark.parametrize("name", MODELS)
@given(seed=st.integers(0, 1000))
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_outputs_stay(name: str, seed: int, parse: Parse, run: Run) -> None:
    model = parse(MODELS[name])
    before = io.digest(model)
    result = normalize(model)
    assert result.notes == ()
    assert io.digest(model) == before
    # ONNX Runtime refuses nodes of one name in one graph, and accepts nodes of no name.
    for node in edit.all_nodes(model):
        node.name = ""
    for feeds in _feeds(model, seed):
        for wanted, got in zip(run(model, feeds), run(result.model, feeds), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_form_and_interface(name: str, parse: Parse) -> None:
    model = parse(MODELS[name])
    result = normalize(model).model
    assert not result.functions
    assert set(result.opset_imports) == {""}
    nodes = list(edit.all_nodes(result))
    names = [node.name for node in nodes]
    assert all(names)
    assert len(set(names)) == len(names)
    values = [v.name for node in nodes for v in node.outputs]
    assert len(set(values)) == len(values)
    pairs = (
        (model.graph.inputs, result.graph.inputs),
        (model.graph.outputs, result.graph.outputs),
    )
    for old, new in pairs:
        assert [(v.name, v.type, v.shape) for v in old] == [(v.name, v.type, v.shape) for v in new]
    assert (result.ir_version, result.graph.name) == (8, "agraph")


@pytest.mark.parametrize("name", MODELS)
def test_normalizing_twice_changes_nothing(name: str, parse: Parse) -> None:
    once = normalize(parse(MODELS[name])).model
    assert io.digest(normalize(once).model) == io.digest(once)


def test_functions_are_inlined_with_their_weights(parse: Parse) -> None:
    result = normalize(parse(FUNCTIONS)).model
    assert sum(node.op_type == "MatMul" for node in result.graph) == 2
    # The weight of the function, called twice, exists once.
    assert sum(len(v.shape or ()) == 2 for v in result.graph.initializers.values()) == 1


def test_unique_names_stay_and_duplicates_get_a_number(parse: Parse) -> None:
    names = [node.name for node in edit.all_nodes(normalize(parse(DUPLICATE_NAMES)).model)]
    assert {"n", "n_1"} < set(names)
    assert names[:2] == ["n", "n_1"]


def test_constants_are_folded_into_initializers(parse: Parse) -> None:
    result = normalize(parse(CONSTANTS)).model
    ops = [node.op_type for node in result.graph]
    # Both MatMuls are the same one now; the Constant that is an output stays.
    assert sorted(ops) == ["Add", "Constant", "MatMul", "Reshape"]
    matmul = next(node for node in result.graph if node.op_type == "MatMul")
    array = edit.constant_array(matmul.inputs[1])
    np.testing.assert_array_equal(array, np.arange(1, 13, dtype=np.float32).reshape(3, 4).T)


TFIDF = """TfIdfVectorizer<mode = "TF", min_gram_length = 1, max_gram_length = 1,
    max_skip_count = 0, ngram_counts = [0], ngram_indexes = [3000000000],
    pool_int64s = [1]>(axes)"""


@pytest.mark.parametrize(
    "node",
    [
        "Pad(column, pads, , axes)",
        "Gather(row, many)",
        "Gemm<transA = 1>(row, row)",
        f"Concat<axis = 0>({', '.join(['column'] * 40)})",
        TFIDF,
    ],
)
def test_no_small_constant_becomes_gigabytes(parse: Parse, node: str) -> None:
    ones = ", ".join(["1"] * 8192)
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    agraph (float[1] x) => (float[M,N] y)
    <float[8192,1] column = {{{ones}}}, float[1,8192] row = {{{ones}}},
     int64[8192] many = {{{ones.replace("1", "0")}}},
     int64[2] pads = {{0, 49999}}, int64[1] axes = {{1}}>
    {{ large = {node} y = Add(large, x) }}"""
    ops = [node.op_type for node in normalize(parse(text)).model.graph]
    assert ops[-2:] == [node.partition("(")[0].partition("<")[0], "Add"]


@pytest.mark.parametrize(
    "node", ["Concat<axis = 0>(c, c)", "Gather(c, i)", "Gemm(c, c)", "Pad(c, p)", "Tile(c, i)"]
)
def test_what_stays_small_is_computed(parse: Parse, run: Run, node: str) -> None:
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    agraph (float[1] x) => (float[M,N] y)
    <float[2,2] c = {{1, 2, 3, 4}}, int64[2] i = {{1, 1}}, int64[4] p = {{1, 0, 0, 2}}>
    {{ made = {node} y = Add(made, x) }}"""
    model = parse(text)
    result = normalize(model).model
    assert [node.op_type for node in result.graph] == ["Add"]
    feeds = {"x": np.ones(1, np.float32)}
    np.testing.assert_array_equal(run(result, feeds)[0], run(model, feeds)[0])


def test_outputs_that_are_inputs_or_initializers_stay(parse: Parse) -> None:
    model = parse(PASS_THROUGH)
    result = normalize(model).model
    assert [value.name for value in result.graph.outputs] == ["x", "w", "y"]
    assert "w" in result.graph.initializers


def test_shapes_are_inferred(parse: Parse) -> None:
    result = normalize(parse(SUBGRAPHS)).model
    hidden = edit.value_by_name(result.graph)["h"]
    assert hidden.dtype == ir.DataType.FLOAT
    assert [str(dim) for dim in hidden.shape or ()] == ["N", "4"]


def test_failing_shape_inference_is_said(parse: Parse) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N,4] x) => (float[N,5] y)
    <float[3,5] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}> { h = Relu(x) y = MatMul(h, w) }"""
    result = normalize(parse(text))
    assert any("shape inference" in note for note in result.notes)


def test_default_of_an_input_is_no_constant(parse: Parse, run: Run) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N,2] x, float[2] k = {2, 3}) => (float[N,2] y)
    { n = Neg(k) y = Mul(x, n) }"""
    model = parse(text)
    result = normalize(model).model
    assert [value.name for value in result.graph.inputs] == ["x", "k"]
    x = np.ones((1, 2), np.float32)
    for feeds in ({"x": x}, {"x": x, "k": np.array([5, 7], np.float32)}):
        np.testing.assert_array_equal(run(result, feeds)[0], run(model, feeds)[0])


def test_old_ir_version_lists_no_initializers_among_inputs(linear: Path) -> None:
    proto = onnx.load(linear)
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(info)
    linear.write_bytes(proto.SerializeToString())
    result = normalize(io.load(linear))
    assert [value.name for value in result.model.graph.inputs] == ["x"]
    assert result.model.ir_version == 4
    assert any("IR version 3" in note for note in result.notes)


def test_missing_opset_of_another_domain(linear: Path) -> None:
    proto = onnx.load(linear)
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "FusedMatMul", "com.microsoft"
    linear.write_bytes(proto.SerializeToString())
    result = normalize(io.load(linear))
    assert result.model.opset_imports["com.microsoft"] == 1
    assert any("com.microsoft" in note for note in result.notes)


def test_function_of_another_opset_is_left_and_said(parse: Parse) -> None:
    text = FUNCTIONS.replace('opset_import: ["" : 17]>\nscaled', 'opset_import: ["" : 16]>\nscaled')
    result = normalize(parse(text))
    assert any("not inlined" in note for note in result.notes)
    assert result.model.functions


def test_dequantized_weights_are_not_folded(parse: Parse) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N,2] x) => (float[N,2] y)
    <int8[2,2] q = {1,2,3,4}, float s = {0.5}> { w = DequantizeLinear(q, s) y = MatMul(x, w) }"""
    ops = [node.op_type for node in normalize(parse(text)).model.graph]
    assert ops == ["DequantizeLinear", "MatMul"]


def test_random_nodes_stay_apart(parse: Parse) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    agraph (float[2] x) => (float[2] y)
    { a = RandomNormalLike(x) b = RandomNormalLike(x) y = Sub(a, b) }"""
    assert len(normalize(parse(text)).model.graph) == 3


def test_optional_outputs_stay_left_out(parse: Parse) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N,4] x) => (float[N,4] y, float[N,1] inv) <float[4] g = {1,1,1,1}>
    { y, , inv = LayerNormalization(x, g) }"""
    node = normalize(parse(text)).model.graph[0]
    assert [output.name for output in node.outputs] == ["y", "", "inv"]


def test_quiet(parse: Parse, capfd: pytest.CaptureFixture[str]) -> None:
    normalize(parse(PASS_THROUGH))
    normalize(parse(CONSTANTS))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert logging.getLogger("onnx_ir").handlers


def test_three_gigabytes_are_neither_read_nor_copied(tmp_path: Path) -> None:
    """The data file is a hole of 3 GB; only shapes and a few bytes of it are looked at."""
    size = 16384
    nodes, tensors = [], []
    for index in range(3):
        nodes.append(onnx.helper.make_node("MatMul", [f"h{index}", f"w{index}"], [f"h{index + 1}"]))
        tensor = onnx.TensorProto(name=f"w{index}", data_type=1, dims=(size, size))
        tensor.data_location = onnx.TensorProto.EXTERNAL
        length = 4 * size * size
        for key, value in (("location", "w"), ("offset", index * length), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
    graph = onnx.helper.make_graph(
        nodes,
        "huge",
        [onnx.helper.make_tensor_value_info("h0", 1, ["n", size])],
        [onnx.helper.make_tensor_value_info("h3", 1, ["n", size])],
        tensors,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with (tmp_path / "w").open("wb") as data:
        for index in range(3):
            data.seek(4 * index * size * size)
            data.write(bytes([index]))
        data.truncate(3 * 4 * size * size)
    tracemalloc.start()
    try:
        result = normalize(io.load(tmp_path / "m.onnx"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.notes == ()
    assert io.weight_bytes(result.model) == 3 * 4 * size * size
    assert edit.static_shape(result.model.graph[0].inputs[1]) == (size, size)
    assert peak < 50e6


def test_an_output_that_is_another_ones_twin_keeps_its_type(parse: Parse, run: Run) -> None:
    model = parse(
        HEAD
        + """g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) {
        y = Tanh(x)
        z = Tanh(x)
        }"""
    )
    result = normalize(model).model
    assert [(v.name, v.dtype, str(v.shape)) for v in result.graph.outputs] == [
        ("y", ir.DataType.FLOAT, "[N,4]"),
        ("z", ir.DataType.FLOAT, "[N,4]"),
    ]
    feeds = {"x": np.ones((2, 4), np.float32)}
    first, second = run(result, feeds)
    np.testing.assert_array_equal(first, second)


def test_a_step_that_fails_is_left_out_alone(parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        msg = "no luck"
        raise RuntimeError(msg)

    monkeypatch.setattr("onnxq.graph.normalize.FoldLayoutPass.call", fail)
    model = parse(
        HEAD + "g (float[N, 4] x) => (float[N, 4] y) { a = Neg(x) b = Neg(x) y = Add(a, b) }"
    )
    result = normalize(model)
    assert result.notes == ("FoldLayoutPass was left out: no luck",) * 2
    assert sum(node.op_type == "Neg" for node in result.model.graph) == 1


def test_lengths_of_outputs_without_a_name_get_none() -> None:
    text = "g (float[2, N, 4] x) => (float[2, M, 4] y) { y = Concat<axis = 1>(x, x) }"
    for version in (11, 17):
        model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {version}]> {text}')
        model.graph.output[0].type.tensor_type.shape.dim[1].Clear()
        raised = raise_opset(ir.serde.deserialize_model(model), 13)
        found = normalize(raised).model.graph.outputs[0].shape
        assert found is not None
        assert [dim if isinstance(dim, int) else dim.value for dim in found] == [2, None, 4]
