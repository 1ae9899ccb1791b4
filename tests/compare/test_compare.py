"""Comparing models: numbers against numpy, refusals before any work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.compare import alike
from onnxq.compare import compare as comparing
from onnxq.compare.alike import distinct_providers
from onnxq.compare.compare import Comparison, compare
from onnxq.compare.divergence import diverge
from onnxq.errors import DataError, ModelError, ProviderError, UsageError
from onnxq.runtime import providers
from onnxq.runtime.apart import Loaded
from onnxq.runtime.engine_cache import engine_cache
from onnxq.runtime.placement import placement
from onnxq.runtime.timing import TimingSettings
from onnxq.stages.shape_profile import NO_PROFILE
from onnxq.verify import survival
from tests.pretended import pretend
from tests.small_models import normal, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

LINEAR = "g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }"
QUICK = TimingSettings(rounds=2, runs=3, warmup=1, threads=1, seconds=0.0)
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((4, 3)).astype(np.float32)
OTHER = (WEIGHT + 0.05 * RANDOM.standard_normal((4, 3))).astype(np.float32)
SAMPLES = [
    {"x": RANDOM.standard_normal((rows, 4)).astype(np.float32)} for rows in (1, 3, 2, 5, 1, 2)
]


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [
        write(tmp_path / f"{name}.onnx", LINEAR, w=weight)
        for name, weight in (("first", WEIGHT), ("second", OTHER))
    ]


def _outputs(weight: NDArray[Any]) -> NDArray[np.float64]:
    rows = np.concatenate([sample["x"] for sample in SAMPLES]).astype(np.float64)
    result: NDArray[np.float64] = rows @ weight.astype(np.float64)
    return result


def test_numerics_are_those_of_the_definitions(models: list[Path], tmp_path: Path) -> None:
    expected, found = _outputs(WEIGHT), _outputs(OTHER)
    right = expected.argmax(axis=1)
    right[::3] = 0
    labels = tmp_path / "labels.npy"
    np.save(labels, right)
    comparison = compare(models, SAMPLES, labels=labels, timing=None)
    reference, other = comparison.runs
    assert comparison.reference is reference
    assert comparison.samples == len(SAMPLES)
    assert (reference.fidelity, reference.ratio, reference.latency) == (None, None, None)
    assert reference.accuracy == pytest.approx(np.mean(expected.argmax(axis=1) == right))
    assert other.accuracy == pytest.approx(np.mean(found.argmax(axis=1) == right))
    fidelity = other.fidelity
    assert fidelity is not None
    noise = np.sum((expected - found) ** 2)
    assert fidelity.sqnr_db == pytest.approx(10 * np.log10(np.sum(expected**2) / noise), abs=1e-4)
    cosine = np.sum(expected * found) / np.linalg.norm(expected) / np.linalg.norm(found)
    assert fidelity.cosine == pytest.approx(cosine, abs=1e-6)
    assert fidelity.max_error == pytest.approx(np.abs(expected - found).max(), rel=1e-4)
    same = np.mean(expected.argmax(axis=1) == found.argmax(axis=1))
    assert fidelity.top1_agreement == pytest.approx(same)
    assert [run.file_bytes for run in comparison.runs] == [p.stat().st_size for p in models]
    assert [run.kernels and run.kernels.integer for run in comparison.runs] == [0, 0]


def test_speed_is_compared_on_the_same_provider(models: list[Path]) -> None:
    steps: dict[str, tuple[int, int]] = {}

    def report(step: str, done: int, total: int) -> None:
        steps[step] = (done, total)

    comparison = compare(
        models, SAMPLES, providers=["cpu", "CPUExecutionProvider"], timing=QUICK, report=report
    )
    # Both names mean one provider, so there are two runs and not four.
    first, second = comparison.runs
    assert first.latency is not None
    assert second.latency is not None
    assert first.ratio is None
    assert second.ratio is not None
    assert second.ratio.low <= second.ratio.median <= second.ratio.high
    pairs = zip(first.latency.per_round_median_ms, second.latency.per_round_median_ms, strict=True)
    assert second.ratio.median == pytest.approx(np.median([slow / fast for slow, fast in pairs]))
    assert first.latency.peak_rss_bytes > 10_000_000
    assert steps == {"run second.onnx on cpu": (6, 6), "time": (4, 4)}


def test_a_model_alone_has_its_accuracy_and_its_times(models: list[Path], tmp_path: Path) -> None:
    labels = tmp_path / "labels.npy"
    np.save(labels, _outputs(WEIGHT).argmax(axis=1))
    (run,) = compare(models[:1], SAMPLES, labels=labels, timing=QUICK).runs
    assert run.accuracy == 1.0
    assert run.fidelity is None
    assert run.latency is not None


def test_a_missing_provider_is_told_before_any_work(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "available", lambda: ("CPUExecutionProvider",))
    with pytest.raises(ProviderError, match="CUDAExecutionProvider") as caught:
        compare([models[0], "not-read.onnx"], [], providers=["cpu", "cuda"])
    assert "onnxruntime-gpu" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("g (float[n, 4] z) => (float[n, 3] y) { y = MatMul(z, w) }", "inputs are z where .* x"),
        ("g (float[n, 4] x) => (float[n, 3] z) { z = MatMul(x, w) }", "outputs are z where .* y"),
        ("g (double[n, 4] x) => (float[n, 3] y) { c = Cast<to=1>(x) y = MatMul(c, w) }", "DOUBLE"),
        ("g (float[2, n, 4] x) => (float[2, n, 3] y) { y = MatMul(x, w) }", r"\[2, n, 4\]"),
        ("g (float[n, 5] x) => (float[n, 3] y) { y = MatMul(x, v) }", r"FLOAT\[n, 5\]"),
    ],
)
def test_models_that_differ(text: str, words: str, models: list[Path], tmp_path: Path) -> None:
    five = np.ones((5, 3), np.float32)
    weights = {"w": WEIGHT} if "w" in text.split("MatMul")[1] else {"v": five}
    other = write(tmp_path / "other.onnx", text, **weights)
    with pytest.raises(ModelError, match=words) as caught:
        compare([models[0], other], SAMPLES, timing=None)
    assert caught.value.where == str(other)


def test_a_fixed_batch_agrees_with_a_named_one(models: list[Path], tmp_path: Path) -> None:
    text = "g (float[1, 4] x) => (float[1, 3] y) { y = MatMul(x, w) }"
    fixed = write(tmp_path / "fixed.onnx", text, w=WEIGHT)
    comparison = compare([models[0], fixed], SAMPLES[:1], timing=None)
    fidelity = comparison.runs[1].fidelity
    assert fidelity is not None
    assert fidelity.max_error == 0


def test_nothing_to_compare(models: list[Path]) -> None:
    with pytest.raises(UsageError, match="nothing"):
        compare([], SAMPLES)
    with pytest.raises(UsageError, match="nothing"):
        compare(models, SAMPLES, providers=[])


def test_a_sample_that_does_not_fit(models: list[Path]) -> None:
    with pytest.raises(DataError, match="shape"):
        compare(models, [{"x": np.ones((1, 5), np.float32)}], timing=None)


def test_classes_and_other_shapes_are_told(tmp_path: Path) -> None:
    """Outputs whose shape depends on the data differ in it: no reason to fail."""
    text = """g (float[n, 4] x) => (int64[d, m] at) {
        y = MatMul(x, w)
        zero = Constant<value = float {0.0}>()
        above = Greater(y, zero)
        at = NonZero(above)
    }"""
    paths = [
        write(tmp_path / f"{name}.onnx", text, w=weight)
        for name, weight in (("first", WEIGHT), ("same", WEIGHT), ("opposite", -WEIGHT))
    ]
    samples = [{"x": np.asarray([[1, 0, 0, 0]], np.float32)}]
    comparison = compare(paths, samples, timing=None)
    same, opposite = (run.fidelity for run in comparison.runs[1:])
    assert same is not None
    assert (same.output, same.equal_share, same.sqnr_db) == ("at", 1.0, None)
    assert opposite is not None
    assert (opposite.other_shape, opposite.equal_share) == (1, None)
    (warning,) = comparison.warnings
    assert warning.startswith("run 3: not compared: in 1 of 1 samples")


def test_nan_is_a_warning(models: list[Path], tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.onnx", LINEAR, w=np.full_like(WEIGHT, np.nan))
    warnings = compare([*models, bad], SAMPLES, timing=None).warnings
    assert warnings[0] == "run 3 gives NaN or Inf in y"
    assert warnings[1].startswith("run 3: the SQNR of y is not a number")


def test_two_devices_are_two_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = providers.SHORT["cuda"]
    monkeypatch.setattr(alike, "require_started", providers.resolve)
    names = ["cuda:0", "cuda", "cpu", "CUDA:1", cuda]
    assert distinct_providers(names) == ["cuda:0", "cpu", "CUDA:1"]


def test_a_library_that_does_not_load_is_told_before_any_work(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    available = (providers.SHORT["cuda"], providers.CPU)
    monkeypatch.setattr(providers, "available", lambda: available)
    monkeypatch.setattr(
        providers, "why_not_loaded", lambda full: "libcublas: not found" * (full != providers.CPU)
    )
    with pytest.raises(ProviderError, match="did not start: libcublas"):
        compare([models[0], "not-read.onnx"], [], providers=["cpu", "cuda"])


def test_a_model_that_ends_the_process_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "g (float16[2, 4] x) => (float16[2, 4] y) { y = Relu(x) }"
    path = write(tmp_path / "half.onnx", text)
    data = [{"x": np.ones((2, 4), np.float16)}]
    assert len(compare([path], data, timing=None).runs) == 1
    died = Loaded(refusal="ONNX Runtime ends the process that loads it", died=True)
    monkeypatch.setattr(survival, "load_apart", lambda model: died)
    for measured in (compare, diverge):
        with pytest.raises(ModelError, match="ends the process"):
            measured([path, path], data)


def test_tensorrt_is_told_of_the_samples_shapes(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = pretend(monkeypatch, "tensorrt")
    monkeypatch.setattr(comparing, "placement", lambda path, provider: placement(path))
    samples = [{"x": normal(n, n, 4)} for n in (3, 1, 2, 2)]
    found = compare(models[:1], samples, providers=["cpu", "tensorrt"], timing=None)
    told = {"trt_profile_min_shapes": "x:1x4", "trt_profile_opt_shapes": "x:2x4",
            "trt_profile_max_shapes": "x:3x4"}  # fmt: skip
    # The first session, on the smallest model, only shows that the provider starts.
    assert noted[0] == {}
    assert noted[1:]
    assert all(options == told for options in noted[1:])
    assert found.profile.options == told
    assert compare(models[:1], samples, timing=None).profile == NO_PROFILE


def test_an_engine_that_was_kept_is_told(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(options: Mapping[str, str]) -> str:
        """Stand in for TensorRT, which writes an engine where none lies."""
        if "trt_engine_cache_path" in options:
            folder = Path(options["trt_engine_cache_path"])
            folder.mkdir(exist_ok=True)
            if not (folder / "g_sm90.engine").exists():
                (folder / "g_sm90.engine").write_bytes(b"")
        return ""

    pretend(monkeypatch, "tensorrt", build)
    monkeypatch.setattr(comparing, "placement", lambda path, provider: placement(path))

    def compared(*paths: Path) -> Comparison:
        with engine_cache(tmp_path / "kept"):
            return compare(paths, SAMPLES, providers=["cpu", "tensorrt"], timing=None)

    first, second = (compared(models[0]).runs[1].engine for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.folder == second.folder
    assert first.folder.parent == tmp_path / "kept"
    assert first.build_seconds is not None
    assert first.build_seconds > 0
    assert second.build_seconds is None
    found = compared(*models)
    known, new = found.runs[2].engine, found.runs[3].engine
    assert known == second
    assert new is not None
    # Other weights under the same names have an engine of their own.
    assert new.folder != second.folder
    warnings = [text for text in found.warnings if "engine" in text]
    assert warnings[0].startswith(f"run 3: its TensorRT engine lay in {second.folder} already")
    assert warnings[1].startswith("run 4: TensorRT built its engine in ")
    assert found.runs[0].engine is None
