"""A model whose site stays float is not larger than it was, and computes the same bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.graph.io import to_bytes
from onnxq.passes.restore_layout import RestoreLayout
from tests.small_models import Feeds, graph_text, normal, normalized, proto, run

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIED = """g (int64[N] ids) => (float[N, 96] y) {
    e = Gather(table, ids) t = Transpose(table) y = MatMul(e, t)
}"""
HALF = """g (float[N, 64] x) => (float[N, 96] y) {
    a = Cast<to = 1>(half) t = Transpose(a) y = MatMul(x, t)
}"""
TWICE = """g (float[N, 64] x) => (float[N, 64] y) {
    shape = Constant<value_ints = [96, 64]>()
    m = Reshape(w, shape) t = Transpose(m) h = MatMul(x, t) r = Relu(h) y = MatMul(r, m)
}"""
ALONE = "g (float[N, 64] x) => (float[N, 96] y) { t = Transpose(w) y = MatMul(x, t) }"
TABLE = normal(0, 96, 64)
X: Feeds = {"x": normal(1, 5, 64)}
IDS: Feeds = {"ids": np.asarray([3, 0, 95])}
CASES: dict[str, tuple[str, dict[str, NDArray[Any]], Feeds, list[str]]] = {
    "tied": (TIED, {"table": TABLE}, IDS, ["Transpose", "Gather", "MatMul"]),
    "stored as float16": (
        HALF,
        {"half": TABLE.astype(np.float16)},
        X,
        ["Cast", "Transpose", "MatMul"],
    ),
    "in two ways": (
        TWICE,
        {"w": TABLE.reshape(96, 8, 8)},
        X,
        ["Reshape", "Reshape", "Transpose", "MatMul", "Relu", "MatMul"],
    ),
    "alone": (ALONE, {"w": TABLE}, X, ["MatMul"]),
}


@pytest.mark.parametrize("name", CASES)
def test_not_larger_and_equal_bit_for_bit(name: str) -> None:
    text, weights, feeds, ops = CASES[name]
    original = ir.serde.deserialize_model(proto(text, **weights))
    model = RestoreLayout()(normalized(text, **weights).clone()).model
    assert sorted(node.op_type for node in model.graph) == sorted(ops)
    assert len(to_bytes(model)) <= len(to_bytes(original)) + 500
    for level in ("none", "all"):
        found = run(model, feeds, "none" if level == "none" else "all")
        wanted = run(original, feeds, "none" if level == "none" else "all")
        np.testing.assert_array_equal(found[0], wanted[0])


def test_what_nobody_reads_any_more_is_not_restored() -> None:
    """The lookup alone reads the table: there is nothing to rearrange."""
    model = normalized(TIED, table=TABLE)
    head = next(node for node in model.graph if node.op_type == "MatMul")
    other = ir.Value(name="other", const_value=ir.tensor(normal(2, 64, 96), name="other"))
    model.graph.register_initializer(other)
    head.replace_input_with(1, other)
    model.graph.initializers.pop("table.transpose")
    before = graph_text(model)
    assert not RestoreLayout()(model).modified
    assert graph_text(model) == before
