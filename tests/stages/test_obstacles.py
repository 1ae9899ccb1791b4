"""Models as other exporters write them: what stops them is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxq
from onnxq.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = TensorProto.FLOAT


def saved(path: Path, nodes: list[onnx.NodeProto], shape: Any, **more: Any) -> Path:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "weight")
    output = more.pop("output", helper.make_tensor_value_info("y", FLOAT, None))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [output],
        initializer=more.pop("initializer", [weight]),
    )
    domains = ["", *more.pop("domains", [])]
    opsets = [helper.make_opsetid(domain, 17 if not domain else 1) for domain in domains]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8, **more), path)
    return path


def product() -> onnx.NodeProto:
    return helper.make_node("MatMul", ["x", "weight"], ["y"], name="product")


def test_none(tmp_path: Path) -> None:
    assert onnxq.inspect(saved(tmp_path / "m.onnx", [product()], ["N", 4])).obstacles == ()


def test_open_rank_as_tf2onnx_leaves_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [product()], None, producer_name="tf2onnx")
    assert onnxq.inspect(path).obstacles == ("input x: its number of axes is left open",)


def test_no_weights(tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    path = saved(tmp_path / "m.onnx", [relu], ["N", 4], initializer=[])
    assert onnxq.inspect(path).obstacles == ("there are no floating-point weights",)


def test_weights_that_nothing_multiplies(tmp_path: Path) -> None:
    add = helper.make_node("Add", ["x", "weight"], ["y"])
    (text,) = onnxq.inspect(saved(tmp_path / "m.onnx", [add], ["N", 4])).obstacles
    assert text == "no weight feeds an operator that is quantized"


def test_a_domain_that_nobody_brings(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Odd", ["x"], ["z"], name="odd", domain="paddle"),
        helper.make_node("MatMul", ["z", "weight"], ["y"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, ["N", 4], domains=["paddle"])
    try:
        (text,) = onnxq.inspect(path).obstacles
    except ModelError as error:
        text = str(error)
    assert "'Odd'" in text
    assert "paddle" in text
    assert "--custom-ops" in text


def test_bodies(tmp_path: Path) -> None:
    def body(name: str) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["x", "weight"], [name])
        return helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info(name, FLOAT, None)]
        )

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["some"], to=TensorProto.BOOL),
        helper.make_node("If", ["some"], ["y"], then_branch=body("a"), else_branch=body("b")),
    ]
    found = onnxq.inspect(saved(tmp_path / "m.onnx", nodes, ["N", 4])).obstacles
    assert any("1 If" in text for text in found)


def test_an_output_that_is_no_tensor(tmp_path: Path) -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["z"]),
        helper.make_node("SplitToSequence", ["z"], ["y"]),
    ]
    output = helper.make_value_info("y", kind)
    path = saved(tmp_path / "m.onnx", nodes, ["N", 4], output=output)
    assert any(text.startswith("output y: no tensor") for text in onnxq.inspect(path).obstacles)


def test_scikit_learn(tmp_path: Path) -> None:
    sklearn = pytest.importorskip("sklearn.neural_network")
    skl2onnx = pytest.importorskip("skl2onnx")
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    model = sklearn.MLPClassifier((16,), max_iter=400, tol=1e-2).fit(x, x[:, 0] > 0)
    path = tmp_path / "m.onnx"
    path.write_bytes(skl2onnx.to_onnx(model, x[:1]).SerializeToString())
    with pytest.raises(ModelError, match="zipmap"):
        onnxq.inspect(path)
    made = skl2onnx.to_onnx(model, x[:1], options={"zipmap": False})
    path.write_bytes(made.SerializeToString())
    found = onnxq.inspect(path)
    assert found.obstacles == ()
    assert len(found.sites) == 2
