"""Chunks of groups along the graph: none reads what a later one computes, and they are few."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.algorithms.block_order import MOST_CHUNKS, chunks, chunks_in_sequence, depths_of
from onnxq.algorithms.block_plan import BlockPlanner, BlockSpec
from onnxq.graph.sites import find_sites
from tests.algorithms.test_scaling_groups import layer
from tests.small_models import normal, normalized

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxq.algorithms.block_plan import BlockGroup

SPEC = BlockSpec(4, 16, symmetric=False, algorithm="rtn")
EVERYTHING = 1 << 40


def groups_of(model: ir.Model) -> list[BlockGroup]:
    sites = find_sites(model)
    specs = {site.name: SPEC for site in sites if site.candidate}
    return [group for group in BlockPlanner(model, sites, specs).groups if group.tensor]


def chain(length: int) -> ir.Model:
    """Products one behind the other, two of them on each activation."""
    lines, now = [], "x"
    for place in range(length):
        lines.append(f"a{place} = MatMul({now}, v{place}) b{place} = MatMul({now}, w{place})")
        lines.append(f"h{place} = Add(a{place}, b{place})")
        now = f"h{place}"
    text = f"g (float[N, 4] x) => (float[N, 4] {now}) {{ {' '.join(lines)} }}"
    names = [f"{letter}{place}" for place in range(length) for letter in "vw"]
    return normalized(text, **{name: normal(n, 4, 4) for n, name in enumerate(names)})


def names(found: list[list[BlockGroup]]) -> list[list[str]]:
    return [[group.tensor for group in chunk] for chunk in found]


def test_depth_counts_the_products_in_front() -> None:
    model = layer()
    found = {group.tensor: depth for group, depth in depths_of(model, groups_of(model)).items()}
    assert found == {"n": 0, "a": 1, "m": 2, "e": 3}


def test_products_that_nobody_quantizes_are_no_depth() -> None:
    model = layer()
    groups = [group for group in groups_of(model) if group.tensor in {"n", "e"}]
    assert list(depths_of(model, groups).values()) == [0, 1]


def test_what_a_subgraph_reads_lies_in_front() -> None:
    text = """g (bool c, float[N, 4] x) => (float[N, 4] y, float[N, 4] z) {
        z = MatMul(x, u)
        h = MatMul(x, v)
        t = If(c) <then_branch = p () => (float[N, 4] r) { r = Tanh(h) },
                   else_branch = q () => (float[N, 4] s) { s = Neg(h) }>
        y = MatMul(t, w)
    }"""
    model = normalized(text, u=normal(0, 4, 4), v=normal(1, 4, 4), w=normal(2, 4, 4))
    found = {group.tensor: depth for group, depth in depths_of(model, groups_of(model)).items()}
    assert found == {"x": 0, "t": 1}


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 50), st.sampled_from([1, 300, EVERYTHING]))
def test_chunks_follow_the_graph_and_are_bounded(length: int, budget: int) -> None:
    model = chain(length)
    groups = groups_of(model)
    assert len(groups) == length
    found = chunks_in_sequence(model, groups[::-1], budget)
    place = {group: number for number, chunk in enumerate(found) for group in chunk}
    depths = depths_of(model, groups)
    assert sorted(place, key=groups.index) == groups
    assert all(
        place[one] <= place[other]
        for one in groups
        for other in groups
        if depths[one] <= depths[other]
    )
    if budget == EVERYTHING:
        assert len(found) <= MOST_CHUNKS
        assert len(found) == min(length, -(-length // -(-length // MOST_CHUNKS)))
    for chunk in found:
        held = sum(group.moment_bytes for group in chunk)
        assert len(chunk) == 1 or held + max(g.solving_bytes for g in chunk) <= budget


def test_a_budget_divides_what_could_be_observed_at_once() -> None:
    groups = groups_of(layer())
    sizes = [group.moment_bytes for group in groups]
    assert names(list(chunks(groups, EVERYTHING))) == [["n", "a", "m", "e"]]
    budget = sizes[0] + sizes[1] + max(groups[0].solving_bytes, groups[1].solving_bytes)
    assert names(list(chunks(groups, budget))) == [["n", "a"], ["m"], ["e"]]
    assert names(list(chunks(groups, budget - 1)))[0] == ["n"]
    assert names(list(chunks(groups, 1))) == [["n"], ["a"], ["m"], ["e"]]
    assert list(chunks([], 1)) == []
