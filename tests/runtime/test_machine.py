from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

import onnxruntime as ort

from onnxq.runtime import machine

if TYPE_CHECKING:
    import pytest


def test_this_machine() -> None:
    here = machine.inspect_machine()
    assert here.cpu
    assert here.cores >= 1
    assert 0 < here.memory_available <= here.memory_total


def test_isa_names_are_unified() -> None:
    flags = ("sse2", "avx2", "avx512vnni", "avx_vnni", "amx_int8")
    assert machine._isa(flags, "x86_64") == {"avx2", "avx512_vnni", "avx_vnni", "amx_int8"}
    assert {"neon", "dotprod", "i8mm"} <= machine._isa(("asimd", "asimddp", "i8mm"), "aarch64")


def test_installed_runtime_is_found() -> None:
    (runtime,) = machine.installed_runtimes()
    assert runtime.version == ort.__version__
    assert machine.versions()[runtime.name] == ort.__version__


def test_every_distribution_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": ["onnxruntime-gpu", "onnxruntime", "onnxruntime"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: both)
    monkeypatch.setattr(metadata, "version", lambda _: "1.0")
    names = [runtime.name for runtime in machine.installed_runtimes()]
    assert names == ["onnxruntime", "onnxruntime-gpu"]


def test_peak_memory_grows_with_use() -> None:
    before = machine.peak_rss_bytes()
    ballast = bytearray(before + (64 << 20))
    ballast[:: 1 << 12] = b"1" * len(ballast[:: 1 << 12])
    assert machine.peak_rss_bytes() >= before + (32 << 20)
