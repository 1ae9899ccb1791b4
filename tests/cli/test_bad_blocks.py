"""Bad input to schemes that store weights in blocks: what is wrong is named, as is what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.cli.conftest import onnxq
from tests.cli.test_bad_input import check_refused
from tests.cli.test_bad_input import output as output
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """g (float[N, 48] x) => (float[N, 4] y) {
    h = MatMul(x, w) r = Relu(h) y = MatMul(r, v)
}"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blocks") / "m.onnx"
    return write(path, TEXT, w=normal(0, 48, 20), v=normal(1, 20, 4))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(path, normal(2, 40, 48))
    return path


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(f"version = 1\n{text}")
    return path


@pytest.mark.parametrize("scheme", ["int4", "uint4", "int2"])
def test_a_block_longer_than_every_weight(scheme: str, model: Path, output: Path) -> None:
    check_refused(
        "usage.block_size", "quantize", model, "--scheme", scheme, "--block-size", "64",
        "-o", output, mentions="the most input channels are 48",
    )  # fmt: skip


def test_weights_shorter_than_any_block(tmp_path: Path, output: Path) -> None:
    short = write(
        tmp_path / "m.onnx", "g (float[N, 8] x) => (float[N, 4] y) { y = MatMul(x, w) }",
        w=normal(0, 8, 4),
    )  # fmt: skip
    check_refused(
        "usage.block_size", "quantize", short, "--scheme", "int4", "--block-size", "16",
        "-o", output, mentions="no block has fewer than 16",
    )  # fmt: skip
    made = tmp_path / "made.onnx"
    run = onnxq("quantize", short, "--scheme", "int4", "-o", made, "--json")
    assert run.status == 0
    assert "its 8 input channels are fewer than a block of 16" in run.document["warnings"][0]


@pytest.mark.parametrize("algorithm", ["awq", "gptq", "mse+gptq", "hqq+gptq", "awq+gptq"])
def test_an_algorithm_that_needs_data(algorithm: str, model: Path, output: Path) -> None:
    check_refused(
        "usage.no_data", "quantize", model, "--scheme", "int4", "--algorithm", algorithm,
        "-o", output, mentions=f"{algorithm} needs calibration data",
    )  # fmt: skip


@pytest.mark.parametrize("scheme", ["auto", "int8", "int8-dynamic", "float16", "bfloat16"])
def test_an_algorithm_of_other_schemes(scheme: str, model: Path, data: Path, output: Path) -> None:
    arguments: list[str | Path] = [
        "quantize",
        model,
        "--data",
        data,
        "-o",
        output,
        "--scheme",
        scheme,
    ]
    check_refused(
        "usage.scheme", *arguments, "--algorithm", "awq",
        mentions="--scheme int4, uint4, int2, int8-weights",
    )  # fmt: skip
    if scheme != "auto":
        check_refused("usage.scheme", *arguments, "--block-size", "32", mentions="block_size")


@pytest.mark.parametrize(
    ("text", "code", "mentions"),
    [
        ("scheme = 'int8'\n[weights]\nsymmetric = true", "usage.scheme", "weights.symmetric"),
        ("scheme = 'int8'\n[weights]\nsequential = true", "usage.scheme", "weights.sequential"),
        (
            "scheme = 'int8-weights'\n[weights]\nsymmetric = false",
            "usage.scheme",
            "--algorithm",
        ),
        ("scheme = 'int4'\n[weights]\nalgorithm = 'apq'", "recipe.value", "'awq'"),
        ("scheme = 'int4'\n[weights]\nblock_size = 48", "recipe.value", "block_size = 48"),
        ("scheme = 'int4'\n[weights]\nsymetric = true", "recipe.unknown_key", "'symmetric'"),
    ],
)
def test_settings_of_another_scheme(
    text: str, code: str, mentions: str, model: Path, data: Path, tmp_path: Path, output: Path
) -> None:
    check_refused(
        code, "quantize", model, "--data", data, "-o", output, "--recipe", recipe(tmp_path, text),
        mentions=mentions,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scheme", "weight", "mentions"),
    [
        ("int8", "bits = 4", "bits = 4 is of weights in blocks; int8 has 7 or 8"),
        ("auto", "bits = 2", "bits = 2"),
        ("int8-dynamic", "block_size = 32", "block_size"),
        ("int8-dynamic", "symmetric = false", "symmetric"),
        ("int8-weights", "algorithm = 'rtn'", "int8-weights without an algorithm has none"),
        ("int4", "granularity = 'channel'", "granularity"),
        ("uint4", "bits = 7", "blocks have 2, 4 or 8"),
    ],
)
def test_a_rule_that_does_not_fit_the_scheme(
    scheme: str, weight: str, mentions: str, model: Path, data: Path, tmp_path: Path, output: Path
) -> None:
    text = f"scheme = '{scheme}'\n[[rules]]\nmatch = 'op:MatMul'\nweight = {{ {weight} }}"
    file = recipe(tmp_path, text)
    check_refused(
        "usage.scheme", "quantize", model, "--data", data, "-o", output, "--recipe", file,
        mentions=mentions,
    )  # fmt: skip
    run = onnxq("inspect", model, "--recipe", file)
    assert run.status == 2
    assert "rules[1].weight" in run.err


def test_a_rule_whose_algorithm_needs_data(model: Path, tmp_path: Path, output: Path) -> None:
    text = "scheme = 'int4'\n[[rules]]\nmatch = '*'\nweight = { algorithm = 'gptq' }"
    check_refused(
        "usage.no_data", "quantize", model, "-o", output, "--recipe", recipe(tmp_path, text),
        mentions="rules[1].weight",
    )  # fmt: skip
