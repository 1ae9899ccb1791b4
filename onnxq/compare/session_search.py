"""The settings of a session with which a model is fastest here, by a short search.

One kind of setting after the other is tried on the best so far, all of a step in alternation, each
alone in its process: threads; then spinning and operators in parallel; then optimization level,
arena and memory pattern. A change is taken if it is faster in every round and by 2 % in the median:
what is not clearly better stays ONNX Runtime's default. Last the winner runs against the defaults
once more, and loses to them if it is not faster in every round there too.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from onnxq._version import __version__
from onnxq.compare.engines import digests
from onnxq.data import open_data
from onnxq.errors import UsageError
from onnxq.graph.io import load
from onnxq.graph.structure import signature
from onnxq.runtime.custom_ops import portable
from onnxq.runtime.engine_cache import of_models
from onnxq.runtime.machine import inspect_machine
from onnxq.runtime.provider_options import default_options
from onnxq.runtime.providers import runtime_version
from onnxq.runtime.timing import Contender, Ratio, TimingSettings, measure
from onnxq.runtime.tuning import SNIPPET, Tuning, deployed, physical_cores
from onnxq.scratch import Scratch
from onnxq.stages.shape_profile import NO_PROFILE, ShapeProfile, shape_profile
from onnxq.stages.with_past import with_past
from onnxq.verify.verification import TIMED_SAMPLES
from onnxq.wording import ms_text, times_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from onnxq.data import DataLike
    from onnxq.runtime.timing import Timing
    from onnxq.verify.verification import Report

TIMING: Final = TimingSettings(rounds=3, runs=20, seconds=0.2)
LIMIT_SECONDS: Final = 240.0
JSON_NAME: Final = "session.json"
CODE_NAME: Final = "load_session.py"
_MARGIN: Final = 1.02
_CANNOT_WRITE: Final = "compare.cannot_write"
_REMEDY: Final = "name a folder that can be made or written to"
_NAMES: Final = ("threads", "spinning and parallel operators", "optimization and memory")


@dataclass(frozen=True, slots=True)
class Tried:
    """Settings that were timed.

    Attributes:
        tuning: The settings.
        median_ms: Median of their runs.
        faster: How many times faster than the best of the step before.
        taken: Whether the search went on with them.
    """

    tuning: Tuning
    median_ms: float
    faster: Ratio
    taken: bool


@dataclass(frozen=True, slots=True)
class SessionSearch:
    """What was found.

    Attributes:
        model: The model's file.
        provider: Where it runs.
        best: The settings to deploy.
        default_ms: Median with ONNX Runtime's defaults, against the best.
        best_ms: Median of the best, in the same rounds.
        faster: How many times faster the best is than the defaults.
        tried: Everything that was timed on the way, in order.
        left_out: The steps that the time limit left no room for.
        lost: What the search came to, if it was no faster than the defaults when both ran once
            more.
        timing: How it was timed.
        profile: The shapes that TensorRT was told of.
    """

    model: Path
    provider: str
    best: Tuning
    default_ms: float
    best_ms: float
    faster: Ratio
    tried: tuple[Tried, ...]
    left_out: tuple[str, ...]
    lost: Tried | None
    timing: TimingSettings
    profile: ShapeProfile = NO_PROFILE

    @property
    def verdict(self) -> str:
        """What the search came to, in a sentence or two."""
        lost, ratio = self.lost, self.faster
        if lost is not None:
            again = times_text(lost.faster.median, lost.faster.low, lost.faster.high)
            return (
                f"Best: the defaults ({ms_text(self.default_ms)}). Against them, once more: "
                f"{lost.tuning.changes()}, {again} times as fast ({ms_text(lost.median_ms)}), "
                "which is not faster in every round."
            )
        return (
            f"Best: {self.best.changes()}, {times_text(ratio.median, ratio.low, ratio.high)} times "
            f"as fast as ONNX Runtime's defaults ({ms_text(self.best_ms)} to "
            f"{ms_text(self.default_ms)})."
        )


def search_session(
    model: str | Path,
    data: DataLike,
    *,
    provider: str = "cpu",
    timing: TimingSettings = TIMING,
    limit_seconds: float = LIMIT_SECONDS,
    report: Report = lambda step, done, total: None,
) -> SessionSearch:
    """Search the settings with which a model is fastest on this machine.

    Args:
        model: The model's file.
        data: Samples to time on.
        provider: A name of an execution provider.
        timing: How each step is timed; ``threads`` is what is searched.
        limit_seconds: No step begins after that.
        report: Told of progress.

    Raises:
        ProviderError: The provider is not there.
        ModelError: The model does not load or run.
        DataError: A sample does not fit the model.
    """
    path = Path(model)
    feeds, kept, profile = _read(path, data, provider)
    best, tried, left_out = Tuning(), [], []
    end = time.monotonic() + limit_seconds

    def timed(tunings: Sequence[Tuning], name: str) -> list[Tried]:
        contenders = [Contender(str(n), path, provider, each) for n, each in enumerate(tunings)]
        with default_options(profile.provider_options), of_models(kept):
            found = measure(contenders, feeds, timing, partial(report, name))
        return _tried(tunings, found)

    for name in _NAMES:
        if time.monotonic() > end:
            left_out.append(name)
            continue
        results = timed([best, *_candidates(name, best)], f"time {name}")
        winner = _winner(results)
        tried += [replace(entry, taken=entry is winner) for entry in results[1:]]
        best = best if winner is None else winner.tuning
    default, *rest = timed(list(dict.fromkeys([Tuning(), best])), "time against the defaults")
    lost = rest[0] if rest and not rest[0].faster.low > 1 else None
    last = rest[0] if rest and lost is None else default
    return SessionSearch(
        model=path,
        provider=provider,
        best=last.tuning,
        default_ms=default.median_ms,
        best_ms=last.median_ms,
        faster=last.faster,
        tried=tuple(tried),
        left_out=tuple(left_out),
        lost=lost,
        timing=timing,
        profile=profile,
    )


def _read(
    path: Path, data: DataLike, provider: str
) -> tuple[list[Mapping[str, NDArray[Any]]], dict[Path, str], ShapeProfile]:
    """The feeds to time on, the model's digest where engines are kept, and TensorRT's shapes."""
    loaded = load(path)
    source = with_past(open_data(data, signature(loaded)), path, "cpu")
    profile = shape_profile([loaded], (sample.feeds for sample in source), [provider])
    feeds = [sample.feeds for sample in islice(source, TIMED_SAMPLES)]
    return feeds, digests({path: loaded}), profile


def _tried(tunings: Sequence[Tuning], found: Timing) -> list[Tried]:
    """What was measured of each, beside the first of them."""
    return [
        Tried(tuning, found.results[str(i)].median_ms, found.ratio("0", str(i)), taken=False)
        for i, tuning in enumerate(tunings)
    ]


def _candidates(name: str, best: Tuning) -> Iterator[Tuning]:
    """What is tried of one kind of settings, on top of the best so far."""
    if name == _NAMES[0]:
        # The default is all physical cores.
        yield from (replace(best, threads=n) for n in (1, 2) if n < physical_cores())
    elif name == _NAMES[1]:
        yield replace(best, spinning=False)
        yield replace(best, parallel=True)
    else:
        yield replace(best, optimization="extended")
        yield replace(best, optimization="basic")
        yield replace(best, arena=False)
        yield replace(best, memory_pattern=False)


def _winner(results: Sequence[Tried]) -> Tried | None:
    """The fastest of those that are clearly faster than the first; None if there is none."""
    clear = [r for r in results[1:] if r.faster.low > 1 and r.faster.median >= _MARGIN]
    return max(clear, key=lambda entry: entry.faster.median, default=None)


def check_folder(folder: str | Path) -> None:
    """Refuse before any work what could only fail at its end.

    Raises:
        UsageError: The folder, or what it would be made in, is no folder or cannot be written to.
    """
    target = Path(folder).absolute()
    place = next(place for place in (target, *target.parents) if place.exists())
    if not place.is_dir():
        why = "this is a file, a folder is wanted"
        raise UsageError(_CANNOT_WRITE, why, where=str(place), remedy=_REMEDY)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def save_session(found: SessionSearch, folder: str | Path) -> tuple[Path, ...]:
    """Write the best settings, and code that loads a model with them.

    Libraries of custom operators go along, so that the folder can be moved.

    Args:
        found: What was searched.
        folder: Made if it is not there; files of these names in it are replaced.

    Returns:
        ``session.json`` and ``load_session.py``, then the libraries of custom operators in use.

    Raises:
        UsageError: They cannot be written.
    """
    target = Path(folder)
    text = json.dumps(document(found), indent=1, allow_nan=False) + "\n"
    try:
        target.mkdir(parents=True, exist_ok=True)
        with Scratch(target) as staged:
            for name, content in ((JSON_NAME, text), (CODE_NAME, SNIPPET)):
                (staged / name).write_text(content, encoding="utf-8")
            libraries = {name: path for name, path in portable().items() if path is not None}
            for name, path in libraries.items():
                shutil.copyfile(path, staged / name)
            names = (JSON_NAME, CODE_NAME, *libraries)
            for name in names:
                (staged / name).replace(target / name)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return tuple(target / name for name in names)


def _unwritable(folder: str | Path, error: OSError) -> UsageError:
    why = f"cannot be written: {error.strerror or error}"
    return UsageError(_CANNOT_WRITE, why, where=str(folder), remedy=_REMEDY)


def document(found: SessionSearch) -> dict[str, Any]:
    """What ``session.json`` holds: the options by ONNX Runtime's names, and how they were found."""
    machine = inspect_machine()
    with default_options(found.profile.provider_options):
        settings = deployed(found.best, found.provider)
    return {
        "version": 1,
        "model": found.model.name,
        **settings,
        "measured": {
            "on": datetime.now(UTC).date().isoformat(),
            "machine": f"{machine.cpu}, {machine.cores} cores",
            "onnxruntime": runtime_version(),
            "onnxq": __version__,
            "best_ms": found.best_ms,
            "default_ms": found.default_ms,
            "times_faster": asdict(found.faster),
            "tried": [{**_measured(entry), "taken": entry.taken} for entry in found.tried],
            "left_out": list(found.left_out),
            "lost_to_defaults": None if found.lost is None else _measured(found.lost),
        },
    }


def _measured(entry: Tried) -> dict[str, Any]:
    return {
        "settings": entry.tuning.changes(),
        "median_ms": entry.median_ms,
        "times_faster": asdict(entry.faster),
    }
