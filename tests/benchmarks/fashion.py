"""Fashion-MNIST: the shipped classifier's accuracy, float and INT8, on all 10,000 test images.

Run from the repository root::

    python -m tests.benchmarks.fashion [--json FILE]

``models/fashion_resnet`` is quantized with the 256 committed calibration images. Columns: top-1
accuracy of both models; SQNR; the share of multiply-accumulates that runs in integer kernels; how
many times smaller the file is, and how many times faster the model (median of the rounds, least to
greatest). All 10,000 images come from Debian's ``dataset-fashion-mnist``; where it is not
installed, the 1,000 committed ones are taken, and the table says so.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from calibration_data.fashion_mnist.make import write_full_test
from models.packages import MissingPackageError
from onnxq.pipeline import QuantizeResult, RunOptions, quantize
from onnxq.recipe import Recipe
from onnxq.runtime.timing import TimingSettings
from tests.benchmarks.common import ROOT, THREADS, number, parser, show, times, write_json

if TYPE_CHECKING:
    from onnxq.verify.verification import Verification

MODEL: Final = ROOT / "models" / "fashion_resnet" / "fashion_resnet.onnx"
DATA: Final = ROOT / "calibration_data" / "fashion_mnist"

COLUMNS: Final = (
    "test images",
    "float accuracy",
    "INT8 accuracy",
    "points lost",
    "SQNR dB",
    "MACs integer",
    "x smaller",
    "x faster",
)


def run(test: Path, folder: Path, timing: TimingSettings) -> QuantizeResult:
    """Quantize, and measure on ``test.npy`` and ``test_labels.npy`` of the folder ``test``."""
    options = RunOptions(
        eval_data=test / "test.npy", labels=test / "test_labels.npy", timing=timing
    )
    # By name: on a busy machine `auto` may find that nothing pays.
    recipe = Recipe(scheme="int8")
    data, output = DATA / "calibration.npy", folder / "int8.onnx"
    return quantize(MODEL, data, output, recipe=recipe, options=options)


def test_images(folder: Path) -> Path:
    """The folder with all test images, or that with the committed ones."""
    try:
        write_full_test(folder)
    except MissingPackageError:
        return DATA
    return folder


def row(images: int, found: Verification) -> tuple[str, ...]:
    """The figures for people."""
    floating, quantized = found.fidelity.float_accuracy, found.fidelity.quantized_accuracy
    share = found.kernels.mac_share
    lost = None if floating is None or quantized is None else 100 * (floating - quantized)
    return (
        f"{images:,}",
        number(floating, 4),
        number(quantized, 4),
        number(lost),
        number(found.fidelity.sqnr_db),
        "-" if share is None else f"{share:.1%}",
        number(found.float_bytes / found.quantized_bytes),
        times(None if found.latency is None else found.latency.ratio),
    )


def main() -> int:
    """Read the command line, measure and print; the status is 1 if nothing was quantized."""
    options = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="onnxq-fashion-") as text:
        folder = Path(text)
        test = test_images(folder / "test")
        images = len(np.load(test / "test_labels.npy"))
        found = run(test, folder, TimingSettings(threads=THREADS))
    if found.verification is None:
        sys.stderr.write("nothing was quantized\n")
        return 1
    notes = [] if test != DATA else ["dataset-fashion-mnist is not installed: committed images"]
    show("fashion_resnet", COLUMNS, [row(images, found.verification)], notes)
    figures = {"images": images, "verification": found.verification}
    write_json(options.json, "fashion", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
