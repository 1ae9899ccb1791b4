"""Which form of a product or a convolution is fastest here, on the sizes that a model really runs.

The forms of :mod:`onnxq.runtime.kernel_forms` are timed as models are: each alone in its process,
processes in alternation. What was measured is kept by machine, GPU and driver, runtime version
and provider, a file for each shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import onnx
from pydantic import TypeAdapter

from onnxq.errors import ModelError
from onnxq.runtime import kept, provider_options, providers
from onnxq.runtime.kernel_forms import BASE, kernel_forms
from onnxq.runtime.kernels import executed
from onnxq.runtime.machine import inspect_machine
from onnxq.runtime.timing import Contender, Ratio, TimingSettings, measure
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.runtime.kernel_forms import KernelForm
    from onnxq.runtime.kernel_shapes import Shape

FORMAT_VERSION: Final = 1
_STEADY: Final = 1.5
"""How far apart the ratios of rounds are on a quiet machine at most."""
TIMING: Final = TimingSettings(rounds=3, runs=5, warmup=2, seconds=0.15)
"""Slow kernels take seconds a run at large sizes, so there are few runs and a least time."""


@dataclass(frozen=True, slots=True)
class KernelSpeed:
    """One form of one shape.

    Attributes:
        name: The form, such as ``int8 dynamic``.
        bits: Of the weight.
        block_size: Of weights in blocks; None of others.
        accuracy_level: Of MatMulNBits; None of others.
        runs_as: The operators that are executed, in order.
        median_ms: Median of all runs; None if it does not run.
        faster: How many times faster than float32, by rounds; None if it does not run.
        refused: Why it does not run; empty if it does.
    """

    name: str
    bits: int
    block_size: int | None
    accuracy_level: int | None
    runs_as: tuple[str, ...]
    median_ms: float | None
    faster: Ratio | None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class ShapeSpeeds:
    """Every form of one shape.

    Attributes:
        shape: The shape as people write it.
        provider: The execution provider, by its full name.
        measured_on: The day, ISO 8601, UTC.
        timing: How it was timed.
        kernels: The forms, the fastest first, those that do not run at the end.
    """

    shape: str
    provider: str
    measured_on: str
    timing: TimingSettings
    kernels: tuple[KernelSpeed, ...]

    @property
    def fastest(self) -> KernelSpeed | None:
        """The form with the least median; None if none runs."""
        return next((kernel for kernel in self.kernels if kernel.median_ms is not None), None)

    @property
    def unsteady(self) -> bool:
        """Whether rounds differ so much that the order of the forms may be chance."""
        ratios = [kernel.faster for kernel in self.kernels if kernel.faster is not None]
        return sum(ratio.high > _STEADY * ratio.low for ratio in ratios) > len(ratios) / 4

    def kernel(self, name: str) -> KernelSpeed:
        """The form of this name.

        Raises:
            KeyError: There is none.
        """
        return {kernel.name: kernel for kernel in self.kernels}[name]


_KEPT: Final = TypeAdapter(ShapeSpeeds)


def kernel_speeds(
    shapes: Sequence[Shape],
    provider: str = "cpu",
    *,
    timing: TimingSettings = TIMING,
    earlier: Literal["reuse", "replace"] = "reuse",
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[ShapeSpeeds, ...]:
    """Time every form of each shape, or read what was measured earlier.

    Args:
        shapes: The shapes.
        provider: A name of an execution provider.
        timing: How to time; part of what earlier results are found by.
        earlier: Whether results of before are taken, or measured again.
        cache: The folder of earlier results; the user's cache folder if None.
        progress: Called after each process with how many are done and how many there are, earlier
            results counted as if they were made.

    Returns:
        One entry for each shape, in their order.

    Raises:
        ProviderError: The provider is not there.
        ModelError: Not even float32 runs, or a process died.
    """
    providers.require(provider)
    found: list[ShapeSpeeds] = []
    counts = [len(kernel_forms(shape)) * timing.rounds for shape in shapes]
    for index, shape in enumerate(shapes):
        path = (cache or kept.folder("kernel_speed")) / _key(provider, shape, timing)
        known = kept.read(path, _KEPT) if earlier == "reuse" else None
        done = sum(counts[:index])
        if known is None:
            known = _measure(shape, provider, timing, _shifted(progress, done, sum(counts)))
            kept.write(path, known, _KEPT)
        elif progress is not None:
            progress(done + counts[index], sum(counts))
        found.append(known)
    return tuple(found)


def time_models(
    models: Mapping[str, onnx.ModelProto],
    feed: Mapping[str, NDArray[np.generic]],
    timing: TimingSettings,
    provider: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, tuple[float, Ratio]]:
    """Time small models side by side, each alone in its process.

    Args:
        models: By name; the first is what the others are compared with.
        feed: Inputs that all of them take.
        timing: How.
        provider: The execution provider.
        progress: As for :func:`kernel_speeds`.

    Returns:
        For each name the median in milliseconds, and how many times faster than the first.

    Raises:
        ModelError: A model does not load or run.
        ProviderError: The provider is not there.
    """
    with Scratch() as folder:
        contenders = []
        for index, (name, model) in enumerate(models.items()):
            path = folder / f"{index}.onnx"
            onnx.save(model, path)
            contenders.append(Contender(name, path, provider))
        taken = measure(contenders, [feed], timing, progress)
    base = next(iter(models))
    return {name: (taken.results[name].median_ms, taken.ratio(base, name)) for name in models}


def _measure(
    shape: Shape,
    provider: str,
    timing: TimingSettings,
    progress: Callable[[int, int], None] | None,
) -> ShapeSpeeds:
    forms = kernel_forms(shape)
    runs_as: dict[str, tuple[str, ...]] = {}
    refused: dict[str, str] = {}
    models = {}
    for form in forms:
        model = form.build()
        try:
            nodes = executed(model.SerializeToString(), provider)
        except ModelError as error:
            if form.name == BASE:
                raise
            refused[form.name] = error.message
            continue
        runs_as[form.name] = tuple(node.op for node in nodes)
        models[form.name] = model
    x = np.random.default_rng(1).standard_normal(shape.input, np.float32)
    taken = time_models(models, {"x": x}, timing, provider, progress)
    speeds = [_speed(form, taken, runs_as, refused) for form in forms]
    return ShapeSpeeds(
        shape=str(shape),
        provider=providers.resolve(provider),
        measured_on=datetime.now(UTC).date().isoformat(),
        timing=timing,
        kernels=tuple(sorted(speeds, key=_order)),
    )


def _speed(
    form: KernelForm,
    taken: Mapping[str, tuple[float, Ratio]],
    runs_as: Mapping[str, tuple[str, ...]],
    refused: Mapping[str, str],
) -> KernelSpeed:
    median, faster = taken.get(form.name, (None, None))
    return KernelSpeed(
        name=form.name,
        bits=form.bits,
        block_size=form.block_size,
        accuracy_level=form.accuracy_level,
        runs_as=runs_as.get(form.name, ()),
        median_ms=median,
        faster=faster,
        refused=refused.get(form.name, ""),
    )


def _order(kernel: KernelSpeed) -> float:
    return float("inf") if kernel.median_ms is None else kernel.median_ms


def _key(provider: str, shape: Shape, timing: TimingSettings) -> str:
    names = [form.name for form in kernel_forms(shape)]
    how = (timing.rounds, timing.runs, timing.warmup, timing.seconds, timing.threads)
    full = providers.resolve(provider)
    options = {} if full == providers.CPU else dict(provider_options.in_use().get(full, {}))
    device = provider_options.device_in_use(provider)
    where = (
        inspect_machine().cores,
        *([device, sorted(options.items())] if device or options else []),
    )
    return kept.key(provider, FORMAT_VERSION, *where, str(shape), how, names)


def _shifted(
    progress: Callable[[int, int], None] | None, before: int, total: int
) -> Callable[[int, int], None] | None:
    """Progress of one shape as part of that of all."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)
