"""What the peer, onnxruntime.quantization, does: each function runs in a process of its own.

Only onnxruntime and numpy are imported, and only where they are used.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}

_WARMUP = 10
_FLOAT_PASSES = 3


@dataclass(frozen=True)
class Variant:
    """One setting of the peer.

    Attributes:
        name: What the tables call it.
        method: ``dynamic``, or the calibration method of static QDQ.
        preprocess: Whether the peer's ``quant_pre_process`` runs first; its time counts.
        op_types: The operators to quantize; all that the peer knows where empty.
        weights_only: Leave products of two activations in float.
        float_outputs: Quantize what the operators read and not what they write.
        symmetric: Whether percentile ranges are made symmetric, as is the peer's default.
        at_a_time: Samples to collect at a time; 0 for all at once, the peer's default.
    """

    name: str
    method: Literal["dynamic", "minmax", "percentile", "entropy"]
    preprocess: bool = False
    op_types: tuple[str, ...] = ()
    weights_only: bool = False
    float_outputs: bool = False
    symmetric: bool = True
    at_a_time: int = 0


class Reader:
    """A calibration data reader over a folder of ``.npz``; nothing is kept.

    Its length and ``set_range`` let the peer collect a few samples at a time.
    """

    def __init__(self, folder: str) -> None:
        """Take all samples of ``folder``, in the order of their names."""
        self._paths = sorted(Path(folder).glob("*.npz"))
        self._feeds = _feeds(self._paths)

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._paths)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with the samples from ``start_index`` up to ``end_index``."""
        self._feeds = _feeds(self._paths[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next sample, or None."""
        return next(self._feeds, None)


def _feeds(paths: list[Path]) -> Iterator[dict[str, NDArray[Any]]]:
    for path in paths:
        with np.load(path) as arrays:
            yield dict(arrays)


def quantize(model: str, output: str, data: str, variant: dict[str, Any]) -> dict[str, Any]:
    """Quantize with the peer: uint8 activations, int8 weights per channel.

    Args:
        model: The float model.
        output: The file to write.
        data: The folder of calibration samples.
        variant: The fields of a :class:`Variant`.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    wanted = Variant(**variant)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if wanted.preprocess:
            prepared = str(Path(folder) / "prepared.onnx")
            quant_pre_process(model, prepared)
            model = prepared
        if wanted.method == "dynamic":
            quantize_dynamic(
                model,
                output,
                op_types_to_quantize=list(wanted.op_types),
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
        else:
            _quantize_static(model, output, data, wanted)
    return {"seconds": time.perf_counter() - begin}


def quantize_by_default(model: str, output: str, data: str) -> dict[str, Any]:
    """Quantize with the peer's ``quantize_static``, per channel, all else its default."""
    from onnxruntime.quantization import quantize_static

    quantize_static(model, output, Reader(data), per_channel=True)
    return {}


def _quantize_static(model: str, output: str, data: str, wanted: Variant) -> None:
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    options: dict[str, Any] = {}
    if wanted.method == "percentile":
        options["CalibTensorRangeSymmetric"] = wanted.symmetric
    if wanted.at_a_time:
        options["CalibStridedMinMax"] = wanted.at_a_time
    if wanted.float_outputs:
        options["OpTypesToExcludeOutputQuantization"] = list(wanted.op_types)
    quantize_static(
        model,
        output,
        Reader(data),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(wanted.op_types),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_two_activations(model) if wanted.weights_only else [],
        calibrate_method=getattr(CalibrationMethod, _METHODS[wanted.method]),
        extra_options=options,
    )


def _two_activations(model: str) -> list[str]:
    """The MatMuls without a constant factor. (``MatMulConstBOnly`` is ignored for QDQ.)"""
    import onnx

    graph = onnx.load(model).graph
    constants = {tensor.name for tensor in graph.initializer}
    matmuls = [node for node in graph.node if node.op_type == "MatMul"]
    return [node.name for node in matmuls if not constants & set(node.input)]


def calibrate(model: str, data: str, at_a_time: int) -> dict[str, Any]:
    """Run the peer's Percentile calibrator alone, with its defaults.

    Args:
        model: The float model.
        data: The folder of calibration samples.
        at_a_time: Samples to collect at a time; 0 for all, the peer's own default.
    """
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            Path(model),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.Percentile,
        )
        reader = Reader(data)
        step = at_a_time or len(reader)
        for start in range(0, len(reader), step):
            reader.set_range(start, start + step)
            calibrator.collect_data(reader)
        tensors = len(calibrator.compute_data().data)
    return {"seconds": time.perf_counter() - begin, "tensors": tensors}


def run_float(model: str, data: str, threads: int) -> dict[str, Any]:
    """Run the float model over the samples: plain onnxruntime, its defaults but the threads.

    Loading the model and ten runs to warm up are not counted; the samples are read before, so that
    nothing stands between the runs. ``seconds`` is the median of several passes.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    samples = list(_feeds(sorted(Path(data).glob("*.npz"))))
    for feeds in islice(cycle(samples), _WARMUP):
        session.run(None, feeds)
    passes = []
    for _ in range(_FLOAT_PASSES):
        begin = time.perf_counter()
        for feeds in samples:
            session.run(None, feeds)
        passes.append(time.perf_counter() - begin)
    return {"seconds": float(np.median(passes)), "samples": len(samples)}
