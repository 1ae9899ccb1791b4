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

from onnxq.errors import PlanError
from onnxq.numerics.histogram import FloatHistogram

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.numerics.moments import SplitMoments
    from onnxq.numerics.windows import Window

SCHEMA_VERSION = 1

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
            if axis in self.channels:
                self.channels[axis].merge(channel)
            else:
                self.channels[axis] = channel


@dataclass(slots=True)
class SiteError:
    """Squared sums of one site's output, and of its error under each candidate by label."""

    signal: float = 0.0
    noise: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Stats:
    """Everything that was observed of one model on one set of data.

    Attributes:
        model_digest: The model.
        data_digest: The samples.
        samples: How many there were.
        tensors: Statistics of activations, by name.
        sites: Output errors of sites, by name.
        trials: Noise over signal of whole quantized models, by the digest of their plan.
    """

    model_digest: str
    data_digest: str
    samples: int = 0
    tensors: dict[str, TensorStats] = field(default_factory=dict)
    sites: dict[str, SiteError] = field(default_factory=dict)
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
        for name, error in other.sites.items():
            mine = self.sites.setdefault(name, SiteError())
            mine.signal += error.signal
            for label, noise in error.noise.items():
                mine.noise[label] = mine.noise.get(label, 0.0) + noise


def save_stats(stats: Stats, path: Path) -> None:
    """Write statistics atomically."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    tensors: dict[str, Any] = {}
    for number, (name, tensor) in enumerate(stats.tensors.items()):
        tensors[name] = _describe(tensor, str(number), arrays)
    sites = {n: {"signal": s.signal, "noise": s.noise} for n, s in stats.sites.items()}
    body = {
        "schema_version": SCHEMA_VERSION,
        "model_digest": stats.model_digest,
        "data_digest": stats.data_digest,
        "samples": stats.samples,
        "tensors": tensors,
        "sites": sites,
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
            sites={n: SiteError(e["signal"], e["noise"]) for n, e in body["sites"].items()},
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
        arrays[f"{key}/channel/{axis}/low"] = channel.low
        arrays[f"{key}/channel/{axis}/high"] = channel.high
        arrays[f"{key}/channel/{axis}/magnitude"] = channel.magnitude
    return entry


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
        prefix = f"{key}/channel/{axis}"
        tensor.channels[int(axis)] = ChannelStats(
            arrays[f"{prefix}/low"], arrays[f"{prefix}/high"], arrays[f"{prefix}/magnitude"], rows
        )
    return tensor
