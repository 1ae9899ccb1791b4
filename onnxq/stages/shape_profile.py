"""What TensorRT is told of the shapes that will come: a profile, derived from the samples.

ONNX Runtime's TensorRT provider builds an engine for a range of shapes. Without a profile it builds
one at the first run and another whenever a shape leaves the range seen so far, minutes each. With
one (``trt_profile_min_shapes``, ``..._opt_shapes``, ``..._max_shapes``) it builds one when the
model is loaded, and refuses other shapes. All three must be given, and name every input of open
shape that TensorRT sees; the text is ``NAME:1x16,NAME:1x16``, split at each comma and colon
(``tensorrt_execution_provider.cc`` and ``..._utils.h`` of ONNX Runtime).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from onnxq.data.shape_ranges import ShapeRange, open_inputs, shape_ranges
from onnxq.graph.structure import domains, signature
from onnxq.runtime import provider_options, providers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.data.shape_ranges import Shape
    from onnxq.graph.structure import InputSpec

TENSORRT: Final = providers.SHORT["tensorrt"]
KEYS: Final = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")
_TAKEN_WHOLE: Final = frozenset({"", "ai.onnx", "trt.plugins"})
"""Operators of other domains run elsewhere, which divides the graph; a profile would then have to
name values inside it."""


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """The shapes that TensorRT builds its engine for.

    Attributes:
        inputs: The range of each input of open shape; empty where none could be derived.
        samples: How many samples it was derived from.
        note: What the user should know: why there is none, or that it holds one shape only.
    """

    inputs: tuple[ShapeRange, ...] = ()
    samples: int = 0
    note: str = ""

    @property
    def options(self) -> dict[str, str]:
        """TensorRT's options; empty where none could be derived."""
        shapes = (
            {entry.name: entry.least for entry in self.inputs},
            {entry.name: entry.typical for entry in self.inputs},
            {entry.name: entry.greatest for entry in self.inputs},
        )
        return dict(zip(KEYS, map(_text, shapes), strict=True)) if self.inputs else {}

    @property
    def provider_options(self) -> dict[str, dict[str, str]]:
        """The same by provider, for :func:`onnxq.runtime.provider_options.default_options`."""
        return {TENSORRT: self.options} if self.inputs else {}


NO_PROFILE: Final = ShapeProfile()
"""Where TensorRT does not run, no shape is open, or the user gives profiles."""


def shape_profile(
    models: Sequence[ir.Model],
    feeds: Iterable[Mapping[str, NDArray[Any]]],
    names: Iterable[str],
) -> ShapeProfile:
    """Derive the profile of models that are run on the same samples.

    Args:
        models: Models that take the same inputs, some of which may be open in some models only.
        feeds: The samples; not looked at where nothing is to be derived.
        names: The providers that are used.

    Returns:
        The profile; :data:`NO_PROFILE` where TensorRT is not among the providers, no input's shape
        is open, or an option in use says what the profile is.
    """
    given = provider_options.in_use().get(TENSORRT, {})
    if TENSORRT not in {providers.resolve(name) for name in names} or given.keys() & set(KEYS):
        return NO_PROFILE
    # Old models list their weights among the inputs.
    inputs_of = [[s for s in signature(model) if s.required] for model in models]
    specs = {spec.name: spec for inputs in inputs_of for spec in open_inputs(inputs)}
    if not specs:
        return NO_PROFILE
    why_none = _why_none([s for inputs in inputs_of for s in inputs], specs, models)
    if why_none:
        return ShapeProfile(note=_NONE.format(why_none))
    try:
        inputs, count = shape_ranges(list(specs), feeds)
    except ValueError as error:
        return ShapeProfile(note=_NONE.format(error))
    note = "" if any(entry.least != entry.greatest for entry in inputs) else _one_shape(inputs)
    return ShapeProfile(inputs, count, note)


_NONE: Final = (
    "no TensorRT profile was derived from the data: {}; an engine is built at the first run of "
    "each new range of shapes"
)


def _one_shape(inputs: Sequence[ShapeRange]) -> str:
    text = _text({entry.name: entry.greatest for entry in inputs})
    return (
        f"the data has one shape only, {text}: TensorRT's engine takes no other; give data with "
        f"the shapes that will come, or {', '.join(KEYS)}"
    )


def _text(shapes: Mapping[str, Shape]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _why_none(
    inputs: Sequence[InputSpec], opened: Iterable[str], models: Sequence[ir.Model]
) -> str:
    """Why no profile can be told TensorRT; empty if one can."""
    for name in opened:
        if "," in name or ":" in name:
            return f"the input {name!r} has a comma or a colon in its name"
    for spec in inputs:
        if spec.dtype is None or spec.dtype == np.object_:
            return f"the input {spec.name!r} is no tensor of numbers"
        if spec.dtype.kind in "iu" and spec.rank_known and len(spec.shape) <= 1:
            return f"TensorRT may take the values of the input {spec.name!r} for a shape"
    others = sorted({domain for model in models for domain in domains(model)} - _TAKEN_WHOLE)
    return f"operators of {others[0]} divide the graph" if others else ""
