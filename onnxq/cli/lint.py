"""``onnxq lint``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxq.cli import json_output, parameters
from onnxq.cli.command import command
from onnxq.cli.outcome import Outcome
from onnxq.cli.progress import bars
from onnxq.errors import BoundMissedError, UsageError

if TYPE_CHECKING:
    from onnxq.lint import LintResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What ``lint`` takes; see its ``--help``."""

    model: Path
    target: str | None
    fix: bool
    output: Path | None


def lint(arguments: Arguments) -> Outcome:
    """Find what keeps MODEL from loading, fusing, being fast or being right on a target.

    Each finding names the rule, what backs it and what to do. With --fix what is safe is repaired,
    compared with MODEL on made-up inputs, and written to OUT: the model as it was where nothing is
    wrong, nothing where nothing of what is wrong can be repaired. The exit status is 1 where errors
    or warnings are left; notes do not count.
    """
    if arguments.fix != (arguments.output is not None):
        code, text = "usage.arguments", "--fix and -o OUT are given together, or neither is"
        raise UsageError(code, text, where="onnxq lint", remedy="see `onnxq lint --help`")
    from onnxq.lint import lint as lint_model

    target = arguments.target or "cpu"
    with bars() as report:
        result = lint_model(arguments.model, target, fix_to=arguments.output, report=report)
    from onnxq.cli.show_lint import views

    missed = _missed(result)
    return Outcome(json_output.linted(result, missed), lambda: views(result), missed)


def _missed(result: LintResult) -> BoundMissedError | None:
    counts = {
        severity: sum(found.severity == severity for found in result.counting)
        for severity in ("error", "warning")
    }
    texts = [f"{n} {name}{'s' if n > 1 else ''}" for name, n in counts.items() if n]
    if not texts:
        return None
    code, text = "lint.findings", f"{' and '.join(texts)} for target {result.target}"
    tried = result.output is not None or result.why_not_written
    fixable = not tried and any(found.fixable for found in result.counting)
    remedy = "--fix -o OUT repairs some of it" if fixable else "each finding names its remedy"
    return BoundMissedError(code, text, where=str(result.output or result.model), remedy=remedy)


COMMAND = command(
    lint,
    Arguments,
    [
        parameters.MODEL,
        click.Option(["--target"], metavar="NAME", help="cpu, cuda or tensorrt.  [default: cpu]"),
        click.Option(["--fix"], is_flag=True, help="Repair what is safe, and write it to OUT."),
        click.Option(
            ["-o", "--output"],
            type=click.Path(path_type=Path),
            metavar="OUT",
            help="File to write, with --fix.",
        ),
        parameters.CUSTOM_OPS,
    ],
)
