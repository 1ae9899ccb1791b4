"""Pieces of a model compute what the whole computes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.graph.segment import Segments
from tests.small_models import normal, proto, run

TEXT = """g (float[n, 8] x) => (float[n, 8] y) {
    k = Constant<value = int64 {1}>()
    [scaled] s = Mul(w, w)
    [first] a = MatMul(x, s)
    [parts] p, q = Split<axis = 1>(a)
    [back] j = Concat<axis = 1>(q, p)
    [end] y = Add(j, a)
}"""
X, W = normal(0, 3, 8), normal(1, 8, 8)


def segments() -> Segments:
    return Segments(ir.serde.deserialize_model(proto(TEXT, w=W)))


def test_values_that_depend_on_an_input() -> None:
    found = segments()
    assert list(found.varying) == ["a", "p", "q", "j", "y"]
    assert found.ancestors("j") == {"a", "p", "q", "j"}
    assert found.producer("q").name == "parts"


def test_a_piece_runs_alone() -> None:
    piece = segments().cut(["y"], {"p", "q", "a"})
    assert piece.inputs == ("q", "p", "a")
    assert [node.name for node in piece.nodes] == ["back", "end"]
    a = X @ (W * W)
    (found,) = run(piece.model, {"a": a, "p": a[:, :4], "q": a[:, 4:]})
    np.testing.assert_allclose(found, np.hstack([a[:, 4:], a[:, :4]]) + a, rtol=1e-5)


def test_constants_belong_to_their_reader() -> None:
    piece = segments().cut(["a"], {"s", "a"})
    assert piece.inputs == ("x",)
    assert [node.name for node in piece.nodes] == ["scaled", "first"]
    np.testing.assert_allclose(run(piece.model, {"x": X})[0], X @ (W * W), rtol=1e-5)


def test_a_value_of_the_boundary_that_the_piece_makes_is_not_read_from_outside() -> None:
    piece = segments().cut(["q", "y"], {"p", "a"})
    assert piece.inputs == ("a",)
    a = X @ (W * W)
    q, y = run(piece.model, {"a": a})
    np.testing.assert_array_equal(q, a[:, 4:])
    np.testing.assert_allclose(y, np.hstack([a[:, 4:], a[:, :4]]) + a, rtol=1e-5)


def test_the_model_stays_as_it_is() -> None:
    model = ir.serde.deserialize_model(proto(TEXT, w=W))
    before = ir.serde.serialize_model(model).SerializeToString()
    Segments(model).cut(["y"], {"a"})
    assert ir.serde.serialize_model(model).SerializeToString() == before


def test_what_stands_for_a_quantized_value() -> None:
    text = """g (float[n, 8] x) => (float[n, 8] y, float[n, 8] b) {
        s = Constant<value = float {0.1}>()
        z = Constant<value = uint8 {0}>()
        a = MatMul(x, w)
        i = QuantizeLinear(a, s, z)
        d = DequantizeLinear(i, s, z)
        b = MatMul(d, w)
        j = QuantizeLinear(b, s, z)
        y = DequantizeLinear(j, s, z)
    }"""
    found = Segments(ir.serde.deserialize_model(proto(text, w=W)))
    assert found.read_as("a") == "d"
    # An output of the model is read as it is.
    assert found.read_as("b") == "b"
    assert found.read_as("d") == "d"
