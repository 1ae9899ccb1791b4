"""Recognises a model that is quantized already, and says how."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from onnxq.graph.edit import all_nodes

if TYPE_CHECKING:
    import onnx_ir as ir

_FAMILIES: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "weight-only",
        frozenset({"MatMulNBits", "GatherBlockQuantized", "MatMulBnb4", "QMoE"}),
    ),
    (
        "dynamic",
        frozenset(
            {
                "DynamicQuantizeLinear",
                "DynamicQuantizeMatMul",
                "DynamicQuantizeLSTM",
            }
        ),
    ),
    (
        "QOperator",
        frozenset({"ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "QGemm", "QAttention"}),
    ),
    ("QDQ", frozenset({"QuantizeLinear", "DequantizeLinear"})),
)


def has_float_part(model: ir.Model) -> bool:
    """Whether a quantized model computes in float beside weights of few bits.

    Of such a model 16 bits concern the float part.
    """
    ops = {node.op_type for node in all_nodes(model)}
    return not any(
        op in members or _is_qlinear(op, family)
        for family, members in _FAMILIES
        if family != "weight-only"
        for op in ops
    )


def find_already_quantized(model: ir.Model) -> str | None:
    """What a quantized model is, e.g. ``"QDQ: 12 QuantizeLinear, 15 DequantizeLinear"``.

    Subgraphs and functions count. Returns None for a float model.
    """
    ops = Counter(node.op_type for node in all_nodes(model))
    parts = []
    for family, members in _FAMILIES:
        found = {op: n for op, n in ops.items() if op in members or _is_qlinear(op, family)}
        if found:
            counts = ", ".join(f"{n} {op}" for op, n in sorted(found.items(), key=_rank))
            parts.append(f"{family}: {counts}")
    return "; ".join(parts) or None


def _is_qlinear(op: str, family: str) -> bool:
    return family == "QOperator" and op.startswith(("QLinear", "QEmbed", "QOrdered"))


def _rank(item: tuple[str, int]) -> tuple[int, str]:
    # QuantizeLinear before DequantizeLinear, the way people say it.
    return (item[0].startswith("D"), item[0])
