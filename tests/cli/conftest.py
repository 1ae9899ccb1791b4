"""Runs of the command line, in this process and in one of their own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.cli import main
from onnxq.data.arrays import write_npz

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models/fashion_resnet/fashion_resnet.onnx"
IMAGES = ROOT / "calibration_data/fashion_mnist/calibration.npy"


@dataclass(frozen=True)
class Run:
    """What a run of the command line left."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        found = json.loads(self.out, parse_constant=_no_constant)
        assert isinstance(found, dict)
        return found


def _no_constant(name: str) -> object:
    msg = f"{name} is not JSON"
    raise AssertionError(msg)


def onnxq(*arguments: str | Path) -> Run:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return Run(status, out.getvalue(), err.getvalue())


def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start ``python -m onnxq`` in a process of its own."""
    # What a shell starts in the background has SIGINT ignored, which a child would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-m", "onnxq", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No statistics of the user's, and none left behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def write_samples(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a folder of six samples that fit the model, the last replaced by the arrays given."""
    images = np.load(IMAGES)[:6]

    def write(**arrays: object) -> Path:
        folder = tmp_path_factory.mktemp("samples")
        for index, image in enumerate(images):
            np.savez(folder / f"{index}.npz", image=image[np.newaxis])
        if arrays:
            write_npz(folder / "5.npz", {key: np.asarray(a) for key, a in arrays.items()})
        return folder

    return write


@dataclass(frozen=True)
class Quantized:
    """A model that ``quantize`` made, and what it printed."""

    model: Path
    plan: Path
    run: Run


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """One run over sixteen images, one site kept float."""
    folder = tmp_path_factory.mktemp("quantized")
    output, plan = folder / "model.onnx", folder / "plan"
    run = onnxq(
        "quantize", MODEL, "--scheme", "int8", "--data", IMAGES, "--samples", "16", "-o", output,
        "--plan-out", plan,
        "--exclude", "head.Gemm", "--json",
    )  # fmt: skip
    return Quantized(output, plan, run)
