"""Bars: drawn for somebody who looks, and for nobody else."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from onnxq.cli.progress import bars

if TYPE_CHECKING:
    import pytest


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = _Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with bars() as report:
        for done in range(4):
            report("[calibrate]", done, 3)
    assert "[calibrate]" in screen.getvalue()
    assert "3/3" in screen.getvalue()
    assert capsys.readouterr().out == ""


def test_nothing_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as report:
        report("calibrate", 1, 3)
    assert capsys.readouterr() == ("", "")
