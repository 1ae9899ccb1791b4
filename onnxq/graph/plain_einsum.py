"""Einsum with a weight becomes MatMul, where it is a product with a matrix.

Labels of the equation: *contracted* ones are in both operands and not in the result, *free* ones in
the weight and the result, *kept* ones in the activation and the result. Case: two operands, one of
them a constant that no caller can override, and every label is one of these::

    ->  Transpose(kept, contracted) -> Reshape(kept, K) -> MatMul([K, N])
        -> Reshape(kept, free) -> Transpose

with Transpose only where the order differs (Einsum transposes then, too), and Reshape only where
several labels are contracted or free. The weight is transposed and reshaped once. ``...`` may stand
for kept axes where the activation's rank is known. Declined: repeated labels (diagonals), labels
that both operands keep (batched products), sums over one operand alone, axes that broadcast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.derived import Deriver, Reshaped, Transposed
from onnxq.graph.edit import initializer, nodes_below, remove_if_unread
from onnxq.graph.insert import put_before, put_behind
from onnxq.graph.weighted import plain_constant

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Product:
    """An equation that is a product with a matrix.

    Attributes:
        data: Labels of the activation, in its order.
        weight: Labels of the weight, in its order.
        result: Labels of the result, in its order.
        kept: Labels of the activation that the result has too, in the activation's order.
        contracted: Labels that are summed over, in the activation's order.
        free: Labels of the weight that the result has, in the result's order.
    """

    data: str
    weight: str
    result: str
    kept: str
    contracted: str
    free: str


class PlainEinsumPass(ir.passes.InPlacePass):
    """Write Einsum with a weight as MatMul."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place, in the graph and its subgraphs; wants the ranks of values."""
        derive = Deriver(model)
        changed = False
        for node in list(nodes_below(model.graph)):
            if node.op_type == "Einsum" and not node.domain and len(node.inputs) == 2:
                changed |= _rewrite(node, derive)
        return ir.passes.PassResult(model, changed)

    def __repr__(self) -> str:
        """The pass's name."""
        return "PlainEinsumPass()"


def _rewrite(node: ir.Node, derive: Deriver) -> bool:
    place = 1 if plain_constant(node, 1, derive.model) is not None else 0
    weight, data = plain_constant(node, place, derive.model), node.inputs[1 - place]
    if weight is None or data is None or weight.const_value is None or data.is_initializer():
        return False
    shape = tuple(weight.const_value.shape.numpy())
    rank = None if data.shape is None else data.shape.rank()
    terms = _terms(node.attributes.get_string("equation", ""), place, rank)
    product = None if terms is None else as_product(*terms)
    if product is None or len(product.weight) != len(shape):
        return False
    sizes = dict(zip(product.weight, shape, strict=True))
    if not _lengths_fit(product, data, sizes):
        return False
    _replace(node, (data, weight), product, sizes, derive)
    remove_if_unread(weight)
    return True


def _terms(equation: str, place: int, rank: int | None) -> tuple[str, str, str] | None:
    """Labels of activation, weight and result, ``...`` written out as capitals of its own."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != 2:
        return None
    if not arrow:
        labels = left.replace(",", "").replace(".", "")
        once = sorted(label for label in set(labels) if labels.count(label) == 1)
        result = ("..." if "..." in left else "") + "".join(once)
    data, weight = terms[1 - place], terms[place]
    if "..." in data:
        if rank is None:
            return None
        unused = [chr(code) for code in range(0x100, 0x180)]
        dots = "".join(unused[: rank - len(data.replace("...", ""))])
        data, result = data.replace("...", dots), result.replace("...", dots)
    return data, weight, result


def as_product(data: str, weight: str, result: str) -> Product | None:
    """The equation as a product with a matrix; None if it is none."""
    if any(len(set(term)) != len(term) or "." in term for term in (data, weight, result)):
        return None
    kept = "".join(label for label in data if label in result)
    contracted = "".join(label for label in data if label in weight)
    free = "".join(label for label in result if label in weight)
    whole = (
        set(kept).isdisjoint(weight)
        and len(kept) + len(contracted) == len(data)
        and len(contracted) + len(free) == len(weight)
        and len(kept) + len(free) == len(result)
    )
    if not (whole and kept and contracted and free):
        return None
    return Product(data, weight, result, kept, contracted, free)


def _lengths_fit(product: Product, data: ir.Value, sizes: dict[str, int]) -> bool:
    """Whether no contracted axis broadcasts, as far as is known."""
    if data.shape is None:
        return True
    if data.shape.rank() != len(product.data):
        return False
    pairs = zip(product.data, data.shape, strict=True)
    return all(sizes.get(label, dim) == dim for label, dim in pairs if isinstance(dim, int))


def _replace(
    node: ir.Node,
    operands: tuple[ir.Value, ir.Value],
    product: Product,
    sizes: dict[str, int],
    derive: Deriver,
) -> None:
    data, weight = operands
    order = tuple(product.weight.index(label) for label in product.contracted + product.free)
    inner = math.prod(sizes[label] for label in product.contracted)
    columns = [sizes[label] for label in product.free]
    steps = (Transposed(order), Reshaped((inner, math.prod(columns))))
    matrix = derive(weight, steps, "matrix")
    node.op_type = "MatMul"
    node.attributes.clear()
    node.replace_input_with(0, data)
    node.replace_input_with(1, matrix)
    behind = product.kept + product.free
    if behind != product.result:
        perm = [behind.index(label) for label in product.result]
        put_behind(node, "Transpose", derive.fresh, attributes={"perm": perm})
    if len(product.free) > 1:
        lengths = _shape(node, [0] * len(product.kept) + columns, derive)
        put_behind(node, "Reshape", derive.fresh, others=(lengths,))
    before = product.kept + product.contracted
    if before != product.data:
        perm = [product.data.index(label) for label in before]
        put_before(node, 0, "Transpose", derive.fresh, attributes={"perm": perm})
    if len(product.contracted) > 1:
        lengths = _shape(node, [0] * len(product.kept) + [inner], derive)
        put_before(node, 0, "Reshape", derive.fresh, others=(lengths,))


def _shape(node: ir.Node, lengths: Sequence[int], derive: Deriver) -> ir.Value:
    name = derive.fresh(f"{node.name}/shape")
    return initializer(derive.model, name, np.asarray(lengths, np.int64))
