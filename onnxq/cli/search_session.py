"""What ``onnxq compare`` measures for deployment: throughput, and the settings of a session."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxq.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxq.compare.compare import Comparison
    from onnxq.data import Reading


_MOST = {"batches": 1_000_000, "threads": 1024}
"""ONNX Runtime starts any number of threads that it is asked for, however long that takes."""


@dataclass(frozen=True, kw_only=True)
class SessionArguments:
    """What is measured beside the models' own latency."""

    batches: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    save_session: Path | None = None

    @property
    def more_asked(self) -> bool:
        """Whether one of the options is there."""
        return bool(self.batches or self.threads) or self.save_session is not None


def check(arguments: SessionArguments) -> None:
    """Refuse before any work what could only fail at its end.

    Raises:
        UsageError: ``--save-session`` names a file.
    """
    if arguments.save_session is not None:
        from onnxq.compare.session_search import check_folder

        check_folder(arguments.save_session)


def measure(
    arguments: SessionArguments,
    found: Comparison,
    data: Reading | None,
    report: Callable[[str, int, int], None],
) -> tuple[Comparison, tuple[Path, ...]]:
    """Measure what was asked for, of the models and providers of a comparison.

    Returns:
        The comparison with what was measured, and the files that were written.
    """
    from onnxq.compare.session_search import save_session, search_session
    from onnxq.compare.throughput import Loads, throughput

    if arguments.batches or arguments.threads:
        rates = throughput(
            list(dict.fromkeys(run.model for run in found.runs)),
            data,
            providers=list(dict.fromkeys(run.provider for run in found.runs)),
            loads=Loads(arguments.batches or (1,), arguments.threads or (2,)),
            report=report,
        )
        found = replace(found, throughput=rates)
    if arguments.save_session is None:
        return found, ()
    fastest = min(
        (run for run in found.runs if run.latency is not None),
        key=lambda run: run.latency.median_ms if run.latency else 0.0,
    )
    session = search_session(fastest.model, data, provider=fastest.provider, report=report)
    return replace(found, session=session), save_session(session, arguments.save_session)


def _numbers(_: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    texts = [text.strip() for text in (value or "").split(",") if text.strip()]
    most = _MOST[str(parameter.name)]
    if value is not None and not texts:
        texts = [value]
    for text in texts:
        if not text.isdecimal() or len(text) > len(str(most)) or not 1 <= int(text) <= most:
            code, why = "usage.arguments", f"{text[:40]!r} is no number from 1 to {most:,}"
            raise UsageError(code, why, where=f"--{parameter.name}", remedy="as in 1,8,32")
    return tuple(dict.fromkeys(map(int, texts)))


OPTIONS = (
    click.Option(
        ["--batches"],
        metavar="NUMBERS",
        callback=_numbers,
        help="Also measure the throughput at these batch sizes, as 1,8,32; samples are put "
        "together along the batch axis.",
    ),
    click.Option(
        ["--threads"],
        metavar="NUMBERS",
        callback=_numbers,
        help="Also measure the throughput with so many threads, as 1,2.",
    ),
    click.Option(
        ["--save-session"],
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Search the session settings with which the fastest run is fastest, a minute or more; "
        "write them to DIR, with code that loads the model with them.",
    ),
)
