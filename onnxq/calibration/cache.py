"""Statistics that were collected before, kept in the user's cache folder.

The key is the digests of model and data, and the versions and machine that have a say in what is
measured; a changed model, sample or choice of samples is another key. A damaged file counts as
absent.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import TYPE_CHECKING

from platformdirs import user_cache_path
from safetensors import SafetensorError

from onnxq._version import __version__
from onnxq.calibration.stats import Stats, load_stats, save_stats
from onnxq.errors import PlanError
from onnxq.runtime.machine import inspect_machine
from onnxq.runtime.providers import runtime_version

if TYPE_CHECKING:
    from pathlib import Path


def cache_path(model_digest: str, data_digest: str) -> Path:
    """Where statistics of this model and data are kept.

    The version of ONNX Runtime and the instruction sets count, because errors of quantized models
    are measured with them.
    """
    packages = [runtime_version(), version("onnx-ir"), version("onnxscript")]
    machine = " ".join(sorted(inspect_machine().isa))
    text = f"{model_digest} {data_digest} {__version__} {packages} {machine}"
    key = hashlib.sha256(text.encode()).hexdigest()
    return user_cache_path("onnxq") / "stats" / f"{key[:32]}.safetensors"


def load_cached(model_digest: str, data_digest: str) -> Stats:
    """What is known already of this model on this data; empty if nothing is."""
    try:
        stats = load_stats(cache_path(model_digest, data_digest))
    except PlanError:
        return Stats(model_digest, data_digest)
    same = (stats.model_digest, stats.data_digest) == (model_digest, data_digest)
    return stats if same else Stats(model_digest, data_digest)


def store(stats: Stats) -> None:
    """Keep statistics for the next run; a cache that cannot be written to is no failure."""
    try:
        save_stats(stats, cache_path(stats.model_digest, stats.data_digest))
    except (OSError, SafetensorError):
        return
