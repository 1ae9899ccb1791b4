"""Rules of any target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import all_nodes, is_overridable
from onnxq.lint.catalogue import load_rules
from onnxq.lint.checks.registry import check
from onnxq.lint.finding import at, of_model
from onnxq.lint.qdq import (
    can_bypass,
    integer_type,
    is_dq,
    is_q,
    maker,
    pairs,
    same_parameters,
    scale_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.lint.finding import Seen
    from onnxq.lint.view import View

_KNOWN_DOMAINS: Final = frozenset(
    {"", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft", "com.microsoft.nchwc"}
)


@check("does-not-load")
def does_not_load(view: View) -> Iterator[Seen]:
    """What ONNX Runtime says when it is asked to load the model on the target."""
    if view.loaded is not None and view.loaded.refusal:
        yield of_model(view.loaded.refusal)


@check("initializer-is-input")
def initializer_is_input(view: View) -> Iterator[Seen]:
    """Initializers that a caller may replace; before IR version 4 all were inputs, and constant."""
    for value in view.model.graph.inputs:
        if is_overridable(value, view.model):
            yield of_model(f"initializer {value.name!r} is an input too")


@check("unnamed-node")
def unnamed_node(view: View) -> Iterator[Seen]:
    """Nodes that had to be given a name."""
    for node in all_nodes(view.model):
        if node.name in view.renamed:
            yield at(node, f"the node that makes {_made(node)} has no name of its own")


@check("foreign-domain")
def foreign_domain(view: View) -> Iterator[Seen]:
    """Operators that neither ONNX, nor ONNX Runtime, nor the model itself defines.

    Where the model loads, their library was named.
    """
    if view.runs:
        return
    own = {domain for domain, _, _ in view.model.functions}
    for node in all_nodes(view.model):
        if node.domain not in _KNOWN_DOMAINS | own:
            yield at(node, f"{node.op_type} belongs to domain {node.domain!r}")


@check("float64-product")
def float64_product(view: View) -> Iterator[Seen]:
    """Products whose output is float64."""
    products = load_rules()["float64-product"].operators
    for node in all_nodes(view.model):
        if node.op_type in products and node.outputs[0].dtype == ir.DataType.DOUBLE:
            yield at(node, "it computes in float64")


@check("scale-not-positive")
def scale_not_positive(view: View) -> Iterator[Seen]:
    """Constant scales that are no positive numbers."""
    for node in all_nodes(view.model):
        if not (is_q(node) or is_dq(node)):
            continue
        scale = scale_of(node)
        if scale is None:
            continue
        values = np.asarray(scale, np.float32)
        bad = ~(np.isfinite(values) & (values > 0))
        if bad.any():
            yield at(
                node, f"{np.count_nonzero(bad)} of {values.size} scales are no positive number"
            )


@check("pair-differs")
def pair_differs(view: View) -> Iterator[Seen]:
    """Pairs with known parameters that are not the same; nodes in between leave values alone."""
    for pair in pairs(view.model):
        if same_parameters(pair.q, pair.dq) is False:
            q, dq = scale_of(pair.q), scale_of(pair.dq)
            yield at(pair.dq, f"{pair.q.name!r} quantizes with {_text(q)}, this with {_text(dq)}")


@check("pair-twice")
def pair_twice(view: View) -> Iterator[Seen]:
    """A pair that reads a pair with the same parameters."""
    for pair in pairs(view.model):
        before = maker(pair.q, 0)
        if before is None or not is_dq(before) or integer_type(before) != integer_type(pair.q):
            continue
        if same_parameters(before, pair.q):
            outside = pair.dq.outputs[0].is_graph_output() or pair.q.outputs[0].is_graph_output()
            fixable = not outside and can_bypass(pair.q, pair.dq)
            yield at(pair.q, f"{before.name!r} in front of it has its parameters", fixable=fixable)


def _text(scale: np.ndarray | None) -> str:
    if scale is None:
        return "a computed scale"
    if scale.size == 1:
        return f"scale {float(np.asarray(scale, np.float32).reshape(())):.6g}"
    return f"{scale.size} scales"


def _made(node: ir.Node) -> str:
    return repr(next((value.name for value in node.outputs if value.name), "nothing"))
