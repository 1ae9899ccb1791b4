"""Which nodes compute in 16 bits, and the reason of each that does not; extrema are given."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.targets import HalfRules
from tests.given_half import half_plan, reasons
from tests.small_models import normal, normalized

LINEAR = "g (float[N, 8] x) => (float[N, 8] y) { h = MatMul(x, w) y = Relu(h) }"
W = normal(0, 8, 8)


def converted(text: str, seen: dict[str, tuple[float, float]], **weights: np.ndarray) -> set[str]:
    plan = half_plan(normalized(text, **weights), seen)
    ops = {site.name: site.op for site in plan.sites}
    return {ops[entry.node] for entry in plan.half_nodes}


def kept(text: str, **weights: np.ndarray) -> dict[str, str]:
    return reasons(half_plan(normalized(text, **weights)))


def test_everything_that_fits_is_converted() -> None:
    seen = {"x": (-3.0, 3.0), "h": (-9.0, 9.0)}
    assert converted(LINEAR, seen, w=W) == {"MatMul", "Relu"}


@pytest.mark.parametrize("peak", [32753.0, 65504.0, 1e9])
def test_what_was_seen_beyond_half_the_range_stays(peak: float) -> None:
    plan = half_plan(normalized(LINEAR, w=W), {"h": (-peak, 1.0)})
    assert reasons(plan).keys() == {"MatMul", "Relu"}
    assert (
        f"values of {peak:.3g} were seen in 'h', and float16 ends at 65504"
        in reasons(plan)["MatMul"]
    )
    assert not half_plan(normalized(LINEAR, w=W), {"h": (-32752.0, 1.0)}, "float16").sites[0].reason


def test_bfloat16_has_the_range_of_float32() -> None:
    assert not reasons(half_plan(normalized(LINEAR, w=W), {"h": (-1e9, 1.0)}, "bfloat16"))


def test_numbers_without_full_precision_stay() -> None:
    plan = half_plan(normalized(LINEAR, w=W), {"h": (-1e-6, 2e-5)})
    assert reasons(plan)["Relu"] == "only values below 6e-05 were seen in 'h'"


def test_what_is_handed_on_is_as_large() -> None:
    text = """g (float[2, 8] x) => (float[8, 2] y) {
        h = MatMul(x, w) t = Transpose(h) y = Neg(t)
    }"""
    assert converted(text, {"h": (-1e6, 1e6)}, w=W) == set()


def test_sums_and_squares_of_a_decomposed_normalization_stay() -> None:
    text = """g (float[N, 8] x) => (float[N, 8] y) {
        p = Identity(x) a = Add(p, p)
        m = ReduceMean<axes = [1]>(a) d = Sub(a, m) s = Pow(d, two)
        v = ReduceMean<axes = [1]>(s) e = Add(v, eps) r = Sqrt(e) q = Div(d, r) y = Mul(q, g)
    }"""
    weights = {"two": np.float32(2), "eps": np.float32(1e-12), "g": normal(1, 8)}
    model = normalized(text, **{k: np.asarray(v) for k, v in weights.items()})
    plan = half_plan(model)
    found = {(site.op, site.reason[:12]) for site in plan.sites if site.decision == "float"}
    assert found == {
        ("ReduceMean", "it adds up w"),
        ("Pow", "squares need"),
        ("Add", "100% of its "),
        ("Sqrt", "a small argu"),
        ("Div", "it divides b"),
    }
    # The first sum, the difference and the last product.
    assert [site.op for site in plan.sites if site.decision != "float"] == ["Add", "Sub", "Mul"]


def test_an_angle_is_computed_in_float32_from_the_first_number_on() -> None:
    text = """g (int64[N, 1] p, float[N, 4] x) => (float[N, 4] y) {
        f = Cast<to = 1>(p) a = MatMul(f, w) c = Concat<axis = 1>(a, a) t = Cos(c) y = Mul(x, t)
    }"""
    plan = half_plan(normalized(text, w=normal(0, 1, 2)))
    told = reasons(plan)
    assert told.keys() == {"Cast", "MatMul", "Concat", "Cos"}
    assert told["MatMul"] == "it computes what must be exact for who reads it"
    assert [entry.node for entry in plan.half_nodes] == [plan.sites[-1].name]


def test_a_length_is_not_rounded() -> None:
    text = """g (float[N, 4] x, float n) => (float[M, 4] y) {
        h = Mul(n, k) i = Cast<to = 7>(h) j = Reshape(i, one) e = Concat<axis = 0>(j, one)
        t = Tile(x, e) y = Neg(t)
    }"""
    told = kept(text, k=np.asarray(3.0, np.float32), one=np.array([1]))
    assert told["Mul"] == "it computes a length, an index or a condition, which must not be rounded"


def test_moving_between_float32_nodes_stays() -> None:
    text = """g (float[N, 4] x) => (float[4, N] y, float[N, 4] z) {
        e = Exp(x) t = Transpose(e) y = Log(t) z = Neg(x)
    }"""
    assert kept(text)["Transpose"] == "it only hands on what nodes in float32 read"


def test_constants_that_do_not_fit() -> None:
    text = "g (float[N, 4] x) => (float[N, 4] y) { y = Add(x, c) }"
    large = kept(text, c=np.array([1, 2, 3, 1e6], np.float32))["Add"]
    assert large == "1 values of its constant 'c' are too large for float16"
    tiny = kept(text, c=np.array([1, 2, 1e-9, 1e-9], np.float32))["Add"]
    assert tiny == "50% of its constant 'c' would become 0 in float16"
    few = kept(text, c=np.full(4, 1.3e-6, np.float32))["Add"]
    assert few.startswith("its constant 'c' would keep ")
    assert not kept(text, c=np.array([1, 2, 3, np.inf], np.float32))


BODY = """g (float[2, 8] x, bool c) => (float[2, 8] y) {
    h = MatMul(x, w)
    y = If (c) <
        then_branch = t () => (float[2, 8] o) { o = MatMul(h, v) },
        else_branch = e () => (float[2, 8] p) { p = Neg(h) }
    >
}"""


def test_bodies_are_not_observed() -> None:
    told = reasons(half_plan(normalized(BODY, w=W, v=W)))
    assert told["Neg"].startswith("it is in the body of If ")
    assert told["Neg"].endswith("where nothing is observed")
    wide = half_plan(normalized(BODY, w=W, v=W), name="bfloat16")
    assert reasons(wide).keys() == {"If"}
    assert len(wide.half_nodes) == 3


def test_rules_and_kernels() -> None:
    model = normalized(LINEAR, w=W)
    (name,) = (node.name or "" for node in model.graph if node.op_type == "Relu")
    assert reasons(half_plan(model, kept={name: "asked"})) == {"Relu": "asked"}
    rules = HalfRules(form="compute", kernels=("Relu",))
    told = reasons(half_plan(model, rules=rules))
    assert told == {"MatMul": "the target has no float16 kernel for MatMul"}
    declined = HalfRules(form="compute", declined={"MatMul": "it is broken"})
    assert reasons(half_plan(model, rules=declined)) == {"MatMul": "it is broken"}


def test_weights_are_stored_once_for_all_readers() -> None:
    text = """g (float[N, 32] x) => (float[N, 32] y, float[N, 32] z) {
        a = MatMul(x, w) y = Neg(a) b = MatMul(y, v) z = Exp(b)
    }"""
    model = normalized(text, w=normal(0, 32, 32), v=normal(1, 32, 32))
    plan = half_plan(model, {"b": (-1e6, 1e6)})
    # The second product stays float32; its weight is stored in 16 bits all the same.
    assert reasons(plan).keys() == {"MatMul", "Exp"}
    assert {entry.initializer for entry in plan.half_weights} == {"w", "v"}
