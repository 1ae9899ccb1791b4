"""Where a Transpose stands in front of a product with a matrix, with a Cast between or without.

Only Transposes that move the first axis behind others, to the last place or the one before it, and
leave those in order: what ONNX Runtime 1.32 merges with a Cast to float32 and the MatMul behind it,
which then ends the process on the CPU (tests/lint/test_loading.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnxq.graph.edit import all_nodes, consumers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

_HANDS_ON: Final = frozenset({"Concat", "Identity", "Reshape", "Split", "Squeeze", "Unsqueeze"})
_MATRIX: Final = 2


@dataclass(frozen=True, slots=True)
class Transposed:
    """A Transpose whose values reach a product.

    Attributes:
        transpose: It.
        product: The MatMul.
        cast: Whether a Cast stands between.
    """

    transpose: ir.Node
    product: ir.Node
    cast: bool


def transposed_products(model: ir.Model) -> Iterator[Transposed]:
    """Each such Transpose with the first MatMul by a matrix that its values reach."""
    for node in all_nodes(model):
        if node.op_type == "Transpose" and not node.domain and _moves_first_axis(node):
            found = _reached(node)
            if found is not None:
                yield found


def _moves_first_axis(transpose: ir.Node) -> bool:
    perm = list(transpose.attributes.get_ints("perm", ()))
    rest = list(range(1, len(perm)))
    return len(perm) > _MATRIX and perm in ([*rest, 0], [*rest[:-1], 0, rest[-1]])


def _reached(transpose: ir.Node) -> Transposed | None:
    found: Transposed | None = None
    todo, seen = [(transpose, False)], {(id(transpose), False)}
    while todo:
        node, cast = todo.pop()
        for reader, index in (use for output in node.outputs for use in consumers(output)):
            if reader.domain:
                continue
            if reader.op_type == "MatMul" and index == 0 and _by_matrix(reader):
                found = Transposed(transpose, reader, cast) if cast or found is None else found
            step = reader, cast or reader.op_type == "Cast"
            known = (id(reader), step[1])
            if reader.op_type in _HANDS_ON | {"Cast"} and known not in seen:
                seen.add(known)
                todo.append(step)
    return found


def _by_matrix(product: ir.Node) -> bool:
    """Whether the second operand may be a matrix."""
    other = product.inputs[1]
    shape = None if other is None else other.shape
    return shape is None or len(shape) == _MATRIX
