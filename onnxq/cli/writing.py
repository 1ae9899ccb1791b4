"""Writes outcomes to the terminal, a file or a pipe, and survives a reader that went away."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING

import click

from onnxq.cli import json_output

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.console import RenderableType

    from onnxq.cli.failures import Failure


def print_json(document: Mapping[str, object]) -> None:
    """Print one object on one line; see :func:`onnxq.cli.json_output.plain` for its numbers."""
    text = json.dumps(json_output.plain(document), allow_nan=False)
    with _reader_may_leave():
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def print_views(views: Iterable[RenderableType]) -> None:
    """Print tables and lines; without colours unless to a terminal."""
    from onnxq.cli.console import console

    with _reader_may_leave():
        screen = console(sys.stdout)
        for view in views:
            screen.print(view)
        sys.stdout.flush()


def print_failure(failure: Failure) -> None:
    """Print one or two lines on standard error."""
    with contextlib.suppress(OSError):
        for line in failure.lines():
            click.echo(line, err=True)


def survive_odd_characters() -> None:
    """Let names that the terminal's encoding lacks come out escaped."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    """The work is done by the time it is told: `| head` does not change the exit status."""
    try:
        yield
    except BrokenPipeError:
        # What is left in the buffer would fail again when Python exits.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
