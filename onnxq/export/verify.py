"""Runs the exported model beside the PyTorch module and measures the difference.

difference = max |onnx - torch| over the elements of an output, allowed = absolute + relative *
max |torch|. Elements that are not finite must be equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.errors import BoundMissedError, UsageError
from onnxq.export.inputs import shapes_of
from onnxq.export.source import one_line
from onnxq.export.spec import Difference, Tolerance
from onnxq.runtime.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn


def verify(
    module: nn.Module,
    path: Path,
    sets: Sequence[Mapping[str, Tensor]],
    *,
    tolerance: Tolerance,
    progress: Callable[[int, int], None] | None = None,
) -> Difference:
    """Compare an ONNX model with the module it was made from, on the CPU provider.

    Args:
        module: In evaluation mode.
        path: The ONNX model; inputs have the names of the module's parameters.
        sets: The sets of inputs to compare on.
        tolerance: What each output may differ by.
        progress: Called with the number of sets done and of all sets.

    Returns:
        The worst difference of all outputs and sets.

    Raises:
        BoundMissedError: If an output differs by more.
        UsageError: If the module cannot run one of the sets.
    """
    session = open_session(path)
    names = [output.name for output in session.outputs]
    wanted_inputs = {value.name for value in session.inputs}
    worst: Difference | None = None
    for done, inputs in enumerate(sets, 1):
        expected = _run_module(module, inputs)
        feeds = {n: v.detach().numpy() for n, v in inputs.items() if n in wanted_inputs}
        for name, found, right in zip(names, session.run(feeds), expected, strict=True):
            difference = _difference(name, found, right, tolerance, shapes_of(inputs))
            if not difference.value <= difference.allowed:
                raise _too_far(difference, path)
            if worst is None or difference.value > worst.value:
                worst = difference
        if progress:
            progress(done, len(sets))
    if worst is None:
        code, text = "export.no_outputs", "the module has no output tensor"
        raise UsageError(code, text, where=type(module).__name__)
    return worst


def _run_module(module: nn.Module, inputs: Mapping[str, Tensor]) -> list[NDArray[Any]]:
    import torch

    try:
        with torch.inference_mode():
            return [value.numpy() for value in _flatten(module(**inputs))]
    except Exception as error:
        name = type(module).__name__
        text = f"{name} cannot run on inputs of shapes {shapes_of(inputs)}: {one_line(error)}"
        remedy = "give further_inputs with shapes that the module accepts"
        raise UsageError(
            code="export.cannot_run", message=text, where=name, remedy=remedy
        ) from error


def _flatten(value: object) -> list[Tensor]:
    """Return the tensors in what a module returned, in PyTorch's order."""
    from torch import Tensor

    if isinstance(value, Tensor):
        return [value]
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [tensor for part in value.values() for tensor in _flatten(part)]
    if isinstance(value, tuple | list):
        return [tensor for part in value for tensor in _flatten(part)]
    msg = f"the module returns a {type(value).__name__}"
    raise TypeError(msg)


def _difference(
    name: str,
    found: NDArray[Any],
    right: NDArray[Any],
    tolerance: Tolerance,
    shapes: Mapping[str, tuple[int, ...]],
) -> Difference:
    if found.shape != right.shape or found.dtype != right.dtype:
        return Difference(np.inf, 0.0, name, shapes)
    if right.size == 0:
        return Difference(0.0, 0.0, name, shapes)
    if not np.issubdtype(right.dtype, np.floating):
        return Difference(0.0 if np.array_equal(found, right) else np.inf, 0.0, name, shapes)
    finite = np.isfinite(right)
    if not np.array_equal(found[~finite], right[~finite], equal_nan=True):
        return Difference(np.inf, 0.0, name, shapes)
    a, b = found[finite].astype(np.float64), right[finite].astype(np.float64)
    allowed = tolerance.absolute + tolerance.relative * float(np.abs(b).max(initial=0.0))
    value = float(np.abs(a - b).max(initial=0.0))
    return Difference(np.inf if np.isnan(value) else value, allowed, name, shapes)


def _too_far(difference: Difference, path: Path) -> BoundMissedError:
    shapes = ", ".join(f"{n} {list(s)}" for n, s in difference.shapes.items())
    text = (
        f"output {difference.output!r} differs from PyTorch's by {difference.value:.3g}, "
        f"{difference.allowed:.3g} is allowed; inputs: {shapes}"
    )
    remedy = "look for code that depends on a shape or on training mode, or allow more"
    return BoundMissedError("export.differs", text, where=path.name, remedy=remedy)
