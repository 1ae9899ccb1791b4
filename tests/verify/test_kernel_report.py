"""The count of sites in integer kernels, on plans that ONNX Runtime fuses and that it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxq.graph.io import save
from onnxq.graph.normalize import normalize
from onnxq.graph.opset import raise_opset
from onnxq.graph.sites import find_sites
from onnxq.passes.execute import execute
from onnxq.plan import BlockEmbeddingEntry, BlockEntry
from onnxq.runtime.kernels import executed
from onnxq.verify.kernels import report_kernels
from tests.given_stats import plan_for
from tests.passes.block_plans import drawn, plan_of
from tests.small_models import normal, normalized, proto

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.plan import Plan

GRAPH = """g (float[1, 3, 8, 8] x) => (float[1, 5] y) {
    c = Conv(x, w)
    r = Relu(c)
    p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
    f = Flatten(p)
    y = Gemm(f, v, b)
}"""
RANGES = {"x": (-3.0, 3.0), "r": (0.0, 6.0)}


def case() -> tuple[ir.Model, Plan]:
    weights = {"w": normal(0, 4, 3, 1, 1), "v": normal(1, 64, 5), "b": normal(2, 5)}
    model = normalized(GRAPH, **weights)
    return model, plan_for(model, RANGES)


def test_all_planned_sites_run_in_integers(tmp_path: Path) -> None:
    model, plan = case()
    save(execute(plan, model), tmp_path / "m.onnx")
    macs = {site.name: site.macs or 0 for site in find_sites(model)}
    assert list(macs.values()) == [64 * 3 * 4, 64 * 5]
    found = report_kernels(tmp_path / "m.onnx", plan, macs)
    assert (found.planned, found.integer, found.missed) == (2, 2, ())
    assert found.mac_share == 1.0
    assert found.by_op["QLinearConv"] == 1
    assert found.by_op["QGemm"] == 1
    # The input is converted once; Gemm gives float by itself.
    assert (found.conversions, found.behind) == (1, {})


def test_a_site_that_does_not_fuse_is_named(tmp_path: Path) -> None:
    """Without the quantizer in front of the Conv there is no kernel for it."""
    model, plan = case()
    conv, gemm = (site.name for site in find_sites(model))
    broken = plan.model_copy(
        update={
            "activations": tuple(entry for entry in plan.activations if entry.tensor != "x"),
        }
    )
    save(execute(broken, model), tmp_path / "m.onnx")
    found = report_kernels(tmp_path / "m.onnx", broken, {conv: 300, gemm: 100})
    assert found.missed == (conv,)
    assert (found.planned, found.integer) == (2, 1)
    assert found.mac_share == 0.25
    # The Conv's float output is converted to integers behind it, its weight from them.
    assert found.behind == {"Conv": 1}
    assert found.conversions == 2


def test_without_macs_there_is_no_share(tmp_path: Path) -> None:
    model, plan = case()
    save(execute(plan, model), tmp_path / "m.onnx")
    assert report_kernels(tmp_path / "m.onnx", plan, {}).mac_share is None


def test_conversions_for_operators_that_stay_float_are_counted(tmp_path: Path) -> None:
    """Between the two Convs, Sigmoid, Mul and Tanh read what the first one's integers stand for."""
    text = """g (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y, float[1, 4, 8, 8] z) {
        c = Conv(x, w)
        s = HardSigmoid(c)
        m = Mul(c, s)
        z = Elu(c)
        d = Conv(m, v)
        y = Elu(d)
    }"""
    model = normalized(text, w=normal(0, 4, 3, 1, 1), v=normal(1, 4, 4, 1, 1))
    plan = plan_for(model, {"x": (-3, 3), "c": (-5, 5), "m": (-1, 5), "d": (-5, 5)})
    save(execute(plan, model), tmp_path / "m.onnx")
    found = report_kernels(tmp_path / "m.onnx", plan, {})
    assert (found.planned, found.integer) == (2, 2)
    assert found.behind == {"Elu": 2, "HardSigmoid": 1, "Mul": 1}
    assert next(iter(found.behind)) == "Elu"
    nodes = executed(tmp_path / "m.onnx")
    converting = [node for node in nodes if node.op in ("QuantizeLinear", "DequantizeLinear")]
    assert found.conversions == len(converting)
    assert found.conversions >= 4


def test_a_float_model_converts_nothing(tmp_path: Path) -> None:
    model, plan = case()
    save(model, tmp_path / "m.onnx")
    found = report_kernels(tmp_path / "m.onnx", plan, {})
    assert (found.integer, found.conversions, found.behind) == (0, 0, {})
    assert len(found.missed) == found.planned == 2


def test_products_and_lookups_in_blocks_and_folded_weights_are_counted(tmp_path: Path) -> None:
    arrays, table = drawn("t.transpose", 30, 32, 4, 16, symmetric=False)
    more, matrix = drawn("w", 32, 32, 4, 16, symmetric=False)
    text = """g (int64[B] i) => (float[B, 30] y) {
        e = Gather(t, i)
        h = MatMul(e, w)
        u = Transpose<perm = [1, 0]>(t)
        y = MatMul(h, u)
    }"""
    constants = {"t": table.astype(np.float32), "w": matrix.T.astype(np.float32)}
    model = normalize(raise_opset(ir.serde.deserialize_model(proto(text, **constants)), 21)).model
    gather, hidden, head = (node.name or "" for node in model.graph)
    alike: dict[str, Any] = {"bits": 4, "symmetric": False, "block_size": 16}
    right: dict[str, Any] = alike | {"activation": 0, "weight": 1, "axis": 1}
    blocks = (
        BlockEntry(node=head, initializer="t.transpose", form="kernel", **right),
        BlockEntry(node=hidden, initializer="w", form="folded", **right),
    )
    lookup = BlockEmbeddingEntry(node=gather, initializer="t", stored="t.transpose", **alike)
    plan = plan_of(arrays | more, blocks, [lookup])
    save(execute(plan, model), tmp_path / "m.onnx")
    found = report_kernels(tmp_path / "m.onnx", plan, {})
    assert (found.planned_blocks, found.blocks, found.missed) == (2, 2, ())
    assert (found.planned_folded, found.folded) == (1, 1)
    # A model in which nothing of this was done.
    save(model, tmp_path / "f.onnx")
    assert report_kernels(tmp_path / "f.onnx", plan, {}).missed == tuple(sorted((gather, head)))
