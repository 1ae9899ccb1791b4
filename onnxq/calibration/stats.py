"""What calibration found: small, mergeable, saved and loaded, keyed by model and data.

A file of statistics is a safetensors file: arrays as they are, everything else as JSON in its
metadata. Merging two statistics of one model adds counts and widens extrema; it is exact but for
the float64 sums of channel magnitudes and squared errors.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from onnxq.calibration.requests import HALVES
from onnxq.errors import PlanError
from onnxq.numerics.histogram import FloatHistogram

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.calibration.requests import Half
    from onnxq.numerics.moments import SplitMoments
    from onnxq.numerics.windows import Window

SCHEMA_VERSION = 2

# A damaged description has values of any type anywhere.
_DAMAGES = (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError)


@dataclass(slots=True)
class ChannelStats:
    """Per-channel statistics of one tensor along one axis, each of shape ``(C,)``."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    magnitude: NDArray[np.float64]
    rows: int

    def merge(self, other: ChannelStats) -> None:
        """Widen the extrema, add the sums of absolute values."""
        np.minimum(self.low, other.low, out=self.low)
        np.maximum(self.high, other.high, out=self.high)
        self.magnitude += other.magnitude
        self.rows += other.rows

    def copy(self) -> ChannelStats:
        """The same numbers in arrays of their own."""
        return ChannelStats(self.low.copy(), self.high.copy(), self.magnitude.copy(), self.rows)

    @property
    def mean_magnitude(self) -> NDArray[np.float64]:
        """Mean absolute value of each channel."""
        return self.magnitude / max(self.rows, 1)


@dataclass(slots=True)
class TensorStats:
    """Statistics of one tensor.

    Attributes:
        elements: How many elements were seen.
        lows: Least ordinary value of each sample (0 if there is none), in the data's order.
        highs: Greatest ordinary value of each sample.
        masked: How many elements were infinite or mask constants; they are left out of the range.
        nan: How many were NaN.
        histogram: Of every ordinary value; None if only extrema were asked for.
        channels: Per-channel statistics by axis.
        halves: The same of the first and the second half of the samples, by axis.
        moments: Gram matrices by the window through which it is read; None stands for its rows.
            They are large, and neither saved nor merged.
    """

    elements: int = 0
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    masked: int = 0
    nan: int = 0
    histogram: FloatHistogram | None = None
    channels: dict[int, ChannelStats] = field(default_factory=dict)
    halves: dict[int, dict[Half, ChannelStats]] = field(default_factory=dict)
    moments: dict[Window | None, SplitMoments] = field(default_factory=dict)

    @property
    def low(self) -> float:
        """Least ordinary value, or 0."""
        return min(self.lows, default=0.0)

    @property
    def high(self) -> float:
        """Greatest ordinary value, or 0."""
        return max(self.highs, default=0.0)

    def merge(self, other: TensorStats) -> None:
        """Add what was found in later samples."""
        self.elements += other.elements
        self.lows += other.lows
        self.highs += other.highs
        self.masked += other.masked
        self.nan += other.nan
        if self.histogram is not None and other.histogram is not None:
            self.histogram.merge(other.histogram)
        for axis, channel in other.channels.items():
            self.channels[axis] = _joined(self.channels.get(axis), channel)
        for axis, halves in other.halves.items():
            mine = self.halves.setdefault(axis, {})
            for half, channel in halves.items():
                mine[half] = _joined(mine.get(half), channel)

    def add_channels(self, axis: int, half: Half, channel: ChannelStats) -> None:
        """Add what was found in one sample, which is of this half."""
        halves = self.halves.setdefault(axis, {})
        halves[half] = _joined(halves.get(half), channel.copy())
        self.channels[axis] = _joined(self.channels.get(axis), channel)


def _joined(known: ChannelStats | None, more: ChannelStats) -> ChannelStats:
    if known is None:
        return more
    known.merge(more)
    return known


@dataclass(slots=True)
class SiteError:
    """Squared sums of one site's output, and of its error under each candidate by label."""

    signal: float = 0.0
    noise: dict[str, float] = field(default_factory=dict)

    def merge(self, other: SiteError) -> None:
        """Add the sums of other samples."""
        self.signal += other.signal
        for label, noise in other.noise.items():
            self.noise[label] = self.noise.get(label, 0.0) + noise


def _two() -> dict[Half, dict[str, SiteError]]:
    return {half: {} for half in HALVES}


@dataclass(slots=True)
class Stats:
    """Everything that was observed of one model on one set of data.

    Attributes:
        model_digest: The model.
        data_digest: The samples.
        samples: How many there were.
        tensors: Statistics of activations, by name.
        sites: Output errors of sites, by name.
        halves: Output errors of sites on one half of the samples, by half and name.
        trials: Noise over signal of whole quantized models, by the digest of their plan.
    """

    model_digest: str
    data_digest: str
    samples: int = 0
    tensors: dict[str, TensorStats] = field(default_factory=dict)
    sites: dict[str, SiteError] = field(default_factory=dict)
    halves: dict[Half, dict[str, SiteError]] = field(default_factory=_two)
    trials: dict[str, float] = field(default_factory=dict)

    def merge(self, other: Stats) -> None:
        """Add what was found on other samples of the same model.

        Raises:
            PlanError: The two belong to different models.
        """
        if other.model_digest != self.model_digest:
            code, text = "stats.other_model", "statistics of different models do not merge"
            raise PlanError(code, text, remedy="calibrate the same model file twice")
        self.samples += other.samples
        for name, tensor in other.tensors.items():
            if name in self.tensors:
                self.tensors[name].merge(tensor)
            else:
                self.tensors[name] = tensor
        for half in (None, *HALVES):
            mine = self.errors(half)
            for name, error in other.errors(half).items():
                mine.setdefault(name, SiteError()).merge(error)

    def errors(self, half: Half | None) -> dict[str, SiteError]:
        """Output errors of sites, by name: those of one half of the samples, or of any."""
        return self.sites if half is None else self.halves[half]


def save_stats(stats: Stats, path: Path) -> None:
    """Write statistics atomically."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    tensors: dict[str, Any] = {}
    for number, (name, tensor) in enumerate(stats.tensors.items()):
        tensors[name] = _describe(tensor, str(number), arrays)
    body = {
        "schema_version": SCHEMA_VERSION,
        "model_digest": stats.model_digest,
        "data_digest": stats.data_digest,
        "samples": stats.samples,
        "tensors": tensors,
        "sites": _describe_errors(stats.sites),
        "halves": [_describe_errors(stats.halves[half]) for half in HALVES],
        "trials": stats.trials,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(arrays, staged, metadata={"onnxq": json.dumps(body)})
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def load_stats(path: Path) -> Stats:
    """Read statistics.

    Raises:
        PlanError: The file is missing, damaged, or of another version.
    """
    remedy = "calibrate again"
    try:
        with safe_open(path, framework="numpy") as file:
            body = json.loads((file.metadata() or {})["onnxq"])
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if body["schema_version"] != SCHEMA_VERSION:
            code, text = "stats.version", f"statistics of version {body['schema_version']}"
            raise PlanError(code, text, where=str(path), remedy=remedy)
        return Stats(
            model_digest=body["model_digest"],
            data_digest=body["data_digest"],
            samples=body["samples"],
            tensors={name: _restore(entry, arrays) for name, entry in body["tensors"].items()},
            sites=_restore_errors(body["sites"]),
            halves={half: _restore_errors(body["halves"][half]) for half in HALVES},
            trials=body["trials"],
        )
    except _DAMAGES as error:
        code, text = "stats.unreadable", "the statistics file is missing or damaged"
        raise PlanError(code, text, where=str(path), remedy=remedy) from error


def _describe(tensor: TensorStats, key: str, arrays: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "key": key,
        "elements": tensor.elements,
        "masked": tensor.masked,
        "nan": tensor.nan,
        "channels": {},
        "halves": {},
    }
    arrays[f"{key}/lows"] = np.asarray(tensor.lows, np.float64)
    arrays[f"{key}/highs"] = np.asarray(tensor.highs, np.float64)
    histogram = tensor.histogram
    if histogram is not None:
        ends = [histogram.minimum, histogram.maximum]
        entry["histogram"] = {"pages": histogram.pages, "ends": ends}
        arrays[f"{key}/counts"] = histogram.counts
    for axis, channel in tensor.channels.items():
        entry["channels"][str(axis)] = channel.rows
        _put(arrays, f"{key}/channel/{axis}", channel)
    for axis, halves in tensor.halves.items():
        entry["halves"][str(axis)] = {str(half): found.rows for half, found in halves.items()}
        for half, found in halves.items():
            _put(arrays, f"{key}/channel/{axis}/half/{half}", found)
    return entry


def _put(arrays: dict[str, Any], key: str, channel: ChannelStats) -> None:
    arrays[f"{key}/low"] = channel.low
    arrays[f"{key}/high"] = channel.high
    arrays[f"{key}/magnitude"] = channel.magnitude


def _take(arrays: dict[str, Any], key: str, rows: Any) -> ChannelStats:
    low, high = arrays[f"{key}/low"], arrays[f"{key}/high"]
    return ChannelStats(low, high, arrays[f"{key}/magnitude"], int(rows))


def _describe_errors(errors: dict[str, SiteError]) -> dict[str, Any]:
    return {name: {"signal": e.signal, "noise": e.noise} for name, e in errors.items()}


def _restore_errors(errors: dict[str, Any]) -> dict[str, SiteError]:
    return {name: SiteError(e["signal"], e["noise"]) for name, e in errors.items()}


def _restore(entry: dict[str, Any], arrays: dict[str, Any]) -> TensorStats:
    key = entry["key"]
    lows, highs = arrays[f"{key}/lows"].tolist(), arrays[f"{key}/highs"].tolist()
    counts = (int(entry["elements"]), lows, highs, int(entry["masked"]), int(entry["nan"]))
    tensor = TensorStats(*counts)
    if "histogram" in entry:
        tensor.histogram = FloatHistogram(
            entry["histogram"]["pages"],
            arrays[f"{key}/counts"],
            minimum=float(entry["histogram"]["ends"][0]),
            maximum=float(entry["histogram"]["ends"][1]),
        )
    for axis, rows in entry["channels"].items():
        tensor.channels[int(axis)] = _take(arrays, f"{key}/channel/{axis}", rows)
    for axis, halves in entry["halves"].items():
        tensor.halves[int(axis)] = {
            half: _take(arrays, f"{key}/channel/{axis}/half/{half}", halves[str(half)])
            for half in HALVES
            if str(half) in halves
        }
    return tensor
