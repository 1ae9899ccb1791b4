"""The nodes without weights that run in integers because everything around them does.

A node joins where all its inputs are quantized anyway and all its outputs go to quantized readers:
the greatest set for which both hold. It is what remains when every node for which one of them
fails is taken out, and with it, along the edges, whoever relied on it: time linear in the edges.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.algorithms.constants import ConstantOperand, constant_operand
from onnxq.graph.edit import constant_tensor, consumers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from onnxq.algorithms.view import GraphView

    IsQuantized = Callable[[str], bool]
    IsRead = Callable[[str, str, int], bool]


class Region:
    """The region of one graph.

    Attributes:
        constants: The constant that a candidate reads beside its activation, by node name.
    """

    def __init__(self, view: GraphView, quantized: IsQuantized, read: IsRead) -> None:
        """Remember the graph.

        Args:
            view: The graph.
            quantized: Whether a tensor is quantized anyway.
            read: Whether a tensor is quantized for an input of a node: name, node, index.
        """
        self.view = view
        self.quantized = quantized
        self.read = read
        self.constants: dict[str, ConstantOperand] = {}

    def members(self) -> list[ir.Node]:
        """The greatest set, in the order of the graph."""
        candidates = {node.name or "": node for node in self.view.graph if self._may_join(node)}
        relying: defaultdict[str, list[str]] = defaultdict(list)
        out = []
        for name, node in candidates.items():
            supports = self._supports(node, candidates)
            if supports is None:
                out.append(name)
                continue
            for support in supports:
                relying[support].append(name)
        while out:
            name = out.pop()
            if candidates.pop(name, None) is not None:
                out.extend(relying[name])
        return list(candidates.values())

    def data_inputs(self, node: ir.Node) -> list[tuple[int, ir.Value]]:
        """The activations that a node calculates on; other inputs steer it, or are constants."""
        steered = self.view.rule(node).kind == "data_movement"
        inputs = list(enumerate(node.inputs[:1] if steered else node.inputs))
        constant = self.constants.get(node.name or "")
        return [
            (index, value)
            for index, value in inputs
            if value is not None and (constant is None or index != constant.index)
        ]

    def _may_join(self, node: ir.Node) -> bool:
        """Whether the node has an integer kernel and works on float activations alone.

        One constant beside them may be quantized, where the target knows such a form.
        """
        constant = constant_operand(node, self.view)
        if constant is not None:
            self.constants[constant.node] = constant
        else:
            rule = self.view.rule(node)
            if not rule.integer or rule.kind not in ("elementwise", "data_movement"):
                return False
        data = self.data_inputs(node)
        return bool(data) and all(
            value.dtype == ir.DataType.FLOAT and constant_tensor(value) is None for _, value in data
        )

    def _supports(self, node: ir.Node, candidates: Mapping[str, ir.Node]) -> set[str] | None:
        """The candidates that must stay for the node to stay; None if it cannot in any case."""
        sources = self._sources(node, candidates)
        readers = None if sources is None else self._readers(node, candidates)
        return None if sources is None or readers is None else sources | readers

    def _sources(self, node: ir.Node, candidates: Mapping[str, ir.Node]) -> set[str] | None:
        found = set()
        for _, value in self.data_inputs(node):
            if (value.name or "") in self.view.barred:
                return None
            if self.quantized(value.name or ""):
                continue
            source = self.view.source(value)
            if source not in candidates or source is None:
                return None
            found.add(source)
        return found

    def _readers(self, node: ir.Node, candidates: Mapping[str, ir.Node]) -> set[str] | None:
        value = self.view.tail(node.name or "")[-1]
        name = value.name or ""
        readers = consumers(value)
        if not readers or name in self.view.protected or name in self.view.barred:
            return None
        if any(output.uses() for output in node.outputs[1:]):
            return None
        return _names_or_none(
            (reader.name or "", reader.name in candidates)
            for reader, index in readers
            if not self.read(name, reader.name or "", index)
        )


def _names_or_none(readers: Iterable[tuple[str, bool]]) -> set[str] | None:
    """The names, if each of them is a candidate."""
    found = set()
    for name, is_candidate in readers:
        if not is_candidate:
            return None
        found.add(name)
    return found
