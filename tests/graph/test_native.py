"""ONNX's compiled functions do no harm: crashes and runaways become errors, and work goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, parser

from onnxq.graph import native
from onnxq.graph.normalize import normalize

HEAD = '<ir_version: 9, opset_import: ["" : 17]>'
GOOD = parser.parse_model(
    f"{HEAD} g (float[N, 8] x) => (float[N, 8] y) {{ h = Tanh(x) y = Neg(h) }}"
)


def crashing() -> onnx.ModelProto:
    """LabelEncoder behind a value without a type: onnx 1.23 ends the process."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Mystery", ["x"], ["u"], domain="mine"),
        helper.make_node(
            "LabelEncoder",
            ["u"],
            ["y"],
            domain="ai.onnx.ml",
            keys_strings=["a"],
            values_int64s=[1],
        ),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.INT64, [1])]
    )
    versions = {"": 17, "mine": 1, "ai.onnx.ml": 2}
    imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model(graph, ir_version=8, opset_imports=imports)


def greedy() -> onnx.ModelProto:
    """Data propagation makes a list of as many entries as an input declares."""
    return parser.parse_model(
        f"{HEAD} g (float[20, 10] x, int64[2] s, int64[2] e, int64[2] a, int64[2147483647] t)"
        " => (float[3, 10] y) { y = Slice(x, s, e, a, t) }"
    )


def test_shapes_are_inferred() -> None:
    found = native.call("infer", GOOD)
    assert [value.name for value in found.graph.value_info] == ["h"]


def test_a_refusal_is_the_function_s_own() -> None:
    wrong = onnx.ModelProto()
    wrong.CopyFrom(GOOD)
    wrong.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9
    with pytest.raises(native.NativeError, match="nfer") as caught:
        native.call("infer", wrong)
    assert not isinstance(caught.value, native.NativeDiedError)


def test_the_opset_is_converted() -> None:
    assert native.call("convert", GOOD, 18).opset_import[0].version == 18


@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
@pytest.mark.parametrize(("model", "says"), [(crashing(), "crashes"), (greedy(), "bytes")])
def test_a_death_is_told_and_the_next_call_works(model: onnx.ModelProto, says: str) -> None:
    with pytest.raises(native.NativeDiedError, match=says):
        native.call("infer", model)
    assert native.call("infer", GOOD).graph.value_info
    (note,) = normalize(ir.serde.deserialize_model(model)).notes
    assert note.startswith("shape inference was left out")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_the_limit_that_was_reached_is_told() -> None:
    request = {"seconds": 4.0, "memory": 1 << 30}
    assert "takes more than 4 s" in native._cause_of_death(-signal.SIGXCPU, request)
    assert "takes more than 1,073,741,824 bytes" in native._cause_of_death(-signal.SIGABRT, request)
    assert "crashes on this model" in native._cause_of_death(-signal.SIGSEGV, request)


def test_a_file_is_checked(tmp_path: Path) -> None:
    onnx.save(GOOD, tmp_path / "good.onnx")
    native.check_file(tmp_path / "good.onnx")
    wrong = onnx.ModelProto()
    wrong.CopyFrom(GOOD)
    wrong.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(wrong, tmp_path / "wrong.onnx")
    with pytest.raises(native.NativeError, match="NoSuchOperator"):
        native.check_file(tmp_path / "wrong.onnx")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")
def test_the_helper_ends_with_its_process() -> None:
    """Even if that is killed and can end nothing."""
    code = (
        "import sys; from tests.graph.test_native import GOOD; from onnxq.graph import native; "
        "native.call('infer', GOOD); print(native._HELPER._process.pid, flush=True); "
        "sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    helper_id = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    for _ in range(600):
        try:
            os.kill(helper_id, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{helper_id}/stat").read_text().split()[2] == "Z":
            return
        signal.sigtimedwait([], 0.05)
    pytest.fail("the helper lives on")
