"""The calibration table, against the peer's writer and reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.CalTableFlatBuffers.TrtTable import TrtTable
from onnxruntime.quantization.quant_utils import write_calibration_table

from onnxq.calibration.table import table_bytes

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)
MAGNITUDES = {
    name: float(np.float32(value))
    for name, value in zip(
        ("x", "/layer.0/Relu_output_0", "with a space", "ünï", "a:0"),
        [*RANDOM.uniform(1e-6, 1e4, 4), 1.0],
        strict=True,
    )
}


def read(content: bytes) -> dict[str, str]:
    table: Any = TrtTable.GetRootAs(content, 0)
    entries = [table.Dict(index) for index in range(table.DictLength())]
    return {entry.Key().decode(): entry.Value().decode() for entry in entries}


def test_the_peer_reads_what_it_writes_itself(tmp_path: Path) -> None:
    cache = {
        name: TensorData(lowest=np.float32(-value), highest=np.float32(value))
        for name, value in MAGNITUDES.items()
    }
    write_calibration_table(cache, str(tmp_path))
    theirs, ours = (tmp_path / "calibration.flatbuffers").read_bytes(), table_bytes(MAGNITUDES)
    assert read(ours) == read(theirs)
    assert ours == theirs
    assert {name: float(text) for name, text in read(ours).items()} == MAGNITUDES


def test_no_value_that_the_provider_cannot_read() -> None:
    tiny = float(np.finfo(np.float32).tiny)
    assert float(read(table_bytes({"x": 1e-42, "y": 0.0}))["x"]) == tiny


def test_many_tensors_and_none() -> None:
    many = {f"t{index}": float(index + 1) for index in range(3000)}
    assert {name: float(text) for name, text in read(table_bytes(many)).items()} == many
    assert read(table_bytes({})) == {}
