"""Runs the exported model beside the PyTorch module and measures the difference.

difference = max |onnx - torch| over the elements of an output, allowed = absolute + relative *
max |torch|. Elements that are not finite must be equal.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnxq.errors import BoundMissedError, UsageError
from onnxq.export.calls import run_module, shapes_of
from onnxq.export.spec import Compared, Difference, ExportSpec, Tolerance
from onnxq.runtime.session import Session, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor


def verify(
    specification: ExportSpec,
    path: Path,
    sets: Sequence[Mapping[str, Tensor]],
    *,
    tolerance: Tolerance,
    progress: Callable[[], None] | None = None,
) -> Difference:
    """Compare an ONNX model with what it was made from, on the CPU provider.

    Args:
        specification: Its module is in evaluation mode.
        path: The ONNX model; inputs have the names of the specification's.
        sets: The sets of inputs to compare on; the specification's checks follow.
        tolerance: What each output may differ by.
        progress: Called after each set and each check.

    Returns:
        The difference that is largest beside what is allowed, of all outputs and sets.

    Raises:
        BoundMissedError: If an output differs by more.
        UsageError: If the module cannot run one of the sets.
    """
    session = open_session(path)
    worst: Difference | None = None
    for found in _comparisons(specification, session, sets):
        for compared in found:
            difference = _difference(compared, tolerance)
            if not difference.value <= difference.allowed:
                raise _too_far(difference, path)
            if worst is None or _share(difference) > _share(worst):
                worst = difference
        if progress:
            progress()
    if worst is None:
        code, text = "export.no_outputs", "the module has no output tensor"
        raise UsageError(code, text, where=type(specification.module).__name__)
    return worst


def _comparisons(
    specification: ExportSpec, session: Session, sets: Sequence[Mapping[str, Tensor]]
) -> Iterator[Iterator[Compared]]:
    reference = specification.reference or specification.module
    wanted = {value.name for value in session.inputs}

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        feeds = {n: v.detach().numpy() for n, v in inputs.items() if n in wanted}
        names = [output.name for output in session.outputs]
        found = session.run(feeds)
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    def beside(inputs: Mapping[str, Tensor]) -> Iterator[Compared]:
        expected = run_module(reference, inputs)
        for (name, found), right in zip(run(inputs).items(), expected, strict=True):
            yield Compared(name, found, right, shapes_of(inputs))

    for inputs in sets:
        yield beside(inputs)
    for check in specification.checks:
        yield check(run)


def _difference(compared: Compared, tolerance: Tolerance) -> Difference:
    import torch

    found, right = compared.found, compared.right
    name, shapes = compared.output, compared.shapes
    if found.shape != right.shape or found.dtype != right.dtype:
        return Difference(float("inf"), 0.0, name, shapes)
    if right.numel() == 0:
        return Difference(0.0, 0.0, name, shapes)
    if not right.dtype.is_floating_point:
        return Difference(0.0 if torch.equal(found, right) else float("inf"), 0.0, name, shapes)
    a, b = found.double(), right.double()
    finite = torch.isfinite(b)
    if not bool((finite | (a == b) | (a.isnan() & b.isnan())).all()):
        return Difference(float("inf"), 0.0, name, shapes)
    a, b = a[finite], b[finite]
    allowed = tolerance.absolute
    value = 0.0
    if b.numel():
        allowed += tolerance.relative * float(b.abs().max())
        value = float((a - b).abs().max())
    return Difference(float("inf") if math.isnan(value) else value, allowed, name, shapes)


def _share(difference: Difference) -> float:
    """How much of what is allowed a difference is."""
    return difference.value / difference.allowed if difference.allowed else 0.0


def _too_far(difference: Difference, path: Path) -> BoundMissedError:
    shapes = ", ".join(f"{n} {list(s)}" for n, s in difference.shapes.items())
    text = (
        f"output {difference.output!r} differs from PyTorch's by {difference.value:.3g}, "
        f"{difference.allowed:.3g} is allowed; inputs: {shapes}"
    )
    remedy = "look for code that depends on a shape or on training mode, or allow more"
    return BoundMissedError(code="export.differs", message=text, where=path.name, remedy=remedy)
