"""Adds written as Sums: the graph, the numbers, what is fused, what must not change."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.algorithms.keep_apart import SKIP_NORM, find_kept_apart
from onnxq.algorithms.selection import select
from onnxq.errors import PlanError
from onnxq.graph.io import to_bytes
from onnxq.graph.normalize import normalize
from onnxq.graph.sites import find_sites
from onnxq.passes.execute import execute
from onnxq.passes.keep_apart import KeepApart
from onnxq.plan import KeptApartEntry
from onnxq.runtime.kernels import executed
from onnxq.targets import load_target
from tests.given_stats import plan_for
from tests.small_models import graph_text, normal, normalized, proto, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from onnxq.plan import Plan
    from onnxq.runtime.session import Optimization

BLOCK = """g (float[1, L, 8] x) => (float[1, L, 8] y) {
    a = MatMul(x, w)
    s = Add(a, x)
    n = LayerNormalization<axis = -1, epsilon = 1e-12>(s, g1, b1)
    m = MatMul(n, v)
    t = Add(n, m)
    y = LayerNormalization<axis = -1, epsilon = 1e-12>(t, g2, b2)
}"""
WEIGHTS = {
    "w": normal(0, 8, 8),
    "v": normal(1, 8, 8),
    **{name: normal(seed, 8) for seed, name in enumerate(("g1", "b1", "g2", "b2"), start=2)},
}
RANGES = {"x": (-3.0, 3.0), "n": (-5.0, 5.0)}


def kept_apart(model: ir.Model, ranges: Mapping[str, tuple[float, float]]) -> Plan:
    """The plan from given ranges, with what is kept apart."""
    target = load_target("cpu")
    selection = select(model, find_sites(model), target, {})
    entries = find_kept_apart(model, selection, target)
    return plan_for(model, ranges).model_copy(update={"kept_apart": entries})


def fused(model: ir.Model) -> int:
    return sum(node.op == SKIP_NORM for node in executed(to_bytes(model)))


def test_residual_blocks() -> None:
    model = normalized(BLOCK, **WEIGHTS)
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        DequantizeLinear(x_quantized, x_scale, x_zero_point) -> x_dequantized
        DequantizeLinear(v_quantized, v_scale, v_zero_point) -> v_dequantized
        DequantizeLinear(w_quantized, w_scale, w_zero_point) -> w_dequantized
        MatMul(x_dequantized, w_dequantized) -> a
        Sum(a, x) -> s
        LayerNormalization(s, g1, b1) -> n
        QuantizeLinear(n, n_scale, n_zero_point) -> n_quantized
        DequantizeLinear(n_quantized, n_scale, n_zero_point) -> n_dequantized
        MatMul(n_dequantized, v_dequantized) -> m
        Sum(n, m) -> t
        LayerNormalization(t, g2, b2) -> y
        """
    assert graph_text(execute(kept_apart(model, RANGES), model)) == dedent(expected).strip()


@pytest.mark.parametrize("level", ["none", "all"])
def test_a_float_model_computes_the_same(level: Optimization) -> None:
    model = normalized(BLOCK, **WEIGHTS)
    apart = KeepApart(kept_apart(model, RANGES))(model.clone()).model
    feeds = {"x": normal(9, 1, 5, 8)}
    expected, found = run(model, feeds, level)[0], run(apart, feeds, level)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("level", ["none", "all"])
def test_a_quantized_model_computes_the_same(level: Optimization) -> None:
    model = normalized(BLOCK, **WEIGHTS)
    feeds = {"x": normal(9, 1, 5, 8)}
    expected = run(execute(plan_for(model, RANGES), model), feeds, level)[0]
    found = run(execute(kept_apart(model, RANGES), model), feeds, level)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_sums_broadcast_as_adds_do() -> None:
    text = """g (float[3, 1, 8] x, float[5, 8] z) => (float[3, 5, 8] y) {
        s = Add(x, z)
        y = LayerNormalization(s, g1, b1)
    }"""
    model = normalized(text, g1=WEIGHTS["g1"], b1=WEIGHTS["b1"])
    apart = KeepApart(kept_apart(model, {}))(model.clone()).model
    assert [node.op_type for node in apart.graph] == ["Sum", "LayerNormalization"]
    feeds = {"x": normal(0, 3, 1, 8), "z": normal(1, 5, 8)}
    np.testing.assert_allclose(run(apart, feeds)[0], run(model, feeds)[0], rtol=1e-6, atol=1e-6)


def test_the_runtime_fuses_adds_and_not_sums() -> None:
    """Were the one no longer so, the pass would be of no use; were the other, it would not work."""
    model = normalized(BLOCK, **WEIGHTS)
    assert fused(model) == fused(execute(plan_for(model, RANGES), model)) == 2
    apart = KeepApart(kept_apart(model, RANGES))(model.clone()).model
    assert fused(apart) == fused(execute(kept_apart(model, RANGES), model)) == 0


def test_an_output_keeps_its_name_and_all_that_is_said_of_it() -> None:
    text = BLOCK.replace("=> (float[1, L, 8] y)", "=> (float[1, L, 8] s, float[1, L, 8] y)")
    described = proto(text, **WEIGHTS)
    output = described.graph.output[0]
    output.doc_string, output.type.denotation = "the sum", "FEATURE"
    output.metadata_props.add(key="unit", value="none")
    model = normalize(ir.serde.deserialize_model(described)).model
    before = onnx.load_from_string(to_bytes(model))
    plan = kept_apart(model, RANGES)
    assert len(plan.kept_apart) == 2
    after = onnx.load_from_string(to_bytes(execute(plan, model)))
    assert list(after.graph.output) == list(before.graph.output) == list(described.graph.output)
    assert list(after.graph.input) == list(before.graph.input)
    assert {node.op_type for node in after.graph.node if "s" in node.output} == {"Sum"}


def test_names_of_nodes_stay_and_nothing_else_changes() -> None:
    model = normalized(BLOCK, **WEIGHTS)
    plan = kept_apart(model, RANGES)
    apart = KeepApart(plan)(model.clone()).model
    renamed = {entry.node for entry in plan.kept_apart}

    def described(graph: ir.Graph) -> list[tuple[Any, ...]]:
        return [
            (
                node.name,
                "Add" if node.name in renamed and node.op_type == "Sum" else node.op_type,
                [value.name if value else "" for value in node.inputs],
                [(v.name, v.dtype, v.shape) for v in node.outputs],
                {name: str(value) for name, value in node.attributes.items()},
            )
            for node in graph
        ]

    assert described(apart.graph) == described(model.graph)


def test_a_plan_without_entries_changes_nothing() -> None:
    model = normalized(BLOCK, **WEIGHTS)
    assert not KeepApart(plan_for(model, RANGES))(model.clone()).modified
    assert KeepApart(kept_apart(model, RANGES))(model.clone()).modified


def test_a_node_that_the_model_does_not_have_is_refused() -> None:
    model = normalized(BLOCK, **WEIGHTS)
    entry = KeptApartEntry(node="nowhere", op="Sum")
    plan = plan_for(model, RANGES).model_copy(update={"kept_apart": (entry,)})
    with pytest.raises(PlanError, match="nowhere"):
        execute(plan, model)


def test_the_model_given_is_not_changed() -> None:
    model = normalized(BLOCK, **WEIGHTS)
    before: NDArray[Any] = np.frombuffer(to_bytes(model), np.uint8)
    execute(kept_apart(model, RANGES), model)
    np.testing.assert_array_equal(np.frombuffer(to_bytes(model), np.uint8), before)
