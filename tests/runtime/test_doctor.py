from __future__ import annotations

from dataclasses import replace
from importlib import util
from typing import TYPE_CHECKING

import onnxruntime as ort
import pytest

from onnxq.runtime import doctor, providers
from onnxq.runtime.machine import Distribution, Machine

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.runtime.doctor import Finding

GIB = 1 << 30
MACHINE = Machine(
    cpu="a processor",
    architecture="x86_64",
    isa=frozenset({"avx2", "avx512f", "avx512_vnni"}),
    cores=4,
    memory_total=16 * GIB,
    memory_available=8 * GIB,
    system="Linux",
    python="3.11",
)


@pytest.fixture(autouse=True)
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine and an installation without a lack."""
    monkeypatch.setattr(doctor, "inspect_machine", lambda: MACHINE)
    runtimes = (Distribution("onnxruntime", ort.__version__),)
    monkeypatch.setattr(doctor, "installed_runtimes", lambda: runtimes)
    monkeypatch.setattr(providers, "available", lambda: (providers.CPU,))
    monkeypatch.setattr(doctor, "_NVIDIA_DEVICES", ())


def lacks(level: str) -> list[Finding]:
    return [finding for finding in doctor.diagnose().findings if finding.level == level]


def install(monkeypatch: pytest.MonkeyPatch, *runtimes: tuple[str, str]) -> None:
    found = tuple(Distribution(*runtime) for runtime in runtimes)
    monkeypatch.setattr(doctor, "installed_runtimes", lambda: found)


def set_machine(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    monkeypatch.setattr(doctor, "inspect_machine", lambda: machine)


def test_sound() -> None:
    found = doctor.diagnose()
    assert found.healthy
    assert {finding.level for finding in found.findings} == {"ok"}
    assert found.providers == (providers.CPU,)
    assert "numpy" in found.versions


def test_both_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("onnxruntime", "1.32.0"), ("onnxruntime-gpu", "1.31.0"))
    (finding,) = lacks("error")
    assert "onnxruntime 1.32.0, onnxruntime-gpu 1.31.0" in finding.what
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in finding.remedy
    assert not doctor.diagnose().healthy


def test_runtime_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    (finding,) = lacks("warn")
    assert "outside the installed packages" in finding.what


def test_overwritten_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("onnxruntime", "1.0.0"))
    (finding,) = lacks("error")
    assert "1.0.0 is installed but version" in finding.what
    assert "--force-reinstall" in finding.remedy


def test_gpu_build_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("onnxruntime-gpu", ort.__version__))
    (finding,) = lacks("error")
    assert "offers no CUDA" in finding.what


def test_unused_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_NVIDIA_DEVICES", (tmp_path,))
    (finding,) = lacks("warn")
    assert "NVIDIA GPU" in finding.what
    assert "onnxruntime-gpu" in finding.remedy


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_provider_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = providers.SHORT["cuda"]
    if cuda in ort.get_available_providers():
        pytest.skip("CUDA would start here")
    monkeypatch.setattr(providers, "available", lambda: (cuda, providers.CPU))
    (finding,) = lacks("error")
    assert "CUDAExecutionProvider is offered but does not start" in finding.what
    assert "cuDNN" in finding.remedy


def test_no_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    set_machine(monkeypatch, replace(MACHINE, isa=frozenset({"avx2"})))
    (finding,) = lacks("warn")
    assert "no VNNI" in finding.what
    assert "bounds neighbouring weights" in finding.remedy


def test_no_integer_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    set_machine(monkeypatch, replace(MACHINE, isa=frozenset()))
    (finding,) = lacks("warn")
    assert "no int8 instructions" in finding.what
    assert finding.remedy


def test_arm_dot_product_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    arm = replace(MACHINE, architecture="aarch64", isa=frozenset({"neon", "dotprod"}))
    set_machine(monkeypatch, arm)
    assert lacks("warn") == []


def test_little_memory_and_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    set_machine(monkeypatch, replace(MACHINE, memory_available=GIB, cores=1))
    memory, core = lacks("warn")
    assert "1.0 of 16.0 GiB" in memory.what
    assert "--memory-budget" in memory.remedy
    assert "one core" in core.what


def test_absent_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda _: None)
    assert doctor.diagnose().findings[-1].remedy == "pip install 'onnxq[export]'"
