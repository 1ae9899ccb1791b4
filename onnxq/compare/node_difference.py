"""What is written differently in two pieces of models that make the same value."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import constant_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from onnxq.graph.segment import Segment

_MOST = 6
_COMPOUND = frozenset(
    {
        ir.AttributeType.GRAPH,
        ir.AttributeType.GRAPHS,
        ir.AttributeType.SPARSE_TENSOR,
        ir.AttributeType.SPARSE_TENSORS,
        ir.AttributeType.TENSOR,
        ir.AttributeType.TENSORS,
        ir.AttributeType.TYPE_PROTO,
        ir.AttributeType.TYPE_PROTOS,
    }
)


def differences(one: Segment, other: Segment, *, opsets: bool = True) -> tuple[str, ...]:
    """In sentences about ``other``, as far as ``one`` has nodes for the same values; a few.

    Args:
        one: The piece to compare with.
        other: The piece that is described.
        opsets: Whether other opsets count, which mean another thing to few operators.
    """
    texts: list[str] = []
    if opsets and one.model.opset_imports != other.model.opset_imports:
        texts.append(f"imports opsets {_opsets(other)}, not {_opsets(one)}")
    paired = _paired(one.nodes, other.nodes)
    more = [node.op_type for mine, node in paired if mine is None]
    if more:
        texts.append(f"has more nodes: {_counted(more)}")
    known = {mine for mine, _ in paired}
    gone = [node.op_type for node in one.nodes if node not in known]
    if gone:
        texts.append(f"lacks nodes: {_counted(gone)}")
    for mine, node in paired:
        if mine is not None:
            texts.extend(_of_nodes(mine, node))
    return tuple(texts[:_MOST])


def _counted(ops: Sequence[str]) -> str:
    counts = Counter(ops)
    return ", ".join(f"{count} {op}" if count > 1 else op for op, count in counts.items())


def _paired(
    one: Sequence[ir.Node], other: Sequence[ir.Node]
) -> list[tuple[ir.Node | None, ir.Node]]:
    """Each node of ``other``, with that of ``one`` of its name, or else of its first output."""
    names = {node.name: node for node in reversed(one) if node.name}
    outputs = {node.outputs[0].name: node for node in one}
    taken: set[ir.Node] = set()
    pairs: list[tuple[ir.Node | None, ir.Node]] = []
    for node in other:
        tried = (names.get(node.name or ""), outputs.get(node.outputs[0].name))
        mine = next((found for found in tried if found is not None and found not in taken), None)
        if mine is not None:
            taken.add(mine)
        pairs.append((mine, node))
    return pairs


def _opsets(segment: Segment) -> str:
    imports = segment.model.opset_imports
    return ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in imports.items())


def _of_nodes(one: ir.Node, other: ir.Node) -> Iterator[str]:
    name = other.name or other.outputs[0].name
    if (one.domain, one.op_type) != (other.domain, other.op_type):
        yield f"{name} is a {other.op_type}, not a {one.op_type}"
        return
    made, its_made = ([value.name for value in node.outputs] for node in (one, other))
    if made != its_made:
        yield f"{name} makes {', '.join(map(str, its_made))}, not {', '.join(map(str, made))}"
    for key in dict.fromkeys((*one.attributes, *other.attributes)):
        mine, its = one.attributes.get(key), other.attributes.get(key)
        if _attribute(mine) == _attribute(its):
            continue
        if all(each is not None and each.type in _COMPOUND for each in (mine, its)):
            yield f"{key} of {name} is not the same"
        else:
            yield f"{key} of {name} is {_shown(its)}, not {_shown(mine)}"
    if len(one.inputs) != len(other.inputs):
        yield f"{name} has {len(other.inputs)} inputs, not {len(one.inputs)}"
        return
    for mine_value, its_value in zip(one.inputs, other.inputs, strict=True):
        yield from _of_inputs(name or "", mine_value, its_value)


def _of_inputs(node: str, one: ir.Value | None, other: ir.Value | None) -> Iterator[str]:
    if one is None or other is None:
        if one is not other:
            yield f"an optional input of {node} is {'given' if one is None else 'left out'}"
        return
    mine, its = constant_tensor(one), constant_tensor(other)
    if mine is None and its is None:
        if one.name != other.name:
            yield f"{node} reads {other.name}, not {one.name}"
        return
    if mine is None or its is None:
        kind = "a constant" if mine is None else "no constant"
        yield f"{other.name or 'an input'} of {node} is {kind}"
        return
    a, b = mine.numpy(), its.numpy()
    if a.dtype != b.dtype or a.shape != b.shape:
        yield (f"the constant {other.name} of {node} is {_type_of(b)}, not {_type_of(a)}")
    elif a.tobytes() != b.tobytes():
        yield f"the constant {other.name} of {node} differs{_by(a, b)}"


def _by(a: NDArray[np.generic], b: NDArray[np.generic]) -> str:
    """By how much, where that is a number."""
    try:
        apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
    except (TypeError, ValueError):
        return ""
    # NaN where one of them has it: that counts as different, and there is no number for it.
    finite = apart[np.isfinite(apart)]
    most = f", by up to {finite.max():.3g}" if finite.any() else ""
    return f" in {np.count_nonzero(apart)} of {a.size} elements{most}"


def _type_of(array: NDArray[np.generic]) -> str:
    return f"{array.dtype}[{', '.join(map(str, array.shape))}]"


def _attribute(attribute: ir.Attr | None) -> object:
    """Something that is equal where the attributes are."""
    if attribute is None or attribute.is_ref():
        return attribute and attribute.ref_attr_name
    if attribute.type in _COMPOUND:
        return ir.serde.serialize_attribute(attribute).SerializeToString(deterministic=True)
    return attribute.value


def _shown(attribute: ir.Attr | None) -> str:
    if attribute is None:
        return "left out"
    if attribute.is_ref() or attribute.type in _COMPOUND:
        return "another"
    text = repr(attribute.value)
    return text if len(text) <= 40 else f"{text[:37]}..."
