"""The type that a module computes in, and how its export is verified in that type.

float32:  by itself.
float16:  by itself. ONNX Runtime's CPU provider computes it in float32 between casts, PyTorch
rounds after each operation: they differ by PyTorch's rounding.
bfloat16: that provider has no kernels for it, so that a copy of the graph in float32, of the same
weights, is compared with the module in float32. What is left is constants that the
graph rounds and PyTorch does not.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnxq.errors import UsageError
from onnxq.export.spec import ExportSpec, Tolerance
from onnxq.graph.widen import widened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from onnxq.export.options import Dtype

TOLERANCES: Final = {
    "float32": Tolerance(),
    "float16": Tolerance(absolute=1e-3, relative=1e-2),
    "bfloat16": Tolerance(absolute=1e-3, relative=2e-2),
}
_BFLOAT16: Final = ir.DataType.BFLOAT16
_FLOAT: Final = ir.DataType.FLOAT
VERIFIED_IN_FLOAT32: Final = (
    "bfloat16 was verified in float32, on a copy of the graph with the same weights: ONNX "
    "Runtime's CPU provider has no kernels for it"
)


def dtype_of(specification: ExportSpec) -> str:
    """``"float16"`` or ``"bfloat16"`` if a parameter, buffer or input is of that type."""
    module = specification.module
    tensors = [*module.parameters(), *module.buffers(), *specification.example_inputs.values()]
    found = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors}
    return next((kind for kind in ("bfloat16", "float16") if kind in found), "float32")


def in_type(specification: ExportSpec, dtype: Dtype) -> ExportSpec:
    """A copy whose modules and floating-point inputs are of another type."""
    import torch

    kind = getattr(torch, dtype)
    # In one copy, so that what they share stays shared.
    module, reference, checks = copy.deepcopy(
        (specification.module, specification.reference, specification.checks)
    )
    for part in (module, reference):
        if part is not None:
            part.to(kind)

    def cast(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n: v.to(kind) if v.is_floating_point() else v for n, v in inputs.items()}

    return replace(
        specification,
        module=module,
        reference=reference,
        checks=checks,
        example_inputs=cast(specification.example_inputs),
        further_inputs=tuple(cast(inputs) for inputs in specification.further_inputs),
    )


def in_float32(model: ir.Model, where: str) -> ir.Model:
    """A copy of a bfloat16 model that computes, takes and gives float32.

    Raises:
        UsageError: If the graph cannot be read in another type.
    """
    copied, note = widened(model, ["BFLOAT16"])
    if copied is model:
        text = f"the bfloat16 model cannot be verified: {note or 'nothing in it is bfloat16'}"
        remedy = "--dtype float32 or float16"
        raise UsageError(code="export.bfloat16", message=text, where=where, remedy=remedy)
    for value in copied.graph.inputs:
        if value.dtype == _BFLOAT16:
            value.type = ir.TensorType(_FLOAT)
    for value in copied.graph.outputs:
        producer = value.producer()
        if value.dtype == _BFLOAT16 and producer is not None:
            producer.attributes["to"] = ir.AttrInt64("to", int(_FLOAT))
            value.type = ir.TensorType(_FLOAT)
    return copied
