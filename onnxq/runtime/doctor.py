"""What `onnxq doctor` finds: each thing that is well, each lack, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import onnxruntime as ort

from onnxq.errors import OnnxqError
from onnxq.runtime import providers
from onnxq.runtime.machine import inspect_machine, installed_runtimes, versions
from onnxq.runtime.start import open_smallest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnxq.runtime.machine import Machine

Level = Literal["ok", "warn", "error"]

_GIB: Final = 1 << 30
_LITTLE_MEMORY: Final = 2 * _GIB
_GPU_PROVIDERS: Final = tuple(providers.SHORT[name] for name in ("cuda", "tensorrt"))
_NVIDIA_DEVICES: Final = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``"ok"``, ``"warn"`` (it works, but worse than it could) or ``"error"``.
        what: What was found.
        remedy: What to do about it; empty if nothing is to be done.
    """

    level: Level
    what: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings, and what they stand on."""

    findings: tuple[Finding, ...]
    machine: Machine
    versions: Mapping[str, str]
    providers: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.level != "error" for finding in self.findings)


def diagnose() -> Diagnosis:
    """Look at the installation and the machine."""
    machine = inspect_machine()
    findings = (
        *_runtimes(),
        *_providers(),
        *_instructions(machine),
        *_resources(machine),
        *_extras(),
    )
    return Diagnosis(findings, machine, versions(), providers.available())


def providers_at_hand() -> tuple[str, ...]:
    """The short names of the providers that are offered here and start."""
    offered = [
        (short, full) for short, full in providers.SHORT.items() if full in providers.available()
    ]
    return tuple(short for short, full in offered if _start(short, full).level == "ok")


def _runtimes() -> Iterator[Finding]:
    """One distribution of ONNX Runtime, and the one that is imported."""
    found = installed_runtimes()
    listed = ", ".join(f"{runtime.name} {runtime.version}" for runtime in found)
    if len(found) > 1:
        names = " ".join(runtime.name for runtime in found)
        yield Finding(
            "error",
            f"several builds of ONNX Runtime overwrite each other's files: {listed}",
            f"pip uninstall -y {names}, then install only the one that you want",
        )
        return
    if not found:
        what = f"ONNX Runtime {ort.__version__} is imported from outside the installed packages"
        yield Finding("warn", what, "pip install onnxruntime, unless you built it yourself")
        return
    if found[0].version.partition("+")[0] != ort.__version__.partition("+")[0]:
        what = f"{listed} is installed but version {ort.__version__} is imported"
        remedy = f"pip install --force-reinstall {found[0].name}"
        yield Finding("error", what, remedy)
        return
    yield Finding("ok", f"one build of ONNX Runtime: {listed}")


def _providers() -> Iterator[Finding]:
    """Every provider that has a short name starts; a GPU is not left unused."""
    offered = providers.available()
    for short, full in providers.SHORT.items():
        if full in offered:
            yield _start(short, full)
    if any(full in offered for full in _GPU_PROVIDERS):
        return
    installed = installed_runtimes()
    if len(installed) > 1:  # told already, and the cause of what is missing here
        return
    if any("gpu" in runtime.name for runtime in installed):
        what = "onnxruntime-gpu is installed but offers no CUDA provider"
        remedy = "pip install --force-reinstall onnxruntime-gpu"
        yield Finding("error", what, remedy)
    elif any(path.exists() for path in _NVIDIA_DEVICES):
        what = "an NVIDIA GPU is there, but this build of ONNX Runtime does not use it"
        remedy = "pip uninstall -y onnxruntime, then pip install onnxruntime-gpu"
        yield Finding("warn", what, remedy)


def _start(short: str, full: str) -> Finding:
    try:
        open_smallest(short)
    except OnnxqError as error:
        remedy = "install the CUDA, cuDNN and TensorRT versions that this ONNX Runtime names"
        return Finding("error", f"{full} is offered but does not start: {error.message}", remedy)
    return Finding("ok", f"{full} ({short}) starts")


def _instructions(machine: Machine) -> Iterator[Finding]:
    """Instructions that integer kernels live on."""
    listed = ", ".join(sorted(machine.isa)) or "none of those that matter"
    if machine.vnni:
        yield Finding("ok", f"the processor multiplies int8 natively ({listed})")
    elif machine.x86 and "avx2" in machine.isa:
        yield Finding(
            "warn",
            f"the processor has no VNNI instructions ({listed}): int8 gains little speed, and "
            "uint8 times int8 saturates at 16 bits",
            "nothing to install: onnxq bounds neighbouring weights here, so that none does; a "
            "processor with AVX512-VNNI, AVX-VNNI or AMX runs int8 faster and with all 8 bits",
        )
    else:
        yield Finding(
            "warn",
            f"the processor has no int8 instructions ({listed}): int8 will hardly be faster",
            "quantize for size only, or run on x86 with VNNI or on Arm with dot product",
        )


def _resources(machine: Machine) -> Iterator[Finding]:
    free, total = machine.memory_available, machine.memory_total
    text = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB memory are free"
    if free < _LITTLE_MEMORY:
        yield Finding("warn", text, "give --memory-budget, or end other programs")
    else:
        yield Finding("ok", text)
    if machine.cores < 2:
        what = "this process may use one core; latencies are measured with two threads"
        yield Finding("warn", what, "allow it a second core before trusting a latency")
    else:
        yield Finding("ok", f"this process may use {machine.cores} cores")


def _extras() -> Iterator[Finding]:
    if util.find_spec("torch") is None:
        what = "PyTorch is not installed; only `onnxq export` needs it"
        yield Finding("ok", what, "pip install 'onnxq[export]'")
