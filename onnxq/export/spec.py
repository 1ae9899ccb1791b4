"""What an export factory returns, and what the export reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn


@dataclass(frozen=True)
class ExportSpec:
    """A PyTorch module with example inputs and named dynamic axes.

    Attributes:
        module: The module; it is exported in evaluation mode.
        example_inputs: A tensor for each input; each key is a parameter of ``module.forward`` and
            becomes the name of the ONNX input.
        dynamic_axes: For an input, the name of each axis that may vary, such as
            ``{"input_ids": {0: "batch", 1: "sequence"}}``. Axes not named here stay fixed.
        output_names: Names for the outputs, in order; those that PyTorch finds if empty.
        further_inputs: More sets of inputs, with other shapes, to verify the exported model on.
            If there are fewer than two, more are made by repeating the example's values along the
            dynamic axes.
    """

    module: nn.Module
    example_inputs: Mapping[str, Tensor]
    dynamic_axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    output_names: tuple[str, ...] = ()
    further_inputs: tuple[Mapping[str, Tensor], ...] = ()


@dataclass(frozen=True)
class Tolerance:
    """How far an output may be from PyTorch's.

    A floating-point output passes if ``max |onnx - torch| <= absolute + relative * max |torch|``
    over its elements; other outputs must be equal.
    """

    absolute: float = 1e-5
    relative: float = 1e-4


@dataclass(frozen=True)
class ExportedInput:
    """An input of the exported model.

    Attributes:
        name: Its name.
        dtype: Its element type as NumPy calls it, such as ``"int64"``.
        shape: A number for a fixed axis, the name for a dynamic one.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Difference:
    """The largest ``|onnx - torch|`` that was seen, where, and what was allowed there."""

    value: float
    allowed: float
    output: str
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class ExportResult:
    """A model that was exported and agrees with PyTorch.

    Attributes:
        path: The ONNX file.
        opset: Version of the operator set.
        inputs: The inputs, in order.
        outputs: The names of the outputs, in order.
        verified_shapes: For each set of inputs that was compared, the shape of each input.
        worst: The worst difference, the output it is in and the shapes it was seen with.
        tolerance: What was allowed.
    """

    path: Path
    opset: int
    inputs: tuple[ExportedInput, ...]
    outputs: tuple[str, ...]
    verified_shapes: tuple[Mapping[str, tuple[int, ...]], ...]
    worst: Difference
    tolerance: Tolerance
