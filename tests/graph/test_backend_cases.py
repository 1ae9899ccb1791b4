"""ONNX's own operator tests, normalized: whatever the model computes, it still computes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxq.graph import io
from onnxq.graph.normalize import normalize
from onnxq.graph.sites import find_sites, protected_values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TELLING = ("if", "loop", "scan", "sequence", "optional", "batchnorm", "gemm", "layer_norm")


def _session(model: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _cases() -> Sequence[Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in collect_testcases(None) if case.model is not None]


def _agree(wanted: object, got: object) -> bool:
    if isinstance(wanted, list) and isinstance(got, list):
        return len(wanted) == len(got) and all(map(_agree, wanted, got))
    if not isinstance(wanted, np.ndarray) or not isinstance(got, np.ndarray):
        return wanted == got
    if wanted.dtype.kind not in "fV":
        return np.array_equal(wanted, got)
    tolerance = 1e-3 if wanted.dtype.itemsize <= 2 else 1e-6
    first, second = wanted.astype(np.float64), got.astype(np.float64)
    return np.allclose(first, second, rtol=tolerance, atol=tolerance, equal_nan=True)


def _compare(case: Any, path: Path) -> bool:
    """Whether ONNX Runtime could run the model, in which case both gave the same."""
    onnx.save(case.model, path)
    model = io.load(path)
    result = normalize(model).model
    find_sites(result)
    protected_values(result)
    try:
        original = _session(path)
        names = [value.name for value in original.get_inputs()]
        feeds = dict(zip(names, case.data_sets[0][0], strict=False))
        wanted = original.run(None, feeds)
    except Exception:  # an operator that this runtime lacks, or a type it does not take
        return False
    got = _session(io.to_bytes(result)).run(None, feeds)
    assert _agree(wanted, got), case.name
    return True


def test_control_flow_and_normalization_cases(tmp_path: Path) -> None:
    cases = [case for case in _cases() if any(word in case.name for word in _TELLING)]
    done = sum(_compare(case, tmp_path / "m.onnx") for case in cases)
    assert done > 80


@pytest.mark.slow
def test_all_cases(tmp_path: Path) -> None:
    done = sum(_compare(case, tmp_path / "m.onnx") for case in _cases())
    assert done > 1400
