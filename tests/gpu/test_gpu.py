"""What only a GPU can show, and what the GPU suite does where there is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from onnxq import quantize
from onnxq.errors import ProviderError
from onnxq.recipe import Recipe
from onnxq.runtime.placement import placement
from onnxq.runtime.providers import SHORT
from onnxq.runtime.session import SessionSettings, open_session
from tests.gpu.cases import CASES, FORMS, made
from tests.gpu.run import gpu, main, why_missing
from tests.gpu.table import markdown, rows

if TYPE_CHECKING:
    from pathlib import Path

NO_CUDA = why_missing("cuda") or ("" if gpu() else "there is no NVIDIA GPU")
CASE = CASES["fashion_resnet"]
on_gpu = [pytest.mark.gpu, pytest.mark.skipif(bool(NO_CUDA), reason=NO_CUDA)]
without = pytest.mark.skipif(not NO_CUDA, reason="there is a GPU")


class TestOnGpu:
    pytestmark = on_gpu

    def test_float16_is_made_and_verified_on_it(self, tmp_path: Path) -> None:
        recipe = Recipe.model_validate({"scheme": "float16"})
        found = quantize(
            CASE.model, CASE.calibration, tmp_path / "o.onnx", recipe=recipe, target="cuda"
        )
        assert found.verification is not None
        assert found.verification.kernels.counted
        assert found.verification.latency is not None

    def test_every_node_is_placed(self) -> None:
        found = placement(CASE.model, "cuda")
        assert found.asked == SHORT["cuda"]
        assert found.by_provider.get(SHORT["cuda"], 0) > 0
        assert all(node.reason for node in found.fallen_back)

    def test_a_device_out_of_range_is_refused(self) -> None:
        with pytest.raises(ProviderError, match="did not start") as caught:
            open_session(CASE.model, SessionSettings(provider="cuda:99"))
        assert "counted from 0" in caught.value.remedy


@without
def test_a_missing_provider_is_an_entry_with_its_reason(tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    arguments = ["--models", "fashion_resnet", "--forms", "float32", "--providers", "cuda,tensorrt"]
    done = CliRunner().invoke(main, [*arguments, "--work", str(tmp_path), "-o", str(output)])
    assert done.exit_code == 0, done.output
    document = json.loads(output.read_text())
    assert set(document["missing"]) == {"cuda", "tensorrt"}
    assert document["results"] == []
    assert "CUDAExecutionProvider" in document["missing"]["cuda"]


def test_the_cpus_column_is_measured(tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    forms = "float32,int8-cpu,int4-float16"
    arguments = ["--models", "fashion_resnet", "--forms", forms, "--providers", "cpu"]
    more = ["--rounds", "1", "--work", str(tmp_path), "-o", str(output)]
    done = CliRunner().invoke(main, [*arguments, *more])
    assert done.exit_code == 0, done.output
    found = {entry["form"]: entry for entry in json.loads(output.read_text())["results"]}
    assert list(found) == forms.split(",")
    assert {entry["status"] for entry in found.values()} == {"measured"}
    assert found["int8-cpu"]["kernels"]["integer"] > 0
    assert found["int8-cpu"]["metrics"]["sqnr_db"] > 20
    assert found["float32"]["metrics"] is None


def test_a_form_is_made_once(tmp_path: Path) -> None:
    first = made(CASE, FORMS["int4"], tmp_path)
    stamp = first.stat().st_mtime_ns
    assert made(CASE, FORMS["int4"], tmp_path).stat().st_mtime_ns == stamp


def test_the_table_holds_every_measured_entry() -> None:
    entries = rows()
    on = [entry for entry in entries if entry["provider"] != "cpu"]
    assert on
    assert markdown(entries).count("\n") == len(on) + 1
    for entry in on:
        assert entry["gpu"]["name"]
        assert np.isfinite(entry["latency"]["median_ms"])
