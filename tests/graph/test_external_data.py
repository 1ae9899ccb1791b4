"""External data: only ordinary files inside the folder, and only what fits."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from onnxq.errors import ModelError
from onnxq.graph import io

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


@pytest.fixture
def external(linear: Path) -> Path:
    """A model of two weights, 2048 and 1024 bytes, in ``weights.bin`` beside it."""
    folder = linear.parent / "external"
    folder.mkdir()
    path = folder / "model.onnx"
    model = onnx.load(linear)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


Edit = "Callable[[onnx.TensorProto, onnx.TensorProto], None]"


def _edit(path: Path, edit: Callable[[onnx.TensorProto, onnx.TensorProto], object]) -> None:
    model = onnx.load(path, load_external_data=False)
    edit(*model.graph.initializer)
    path.write_bytes(model.SerializeToString())


def _set_all(*tensors: onnx.TensorProto, **entries: str) -> None:
    for tensor in tensors:
        _set(tensor, **entries)


def _clear(tensor: onnx.TensorProto, _: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")


def _set(tensor: onnx.TensorProto, **entries: str) -> None:
    kept = {entry.key: entry.value for entry in tensor.external_data} | entries
    tensor.ClearField("external_data")
    for key, value in kept.items():
        tensor.external_data.add(key=key, value=value)


def _refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        io.load(path)
    assert caught.value.remedy
    assert str(path) in caught.value.where
    return caught.value


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("../weights.bin", "outside"),
        ("a/../weights.bin", "outside"),
        ("a\\..\\..\\weights.bin", "outside"),
        ("/etc/passwd", "absolute"),
        ("\\\\server\\share\\weights.bin", "absolute"),
        ("c:weights.bin", "absolute"),
        ("", "absolute"),
        ("*/_ORT_MEM_ADDR_/*", "missing"),
        ("weights\0.bin", "missing"),
        ("w" * 5000, "missing"),
    ],
)
def test_a_location_that_leads_elsewhere_is_refused(
    location: str, code: str, external: Path
) -> None:
    _edit(external, lambda first, _: _set(first, location=location))
    error = _refusal(external)
    assert error.code == f"graph.external_{code}"
    assert len(str(error)) < 1500


@POSIX
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "loop"])
def test_data_that_is_no_ordinary_file_is_refused(kind: str, external: Path) -> None:
    data = external.with_name("weights.bin")
    data.unlink()
    make: dict[str, Callable[[], None]] = {
        "fifo": lambda: os.mkfifo(data),
        "device": lambda: data.symlink_to("/dev/zero"),
        "folder": data.mkdir,
        "loop": lambda: data.symlink_to(data),
    }
    make[kind]()
    codes = {"device": "link", "loop": "missing"}
    assert _refusal(external).code == f"graph.external_{codes.get(kind, 'not_a_file')}"


@POSIX
def test_links_out_of_the_folder_are_refused(external: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    data = external.with_name("weights.bin").rename(secret / "weights.bin")
    external.with_name("weights.bin").symlink_to(data)
    assert _refusal(external).code == "graph.external_link"
    external.with_name("sub").symlink_to(secret)
    _edit(external, lambda *both: _set_all(*both, location="sub/weights.bin"))
    assert _refusal(external).code == "graph.external_link"
    os.link(data, external.with_name("hard.bin"))
    _edit(external, lambda *both: _set_all(*both, location="hard.bin"))
    assert _refusal(external).code == "graph.external_link"


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ({"offset": "-4"}, "length"),
        ({"offset": "1_0"}, "length"),
        ({"offset": " 0"}, "length"),
        ({"offset": "+0"}, "length"),
        ({"offset": "0x0"}, "length"),
        ({"offset": "\u0663"}, "length"),
        ({"offset": "9" * 30}, "length"),
        ({"offset": "9223372036854775807"}, "truncated"),
        ({"offset": "18446744073709549568"}, "length"),
        ({"length": "0"}, "length"),
        ({"length": "2047"}, "length"),
    ],
)
def test_a_range_that_does_not_fit_is_refused(
    entries: dict[str, str], code: str, external: Path
) -> None:
    _edit(external, lambda first, _: _set(first, **entries))
    assert _refusal(external).code == f"graph.external_{code}"


@pytest.mark.parametrize("key", ["location", "offset"])
def test_an_entry_that_is_given_twice_is_refused(key: str, external: Path) -> None:
    _edit(external, lambda first, _: first.external_data.add(key=key, value="0"))
    assert _refusal(external).code == "graph.external_entries"


def test_data_without_a_file_or_here_and_there_is_refused(external: Path) -> None:
    _edit(external, lambda first, _: setattr(first, "raw_data", b"here"))
    assert _refusal(external).code == "graph.tensor_field"
    _edit(external, _clear)
    assert _refusal(external).code == "graph.external_entries"


def test_tensors_that_lie_across_each_other_are_refused(external: Path) -> None:
    _edit(external, lambda _, second: _set(second, offset="1024"))
    assert _refusal(external).code == "graph.external_overlap"


def test_tied_weights_may_name_the_same_bytes_and_a_thousand_may_not(external: Path) -> None:
    model = onnx.load(external, load_external_data=False)
    first = model.graph.initializer[0]
    for index in range(40):
        copy = model.graph.initializer.add()
        copy.CopyFrom(first)
        copy.name = f"copy{index}"
        external.write_bytes(model.SerializeToString())
        if index == 0:
            io.load(external)
    assert _refusal(external).code == "graph.external_shared"


def test_the_checksum_is_compared(external: Path) -> None:
    data = external.with_name("weights.bin")
    digest = hashlib.sha1(data.read_bytes(), usedforsecurity=False).hexdigest()
    _edit(external, lambda *both: _set_all(*both, checksum=digest.upper()))
    io.load(external)
    flipped = bytearray(data.read_bytes())
    flipped[7] ^= 1
    data.write_bytes(flipped)
    assert _refusal(external).code == "graph.external_checksum"


@pytest.mark.parametrize("change", ["contents", "another file", "gone"])
def test_data_that_changes_after_loading_is_noticed(change: str, external: Path) -> None:
    model = io.load(external)
    data = external.with_name("weights.bin")
    output = external.with_name("out.onnx")
    io.save(model, output)
    assert io.to_bytes(model)
    if change == "gone":
        data.unlink()
    else:
        content = np.zeros(data.stat().st_size, np.uint8).tobytes()
        new = data if change == "contents" else data.with_name("new.bin")
        new.write_bytes(content)
        new.replace(data)
        os.utime(data, ns=(0, 1))
    before = output.read_bytes()
    with pytest.raises(ModelError, match="changed while it was read") as caught:
        io.save(model, output)
    assert caught.value.where == str(data)
    assert output.read_bytes() == before
    with pytest.raises(ModelError, match="changed while it was read"):
        io.to_bytes(model)
    assert sorted(path.name for path in external.parent.iterdir() if path.name[0] == ".") == []
