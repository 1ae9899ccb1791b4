"""Inputs as the command line writes them: ``image=float32[batch,3,224,224]``.

An axis is a length, or a name where it may vary, with the length to trace with if it matters:
``batch=4``. Integers are drawn from 0 and 1, or below a bound: ``ids=int64[batch,sequence]<30522``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnxq.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

SYNTAX: Final = 'write it as "NAME=TYPE[AXIS,...]", as in "image=float32[batch,3,224,224]"'
TYPES: Final = (
    "float32",
    "float16",
    "bfloat16",
    "float64",
    "int64",
    "int32",
    "int8",
    "uint8",
    "bool",
)
_FORM: Final = re.compile(
    r"(?P<name>[\w.]+)=(?P<type>\w+)\[(?P<axes>[\w=, ]*)\](?:<(?P<bound>\d+))?"
)
_AXIS: Final = re.compile(r"(?P<length>[1-9]\d*)|(?P<name>[A-Za-z_]\w*)(?:=(?P<example>[1-9]\d*))?")
_FIRST_LENGTH: Final = 2
_STEP: Final = 3


@dataclass(frozen=True)
class InputForm:
    """An input that somebody declared.

    Attributes:
        name: Its name.
        dtype: One of `TYPES`.
        axes: A length; or a name, and the length to trace with, 0 for any.
        bound: What integers stay below.
    """

    name: str
    dtype: str
    axes: tuple[int | tuple[str, int], ...]
    bound: int = 2

    @property
    def names(self) -> dict[int, str]:
        """The names of the axes that may vary."""
        return {i: axis[0] for i, axis in enumerate(self.axes) if isinstance(axis, tuple)}


def parse_input(text: str) -> InputForm:
    """Read an input.

    Raises:
        UsageError: If it has another form.
    """
    found = _FORM.fullmatch(text.strip())
    axes = [part.strip() for part in found["axes"].split(",") if part.strip()] if found else []
    matched = [_AXIS.fullmatch(axis) for axis in axes]
    if found is None or found["type"] not in TYPES or None in matched:
        what = "this is no input" if found is None or None in matched else "its type is unknown"
        remedy = SYNTAX if found is None or None in matched else f"types: {', '.join(TYPES)}"
        raise UsageError(code="export.bad_input_form", message=what, where=text, remedy=remedy)
    shape = tuple(
        int(axis["length"]) if axis["length"] else (axis["name"], int(axis["example"] or 0))
        for axis in matched
        if axis
    )
    return InputForm(found["name"], found["type"], shape, int(found["bound"] or 2))


def example_sets(forms: tuple[InputForm, ...]) -> list[Mapping[str, Tensor]]:
    """Tensors of three sets of lengths; of one where no axis may vary."""
    given = {axis[0]: axis[1] for form in forms for axis in form.axes if isinstance(axis, tuple)}
    lengths = {name: given[name] or _FIRST_LENGTH + _STEP * i for i, name in enumerate(given)}
    rounds = (0, -1, 2) if lengths else (0,)
    return [
        dict(_tensors(forms, {n: max(1, length + more) for n, length in lengths.items()}))
        for more in rounds
    ]


def _tensors(
    forms: tuple[InputForm, ...], lengths: Mapping[str, int]
) -> Iterator[tuple[str, Tensor]]:
    import torch

    generator = torch.Generator().manual_seed(0)
    for form in forms:
        shape = [lengths[axis[0]] if isinstance(axis, tuple) else axis for axis in form.axes]
        kind = getattr(torch, form.dtype)
        if kind.is_floating_point:
            yield form.name, torch.randn(shape, generator=generator).to(kind)
        else:
            bound = 2 if form.dtype == "bool" else form.bound
            yield form.name, torch.randint(0, bound, shape, generator=generator).to(kind)
