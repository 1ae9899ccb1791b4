"""What the commands do when all is well, and their exit statuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import parser

from onnxq.recipe import CalibrationMethod, Recipe
from onnxq.runtime import kernel_shapes
from onnxq.runtime.kernel_shapes import ConvShape
from tests.cli.conftest import IMAGES, MODEL, ROOT, onnxq

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Quantized

TEST = ROOT / "calibration_data/fashion_mnist"


def test_quantize_prints_the_contract(quantized: Quantized) -> None:
    assert quantized.run.status == 0, quantized.run.err
    assert quantized.run.err == ""
    found = quantized.run.document
    assert found["schema_version"] == 1
    assert found["status"] == "done"
    assert found["output"] == str(quantized.model)
    assert (found["scheme"], found["target"], found["format"]) == ("int8", "cpu", "qdq")
    assert {site["decision"] for site in found["sites"]} == {"int8", "float"}
    kept = [site for site in found["sites"] if site["decision"] == "float"]
    assert kept == [
        {"name": "head.Gemm", "op": "Gemm", "decision": "float", "reason": "--exclude head.Gemm"}
    ]
    assert found["kernels"]["planned"] == found["kernels"]["integer"] == 9
    assert found["kernels"]["by_op"]["QLinearConv"] == 9
    assert found["metrics"]["sqnr_db"] > 25
    assert found["metrics"]["cosine"] > 0.99
    assert found["metrics"]["top1_agreement"] > 0.9
    latency = found["latency"]
    assert latency["ratio_low"] <= latency["ratio"] <= latency["ratio_high"]
    assert latency["float_ms"] > 0 < latency["quantized_ms"]
    assert found["size"]["quantized_bytes"] == quantized.model.stat().st_size
    assert found["size"]["ratio"] > 2.5
    assert found["calibration"]["samples"] == 16
    assert found["verified_on"] == {"samples": 51, "independent": True, "made_up": False}
    assert found["errors"] == []
    onnx.checker.check_model(str(quantized.model), full_check=True)


def test_quantize_prints_tables_of_80_columns(tmp_path: Path) -> None:
    run = onnxq(
        "quantize", MODEL, "--data", IMAGES, "--samples", "16", "-o", tmp_path / "model.onnx",
        "--scheme", "int8", "--include", "op:Conv", "--exclude", "*shortcut*",
        "--labels", _labels(tmp_path, 256),
    )  # fmt: skip
    assert run.status == 0, run.err
    assert run.err == ""
    assert max(map(len, run.out.splitlines())) <= 80
    assert "\x1b" not in run.out
    text = " ".join(run.out.split())
    for words in (
        "times smaller",
        "median latency",
        "SQNR",
        "accuracy",
        "7 of 7 planned sites run in integer kernels",
        "Verified on 51 samples that calibration did not see.",
        "3 sites stay float",
        "--exclude *shortcut*",
        "blocks.2.shortcut.0.Conv",
        "not named by --include op:Conv",
    ):
        assert words in text
    assert [path.name for path in tmp_path.iterdir() if "onnx" in path.name] == ["model.onnx"]


def _labels(folder: Path, count: int) -> Path:
    path = folder / "labels.npy"
    np.save(path, np.zeros(count, np.int64))
    return path


def test_a_missed_bound_writes_nothing(tmp_path: Path, write_samples: Callable[..., Path]) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    output = folder / "model.onnx"
    arguments: list[str | Path] = [
        "quantize",
        MODEL,
        "--data",
        write_samples(),
        "-o",
        output,
    ]
    run = onnxq(*arguments, "--min-sqnr", "90", "--json")
    assert run.status == 1
    assert list(folder.iterdir()) == []
    assert run.document["status"] == "missed"
    assert run.document["output"] is None
    assert run.document["metrics"]["sqnr_db"] < 90
    assert [error["code"] for error in run.document["errors"]] == ["verify.bound_missed"]
    assert len(run.err.splitlines()) == 2
    run = onnxq(*arguments, "--min-sqnr", "90", "--allow-miss", "--json")
    assert run.status == 1
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert run.document["output"] == str(output)


def test_a_missed_bound_writes_no_plan(tmp_path: Path, write_samples: Callable[..., Path]) -> None:
    plan = tmp_path / "plan"
    run = onnxq(
        "quantize", MODEL, "--data", write_samples(), "-o", tmp_path / "model.onnx",
        "--min-sqnr", "90", "--plan-out", plan,
    )  # fmt: skip
    assert run.status == 1
    assert not plan.exists()


def test_one_sample_is_not_independently_verified(
    tmp_path: Path, write_samples: Callable[..., Path]
) -> None:
    run = onnxq(
        "quantize", MODEL, "--scheme", "int8", "--data", write_samples() / "0.npz",
        "-o", tmp_path / "m.onnx", "--json",
    )  # fmt: skip
    assert run.status == 0, run.err
    assert run.document["verified_on"] == {"samples": 1, "independent": False, "made_up": False}
    assert any("not independently verified" in text for text in run.document["warnings"])


def test_a_model_without_sites_is_written_unchanged(tmp_path: Path) -> None:
    model, output = tmp_path / "relu.onnx", tmp_path / "out.onnx"
    text = "g (float[n, 3] x) => (float[n, 3] y) { y = Relu(x) }"
    onnx.save(parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {text}'), model)
    np.save(tmp_path / "x.npy", np.ones((4, 3), np.float32))
    arguments: list[str | Path] = ["quantize", model, "--data", tmp_path / "x.npy", "-o", output]
    run = onnxq(*arguments)
    assert run.status == 0, run.err
    assert "unchanged" in run.out
    assert [node.op_type for node in onnx.load(output).graph.node] == ["Relu"]
    found = onnxq(*arguments, "--json").document
    assert found["kernels"] == {"planned": 0, "integer": 0, "by_op": {}}
    assert found["metrics"] is None
    assert any("unchanged" in text for text in found["warnings"])


def test_apply_gives_the_same_bytes(quantized: Quantized, tmp_path: Path) -> None:
    output = tmp_path / "again.onnx"
    run = onnxq("apply", MODEL, quantized.plan, "-o", output)
    assert run.status == 0, run.err
    assert "9 of 10 sites quantized" in run.out
    assert output.read_bytes() == quantized.model.read_bytes()
    assert onnxq("apply", MODEL, quantized.plan, "-o", output, "--json").document["status"] == (
        "done"
    )


def test_calibrate(tmp_path: Path) -> None:
    output = tmp_path / "statistics"
    arguments: list[str | Path] = [
        "calibrate",
        MODEL,
        "--data",
        IMAGES,
        "-o",
        output,
        "--samples",
        "4",
    ]
    run = onnxq(*arguments, "--calibration", "minmax", "--memory-budget", "1GiB")
    assert run.status == 0, run.err
    assert "4 samples (minmax)" in " ".join(run.out.split())
    assert output.exists()
    found = onnxq(*arguments, "--json").document
    assert found["calibration"]["samples"] == 4


def test_calibration_table(tmp_path: Path) -> None:
    table, output = tmp_path / "table", tmp_path / "statistics"
    arguments = ("calibrate", MODEL, "--data", IMAGES, "--samples", "4")
    run = onnxq(*arguments, "--calibration-table", table, "--calibration", "minmax")
    assert run.status == 0, run.err
    shown = " ".join(run.out.split())
    assert "tensors on 4 samples (minmax)" in shown
    assert "tensorrt.trt_int8_calibration_table_name=" in shown
    assert table.exists()
    assert not output.exists()
    both = onnxq(*arguments, "--calibration-table", table, "-o", output, "--json").document
    assert both["output"] == str(output)
    assert both["calibration"]["samples"] == both["calibration_table"]["samples"] == 4
    assert both["calibration_table"]["options"]["trt_int8_enable"] == "1"
    assert output.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "there is nothing to write"),
        (("-o", "same", "--calibration-table", "same"), "name the same file"),
        (("-o", "new", "--calibration-table", "missing/table"), "does not exist"),
        (("--calibration-table", MODEL), "would replace the model"),
        (("--calibration-table", IMAGES), "would replace what --data reads"),
    ],
)
def test_where_no_calibration_table_goes(options: tuple[str | Path, ...], words: str) -> None:
    run = onnxq("calibrate", MODEL, "--data", IMAGES, *options)
    assert run.status == 2
    assert words in run.err


def test_inspect(quantized: Quantized) -> None:
    run = onnxq("inspect", MODEL)
    assert run.status == 0, run.err
    assert max(map(len, run.out.splitlines())) <= 80
    assert "10 sites" in run.out
    found = onnxq("inspect", quantized.model, "--json").document
    assert found["quantized_form"].startswith("QDQ")
    # What onnxq wrote into the metadata is told in words.
    told = onnxq("inspect", quantized.model).out
    assert "onnxq.made_with: onnx " in told
    assert "{" not in told


def test_inspect_with_data_shows_the_worst_site_first() -> None:
    arguments: list[str | Path] = ["inspect", MODEL, "--data", IMAGES, "--samples", "4"]
    found = onnxq(*arguments, "--json").document
    errors = {site["name"]: site["sqnr_db"] for site in found["sites"]}
    assert len(errors) == 10
    assert min(errors.values()) > 15
    shown = onnxq(*arguments).out
    assert max(map(len, shown.splitlines())) <= 80
    rows = [line.split() for line in shown.splitlines() if line.rstrip().endswith("int8")]
    decibels = [float(row[-2]) for row in rows]
    assert decibels == sorted(decibels)
    assert decibels == [round(value, 1) for value in sorted(errors.values())]


def test_compare(quantized: Quantized, tmp_path: Path) -> None:
    arguments: list[str | Path] = ["compare", MODEL, quantized.model, "--data", TEST / "test.npy"]
    arguments += ["--labels", TEST / "test_labels.npy"]
    report = tmp_path / "report.html"
    run = onnxq(*arguments, "--report", report)
    assert run.status == 0, run.err
    assert max(map(len, run.out.splitlines())) <= 80 + len(str(report))
    assert "reference" in run.out
    page = report.read_text(encoding="utf-8")
    assert f"onnxq compare {MODEL} {quantized.model} --data" in page
    assert "times smaller; outputs agree to " in page
    found = onnxq(*arguments, "--json").document
    reference, other = found["runs"]
    assert reference["metrics"] is None
    assert reference["latency"]["ratio"] is None
    assert reference["accuracy"] == pytest.approx(0.921, abs=0.002)
    assert other["accuracy"] == pytest.approx(reference["accuracy"], abs=0.01)
    assert other["metrics"]["sqnr_db"] > 25
    assert other["kernels"]["integer"] >= 9
    assert reference["size"]["bytes"] == MODEL.stat().st_size


def test_a_report_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    report = tmp_path / "missing" / "report.html"
    run = onnxq("compare", "not-read.onnx", "--data", "none", "--report", report, "--json")
    assert run.status == 2
    (error,) = run.document["errors"]
    assert error["code"] == "usage.no_folder"
    assert error["where"] == str(report)


def test_doctor() -> None:
    run = onnxq("doctor")
    assert "ONNX Runtime" in run.out
    found = onnxq("doctor", "--json").document
    assert found["machine"]["cores"] >= 1
    assert run.status == int(any(finding["level"] == "error" for finding in found["findings"]))


@pytest.mark.slow
def test_doctor_shows_what_was_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_shapes, "DEFAULT_SHAPES", (ConvShape(1, 4, 8, 8, 4, (3, 3)),))
    run = onnxq("doctor", "--probe")
    assert "QLinearConv" in run.out
    assert "conv:1x4x8x8:4x3x3 on CPU" in run.out
    assert "Fastest: " in run.out
    assert max(map(len, run.out.splitlines())) <= 80
    found = onnxq("doctor", "--probe", "--json").document
    assert any(result["integer"] for result in found["probe"])
    (speed,) = found["speed"]
    assert speed["shape"] == "conv:1x4x8x8:4x3x3"
    medians = [kernel["median_ms"] for kernel in speed["kernels"]]
    assert medians == sorted(medians)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shapes", "1x2"), "1x2: it is no shape"),
        (("--shapes", "1x2x3", "--model", "m.onnx"), "two ways to give the same"),
        (("--data", "x.npy"), "there is none"),
        (("--model", "absent.onnx"), "absent.onnx"),
    ],
)
def test_doctor_refuses(options: tuple[str, ...], words: str) -> None:
    run = onnxq("doctor", *options)
    assert run.status == 2
    assert words in run.err


@pytest.mark.slow
def test_export(tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    run = onnxq("export", "models.fashion_resnet.model:factory", "-o", output, "--json")
    assert run.status == 0, run.err
    found = run.document
    assert found["inputs"] == [{"name": "image", "dtype": "float32", "shape": ["batch", 1, 28, 28]}]
    assert found["worst"]["value"] <= found["worst"]["allowed"]
    assert output.exists()
    assert json.dumps(found, allow_nan=False)


def test_options_override_the_recipe(tmp_path: Path) -> None:
    from onnxq.cli.parameters import FORMATS, METHODS, SCHEMES, RecipeArguments, build_recipe

    path = tmp_path / "recipe.toml"
    path.write_text(
        'version = 1\nseed = 7\n[calibration]\nmethod = "mse"\nsamples = 9\n'
        '[[rules]]\nmatch = "op:Gemm"\nkeep = "float"\n'
    )
    recipe = build_recipe(
        RecipeArguments(
            recipe=path,
            calibration="entropy",
            memory_budget="1MiB",
            scheme="int8",
            format="qoperator",
            exclude=("a*",),
        )
    )
    assert recipe.format == "qoperator"
    assert (recipe.scheme, recipe.seed, recipe.target) == ("int8", 7, "cpu")
    assert recipe.calibration.method == "entropy"
    assert recipe.calibration.samples == 9
    assert recipe.calibration.memory_budget == 1 << 20
    assert [rule.match for rule in recipe.rules] == [("op:Gemm",), ("a*",)]
    assert build_recipe(RecipeArguments()) == Recipe()
    assert set(METHODS) == set(CalibrationMethod.__args__)  # type: ignore[attr-defined]
    assert set(FORMATS) == set(Recipe.model_fields["format"].annotation.__args__)  # type: ignore[union-attr]
    assert set(SCHEMES) == set(Recipe.model_fields["scheme"].annotation.__args__)  # type: ignore[union-attr]
