"""Keeping samples away from calibration, and taking fewer of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxq.errors import DataError

if TYPE_CHECKING:
    from onnxq.data.sample import Sample
    from onnxq.data.source import DataSource


@dataclass(frozen=True, slots=True)
class Split:
    """Data in two parts.

    Attributes:
        calibration: What calibration sees.
        evaluation: What the comparison uses.
        independent: Whether the two have no sample in common; False for a single sample.
    """

    calibration: DataSource
    evaluation: DataSource
    independent: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of both parts; each sentence once."""
        return tuple(dict.fromkeys((*self.calibration.notes, *self.evaluation.notes)))


def held_out(source: DataSource, *, fraction: float = 0.2, seed: int = 0) -> Split:
    """Keep a seeded part of the samples, at least one, for evaluation.

    Args:
        source: The data, in its order, which both parts keep.
        fraction: The share to keep, more than 0 and less than 1.
        seed: Seeds the permutation that chooses.

    Returns:
        The parts; of a single sample, twice that sample and ``independent`` False.

    Raises:
        DataError: There is no sample, or the fraction is out of range.
    """
    count = _count(source)
    if not 0.0 < fraction < 1.0:
        code, text = "data.fraction", f"cannot hold out a fraction of {fraction}"
        raise DataError(code, text, remedy="Give a number between 0 and 1, like 0.2.")
    if count == 1:
        return Split(source, source, independent=False)
    kept = min(max(1, round(count * fraction)), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    evaluation, calibration = np.sort(order[:kept]), np.sort(order[kept:])
    return Split(
        calibration=source.subset(calibration.tolist()),
        evaluation=source.subset(evaluation.tolist()),
        independent=True,
    )


def limit(source: DataSource, samples: int | None, *, seed: int = 0) -> DataSource:
    """A seeded choice of at most ``samples`` samples, in their order; all of them for None.

    Raises:
        DataError: There is no sample, or fewer than one is asked for.
    """
    count = _count(source)
    if samples is None:
        return source
    if samples < 1:
        code, text = "data.samples", f"cannot take {samples} samples"
        raise DataError(code, text, remedy="Ask for at least one.")
    if samples >= count:
        return source
    chosen = np.random.default_rng(seed).choice(count, size=samples, replace=False)
    return source.subset(np.sort(chosen).tolist())


def shared_samples(calibration: DataSource, evaluation: DataSource) -> int:
    """How many evaluation samples have the same contents as one that calibration sees.

    Goes through both once; a digest of 16 bytes is held for each calibration sample.
    """
    seen = {_fingerprint(sample) for sample in calibration}
    return sum(_fingerprint(sample) in seen for sample in evaluation)


def _fingerprint(sample: Sample) -> bytes:
    hasher = hashlib.blake2b(digest_size=16)
    for name, array in sorted(sample.feeds.items()):
        hasher.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        hasher.update(
            repr(array.tolist()).encode()
            if array.dtype == np.object_
            else np.ascontiguousarray(array).data
        )
    return hasher.digest()


def _count(source: DataSource) -> int:
    count = len(source)
    if count == 0:
        code, text = "data.empty", "there is no sample"
        raise DataError(code, text, where=source.name, remedy="Give at least one sample.")
    return count
