"""SmolLM2 with all its linear layers and its tied table in blocks of 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.graph.edit import all_nodes_by_name, constant_array, value_by_name
from onnxq.graph.io import load, save
from onnxq.graph.normalize import normalize
from onnxq.graph.sites import find_sites
from onnxq.numerics.affine import fake_quantize, qparams_from_range, weight_range
from onnxq.numerics.schemes import PerBlock
from onnxq.passes.execute import execute
from onnxq.plan import BlockEmbeddingEntry, BlockEntry
from tests.passes.block_plans import Arrays, plan_of
from tests.small_models import run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.plan import Plan

MODEL = Path(__file__).parents[2] / "models" / ".cache" / "smollm2" / "model.onnx"
LAYERS = 211
"""Seven for each of 30 layers, and the head, which multiplies by the transposed table."""

ALIKE: dict[str, Any] = {"bits": 4, "symmetric": False, "block_size": 128}
"""K = 576 is no multiple of 128, and makes an odd number of blocks."""


def decided(model: ir.Model) -> tuple[Plan, dict[str, NDArray[np.float32]]]:
    """A plan of the least and greatest value of each block, and the weights it stands for."""
    values, nodes = value_by_name(model.graph), all_nodes_by_name(model)
    arrays: Arrays = {}
    entries, weights = [], {}
    (lookup,) = (site for site in find_sites(model) if site.op == "Gather")
    for site in find_sites(model):
        if site.name == lookup.name or not site.candidate:
            continue
        name = site.weight or ""
        place = nodes[site.name].inputs.index(values[name])
        axis = site.weight_axis or 0
        entry = BlockEntry(
            node=site.name,
            initializer=name,
            activation=1 - place,
            weight=place,
            axis=axis,
            accuracy_level=1,
            **ALIKE,
        )
        entries.append(entry)
        weight = np.asarray(constant_array(values[name]), np.float32)
        layout = entry.layout(weight.shape)
        matrix = np.ascontiguousarray(layout.matrix(weight))
        scheme = entry.scheme(PerBlock(entry.block_size, 1))
        params = qparams_from_range(*weight_range(matrix, scheme.granularity), scheme)
        arrays[f"block/{name}/scale"] = params.scale
        arrays[f"block/{name}/zero_point"] = params.zero_point.astype(np.uint8)
        weights[name] = layout.restore(fake_quantize(matrix, params))
    table = lookup.weight or ""
    head = entries[-1].initializer
    weights[table] = weights[head].T
    row = BlockEmbeddingEntry(node=lookup.name, initializer=table, stored=head, **ALIKE)
    return plan_of(arrays, entries, [row]), weights


@pytest.mark.slow
@pytest.mark.skipif(not MODEL.exists(), reason="`python -m models.build smollm2` builds it")
def test_smollm2_is_its_dequantized_float_model(tmp_path: Path) -> None:
    model = normalize(load(MODEL)).model
    plan, weights = decided(model)
    assert len(plan.blocks) == LAYERS
    save(execute(plan, model), tmp_path / "q.onnx")
    assert (tmp_path / "q.onnx").stat().st_size < 80e6
    for name, weight in weights.items():
        model.graph.initializers[name].const_value = ir.Tensor(np.ascontiguousarray(weight))
    save(model, tmp_path / "f.onnx", external_threshold=0)
    ids = np.random.default_rng(0).integers(0, 49_152, (1, 12))
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    expected = run(tmp_path / "f.onnx", feeds, "all")[0]
    found = run(tmp_path / "q.onnx", feeds, "all")[0]
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
