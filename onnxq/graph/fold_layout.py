"""A weight that is only rearranged before it is used becomes the rearranged weight.

Cases, for an initializer w of the main graph that no caller can override, one node after another,
so that chains of any length fold:
    - ``Identity(w)``: readers read w itself;
    - ``Transpose(w)``; ``Reshape``, ``Squeeze``, ``Unsqueeze`` and ``Flatten`` of w by constants;
    - ``Cast(w)`` between floating types.
Declined: an output of a graph, strings. The result is lazy and remembers its origin
(``derived.py``), so that a tied or large weight costs no memory, and no space in the file either.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.graph.derived import Converted, Deriver, Reshaped, Step, Transposed
from onnxq.graph.edit import constant_array, is_overridable, nodes_below, remove_if_unread

if TYPE_CHECKING:
    from collections.abc import Callable

_FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)
_Shape = tuple[int, ...]


class FoldLayoutPass(ir.passes.InPlacePass):
    """Fold Identity, Transpose, Cast and the reshaping operators of initializers."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place, in the graph and its subgraphs."""
        derive = Deriver(model)
        sources = [
            source
            for node in list(nodes_below(model.graph))
            if (source := _fold(node, derive)) is not None
        ]
        for source in sources:
            remove_if_unread(source)
        return ir.passes.PassResult(model, bool(sources))

    def __repr__(self) -> str:
        """The pass's name."""
        return "FoldLayoutPass()"


def _fold(node: ir.Node, derive: Deriver) -> ir.Value | None:
    """Fold one node; the initializer that it read, if it is gone."""
    source = node.inputs[0] if node.inputs else None
    if node.domain or source is None or not source.is_initializer():
        return None
    tensor, model = source.const_value, derive.model
    if tensor is None or is_overridable(source, model) or source.graph is not model.graph:
        return None
    output = node.outputs[0]
    if output.is_graph_output():
        return None
    if node.op_type == "Identity":
        output.replace_all_uses_with(source)
    else:
        step = _step(node, tensor)
        if step is None:
            return None
        output.replace_all_uses_with(derive(source, (step,), node.op_type.lower()))
    if node.graph is not None:
        node.graph.remove(node, safe=True)
    return source


def _step(node: ir.Node, tensor: ir.TensorProtocol) -> Step | None:
    """What the node does to a constant; None if that is not known or not rearranging."""
    shape = tuple(tensor.shape.numpy())
    if tensor.dtype == ir.DataType.STRING:
        return None
    if node.op_type == "Transpose":
        order = node.attributes.get_ints("perm", range(len(shape) - 1, -1, -1))
        return Transposed(tuple(order))
    if node.op_type == "Cast":
        wanted = ir.DataType(node.attributes.get_int("to", 0))
        return Converted(wanted) if {wanted, tensor.dtype} <= _FLOATS else None
    target = _TARGETS.get(node.op_type)
    found = None if target is None else target(node, shape)
    if found is None or math.prod(found) != math.prod(shape):
        return None
    return Reshaped(found)


def _reshaped(node: ir.Node, shape: _Shape) -> _Shape | None:
    wanted = _numbers(node, "shape")
    if wanted is None:
        return None
    if not node.attributes.get_int("allowzero", 0):
        if any(dim == 0 and axis >= len(shape) for axis, dim in enumerate(wanted)):
            return None
        wanted = tuple(shape[axis] if dim == 0 else dim for axis, dim in enumerate(wanted))
    if -1 not in wanted:
        return wanted
    known = math.prod(dim for dim in wanted if dim != -1)
    if not known:
        return None
    return tuple(math.prod(shape) // known if dim == -1 else dim for dim in wanted)


def _squeezed(node: ir.Node, shape: _Shape) -> _Shape | None:
    if len(node.inputs) < 2 and "axes" not in node.attributes:
        return tuple(dim for dim in shape if dim != 1)
    axes = _numbers(node, "axes")
    if axes is None:
        return None
    gone = {axis % len(shape) for axis in axes} if shape else set()
    return tuple(dim for axis, dim in enumerate(shape) if axis not in gone)


def _unsqueezed(node: ir.Node, shape: _Shape) -> _Shape | None:
    axes = _numbers(node, "axes")
    if axes is None:
        return None
    rank = len(shape) + len(axes)
    places = {axis % rank for axis in axes} if rank else set()
    rest = iter(shape)
    return tuple(1 if axis in places else next(rest, 1) for axis in range(rank))


def _flattened(node: ir.Node, shape: _Shape) -> _Shape | None:
    axis = node.attributes.get_int("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return math.prod(shape[:axis]), math.prod(shape[axis:])


_TARGETS: dict[str, Callable[[ir.Node, _Shape], _Shape | None]] = {
    "Flatten": _flattened,
    "Reshape": _reshaped,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
}


def _numbers(node: ir.Node, name: str) -> _Shape | None:
    """Constants of the second input, or of the attribute that older opsets have instead."""
    if name in node.attributes:
        return tuple(node.attributes[name].as_ints())
    value = node.inputs[1] if len(node.inputs) > 1 else None
    if value is None or value.is_graph_input():
        return None
    array = constant_array(value)
    return None if array is None else tuple(int(number) for number in array.reshape(-1))
