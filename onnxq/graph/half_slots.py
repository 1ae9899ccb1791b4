"""Which inputs and outputs of a node may be float16 or bfloat16, by its operator's own types.

ONNX's schemas say it, for the opset that the model imports: an input or output whose type is a
variable may be what the variable allows; one of a fixed type (``scales`` of Resize) stays. An
output whose variable occurs at no input has a type of its own, named by an attribute or fixed
(``Mean`` of LayerNormalization), and stays too. The exception is Cast to float32, which can cast to
another type as well.

Of operators of com.microsoft those for weights in blocks are known.

Declined, with the reason: operators that onnx has no schema of (other domains, functions that could
not be inlined), that hold subgraphs, or have a sequence or an optional among inputs and outputs;
values of unknown type; and operators none of whose float32 inputs or outputs may be the type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLOAT = ir.DataType.FLOAT
_NARROW: Final = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_CONTRIB: Final[dict[tuple[str, str], tuple[int, ...]]] = {
    # Activation, scales, a bias; zero points only where they are floating point too.
    ("com.microsoft", "MatMulNBits"): (0, 2, 3, 5),
    ("com.microsoft", "GatherBlockQuantized"): (2, 3),
}
"""Inputs that share one floating type with the first output."""

_BODIES: Final = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


@dataclass(frozen=True, slots=True)
class HalfSlots:
    """The float32 inputs and outputs of a node that may have 16 bits.

    Attributes:
        inputs: Their indices.
        outputs: Their indices.
        exact: Indices of the float32 inputs that must stay float32.
        reason: Why there are none; empty if there are.
    """

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    exact: tuple[int, ...] = ()
    reason: str = ""


def half_slots(node: ir.Node, versions: dict[str, int], name: str) -> HalfSlots:
    """What of a node may have 16 bits.

    Args:
        node: A node that reads or writes float32.
        versions: The opsets that its model imports, by domain.
        name: ``float16`` or ``bfloat16``.
    """
    exact = tuple(i for i, v in enumerate(node.inputs) if v is not None and v.dtype == _FLOAT)
    reason = _why_unclear(node)
    shared = _CONTRIB.get((node.domain, node.op_type))
    if shared is not None and not reason:
        return HalfSlots(tuple(i for i in exact if i in shared), (0,))
    schema = None if reason else _schema(node, versions)
    if schema is None:
        domain = node.domain or "ai.onnx"
        reason = reason or f"onnx does not know the types that {domain}::{node.op_type} takes"
        return HalfSlots(exact=exact, reason=reason)
    if node.op_type == "Cast" and not node.domain:
        return _of_cast(node, exact)
    names = _type_names(schema.inputs, len(node.inputs))
    allowed = _variables_of(schema, f"tensor({name})")
    inputs = tuple(index for index in exact if names[index] in allowed)
    known = {names[index] for index in inputs}
    results = _type_names(schema.outputs, len(node.outputs))
    outputs = tuple(
        index
        for index, value in enumerate(node.outputs)
        if value.dtype == _FLOAT and results[index] in known
    )
    if not inputs:
        return HalfSlots(exact=exact, reason=_why_none(node, exact, name))
    return HalfSlots(inputs, outputs, tuple(i for i in exact if i not in inputs))


def _of_cast(node: ir.Node, exact: tuple[int, ...]) -> HalfSlots:
    if node.attributes.get_int("to", 0) != _FLOAT:
        return HalfSlots(exact=exact, reason="what is cast to another type must not be rounded")
    if node.inputs[0] is not None and node.inputs[0].dtype in _NARROW:
        return HalfSlots(exact=exact, reason="what it casts has 16 bits already")
    return HalfSlots(inputs=exact, outputs=(0,))


def _why_none(node: ir.Node, exact: tuple[int, ...], name: str) -> str:
    if exact:
        return f"{node.op_type} takes no {name}"
    return f"an attribute of {node.op_type} names the type of what it makes"


def _why_unclear(node: ir.Node) -> str:
    if node.attributes.get_int("training_mode", 0):
        return f"{node.op_type} is in training mode"
    if any(a.type in _BODIES for a in node.attributes.values() if not a.is_ref()):
        return f"what {node.op_type} hands to its body and back stays float32"
    for value in (*node.inputs, *node.outputs):
        if value is None or not value.name:
            continue
        if value.type is None:
            return f"the type of {value.name!r} is not known"
        if not isinstance(value.type, ir.TensorType):
            return f"{value.name!r} is a sequence or an optional"
    return ""


def _schema(node: ir.Node, versions: dict[str, int]) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return None


def _variables_of(schema: onnx.defs.OpSchema, wanted: str) -> frozenset[str]:
    """The type variables that may be ``wanted``."""
    return frozenset(
        each.type_param_str for each in schema.type_constraints if wanted in each.allowed_type_strs
    )


def _type_names(
    formal: Sequence[onnx.defs.OpSchema.FormalParameter], count: int
) -> tuple[str, ...]:
    """The type variable, or the type, of each of ``count`` actual parameters; the last repeats."""
    return tuple(formal[min(i, len(formal) - 1)].type_str if formal else "" for i in range(count))
