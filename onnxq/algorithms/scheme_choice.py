"""Which of several measured results to take: accurate enough, not slower than float, then the best.

``auto`` wants speed: of the results that are accurate and not slower than float the fastest, and
among those that are nearly as fast the most accurate; where there is none the model stays float.
``int8-weights`` wants small weights: of the forms that are accurate and not slower than float one
that leaves them small in memory too where there is one, the most accurate; else the fastest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

AS_FAST = 0.97
"""From this ratio on, a model counts as at least as fast."""

AS_LARGE = 0.02
"""Sizes that differ by this part count as equal."""

LOW_SQNR = 10.0
"""Below this many decibels a result counts as inaccurate: noise above a tenth of the signal."""

_NEARLY = 0.95
_AS_SMALL = 1.25
"""Up to this many times the smallest file, a form stores the same weights as integers."""

_AGREES = 0.99

_NEAR_FASTEST = 0.9
"""Among results as fast as this beside the fastest the most accurate is taken."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One result as it was measured.

    Attributes:
        name: What it is called: the scheme, with its form where there are several.
        scheme: The scheme.
        sqnr_db: SQNR on calibration samples, decibels; None where it was not measured.
        agreement: Share of rows with the float model's top class; None without classes.
        ratio: How many times faster than float it is; None where it was not timed.
        bytes: Size of its file.
        failed: Why its model does not load or run; the rest is not measured then.
        folded: Whether its weights are float once the model is loaded.
    """

    name: str
    scheme: str
    sqnr_db: float | None
    agreement: float | None
    ratio: float | None
    bytes: int
    failed: str = ""
    folded: bool = False

    def accurate(self, bound: float | None) -> bool:
        """Whether it reaches ``bound``, or without one what anybody would want."""
        if self.failed:
            return False
        if self.sqnr_db is None:
            return True
        if bound is not None:
            return self.sqnr_db >= bound
        return self.sqnr_db >= LOW_SQNR or (self.agreement or 0.0) >= _AGREES

    @property
    def as_fast(self) -> bool:
        """Whether it is not slower than float, as far as that was measured."""
        return self.ratio is None or self.ratio >= AS_FAST

    @property
    def text(self) -> str:
        """``int8-dynamic (19.8 dB, 2.10 times float's speed)``."""
        if self.failed:
            return f"{self.name} (failed: {self.failed})"
        parts = [] if self.sqnr_db is None else [f"{self.sqnr_db:.1f} dB"]
        parts += [] if self.ratio is None else [f"{self.ratio:.2f} times float's speed"]
        return f"{self.name} ({', '.join(parts)})" if parts else self.name


def choose_scheme(trials: Sequence[Trial], bound: float | None) -> tuple[Trial | None, str]:
    """The result that ``auto`` takes, and why in a sentence; None if the model stays float.

    Args:
        trials: What was measured, the plainest first.
        bound: Least SQNR in decibels that the user asks for.
    """
    accurate = [trial for trial in trials if trial.accurate(bound)]
    usable = [trial for trial in accurate if trial.as_fast]
    if not accurate and bound is not None:
        best = max(trials, key=_accuracy)
        return best, f"none reaches {bound:g} dB, the most accurate is {best.text}"
    if not usable:
        what = "none is as fast as float" if accurate else "none is accurate enough"
        return None, f"{what}: {', '.join(trial.text for trial in trials)}"
    fastest = max(_speed(trial) for trial in usable)
    close = [trial for trial in usable if _speed(trial) >= _NEARLY * fastest]
    best = max(close, key=_accuracy)
    others = [trial.text for trial in trials if trial is not best]
    beside = f"; beside it {', '.join(others)}" if others else ""
    return best, f"measured best: {best.text}{beside}"


def choose_form(trials: Sequence[Trial], bound: float | None) -> Trial:
    """The form that ``int8-weights`` takes.

    Args:
        trials: What was measured, the fastest form first.
        bound: Least SQNR in decibels that the user asks for.
    """
    works = [trial for trial in trials if not trial.failed]
    accurate = [trial for trial in works if bound is None or trial.accurate(bound)]
    usable = [trial for trial in accurate if trial.as_fast]
    if usable:
        least = min(trial.bytes for trial in usable)
        small = [trial for trial in usable if trial.bytes <= _AS_SMALL * least]
        return max([t for t in small if not t.folded] or small, key=_accuracy)
    return max(accurate or trials, key=_speed if accurate else _accuracy)


def choose_blocks(trials: Sequence[Trial], bound: float | None) -> Trial:
    """The block size and accuracy level of weights of few bits: fast, then accurate.

    Args:
        trials: What was measured with weights rounded to the nearest.
        bound: Least SQNR in decibels that the user asks for; a level that rounds activations too is
            left for one that does not where it costs the bound.
    """
    works = [trial for trial in trials if not trial.failed] or list(trials)
    accurate = [trial for trial in works if bound is not None and trial.accurate(bound)] or works
    fastest = max(_speed(trial) for trial in accurate)
    return max((t for t in accurate if _speed(t) >= _NEAR_FASTEST * fastest), key=_accuracy)


def left_out(trials: Sequence[Trial]) -> tuple[str, ...]:
    """A warning for each result that was no candidate, because its model does not work."""
    return tuple(f"{t.name} was left out: {t.failed}" for t in trials if t.failed)


def _speed(trial: Trial) -> float:
    if trial.failed:
        return 0.0
    return 1.0 if trial.ratio is None else trial.ratio


def _accuracy(trial: Trial) -> float:
    if trial.failed:
        return float("-inf")
    return 0.0 if trial.sqnr_db is None else trial.sqnr_db
