"""Hostile and broken data: refused by name, within 10 seconds and 1 GiB over what was there."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from onnxq.data import Reading, find_labels, open_data, read_labels
from onnxq.data.arrays import write_npz
from onnxq.data.preprocess import load_preprocess
from onnxq.errors import DataError
from onnxq.graph.structure import InputSpec
from onnxq.recipe import load_recipe
from tests.cost import bounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxq.data import Signature

FLOAT = np.dtype(np.float32)
IMAGE: Signature = (InputSpec("image", FLOAT, ("n", 3, None, None), required=True),)
ARRAY: Signature = (InputSpec("x", FLOAT, ("n", 3), required=True),)
STEPS = "version = 1\n[image]\nresize = { shortest = 32 }\nscale = 1\nmean = 0\nstd = 1\n"


def refused(call: Callable[[], object]) -> DataError:
    """The refusal, which may cost no more than is promised."""
    with bounded(), pytest.raises(DataError) as caught:
        call()
    assert 1 <= len(str(caught.value).splitlines()) <= 2
    return caught.value


def read(data: Any, signature: Signature) -> Callable[[], object]:
    return lambda: list(open_data(data, signature))


# Images.


def encoded(kind: str, size: tuple[int, int] = (64, 48), **more: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **more)
    return stream.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png(width: int, height: int, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + data + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], padding: int = 0) -> bytes:
    base = ((256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1))
    both = sorted((*base, *entries))
    packed = b"".join(struct.pack("<HHII", *entry) for entry in both)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(both)) + packed + bytes(4 + padding)


def many_scans() -> bytes:
    """A progressive JPEG whose last scan is written once more, a thousand times."""
    content = encoded("JPEG", (2000, 2000), progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * 1000 + b"\xff\xd9"


def long_exif() -> bytes:
    content = encoded("JPEG")
    part = b"Exif\0\0" + bytes(60_000)
    segment = b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part
    return content[:2] + segment * 40 + content[2:]


def damaged_checksum() -> bytes:
    content = bytearray(encoded("PNG"))
    content[content.index(b"IDAT") + 40] ^= 0xFF
    return bytes(content)


IMAGES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "data.not_an_image"),
    "text": (lambda: b"<svg/>" * 9, "data.not_an_image"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "data.not_an_image"),
    "truncated jpeg": (lambda: encoded("JPEG")[:900], "data.damaged"),
    "truncated png": (lambda: encoded("PNG")[:900], "data.damaged"),
    "truncated webp": (lambda: encoded("WEBP")[:900], "data.damaged"),
    "truncated bmp": (lambda: encoded("BMP")[:900], "data.damaged"),
    "truncated gif": (lambda: encoded("GIF")[:900], "data.damaged"),
    "truncated tiff": (lambda: encoded("TIFF")[:900], "data.damaged"),
    "only a head": (lambda: encoded("JPEG")[:4], "data.damaged"),
    "damaged checksum": (damaged_checksum, "data.damaged"),
    "pixel bomb": (lambda: png(60_000, 60_000), "data.too_large"),
    "pixels over the limit": (lambda: png(10_000, 5_001), "data.too_large"),
    "gif bomb": (lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0), "data."),
    "bmp bomb": (
        lambda: b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 60000, 60000, 1, 24, 0) + bytes(20),
        "data.too_large",
    ),
    "webp bomb": (
        lambda: b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\xff\x3f\0\xff\x3f\0" + bytes(8),
        "data.",
    ),
    "text bomb": (
        lambda: png(64, 64, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(300_000_000)))),
        "data.damaged",
    ),
    "overlapping metadata": (
        lambda: tiff(*((tag, 7, 900_000, 200) for tag in range(1000, 3000)), padding=1_000_000),
        "data.damaged",
    ),
    "huge tile": (lambda: tiff((322, 4, 1, 40_000), (323, 4, 1, 40_000)), "data.too_large"),
    "endless scans": (many_scans, "data.too_large"),
    "endless metadata": (long_exif, "data.damaged"),
    "oblong": (lambda: encoded("PNG", (1_600_000, 1)), "data.too_large"),
}


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    path = tmp_path / "steps.toml"
    path.write_text(STEPS, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", IMAGES)
def test_images(tmp_path: Path, steps: Path, name: str) -> None:
    make, code = IMAGES[name]
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "1.png").write_bytes(encoded("PNG"))
    (folder / "500.jpg").write_bytes(make())
    error = refused(read(Reading(folder, preprocess=steps), IMAGE))
    assert error.code.startswith(code)
    assert error.where == str(folder / "500.jpg")
    assert error.remedy


def test_a_sparse_image(tmp_path: Path, steps: Path) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as stream:
        stream.write(png(64, 64))
        stream.truncate(1 << 40)
    assert refused(read(Reading(path, preprocess=steps), IMAGE)).code == "data.too_large"


def test_the_largest_image_that_is_read(tmp_path: Path, steps: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGBA", (8000, 6000)).save(path, compress_level=1)
    with bounded():
        (sample,) = open_data(Reading(path, preprocess=steps), IMAGE)
    assert sample.feeds["image"].shape == (1, 3, 32, 42)


# What is no file.


def special(kind: str, path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "folder":
        path.mkdir()


KINDS = ("pipe", "socket", "device", "loop", "dangling", "folder")
SUFFIXES = (".npz", ".npy", ".txt", ".jsonl", ".csv", ".parquet", ".jpg", "")


@pytest.mark.parametrize("kind", KINDS)
def test_no_file(tmp_path: Path, steps: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # A socket's path must be short.
    for suffix in SUFFIXES:
        path = Path(f"data{suffix}")
        special(kind, path)
        error = refused(read(Reading(path, preprocess=steps), IMAGE))
        assert error.where.startswith(str(path))
    for suffix, sample in ((".npz", {"x": np.ones((1, 3), np.float32)}), (".png", None)):
        folder = Path(f"folder{suffix}")
        folder.mkdir()
        if sample is None:
            (folder / "0.png").write_bytes(encoded("PNG"))
        else:
            write_npz(folder / "0.npz", sample)
        special(kind, folder / f"1{suffix}")
        if kind == "folder" and suffix == ".png":
            # Images may lie one folder deeper.
            assert len(open_data(Reading(folder, preprocess=steps), IMAGE)) == 1
            continue
        error = refused(read(Reading(folder, preprocess=steps), IMAGE))
        assert f"1{suffix}" in error.message


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_beside_the_data(
    tmp_path: Path, encoder: Signature, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("a\n", encoding="utf-8")
    special(kind, Path("tokenizer.json"))
    special(kind, Path("steps.toml"))
    special(kind, Path("pre.onnx"))
    special(kind, Path("labels.txt"))
    refused(read(Reading("t.txt", tokenizer="tokenizer.json"), encoder))
    refused(read(Reading("t.txt", preprocess="pre.onnx"), encoder))
    refused(lambda: load_preprocess("steps.toml"))
    refused(lambda: read_labels("labels.txt"))
    assert find_labels(tmp_path) is None
    with pytest.raises(Exception, match="the recipe cannot be read"):
        load_recipe("steps.toml")


@pytest.mark.parametrize("name", ["a\0b", "n" * 5000])
def test_impossible_names(name: str) -> None:
    assert refused(read(name, ARRAY)).code == "data.not_found"


# Arrays.


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    shape = (1 << 29, 3)
    np.lib.format.write_array_header_2_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(header.getvalue())
        # Not all of the 6 GiB that the header says: the archive's own list is then changed.
        stream.write(bytes(1 << 20))
    error = refused(read(path, ARRAY))
    assert error.code == "data.damaged"
    np.savez_compressed(path, x=np.zeros((50_000_000, 3), np.float32))
    assert path.stat().st_size < 1 << 20
    assert refused(read(path, ARRAY)).code == "data.too_large"


def test_an_archive_of_a_million_arrays(tmp_path: Path) -> None:
    path = tmp_path / "many.npz"
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", *[20, 3, 20, 0], *[0] * 14)
    count = 1_000_000
    directory = entry * count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, len(directory), 0, 0)
    path.write_bytes(directory + end)
    assert refused(read(path, ARRAY)).code == "data.too_large"


def test_an_archive_with_two_ends(tmp_path: Path) -> None:
    path = tmp_path / "two.npz"
    write_npz(path, {"x": np.ones((1, 3), np.float32)})
    content = path.read_bytes()
    at = content.rindex(b"PK\5\6")
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
    path.write_bytes(content[:at] + locator + content[at:])
    assert refused(read(path, ARRAY)).code == "data.too_large"


@pytest.mark.parametrize("shape", [(1 << 40, 0), (0, 3), (1 << 40, 1 << 20), (3, -1)])
def test_absurd_array_headers(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "x.npy"
    with path.open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
    assert refused(read(path, ARRAY)).code in {"data.empty", "data.damaged"}


# Texts and tables.


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv"])
def test_a_gigantic_line(tmp_path: Path, encoder: Signature, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    with path.open("wb") as stream:
        stream.write(b"a")
        stream.truncate(1 << 40)
    error = refused(read(path, encoder))
    assert error.code == "data.too_large"
    assert error.where.endswith("line 1")


def test_too_many_lines(
    tmp_path: Path, encoder: Signature, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxq.data.lines.MAX_LINES", 100)
    for suffix in (".txt", ".csv"):
        path = tmp_path / f"t{suffix}"
        path.write_text("a\n" * 101, encoding="utf-8")
        assert "more than 100 lines" in refused(read(path, encoder)).message


def test_a_text_that_is_a_book(tmp_path: Path, tokenizer_file: Path, encoder: Signature) -> None:
    path = tmp_path / "t.txt"
    path.write_text("a small text " * 200_000, encoding="utf-8")
    error = refused(read(Reading(path, tokenizer=tokenizer_file), encoder))
    assert error.code == "data.too_large"


@pytest.mark.parametrize(
    "line",
    ['{"x": ' + "[" * 1_000_000, '{"x": ' + "[" * 9000 + "]" * 9000 + "}", "[" * 100_000],
)
def test_deep_json(tmp_path: Path, line: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(line, encoding="utf-8")
    assert refused(read(path, ARRAY)).code.startswith("data.")


def test_json_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"x": [' + "[]," * 5_000_000 + "[]]}", encoding="utf-8")
    assert refused(read(path, ARRAY)).code.startswith("data.")


@pytest.mark.parametrize("content", ['x\n"' + "a\n" * 500_000, "x\n" + "a" * 10_000_000])
def test_csv_that_does_not_end(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content, encoding="utf-8")
    assert refused(read(path, ARRAY)).code == "data.csv"


def test_damaged_tables(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": [[1.0, 2.0, 3.0]] * 100}), path)
    good = path.read_bytes()
    for size in (0, 4, 12, len(good) // 2, len(good) - 4):
        path.write_bytes(good[:size])
        assert refused(read(path, ARRAY)).code == "data.damaged"
    generator = np.random.default_rng(0)
    for _ in range(200):
        bad = bytearray(good)
        bad[generator.integers(0, len(good))] ^= 1 << int(generator.integers(0, 8))
        path.write_bytes(bytes(bad))
        try:
            list(open_data(path, ARRAY))
        except DataError as error:
            assert error.code.startswith("data.")  # noqa: PT017


def test_tables_that_unpack_to_too_much(tmp_path: Path, tokenizer_file: Path) -> None:
    signature = (InputSpec("input_ids", np.dtype(np.int64), (1, None), required=True),)
    path = tmp_path / "t.parquet"
    repeated = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(3_000, np.int32)), pa.array(["a" * 1_500_000])
    )
    pq.write_table(pa.table({"text": repeated}), path)
    assert path.stat().st_size < 1 << 20
    error = refused(read(Reading(path, tokenizer=tokenizer_file), signature))
    assert "characters" in error.message
    zeros = pa.array(np.zeros(100_000_000, np.int8))
    pq.write_table(pa.table({"input_ids": zeros}), path, row_group_size=1 << 27)
    assert path.stat().st_size < 1 << 20
    assert refused(read(path, signature)).code == "data.too_large"


def test_tokenizers_that_are_none(tmp_path: Path, encoder: Signature) -> None:
    path, file = tmp_path / "t.txt", tmp_path / "tokenizer.json"
    path.write_text("a\n", encoding="utf-8")
    deep = "[" * 100_000
    for content in (deep, json.dumps({"version": "1.0", "model": {"type": "WordLevel"}}), ""):
        file.write_text(content, encoding="utf-8")
        error = refused(read(Reading(path, tokenizer=file), encoder))
        assert error.code == "data.tokenizer"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    assert "larger than" in refused(read(Reading(path, tokenizer=file), encoder)).message


def test_deep_settings(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("a = " + "[" * 100_000, encoding="utf-8")
    assert refused(lambda: load_preprocess(path)).code == "preprocess.syntax"
