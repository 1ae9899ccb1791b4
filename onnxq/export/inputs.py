"""The sets of inputs that a module is traced with and its export is verified on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from onnxq.errors import UsageError
from onnxq.export.calls import arguments, shapes_of

if TYPE_CHECKING:
    from torch import Tensor

    from onnxq.export.spec import ExportSpec

SETS_TO_VERIFY: Final = 3


def input_sets(specification: ExportSpec, where: str) -> list[Mapping[str, Tensor]]:
    """Return the inputs to trace with, then those to verify with.

    The first set has no dynamic axis of length one, which PyTorch would take for fixed.

    Raises:
        UsageError: If a set does not fit the module or names an axis that does not exist.
    """
    sets = [specification.example_inputs, *specification.further_inputs]
    for inputs in sets:
        _check_inputs(specification, inputs, where)
    _check_axes(specification, where)
    if not any(specification.dynamic_axes.values()):
        return sets
    shapes = [shapes_of(inputs) for inputs in sets]
    if _has_axis_of_one(specification):
        sets.insert(0, _repeated(specification, 2))
        shapes.insert(0, shapes_of(sets[0]))
    factor = 2
    while len(sets) < SETS_TO_VERIFY:
        further = _repeated(specification, factor)
        factor += 1
        if shapes_of(further) not in shapes:
            sets.append(further)
            shapes.append(shapes_of(further))
    return sets


def _check_inputs(specification: ExportSpec, inputs: object, where: str) -> None:
    from torch import Tensor

    remedy = "give a dict: a tensor for each parameter of forward, by its name"
    if not isinstance(inputs, Mapping) or not inputs:
        text = f"the example inputs are {'empty' if inputs == {} else type(inputs).__name__}"
        raise UsageError(code="export.bad_inputs", message=text, where=where, remedy=remedy)
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            text = f"the example for input {name!r} is a {type(value).__name__}, no tensor"
            raise UsageError(code="export.bad_inputs", message=text, where=where, remedy=remedy)
    if inputs.keys() != specification.example_inputs.keys():
        text = "the further inputs have other names than the example inputs"
        raise UsageError(code="export.bad_inputs", message=text, where=where, remedy=remedy)
    try:
        arguments(specification.module, inputs)
    except TypeError as error:
        module = type(specification.module).__name__
        text = f"{module}.forward does not take the example inputs: {error}"
        raise UsageError(
            code="export.bad_inputs", message=text, where=where, remedy=remedy
        ) from error


def _check_axes(specification: ExportSpec, where: str) -> None:
    for name, axes in specification.dynamic_axes.items():
        example = specification.example_inputs.get(name)
        if example is None:
            text = f"dynamic_axes names {name!r}, which is no input"
            remedy = f"the inputs are {', '.join(specification.example_inputs)}"
            raise UsageError(code="export.bad_axes", message=text, where=where, remedy=remedy)
        for axis in axes:
            if not 0 <= axis < example.ndim:
                text = f"input {name!r} has {example.ndim} axes, there is no axis {axis}"
                remedy = "count axes from 0"
                raise UsageError(code="export.bad_axes", message=text, where=where, remedy=remedy)


def _has_axis_of_one(specification: ExportSpec) -> bool:
    return any(
        specification.example_inputs[name].shape[axis] == 1
        for name, axes in specification.dynamic_axes.items()
        for axis in axes
    )


def _repeated(specification: ExportSpec, factor: int) -> dict[str, Tensor]:
    """Repeat the example's values along each dynamic axis; the n-th axis name once more."""
    names = list(dict.fromkeys(n for a in specification.dynamic_axes.values() for n in a.values()))
    repeated = {}
    for name, example in specification.example_inputs.items():
        axes = specification.dynamic_axes.get(name, {})
        # Different factors for different names, so that two axes of one length part.
        times = [factor + names.index(axes[i]) if i in axes else 1 for i in range(example.ndim)]
        repeated[name] = example.repeat(times) if times else example
    return repeated
