"""The group of commands, and the one place where errors become exit statuses.

==========  ========================================================================
0           done
1           a bound that was asked for is missed; `doctor` or `lint` found something
2           bad usage or bad input
3           a fault of onnxq itself
130         interrupted (SIGINT, SIGTERM or SIGHUP)
==========  ========================================================================

With ``--json`` standard output carries one JSON object, whatever happens, and nothing else.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

import click

from onnxq._version import __version__
from onnxq.cli import (
    apply,
    bundle,
    calibrate,
    compare,
    deploy,
    doctor,
    export,
    inspect,
    lint,
    quantize,
)
from onnxq.cli.failures import Failure, failure_of
from onnxq.cli.outcome import Outcome
from onnxq.cli.writing import print_failure, print_json, print_views, survive_odd_characters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SIGNALS = ("SIGTERM", "SIGHUP")

group = click.Group(
    name="onnxq",
    help=(
        "Quantize ONNX models, prove that they are still right, and measure that they are faster."
        "\n\nEvery command takes --help. Exit status: 0 done, 1 a bound is missed, 2 bad usage or "
        "bad input, 3 a fault of onnxq, 130 interrupted."
    ),
    commands=[
        quantize.COMMAND,
        calibrate.COMMAND,
        apply.COMMAND,
        inspect.COMMAND,
        lint.COMMAND,
        compare.COMMAND,
        export.COMMAND,
        bundle.COMMAND,
        deploy.COMMAND,
        doctor.COMMAND,
    ],
    params=[],
    no_args_is_help=False,
)
click.version_option(__version__, message="%(prog)s %(version)s")(group)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    Args:
        arguments: What follows the program's name; that of this process if None.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    as_json = "--json" in options and not {"--help", "--version"} & set(options)
    survive_odd_characters()
    # What a library or an export factory prints must not end up beside the JSON object.
    aside = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    try:
        with _stopping_on_signals(), aside:
            outcome = _invoke(given)
        return _tell(outcome, as_json=as_json)
    except SystemExit:
        raise
    except BaseException as error:
        if "--debug" in options:
            traceback.print_exc(file=sys.stderr)
        failure = failure_of(error)
        command = next((name for name in given if name in group.commands), "")
        return _tell_failure(failure, command, as_json=as_json)


def _invoke(given: Sequence[str]) -> Outcome | int:
    """The outcome of a command; a status where ``--help`` or ``--version`` was asked for."""
    result: Any = group.main(
        args=list(given), prog_name="onnxq", standalone_mode=False, obj=tuple(given)
    )
    return result if isinstance(result, Outcome) else int(result or 0)


def _tell(outcome: Outcome | int, *, as_json: bool) -> int:
    if isinstance(outcome, int):
        return outcome
    if as_json:
        print_json(outcome.document)
    else:
        print_views(outcome.views())
    if outcome.error is not None:
        print_failure(failure_of(outcome.error))
    return outcome.status


def _tell_failure(failure: Failure, command: str, *, as_json: bool) -> int:
    print_failure(failure)
    if as_json:
        print_json(failure.document(command))
    return failure.exit_status


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """End by an exception, so that temporary files are removed on the way out."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    wanted = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    # One that is ignored (nohup) or handled by someone else stays as it is.
    taken = [number for number in wanted if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
