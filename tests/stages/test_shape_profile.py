"""What TensorRT is told of shapes, read back as ONNX Runtime's provider reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from onnxq import load_recipe, pipeline
from onnxq.runtime import providers
from onnxq.runtime.provider_options import provider_options
from onnxq.stages.shape_profile import KEYS, NO_PROFILE, TENSORRT, shape_profile
from tests.small_models import normal, proto, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = """g (int64[b, n] ids, float[b, n] mask, float[4, 4] fixed) => (float[b, n] y) {
    f = Cast<to = 1>(ids)
    y = Mul(f, mask)
}"""


def model(text: str = TEXT) -> ir.Model:
    return ir.serde.deserialize_model(proto(text))


def feeds(*lengths: int) -> list[dict[str, np.ndarray]]:
    fixed = normal(0, 4, 4)
    return [
        {"ids": np.ones((1, n), np.int64), "mask": normal(1, 1, n), "fixed": fixed} for n in lengths
    ]


def parsed(text: str) -> dict[str, list[list[int]]]:
    """As ``ParseProfileShapes`` of the TensorRT provider: split at commas, then at colons."""
    found: dict[str, list[list[int]]] = {}
    for part in text.split(","):
        name, shape, *_ = part.split(":")
        found.setdefault(name, []).append([int(value) for value in shape.split("x")])
    return found


def test_every_open_input_is_named_in_all_three() -> None:
    found = shape_profile([model()], feeds(9, 16, 40, 16), ["cpu", "tensorrt:1"])
    assert tuple(found.options) == KEYS
    assert [parsed(text) for text in found.options.values()] == [
        {"ids": [[1, n]], "mask": [[1, n]]} for n in (9, 16, 40)
    ]
    assert found.options[KEYS[0]] == "ids:1x9,mask:1x9"
    assert found.provider_options == {TENSORRT: found.options}
    assert (found.samples, found.note) == (4, "")


def test_inputs_that_are_open_in_one_of_the_models() -> None:
    closed = model(TEXT.replace("[b, n] ids", "[1, 9] ids"))
    found = shape_profile([closed, model()], feeds(9, 9), ["tensorrt"])
    assert set(parsed(found.options[KEYS[1]])) == {"ids", "mask"}


def test_one_shape_only_is_told() -> None:
    found = shape_profile([model()], feeds(16, 16), ["tensorrt"])
    assert found.inputs
    assert found.note.startswith("the data has one shape only, ids:1x16,mask:1x16: ")


@pytest.mark.parametrize("key", KEYS)
def test_the_users_own_win_an_empty_one_too(key: str) -> None:
    for value in ("ids:1x1,mask:1x1", ""):
        with provider_options({"tensorrt": {key: value}}):
            assert shape_profile([model()], feeds(9, 16), ["tensorrt"]) == NO_PROFILE


def test_where_nothing_is_to_be_derived_no_sample_is_looked_at() -> None:
    def none() -> Iterator[dict[str, np.ndarray]]:
        read.append("a sample")
        yield {}

    read: list[str] = []
    closed = model("g (float[1, 9] x) => (float[1, 9] y) { y = Neg(x) }")
    assert shape_profile([model()], none(), ["cpu", "cuda"]) == NO_PROFILE
    assert shape_profile([closed], none(), ["tensorrt"]) == NO_PROFILE
    assert read == []
    assert not NO_PROFILE.options
    assert not NO_PROFILE.provider_options


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("g (string[n] s, float[n] x) => (float[n] y) { y = Neg(x) }", "'s' is no tensor"),
        ("g (int64[2] s, float[n] x) => (float[a, b] y) { y = Reshape(x, s) }", "values of the"),
        ("g (float[n, 4] x) => (float[n, 4] y) { y = com.microsoft.Gelu(x) }", "com.microsoft"),
    ],
)
def test_why_there_is_none(text: str, words: str) -> None:
    found = shape_profile([model(text)], [], ["tensorrt"])
    assert not found.options
    assert words in found.note


def test_weights_among_the_inputs_are_none() -> None:
    made = proto(
        "g (float[n, 4] x, int64[2] s) => (float[a, b] y) { y = Reshape(x, s) }",
        s=np.asarray([-1, 2]),
    )
    found = shape_profile(
        [ir.serde.deserialize_model(made)], [{"x": normal(0, 2, 4)}], ["tensorrt"]
    )
    assert [entry.name for entry in found.inputs] == ["x"]


def test_a_name_that_the_format_cannot_hold() -> None:
    graph = model()
    graph.graph.inputs[0].name = "ids:0"
    found = shape_profile([graph], [], ["tensorrt"])
    assert "'ids:0' has a comma or a colon" in found.note


def test_a_divided_graph_has_a_remedy() -> None:
    why = (
        "User needs to provide all the dynamic shape inputs with associated profiles if they want "
        "to explicitly set profiles through provider options. Following input(s) has no associated "
        "shape profiles provided: /Range_output_0"
    )
    assert "trt_profile_min_shapes=" in providers.start_error(TENSORRT, why).remedy


def test_quantize_for_tensorrt_says_what_the_data_gives(tmp_path: Path) -> None:
    text = "g (float[n, 64] x) => (float[n, 32] y) { y = MatMul(x, w) }"
    path = write(tmp_path / "m.onnx", text, w=normal(0, 64, 32))
    (tmp_path / "r.toml").write_text('version = 1\ntarget = "tensorrt"\nscheme = "int8"\n')
    recipe = load_recipe(tmp_path / "r.toml")
    samples = [{"x": normal(n, n, 64)} for n in (1, 2, 2, 3, 2, 8)]
    options = pipeline.RunOptions(timing=None)
    found = pipeline.quantize(path, samples, tmp_path / "o.onnx", recipe=recipe, options=options)
    assert list(found.shape_profile.options.values()) == ["x:1x64", "x:2x64", "x:8x64"]
    recipe = recipe.model_copy(update={"target": "cpu"})
    found = pipeline.quantize(path, samples, tmp_path / "p.onnx", recipe=recipe, options=options)
    assert found.shape_profile == NO_PROFILE
