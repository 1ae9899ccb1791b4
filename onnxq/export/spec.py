"""What is exported, what it is verified by, and what the export reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

Run = Callable[[Mapping[str, "Tensor"]], "Mapping[str, Tensor]"]
"""Runs the exported model: inputs by name to outputs by name."""


@dataclass(frozen=True)
class Compared:
    """An output of the exported model beside the one that is right.

    Attributes:
        output: What it is, such as ``"logits"``.
        found: The exported model's.
        right: PyTorch's.
        shapes: The shapes of the inputs that gave it.
    """

    output: str
    found: Tensor
    right: Tensor
    shapes: Mapping[str, tuple[int, ...]]


class Check(Protocol):
    """What the exported model must also satisfy, such as that a cache replaces the tokens in it."""

    def __call__(self, run: Run) -> Iterator[Compared]:
        """Run the exported model, and yield its outputs beside the right ones."""


@dataclass(frozen=True)
class ExportSpec:
    """A PyTorch module with example inputs and named dynamic axes.

    Attributes:
        module: The module; it is exported in evaluation mode.
        example_inputs: A tensor for each ONNX input, by its name. Each name is a parameter of
            ``module.forward``; where ``forward`` takes ``*tensors`` they are given in order and may
            have any name.
        dynamic_axes: For an input, the name of each axis that may vary, such as
            ``{"input_ids": {0: "batch", 1: "sequence"}}``. Axes not named here stay fixed.
        output_names: Names for the outputs, in order; those that PyTorch finds if empty.
        further_inputs: More sets of inputs, with other shapes, to verify the exported model on.
            If there are fewer than two, more are made by repeating the example's values along the
            dynamic axes.
        axis_names: Names for axes whose length PyTorch works out, by its formula, such as
            ``{"past + sequence": "total"}``.
        reference: Computes the right outputs from the same inputs; ``module`` itself if None. Given
            where ``module`` was rewritten to export well.
        checks: What is verified besides.
    """

    module: nn.Module
    example_inputs: Mapping[str, Tensor]
    dynamic_axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    output_names: tuple[str, ...] = ()
    further_inputs: tuple[Mapping[str, Tensor], ...] = ()
    axis_names: Mapping[str, str] = field(default_factory=dict)
    reference: nn.Module | None = None
    checks: tuple[Check, ...] = ()


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
        dtype: Its element type, such as ``"int64"`` or ``"float32"``.
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
class ExportedModel:
    """One ONNX file that agrees with PyTorch.

    Attributes:
        path: The file.
        opset: Version of the operator set.
        inputs: The inputs, in order.
        outputs: The names of the outputs, in order.
        verified_shapes: For each set of inputs that was compared, the shape of each input.
        worst: The worst difference, the output it is in and the shapes it was seen with.
        tolerance: What was allowed.
        notes: What its reader should know, such as that it was verified in another type.
    """

    path: Path
    opset: int
    inputs: tuple[ExportedInput, ...]
    outputs: tuple[str, ...]
    verified_shapes: tuple[Mapping[str, tuple[int, ...]], ...]
    worst: Difference
    tolerance: Tolerance
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        path: The ONNX file; or the folder, of an encoder with its decoder.
        models: The ONNX files: one, or ``encoder.onnx`` and ``decoder.onnx``.
        task: What the model of a checkpoint does, such as ``"text-generation"``; else empty.
        checkpoint: The checkpoint's folder, with its tokenizer or preprocessor; else None.
    """

    path: Path
    models: tuple[ExportedModel, ...]
    task: str = ""
    checkpoint: Path | None = None
