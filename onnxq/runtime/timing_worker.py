"""Time one model in a process of its own: ``python -m onnxq.runtime.timing_worker SPEC.json``.

The specification is a JSON object that :mod:`onnxq.runtime.timing` writes; the answer is one JSON
line on standard output, with the key ``error`` if the model does not load or run.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.runtime.machine import peak_rss_bytes
from onnxq.runtime.sensors import Sensors
from onnxq.runtime.session import open_session
from onnxq.runtime.tuning import Tuning
from onnxq.runtime.worker import serve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.runtime.session import Session


_MOST_RUNS = 20_000


def time_model(spec: dict[str, Any]) -> dict[str, Any]:
    """Load a model, run it once, warm it up, and time its runs.

    Args:
        spec: ``model`` (path), ``provider``, ``tuning``, ``runs``, ``warmup``, ``seconds``, and
            ``feeds``: the files that the runs cycle through, each a ``path`` and its arrays'
            ``names``.

    Returns:
        ``load_seconds``, ``first_ms``, ``runs_ms``, ``peak_rss_bytes``, ``device_bytes`` and
        ``joules`` of a run; None where the machine does not tell.

    Raises:
        ModelError: The model does not load or run.
        ProviderError: The provider is not there.
    """
    feeds = [_read(feed) for feed in spec["feeds"]]
    sensors = Sensors(spec["provider"])
    settings = Tuning(**spec["tuning"]).settings(spec["provider"])
    begin = time.perf_counter()
    session = open_session(Path(spec["model"]), settings)
    load_seconds = time.perf_counter() - begin
    first = _seconds(session, feeds[0])
    _repeat(session, feeds, spec["warmup"], spec["seconds"] / 3)
    before = sensors.joules()
    runs = _repeat(session, feeds, spec["runs"], spec["seconds"])
    after = sensors.joules()
    return {
        "load_seconds": load_seconds,
        "first_ms": first * 1e3,
        "runs_ms": [seconds * 1e3 for seconds in runs],
        "peak_rss_bytes": peak_rss_bytes(),
        "device_bytes": sensors.device_bytes(),
        "joules": _energy(before, after, len(runs)),
    }


def _energy(before: float | None, after: float | None, runs: int) -> float | None:
    """Of a run; None where the machine does not tell, or its counter began anew meanwhile."""
    if before is None or after is None or after < before:
        return None
    return (after - before) / runs


def _read(feed: dict[str, Any]) -> dict[str, NDArray[Any]]:
    with np.load(feed["path"], allow_pickle=False) as arrays:
        return {name: arrays[f"arr_{index}"] for index, name in enumerate(feed["names"])}


def _repeat(
    session: Session, feeds: list[dict[str, NDArray[Any]]], runs: int, seconds: float
) -> list[float]:
    """Time at least so many runs and so long; from there on whole rounds through the feeds."""
    taken: list[float] = []
    spent = 0.0
    while len(taken) < runs or (spent < seconds and len(taken) < _MOST_RUNS):
        for feed in feeds if len(taken) >= runs else feeds[: runs - len(taken)]:
            taken.append(_seconds(session, feed))
            spent += taken[-1]
    return taken


def _seconds(session: Session, feed: dict[str, NDArray[Any]]) -> float:
    begin = time.perf_counter()
    session.execute(feed)
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(serve(time_model, Path(sys.argv[1])))
