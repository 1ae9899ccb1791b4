"""A weight that is only rearranged before it is used becomes the rearranged weight.

Cases, for an initializer w that no caller can override:
    - ``Identity(w)``: readers read w itself;
    - ``Transpose(w)``: replaced by the transposed initializer, if w is small or only read here;
    - ``Cast(w)`` between floating types: replaced by the cast initializer, if w is small.
Declined: an output of a graph; a tied weight that would exist twice; a large Cast, which would make
the model larger. A large transposed weight stays lazy: it is computed when it is read or written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import NameScope, initializer, is_overridable, remove_if_unread

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SMALL_BYTES = 1 << 20
_LAZY_BYTES = 1 << 26
_FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)


class FoldLayoutPass(ir.passes.InPlacePass):
    """Fold Identity, Transpose and Cast of initializers."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place, in the graph and its subgraphs."""
        fresh = NameScope(model)
        folded = 0
        for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
            folded += _fold(model, node, fresh)
        return ir.passes.PassResult(model, bool(folded))

    def __repr__(self) -> str:
        """The pass's name."""
        return "FoldLayoutPass()"


def _fold(model: ir.Model, node: ir.Node, fresh: NameScope) -> bool:
    source = node.inputs[0] if node.inputs else None
    if node.domain or source is None or not source.is_initializer():
        return False
    tensor = source.const_value
    if tensor is None or is_overridable(source, model) or source.graph is not model.graph:
        return False
    output = node.outputs[0]
    if output.is_graph_output():
        return False
    if node.op_type == "Identity":
        output.replace_all_uses_with(source)
    else:
        result = _rearranged(node, source, tensor)
        if result is None:
            return False
        value = initializer(model, fresh(f"{source.name}.{node.op_type.lower()}"), result)
        output.replace_all_uses_with(value)
    if node.graph is not None:
        node.graph.remove(node, safe=True)
    remove_if_unread(source)
    return True


def _rearranged(
    node: ir.Node, source: ir.Value, tensor: ir.TensorProtocol
) -> ir.TensorProtocol | None:
    small = tensor.nbytes <= SMALL_BYTES
    shape = tuple(tensor.shape.numpy())
    if node.op_type == "Transpose" and (small or len(source.uses()) == 1):
        order = tuple(node.attributes.get_ints("perm", range(len(shape) - 1, -1, -1)))
        return _tensor(
            lambda: np.ascontiguousarray(np.transpose(tensor.numpy(), order)),
            tensor.dtype,
            tuple(shape[axis] for axis in order),
        )
    if node.op_type == "Cast" and small:
        wanted = ir.DataType(node.attributes.get_int("to", 0))
        if wanted in _FLOATS and tensor.dtype in _FLOATS:
            with np.errstate(over="ignore"):
                array = tensor.numpy().astype(wanted.numpy())
            return ir.Tensor(array, dtype=wanted)
    return None


def _tensor(
    compute: Callable[[], NDArray[np.generic]], dtype: ir.DataType, shape: tuple[int, ...]
) -> ir.TensorProtocol:
    def tensor() -> ir.TensorProtocol:
        return ir.Tensor(compute(), dtype=dtype)

    lazy = ir.LazyTensor(tensor, dtype=dtype, shape=ir.Shape(shape), cache=False)
    return lazy if lazy.nbytes > _LAZY_BYTES else tensor()
