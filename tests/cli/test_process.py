"""The command line as a process: imports, pipes, signals, faults."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from onnxq.algorithms.block_algorithm import ALGORITHMS
from onnxq.cli import parameters
from onnxq.cli.json_output import plain
from onnxq.recipe import Scheme, WeightSettings
from onnxq.recipe.schema import BlockAlgorithm
from tests.cli.conftest import IMAGES, MODEL, ROOT, onnxq, start

if TYPE_CHECKING:
    from collections.abc import Callable

HEAVY = ("torch", "onnxruntime", "onnx", "onnx_ir", "numpy", "numba", "pydantic", "rich")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from onnxq.cli import main; status = main(['quantize', '--help']); "
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]; "
        "sys.exit(f'{status} {loaded}' if status or loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--memory-budget" in done.stdout


def test_only_what_is_built_is_offered() -> None:
    text = onnxq("--help").out
    commands = [
        line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line[2:3].strip()
    ]
    assert commands == [
        "apply", "bundle", "calibrate", "compare", "deploy", "doctor", "export", "inspect", "lint",
        "quantize",
    ]  # fmt: skip
    # What a recipe takes the command line offers, and nothing else.
    assert set(parameters.SCHEMES) == set(get_args(Scheme))
    assert set(parameters.ALGORITHMS) == set(get_args(BlockAlgorithm)) == {"auto", *ALGORITHMS}
    sizes, _ = get_args(WeightSettings.model_fields["block_size"].annotation)
    assert tuple(map(str, get_args(sizes))) == parameters.BLOCK_SIZES
    quantize = onnxq("quantize", "--help").out
    assert f"[{'|'.join(parameters.SCHEMES)}]" in quantize
    assert f"[{'|'.join(parameters.ALGORITHMS)}]" in quantize


def test_version() -> None:
    run = onnxq("--version")
    assert (run.status, run.err) == (0, "")
    assert run.out.startswith("onnxq 0.")


def _wait_for(reached: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not reached() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    folder, temporary = tmp_path / "out", tmp_path / "tmp"
    folder.mkdir()
    temporary.mkdir()
    output = folder / "model.onnx"
    output.write_bytes(b"precious")
    process = start(
        "quantize", MODEL, "--scheme", "int8", "--data", IMAGES, "--samples", "8", "-o", output,
            "--json",
        TMPDIR=str(temporary),
    )  # fmt: skip
    # The finished model lies staged beside its destination while it is verified.
    _wait_for(lambda: list(folder.glob(".onnxq-scratch-*/*")), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in err
    assert '"status": "interrupted"' in out
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert output.read_bytes() == b"precious"
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_what_a_killed_run_left_is_gone_after_the_next(tmp_path: Path) -> None:
    folder, temporary = tmp_path / "out", tmp_path / "tmp"
    folder.mkdir()
    temporary.mkdir()
    arguments = (
        "quantize", MODEL, "--scheme", "int8", "--data", IMAGES, "--samples", "8", "-o",
        folder / "model.onnx",
    )  # fmt: skip
    process = start(*arguments, TMPDIR=str(temporary))
    _wait_for(lambda: list(folder.glob(".onnxq-scratch-*/*")), process)
    process.kill()
    process.communicate(timeout=60)
    (left,) = folder.iterdir()
    assert stat.S_IMODE(left.stat().st_mode) == 0o700
    again = start(*arguments, TMPDIR=str(temporary))
    assert again.communicate(timeout=120)[1] == ""
    assert again.returncode == 0
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert list(temporary.iterdir()) == []


AUDITED = """
import os, sys
log = open(sys.argv[1], "w", encoding="utf-8")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
PATHS = {"os.mkdir": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2, "os.truncate": 1}
def audit(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)) and (args[2] or 0) & WRITES:
        print("wrote", os.path.abspath(os.fsdecode(args[0])), file=log, flush=True)
    elif event in PATHS:
        for path in args[: PATHS[event]]:
            print("wrote", os.path.abspath(os.fsdecode(path)), file=log, flush=True)
    elif event in {"socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request"}:
        print("network", event, args[-1], file=log, flush=True)
sys.addaudithook(audit)
from onnxq.cli import main
sys.exit(main(sys.argv[2:]))
"""


def test_nothing_is_written_elsewhere_and_nothing_is_fetched(tmp_path: Path) -> None:
    """As Python's own audit tells of a whole run; the model's folder stays as it is."""
    places = {name: tmp_path / name for name in ("model", "out", "tmp", "home", "cwd", "cache")}
    for place in places.values():
        place.mkdir()
    shutil.copy(MODEL, places["model"] / "m.onnx")
    log = tmp_path / "log"
    output = places["out"] / "o.onnx"
    arguments = ["quantize", places["model"] / "m.onnx", "--data", IMAGES, "--samples", "8"]
    arguments += ["-o", output]
    done = subprocess.run(
        [sys.executable, "-B", "-c", AUDITED, str(log), *map(str, arguments)],
        cwd=places["cwd"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HOME": str(places["home"]),
            "TMPDIR": str(places["tmp"]),
            "XDG_CACHE_HOME": str(places["cache"]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = [line.split(" ", 1) for line in log.read_text("utf-8").splitlines()]
    assert [what for kind, what in told if kind == "network"] == []
    written = {what for kind, what in told if kind == "wrote"} - {os.devnull}
    assert str(output) in written
    allowed = tuple(f"{places[name]}{os.sep}" for name in ("out", "tmp", "cache"))
    elsewhere = [path for path in written if not f"{path}{os.sep}".startswith(allowed)]
    # Compiled code of onnxq itself lies beside its source.
    assert [path for path in elsewhere if "__pycache__" not in Path(path).parts] == []
    left = {name: sorted(entry.name for entry in places[name].iterdir()) for name in places}
    assert left == {
        "model": ["m.onnx"], "out": ["o.onnx"], "tmp": [], "home": [], "cwd": [],
        "cache": ["onnxq"],
    }  # fmt: skip


def test_a_reader_that_leaves_changes_nothing() -> None:
    process = start("inspect", MODEL)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_fault_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        msg = "the wheels\ncame off"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr("onnxq.pipeline.inspect", fail)
    run = onnxq("inspect", MODEL, "--json")
    assert run.status == 3
    assert run.document["errors"][0]["code"] == "internal.unexpected"
    first, second = run.err.splitlines()
    assert first == "error: fault of onnxq: ZeroDivisionError: the wheels came off"
    assert "--debug" in second


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OSError(28, "No space left on device", "/tmp/x"), 2, "system.refused"),
        (MemoryError(), 2, "system.memory"),
        (ImportError("broken", name="onnxruntime.capi"), 2, "system.no_runtime"),
        (OSError(9, "Bad file descriptor"), 3, "internal.unexpected"),
    ],
)
def test_what_the_system_refuses_is_no_fault(
    error: Exception, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("onnxq.pipeline.inspect", fail)
    run = onnxq("inspect", MODEL, "--json")
    assert run.status == status
    assert run.document["errors"][0]["code"] == code


def test_json_has_neither_nan_nor_infinity() -> None:
    value = {"a": float("inf"), "b": [float("nan"), -float("inf"), 1.5], "c": ROOT}
    assert plain(value) == {"a": None, "b": [None, None, 1.5], "c": str(ROOT)}
    with pytest.raises(TypeError, match="no form in JSON"):
        plain(object())
