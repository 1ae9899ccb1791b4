"""Where a model may be written: over ordinary files, and nothing through a link."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from onnxq.errors import UsageError
from onnxq.graph import io

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


def _refusal(output: Path, model: Path) -> UsageError:
    """Refused before any work, and when writing all the same."""
    with pytest.raises(UsageError) as caught:
        io.check_output(output, model=model)
    with pytest.raises(UsageError) as again:
        io.save(io.load(model), output)
    assert again.value.code == caught.value.code
    assert caught.value.remedy
    return caught.value


def test_a_link_is_neither_followed_nor_replaced(linear: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    precious = elsewhere / "precious"
    precious.write_bytes(b"precious")
    for name, target in (("to_file", precious), ("to_nothing", elsewhere / "new")):
        link = tmp_path / name
        link.symlink_to(target)
        assert _refusal(link, linear).code == "usage.is_link"
        assert link.is_symlink()
    assert precious.read_bytes() == b"precious"
    assert [entry.name for entry in elsewhere.iterdir()] == ["precious"]


def test_the_data_file_is_not_written_through_a_link(linear: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / "out.onnx.data").symlink_to(precious)
    with pytest.raises(UsageError, match="symbolic link"):
        io.save(io.load(linear), tmp_path / "out.onnx", external_threshold=0)
    assert precious.read_bytes() == b"precious"
    assert not (tmp_path / "out.onnx").exists()


def test_pipes_and_devices_are_not_replaced(linear: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert _refusal(fifo, linear).code == "usage.not_a_file"
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_hard_link_is_replaced_and_its_other_name_stays(linear: Path, tmp_path: Path) -> None:
    other, output = tmp_path / "other", tmp_path / "out.onnx"
    other.write_bytes(b"precious")
    os.link(other, output)
    io.save(io.load(linear), output)
    assert other.read_bytes() == b"precious"
    assert io.load(output).graph.outputs


def test_a_replaced_file_keeps_its_mode_but_for_special_bits(linear: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    output.write_bytes(b"old")
    output.chmod(0o4640)
    io.save(io.load(linear), output)
    assert stat.S_IMODE(output.stat().st_mode) == 0o640


def test_a_folder_that_is_replaced_meanwhile_gets_nothing(linear: Path, tmp_path: Path) -> None:
    folder, other = tmp_path / "out", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    with io.staging(folder / "m.onnx") as staged:
        io.save(io.load(linear), staged)
        folder.rename(tmp_path / "moved")
        folder.symlink_to(other)
        with pytest.raises(UsageError, match="cannot be written"):
            io.publish(staged, folder / "m.onnx")
    assert list(other.iterdir()) == []


def test_what_is_staged_is_for_the_owner_alone(linear: Path, tmp_path: Path) -> None:
    with io.staging(tmp_path / "m.onnx") as staged:
        io.save(io.load(linear), staged)
        assert stat.S_IMODE(staged.parent.stat().st_mode) == 0o700
