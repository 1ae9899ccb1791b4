"""Measure one model on one provider, in a process of its own: ``python -m tests.gpu.measure SPEC``.

The specification is a JSON object: ``case``, ``provider``, ``forms`` (a path by name), ``rounds``.
The answer is one JSON line: what was measured of each form, or why it was not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxq.cli.json_output import compared, plain
from onnxq.compare.compare import compare
from onnxq.errors import OnnxqError
from onnxq.runtime.providers import hush
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.runtime.timing import Contender, TimingSettings, measure
from tests.gpu.cases import CASES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.gpu.cases import Case, Feeds


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure each form that loads and runs; the first is the float model."""
    case, provider = CASES[spec["case"]], spec["provider"]
    feeds = case.feeds()
    works: dict[str, Path] = {}
    found: dict[str, Any] = {}
    for name, text in spec["forms"].items():
        try:
            session = open_session(Path(text), SessionSettings(provider=provider, spinning=False))
            session.execute(feeds[0])
            works[name] = Path(text)
        except OnnxqError as error:
            found[name] = {"status": "failed", "code": error.code, "reason": str(error)[:400]}
    if works:
        found.update(_measured(case, works, provider, feeds, spec["rounds"]))
    return found


def _measured(
    case: Case, works: dict[str, Path], provider: str, feeds: Sequence[Feeds], rounds: int
) -> dict[str, Any]:
    timing = TimingSettings(rounds=rounds, runs=30, warmup=10, seconds=0.2)
    document: Any = plain(
        compared(compare(list(works.values()), list(feeds), providers=[provider], timing=timing))
    )
    found = {}
    for name, run in zip(works, document["runs"], strict=True):
        run.pop("model")
        fallen = run["placement"].pop("fallen_back")
        run["placement"]["fallen_back"] = len(fallen)
        run["placement"]["reasons"] = _reasons(fallen)
        found[name] = {"status": "measured", **run}
    if case.batch is not None:
        _add_batch(case, works, provider, timing, found)
    return found


def _reasons(fallen: Sequence[dict[str, str]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in fallen:
        key = f"{node['op']}: {node['reason']}"
        counts[key] = counts.get(key, 0) + 1
    return counts


def _add_batch(
    case: Case,
    works: dict[str, Path],
    provider: str,
    timing: TimingSettings,
    found: dict[str, Any],
) -> None:
    assert case.batch is not None
    contenders = [Contender(name, path, provider) for name, path in works.items()]
    try:
        taken = measure(contenders, [case.batch()], timing)
    except OnnxqError as error:
        for name in works:
            found[name]["batch"] = {"what": case.batch_text, "reason": str(error)[:400]}
        return
    first = next(iter(works))
    for name in works:
        result, ratio = taken.results[name], taken.ratio(first, name)
        found[name]["batch"] = {
            "what": case.batch_text,
            "median_ms": result.median_ms,
            "device_bytes": result.device_bytes,
            "joules": result.joules,
            "ratio": [ratio.median, ratio.low, ratio.high],
        }


if __name__ == "__main__":
    hush()
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps(main(given)) + "\n")
