"""Folders and files of arrays, sound and unsound."""

from __future__ import annotations

import io
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.data import arrays, open_data
from onnxq.errors import DataError
from tests.cost import bounded

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.data import Signature


def row(value: float) -> NDArray[np.float32]:
    return np.full((1, 3), value, np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "calib"
    path.mkdir()
    for index in (2, 0, 1):
        np.savez(path / f"{index}.npz", x=row(index))
    return path


def refused(path: Path | str, signature: Signature) -> DataError:
    with pytest.raises(DataError) as caught:
        list(open_data(path, signature))
    assert caught.value.exit_status == 2
    assert len(str(caught.value).splitlines()) <= 2
    return caught.value


def test_folder_streams_in_order_again_and_again(folder: Path, one_input: Signature) -> None:
    source = open_data(str(folder), one_input)
    assert len(source) == 3
    assert source.name == str(folder)
    for _ in range(2):
        assert [float(s.feeds["x"][0, 0]) for s in source] == [0, 1, 2]
    assert [s.name for s in source] == ["calib/0.npz", "calib/1.npz", "calib/2.npz"]
    chosen = source.subset([2, 0]).subset([0])
    assert [s.name for s in chosen] == ["calib/2.npz"]
    assert list(chosen.positions) == [2]


def test_samples_are_read_when_they_are_reached(folder: Path, one_input: Signature) -> None:
    (folder / "1.npz").write_bytes(b"broken")
    stream = iter(open_data(folder, one_input))
    assert next(stream).name == "calib/0.npz"
    with pytest.raises(DataError, match=r"1\.npz: the file cannot be read"):
        next(stream)


def test_rows_of_an_npy_are_mapped_and_not_loaded(tmp_path: Path, one_input: Signature) -> None:
    """The file is a hole of 3 GiB, of which two rows are looked at."""
    path = tmp_path / "x.npy"
    with path.open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 28, 3)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + (3 << 30))
    with bounded():
        source = open_data(path, one_input)
        assert [sample.rows for sample in source.subset([(1 << 28) - 1, 0])] == [1, 1]


def test_usual_files_may_lie_beside(folder: Path, one_input: Signature) -> None:
    for name in ("README.md", "LICENSE", "meta.json", "labels.npy", ".DS_Store", ".hidden.npz"):
        (folder / name).write_text("x", encoding="utf-8")
    assert len(open_data(folder, one_input)) == 3


def test_strays_are_named(folder: Path, one_input: Signature) -> None:
    (folder / "old").mkdir()
    (folder / "cat.jpg").touch()
    error = refused(folder, one_input)
    assert error.code == "data.unexpected_file"
    assert "cat.jpg, old" in error.message


def test_nothing_there(tmp_path: Path, folder: Path, one_input: Signature) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refused(empty, one_input).code == "data.empty"
    (empty / "README.md").touch()
    assert refused(empty, one_input).code == "data.empty"
    missing = refused(tmp_path / "calb", one_input)
    assert missing.code == "data.not_found"
    assert "'calib'" in missing.remedy
    assert refused(tmp_path / "no" / "such", one_input).code == "data.not_found"
    (tmp_path / "x.bin").touch()
    assert refused(tmp_path / "x.bin", one_input).code == "data.unknown_form"
    assert "x.bin" in refused(tmp_path / "x.bin", one_input).where
    assert folder.exists()


def test_one_npz_is_one_sample(folder: Path, one_input: Signature) -> None:
    source = open_data(folder / "2.npz", one_input)
    assert [float(s.feeds["x"][0, 0]) for s in source] == [2]


def test_compressed_npz(tmp_path: Path, one_input: Signature) -> None:
    np.savez_compressed(tmp_path / "zeros.npz", x=np.zeros((100_000, 3), np.float32))
    (sample,) = open_data(tmp_path / "zeros.npz", one_input)
    assert sample.rows == 100_000


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_rows(tmp_path: Path, one_input: Signature, order: Any) -> None:
    path = tmp_path / "x.npy"
    stacked = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(path, np.array(stacked, order=order))
    source = open_data(path, one_input)
    assert len(source) == 4
    samples = list(source.subset([3, 1]))
    assert [s.name for s in samples] == ["x.npy[3]", "x.npy[1]"]
    np.testing.assert_array_equal(samples[0].feeds["x"], stacked[3:4])
    assert type(samples[0].feeds["x"]) is np.ndarray
    assert samples[0].feeds["x"].flags.c_contiguous


def test_npy_needs_one_input(tmp_path: Path, two_inputs: Signature) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    error = refused(tmp_path / "x.npy", two_inputs)
    assert error.code == "data.npy_inputs"
    assert "'ids', 'mask'" in error.remedy


@pytest.mark.parametrize("array", [np.float32(1), np.ones((0, 3), np.float32)])
def test_npy_without_rows(tmp_path: Path, one_input: Signature, array: Any) -> None:
    np.save(tmp_path / "x.npy", array)
    assert refused(tmp_path / "x.npy", one_input).code == "data.empty"


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_pickles_are_never_opened(tmp_path: Path, one_input: Signature, suffix: str) -> None:
    path = tmp_path / f"evil{suffix}"
    payload = np.array([Bomb()], dtype=object)
    if suffix == ".npz":
        np.savez(path, x=payload)
    else:
        np.save(path, payload, allow_pickle=True)
    error = refused(path, one_input)
    assert error.code == "data.pickled"
    assert str(path) in error.where


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("keep", [0, 3, 20, 100, 200, -1])
def test_truncated(tmp_path: Path, one_input: Signature, suffix: str, keep: int) -> None:
    path = tmp_path / f"x{suffix}"
    save = np.savez if suffix == ".npz" else np.save
    save(path, np.random.default_rng(0).random((20, 3), np.float32))
    path.write_bytes(path.read_bytes()[:keep])
    error = refused(path, one_input)
    assert error.code == "data.damaged"
    assert error.where.startswith(str(path))


def test_every_flipped_byte_is_an_error_or_a_sample(tmp_path: Path, one_input: Signature) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=row(1))
    good = path.read_bytes()
    for index in range(len(good)):
        bad = bytearray(good)
        bad[index] ^= 0xFF
        path.write_bytes(bytes(bad))
        try:
            list(open_data(path, one_input))
        except DataError as error:
            assert error.code.startswith("data.")  # noqa: PT017


def member(header: dict[str, Any], data: bytes = b"") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + data


def write_zip(path: Path, name: str, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr(name, data)
    return path


def test_absurd_headers(tmp_path: Path, one_input: Signature) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 1 << 20)}
    zipped = write_zip(tmp_path / "a.npz", "x.npy", member(header, b"1234"))
    assert refused(zipped, one_input).code == "data.damaged"
    (tmp_path / "a.npy").write_bytes(member(header, b"1234"))
    assert refused(tmp_path / "a.npy", one_input).code == "data.damaged"
    header_text = member(header).replace(b"}", b"(")
    (tmp_path / "a.npy").write_bytes(header_text)
    assert refused(tmp_path / "a.npy", one_input).code == "data.damaged"
    negative = header | {"shape": (-1, -1)}
    assert refused(
        write_zip(tmp_path / "n.npz", "x.npy", member(negative, b"1234")), one_input
    ).code == ("data.damaged")


def test_zip_bombs(tmp_path: Path, one_input: Signature, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((1 << 20, 3), np.float32))
    monkeypatch.setattr(arrays, "MAX_SAMPLE_BYTES", 1 << 20)
    error = refused(path, one_input)
    assert error.code == "data.too_large"
    assert "one sample" in error.remedy
    monkeypatch.setattr(arrays, "_MAX_DEFLATE_RATIO", 10)
    assert refused(path, one_input).code == "data.damaged"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_odd_archives(tmp_path: Path, one_input: Signature) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (1, 3)}
    good = member(header, bytes(12))
    assert refused(write_zip(tmp_path / "a.npz", "x.txt", good), one_input).code == (
        "data.npz_member"
    )
    lzma = write_zip(tmp_path / "b.npz", "x.npy", good, zipfile.ZIP_LZMA)
    assert refused(lzma, one_input).code == "data.npz_member"
    write_zip(tmp_path / "c.npz", "x.npy", good)
    assert "same name" in refused(write_zip(tmp_path / "c.npz", "x.npy", good), one_input).message
    with zipfile.ZipFile(tmp_path / "d.npz", "w"):
        pass
    assert refused(tmp_path / "d.npz", one_input).code == "data.empty_sample"
    np.savez(tmp_path / "e.npz", x=np.zeros(2, dtype=[("a", "f4")]))
    assert refused(tmp_path / "e.npz", one_input).code == "data.structured"


def test_digest_follows_contents_and_choice(
    tmp_path: Path, folder: Path, one_input: Signature
) -> None:
    source = open_data(folder, one_input)
    digest = source.digest()
    assert digest.startswith("sha256:")
    assert len(digest) == len("sha256:") + 64
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert open_data(moved, one_input).digest() == digest
    assert source.subset([0, 1, 2]).digest() == digest
    assert len({digest, source.subset([0]).digest(), source.subset([1]).digest()}) == 3
    (moved / "2.npz").rename(moved / "3.npz")
    assert open_data(moved, one_input).digest() != digest
    np.savez(folder / "1.npz", x=row(7))
    assert open_data(folder, one_input).digest() != digest


def test_names_that_numpy_cannot_save(tmp_path: Path) -> None:
    feeds = {"file": row(1), "a/b:0": row(2), "x.npy": np.array(["é", ""])}
    arrays.write_npz(tmp_path / "s.npz", feeds)
    back = arrays.read_npz(tmp_path / "s.npz")
    assert list(back) == list(feeds)
    for name, array in feeds.items():
        np.testing.assert_array_equal(back[name], array)
