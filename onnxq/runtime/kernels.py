"""Which kernels a model really runs in, read from the graph as ONNX Runtime has optimized it.

What ONNX Runtime does to names, seen on 1.32.0: an integer node keeps the name of the node that it
stands for (``QLinearMatMul`` that of its ``MatMul``, ``DynamicQuantizeMatMul`` that of its
``MatMulInteger``), a MatMul merged with its bias adds ``/MatMulAddFusion``, and a node made anew (a
Conv turned to NHWC) adds ``_token_`` and a number; the initializer of an integer weight keeps its
name. Values mostly keep theirs, but not around such a Conv. Initializers of up to eight elements
with equal contents (scales, zero points) are merged under one name. Hence a site is looked up by
its name, and by its weight's name where that fails.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx

from onnxq.runtime.session import SessionSettings, open_session
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from onnxq.runtime.session import Optimization

INTEGER_OPS: Final = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearConvTranspose",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMatMul",
        "QLinearMul",
        "QLinearReduceMean",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
        "QOrderedMatMul",
    }
)
"""Operators that calculate on 8-bit integers."""

NBITS_OPS: Final = frozenset({"GatherBlockQuantized", "MatMulBnb4", "MatMulNBits", "QMoE"})
"""Operators on weights of few bits and float activations; counted apart."""

_WEIGHTS_ASIDE_BYTES: Final = "1024"
_ADDED_TO_NAMES: Final = re.compile(r"(/MatMulAddFusion)?(_token_\d+)?$")


@dataclass(frozen=True, slots=True)
class ExecutedNode:
    """A node of the optimized graph.

    Attributes:
        name: Its name.
        op: Its operator.
        domain: The operator's domain, empty for ONNX's own.
        inputs: Names of its inputs; empty for one that is left out.
        outputs: Names of its outputs.
        subgraph: The bodies around it, such as ``if_1.then_branch``; empty in the main graph.
    """

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    subgraph: str = ""

    @property
    def integer(self) -> bool:
        """Whether it calculates on 8-bit integers."""
        return is_integer(self.op)


@dataclass(frozen=True, slots=True)
class KernelCount:
    """How many nodes run in which kind of kernel.

    Attributes:
        integer: Nodes that calculate on 8-bit integers.
        nbits: Nodes on weights of few bits and float activations.
        by_op: Both, by operator.
    """

    integer: int
    nbits: int
    by_op: dict[str, int]


def is_integer(op: str) -> bool:
    """Whether an operator of an optimized graph calculates on 8-bit integers."""
    return op in INTEGER_OPS


def executed(
    model: bytes | Path, provider: str = "cpu", optimization: Optimization = "all"
) -> tuple[ExecutedNode, ...]:
    """The nodes that ONNX Runtime executes, in order, those of subgraphs behind their owner.

    Args:
        model: The serialized model, or its path.
        provider: The execution provider; kernels that it compiles itself show as its own nodes.
        optimization: How far ONNX Runtime optimizes the graph.

    Raises:
        ModelError: The model does not load.
        ProviderError: The provider is not there.
    """
    with Scratch() as folder:
        path = folder / "optimized.onnx"
        aside = (
            ("session.optimized_model_external_initializers_file_name", "optimized.data"),
            (
                "session.optimized_model_external_initializers_min_size_in_bytes",
                _WEIGHTS_ASIDE_BYTES,
            ),
        )
        settings = SessionSettings(
            provider=provider,
            optimization=optimization,
            spinning=False,
            threads=1,
            config=aside,
            optimized_path=path,
        )
        open_session(model, settings)
        graph = onnx.load(path, load_external_data=False).graph
    return tuple(_walk(graph, ""))


def count_kernels(model: bytes | Path, provider: str = "cpu") -> KernelCount:
    """Count the integer kernels of a model.

    Raises:
        ModelError: The model does not load.
        ProviderError: The provider is not there.
    """
    return tally(executed(model, provider))


def tally(nodes: Sequence[ExecutedNode]) -> KernelCount:
    """Count the integer kernels among executed nodes."""
    by_op = Counter(node.op for node in nodes if node.integer or node.op in NBITS_OPS)
    integer = sum(count for op, count in by_op.items() if is_integer(op))
    return KernelCount(integer, by_op.total() - integer, dict(sorted(by_op.items())))


def integer_sites(
    nodes: Sequence[ExecutedNode], weight_names: Mapping[str, str | None]
) -> frozenset[str]:
    """Which sites run in integer kernels.

    A site is found by its node's name, kept whole or with what ONNX Runtime adds behind it. Where
    no node has it, the site counts as integer if every node that reads its weight is integer.

    Args:
        nodes: What :func:`executed` gave for the quantized model.
        weight_names: For each site's node name the name of the initializer that holds its
            integers, ``None`` for a site without a weight (a product of two activations).

    Returns:
        The names of the sites in integer kernels.
    """
    found = executed_as(nodes, weight_names)
    return frozenset(name for name, ran in found.items() if all(node.integer for node in ran))


def float_sites(
    nodes: Sequence[ExecutedNode], weight_names: Mapping[str, str | None]
) -> frozenset[str]:
    """Which sites run, and not in integer kernels; arguments as of :func:`integer_sites`.

    A site that is folded away, or that ONNX Runtime gave another name, is in neither.
    """
    found = executed_as(nodes, weight_names)
    return frozenset(name for name, ran in found.items() if not all(node.integer for node in ran))


def executed_as(
    nodes: Sequence[ExecutedNode], weight_names: Mapping[str, str | None]
) -> dict[str, list[ExecutedNode]]:
    """What is executed for each site that is found; arguments as of :func:`integer_sites`."""
    whole: dict[str, list[ExecutedNode]] = {}
    cut: dict[str, list[ExecutedNode]] = {}
    readers: dict[str, list[ExecutedNode]] = {}
    for node in nodes:
        whole.setdefault(node.name, []).append(node)
        cut.setdefault(_ADDED_TO_NAMES.sub("", node.name), []).append(node)
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    found = {}
    for site, weight in weight_names.items():
        stands_for = whole.get(site) or cut.get(site) or readers.get(weight or "", [])
        if stands_for:
            found[site] = stands_for
    return found


def _walk(graph: onnx.GraphProto, inside: str) -> Iterator[ExecutedNode]:
    for node in graph.node:
        yield ExecutedNode(
            node.name, node.op_type, node.domain, tuple(node.input), tuple(node.output), inside
        )
        owner = f"{inside}/{node.name or node.op_type}".removeprefix("/")
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                if body.node:
                    yield from _walk(body, f"{owner}.{attribute.name}")
