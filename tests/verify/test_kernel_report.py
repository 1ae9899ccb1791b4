"""The count of sites in integer kernels, on plans that ONNX Runtime fuses and that it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.graph.io import save
from onnxq.graph.sites import find_sites
from onnxq.passes.execute import execute
from onnxq.verify.kernels import report_kernels
from tests.given_stats import plan_for
from tests.small_models import normal, normalized

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

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


def test_without_macs_there_is_no_share(tmp_path: Path) -> None:
    model, plan = case()
    save(execute(plan, model), tmp_path / "m.onnx")
    assert report_kernels(tmp_path / "m.onnx", plan, {}).mac_share is None
