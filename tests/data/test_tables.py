"""Parquet tables."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from onnxq.data import Reading, open_data
from onnxq.data.tables import ParquetRows
from onnxq.errors import DataError
from onnxq.graph.structure import InputSpec

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.data import Signature

INT, FLOAT = np.dtype(np.int64), np.dtype(np.float32)
SIGNATURE: Signature = (
    InputSpec("x", FLOAT, ("n", 1, 2, 3), required=True),
    InputSpec("k", INT, ("n", 1), required=True),
)


def table(path: Path, group: int = 4, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def refused(data: Any, signature: Signature) -> DataError:
    with pytest.raises(DataError) as caught:
        list(open_data(data, signature))
    assert len(str(caught.value).splitlines()) == 2
    return caught.value


def numbers(count: int) -> dict[str, Any]:
    values = np.arange(count * 6, dtype=np.float64).reshape(count, 6)
    return {"x": list(values), "k": list(range(count)), "label": ["a"] * count}


def test_rows_come_group_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path / "t.parquet", **numbers(10))
    read: list[int] = []
    inner = ParquetRows._table

    def counted(self: ParquetRows, group: int) -> Any:
        read.append(group)
        return inner(self, group)

    monkeypatch.setattr(ParquetRows, "_table", counted)
    source = open_data(path, SIGNATURE)
    assert len(source) == 10
    assert read == []
    samples = list(source)
    assert read == [0, 1, 2]
    for index, sample in enumerate(samples):
        want = np.arange(index * 6, index * 6 + 6).reshape(1, 1, 2, 3)
        np.testing.assert_array_equal(sample.feeds["x"], want)
        assert sample.feeds["k"].tolist() == [[index]]
    assert samples[9].name == "t.parquet, row 10"
    assert [int(s.feeds["k"][0, 0]) for s in source.subset([9, 0, 5])] == [9, 0, 5]
    assert source.notes == (f"{path}: columns left out, the model has no such input: 'label'",)


def test_narrow_integers_and_nested_lists(tmp_path: Path) -> None:
    x = pa.array([[[[1, 2, 3], [4, 5, 6]]]], pa.list_(pa.list_(pa.list_(pa.float32()))))
    path = table(tmp_path / "t.parquet", x=x, k=pa.array([7], pa.int8()))
    (sample,) = open_data(path, SIGNATURE)
    assert sample.feeds["x"].shape == (1, 1, 2, 3)
    assert sample.feeds["k"].dtype == np.int64


def test_texts(tmp_path: Path, tokenizer_file: Path, encoder: Signature) -> None:
    path = table(tmp_path / "t.parquet", text=["a small", "text"], id=[1, 2])
    source = open_data(Reading(path, tokenizer=tokenizer_file), encoder)
    found = [sample.feeds["input_ids"].tolist() for sample in source]
    assert found == [[[2, 4, 5, 3]], [[2, 6, 3]]]
    assert refused(path, encoder).code == "data.no_tokenizer"


@pytest.mark.parametrize("wrapped", [False, True])
def test_images(tmp_path: Path, wrapped: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    cell: Any = {"bytes": stream.getvalue(), "path": "a.png"} if wrapped else stream.getvalue()
    path = table(tmp_path / "t.parquet", image=[cell], label=[1])
    steps = tmp_path / "p.toml"
    steps.write_text("version = 1\n[image]\nscale = 1\nmean = 0\nstd = 1\n")
    for name in ("image", "pixel_values"):
        signature = (InputSpec(name, FLOAT, (None, 3, None, None), required=True),)
        (sample,) = open_data(Reading(path, preprocess=steps), signature)
        np.testing.assert_array_equal(sample.feeds[name][0].transpose(1, 2, 0), pixels)
    assert refused(path, signature).code == "data.no_preprocess"


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"x": [[1, 2, 3, 4, 5, 6]], "k": [1]}, "data.dtype"),
        ({"x": [[1.0, 2.0]], "k": [1]}, "data.rank"),
        ({"x": [None], "k": [1]}, "data.not_an_array"),
        ({"x": [[1.0] * 6], "k": [1.5]}, "data.dtype"),
        ({"x": [[1.0, 2, 3, 4, 5, float("nan")]], "k": [1]}, "data.not_finite"),
        ({"k": [1]}, "data.missing_input"),
        ({"x": pa.array([], pa.list_(pa.float32())), "k": pa.array([], pa.int64())}, "data.empty"),
    ],
)
def test_refused(tmp_path: Path, columns: dict[str, Any], code: str) -> None:
    assert refused(table(tmp_path / "t.parquet", **columns), SIGNATURE).code == code


def test_digest(tmp_path: Path) -> None:
    one = open_data(table(tmp_path / "t.parquet", **numbers(4)), SIGNATURE).digest()
    assert open_data(table(tmp_path / "t.parquet", **numbers(4)), SIGNATURE).digest() == one
    assert open_data(table(tmp_path / "t.parquet", **numbers(5)), SIGNATURE).digest() != one


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path / "t.parquet", **numbers(1))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "onnxq[tables]" in refused(path, SIGNATURE).remedy
