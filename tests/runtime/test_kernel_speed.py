"""Forms of products and convolutions: that they compute, and how their times are kept and ordered.

No time is asserted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.errors import ModelError, ProviderError, UsageError
from onnxq.runtime import kept, kernel_speed
from onnxq.runtime.kernel_forms import BASE, kernel_forms, product, product_in_blocks
from onnxq.runtime.kernel_shapes import (
    DEFAULT_SHAPES,
    ConvShape,
    ProductShape,
    Shape,
    parse_shapes,
)
from onnxq.runtime.kernel_speed import kernel_speeds, time_models
from onnxq.runtime.kernels import executed
from onnxq.runtime.provider_options import provider_options
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.runtime.timing import Ratio, TimingSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PRODUCT = ProductShape(3, 256, 64)
CONV = ConvShape(1, 8, 9, 9, 16, (3, 3), stride=2)
DEPTHWISE = ConvShape(2, 8, 9, 9, 8, (3, 3), groups=8)
BRIEF = TimingSettings(rounds=1, runs=1, warmup=0, seconds=0.0)
MEDIANS = {BASE: 4.0, "int8 folded": 5.0, "float16": 3.0}


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("1x4096x4096", ProductShape(1, 4096, 4096)),
        ("conv:1x64x56x56:128x3x3", ConvShape(1, 64, 56, 56, 128, (3, 3))),
        ("conv:1x64x56x56:128x3x5:2", ConvShape(1, 64, 56, 56, 128, (3, 5), 2)),
        ("conv:1x64x56x56:64x3x3:1:64", ConvShape(1, 64, 56, 56, 64, (3, 3), 1, 64)),
    ],
)
def test_shapes_are_read_as_they_are_written(text: str, shape: Shape) -> None:
    assert parse_shapes(f" {text} ,{text},") == (shape,)
    assert str(shape) == text


def test_several_shapes_keep_their_order() -> None:
    text = ",".join(map(str, DEFAULT_SHAPES))
    assert parse_shapes(text) == DEFAULT_SHAPES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no shape"),
        (" , ", "no shape"),
        ("1x2", "it is no shape"),
        ("1x2x3x4", "it is no shape"),
        ("-1x2x3", "it is no shape"),
        ("0x2x3", "is 0"),
        ("conv:1x4x8x8:4x3x3:0", "is 0"),
        ("conv:1x4x8x8:4x3x3:1:0", "is 0"),
        ("conv:1x4x8x8:4x3x3:1:3", "do not divide"),
        ("conv:1x4x8x8", "it is no shape"),
        ("1x99999x99999", "more than"),
    ],
)
def test_bad_shapes_are_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_shapes(text)
    assert "128x768x3072" in caught.value.remedy


def test_multiplications() -> None:
    assert PRODUCT.macs == 3 * 256 * 64
    assert CONV.macs == 5 * 5 * 16 * 8 * 9
    assert DEPTHWISE.macs == 2 * 9 * 9 * 8 * 9


@pytest.mark.parametrize("shape", [PRODUCT, CONV, DEPTHWISE], ids=str)
def test_every_form_runs_and_has_the_shape(shape: Shape) -> None:
    x = np.random.default_rng(0).standard_normal(shape.input, np.float32)
    shapes = set()
    names = [form.name for form in kernel_forms(shape)]
    assert len(set(names)) == len(names)
    assert names[0] == BASE
    for form in kernel_forms(shape):
        model = form.build().SerializeToString()
        (y,) = open_session(model, SessionSettings(threads=1, spinning=False)).run({"x": x})
        assert np.isfinite(y).all(), form.name
        shapes.add((y.shape, y.dtype))
    ((found, dtype),) = shapes
    lengths = {PRODUCT: (3, 64), CONV: (1, 16, 5, 5), DEPTHWISE: (2, 8, 9, 9)}
    assert found == lengths[shape]
    assert dtype == np.float32


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("int8 static, quantized output", "QLinearMatMul"),
        ("int8 static, float output", "MatMulIntegerToFloat"),
        ("int8 dynamic", "DynamicQuantizeMatMul"),
        ("int8 folded", "MatMul"),
        ("int4 block 64, level 4", "MatMulNBits"),
    ],
)
def test_forms_become_the_kernels_that_they_are_for(name: str, op: str) -> None:
    (form,) = (form for form in kernel_forms(PRODUCT) if form.name == name)
    ops = {node.op for node in executed(form.build().SerializeToString())}
    assert op in ops


def test_a_ragged_block_computes() -> None:
    model = product_in_blocks(100, 8, 4, 32, 1).SerializeToString()
    x = np.ones((2, 100), np.float32)
    assert open_session(model).run({"x": x})[0].shape == (2, 8)


def times(
    models: Mapping[str, Any],
    feed: Mapping[str, Any],
    timing: TimingSettings,
    provider: str,
    progress: Any,
) -> dict[str, tuple[float, Ratio]]:
    """In place of :func:`time_models`: float16 fastest, forms that nobody named take 9 ms."""
    assert feed["x"].shape in (PRODUCT.input, CONV.input)
    if progress is not None:
        for done in range(timing.rounds * len(models)):
            progress(done + 1, timing.rounds * len(models))
    found = {}
    for name in models:
        median = MEDIANS.get(name, 9.0)
        found[name] = (median, Ratio(4.0 / median, 3.9 / median, 4.1 / median))
    return found


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Times without processes; the list gets how many models each call timed."""
    calls: list[int] = []

    def note(models: Mapping[str, Any], *more: Any) -> dict[str, tuple[float, Ratio]]:
        calls.append(len(models))
        return times(models, *more)

    monkeypatch.setattr(kernel_speed, "time_models", note)
    return calls


def test_the_fastest_comes_first(timed: list[int]) -> None:
    (found,) = kernel_speeds([PRODUCT])
    assert (found.shape, found.provider) == ("3x256x64", "CPUExecutionProvider")
    assert [kernel.name for kernel in found.kernels][:3] == ["float16", BASE, "int8 folded"]
    assert found.fastest is found.kernels[0]
    assert found.kernel("int4 block 32, level 1").block_size == 32
    assert found.kernel("int8 dynamic").runs_as == ("DynamicQuantizeMatMul",)
    assert timed == [18]
    with pytest.raises(KeyError):
        found.kernel("int3")


def test_what_was_measured_is_kept(timed: list[int], tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    first = kernel_speeds([PRODUCT, CONV], cache=tmp_path)
    again = kernel_speeds(
        [PRODUCT, CONV], "CPUExecutionProvider", cache=tmp_path,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert again == first
    assert timed == [18, 5]
    assert steps == [(54, 69), (69, 69)]
    assert len(list(tmp_path.iterdir())) == 2
    kernel_speeds([CONV], cache=tmp_path, earlier="replace")
    kernel_speeds([CONV], cache=tmp_path, timing=BRIEF)
    assert timed == [18, 5, 5, 5]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"\xff"])
def test_a_damaged_result_is_measured_again(
    damage: bytes, timed: list[int], tmp_path: Path
) -> None:
    kernel_speeds([CONV], cache=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    kernel_speeds([CONV], cache=tmp_path)
    kernel_speeds([CONV], cache=tmp_path)
    assert timed == [5, 5]


def test_progress_counts_all_processes(timed: list[int], tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    kernel_speeds(
        [CONV, CONV],
        cache=tmp_path,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(done, 30) for done in (*range(1, 16), 30)]


def test_a_form_that_does_not_run_is_last_and_says_why(
    timed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = next(form for form in kernel_forms(CONV) if form.name == "float16").build

    def refuse(model: bytes, provider: str) -> Any:
        if model == broken().SerializeToString():
            code, text = "runtime.load", "there is no kernel"
            raise ModelError(code, text)
        return executed(model, provider)

    monkeypatch.setattr(kernel_speed, "executed", refuse)
    (found,) = kernel_speeds([CONV])
    last = found.kernels[-1]
    assert (last.name, last.refused, last.median_ms) == ("float16", "there is no kernel", None)
    assert timed == [4]
    assert not found.unsteady


def test_rounds_far_apart_are_told(timed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def far(models: Mapping[str, Any], *_: Any) -> dict[str, tuple[float, Ratio]]:
        return dict.fromkeys(models, (1.0, Ratio(1.0, 0.5, 2.0)))

    monkeypatch.setattr(kernel_speed, "time_models", far)
    assert kernel_speeds([CONV])[0].unsteady


def test_times_are_taken_in_processes() -> None:
    models = {"float": product(32, 8), "blocks": product_in_blocks(32, 8, 4, 32, 4)}
    steps: list[tuple[int, int]] = []
    x = np.ones((2, 32), np.float32)
    found = time_models(
        models, {"x": x}, BRIEF, progress=lambda done, total: steps.append((done, total))
    )
    assert list(found) == ["float", "blocks"]
    assert found["float"][1] == Ratio(1.0, 1.0, 1.0)
    assert all(median > 0 for median, _ in found.values())
    assert steps == [(1, 2), (2, 2)]


def test_a_missing_provider() -> None:
    with pytest.raises(ProviderError):
        kernel_speeds([CONV], "openvino")


def test_a_device_and_its_options_have_results_of_their_own() -> None:
    (shape,) = parse_shapes("2x8x4")
    keys = {
        kernel_speed._key(name, shape, kernel_speed.TIMING) for name in ("cuda", "cuda:0", "cuda:1")
    }
    assert len(keys) == 2
    with provider_options({"cuda": {"use_tf32": "0"}}):
        assert kernel_speed._key("cuda", shape, kernel_speed.TIMING) not in keys


def test_another_gpu_or_driver_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    (shape,) = parse_shapes("2x8x4")

    def keys(gpu: str) -> list[str]:
        monkeypatch.setattr(kept, "device_name", lambda name: gpu * (name != "cpu"))
        return [kernel_speed._key(name, shape, kernel_speed.TIMING) for name in ("cuda", "cpu")]

    here, newer, none = keys("NVIDIA H100, 580.1"), keys("NVIDIA H100, 590.1"), keys("")
    assert len({here[0], newer[0], none[0]}) == 3
    assert here[1] == newer[1] == none[1]
