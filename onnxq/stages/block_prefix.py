"""The model as far as it is quantized: later groups are observed behind earlier ones.

Nothing but contents of weights changes. A weight becomes what the plan makes of it, and the factor
of its input channels is divided out again: ``W' = Q(W t) / t``. So every value keeps its name, and
activations are those that the groups behind are solved for, whether the plan scales them or not.
Left as they are: tables of lookups, whose integers may be those of the last product, and the
rounding of activations at accuracy level 4.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import clone, value_by_name
from onnxq.numerics.affine import dequantize
from onnxq.numerics.blockwise import block_size, dequantized
from onnxq.numerics.packing import unpack_blocks

if TYPE_CHECKING:
    from onnxq.algorithms.block_candidates import BlockResult
    from onnxq.algorithms.block_plan import BlockPlanner
    from onnxq.graph.sites import Site
    from onnxq.numerics.blockwise import Matrix


class Prefix:
    """A copy of a planner's model, some of whose weights are quantized."""

    def __init__(self, planner: BlockPlanner) -> None:
        """Nothing is quantized yet."""
        self.model = clone(planner.model)
        self._planner = planner
        self._values = value_by_name(self.model.graph)
        self._done: set[str] = set()

    def put(self, site: Site, result: BlockResult, factor: Matrix | None) -> None:
        """Quantize the weight of a site; of one that several share the first result counts.

        Args:
            site: A site of the planner.
            result: What became of its weight.
            factor: What its input channels were multiplied by, ``[K]``; None where they were not.
        """
        name = site.weight or ""
        tensor = self._values[name].const_value
        if name in self._done or tensor is None:
            return
        self._done.add(name)
        # Made when a session reads it: no weight is held twice.
        make = partial(self._tensor, site, result, factor, tensor.dtype)
        shape = ir.Shape(tensor.shape.numpy())
        lazy = ir.LazyTensor(make, dtype=tensor.dtype, shape=shape, name=name)
        self._values[name].const_value = lazy

    def _tensor(
        self, site: Site, result: BlockResult, factor: Matrix | None, dtype: ir.DataType
    ) -> ir.TensorProtocol:
        real = real_weight(self._planner.matrix(site), result, factor)
        stored = self._planner.layout(site).restore(real).astype(dtype.numpy())
        return ir.Tensor(stored, dtype=dtype)


def real_weight(weight: Matrix, result: BlockResult, factor: Matrix | None) -> Matrix:
    """The weight that its integers stand for, ``Q(W t) / t``.

    Args:
        weight: The float weight ``W``, ``[N, K]``.
        result: What became of it.
        factor: ``t``, ``[K]``; None for ones.
    """
    params = result.params
    if result.packed is None:
        real = dequantized(weight if factor is None else weight * factor, params)
    else:
        size = block_size(params.scheme)
        integers = unpack_blocks(result.packed, params.scheme.bits, size, weight.shape[1])
        real = dequantize(integers, params)
    return np.asarray(real if factor is None else real / factor, np.float32)
