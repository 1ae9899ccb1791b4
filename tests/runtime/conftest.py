from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import parser

if TYPE_CHECKING:
    from pathlib import Path

LINEAR = """
    <ir_version: 9, opset_import: ["" : 17]>
    linear (float[N, 4] x) => (float[N, 2] y)
    <float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}>
    { y = MatMul(x, w) }
"""


@pytest.fixture
def linear() -> bytes:
    """A MatMul by a constant."""
    model: bytes = parser.parse_model(LINEAR).SerializeToString()
    return model


@pytest.fixture
def linear_path(tmp_path: Path, linear: bytes) -> Path:
    path = tmp_path / "linear.onnx"
    onnx.save(onnx.load_from_string(linear), path)
    return path
