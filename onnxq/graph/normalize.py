"""One form for every model, so that the passes behind it meet few cases.

After normalization: functions are inlined, constants are initializers of the main graph, constant
expressions are computed (within bounds), weights that were only rearranged are the rearranged
weights, operators with a weight have their plain form (``unfuse.py``, ``plain_*.py``), what scales
or shifts the channels of a Conv is part of it, equal initializers and equal expressions exist once,
nodes are sorted, every node and value has a name of its own, types and shapes are inferred as far
as they can be. Names freeze here.

What stays: inputs and outputs (names, types, shapes, order), metadata, opsets, a Constant,
initializer or input that is itself an output, initializers that a caller may override, and
DequantizeLinear of quantized weights.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from onnxq.errors import InternalError
from onnxq.garbage import paced_collection
from onnxq.graph.deduplicate import DeduplicatePass
from onnxq.graph.edit import OVERRIDABLE_SINCE_IR, all_nodes, clone, nodes_below, sort_nodes
from onnxq.graph.fold_affine import FoldAffinePass
from onnxq.graph.fold_constants import FoldConstantsPass
from onnxq.graph.fold_layout import FoldLayoutPass
from onnxq.graph.names import UniqueNamesPass
from onnxq.graph.plain_einsum import PlainEinsumPass
from onnxq.graph.plain_gemm import PlainGemmPass
from onnxq.graph.plain_matmul import PlainMatMulPass
from onnxq.graph.shapes import infer_shapes, leave_unnamed
from onnxq.graph.unfuse import UnfusePass
from onnxq.graph.widen import widened

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

# Without a handler of their own, these print warnings to standard error.
for _library in ("onnx_ir", "onnxscript"):
    logging.getLogger(_library).addHandler(logging.NullHandler())

_RANDOM = frozenset({"Bernoulli", "Dropout"})


@dataclass(frozen=True, slots=True)
class NormalizeResult:
    """A normalized model.

    Attributes:
        model: A new model that shares its tensors with the one given.
        notes: What could not be done or had to be changed, each a sentence for people.
    """

    model: ir.Model
    notes: tuple[str, ...]


def normalize(model: ir.Model, *, widens: Collection[str] = ()) -> NormalizeResult:
    """Bring a model into the form that sites and passes expect.

    Args:
        model: Left as it is, but for the order of nodes that stand before what they read.
        widens: Types that are to be computed in float32 (``widen.py``), such as ``FLOAT16``.

    Raises:
        ModelError: If the graph has a cycle.
        InternalError: If an input or output would have changed.
    """
    with paced_collection(sum(1 for _ in all_nodes(model))):
        return _normalized(model, widens)


def _normalized(model: ir.Model, widens: Collection[str]) -> NormalizeResult:
    notes: list[str] = []
    work = clone(model)
    notes += _modernize(work)
    hidden = _hide_overridable(work)
    # Nodes of functions are named first: inlining calls every nameless one "node".
    UniqueNamesPass()(work)
    unused = common.RemoveUnusedFunctionsPass()  # type: ignore[no-untyped-call]
    work = _attempt(work, unused, notes, "functions were kept")
    work = _attempt(work, common.InlinePass(), notes, "functions were not inlined")
    work = _clear_function_domains(work, model)
    _unify_constants(work)
    gather = (
        UniqueNamesPass(),
        common.LiftConstantsToInitializersPass(size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        UniqueNamesPass(),
    )
    work = _attempt_all(work, gather, notes)
    if widens:
        work, note = widened(work, widens)
        notes += [note] if note else []
    fold = (FoldLayoutPass(), FoldConstantsPass(), FoldLayoutPass(), UnfusePass(), PlainGemmPass())
    work = _attempt_all(work, fold, notes)
    if _wants_ranks(work):
        infer_shapes(work)
        work = _attempt_all(work, (PlainMatMulPass(), PlainEinsumPass()), notes)
    finish = (
        FoldAffinePass(),
        DeduplicatePass(),
        *_common_subexpressions(work),
        common.RemoveUnusedNodesPass(),
        UniqueNamesPass(),
    )
    work = _attempt_all(work, finish, notes)
    _restore_overridable(work, hidden)
    _restore_types(model, work)
    sort_nodes(work)
    notes += infer_shapes(work)
    leave_unnamed(model, work)
    _check_interface(model, work)
    return NormalizeResult(work, tuple(notes))


def _attempt_all(
    model: ir.Model, steps: Sequence[ir.passes.PassBase], notes: list[str]
) -> ir.Model:
    """Run passes on one clone; if one fails, each on a clone of its own, to leave that one out."""
    try:
        return ir.passes.Sequential(*steps)(model.clone()).model
    except Exception:  # the second attempt says which and why
        for step in steps:
            model = _attempt(model, step, notes, f"{type(step).__name__} was left out")
        return model


def _attempt(
    model: ir.Model, step: ir.passes.PassBase, notes: list[str], otherwise: str
) -> ir.Model:
    """Run a pass on a clone; if it fails, keep the model and say so."""
    try:
        return step(model.clone()).model
    except Exception as error:  # a pass of another library may raise anything
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        notes.append(f"{otherwise}: {' '.join(str(cause).split())[:200]}")
        return model


def _modernize(model: ir.Model) -> list[str]:
    notes = []
    if (model.ir_version or 0) < OVERRIDABLE_SINCE_IR:
        removed = common.RemoveInitializersFromInputsPass()(model).modified
        ending = ": initializers are no longer listed among the inputs" if removed else ""
        notes.append(f"IR version {model.ir_version} raised to {OVERRIDABLE_SINCE_IR}{ending}")
        model.ir_version = OVERRIDABLE_SINCE_IR
    used = {node.domain for node in all_nodes(model)} - {key[0] for key in model.functions}
    for domain in sorted(used - set(model.opset_imports)):
        version = onnx.defs.onnx_opset_version() if domain == "" else 1
        model.opset_imports[domain] = version
        notes.append(f"opset of domain {domain or 'ai.onnx'!r} was missing, {version} is taken")
    return notes


def _hide_overridable(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Make defaults of inputs invisible, so that no pass takes them for constants."""
    hidden = {}
    for value in model.graph.inputs:
        if value.is_initializer() and value.const_value is not None and value.name is not None:
            hidden[value.name] = value.const_value
            model.graph.initializers.pop(value.name)
            value.const_value = None
    return hidden


def _restore_overridable(model: ir.Model, hidden: dict[str, ir.TensorProtocol]) -> None:
    for value in model.graph.inputs:
        if value.name in hidden:
            value.const_value = hidden[value.name]
            model.graph.register_initializer(value)


def _restore_types(before: ir.Model, after: ir.Model) -> None:
    """An output that was another expression's twin comes out of a new Identity without a type."""
    for old, new in zip(before.graph.outputs, after.graph.outputs, strict=True):
        if new.name == old.name and new.type is None and new.shape is None:
            new.type = old.type
            new.shape = None if old.shape is None else old.shape.copy()


def _clear_function_domains(model: ir.Model, original: ir.Model) -> ir.Model:
    """Drop the opset imports that only inlined functions needed."""
    used = {node.domain for node in all_nodes(model)} | {key[0] for key in model.functions}
    for domain in {key[0] for key in original.functions} - used - {""}:
        model.opset_imports.pop(domain, None)
    return model


def _unify_constants(model: ir.Model) -> None:
    """Let every numeric Constant carry a tensor; ``value_ints`` and the like become ``value``."""
    kinds: dict[str, type[np.generic]] = {
        "value_int": np.int64,
        "value_ints": np.int64,
        "value_float": np.float32,
        "value_floats": np.float32,
    }
    for node in nodes_below(model.graph):
        if node.op_type != "Constant" or node.domain or len(node.attributes) != 1:
            continue
        name, attribute = next(iter(node.attributes.items()))
        if name in kinds and not attribute.is_ref():
            tensor = ir.tensor(np.array(attribute.value, dtype=kinds[name]))
            node.attributes.pop(name)
            node.attributes["value"] = ir.AttrTensor("value", tensor)


def _wants_ranks(model: ir.Model) -> bool:
    """Whether there is a form that is only plain for activations of a known rank."""
    return any(
        node.op_type == "Einsum"
        or (node.op_type == "MatMul" and len(node.inputs) > 1 and _rank(node.inputs[1]) > 2)
        for node in all_nodes(model)
    )


def _rank(value: ir.Value | None) -> int:
    tensor = None if value is None else value.const_value
    return 0 if tensor is None else len(tensor.shape)


def _common_subexpressions(model: ir.Model) -> Iterable[ir.passes.PassBase]:
    """The pass of onnx_ir does not know these operators to be random."""
    if any(node.op_type in _RANDOM for node in all_nodes(model)):
        return ()
    return (common.CommonSubexpressionEliminationPass(),)


def _check_interface(before: ir.Model, after: ir.Model) -> None:
    old_ir = (before.ir_version or 0) < OVERRIDABLE_SINCE_IR
    inputs = [v for v in before.graph.inputs if not (old_ir and v.is_initializer())]
    pairs = ((inputs, after.graph.inputs), (before.graph.outputs, after.graph.outputs))
    for old, new in pairs:
        if [(v.name, v.type, v.shape) for v in old] != [(v.name, v.type, v.shape) for v in new]:
            code, text = "graph.interface", "normalization changed an input or output"
            raise InternalError(code, text, where=before.graph.name or "model")
