"""Peak memory does not grow with the number of samples, and the budget is kept."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# About 9 MB of probed tensors in each sample; all would be 600 MB for 64 of them.
SCRIPT = """
import json, sys
from collections.abc import Sequence
import numpy as np
from onnxq.calibration.collect import collect
from onnxq.calibration.requests import Channels, Distribution, Extrema
from onnxq.calibration.stats import Stats
from onnxq.runtime.machine import peak_rss_bytes
from onnxq.data import open_data
from onnxq.graph.structure import signature
from tests.small_models import normalized

class Samples(Sequence):
    def __init__(self, count):
        self.count = count
    def __len__(self):
        return self.count
    def __getitem__(self, seed):
        return {"x": np.random.default_rng(seed).normal(size=(1, 8, 256, 256)).astype("f4")}

text = "g (float[1, 8, 256, 256] x) => (float[1, 8, 256, 256] y) {" + " ".join(
    f"t{i} = {op}({'x' if i == 0 else f't{i - 1}'})"
    for i, op in enumerate(["Relu", "Sigmoid", "Tanh", "Neg"])
) + " y = Neg(t3) }"
model = normalized(text)
requests = [Distribution(f"t{i}") for i in range(4)] + [Extrema("x"), Channels("x", 1)]
data = open_data(Samples(int(sys.argv[1])), signature(model))
collect(model, requests, data, Stats("m", "d"), budget=int(sys.argv[2]))
print(json.dumps(peak_rss_bytes()))
"""


def peak(samples: int, budget: int) -> int:
    command = [sys.executable, "-c", SCRIPT, str(samples), str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout))


@pytest.mark.skipif(sys.platform == "win32", reason="the peak is read from the resource module")
def test_peak_memory_does_not_grow_with_the_samples() -> None:
    few, many = peak(8, 1 << 30), peak(64, 1 << 30)
    assert many <= 1.04 * few, f"{few / 1e6:.0f} MB for 8 samples, {many / 1e6:.0f} MB for 64"
