"""Real models compute the same when every group is scaled; what folds is counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.build import CACHE
from onnxq.graph.io import load
from onnxq.graph.normalize import normalize
from tests.foldable import groups_of, scaled
from tests.small_models import run

if TYPE_CHECKING:
    from onnxq.algorithms.scaling_groups import ScalingGroup

FOLDED = {
    # Queries, keys and values; output; gate and up; down: of 30 layers. Then the tied head.
    "smollm2": {(3, True): 30, (1, True): 60, (2, True): 30, (1, False): 1},
    # The values of six layers; what normalizations give is read by a residual, too.
    "minilm": {(3, False): 6, (1, True): 6, (1, False): 12},
    "ppocr_v6": {(1, True): 15, (1, False): 35, (2, False): 1},
    "efficientnet_lite0": {(1, True): 2, (1, False): 32},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDED)
def test_a_real_model_computes_the_same(name: str) -> None:
    folder = CACHE / name
    if not (folder / "model.onnx").exists():
        pytest.skip(f"{name} is not built; `python -m models.build {name}` builds it")
    model = normalize(load(folder / "model.onnx")).model
    groups = groups_of(model)
    assert Counter(map(_kind, groups)) == FOLDED[name]
    result = scaled(model, [group for group in groups if not group.reason])
    samples = [dict(np.load(path)) for path in sorted((folder / "evaluation").glob("*.npz"))[:2]]
    # One model at a time is in memory.
    before = [run(model, feeds, "all") for feeds in samples]
    for feeds, expected in zip(samples, before, strict=True):
        for one, other in zip(expected, run(result, feeds, "all"), strict=True):
            error = np.linalg.norm(np.asarray(other - one, np.float64))
            assert error <= 1e-4 * np.linalg.norm(np.asarray(one, np.float64))


def _kind(group: ScalingGroup) -> tuple[int, bool]:
    """How many sites it has, and whether it folds."""
    return len(group.sites), bool(group.fold.parameters) and not group.reason
