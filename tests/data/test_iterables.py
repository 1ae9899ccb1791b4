"""Python objects as data."""

from __future__ import annotations

import gc
import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.data import arrays, iterables, open_data
from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.data import Signature


def samples(count: int) -> list[dict[str, Any]]:
    return [{"x": np.full((1, 3), index, np.float32)} for index in range(count)]


def values(source: Any) -> list[float]:
    return [float(sample.feeds["x"][0, 0]) for sample in source]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_list_is_read_by_index(temporary: Path, one_input: Signature) -> None:
    source = open_data(samples(4), one_input)
    assert values(source) == values(source) == [0, 1, 2, 3]
    assert values(source.subset([3, 1])) == [3, 1]
    assert [s.name for s in source.subset([3])] == ["sample 3"]
    assert not list(temporary.iterdir())


def test_a_generator_is_spooled_and_removed(temporary: Path, one_input: Signature) -> None:
    source = open_data((sample for sample in samples(4)), one_input)
    part = source.subset([1, 3])
    assert values(source) == values(source) == [0, 1, 2, 3]
    assert len(list(temporary.iterdir())) == 1
    del source
    gc.collect()
    assert values(part) == [1, 3]
    del part
    gc.collect()
    assert not list(temporary.iterdir())


class Shuffling:
    """Like a data loader that shuffles: iterable again, in another order."""

    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return 20

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.passes += 1
        items = samples(20)
        random.Random(self.passes).shuffle(items)
        return iter(items)


def test_a_shuffling_loader_keeps_one_order(temporary: Path, one_input: Signature) -> None:
    loader = Shuffling()
    source = open_data(loader, one_input)
    first, second = source.subset(range(10)), source.subset(range(10, 20))
    assert values(first) + values(second) == values(source)
    assert sorted(values(source)) == list(range(20))
    assert loader.passes == 1
    assert temporary.exists()


def test_digest_is_of_the_arrays(one_input: Signature) -> None:
    listed = open_data(samples(3), one_input).digest()
    assert open_data(iter(samples(3)), one_input).digest() == listed
    assert open_data(tuple(samples(3)), one_input).digest() == listed
    assert open_data(samples(2), one_input).digest() != listed
    changed = samples(3)
    changed[1]["x"][0, 2] += 1
    assert open_data(changed, one_input).digest() != listed


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ([], "data.empty"),
        (iter([]), "data.empty"),
        ({"x": np.ones((1, 3), np.float32)}, "data.not_samples"),
        ([np.ones(3)], "data.not_a_mapping"),
        ([(np.ones(3), 1)], "data.not_a_mapping"),
        ([{"x": [[1.0], [1.0, 2.0]]}], "data.not_an_array"),
        ([{"x": np.array([None])}], "data.not_an_array"),
        ([{"x": np.ones((1, 3))}], "data.dtype"),
        (iter([{"x": np.ones((1, 3))}]), "data.dtype"),
        (iter([{}]), "data.missing_input"),
        (3, "data.unknown_form"),
        (None, "data.unknown_form"),
    ],
)
def test_refused(temporary: Path, one_input: Signature, data: Any, code: str) -> None:
    with pytest.raises(DataError) as caught:
        list(open_data(data, one_input))
    assert caught.value.code == code
    assert caught.value.remedy
    assert not list(temporary.iterdir())


def test_a_failing_generator_leaves_nothing(temporary: Path, one_input: Signature) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield samples(1)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_data(broken(), one_input)
    assert not list(temporary.iterdir())


def test_an_endless_generator_ends(
    temporary: Path, one_input: Signature, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless() -> Iterator[dict[str, Any]]:
        while True:
            yield samples(1)[0]

    class Usage:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(DataError, match="fill half of the free space"):
        open_data(endless(), one_input)
    assert not list(temporary.iterdir())


def test_strings_survive_spooling() -> None:
    value = {"t": np.array(["a", "bcd"], dtype=object)}
    sample = iterables.to_sample("s", value)
    assert sample.feeds["t"].dtype.kind == "U"
    with tempfile.TemporaryDirectory() as folder:
        arrays.write_npz(Path(folder) / "s.npz", sample.feeds)
        assert arrays.read_npz(Path(folder) / "s.npz")["t"].tolist() == ["a", "bcd"]


def test_a_torch_data_loader(one_input: Signature) -> None:
    torch = pytest.importorskip("torch")
    items = [{"x": torch.full((3,), float(index))} for index in range(5)]
    loader = torch.utils.data.DataLoader(items, batch_size=2)
    source = open_data(loader, one_input)
    assert [sample.rows for sample in source] == [2, 2, 1]
    assert values(source) == [0, 2, 4]
    gradient = [{"x": torch.ones((1, 3), requires_grad=True)}]
    with pytest.raises(DataError, match="detach"):
        list(open_data(gradient, one_input))


def test_a_source_passes_through(one_input: Signature, two_inputs: Signature) -> None:
    source = open_data(samples(2), one_input)
    assert values(open_data(source, one_input)) == [0, 1]
    with pytest.raises(DataError, match="'ids' is missing"):
        list(open_data(source, two_inputs))
