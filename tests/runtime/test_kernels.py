from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnxq.errors import ModelError
from onnxq.runtime.kernels import (
    ExecutedNode,
    count_kernels,
    executed,
    integer_sites,
    is_integer,
    tally,
)
from onnxq.runtime.probe_forms import forms

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto


def two_sites() -> ModelProto:
    """Two MatMuls behind Q/DQ; the second one's float bias makes it a float Gemm."""
    rng = np.random.default_rng(0)
    constants = {"s": np.float32(0.1), "z": np.uint8(0), "bias": np.ones(8, np.float32)}
    nodes = []
    for index, value in enumerate(("x", "first")):
        constants[f"w{index}"] = rng.integers(-100, 100, (8, 8)).astype(np.int8)
        constants[f"w{index}_s"] = rng.uniform(0.1, 1, 8).astype(np.float32)
        constants[f"w{index}_z"] = np.zeros(8, np.int8)
        weight = [f"w{index}", f"w{index}_s", f"w{index}_z"]
        output = ("first", "second")[index]
        nodes += [
            helper.make_node("DequantizeLinear", weight, [f"w{index}_f"], axis=1),
            helper.make_node("QuantizeLinear", [value, "s", "z"], [f"{value}_q"]),
            helper.make_node("DequantizeLinear", [f"{value}_q", "s", "z"], [f"{value}_d"]),
            helper.make_node(
                "MatMul", [f"{value}_d", f"w{index}_f"], [output], name=f"site_{output}"
            ),
        ]
    nodes.append(helper.make_node("Add", ["second", "bias"], ["y"], name="bias_add"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def private_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_sites_are_traced_by_name_and_by_weight(private_tmp: Path) -> None:
    nodes = executed(two_sites().SerializeToString())
    ops = {node.name: node.op for node in nodes}
    assert ops["site_first"] == "QLinearMatMul"
    assert ops["site_second/MatMulAddFusion"] == "Gemm"
    assert integer_sites(nodes, {"site_first": "w0", "site_second": "w1"}) == {"site_first"}
    assert integer_sites(nodes, {"other_name": "w0", "gone": None, "lost": "w9"}) == {"other_name"}
    assert tally(nodes).by_op == {"QLinearMatMul": 1}
    assert list(private_tmp.iterdir()) == []


def test_conv_made_anew_is_traced(private_tmp: Path) -> None:
    """ONNX Runtime turns a Conv to NHWC and renames it."""
    (form,) = (
        form for form in forms() if (form.name, form.activation) == ("Conv-relu-outq", "uint8")
    )
    model = form.build("uint8")
    (site,) = (node.name for node in model.graph.node if node.op_type == "Conv")
    nodes = executed(model.SerializeToString())
    assert integer_sites(nodes, {site: None}) == {site}
    assert integer_sites(nodes, {"renamed": "weight_q"}) == {"renamed"}


def test_site_with_one_float_node_is_float() -> None:
    nodes = [
        ExecutedNode("a_token_3", "QGemm", "", ("x", "w"), ("y",)),
        ExecutedNode("a/MatMulAddFusion", "Gemm", "", ("x", "w"), ("z",)),
        ExecutedNode("b_token_1", "QGemm", "", ("x", "v"), ("u",)),
    ]
    assert integer_sites(nodes, {"a": "w", "c": "w", "b": "v", "b_token_1": "v"}) == {
        "b",
        "b_token_1",
    }


def test_external_data(tmp_path: Path, private_tmp: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(two_sites(), path, save_as_external_data=True, size_threshold=0, location="m.data")
    before = sorted(tmp_path.iterdir())
    count = count_kernels(path)
    assert (count.integer, count.nbits) == (1, 0)
    assert sorted(tmp_path.iterdir()) == before
    assert list(private_tmp.iterdir()) == []


def test_subgraph_nodes_carry_their_owner() -> None:
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["" : 17]>
        g (bool c, float[2] x) => (float[2] y) {
            [choice] y = If (c) <
                then_branch = yes () => (float[2] a) { [inner] a = Exp(x) },
                else_branch = no () => (float[2] b) { b = Neg(x) }
            >
        }
    """)
    nodes = executed(model.SerializeToString())
    assert {node.op: node.subgraph for node in nodes} == {
        "If": "",
        "Exp": "choice.then_branch",
        "Neg": "choice.else_branch",
    }


def test_failure_leaves_no_folder(private_tmp: Path) -> None:
    with pytest.raises(ModelError):
        executed(b"junk")
    assert list(private_tmp.iterdir()) == []


def test_tally_counts_few_bit_kernels_apart() -> None:
    def node(op: str) -> ExecutedNode:
        return ExecutedNode(op, op, "com.microsoft", (), ())

    ops = ("MatMulNBits", "QGemm", "QGemm", "Gemm", "GatherBlockQuantized")
    count = tally([node(op) for op in ops])
    assert (count.integer, count.nbits) == (2, 2)
    assert count.by_op == {"GatherBlockQuantized": 1, "MatMulNBits": 1, "QGemm": 2}
    assert not is_integer("MatMul")
    assert is_integer("DynamicQuantizeMatMul")
