"""Python objects that are not plain iterables: loaders, data sets, ONNX Runtime's readers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader
from PIL import Image

from onnxq.data import Reading, open_data
from onnxq.errors import DataError
from onnxq.graph.structure import InputSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnxq.data import DataSource, Signature

FLOAT, INT = np.dtype(np.float32), np.dtype(np.int64)
PAIR: Signature = tuple(InputSpec(name, FLOAT, ("n", 3), required=True) for name in "ab")


def firsts(source: DataSource, name: str = "x") -> list[float]:
    return [float(sample.feeds[name].flat[0]) for sample in source]


def loader(items: list[Any], batch: int = 2) -> Any:
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(items, batch_size=batch)


def tensor(value: float) -> Any:
    return pytest.importorskip("torch").full((3,), float(value))


def test_a_loader_of_tensors_and_labels(one_input: Signature) -> None:
    source = open_data(loader([(tensor(n), n) for n in range(5)]), one_input)
    assert [sample.rows for sample in source] == [2, 2, 1]
    assert firsts(source) == firsts(source) == [0, 2, 4]
    assert source.notes == (
        "the second element of each batch (labels) is left out: the model has one input",
    )


def test_a_loader_of_bare_tensors(one_input: Signature) -> None:
    source = open_data(loader([tensor(n) for n in range(4)]), one_input)
    assert firsts(source) == [0, 2]
    assert source.notes == ()


def test_a_loader_of_tuples_in_the_order_of_the_inputs() -> None:
    source = open_data(loader([(tensor(n), tensor(-n)) for n in range(3)], batch=1), PAIR)
    assert firsts(source, "a") == [0, 1, 2]
    assert firsts(source, "b") == [0, -1, -2]
    assert source.notes == ()


def test_a_loader_of_dicts_by_name() -> None:
    items = [{"b": tensor(n), "labels": n, "a": tensor(2 * n)} for n in range(4)]
    source = open_data(loader(items), PAIR)
    assert firsts(source, "a") == [0, 4]
    assert source.notes == ("'labels' of each batch left out: the model has no such input",)


def test_a_loader_that_does_not_fit(one_input: Signature) -> None:
    three = loader([(tensor(0), tensor(1), 2)])
    for signature in (PAIR, one_input):
        with pytest.raises(DataError, match="a batch of 3 elements") as caught:
            open_data(three, signature)
        assert caught.value.code == "data.batch"
        assert caught.value.where == "sample 0"


class FakeDataset:
    """What ``datasets.Dataset`` offers: rows by index, and the names of the columns."""

    features: object = None

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.column_names = list(rows[0])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


class FakeStream(FakeDataset):
    """One that streams has no length."""

    __len__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


@pytest.mark.parametrize("kind", [FakeDataset, FakeStream])
def test_a_data_set_of_arrays(kind: type[FakeDataset], encoder: Signature) -> None:
    rows = [{"input_ids": [1, n], "label": 0, "idx": n} for n in range(3)]
    source = open_data(kind(rows), encoder)
    assert [sample.feeds["input_ids"].tolist() for sample in source] == [[[1, n]] for n in range(3)]
    assert source.notes == (
        "columns 'label', 'idx' left out: the model has no such input",
        "attention_mask is not in the data: filled with ones",
        "token_type_ids is not in the data: filled with zeros",
    )


class Counting(FakeDataset):
    """Remembers which rows were asked for."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__(rows)
        self.read: list[int] = []

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.read.append(index)
        return super().__getitem__(index)


def test_rows_of_a_data_set_are_read_when_they_are_reached(encoder: Signature) -> None:
    rows = Counting([{"input_ids": [1, n]} for n in range(5)])
    stream = iter(open_data(rows, encoder).subset([3, 1]))
    before = len(rows.read)
    assert before <= 1
    next(stream)
    assert rows.read[before:] == [3]


def test_a_data_set_of_texts(tokenizer_file: Path, encoder: Signature) -> None:
    rows = FakeDataset([{"text": "a small"}, {"text": "text"}])
    source = open_data(Reading(rows, tokenizer=tokenizer_file), encoder)
    found = [sample.feeds["input_ids"].tolist() for sample in source]
    assert found == [[[2, 4, 5, 3]], [[2, 6, 3]]]
    assert len(source.digest()) == len("sha256:") + 64


def test_a_data_set_of_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    rows = FakeDataset([{"image": Image.fromarray(pixels), "label": 3}])
    steps = tmp_path / "p.toml"
    steps.write_text("version = 1\n[image]\nscale = 1\nmean = 0\nstd = 1\n")
    signature = (InputSpec("pixel_values", FLOAT, (None, 3, None, None), required=True),)
    (sample,) = open_data(Reading(rows, preprocess=steps), signature)
    np.testing.assert_array_equal(sample.feeds["pixel_values"][0].transpose(1, 2, 0), pixels)


def test_the_datasets_package(encoder: Signature) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"input_ids": [[1, 2], [3, 4, 5]], "label": [0, 1]})
    for data in (rows, rows.with_format("numpy"), rows.to_iterable_dataset()):
        source = open_data(data, encoder)
        found = [sample.feeds["input_ids"].tolist() for sample in source]
        assert found == [[[1, 2]], [[3, 4, 5]]]
        assert any("'label'" in note for note in source.notes)


class OrtReader(CalibrationDataReader):  # type: ignore[misc]
    """As ONNX Runtime's examples write it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.rewind()

    def get_next(self) -> dict[str, Any] | None:
        return next(self._rest, None)

    def rewind(self) -> None:
        self._rest = iter([{"x": np.full((1, 3), n, np.float32)} for n in range(self.count)])


def test_a_calibration_data_reader(one_input: Signature) -> None:
    reader = OrtReader(4)
    reader.get_next()
    source = open_data(reader, one_input)
    assert firsts(source) == firsts(source) == [0, 1, 2, 3]
    first = reader.get_next()
    assert first is not None
    assert first["x"][0, 0] == 0
    with pytest.raises(DataError, match="no sample"):
        open_data(OrtReader(0), one_input)


class OnlyGetNext:
    """A reader of no class at all, which cannot begin again."""

    def __init__(self) -> None:
        self.left = 2

    def get_next(self) -> dict[str, Any] | None:
        self.left -= 1
        return {"x": np.full((1, 3), self.left, np.float32)} if self.left >= 0 else None


def test_a_reader_without_rewind(one_input: Signature) -> None:
    assert firsts(open_data(OnlyGetNext(), one_input)) == [1, 0]
