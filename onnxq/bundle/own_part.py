"""Pre- and postprocessing that the user gives as models of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import common

from onnxq.errors import DataError
from onnxq.graph.edit import NameScope, is_overridable, value_names
from onnxq.graph.io import load
from onnxq.graph.names import UniqueNamesPass
from onnxq.graph.parts import free_prefix, is_bundle, renamed

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir


def load_part(path: Path, core: ir.Model, prefix: str) -> ir.Model:
    """Read a part and give it names that the model has not, but for inputs and outputs.

    Raises:
        ModelError: It is no valid model.
        DataError: It is a bundle itself.
    """
    part = load(path)
    if is_bundle(part):
        code, text = "bundle.twice", "this is a bundle, not a part of one"
        raise DataError(code, text, where=str(path), remedy="Give a model of the steps alone.")
    if part.functions:
        UniqueNamesPass()(part)
        part = common.InlinePass()(part).model
    kept = {value.name or "" for value in (*part.graph.inputs, *part.graph.outputs)}
    return renamed(part, free_prefix(core, prefix), kept)


def outputs_for(part: ir.Model, core: ir.Model, where: str) -> ir.Model:
    """The part, its outputs called like the inputs of the model that they feed.

    Raises:
        DataError: It feeds none, has not one input, or what it makes has another type or shape.
    """
    inputs = [value for value in part.graph.inputs if not is_overridable(value, part)]
    if len(inputs) != 1:
        code, text = "preprocess.inputs", f"it has {len(inputs)} inputs where one is fed"
        raise DataError(code, text, where=where, remedy="Make everything else constant.")
    inputs[0].name = NameScope(core)(inputs[0].name or "input")
    wanted = {value.name or "": value for value in core.graph.inputs}
    required = [name for name, value in wanted.items() if not value.is_initializer()]
    made = list(part.graph.outputs)
    if len(made) == len(required) == 1 and made[0].name not in wanted:
        made[0].name = required[0]
    fed = [value for value in made if value.name in wanted]
    if not fed:
        given = ", ".join(value.name or "" for value in made)
        code = "preprocess.outputs"
        text = f"it gives {given}, the model takes {', '.join(wanted)}"
        raise DataError(code, text, where=where, remedy="Name its outputs like the model's inputs.")
    for value in fed:
        _check_fit(value, wanted[value.name or ""], where)
    part.graph.outputs.clear()
    part.graph.outputs.extend(fed)
    return part


def inputs_from(part: ir.Model, core: ir.Model, where: str) -> ir.Model:
    """The part, if all that it takes is among the model's inputs and outputs.

    Raises:
        DataError: It takes something else, or gives what is called like something of the model.
    """
    known = {value.name or "": value for value in (*core.graph.outputs, *core.graph.inputs)}
    for value in part.graph.inputs:
        if is_overridable(value, part):
            continue
        if value.name not in known:
            code, text = "postprocess.inputs", f"it takes {value.name!r}, which the model has not"
            remedy = f"Name its inputs like the model's outputs: {', '.join(known)}."
            raise DataError(code, text, where=where, remedy=remedy)
        _check_fit(known[value.name], value, where)
    taken = value_names(core)
    clash = next((value.name for value in part.graph.outputs if value.name in taken), None)
    if clash is not None:
        code, text = "postprocess.outputs", f"it gives {clash!r}, which the model has already"
        raise DataError(code, text, where=where, remedy="Name its outputs otherwise.")
    return part


def _check_fit(made: ir.Value, wanted: ir.Value, where: str) -> None:
    name = wanted.name
    if made.dtype is not None and wanted.dtype is not None and made.dtype != wanted.dtype:
        text = f"{name!r} is made as {made.dtype.name} and read as {wanted.dtype.name}"
        code, remedy = "bundle.type", "Cast it there."
        raise DataError(code, text, where=where, remedy=remedy)
    if made.shape is None or wanted.shape is None:
        return
    fits = len(made.shape) == len(wanted.shape) and all(
        one == other or not (isinstance(one, int) and isinstance(other, int))
        for one, other in zip(made.shape, wanted.shape, strict=True)
    )
    if not fits:
        text = f"{name!r} is made as {made.shape} and read as {wanted.shape}"
        code, remedy = "bundle.shape", "Change the shape there."
        raise DataError(code, text, where=where, remedy=remedy)
