"""Options and devices of execution providers, energy and memory of a GPU."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from onnxq import load_recipe, pipeline
from onnxq.errors import ProviderError, UsageError
from onnxq.runtime import providers, sensors, timing_worker
from onnxq.runtime.provider_options import (
    check_heeded,
    default_options,
    device_in_use,
    in_use,
    of_chain,
    parse_options,
    provider_options,
)
from onnxq.runtime.sensors import Sensors
from onnxq.runtime.worker import worker_context
from onnxq.stages.prepare import prepare
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path

CUDA, TENSORRT = providers.SHORT["cuda"], providers.SHORT["tensorrt"]


def test_options_hold_inside_and_add_up() -> None:
    with provider_options({"tensorrt": {"trt_engine_cache_enable": "1"}}):
        with provider_options({"tensorrt": {"trt_fp16_enable": "1"}, "cuda": {"use_tf32": "0"}}):
            assert in_use()[TENSORRT] == {"trt_engine_cache_enable": "1", "trt_fp16_enable": "1"}
            assert worker_context()["provider_options"][CUDA] == {"use_tf32": "0"}
        assert in_use() == {TENSORRT: {"trt_engine_cache_enable": "1"}}
    assert in_use() == {}


def test_a_device_is_an_option_of_every_gpu_provider_of_the_chain() -> None:
    with provider_options({"tensorrt": {"trt_fp16_enable": "1"}}):
        found = of_chain((TENSORRT, CUDA, providers.CPU), "tensorrt:1")
    assert found == [{"trt_fp16_enable": "1", "device_id": "1"}, {"device_id": "1"}, {}]
    assert of_chain((CUDA, providers.CPU), "cuda") == [{}, {}]


def test_the_command_lines_form_is_read() -> None:
    given = ["tensorrt.trt_engine_cache_path=a=b/c", "tensorrt.trt_fp16_enable=1"]
    assert parse_options(given) == {
        TENSORRT: {"trt_engine_cache_path": "a=b/c", "trt_fp16_enable": "1"}
    }


@pytest.mark.parametrize("text", ["tensorrt", "tensorrt.key", ".key=1", "tensorrt.=1"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not PROVIDER"):
        parse_options([text])


@pytest.mark.parametrize(
    ("text", "words"),
    [("cpu.arena=1", "has no options"), ("cuda:1.use_tf32=0", "not of one device")],
)
def test_options_that_nobody_would_heed_are_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_options([text])


def test_options_of_a_provider_that_is_not_used_are_refused() -> None:
    with provider_options({"cuda": {"use_tf32": "0"}}):
        check_heeded(["cpu", "tensorrt:1"])
        with pytest.raises(UsageError, match="CUDAExecutionProvider, which is not used"):
            check_heeded(["cpu"])


def test_the_device_in_use() -> None:
    assert device_in_use("cuda") == 0
    with provider_options({"cuda": {"device_id": "1"}}):
        assert [device_in_use(name) for name in ("cuda", "cuda:2", "tensorrt")] == [1, 2, 0]


def test_defaults_yield_to_what_is_said_outside() -> None:
    with (
        provider_options({"tensorrt": {"trt_fp16_enable": "1"}}),
        default_options(
            {"tensorrt": {"trt_fp16_enable": "0", "trt_dla_enable": "1"}, "cuda": {"use_tf32": "0"}}
        ),
    ):
        assert in_use() == {
            TENSORRT: {"trt_fp16_enable": "1", "trt_dla_enable": "1"},
            CUDA: {"use_tf32": "0"},
        }
    assert in_use() == {}


@pytest.mark.parametrize("use", [provider_options, default_options])
def test_a_device_that_is_no_number_is_refused(use: Any) -> None:
    with (
        pytest.raises(UsageError, match="'first' is no index"),
        use({"cuda": {"device_id": "first"}}),
    ):
        pass


def test_options_of_an_unknown_provider_are_refused() -> None:
    with pytest.raises(ProviderError):
        parse_options(["tensort.trt_fp16_enable=1"])


@pytest.mark.parametrize(("name", "index"), [("cuda", None), ("cuda:0", 0), ("TensorRT:3", 3)])
def test_device_of_a_name(name: str, index: int | None) -> None:
    assert providers.device_of(name) == index


@pytest.mark.parametrize(
    ("name", "words"),
    [("cuda:x", "no index"), ("cuda:-1", "no index"), ("cuda:", "no index"), ("cpu:0", "devices")],
)
def test_a_bad_device_is_refused(name: str, words: str) -> None:
    with pytest.raises(ProviderError, match=words):
        providers.device_of(name)


class Nvml:
    """Stands in for NVIDIA's management library."""

    NVMLError = RuntimeError

    def __init__(self, by_process: int | None) -> None:
        self.used = [100, 350]
        self.by_process = by_process

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, device: int) -> Any:  # noqa: N802
        assert device == 2
        return SimpleNamespace(used=self.used.pop(0))

    def nvmlDeviceGetComputeRunningProcesses(self, device: int) -> list[Any]:  # noqa: N802
        if self.by_process is None:
            raise RuntimeError
        return [SimpleNamespace(pid=os.getpid(), usedGpuMemory=self.by_process)]

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:  # noqa: N802
        return 2500


@pytest.mark.parametrize(("by_process", "held"), [(77, 77), (None, 250)])
def test_what_a_gpu_tells(
    by_process: int | None, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = Nvml(by_process)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = Sensors("cuda:2")
    assert found.device_bytes() == held
    assert found.joules() == 2.5


@pytest.mark.parametrize(("visible", "handle"), [("5,2", 2), ("GPU-a,GPU-b", "GPU-b"), ("5", None)])
def test_the_gpu_is_the_one_that_cuda_counts(
    visible: str, handle: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handles(Nvml):
        def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
            return uuid

        def nvmlDeviceGetMemoryInfo(self, device: object) -> Any:  # noqa: N802
            return SimpleNamespace(used=0)

    monkeypatch.setitem(sys.modules, "pynvml", Handles(1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert Sensors("cuda:1")._device == handle


def test_a_gpu_is_named_with_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Names(Nvml):
        def nvmlDeviceGetMemoryInfo(self, device: object) -> Any:  # noqa: N802
            return SimpleNamespace(used=0)

        def nvmlDeviceGetName(self, device: int) -> bytes:  # noqa: N802
            return f"GPU {device}".encode()

        def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
            return "580.1"

    monkeypatch.setattr(sensors, "_DRIVER", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", Names(1))
    assert [sensors.device_name(name) for name in ("cuda:1", "cpu")] == ["GPU 1, 580.1", ""]
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert sensors.device_name("cuda") == ""
    (tmp_path / "version").write_text("NVRM version: 570.2\nGCC version: 12\n")
    for place, model in (("b", "NVIDIA B"), ("a", "NVIDIA A")):
        (tmp_path / "gpus" / place).mkdir(parents=True)
        (tmp_path / "gpus" / place / "information").write_text(f"Model: \t\t {model}\nIRQ: 1\n")
    assert sensors.device_name("tensorrt") == "NVIDIA A, NVIDIA B, NVRM version: 570.2"


def test_a_counter_that_began_anew_tells_nothing() -> None:
    assert timing_worker._energy(5.0, 2.0, 4) is None
    assert timing_worker._energy(2.0, 5.0, 4) == 0.75


def test_processors_tell_their_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, energy in enumerate((1_500_000, 250_000)):
        zone = tmp_path / f"intel-rapl:{index}"
        zone.mkdir()
        (zone / "energy_uj").write_text(f"{energy}\n")
    monkeypatch.setattr(sensors, "_ZONES", str(tmp_path))
    found = Sensors("cpu")
    assert found.joules() == pytest.approx(1.75)
    assert found.device_bytes() is None
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert found.joules() is None


def test_a_recipes_options_hold_while_it_is_carried_out_but_for_those_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def spy(*given: Any) -> Any:
        seen.append({name: dict(values) for name, values in in_use().items()})
        return real(*given)

    real = prepare
    monkeypatch.setattr("onnxq.pipeline.prepare", spy)
    text = """
        version = 1
        scheme = "int8-weights"
        target = "tensorrt"
        [provider_options.tensorrt]
        trt_timing_cache_enable = "1"
        trt_fp16_enable = "1"
    """
    recipe = tmp_path / "r.toml"
    recipe.write_text(text)
    graph = "g (float[2, 64] x) => (float[2, 32] y) { y = MatMul(x, w) }"
    model = write(tmp_path / "m.onnx", graph, w=normal(0, 64, 32))
    options = pipeline.RunOptions(timing=None)
    with provider_options({"tensorrt": {"trt_fp16_enable": "0"}}):
        pipeline.quantize(
            model, None, tmp_path / "o.onnx", recipe=load_recipe(recipe), options=options
        )
    assert seen == [{TENSORRT: {"trt_timing_cache_enable": "1", "trt_fp16_enable": "0"}}]
    assert in_use() == {}
