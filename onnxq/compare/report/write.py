"""Writes a report: gathers, renders, and puts the file in place whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.compare.report.extra import require_packages
from onnxq.compare.report.limits import ReportLimits
from onnxq.graph.io import check_output, publish, staging

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from onnxq.compare.compare import Comparison
    from onnxq.data import DataLike
    from onnxq.verify.verification import Report

_DEFAULT = ReportLimits()


def check_report(path: str | Path, models: Iterable[str | Path] = ()) -> None:
    """Refuse before any work what could only fail at its end.

    Args:
        path: The file that is to be written.
        models: Files that it may not replace.

    Raises:
        UsageError: The folder does not exist, the path is no ordinary file or one of the models, or
            a package that a report needs is missing.
    """
    require_packages()
    check_output(path)
    for model in models:
        check_output(path, model=model)


def write_report(
    comparison: Comparison,
    data: DataLike,
    path: str | Path,
    *,
    limits: ReportLimits = _DEFAULT,
    command: str = "",
    report: Report = lambda step, done, total: None,
) -> None:
    """Write a report of a comparison: one HTML file that loads nothing.

    The models run again on a few samples, for the error of each layer and the distributions.

    Args:
        comparison: What :func:`onnxq.compare` returned.
        data: The data that it was given; an iterable that can be gone through again.
        path: The file to write, replaced only when the report is whole.
        limits: How far to go.
        command: The command line that made the comparison, to be shown.
        report: Told of progress.

    Raises:
        UsageError: As :func:`check_report`.
        ModelError: A model that was compared does not load any more.
        DataError: A sample cannot be read any more.
    """
    check_report(path, [run.model for run in comparison.runs])
    from onnxq.compare.report.evidence import gather
    from onnxq.compare.report.page import render

    text = render(gather(comparison, data, limits, command, report))
    with staging(path) as staged:
        staged.write_text(text, encoding="utf-8")
        publish(staged, path)
