"""What each operator's weight is: which input, which axis counts output channels, and what bars it.

One function an operator, from a node to a :class:`Form`. Cases that onnxq quantizes:
    - MatMul: constant of rank 2 on the right, ``[K, N]``, output channels on axis 1; beside float
      activations also one on the left, ``[N, K]``, and one of rank 3 on the right, ``[E, K, N]``,
      such as a matrix for each expert;
    - Gemm: constant B of rank 2, ``transA = 0``, ``alpha = beta = 1``, C left out or constant of
      rank 1; output channels on axis 0 if ``transB`` else 1;
    - Conv: constant weight ``[M, C/group, ...]`` of 1 to 3 spatial dimensions, axis 0;
    - ConvTranspose: constant weight ``[C, M/group, ...]``, axis 1, where no group shares channels;
    - Gather: constant table of rank 2, ``axis = 0``; the rows are the channels;
    - LSTM, GRU, RNN: constants W and R; their output channels are those of several gates and
      directions, so no one axis counts them.
Everything else gets a reason in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.graph.edit import constant_tensor, is_overridable

if TYPE_CHECKING:
    from collections.abc import Callable

FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)
WEIGHT_ELEMENTS = 1024
"""A constant of rank 2 or more and at least this many elements is a weight in any operator."""

_REARRANGING = frozenset(
    {"Transpose", "Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}
)
# Operators that only hand elements on, or quantize them: the site is who multiplies by them.
_MOVING = _REARRANGING | frozenset(
    {
        "Concat",
        "DequantizeLinear",
        "Expand",
        "Pad",
        "QuantizeLinear",
        "Shape",
        "Size",
        "Slice",
        "Split",
        "Tile",
    }
)
_FUSED = {
    "Attention": "which holds the projections of query, key and value in one weight",
    "DecoderAttention": "which holds the projections of query, key and value",
    "DecoderMaskedSelfAttention": "which holds the projections of query, key and value",
    "EmbedLayerNormalization": "which holds embedding tables and a normalization",
    "LongformerAttention": "which holds the projections of query, key and value",
    "MoE": "which holds a router and the weights of all experts",
    "PackedAttention": "which holds the projections of query, key and value in one weight",
}
"""What ONNX Runtime's optimizers make of several operators with weights."""

_MULTIPLYING = frozenset({"ConvTranspose", "Einsum", "DeformConv", "Attention"})


@dataclass(frozen=True, slots=True)
class Form:
    """How an operator uses its weight.

    Attributes:
        activation: Index of the input that carries activations; None if there is none.
        weight: Index of the input that carries the weight; None if there is none.
        axis: The weight's axis that counts output channels; None if unclear.
        bias: Index of the bias input, only where it is a constant of rank 1.
        reason: Why onnxq does not quantize it; empty if it does.
        more: Indices of the inputs that carry further weights.
        sums: The axes of its weights that products are summed over, in the order in which integer
            kernels add them; empty where they add no two products at once.
        weight_only: Why only its weight can be quantized, and not its activations too; empty if
            both can.
    """

    activation: int | None
    weight: int | None
    axis: int | None = None
    bias: int | None = None
    reason: str = ""
    more: tuple[int, ...] = ()
    sums: tuple[int, ...] = ()
    weight_only: str = ""


def form_of(node: ir.Node) -> Form | None:
    """How a node uses its weight; None if it has none and never multiplies activations by one."""
    if not node.domain:
        handler = _HANDLERS.get(node.op_type)
        if handler is not None:
            return handler(node)
    return _other(node)


def weight_tensor(node: ir.Node, index: int) -> ir.TensorProtocol | None:
    """The floating-point constant at one input of a node, else None."""
    value = node.inputs[index] if index < len(node.inputs) else None
    tensor = None if value is None else constant_tensor(value)
    return tensor if tensor is not None and tensor.dtype in FLOATS else None


def plain_constant(node: ir.Node, index: int, model: ir.Model) -> ir.Value | None:
    """The floating-point initializer of the main graph at one input that no caller can replace."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.graph is not model.graph or is_overridable(value, model):
        return None
    return value if weight_tensor(node, index) is not None and value.is_initializer() else None


def _matmul(node: ir.Node) -> Form | None:
    if weight_tensor(node, 1) is None:
        if weight_tensor(node, 0) is not None:
            return _left(node)
        if not _computes_in_float(node):
            return None
        reason = _why_no_constant(node, 1) or "it multiplies two activations; there is no weight"
        return Form(0, None, reason=reason)
    rank = _rank(node, 1)
    if rank == 2:
        return Form(0, 1, 1, sums=(0,))
    text = f"its weight has {_dimensions(rank)}; onnxq quantizes matrices"
    if rank == 3:
        return Form(0, 1, 2, sums=(1,), weight_only=f"{text} beside integer activations")
    return Form(0, 1, rank - 1 if rank > 1 else None, reason=text)


def _left(node: ir.Node) -> Form:
    rank = _rank(node, 0)
    if rank != 2:
        text = f"its constant stands on the left and has {_dimensions(rank)}"
        return Form(1, 0, rank - 2 if rank > 1 else None, reason=f"{text}; onnxq quantizes 2 there")
    text = "its constant stands on the left; integer kernels take weights on the right"
    return Form(1, 0, 0, sums=(1,), weight_only=text)


def _gemm(node: ir.Node) -> Form | None:
    attributes = node.attributes
    axis = 0 if attributes.get_int("transB", 0) else 1
    if weight_tensor(node, 1) is None:
        if not _computes_in_float(node):
            return None
        reason = _why_no_constant(node, 1) or "its second input is no constant"
        return Form(0, None, reason=reason)
    has_bias = _has_input(node, 2)
    reason = ""
    if _rank(node, 1) != 2:
        reason = f"its weight has {_dimensions(_rank(node, 1))}, not 2"
    elif attributes.get_int("transA", 0):
        reason = "it transposes its activations (transA = 1)"
    elif attributes.get_float("alpha", 1.0) != 1.0:
        reason = f"it scales its product (alpha = {attributes.get_float('alpha', 1.0):g})"
    elif has_bias and attributes.get_float("beta", 1.0) != 1.0:
        reason = f"it scales its bias (beta = {attributes.get_float('beta', 1.0):g})"
    elif has_bias and (weight_tensor(node, 2) is None or _rank(node, 2) != 1):
        reason = "its bias is no constant vector"
    return Form(0, 1, axis, _bias(node), reason, sums=(1 - axis,))


def _conv(node: ir.Node) -> Form | None:
    if weight_tensor(node, 1) is None:
        reason = _why_no_constant(node, 1) or "its weight is computed at run time"
        return Form(0, None, reason=reason)
    spatial = _rank(node, 1) - 2
    reason = ""
    if not 1 <= spatial <= 3:
        reason = f"it has {spatial} spatial dimensions; onnxq quantizes 1 to 3"
    elif _has_input(node, 2) and _bias(node) is None:
        reason = "its bias is no constant vector"
    return Form(0, 1, 0, _bias(node), reason, sums=_sums_of_conv(node, spatial))


def _sums_of_conv(node: ir.Node, spatial: int) -> tuple[int, ...]:
    """Channels last; a depthwise kernel multiplies and adds one by one."""
    tensor = weight_tensor(node, 1)
    groups = node.attributes.get_int("group", 1)
    if tensor is None or spatial < 1 or (tensor.shape[0] == groups and tensor.shape[1] == 1):
        return ()
    return (*range(2, 2 + spatial), 1)


def _gather(node: ir.Node) -> Form | None:
    if weight_tensor(node, 0) is None:
        reason = _why_no_constant(node, 0)
        return Form(None, None, reason=reason) if reason else None
    rank, axis = _rank(node, 0), node.attributes.get_int("axis", 0)
    if rank < 2:
        return None
    reason = ""
    if rank != 2:
        reason = f"its table has {_dimensions(rank)}, not 2"
    elif axis not in {0, -2}:
        reason = f"it looks up along axis {axis}; onnxq quantizes tables of rows"
    return Form(None, 0, 0, reason=reason)


def _conv_transpose(node: ir.Node) -> Form | None:
    if weight_tensor(node, 1) is None:
        return None if weight_tensor(node, 0) is None else _other(node)
    group = node.attributes.get_int("group", 1)
    reason = "" if group == 1 else f"its {group} groups share the scales of their output channels"
    return Form(0, 1, 1, _bias(node), reason=reason)


def _recurrent(node: ir.Node) -> Form | None:
    if weight_tensor(node, 1) is None or weight_tensor(node, 2) is None:
        reason = _why_no_constant(node, 1) or _why_no_constant(node, 2)
        return Form(0, None, reason=reason or "its weights are computed at run time")
    return Form(0, 1, None, more=(2,), sums=(2,))


_HANDLERS: dict[str, Callable[[ir.Node], Form | None]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GRU": _recurrent,
    "Gather": _gather,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "RNN": _recurrent,
}


def _other(node: ir.Node) -> Form | None:
    if not node.domain and node.op_type in _MOVING:
        return None
    name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    fused = _FUSED.get(node.op_type) if node.domain == "com.microsoft" else None
    sizes = [_large(node, index) for index in range(len(node.inputs))]
    if not any(sizes):
        return None
    index = sizes.index(max(sizes))
    activation = next((i for i, size in enumerate(sizes) if not size), None)
    equation = "" if node.domain else node.attributes.get_string("equation", "")
    reason = f"onnxq does not quantize {name}"
    if fused:
        reason = f"{reason}, {fused}: quantize the model as it was before it was optimized"
    if node.op_type == "Einsum" and equation:
        reason = f"its equation {equation!r} is no product with a matrix"
    return Form(activation, index, reason=reason)


def _large(node: ir.Node, index: int) -> int:
    tensor = weight_tensor(node, index)
    if tensor is None or len(tensor.shape) < 2:
        return 0
    enough = node.op_type in _MULTIPLYING or tensor.size >= WEIGHT_ELEMENTS
    return tensor.size if enough else 0


def _computes_in_float(node: ir.Node) -> bool:
    kinds = {v.dtype for v in (*node.inputs[:2], *node.outputs) if v is not None and v.dtype}
    return not kinds or bool(kinds & FLOATS)


def _why_no_constant(node: ir.Node, index: int) -> str:
    """A reason, where a constant is hidden behind something; empty for a real activation."""
    value = node.inputs[index] if index < len(node.inputs) else None
    path: list[str] = []
    while value is not None:
        producer = value.producer()
        if producer is None or (producer.domain and producer.op_type != "DequantizeLinear"):
            break
        source = producer.inputs[0] if producer.inputs else None
        if producer.op_type == "DequantizeLinear":
            return "its weight is already quantized" if _is_quantized_constant(source) else ""
        if producer.op_type not in _REARRANGING:
            return ""
        path.append(f"{producer.op_type} {producer.name!r}")
        value = source
    if value is None or not path or not value.is_initializer():
        return ""
    return f"its weight {value.name!r} passes through {', '.join(reversed(path))} first"


def _is_quantized_constant(value: ir.Value | None) -> bool:
    """Integers in the file, or a float constant behind QuantizeLinear, as training exports it."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "QuantizeLinear":
        value = producer.inputs[0]
    return value is not None and value.is_initializer()


def _has_input(node: ir.Node, index: int) -> bool:
    return index < len(node.inputs) and node.inputs[index] is not None


def _bias(node: ir.Node) -> int | None:
    return 2 if weight_tensor(node, 2) is not None and _rank(node, 2) == 1 else None


def _rank(node: ir.Node, index: int) -> int:
    tensor = weight_tensor(node, index)
    return 0 if tensor is None else len(tensor.shape)


def _dimensions(count: int) -> str:
    return f"{count} dimension" if count == 1 else f"{count} dimensions"
