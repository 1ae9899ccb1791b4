"""What of a session decides its speed and not its results, and how it is handed to others."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import psutil

from onnxq.runtime import custom_ops, engine_cache, provider_options, providers
from onnxq.runtime.session import SessionSettings

if TYPE_CHECKING:
    from onnxq.runtime.session import Optimization

_LEVELS: Final = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}

SNIPPET: Final = '''\
"""Loads a model with the settings of session.json, which onnxq measured.

It needs onnxruntime only, and onnxruntime-extensions where the model has its operators. The folder
can be moved: what session.json names lies in it.
"""

import json
from pathlib import Path

import onnxruntime as ort


def load(model: str) -> ort.InferenceSession:
    folder = Path(__file__).resolve().parent
    found = json.loads((folder / "session.json").read_text(encoding="utf-8"))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.__members__[found["optimization"]]
    options.execution_mode = ort.ExecutionMode.__members__[found["execution_mode"]]
    for name, value in found["session_options"].items():
        setattr(options, name, value)
    for key, value in found["config_entries"].items():
        options.add_session_config_entry(key, value)
    for library in found["custom_ops"]:
        if library == "extensions":
            from onnxruntime_extensions import get_library_path

            options.register_custom_ops_library(get_library_path())
        else:
            options.register_custom_ops_library(str(folder / library))
    for _, given in found["providers"]:
        for key in ("trt_engine_cache_path", "trt_timing_cache_path"):
            if key in given:
                given[key] = str(folder / given[key])
    return ort.InferenceSession(model, options, providers=[tuple(p) for p in found["providers"]])
'''
"""Python code that loads a model with what :func:`deployed` gave, from the same folder."""

_ENGINES: Final = "engines"
"""Where TensorRT keeps its engines in that folder."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Settings of a session.

    Attributes:
        threads: Threads within an operator; None for ONNX Runtime's choice, the physical cores.
        spinning: Whether idle threads spin.
        optimization: The optimization level.
        parallel: Whether operators that do not need each other run at once.
        arena: Whether the CPU's memory comes from an arena.
        memory_pattern: Whether allocations are planned from those of earlier runs.
    """

    threads: int | None = None
    spinning: bool = True
    optimization: Optimization = "all"
    parallel: bool = False
    arena: bool = True
    memory_pattern: bool = True

    def settings(self, provider: str) -> SessionSettings:
        """The settings of a session on a provider."""
        return SessionSettings(provider=provider, **asdict(self))

    def changes(self) -> str:
        """What is not ONNX Runtime's default, in words."""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}" if self.threads else ""
        found = {
            threads: self.threads is not None,
            "no spinning": not self.spinning,
            f"optimization {self.optimization}": self.optimization != "all",
            "operators in parallel": self.parallel,
            "no memory arena": not self.arena,
            "no memory pattern": not self.memory_pattern,
        }
        return ", ".join(text for text, holds in found.items() if holds) or "the defaults"


def physical_cores() -> int:
    """Cores that this process may use, two threads of one core counted once."""
    affinity = getattr(os, "sched_getaffinity", None)
    logical = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min(logical, psutil.cpu_count(logical=False) or logical))


def deployed(tuning: Tuning, provider: str) -> dict[str, Any]:
    """A session's options by ONNX Runtime's own names, in JSON's types; :data:`SNIPPET` reads it.

    Args:
        tuning: The settings.
        provider: Where it runs; the options in use (:mod:`onnxq.runtime.provider_options`) are
            part of it. Custom operators are named as :func:`onnxq.runtime.custom_ops.portable`
            does.

    Raises:
        ProviderError: The provider is not there.
    """
    chain = providers.chain(provider)
    kept = engine_cache.deployed_options(_ENGINES)
    entries = dict(providers.session_entries(chain[0]))
    if not tuning.spinning:
        entries |= {f"session.{kind}_op.allow_spinning": "0" for kind in ("intra", "inter")}
    return {
        "optimization": _LEVELS[tuning.optimization],
        "execution_mode": "ORT_PARALLEL" if tuning.parallel else "ORT_SEQUENTIAL",
        "session_options": {
            "intra_op_num_threads": tuning.threads or 0,
            "enable_cpu_mem_arena": tuning.arena,
            "enable_mem_pattern": tuning.memory_pattern,
        },
        "config_entries": entries,
        "custom_ops": list(custom_ops.portable()),
        "providers": [
            [name, {**(kept if name == engine_cache.TENSORRT else {}), **options}]
            for name, options in zip(chain, provider_options.of_chain(chain, provider), strict=True)
        ],
    }
