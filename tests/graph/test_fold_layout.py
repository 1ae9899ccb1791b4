"""Rearranged weights become plain ones, whatever stands in between; numbers against numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxq.graph import edit
from onnxq.graph.derived import Converted, Deriver, Reshaped, Step, Transposed, origin_of
from onnxq.graph.sites import find_sites
from tests.small_models import normal, normalized

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGE = (640, 512)


def _weight(model: ir.Model, op: str = "MatMul") -> NDArray[Any]:
    node = next(node for node in model.graph if node.op_type == op)
    array = edit.constant_array(node.inputs[1])
    assert array is not None
    return array


CHAINS = {
    "t = Transpose<perm = [1, 0]>(w)": (6, 8),
    "a = Identity(w) b = Transpose<perm = [1, 0]>(a) t = Identity(b)": (6, 8),
    "a = Cast<to = 11>(w) b = Transpose<perm = [1, 0]>(a) t = Cast<to = 1>(b)": (6, 8),
    "a = Unsqueeze(w, zero) b = Transpose<perm = [0, 2, 1]>(a) t = Squeeze(b, zero)": (6, 8),
    "a = Flatten<axis = 1>(w) t = Transpose(a)": (6, 2, 4),
    "a = Reshape(w, back) t = Transpose(a)": (2, 3, 8),
    "s = Constant<value = int64[2] {0, -1}>() a = Reshape(w, s) t = Transpose(a)": (6, 2, 4),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_chains(chain: str) -> None:
    weight = normal(0, *CHAINS[chain])
    text = f"g (float[N, 8] x) => (float[N, 6] y) {{ {chain} y = MatMul(x, t) }}"
    constants = {"zero": np.asarray([0]), "back": np.asarray([6, 8])}
    model = normalized(text, w=weight, **constants)
    assert [node.op_type for node in model.graph] == ["MatMul"]
    np.testing.assert_array_equal(_weight(model), weight.reshape(6, 8).T)
    (site,) = find_sites(model)
    assert site.candidate


def test_large_weights_stay_lazy() -> None:
    weight = normal(0, *LARGE)
    text = "g (float[N, 512] x) => (float[N, 640] y) { t = Transpose(w) y = MatMul(x, t) }"
    model = normalized(text, w=weight)
    (value,) = model.graph.initializers.values()
    assert isinstance(value.const_value, ir.LazyTensor)
    np.testing.assert_array_equal(_weight(model), weight.T)


def test_tied_embedding_gives_two_candidates() -> None:
    text = """g (int64[N] ids) => (float[N, 640] y) {
        e = Gather(table, ids) t = Transpose(table) y = MatMul(e, t)
    }"""
    model = normalized(text, table=normal(0, *LARGE))
    assert [node.op_type for node in model.graph] == ["Gather", "MatMul"]
    lookup, head = find_sites(model)
    assert (lookup.candidate, head.candidate) == (True, True)
    assert (lookup.weight, lookup.weight_axis) == ("table", 0)
    assert (head.weight, head.weight_axis, head.readers) == ("table.transpose", 1, (head.name,))


def test_one_rearrangement_for_all_its_readers() -> None:
    text = """g (float[N, 512] x) => (float[N, 640] y, float[N, 640] z, float[N, 512] v) {
        t = Transpose(w) y = MatMul(x, t) u = Transpose(w) r = Relu(x) z = MatMul(r, u)
        k = Transpose(t) v = MatMul(y, k)
    }"""
    model = normalized(text, w=normal(0, *LARGE))
    assert set(model.graph.initializers) == {"w", "w.transpose"}


def test_an_output_stays() -> None:
    text = (
        "g (float[N, 8] x) => (float[8, 6] t, float[N, 6] y) { t = Transpose(w) y = MatMul(x, t) }"
    )
    model = normalized(text, w=normal(0, 6, 8))
    assert [node.op_type for node in model.graph] == ["Transpose", "MatMul"]
    (site,) = find_sites(model)
    assert "passes through Transpose" in site.reason


def test_cast_overflows_as_the_operator_does() -> None:
    text = """g (float16[N, 2] x) => (float16[N, 1] y) {
        t = Cast<to = 10>(w) y = MatMul(x, t)
    }"""
    model = normalized(text, w=np.asarray([[1e6], [1]], np.float32))
    assert np.isinf(_weight(model)).tolist() == [[True], [False]]


@given(st.lists(st.sampled_from(["swap", "flat", "back", "f64", "f32"]), max_size=8))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_steps_shorten_to_the_same(names: list[str]) -> None:
    """Any sequence of steps gives what the steps give one by one, and names its origin."""
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 17}, name="g"), ir_version=8)
    array: NDArray[Any] = normal(0, 3, 4)
    source = edit.initializer(model, "w", array)
    derive = Deriver(model)
    value, wanted = source, array
    for name in names:
        steps: dict[str, Step] = {
            "swap": Transposed(tuple(range(wanted.ndim))[::-1]),
            "flat": Reshaped((12,)),
            "back": Reshaped((4, 3)),
            "f64": Converted(ir.DataType.DOUBLE),
            "f32": Converted(ir.DataType.FLOAT),
        }
        wanted = steps[name].of(wanted)
        value = derive(value, (steps[name],), name)
    found = edit.constant_array(value)
    assert found is not None
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
    origin = origin_of(value)
    assert value is source if origin is None else origin.name == "w"
