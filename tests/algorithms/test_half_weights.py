"""Which constants are stored in 16 bits, and what that makes of the nodes that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.algorithms.half_weights import Fits, decide_half_weights
from onnxq.graph.float_nodes import find_readers_of_weights
from onnxq.numerics.half import HALF_TYPES
from tests.small_models import normal, normalized

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import onnx_ir as ir

TEXT = """g (float[N, 32] x) => (float[N, 32] y, float[32, 32] out) {
    a = MatMul(x, w) b = Add(a, c) d = MatMul(b, v) e = MatMul(d, s) y = Mul(e, e)
    out = Identity(w2)
}"""


def decide(model: ir.Model, kept: Mapping[str, str]) -> tuple[set[str], dict[str, str]]:
    sites = find_readers_of_weights(model)
    fits = Fits(HALF_TYPES["float16"])
    entries, decisions = decide_half_weights(model, sites, kept, fits)
    told = {d.site.name: d.reason for d in decisions}
    assert all(bool(d.reason) != d.quantize for d in decisions)
    return {entry.initializer for entry in entries}, told


def model_of(**changed: np.ndarray) -> ir.Model:
    weights = {
        "w": normal(0, 32, 32),
        "c": normal(1, 32, 32)[:1],
        "v": normal(2, 32, 32),
        "s": normal(3, 32, 32),
        "w2": normal(4, 32, 32),
    }
    return normalized(TEXT, **{**weights, **changed})


def test_every_constant_that_is_worth_it() -> None:
    stored, told = decide(model_of(), {})
    # `c` has 32 elements.
    assert stored == {"w", "v", "s", "w2"}
    assert list(told.values()) == ["", "", "", ""]


def test_what_does_not_fit_stays_with_the_reason() -> None:
    stored, told = decide(model_of(v=normal(2, 32, 32) * 1e5), {})
    assert stored == {"w", "s", "w2"}
    (reason,) = filter(None, told.values())
    assert "values of its constant 'v' are too large for float16" in reason


def test_what_a_rule_keeps_stays() -> None:
    model = model_of()
    (name,) = (n.name or "" for n in model.graph if [v and v.name for v in n.inputs] == ["d", "s"])
    stored, told = decide(model, {name: "asked"})
    assert stored == {"w", "v", "w2"}
    assert told[name] == "asked"


def test_any_operator_that_reads_a_large_constant() -> None:
    text = """g (float[1, 3, 8] x) => (float[1, 1, 3, 8] y) {
        y, h = LSTM<hidden_size = 8>(x, w, r)
    }"""
    model = normalized(text, w=normal(0, 1, 32, 8), r=normal(1, 1, 32, 8))
    stored, told = decide(model, {})
    assert stored == {"w", "r"}
    assert len(told) == 1
