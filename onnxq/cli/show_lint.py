"""What ``lint`` prints: each broken rule once, with the nodes that break it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from onnxq.cli.console import DASH, db_text, line, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from onnxq.lint import Finding, LintResult

SHOWN_NODES: Final = 10
"""So many nodes of a rule are shown; ``--json`` has all."""

_UNVERIFIED: Final = "unverified, no GPU has confirmed it"
_STYLES: Final = {"error": "bold red", "warning": "yellow", "note": "bold"}


def views(result: LintResult) -> Iterator[RenderableType]:
    """Findings, the worst first; then what was not checked, and what was repaired."""
    if not result.findings:
        yield line(f"{result.output or result.model}: nothing found for target {result.target}.")
    for _, group in groupby(result.findings, key=lambda found: found.rule):
        yield from _rule(tuple(group))
        yield ""
    for skipped in result.skipped:
        yield line(f"not checked: {', '.join(skipped.rules)}: {skipped.reason}", style="yellow")
    if result.why_not_written:
        yield line(f"Nothing is written: {result.why_not_written}.", style="bold")
    if result.output is not None:
        yield from _repaired(result)


def _rule(found: Sequence[Finding]) -> Iterator[RenderableType]:
    first = found[0]
    count = f" ({len(found)} nodes)" if len(found) > 1 else ""
    yield line(f"{first.severity}: {first.rule}{count}", style=_STYLES[first.severity])
    yield _places(found)
    if len(found) > SHOWN_NODES:
        yield line(f"... and {len(found) - SHOWN_NODES} more; --json shows all.")
    yield line(f"Why: {first.why}.")
    yield line(f"Remedy: {first.remedy}.")
    how = _UNVERIFIED if first.verified == "unverified" else first.verified
    yield line(f"Evidence ({how}): {'; '.join(first.evidence)}")


def _places(found: Sequence[Finding]) -> Table:
    shown = table("", ["node", "operator", "what"], [])
    for finding in found[:SHOWN_NODES]:
        shown.add_row(line(finding.node or DASH), line(finding.op or DASH), line(finding.message))
    return shown


def _repaired(result: LintResult) -> Iterator[RenderableType]:
    for fixed in result.fixed:
        nodes = ", ".join(fixed.nodes[:SHOWN_NODES])
        more = len(fixed.nodes) - SHOWN_NODES
        yield line(
            f"fixed: {fixed.rule}: {nodes or 'the model'}{f', and {more} more' * (more > 0)}"
        )
    if not result.fixed:
        yield line("Nothing needed repair; the model is written as it was.")
    yield line(f"Written to {result.output}.", style="bold")
    if result.sqnr_db is None:
        yield line(f"Not compared: {result.why_not_compared}.", style="yellow")
    else:
        yield line(f"Its outputs on made-up inputs beside the model's: {db_text(result.sqnr_db)}.")
