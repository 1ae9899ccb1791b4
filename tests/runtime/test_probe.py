from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from onnxq.errors import ProviderError
from onnxq.runtime import kept
from onnxq.runtime import probe as probing
from onnxq.runtime.machine import inspect_machine
from onnxq.runtime.probe import ProbeResult, run_probe
from onnxq.runtime.probe_forms import forms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnxq.runtime.probe_forms import Form


@pytest.fixture(scope="module")
def results() -> Mapping[tuple[str, str], ProbeResult]:
    return {(result.form, result.activation): result for result in probing.probe()}


def test_every_form_is_probed(results: Mapping[tuple[str, str], ProbeResult]) -> None:
    names = [(form.name, form.activation) for form in forms()]
    assert len(set(names)) == len(names)
    assert set(results) == set(names)


@pytest.mark.parametrize("activation", ["uint8", "int8"])
@pytest.mark.parametrize(
    ("form", "op"),
    [
        ("Conv-outq", "QLinearConv"),
        ("Conv-depthwise-int32_bias-outq", "QLinearConv"),
        ("Conv-relu-outq", "QLinearConv"),
        ("Conv-clip-outq", "QLinearConv"),
        ("MatMul", "MatMulIntegerToFloat"),
        ("MatMul-outq", "QLinearMatMul"),
        ("MatMul-activations-outq", "QLinearMatMul"),
        ("MatMul-added_int32_bias", "QGemm"),
        ("Gemm-transB-int32_bias", "QGemm"),
        ("Add-relu-outq", "QLinearAdd"),
        ("GlobalAveragePool-outq", "QLinearGlobalAveragePool"),
        ("Concat-outq", "QLinearConcat"),
        ("MaxPool-outq", "MaxPool"),
        ("Reshape-outq", "Reshape"),
        ("MatMul-dynamic", "DynamicQuantizeMatMul"),
    ],
)
def test_runs_in_integers(
    form: str, op: str, activation: str, results: Mapping[tuple[str, str], ProbeResult]
) -> None:
    result = results[form, activation]
    assert result.integer
    assert op in result.executed_ops


@pytest.mark.parametrize(
    "form",
    [
        "Conv",
        "Conv-relu-mid_zero-outq",
        "Conv-hardswish-outq",
        "ConvTranspose-outq",
        "Gemm-float_bias",
        "MatMul-added_bias",
        "MatMul-weight_only-int4-block32",
        "MaxPool-rescale-outq",
        "Sub-outq",
        "LayerNormalization-outq",
        "Gather-table",
    ],
)
def test_stays_float(form: str, results: Mapping[tuple[str, str], ProbeResult]) -> None:
    assert not results[form, "uint8"].integer


def few(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Probe two forms only; the list takes the name of each that is probed."""
    chosen = [form for form in forms() if form.name in ("MatMul", "Sub-outq")]
    probed: list[str] = []
    real = probing._probe_form

    def note(form: Form, provider: str) -> ProbeResult:
        probed.append(form.name)
        return real(form, provider)

    monkeypatch.setattr(probing, "forms", lambda: iter(chosen))
    monkeypatch.setattr(probing, "_probe_form", note)
    return probed


def test_results_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probed = few(monkeypatch)
    steps: list[tuple[int, int]] = []
    first = run_probe("cpu", tmp_path / "new", lambda done, total: steps.append((done, total)))
    assert len(probed) == 4
    assert steps == [(done, 4) for done in range(1, 5)]
    assert run_probe("CPUExecutionProvider", tmp_path / "new") == first
    assert len(probed) == 4
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".json"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'[{"form": 1}]', b"\xff\x00"])
def test_damaged_results_are_made_anew(
    damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = few(monkeypatch)
    first = run_probe("cpu", tmp_path)
    (path,) = tmp_path.iterdir()
    sound = path.read_bytes()
    path.write_bytes(damage)
    assert run_probe("cpu", tmp_path) == first
    assert len(probed) == 8
    assert path.read_bytes() == sound


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert len(run_probe("cpu", blocked)) == 4


def test_other_instructions_are_probed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    here = inspect_machine()
    key = probing._key("CPUExecutionProvider")
    monkeypatch.setattr(kept, "inspect_machine", lambda: replace(here, isa=frozenset({"sve"})))
    assert probing._key("CPUExecutionProvider") != key


def test_missing_provider(tmp_path: Path) -> None:
    with pytest.raises(ProviderError):
        run_probe("openvino", tmp_path)
