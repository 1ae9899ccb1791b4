"""Private folders: closed to others, gone when closed, and gone after a crash."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from onnxq.scratch import Scratch

_HOLD = (
    "import sys; from onnxq.scratch import Scratch; "
    "folder = Scratch({!r}).path; (folder / 'weights').write_bytes(b'x' * 100); "
    "print(folder, flush=True); sys.stdin.read()"
)


def _holder(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """Another process that holds a folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD.format(str(parent))],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_is_private_hidden_beside_others_and_removed(tmp_path: Path) -> None:
    with Scratch(tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith(".onnxq-scratch-")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_it_is_removed_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Scratch(tmp_path):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_what_a_killed_process_left_is_removed_and_what_a_live_one_uses_is_not(
    tmp_path: Path,
) -> None:
    killed, left = _holder(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert (left / "weights").is_file()
    live, used = _holder(tmp_path)
    with Scratch(tmp_path) as own:
        assert sorted(tmp_path.iterdir()) == sorted([used, own])
        assert (used / "weights").is_file()
    live.communicate("")
    assert live.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_only_folders_are_removed_and_no_link_is_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    here = tmp_path / "here"
    here.mkdir()
    (here / ".onnxq-scratch-link").symlink_to(elsewhere)
    (here / ".onnxq-scratch-file").write_text("x")
    abandoned = here / ".onnxq-scratch-abandoned"
    abandoned.mkdir()
    (abandoned / "link").symlink_to(elsewhere)
    with Scratch(here):
        pass
    kept = sorted(entry.name for entry in here.iterdir())
    assert kept == [".onnxq-scratch-file", ".onnxq-scratch-link"]
    assert (elsewhere / "precious").is_file()
