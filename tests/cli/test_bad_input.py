"""Bad input: exit status 2, one or two lines, no traceback, nothing written, JSON if asked for."""

from __future__ import annotations

import io
import shutil
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

from onnxq.runtime.session import open_session
from tests.cli.conftest import IMAGES, MODEL, onnxq
from tests.small_models import normal, proto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Quantized, Run

    Samples = Callable[..., Path]

SMALL = "g (float[N, 8] x) => (float[N, 4] y) { h = Tanh(x) y = MatMul(h, w) }"

IMAGE = np.load(IMAGES)[:1]
NOT_A_NUMBER, INFINITE = IMAGE.copy(), IMAGE.copy()
NOT_A_NUMBER[0, 0, 3, 3] = np.nan
INFINITE[0, 0, 3, 3] = np.inf

BAD_SAMPLES: dict[str, tuple[dict[str, Any], str]] = {
    "missing input": ({"picture": IMAGE}, "data.missing_input"),
    "extra input": ({"image": IMAGE, "mask": IMAGE}, "data.extra_input"),
    "wrong shape": ({"image": IMAGE[..., :27]}, "data.shape"),
    "no batch": ({"image": IMAGE[0]}, "data.rank"),
    "wrong dtype": ({"image": (IMAGE * 255).astype(np.uint8)}, "data.dtype"),
    "nan": ({"image": NOT_A_NUMBER}, "data.not_finite"),
    "infinity": ({"image": INFINITE}, "data.not_finite"),
}


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """A file that is there already and must stay what it is, alone in its folder."""
    path = tmp_path / "out" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"precious")
    yield path
    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]


def check_refused(code: str, *arguments: str | Path, mentions: str = "") -> None:
    """Run twice, without and with ``--json``."""
    run = onnxq(*arguments)
    assert run.status == 2, run.err
    assert run.out == ""
    _check_lines(run, mentions)
    run = onnxq(*arguments, "--json")
    assert run.status == 2
    _check_lines(run, mentions)
    document = run.document
    assert document["schema_version"] == 1
    assert document["status"] == "error"
    assert document["output"] is None
    (error,) = document["errors"]
    assert error["code"] == code
    assert set(error) == {"code", "message", "where", "remedy"}
    assert error["message"] in run.err


def _check_lines(run: Run, mentions: str) -> None:
    lines = run.err.splitlines()
    assert 1 <= len(lines) <= 2, run.err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in run.err
    assert mentions in run.err


@pytest.mark.parametrize("case", BAD_SAMPLES)
def test_sample_that_does_not_fit(case: str, write_samples: Samples, output: Path) -> None:
    arrays, code = BAD_SAMPLES[case]
    data = write_samples(**arrays)
    # In the calibration data it is found while statistics are collected ...
    check_refused(
        code, "quantize", MODEL, "--data", data, "--eval-data", IMAGES, "-o", output,
        mentions="5.npz",
    )  # fmt: skip
    # ... in the evaluation data when the model is made already, but not yet in place.
    check_refused(
        code, "quantize", MODEL, "--data", write_samples(), "--eval-data", data, "-o", output,
        mentions="5.npz",
    )  # fmt: skip
    check_refused(code, "compare", MODEL, MODEL, "--data", data, mentions="5.npz")


def test_folder_without_samples(tmp_path: Path, output: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    check_refused("data.empty", "quantize", MODEL, "--data", empty, "-o", output, mentions="empty")


def test_data_that_is_not_there(tmp_path: Path, output: Path) -> None:
    data = tmp_path / "nowhere"
    check_refused("data.not_found", "quantize", MODEL, "--data", data, "-o", output)


def test_pickled_objects(write_samples: Samples, output: Path, tmp_path: Path) -> None:
    trace = tmp_path / "unpickled"
    data = write_samples()
    array = np.array([_Bomb(str(trace))], dtype=object)
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    with zipfile.ZipFile(data / "0.npz", "w") as archive:
        archive.writestr("image.npy", stream.getvalue())
    check_refused("data.pickled", "quantize", MODEL, "--data", data, "-o", output, mentions="0.npz")
    assert not trace.exists()


class _Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_truncated_model(kept: int, tmp_path: Path, output: Path) -> None:
    model = tmp_path / "cut.onnx"
    model.write_bytes(MODEL.read_bytes()[:kept])
    check_refused(
        "graph.truncated", "quantize", model, "--data", IMAGES, "-o", output, mentions="cut.onnx"
    )
    check_refused("graph.truncated", "inspect", model)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems want names in Unicode")
@pytest.mark.parametrize("name", ["m\udcff.onnx", "f\udcff/m.onnx"])
def test_a_name_that_is_not_utf8(name: str, tmp_path: Path, output: Path) -> None:
    odd = tmp_path / name
    odd.parent.mkdir(exist_ok=True)
    data = ("--data", IMAGES)
    check_refused("usage.not_utf8", "quantize", MODEL, *data, "-o", odd, mentions="another file")
    check_refused("usage.not_utf8", "lint", MODEL, "--fix", "-o", odd, mentions="another file")
    assert not odd.exists()
    shutil.copyfile(MODEL, odd)
    for command in (["lint"], ["compare", *data], ["quantize", *data, "-o", output]):
        check_refused("graph.not_utf8", *command, odd, mentions="rename the file or folder")


def test_model_that_is_not_there(tmp_path: Path, output: Path) -> None:
    model = tmp_path / "no.onnx"
    check_refused("graph.cannot_read", "quantize", model, "--data", IMAGES, "-o", output)


@pytest.mark.parametrize(
    ("location", "code"),
    [("../secret.bin", "graph.external_outside"), ("/etc/passwd", "graph.external_absolute")],
)
def test_external_data_outside(location: str, code: str, tmp_path: Path, output: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(36))
    folder = tmp_path / "model"
    folder.mkdir()
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> '
        "g (float[1, 3] x) => (float[1, 3] y) { y = MatMul(x, w) }"
    )
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 3])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    model.graph.initializer.append(weight)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    np.save(tmp_path / "x.npy", np.ones((4, 3), np.float32))
    check_refused(code, "quantize", path, "--data", tmp_path / "x.npy", "-o", output)


@pytest.mark.parametrize(
    ("text", "code", "mentions"),
    [
        ('version = 1\nshceme = "int8"', "recipe.unknown_key", "scheme"),
        ('version = 1\n[calibration]\nmethod = "minimax"', "recipe.value", "minmax"),
        ("version = 2", "recipe.version", "recipe.toml"),
        ("version = ", "recipe.syntax", "recipe.toml"),
        (
            'version = 1\n[[rules]]\nmatch = "/encoder/*"\nkeep = "float"',
            "recipe.unmatched",
            "/encoder/*",
        ),
    ],
)
def test_bad_recipe(text: str, code: str, mentions: str, tmp_path: Path, output: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    check_refused(
        code, "quantize", MODEL, "--data", IMAGES, "-o", output, "--recipe", recipe,
        mentions=mentions,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "mentions"),
    [
        (["--exclude", "blocks.7.*"], "recipe.unmatched", "blocks.7.*"),
        (["--include", "op:Convolution"], "recipe.unmatched", "op:Conv"),
        (["--exclude", "re:(("], "recipe.pattern", "--exclude"),
        (["--memory-budget", "much"], "recipe.bytes", "--memory-budget"),
        (["--target", "rocm"], "targets.unknown", "cpu"),
        (["--scheme", "int3"], "usage.arguments", "int8"),
        (["--calibration", "guess"], "usage.arguments", "entropy"),
        (["--samples", "0"], "usage.arguments", "--samples"),
        (["--min-sqnr", "nan"], "usage.arguments", "--min-sqnr"),
        (["--jason"], "usage.arguments", "--json"),
        (["--labels", "no.npy"], "data.not_found", "no.npy"),
        (["--recipe", "no.toml"], "recipe.unreadable", "no.toml"),
    ],
)
def test_bad_option(arguments: list[str], code: str, mentions: str, output: Path) -> None:
    check_refused(
        code, "quantize", MODEL, "--data", IMAGES, "-o", output, *arguments, mentions=mentions
    )


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
@pytest.mark.parametrize("scheme", ["auto", "int8"])
def test_no_operators_on_integers(target: str, scheme: str, output: Path) -> None:
    options = ("--target", target, "--scheme", scheme, "--format", "qoperator")
    words = f"{target} runs no operators on integers"
    check_refused(
        "usage.format", "quantize", MODEL, "--data", IMAGES, *options, "-o", output, mentions=words
    )


def test_bad_labels(tmp_path: Path, output: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("1\n2\n")
    check_refused(
        "data.labels", "quantize", MODEL, "--data", IMAGES, "--labels", labels, "-o", output
    )


def test_no_data(output: Path) -> None:
    check_refused(
        "usage.no_data", "quantize", MODEL, "--scheme", "int8", "-o", output, mentions="--data"
    )


def test_output_folder_missing(tmp_path: Path) -> None:
    output = tmp_path / "nowhere" / "model.onnx"
    check_refused("usage.no_folder", "quantize", MODEL, "--data", IMAGES, "-o", output)
    assert not output.parent.exists()


def test_output_is_a_folder(tmp_path: Path) -> None:
    check_refused("usage.is_folder", "quantize", MODEL, "--data", IMAGES, "-o", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_output_is_the_file_of_the_models_weights(tmp_path: Path) -> None:
    model, data, weights = tmp_path / "m.onnx", tmp_path / "x.npy", tmp_path / "w.bin"
    onnx.save(
        proto(SMALL, w=normal(0, 8, 4)),
        model,
        save_as_external_data=True,
        location=weights.name,
        size_threshold=0,
    )
    np.save(data, normal(1, 10, 8))
    before = {path: path.read_bytes() for path in (model, weights, data)}
    for command in ("quantize", "calibrate"):
        check_refused(
            "usage.replaces_model", command, model, "--data", data, "-o", weights,
            mentions="w.bin",
        )  # fmt: skip
    made, plan = tmp_path / "made.onnx", tmp_path / "plan"
    run = onnxq("quantize", model, "--data", data, "-o", made, "--plan-out", plan, "--json")
    assert run.status == 0, run.err
    check_refused("usage.replaces_model", "apply", model, plan, "-o", weights, mentions="w.bin")
    assert {path: path.read_bytes() for path in before} == before
    assert open_session(model).run({"x": normal(2, 3, 8)})[0].shape == (3, 4)


def test_plan_folder_is_a_file(tmp_path: Path, output: Path) -> None:
    plan = tmp_path / "plan"
    plan.write_text("a file")
    check_refused(
        "usage.is_file", "quantize", MODEL, "--data", IMAGES, "-o", output, "--plan-out", plan,
        mentions=str(plan),
    )  # fmt: skip
    fresh = tmp_path / "fresh.onnx"
    run = onnxq("quantize", MODEL, "--data", IMAGES, "-o", fresh, "--plan-out", plan)
    assert run.status == 2
    assert not fresh.exists()
    assert plan.read_text() == "a file"


def test_model_that_declares_a_wrong_output_shape(tmp_path: Path, output: Path) -> None:
    """ONNX Runtime only warns of it, so that it is seen in the result: the source is at fault."""
    model, data = tmp_path / "wrong.onnx", tmp_path / "x.npy"
    onnx.save(proto(SMALL.replace("float[N, 4] y", "float[N, 5] y"), w=normal(0, 8, 4)), model)
    np.save(data, normal(1, 10, 8))
    check_refused(
        "model.invalid",
        "quantize",
        model,
        "--scheme",
        "int8",
        "--data",
        data,
        "-o",
        output,
        mentions="wrong.onnx",
    )


def test_output_left_out() -> None:
    check_refused("usage.arguments", "quantize", MODEL, "--data", IMAGES, mentions="--output")


def test_already_quantized(quantized: Quantized, output: Path) -> None:
    check_refused(
        "model.quantized", "quantize", quantized.model, "--data", IMAGES, "-o", output,
        mentions="QuantizeLinear",
    )  # fmt: skip


def test_missing_provider() -> None:
    # An execution provider of another vendor's builds, which no test machine has.
    check_refused(
        "runtime.missing_provider", "compare", MODEL, "--data", IMAGES, "--providers", "cpu,rknpu",
        mentions="RknpuExecutionProvider",
    )  # fmt: skip
    check_refused(
        "runtime.unknown_provider", "compare", MODEL, "--data", IMAGES, "--providers", "cpux"
    )
    check_refused("compare.nothing", "compare", MODEL, "--data", IMAGES, "--providers", ",")


def test_plan_of_another_model(quantized: Quantized, tmp_path: Path, output: Path) -> None:
    model = onnx.load(MODEL)
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    other = tmp_path / "other.onnx"
    onnx.save(model, other)
    check_refused("plan.other_model", "apply", other, quantized.plan, "-o", output)


@pytest.mark.parametrize("name", ["plan.json", "plan.safetensors"])
def test_damaged_plan(name: str, quantized: Quantized, tmp_path: Path, output: Path) -> None:
    plan = tmp_path / "plan"
    shutil.copytree(quantized.plan, plan)
    (plan / name).write_bytes((plan / name).read_bytes()[:100])
    check_refused("plan.unreadable", "apply", MODEL, plan, "-o", output)


def test_models_that_differ(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["image"], ["scores"])]
    shape: list[str | int | None] = ["batch", 1, 28, 28]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape)],
    )
    opsets = [helper.make_opsetid("", 17)]
    other = tmp_path / "other.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), other)
    check_refused(
        "compare.models_differ", "compare", MODEL, other, "--data", IMAGES, mentions="scores"
    )


def test_bad_export_source(output: Path) -> None:
    pytest.importorskip("torch")
    check_refused("export.bad_source", "export", "nonsense", "-o", output)


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["compare"]])
def test_bad_command(arguments: list[str]) -> None:
    run = onnxq(*arguments)
    assert run.status == 2
    assert run.out == ""
    _check_lines(run, "--help")


def test_a_message_cannot_command_the_terminal(tmp_path: Path) -> None:
    run = onnxq("inspect", tmp_path / "\x1b[31mred\nline.onnx")
    assert run.status == 2
    _check_lines(run, "\\x1b[31mred line.onnx")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    run = onnxq("inspect", tmp_path / "no.onnx", "--debug", "--json")
    assert run.status == 2
    assert "Traceback" in run.err
    assert run.document["errors"][0]["code"] == "graph.cannot_read"


def test_a_sample_of_a_folder_is_not_written_over(tmp_path: Path) -> None:
    """But what an earlier run left there is."""
    data = tmp_path / "samples"
    data.mkdir()
    for number, image in enumerate(np.load(IMAGES)[:4]):
        np.savez(data / f"{number}.npz", image=image[None])
    (tmp_path / "link").symlink_to(data)
    before = {path: path.read_bytes() for path in data.iterdir()}
    for output in (data / "0.npz", tmp_path / "link/0.npz", data / "../samples/1.npz"):
        check_refused("usage.replaces_input", "calibrate", MODEL, "--data", data, "-o", output)
    assert {path: path.read_bytes() for path in data.iterdir()} == before
    for _ in range(2):
        run = onnxq("calibrate", MODEL, "--data", data, "-o", data / "stats.json")
        assert run.status == 0, run.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("quantize", "--data", "{}", "-o", "{}"),
        ("quantize", "--data", IMAGES, "--labels", "{}", "-o", "{}"),
        ("compare", "--data", "{}", "--report", "{}"),
        ("calibrate", "--data", "{}", "-o", "{}"),
    ],
)
def test_data_is_not_written_over(arguments: tuple[str, ...], tmp_path: Path) -> None:
    data = tmp_path / "images.npy"
    np.save(data, np.load(IMAGES)[:4])
    before = data.read_bytes()
    run = onnxq(arguments[0], MODEL, *(str(each).format(data) for each in arguments[1:]))
    assert run.status == 2
    assert "would replace what --" in run.err
    assert data.read_bytes() == before
