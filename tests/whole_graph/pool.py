"""Worker processes that may die: a crash of native code costs one model, and counts as a failure.

A worker takes a job through a pipe and answers with the name of each model before it starts on it
and with its outcomes behind. One that dies or hangs is replaced, and the model that it had in hand
is reported with the signal.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.whole_graph.check import SCHEMES, Outcome, check
from tests.whole_graph.generate import NoModelError
from tests.whole_graph.subjects import backend_subjects, random_subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from onnxq.recipe import CalibrationMethod
    from tests.whole_graph.check import Subject

HANG_SECONDS: Final = 300.0
"""A model that takes longer has hung; nearly all take a fraction of a second."""


@dataclass(frozen=True, slots=True)
class Job:
    """Some models in some schemes.

    Attributes:
        kind: ``random``, ``backend``, or ``crash``, a job that ends its process.
        key: The seed, or the group of backend tests.
        schemes: The schemes to quantize in.
        method: How ranges are chosen.
        target: What the results are to run on.
    """

    kind: str
    key: str
    schemes: tuple[str, ...] = SCHEMES
    method: CalibrationMethod = "minmax"
    target: str = "cpu"


def subjects(job: Job) -> Iterator[Subject]:
    """The models of a job."""
    match job.kind:
        case "random":
            yield random_subject(int(job.key))
        case "backend":
            yield from backend_subjects(job.key)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)


def run_all(jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
    """The outcomes of all jobs, as they come.

    Args:
        jobs: What to do.
        workers: How many processes to do it in.
    """
    todo: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    for job in (*jobs, *[None] * workers):
        todo.put(job)
    found: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="onnxq-whole-graph-cache-") as cache:
        threads = [
            threading.Thread(target=_attend, args=(todo, found, cache), daemon=True)
            for _ in range(workers)
        ]
        for thread in threads:
            thread.start()
        running = workers
        while running:
            outcome = found.get()
            if outcome is None:
                running -= 1
            else:
                yield outcome


def _attend(
    todo: queue.SimpleQueue[Job | None], found: queue.SimpleQueue[Outcome | None], cache: str
) -> None:
    """Keep one worker busy, and replace it when it dies."""
    worker: tuple[BaseProcess, Connection] | None = None
    try:
        while (job := todo.get()) is not None:
            worker = worker or _start(cache)
            if not _follow(job, worker, found):
                worker = None
    finally:
        if worker is not None:
            worker[1].close()
            worker[0].join()
        found.put(None)


def _start(cache: str) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, cache), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _follow(
    job: Job, worker: tuple[BaseProcess, Connection], found: queue.SimpleQueue[Outcome | None]
) -> bool:
    """Pass on what a worker says of a job; False if it died over it."""
    process, pipe = worker
    unnamed = at = (f"{job.kind} {job.key}", ", ".join(job.schemes))
    try:
        pipe.send(job)
        while pipe.poll(HANG_SECONDS):
            message: Any = pipe.recv()
            if message is None:
                return True
            if isinstance(message, Outcome):
                found.put(message)
            else:
                at = message
        why = f"it hung for more than {HANG_SECONDS:g} s"
    except (EOFError, OSError):
        process.join()
        code = process.exitcode or 0
        why = f"its process died: {signal.strsignal(-code) if code < 0 else f'status {code}'}"
    process.kill()
    process.join()
    pipe.close()
    if job.kind == "random" and at == unnamed:
        # Drawing a model tries it in ONNX Runtime: there is none for onnxq to fail on.
        for scheme in job.schemes:
            found.put(Outcome(at[0], scheme, "refused", f"drawing the float model: {why}"))
    else:
        found.put(Outcome(at[0], at[1], "failed", why))
    return False


def _work(pipe: Connection, cache: str) -> None:
    """What a worker does: jobs until its pipe closes."""
    os.environ["XDG_CACHE_HOME"] = cache
    with suppress(EOFError):
        while True:
            job: Job = pipe.recv()
            try:
                for subject in subjects(job):
                    for scheme in job.schemes:
                        pipe.send((subject.name, scheme))
                        pipe.send(check(subject, scheme, job.method, job.target))
            except NoModelError as error:
                pipe.send(Outcome(f"{job.kind} {job.key}", "", "failed", str(error)))
            pipe.send(None)
