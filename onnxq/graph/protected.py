"""Values that must keep their exact value, whatever is quantized around them.

Q/DQ is only inserted in front of the site that consumes a value; the value itself stays as it is
for these other readers. Three kinds:
    - outputs of the graph;
    - values that a subgraph captures;
    - values that end in a shape, an index or a condition: a rounded length is a wrong length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.analysis import analyze_implicit_usage

from onnxq.graph.edit import nodes_below

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

# Inputs that are lengths, positions or conditions, by operator.
_STEERING: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Gather": (1,),
    "GatherElements": (1,),
    "GatherND": (1,),
    "If": (0,),
    "Loop": (0, 1),
    "NonMaxSuppression": (2, 3, 4),
    "OneHot": (0, 1),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "ScatterElements": (1,),
    "ScatterND": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
# How a length or an index is computed; anything else is the network itself, where the walk ends.
_ARITHMETIC = frozenset(
    [
        "Abs",
        "Add",
        "ArgMax",
        "ArgMin",
        "Cast",
        "Ceil",
        "Clip",
        "Concat",
        "CumSum",
        "Div",
        "Equal",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "NonZero",
        "Not",
        "And",
        "Or",
        "Pow",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "Round",
        "Slice",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "TopK",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)


def protected_values(model: ir.Model) -> frozenset[str]:
    """Names of main graph values that are outputs, captured by subgraphs, or steer shapes."""
    names = {value.name for value in model.graph.outputs}
    for captured in analyze_implicit_usage(model.graph).values():
        names.update(value.name for value in captured if value.graph is model.graph)
    names.update(value.name for value in steering_values(model))
    return frozenset(name for name in names if name)


def steering_values(model: ir.Model) -> frozenset[ir.Value]:
    """The values that end in a shape, an index or a condition, in whatever graph."""
    todo = list(_steering_inputs(model))
    seen: set[ir.Value] = set()
    while todo:
        value = todo.pop()
        if value in seen or value.is_initializer():
            continue
        seen.add(value)
        producer = value.producer()
        # Shape and Size read no elements, so nothing before them steers anything.
        if producer is not None and not producer.domain and producer.op_type in _ARITHMETIC:
            todo.extend(source for source in producer.inputs if source is not None)
    return frozenset(seen)


def _steering_inputs(model: ir.Model) -> Iterator[ir.Value]:
    for node in nodes_below(model.graph):
        if node.domain:
            continue
        for index in _STEERING.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is not None:
                yield value
