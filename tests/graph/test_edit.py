"""The helpers that passes stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from onnxq.errors import InternalError, ModelError
from onnxq.graph import edit, io
from onnxq.graph.opset import opset_version, raise_opset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

    Parse = Callable[[str], ir.Model]
    Run = Callable[[ir.Model, Mapping[str, NDArray[np.generic]]], list[NDArray[np.generic]]]


def test_names_are_free_and_then_taken(linear: Path) -> None:
    model = io.load(linear)
    fresh = edit.NameScope(model)
    assert [fresh("w1"), fresh("first")] == ["w1_1", "first_1"]
    assert [fresh("scale"), fresh("scale"), fresh("x")] == ["scale", "scale_1", "x_1"]


def test_initializer_never_overwrites(linear: Path) -> None:
    model = io.load(linear)
    with pytest.raises(InternalError, match="w1"):
        edit.initializer(model, "w1", np.ones(3, np.float32))


def test_replace_input_and_consumers(linear: Path) -> None:
    model = io.load(linear)
    first, second = model.graph
    value = edit.initializer(model, "bias", np.ones(8, np.float32))
    edit.replace_input(second, 2, value)
    assert edit.consumers(value) == ((second, 2),)
    assert edit.consumers(first.outputs[0]) == ((second, 0),)
    edit.replace_input(second, 2, None)
    assert edit.remove_if_unread(value)
    assert "bias" not in model.graph.initializers
    assert not edit.remove_if_unread(model.graph.initializers["w1"])


def test_lookups(linear: Path) -> None:
    graph = io.load(linear).graph
    assert set(edit.value_by_name(graph)) == {"x", "w1", "w2", "h", "y"}
    assert set(edit.node_by_name(graph)) == {"first", "second"}
    assert edit.constant_array(graph.inputs[0]) is None
    assert edit.constant_array(None) is None
    assert edit.static_shape(graph.initializers["w1"]) == (16, 32)
    assert edit.static_shape(graph.inputs[0]) is None


OLD = """<ir_version: 6, opset_import: ["" : 11]>
agraph (float[N,1,4] x) => (float[N,4] y) <float[4] b = {1,2,3,4}>
{ s = Squeeze<axes=[1]>(x) h = Add(s, b) y = Softmax(h) }"""


@pytest.mark.parametrize("version", [13, 17, 18, 21, 23])
def test_raise_opset_keeps_the_outputs(version: int, parse: Parse, run: Run) -> None:
    model = parse(OLD)
    result = raise_opset(model, version)
    assert opset_version(result) == version
    assert opset_version(model) == 11
    assert [v.name for v in result.graph.inputs] == ["x"]
    x = np.random.default_rng(0).normal(size=(3, 1, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(result, {"x": x})[0], run(model, {"x": x})[0])


def test_raise_opset_shares_large_weights(linear: Path, run: Run) -> None:
    model = io.load(linear)
    result = raise_opset(model, 21)
    weights = (m.graph.initializers["w1"].const_value for m in (model, result))
    assert len({id(weight) for weight in weights}) == 1
    assert (result.ir_version, model.ir_version) == (10, 8)
    assert result.metadata_props == model.metadata_props
    x = np.ones((2, 16), np.float32)
    np.testing.assert_array_equal(run(result, {"x": x})[0], run(model, {"x": x})[0])


BRANCHES = """<ir_version: 8, opset_import: ["" : 13]>
agraph (bool c, float[4, 3] x) => (float[2, 2, 3] y) <int64[3] s = {2, 2, 3}> {
    a = If(c) <then_branch = t () => (float[4, 3] u) {
        i = Constant<value = int64[4] {3, 2, 1, 0}>() u = Gather(w, i)
    }, else_branch = e () => (float[4, 3] v) { v = Add(x, small) }>
    y = Reshape(a, s)
}"""


def test_raise_opset_reads_weights_in_files_wherever_they_lie(tmp_path: Path, run: Run) -> None:
    proto = onnx.parser.parse_model(BRANCHES)
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(200, 3)), "small": rng.normal(size=(4, 3))}
    for branch, (name, weight) in zip(proto.graph.node[0].attribute, weights.items(), strict=True):
        tensor = onnx.numpy_helper.from_array(weight.astype(np.float32), name)
        branch.g.initializer.append(tensor)
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights", size_threshold=0)
    model = io.load(path)
    result = raise_opset(model, 21)
    assert result.graph.outputs[0].shape == model.graph.outputs[0].shape
    for choice in (True, False):
        feeds = {"c": np.array(choice), "x": np.ones((4, 3), np.float32)}
        np.testing.assert_array_equal(run(result, feeds)[0], run(model, feeds)[0])
    path.with_name("weights").unlink()
    with pytest.raises(ModelError, match="changed while it was read"):
        io.save(result, tmp_path / "out.onnx")


def test_raise_opset_of_a_weight_that_is_no_input_in_ir_3(parse: Parse, run: Run) -> None:
    text = OLD.replace("<ir_version: 6", "<ir_version: 3")
    x = np.random.default_rng(0).normal(size=(3, 1, 4)).astype(np.float32)
    result = raise_opset(parse(text), 13)
    assert [v.name for v in result.graph.inputs] == ["x"]
    np.testing.assert_array_equal(run(result, {"x": x})[0], run(parse(OLD), {"x": x})[0])


def test_raise_opset_leaves_what_is_new_enough(linear: Path) -> None:
    model = io.load(linear)
    assert raise_opset(model, 13) is model


def test_raise_opset_keeps_other_domains(parse: Parse, run: Run) -> None:
    text = OLD.replace('"" : 11]', '"" : 11, "com.microsoft" : 1]').replace(
        "y = Softmax(h)", "y = com.microsoft.Gelu(h)"
    )
    model = parse(text)
    result = raise_opset(model, 13)
    assert result.opset_imports["com.microsoft"] == 1
    x = np.random.default_rng(0).normal(size=(3, 1, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(result, {"x": x})[0], run(model, {"x": x})[0])


def test_raise_opset_beyond_what_exists(linear: Path) -> None:
    with pytest.raises(ModelError, match="export the model again"):
        raise_opset(io.load(linear), 999)


def test_names_count_on_past_those_of_the_model(parse: Parse) -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N] scale) => (float[N] y) { scale_2 = Relu(scale) y = Relu(scale_2) }"""
    )
    fresh = edit.NameScope(model)
    assert [fresh("scale") for _ in range(3)] == ["scale_1", "scale_3", "scale_4"]
    assert len({fresh("probe") for _ in range(5000)}) == 5000


FUNCTIONS = """<ir_version: 8, opset_import: ["" : 12, "local": 1]>
g (float[N, 2] x) => (float[N, 2] y) { y = local.outer(x) }
<domain: "local", opset_import: ["" : 12, "local": 1]>
outer (a) => (b) { h = local.inner(a) b = Add(h, a) }
<domain: "local", opset_import: ["" : 12]>
inner (a) => (b) { w = Constant<value = float[2,2] {1, 2, 3, 4}>() b = MatMul(a, w) }
<domain: "local", opset_import: ["" : 12, "local": 1]>
idle (a) => (b) { b = local.inner(a) }"""


def test_raise_opset_takes_functions_along(parse: Parse, run: Run) -> None:
    """At the old opset they would make the model invalid; one that nobody calls goes."""
    model = parse(FUNCTIONS)
    feeds = {"x": np.ones((3, 2), np.float32)}
    result = raise_opset(model, 13)
    assert (dict(result.opset_imports), len(result.functions)) == ({"": 13}, 0)
    np.testing.assert_array_equal(run(result, feeds)[0], run(model, feeds)[0])
    assert len(model.functions) == 3
