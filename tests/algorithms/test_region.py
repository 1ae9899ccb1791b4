"""The region without weights: the greatest set, in linear time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.algorithms.region import Region
from onnxq.algorithms.view import GraphView
from onnxq.graph.edit import consumers
from onnxq.targets import load_target

if TYPE_CHECKING:
    from collections.abc import Sequence

Edges = list[tuple[str, tuple[int, int]]]


def graph_of(edges: Sequence[tuple[str, tuple[int, int]]], outputs: int) -> ir.Model:
    """Nodes of two inputs each, which read the graph's input or an earlier node."""
    x = ir.val("x", ir.DataType.FLOAT, [4])
    values, nodes = [x], []
    for number, (op, (left, right)) in enumerate(edges):
        read = [values[left % len(values)]]
        if op in ("Add", "Mul", "Sub"):
            read.append(values[right % len(values)])
        output = ir.val(f"v{number}", ir.DataType.FLOAT, [4])
        nodes.append(ir.node(op, read, outputs=[output], name=f"n{number}"))
        values.append(output)
    graph = ir.Graph([x], values[-outputs:], nodes=nodes, opset_imports={"": 17}, name="g")
    return ir.Model(graph, ir_version=8)


def greatest(view: GraphView, quantized: set[str], read: set[str]) -> set[str]:
    """The greatest set by taking out until nothing changes: slow and plain."""
    region = Region(view, quantized.__contains__, lambda *_: False)
    members = {n.name or "": n for n in view.graph if region._may_join(n)}
    while True:
        stay = {}
        for name, node in members.items():
            sources = all(
                value.name in quantized or view.source(value) in members
                for _, value in region.data_inputs(node)
            )
            end = view.tail(name)[-1]
            readers = consumers(end)
            fits = bool(readers) and (end.name or "") not in view.protected
            fits = fits and all(r.name in members or r.name in read for r, _ in readers)
            if sources and fits:
                stay[name] = node
        if stay.keys() == members.keys():
            return set(members)
        members = stay


@given(
    edges=st.lists(
        st.tuples(
            st.sampled_from(["Add", "Mul", "Relu", "Sub", "Transpose", "Tanh"]),
            st.tuples(st.integers(0, 30), st.integers(0, 30)),
        ),
        min_size=1,
        max_size=20,
    ),
    marks=st.sets(st.integers(0, 20), max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_it_is_the_greatest_set(edges: Edges, marks: set[int]) -> None:
    view = GraphView(graph_of(edges, 1), load_target("cpu"))
    read = {f"n{number}" for number in marks}
    quantized = {f"v{number}" for number in marks} | {"x"}
    region = Region(view, quantized.__contains__, lambda _, node, __: node in read)
    found = {node.name or "" for node in region.members()}
    assert found == greatest(view, quantized, read)


def chain(length: int) -> float:
    """Seconds for a chain that falls apart node by node, from its end on."""
    edges = [("Add", (number, number)) for number in range(length)]
    view = GraphView(graph_of(edges, 1), load_target("cpu"))
    start = time.perf_counter()
    assert Region(view, {"x"}.__contains__, lambda *_: False).members() == []
    return time.perf_counter() - start


def test_a_chain_of_ten_thousand_nodes() -> None:
    """Round after round over all nodes it would take minutes."""
    assert chain(10_000) < 20


def test_barred_tensors_stay_out() -> None:
    edges = [("Add", (0, 0)), ("Mul", (1, 1)), ("Add", (2, 2)), ("Tanh", (3, 0))]
    model = graph_of(edges, 1)
    for barred, members in (((), {"n0", "n1", "n2"}), (("v1",), {"n0"})):
        view = GraphView(model, load_target("cpu"), barred)
        quantized = {"x", "v0", "v1", "v2"}
        region = Region(view, quantized.__contains__, lambda _, n, __: n in {"n3", "n1"})
        assert {node.name for node in region.members()} == members
    assert np.all([node.domain == "" for node in model.graph])
