"""Runs one task in a process of its own: ``python -m tests.benchmarks.worker SPEC.json``.

The specification names the task as ``module:function``, its ``arguments``, and the file for its
``answer``. The answer is what the task returns and ``peak_rss_bytes``, or ``error``, the reason in
one line. Nothing of onnxq is imported here: the memory of a peer's process is to be the peer's own.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
from pathlib import Path
from typing import Any


def main(spec_path: Path) -> int:
    """Run the task and write its answer; return the exit status, 0."""
    spec = json.loads(spec_path.read_text(encoding="utf-8"))
    module, _, function = spec["task"].partition(":")
    try:
        answer: dict[str, Any] = getattr(importlib.import_module(module), function)(
            **spec["arguments"]
        )
    except Exception as error:
        words = " ".join(str(error).split()) or "no message"
        answer = {"error": f"{type(error).__name__}: {words}"}
    answer["peak_rss_bytes"] = peak_rss_bytes()
    Path(spec["answer"]).write_text(json.dumps(answer), encoding="utf-8")
    return 0


def peak_rss_bytes() -> int:
    """The most memory that this process has held, as onnxq.runtime.machine reads it."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
