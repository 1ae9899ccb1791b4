"""Do runs agree, and where they do not: the first node that makes the difference.

A run is a model on a provider at an optimization level. The first model on the CPU at the first
level is the reference, as in :mod:`onnxq.compare.compare`. The outputs of every other run are
compared with it, sample by sample, up to the first sample on which one is beyond the tolerance.
There the origin is searched for (:mod:`onnxq.compare.origin`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from onnxq.compare.alike import check_alike, distinct_providers
from onnxq.compare.node_difference import differences
from onnxq.compare.origin import Search
from onnxq.compare.side import Side, SideGraph
from onnxq.data import check_all, open_data
from onnxq.errors import UsageError
from onnxq.graph.io import load
from onnxq.graph.structure import signature, summary
from onnxq.numerics.metrics import NotFinite, relative_error
from onnxq.runtime import providers as execution_providers
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.scratch import Scratch
from onnxq.stages.with_past import with_past
from onnxq.verify.survival import check_survives

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from onnxq.compare.origin import Kind, Origin
    from onnxq.data import DataLike, DataSource, Sample
    from onnxq.runtime.session import Optimization
    from onnxq.verify.verification import Report

TOLERANCE: Final = 1e-3
"""Relative error up to which outputs agree. float32 kernels differ by some 1e-6, TF32 and float16
by some 1e-4 to 1e-3, integer kernels by 1e-2."""
WALK_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Fed:
    """A value that the diverging nodes read.

    Attributes:
        name: Its name.
        dtype: Its type.
        shape: Its shape on this sample.
        low: Its least finite element; NaN if there is none.
        high: Its greatest.
        error: Its own relative error, both sides run from the model's inputs.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float
    error: float


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first node whose output differs, and what is known of it.

    Attributes:
        kind: As :class:`~onnxq.compare.origin.Origin` says.
        node: The node's name in the reference; empty if it has none.
        op: Its operator.
        output: The value that differs.
        nodes: Names, or outputs, of all nodes that run together to make the difference.
        own_error: Relative error of the value, both sides fed with the reference's values.
        error: The same, both sides run from the model's inputs.
        fed: What the nodes read.
        place: Where in the value the difference is greatest.
        expected: What the reference has there.
        found: What the other side has there.
        runs_as: The operators that the nodes run as in the reference.
        other_runs_as: The same of the other side.
        differences: What is written differently in the other model.
        greatest: The value with the greatest own error of those before it, and that error.
        walked: How many of the values before it were looked at one by one, and how many there are.
        later: The value at which the difference showed at first, if it arises earlier.
        rescaled: Values that were passed over: the other side holds them at other scales.
    """

    kind: Kind
    node: str
    op: str
    output: str
    nodes: tuple[str, ...]
    own_error: float
    error: float
    fed: tuple[Fed, ...]
    place: tuple[int, ...]
    expected: float | None
    found: float | None
    runs_as: tuple[str, ...]
    other_runs_as: tuple[str, ...]
    differences: tuple[str, ...]
    greatest: tuple[str, float]
    walked: tuple[int, int]
    later: str
    rescaled: tuple[str, ...]

    @property
    def fused(self) -> tuple[str, ...]:
        """Operators that the other side runs and the reference does not."""
        return tuple(dict.fromkeys(op for op in self.other_runs_as if op not in self.runs_as))


@dataclass(frozen=True, slots=True)
class CheckedSide:
    """A run beside the reference.

    Attributes:
        side: The run.
        error: The greatest relative error of an output on the samples that were compared.
        output: That output.
        sample: The sample it was seen on.
        samples: How many samples were compared.
        divergence: Where it comes from; None if all outputs agree.
        notes: Outputs of which elements are NaN or Inf in both runs, in sentences.
        unseen: The outputs of which nothing was compared, all elements being so.
    """

    side: Side
    error: float
    output: str
    sample: str
    samples: int
    divergence: Divergence | None
    notes: tuple[str, ...]
    unseen: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """What :func:`diverge` found.

    Attributes:
        reference: The run that the others are compared with.
        others: The others.
        tolerance: The relative error up to which outputs agree.
        notes: What was filled, cut or left out of the data, and of the outputs, in sentences.
    """

    reference: Side
    others: tuple[CheckedSide, ...]
    tolerance: float
    notes: tuple[str, ...]

    @property
    def agree(self) -> bool:
        """Whether all outputs do."""
        return all(other.divergence is None for other in self.others)


def diverge(
    models: Sequence[str | Path],
    data: DataLike,
    *,
    providers: Sequence[str] = ("cpu",),
    levels: Sequence[Optimization] = ("all",),
    tolerance: float = TOLERANCE,
    report: Report = lambda step, done, total: None,
) -> Agreement:
    """Find the first node at which runs differ from the reference by more than a tolerance.

    Args:
        models: Files of models with the same inputs and outputs; values of one name are compared.
        data: Samples; one is held at a time.
        providers: Short or full names of execution providers.
        levels: Optimization levels of ONNX Runtime.
        tolerance: Greatest relative error (:func:`~onnxq.numerics.metrics.relative_error`).
        report: Told of progress.

    Raises:
        UsageError: There are fewer than two runs, or the tolerance is negative.
        ProviderError: A provider is not there; nothing has run by then.
        ModelError: A model does not load, or the models differ in their inputs or outputs.
        DataError: A sample does not fit the models.
    """
    paths = [Path(model) for model in models]
    given = distinct_providers(providers)
    names = sorted(given, key=_not_cpu)
    if given and _not_cpu(names[0]):
        # A provider is not its own witness.
        names = ["cpu", *given]
    levels = list(dict.fromkeys(levels))
    sides = [
        Side(path, SessionSettings(provider=provider, optimization=level, spinning=False))
        for provider in names
        for path in (paths if provider in given else paths[:1])
        for level in (levels if provider in given else levels[:1])
    ]
    _check_usage(sides, tolerance)
    loaded = [load(path) for path in paths]
    check_alike([(path, summary(model)) for path, model in zip(paths, loaded, strict=True)])
    source = with_past(open_data(data, signature(loaded[0])), paths[0], "cpu")
    check_all(source)
    if levels != ["none"]:
        on_cpu = {side.model for side in sides if not _not_cpu(side.settings.provider)}
        pairs = zip(paths, loaded, strict=True)
        check_survives((path, model) for path, model in pairs if path in on_cpu)
    reference, *others = sides
    checked = tuple(_check(reference, side, source, tolerance, report) for side in others)
    unseen = [
        f"run {number}, {text}" for number, run in enumerate(checked, start=2) for text in run.notes
    ]
    return Agreement(reference, checked, tolerance, (*source.notes, *unseen))


def _not_cpu(provider: str) -> bool:
    return execution_providers.require(provider) != execution_providers.CPU


def _check_usage(sides: Sequence[Side], tolerance: float) -> None:
    code = "compare.divergence"
    if len(sides) < 2:
        text, remedy = (
            "there is nothing that could diverge",
            "name a second model, provider (--providers) or optimization level (--levels)",
        )
        raise UsageError(code, text, remedy=remedy)
    if not tolerance >= 0:
        text = f"a tolerance of {tolerance:g} is no relative error"
        raise UsageError(code, text, remedy="give one of 0 or more, such as 0.001")


def _check(
    reference: Side, side: Side, source: DataSource, tolerance: float, report: Report
) -> CheckedSide:
    """Compare one run with the reference, and search where they part."""
    one, other = (open_session(s.model, s.settings) for s in (reference, side))
    names = [spec.name for spec in one.outputs]
    worst, where, done = (0.0, names[0]), "", 0
    unseen = {name: NotFinite() for name in names}
    for done, sample in enumerate(source, start=1):
        pairs = list(zip(one.run(sample.feeds), other.run(sample.feeds), strict=True))
        errors = [relative_error(a, b) for a, b in pairs]
        for name, (a, b) in zip(names, pairs, strict=True):
            unseen[name].add(a, b)
        here = max(zip(errors, names, strict=True), key=lambda item: item[0])
        if here[0] > worst[0] or not where:
            worst, where = here, sample.name
        report(f"run {side.label}", done, len(source))
        if worst[0] > tolerance:
            # Sessions of whole models go before those of pieces come.
            del one, other
            first = next(n for e, n in zip(errors, names, strict=True) if e > tolerance)
            found = _locate((reference, side), sample, first, tolerance, report)
            return CheckedSide(side, *worst, where, done, found, *_unseen(unseen))
    return CheckedSide(side, *worst, where, done, None, *_unseen(unseen))


def _unseen(counts: Mapping[str, NotFinite]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the errors say nothing of: NaN at the same places is equal, whatever made it."""
    notes = tuple(
        f"output {name!r}: {count.both:,} of {count.elements:,} elements are NaN or Inf in both "
        "runs: " + ("nothing was compared" if count.all else "only the others were compared")
        for name, count in counts.items()
        if count.both
    )
    return notes, tuple(name for name, count in counts.items() if count.all)


def _locate(
    sides: tuple[Side, Side], sample: Sample, output: str, tolerance: float, report: Report
) -> Divergence:
    with Scratch() as one, Scratch() as other:
        graphs = SideGraph(sides[0], one), SideGraph(sides[1], other)
        search = Search(*graphs, sample.feeds, tolerance, WALK_SECONDS)
        origin = search.find(output, _named(f"search {sides[1].label}", report))
        return _described(search, origin, graphs)


def _named(step: str, report: Report) -> Callable[[int, int], None]:
    return lambda done, total: report(step, done, total)


def _described(search: Search, origin: Origin, graphs: tuple[SideGraph, SideGraph]) -> Divergence:
    value, boundary = origin.value, origin.boundary
    mine, its = search.pieces(value, boundary)
    node = graphs[0].segments.producer(value)
    fed: Mapping[str, NDArray[Any]] = {}
    place: tuple[int, ...] = ()
    expected = found = None
    if origin.kind != "vanishes":
        fed, (one, other) = search.outcome(value, boundary)
        place = _greatest(one, other)
        if place or one.shape == other.shape == ():
            expected, found = float(one[place]), float(other[place])
    return Divergence(
        kind=origin.kind,
        node=node.name or "",
        op=node.op_type,
        output=value,
        nodes=tuple(inner.name or inner.outputs[0].name or inner.op_type for inner in mine.nodes),
        own_error=origin.own_error,
        error=origin.error,
        fed=tuple(_fed(name, array, search) for name, array in fed.items()),
        place=place,
        expected=expected,
        found=found,
        runs_as=graphs[0].runs_as(mine),
        other_runs_as=graphs[1].runs_as(its),
        differences=differences(mine, its),
        greatest=origin.greatest,
        walked=origin.walked,
        later=origin.later,
        rescaled=origin.rescaled,
    )


def _fed(name: str, array: NDArray[Any], search: Search) -> Fed:
    low = high = float("nan")
    if array.dtype.kind in "fiub" and array.size:
        kept = array[np.isfinite(array)]
        if kept.size:
            low, high = float(kept.min()), float(kept.max())
    return Fed(name, str(array.dtype), array.shape, low, high, search.error(name))


def _greatest(one: NDArray[Any], other: NDArray[Any]) -> tuple[int, ...]:
    """Where two arrays differ most, NaN beyond all; empty where they have no place in common."""
    if one.shape != other.shape or not one.size or one.dtype.kind not in "fiub":
        return ()
    with np.errstate(invalid="ignore"):
        apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    # The difference of two equal infinities is NaN.
    apart = np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0.0, apart)
    flat = int(np.argmax(np.nan_to_num(apart, nan=np.inf)))
    return tuple(int(index) for index in np.unravel_index(flat, one.shape))
