"""A model with its pre- and postprocessing inside: taken apart at a recorded boundary, and joined.

A bundle is ``back(core(front(x)))`` in one graph. The core keeps all its names, so what it takes
and gives are values of the bundle; their names are recorded in the model's metadata under
:data:`KEY`, and that is all that taking it apart needs. What the front makes beside the core's
inputs is for the back alone, such as the size of the image before it was resized.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnxq.errors import ModelError
from onnxq.graph.edit import all_nodes, clone, sort_nodes, value_by_name, value_names
from onnxq.graph.opset import opset_version, raise_opset

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

KEY: Final = "onnxq.bundle"
"""The entry of the metadata that makes a model a bundle."""

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Parts:
    """What a bundle is made of.

    Attributes:
        front: Makes the core's inputs; None where the model is fed as it always was.
        core: The model itself.
        back: Makes something of the core's outputs, and may read its inputs and what else the
            front makes; None where there is none.
        outputs: What the bundle gives, in order: outputs of the back and of the core.
    """

    front: ir.Model | None
    core: ir.Model
    back: ir.Model | None
    outputs: tuple[str, ...]

    @property
    def others(self) -> tuple[tuple[str, ir.Model], ...]:
        """What quantizing leaves alone, each with what it is called."""
        named = (("preprocessing", self.front), ("postprocessing", self.back))
        return tuple((name, part) for name, part in named if part is not None)


def is_bundle(model: ir.Model) -> bool:
    """Whether pre- or postprocessing is in it, by its own account."""
    return KEY in model.metadata_props


def join(parts: Parts) -> ir.Model:
    """One model of all parts, with the boundary recorded; weights are shared, not copied.

    No name may be in two parts, but for the values that one hands to the next. The opset is that
    of the newest part.

    Raises:
        ModelError: A part's operators cannot be raised to that opset.
    """
    present = [part for part in (parts.front, parts.core, parts.back) if part is not None]
    opset = max(opset_version(part) for part in present)
    model = clone(raise_opset(parts.core, opset))
    record = {
        "version": _VERSION,
        "inputs": [value.name for value in model.graph.inputs if not value.is_initializer()],
        "outputs": [value.name for value in model.graph.outputs],
        "shared": _shared(parts),
    }
    model.ir_version = max(part.ir_version or 0 for part in present)
    if parts.front is not None:
        _put_before(clone(raise_opset(parts.front, opset)), model)
    if parts.back is not None:
        _put_behind(clone(raise_opset(parts.back, opset)), model)
    known = value_by_name(model.graph)
    outputs = [known[name] for name in parts.outputs]
    model.graph.outputs.clear()
    model.graph.outputs.extend(outputs)
    sort_nodes(model)
    model.metadata_props[KEY] = json.dumps(record)
    return model


def split(model: ir.Model, where: str) -> Parts:
    """Take a bundle apart.

    Args:
        model: A bundle; it is left as it is.
        where: The file, for messages.

    Raises:
        ModelError: What it records is damaged or does not fit its graph.
    """
    record = _record(model, where)
    inputs, outputs, shared = record["inputs"], record["outputs"], record["shared"]
    given = [value.name or "" for value in model.graph.inputs]
    results = tuple(value.name or "" for value in model.graph.outputs)
    try:
        core = _extracted(model, inputs, outputs)
        made = [name for name in (*inputs, *shared) if name not in given]
        front = (
            _extracted(model, sorted(name for name in given if name not in inputs), made)
            if made
            else None
        )
        new = [name for name in results if name not in outputs]
        back = _extracted(model, [*inputs, *outputs, *shared], new) if new else None
        if back is not None:
            read = [value for value in back.graph.inputs if value.uses()]
            back.graph.inputs.clear()
            back.graph.inputs.extend(read)
    except (ValueError, KeyError) as error:
        raise _damaged(where, "it does not fit its graph") from error
    core.functions.update({key: function.clone() for key, function in model.functions.items()})
    core.metadata_props.update({k: v for k, v in model.metadata_props.items() if k != KEY})
    return Parts(front, core, back, results)


def renamed(part: ir.Model, prefix: str, kept: Iterable[str]) -> ir.Model:
    """A copy whose nodes and values begin with ``prefix``, but for the values named."""
    model, kept = clone(part), frozenset(kept)
    for graph in model.graphs():
        for value in (*graph.inputs, *list(graph.initializers.values())):
            _rename(value, prefix, kept)
    for node in all_nodes(model):
        node.name = f"{prefix}{node.name or node.op_type}"
        for value in node.outputs:
            _rename(value, prefix, kept)
    return model


def free_prefix(model: ir.Model, wanted: str) -> str:
    """``wanted/``, or with a number where names of the model begin so."""
    names = {*value_names(model), *(node.name or "" for node in all_nodes(model))}
    count, prefix = 0, f"{wanted}/"
    while any(name.startswith(prefix) for name in names):
        count += 1
        prefix = f"{wanted}{count}/"
    return prefix


def _rename(value: ir.Value, prefix: str, kept: frozenset[str]) -> None:
    if value.name and value.name not in kept:
        value.name = f"{prefix}{value.name}"


def _shared(parts: Parts) -> list[str]:
    """What the back reads of the front beyond the core's inputs."""
    if parts.front is None or parts.back is None:
        return []
    core = {value.name for value in parts.core.graph.inputs}
    made = {value.name or "" for value in parts.front.graph.outputs} - core
    return sorted(name for value in parts.back.graph.inputs if (name := value.name or "") in made)


def _put_before(front: ir.Model, model: ir.Model) -> None:
    made = {value.name: value for value in front.graph.outputs}
    own = list(front.graph.inputs)
    _move_contents(front, model)
    inputs = list(model.graph.inputs)
    model.graph.inputs.clear()
    for value in inputs:
        source = made.get(value.name)
        if source is None:
            own.append(value)
            continue
        value.replace_all_uses_with(source, replace_graph_outputs=True)
        # What the core declares of its input holds for what it is fed.
        source.shape, source.type = value.shape, value.type
    model.graph.inputs.extend(own)


def _put_behind(back: ir.Model, model: ir.Model) -> None:
    known = value_by_name(model.graph)
    own = list(back.graph.inputs)
    _move_contents(back, model)
    for value in own:
        value.replace_all_uses_with(known[value.name or ""])


def _move_contents(part: ir.Model, model: ir.Model) -> None:
    """Move nodes and weights of a part into the model's graph; the part is used up."""
    part.graph.outputs.clear()
    part.graph.inputs.clear()
    for name in list(part.graph.initializers):
        model.graph.register_initializer(part.graph.initializers.pop(name))
    nodes = list(part.graph)
    part.graph.remove(nodes)
    model.graph.extend(nodes)
    for domain, version in part.opset_imports.items():
        model.opset_imports.setdefault(domain, version)


def _extracted(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Model:
    graph = ir.convenience.extract(model.graph, inputs=inputs, outputs=outputs)
    # It comes with its weights in no order; the same bundle must give the same bytes.
    weights = [name for name in model.graph.initializers if name in graph.initializers]
    for name in weights:
        graph.register_initializer(graph.initializers.pop(name))
    part = ir.Model(graph, ir_version=model.ir_version or 0)
    used = {node.domain for node in all_nodes(part)} | {""}
    for domain in set(part.opset_imports) - used - {key[0] for key in model.functions}:
        part.opset_imports.pop(domain)
    return part


def _record(model: ir.Model, where: str) -> Mapping[str, list[str]]:
    try:
        found = json.loads(model.metadata_props.get(KEY, ""))
    except (ValueError, RecursionError) as error:
        raise _damaged(where, "it is no JSON") from error
    if not isinstance(found, dict) or found.get("version") != _VERSION:
        raise _damaged(where, f"it is not of version {_VERSION}")
    record = {key: found.get(key) for key in ("inputs", "outputs", "shared")}
    for names in record.values():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _damaged(where, "it lists no names")
    return {key: list(names or ()) for key, names in record.items()}


def _damaged(where: str, why: str) -> ModelError:
    code, text = "graph.bundle", f"what it records of its preprocessing is damaged: {why}"
    return ModelError(code, text, where=where, remedy="bundle the model again")
