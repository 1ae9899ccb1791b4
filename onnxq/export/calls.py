"""Calls a module with inputs by name, whether its ``forward`` names them or takes ``*tensors``."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from onnxq.errors import UsageError
from onnxq.export.source import one_line

if TYPE_CHECKING:
    from torch import Tensor, nn


def shapes_of(inputs: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input."""
    return {name: tuple(value.shape) for name, value in inputs.items()}


def arguments(
    module: nn.Module, inputs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments that give ``inputs`` to a module.

    Raises:
        TypeError: If ``forward`` does not take them.
    """
    import torch

    # TorchScript has no signature that Python can read.
    if isinstance(module, torch.jit.ScriptModule):
        return tuple(inputs.values()), {}
    form = signature(module.forward)
    if any(item.kind is Parameter.VAR_POSITIONAL for item in form.parameters.values()):
        return tuple(inputs.values()), {}
    form.bind(**inputs)
    return (), dict(inputs)


def run_module(module: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the tensors that a module computes, in PyTorch's order.

    Raises:
        UsageError: If it cannot run on these inputs.
    """
    import torch

    try:
        positional, named = arguments(module, inputs)
        with torch.inference_mode():
            return flatten(module(*positional, **named))
    except Exception as error:
        name = type(module).__name__
        text = f"{name} cannot run on inputs of shapes {shapes_of(inputs)}: {one_line(error)}"
        remedy = "give further_inputs with shapes that the module accepts"
        raise UsageError(
            code="export.cannot_run", message=text, where=name, remedy=remedy
        ) from error


def flatten(value: object) -> list[Tensor]:
    """Return the tensors in what a module returned, in PyTorch's order."""
    from torch import Tensor

    if isinstance(value, Tensor):
        return [value]
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [tensor for part in value.values() for tensor in flatten(part)]
    if isinstance(value, tuple | list):
        return [tensor for part in value for tensor in flatten(part)]
    msg = f"the module returns a {type(value).__name__}"
    raise TypeError(msg)
