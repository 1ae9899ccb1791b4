from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.errors import PlanError
from onnxq.graph.digest import digest
from onnxq.graph.io import to_bytes
from onnxq.passes.execute import execute
from onnxq.passes.insert_qdq import InsertQDQ
from onnxq.plan import EmbeddingEntry, Plan, Reader
from tests.given_stats import plan_for
from tests.small_models import graph_text, normal, normalized, run

if TYPE_CHECKING:
    import onnx_ir as ir

GRAPH = """g (float[N, 8] x) => (float[N, 4] y) {
    a = Gemm(x, w, b)
    r = Relu(a)
    y = Gemm(r, v)
}"""


def case() -> tuple[ir.Model, Plan]:
    model = normalized(GRAPH, w=normal(0, 8, 6), b=normal(1, 6), v=normal(2, 6, 4))
    return model, plan_for(model, {"x": (-2.0, 2.0), "r": (0.0, 4.0)})


def test_the_model_given_stays_as_it_is() -> None:
    model, plan = case()
    before = digest(model), dict(model.metadata_props), to_bytes(model)
    execute(plan, model)
    assert (digest(model), dict(model.metadata_props), to_bytes(model)) == before


def test_twice_gives_the_same_bytes() -> None:
    model, plan = case()
    assert to_bytes(execute(plan, model)) == to_bytes(execute(plan, model))


def test_metadata_is_added_to() -> None:
    model, plan = case()
    model.metadata_props["author"] = "nobody"
    found = execute(plan, model).metadata_props
    assert found["author"] == "nobody"
    assert found["onnxq.scheme"] == "int8"
    assert found["onnxq.sites"] == "2 of 2 quantized"
    assert found["onnxq.compared_on"] == "held-out samples"
    dependent = plan.model_copy(update={"independent": False})
    assert (
        "not independently verified"
        in execute(dependent, model).metadata_props["onnxq.compared_on"]
    )


def test_bounds_of_a_clip_that_is_absorbed_leave_the_file_too() -> None:
    text = """g (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) {
        c = Conv(x, w) r = Clip(c, zero, six) d = Conv(r, v) y = Tanh(d)
    }"""
    constants = {"zero": np.float32(0), "six": np.float32(6)}
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    model = normalized(text, w=normal(0, 4, 3, 1, 1), v=normal(1, 2, 4, 1, 1), **arrays)
    ranges = {"x": (-1.0, 1.0), "r": (0.0, 6.0), "d": (-1.0, 1.0)}
    result = execute(plan_for(model, ranges), model)
    assert "Clip" not in [node.op_type for node in result.graph]
    assert all(value.uses() for value in result.graph.initializers.values())


def test_an_input_that_a_node_does_not_have_is_named() -> None:
    model, plan = case()
    (first, *rest) = plan.weights
    readers = (Reader(node=first.readers[0].node, input=7),)
    wrong = plan.model_copy(
        update={"weights": (first.model_copy(update={"readers": readers}), *rest)}
    )
    with pytest.raises(PlanError, match="input 7 of node"):
        execute(wrong, model)


def test_an_empty_plan_changes_nothing_but_metadata() -> None:
    model, plan = case()
    nothing = plan.model_copy(
        update={"activations": (), "weights": (), "biases": (), "absorbed": (), "arrays": {}}
    )
    assert graph_text(execute(nothing, model)) == graph_text(model)


def test_inputs_and_outputs_keep_names_types_and_order() -> None:
    model, plan = case()
    result = execute(plan, model)
    for mine, other in (
        (model.graph.inputs, result.graph.inputs),
        (model.graph.outputs, result.graph.outputs),
    ):
        assert [(v.name, v.type, v.shape) for v in mine] == [
            (v.name, v.type, v.shape) for v in other
        ]


def test_names_that_are_taken_already_are_left_alone() -> None:
    graph = """g (float[N, 8] x, float[N, 4] x_scale) => (float[N, 4] y) {
        w_quantized = MatMul(x, w)
        x_dequantized = Tanh(w_quantized)
        y = Add(x_dequantized, x_scale)
    }"""
    model = normalized(graph, w=normal(0, 8, 4))
    quantized = execute(plan_for(model, {"x": (-3.0, 3.0)}), model)
    feeds = {"x": normal(1, 5, 8), "x_scale": normal(2, 5, 4)}
    for level in ("none", "all"):
        found = run(quantized, feeds, "none" if level == "none" else "all")[0]
        assert np.abs(found - run(model, feeds)[0]).max() < 0.1


def changed(plan: Plan, field: str, **update: Any) -> Plan:
    """The plan with the first entry of a list changed."""
    entries = getattr(plan, field)
    return plan.model_copy(update={field: (entries[0].model_copy(update=update), *entries[1:])})


@pytest.mark.parametrize(
    ("field", "update", "named"),
    [
        ("activations", {"tensor": "nowhere"}, "nowhere"),
        ("activations", {"readers": (Reader(node="nobody", input=0),)}, "nobody"),
        ("weights", {"initializer": "x"}, "x"),
        ("weights", {"initializer": "v2"}, "v2"),
        ("biases", {"node": "nobody"}, "nobody"),
        ("absorbed", {"node": "nobody"}, "nobody"),
    ],
)
def test_a_name_that_the_model_lacks_is_refused(
    field: str, update: dict[str, Any], named: str
) -> None:
    model, plan = case()
    with pytest.raises(PlanError, match=named):
        execute(changed(plan, field, **update), model)


def test_a_missing_array_is_refused() -> None:
    model, plan = case()
    arrays = {key: value for key, value in plan.arrays.items() if key != "weight/w/scale"}
    with pytest.raises(PlanError, match="weight/w/scale"):
        execute(plan.model_copy(update={"arrays": arrays}), model)


def test_a_missing_table_is_refused() -> None:
    model, plan = case()
    entry = EmbeddingEntry(node="nobody", initializer="w")
    with pytest.raises(PlanError, match="embedding/w/scale"):
        execute(plan.model_copy(update={"embeddings": (entry,)}), model)


def test_every_pass_says_what_it_is() -> None:
    assert repr(InsertQDQ(case()[1])) == "InsertQDQ()"
