from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnxq.errors import ModelError, ProviderError
from onnxq.runtime import providers, session
from onnxq.runtime.session import SessionSettings, TensorSpec, open_session

if TYPE_CHECKING:
    from onnxq.runtime.session import Optimization

RESHAPE = """
    <ir_version: 9, opset_import: ["" : 17]>
    g (float[N, 4] x, int64[M] shape) => (float[K] y) { [bend] y = Reshape(x, shape) }
"""
SEQUENCE = """
    <ir_version: 9, opset_import: ["" : 17]>
    g (float[2] x) => (seq(float[2]) s, float[2] y) { s = SequenceConstruct(x) y = Neg(x) }
"""


def serialize(text: str) -> bytes:
    model: bytes = parser.parse_model(text).SerializeToString()
    return model


@pytest.mark.parametrize("optimization", ["all", "basic", "none"])
def test_runs_at_every_level(linear: bytes, optimization: Optimization) -> None:
    opened = open_session(
        linear, SessionSettings(optimization=optimization, spinning=False, threads=1)
    )
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    (y,) = opened.run({"x": x})
    np.testing.assert_allclose(y, x @ np.arange(1, 9, dtype=np.float32).reshape(4, 2))
    assert opened.providers == (providers.CPU,)


def test_specs(linear: bytes) -> None:
    opened = open_session(linear)
    assert opened.inputs == (TensorSpec("x", np.dtype(np.float32), "tensor(float)", ("N", 4)),)
    assert opened.outputs[0].name == "y"
    sequence = open_session(serialize(SEQUENCE)).outputs[0]
    assert sequence.dtype is None
    assert sequence.type_text == "seq(tensor(float))"


def test_chosen_outputs_come_in_the_order_asked_for(linear: bytes) -> None:
    opened = open_session(serialize(SEQUENCE))
    (y,) = opened.run({"x": np.ones(2, np.float32)}, ["y"])
    np.testing.assert_array_equal(y, [-1, -1])


def test_output_that_is_no_tensor_is_refused() -> None:
    opened = open_session(serialize(SEQUENCE))
    feeds = {"x": np.ones(2, np.float32)}
    with pytest.raises(ModelError, match="output 's' is no tensor"):
        opened.run(feeds)
    opened.execute(feeds)


def test_failing_node_is_named_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    opened = open_session(serialize(RESHAPE))
    with pytest.raises(ModelError) as caught:
        opened.run({"x": np.zeros((1, 4), np.float32), "shape": np.array([3])})
    assert caught.value.code == "runtime.run"
    assert caught.value.message.startswith("node 'bend' (Reshape): ")
    assert "requested shape:{3}" in caught.value.message
    assert "\n" not in caught.value.message
    assert "onnxruntime_src" not in caught.value.message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "feeds", [{}, {"x": np.zeros((1, 3), np.float32)}, {"x": np.zeros((1, 4))}]
)
def test_feeds_that_do_not_fit_name_the_input(linear: bytes, feeds: dict[str, np.ndarray]) -> None:
    with pytest.raises(ModelError, match=r"'x'|input: x|tensor\(double\)"):
        open_session(linear).run(feeds)


@pytest.mark.parametrize("model", [b"", b"junk", Path("/nowhere/model.onnx")])
def test_model_that_does_not_load(model: bytes | Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError) as caught:
        open_session(model)
    assert caught.value.code == "runtime.load"
    assert "\n" not in caught.value.message
    assert caught.value.where == (str(model) if isinstance(model, Path) else "")
    assert capfd.readouterr() == ("", "")


def test_truncated_model(linear: bytes) -> None:
    with pytest.raises(ModelError, match="protobuf parsing failed"):
        open_session(linear[:-10])


def test_unknown_operator_is_named() -> None:
    text = RESHAPE.replace("Reshape(", "Bend(")
    with pytest.raises(ModelError, match=r"node 'bend': .*operator 'Bend'") as caught:
        open_session(serialize(text))
    assert caught.value.code == "runtime.unknown_op"
    assert "upgrade onnxruntime" in caught.value.remedy


def test_too_large_for_memory(linear: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PROTOBUF_LIMIT", len(linear) - 1)
    with pytest.raises(ModelError, match="does not load from memory") as caught:
        open_session(linear)
    assert "external data" in caught.value.remedy


def test_external_data_loads_by_path(tmp_path: Path, linear: bytes) -> None:
    model = onnx.load_from_string(linear)
    (weight,) = model.graph.initializer
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight), "w"))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location="model.data")
    assert (tmp_path / "model.data").exists()
    (y,) = open_session(path).run({"x": np.ones((1, 4), np.float32)})
    np.testing.assert_array_equal(y, [[16, 20]])


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize(
    ("full", "why"),
    [
        ("VitisAIExecutionProvider", "ONNX Runtime left it out"),
        ("AbsentExecutionProvider", "Unknown Provider Type"),
    ],
)
def test_provider_that_does_not_start_is_no_cpu_session(
    full: str, why: str, linear: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = providers.chain
    chains = {"absent": (full, providers.CPU)}
    monkeypatch.setattr(providers, "chain", lambda name: chains.get(name) or real(name))
    with pytest.raises(ProviderError, match=f"{full} did not start: {why}") as caught:
        open_session(linear, SessionSettings(provider="absent"))
    assert "onnxq doctor" in caught.value.remedy
    with pytest.raises(ModelError):
        open_session(b"junk", SessionSettings(provider="absent"))
