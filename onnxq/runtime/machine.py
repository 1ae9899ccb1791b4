"""What machine this is: processor, instruction sets, memory, and versions of what matters."""

from __future__ import annotations

import functools
import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ISA_NAMES: Final = MappingProxyType(
    {
        "avx2": "avx2",
        "fma": "fma",
        "avx512f": "avx512f",
        "avx512_vnni": "avx512_vnni",
        "avx512vnni": "avx512_vnni",
        "avx_vnni": "avx_vnni",
        "avxvnni": "avx_vnni",
        "avx_vnni_int8": "avx_vnni_int8",
        "avx512_bf16": "avx512_bf16",
        "amx_int8": "amx_int8",
        "amx_bf16": "amx_bf16",
        "neon": "neon",
        "asimd": "neon",
        "asimddp": "dotprod",
        "dotprod": "dotprod",
        "i8mm": "i8mm",
        "sve": "sve",
    }
)
"""Instruction sets that decide how fast integers and floats are: the system's name and ours."""

_PACKAGES: Final = (
    "onnxq",
    "onnxruntime-extensions",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "numpy",
    "numba",
    "torch",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine as this process may use it.

    Attributes:
        cpu: The processor's name.
        architecture: ``x86_64``, ``aarch64``, …
        isa: Names of the instruction sets that matter here, such as ``avx512_vnni``.
        cores: Logical cores that this process may run on.
        memory_total: Bytes of memory, or the container's limit if that is less.
        memory_available: Bytes that can be had without swapping.
        system: The operating system and its release.
        python: Python's version.
    """

    cpu: str
    architecture: str
    isa: frozenset[str]
    cores: int
    memory_total: int
    memory_available: int
    system: str
    python: str

    @property
    def x86(self) -> bool:
        """Whether it is a 64-bit x86 processor."""
        return self.architecture == "x86_64"

    @property
    def vnni(self) -> bool:
        """Whether int8 products are summed in 32 bits by one instruction, without saturation.

        Also true of Arm's dot product. Without it, x86 multiplies uint8 by int8 with
        ``VPMADDUBSW``, which saturates the sum of two products at int16.
        """
        return bool(self.isa & {"avx512_vnni", "avx_vnni", "amx_int8", "dotprod"})


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution: its name and version."""

    name: str
    version: str


def inspect_machine() -> Machine:
    """Look at this machine."""
    import psutil

    cpu, flags = _cpu()
    architecture = platform.machine().lower()
    architecture = {"amd64": "x86_64", "arm64": "aarch64"}.get(architecture, architecture)
    memory = psutil.virtual_memory()
    limit = _container_limit()
    total = min(memory.total, limit) if limit else memory.total
    return Machine(
        cpu=cpu,
        architecture=architecture,
        isa=_isa(flags, architecture),
        cores=_cores(),
        memory_total=total,
        memory_available=min(memory.available, total),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def installed_runtimes() -> tuple[Distribution, ...]:
    """The installed distributions that bring the package ``onnxruntime``; one is right."""
    names = sorted(set(metadata.packages_distributions().get("onnxruntime", ())))
    return tuple(Distribution(name, metadata.version(name)) for name in names)


def versions() -> Mapping[str, str]:
    """Versions of the installed packages that decide a result, by distribution."""
    found = {runtime.name: runtime.version for runtime in installed_runtimes()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return MappingProxyType(found)


def peak_rss_bytes() -> int:
    """The most memory that this process has held, in bytes.

    Linux counts in ``ru_maxrss`` what the parent held when it started the process, so there the
    high-water mark of the process's own memory map is read instead.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@functools.cache
def _cpu() -> tuple[str, frozenset[str]]:
    """The processor's name and the flags that the system lists."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        pairs = (line.partition(":") for line in listing.read_text(encoding="utf-8").splitlines())
        entries = {key.strip().lower(): value.strip() for key, _, value in pairs}
        flags = entries.get("flags") or entries.get("features") or ""
        if flags:
            return entries.get("model name") or platform.machine(), frozenset(flags.split())
    import cpuinfo

    info = cpuinfo.get_cpu_info()
    return info.get("brand_raw") or platform.processor(), frozenset(info.get("flags", ()))


def _isa(flags: Iterable[str], architecture: str) -> frozenset[str]:
    found = {_ISA_NAMES[flag] for flag in flags if flag in _ISA_NAMES}
    if architecture == "aarch64":
        found.add("neon")
        if sys.platform == "darwin":  # every Apple processor for macOS has it, none lists it
            found.add("dotprod")
    return frozenset(found)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _container_limit() -> int | None:
    """The memory limit of the control group, if it has one."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        path = Path("/sys/fs/cgroup") / name
        if path.exists():
            text = path.read_text(encoding="utf-8").strip()
            return int(text) if text.isdigit() else None
    return None
