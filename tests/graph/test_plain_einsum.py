"""Einsum with a weight: every product with a matrix becomes MatMul; the reference is numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.graph.plain_einsum import as_product
from onnxq.graph.sites import find_sites
from tests.small_models import normal, normalized, run

SIZES = {"a": 2, "b": 3, "c": 4, "t": 3, "d": 4, "n": 2, "h": 3, "k": 5, "s": 2}
PRODUCTS = [
    "ab,bc->ac",
    "ab,cb->ac",
    "abd,dk->abk",
    "bc,ab->ac",
    "ab,bc",
    "abd, dk -> kab",
    "btd,dnh->btnh",
    "btd,dnh->bnth",
    "btd,nhd->bnth",
    "btnh,nhd->btd",
    "bnth,nhd->btd",
    "btnh,hnd->btd",
    "dnh,btd->btnh",
    "adb,dk->abk",
]


@pytest.mark.parametrize("equation", PRODUCTS)
def test_products(equation: str) -> None:
    place = 0 if equation in {"bc,ab->ac", "dnh,btd->btnh"} else 1
    terms = equation.replace(" ", "").split("->")[0].split(",")
    shapes = [tuple(SIZES[label] for label in term) for term in terms]
    arrays = [normal(i, *shape) for i, shape in enumerate(shapes)]
    wanted = np.einsum(equation.replace(" ", ""), *(a.astype(np.float64) for a in arrays))
    names = ["x", "x"]
    names[place] = "w"
    ins = ", ".join(map(str, shapes[1 - place]))
    outs = ", ".join(map(str, wanted.shape))
    text = f"""g (float[{ins}] x) => (float[{outs}] y) {{
        y = Einsum<equation = "{equation}">({names[0]}, {names[1]})
    }}"""
    model = normalized(text, w=arrays[place])
    assert "Einsum" not in [node.op_type for node in model.graph]
    (site,) = find_sites(model)
    assert (site.candidate, site.op, site.weight_axis) == (True, "MatMul", 1)
    found = run(model, {"x": arrays[1 - place]})[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rank", "known"), [(3, True), (2, True), (3, False)])
def test_dots_where_the_rank_is_known(rank: int, known: bool) -> None:
    x, weight = normal(0, *(2, 3, 4)[-rank:]), normal(1, 4, 2, 3)
    dims = ", ".join(map(str, x.shape))
    text = f"""g (float[{dims}] x, int64[R] shape) => (float[{dims[:-1]}2, 3] y) {{
        {"h = Relu(x)" if known else "h = Reshape(x, shape)"}
        y = Einsum<equation = "...d,dnh->...nh">(h, w)
    }}"""
    model = normalized(text.replace("R]", f"{'R' if not known else rank}]"), w=weight)
    assert ("Einsum" in [node.op_type for node in model.graph]) is not known
    wanted = np.einsum("...d,dnh->...nh", np.maximum(x, 0) if known else x, weight)
    found = run(model, {"x": x, "shape": np.asarray(x.shape)})[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("equation", "x", "w", "y"),
    [
        ("bhk,hkn->bhn", (2, 3, 5), (3, 5, 4), (2, 3, 4)),
        ("ab,bc->c", (2, 3), (3, 4), (4,)),
        ("ab,bc->a", (2, 3), (3, 4), (2,)),
        ("aab,bc->ac", (2, 2, 3), (3, 4), (2, 4)),
        ("ab,cd->abcd", (2, 3), (3, 4), (2, 3, 3, 4)),
        ("ab,bc->ac", (2, 1), (3, 4), (2, 4)),
    ],
)
def test_the_rest_is_declined_by_its_equation(
    equation: str, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...]
) -> None:
    dims = [", ".join(map(str, shape)) for shape in (x, y)]
    text = f"""g (float[{dims[0]}] x) => (float[{dims[1]}] y) {{
        y = Einsum<equation = "{equation}">(x, w)
    }}"""
    (site,) = find_sites(normalized(text, w=normal(0, *w)))
    assert site.reason == f"its equation {equation!r} is no product with a matrix"


def test_three_operands_are_declined() -> None:
    text = """g (float[2, 3] x, float[4, 5] z) => (float[2, 5] y) {
        y = Einsum<equation = "ab,bc,cd->ad">(x, w, z)
    }"""
    (site,) = find_sites(normalized(text, w=normal(0, 3, 4)))
    assert "ab,bc,cd->ad" in site.reason


def test_lengths_that_vary_and_zero_lengths() -> None:
    text = """g (float[B, T, 4] x) => (float[B, 2, T, 3] y) {
        y = Einsum<equation = "btd,dnh->bnth">(x, w)
    }"""
    weight = normal(1, 4, 2, 3)
    model = normalized(text, w=weight)
    for shape in ((1, 1, 4), (3, 7, 4), (0, 2, 4), (2, 0, 4)):
        x = normal(0, *shape)
        wanted = np.einsum("btd,dnh->bnth", x, weight)
        np.testing.assert_allclose(run(model, {"x": x})[0], wanted, rtol=1e-5, atol=1e-5)


def test_as_product() -> None:
    found = as_product("bnth", "nhd", "btd")
    assert found is not None
    assert (found.kept, found.contracted, found.free) == ("bt", "nh", "d")
    assert as_product("ab", "ab", "ab") is None
