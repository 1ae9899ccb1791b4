"""Models side by side: speed, size, memory, numerics and integer kernels on each provider.

Numbers are compared with the first model on the CPU, whether or not that is among the runs: a
provider is not its own witness. Speed is compared with the first model on the same provider.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.compare.alike import check_alike, distinct_providers
from onnxq.compare.engines import KeptEngine, digests, open_noting_engine
from onnxq.data import Labels, check_all, load_labels, open_data
from onnxq.errors import ModelError, UsageError
from onnxq.graph.io import file_bytes, load
from onnxq.graph.structure import signature, summary
from onnxq.runtime import providers as execution_providers
from onnxq.runtime.engine_cache import of_models
from onnxq.runtime.kernels import KernelCount, count_kernels
from onnxq.runtime.placement import Placement, placement
from onnxq.runtime.provider_options import default_options
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.runtime.timing import Contender, TimingSettings, measure
from onnxq.stages.shape_profile import NO_PROFILE, ShapeProfile, shape_profile
from onnxq.stages.with_past import with_past
from onnxq.verify.fidelity import Fidelity, compare_outputs
from onnxq.verify.survival import check_survives
from onnxq.verify.verification import TIMED_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxq.compare.session_search import SessionSearch
    from onnxq.compare.throughput import Throughput
    from onnxq.data import DataLike, DataSource
    from onnxq.runtime.session import Session
    from onnxq.runtime.timing import LatencyResult, Ratio, Timing
    from onnxq.verify.verification import Report

_AT_ONCE = 4
_DEFAULT_TIMING = TimingSettings()


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One model on one provider.

    Attributes:
        model: The model's file, as given.
        provider: The provider, as given.
        file_bytes: Size on disk, external data included.
        kernels: Integer kernels; None where the provider compiles kernels that cannot be read.
        placement: Which node runs on which provider.
        fidelity: How close its outputs are to the reference's; None of the reference itself. Its
            ``float_accuracy`` is the reference's, ``quantized_accuracy`` this run's.
        accuracy: Share of rows that are right; None without labels.
        perplexity: Of a language model; None where there is none.
        latency: How fast it is; None where timing was left out.
        ratio: How many times faster than the first model on the same provider; None of that model.
        engine: What TensorRT keeps of it; None where that is nothing.
    """

    model: Path
    provider: str
    file_bytes: int
    kernels: KernelCount | None
    placement: Placement
    fidelity: Fidelity | None
    accuracy: float | None
    perplexity: float | None
    latency: LatencyResult | None
    ratio: Ratio | None
    engine: KeptEngine | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What ``compare`` measured.

    Attributes:
        runs: Every model on the first provider, then on the next.
        samples: How many samples the outputs were compared on.
        timing: How the latencies were taken; None if they were not.
        tokens: How many tokens' predictions were compared; None where there are none.
        metric: What was asked for.
        notes: What was filled, cut or left out of the data, in sentences.
        profile: The shapes that TensorRT was told of.
        throughput: What was measured of the runs by batch size and threads, if it was.
        session: The search for the best run's session settings, if there was one.
    """

    runs: tuple[ComparedRun, ...]
    samples: int
    timing: TimingSettings | None
    tokens: int | None = None
    metric: str = "auto"
    notes: tuple[str, ...] = ()
    profile: ShapeProfile = NO_PROFILE
    throughput: tuple[Throughput, ...] = ()
    session: SessionSearch | None = None

    @property
    def reference(self) -> ComparedRun | None:
        """The run that the numbers are compared with; None if it is none of them."""
        return next((run for run in self.runs if run.fidelity is None), None)

    @property
    def reference_text(self) -> str:
        """What the numbers are compared with, in words."""
        if self.reference is not None:
            return f"run {self.runs.index(self.reference) + 1}"
        return f"{self.runs[0].model.name} on the CPU"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be told with the numbers; runs are counted from 1."""
        texts: list[str] = [*self.notes, *filter(None, [self.profile.note])]
        for number, run in enumerate(self.runs, start=1):
            if run.engine is not None:
                texts.append(f"run {number}: {run.engine.remark}")
            if run.fidelity is None:
                continue
            if run.fidelity.not_finite:
                texts.append(
                    f"run {number} gives NaN or Inf in {', '.join(run.fidelity.not_finite)}"
                )
            texts.extend(f"run {number}: {text}" for text in run.fidelity.remarks)
        texts += filter(None, (_fallen_back(n, run) for n, run in enumerate(self.runs, start=1)))
        return tuple(texts)


def _fallen_back(number: int, run: ComparedRun) -> str:
    """A warning where nodes run elsewhere than asked for; shape arithmetic is meant to."""
    nodes = run.placement.unmeant
    if not nodes:
        return ""
    ops = Counter(node.op for node in nodes).most_common(4)
    named = ", ".join(f"{count} {op}" for op, count in ops)
    return (
        f"run {number}: {len(nodes)} of {len(run.placement.nodes)} nodes run on another provider "
        f"than {run.provider} ({named}), with {run.placement.copies} copies between devices; "
        f"{nodes[0].name}: {nodes[0].reason}"
    )


def compare(
    models: Sequence[str | Path],
    data: DataLike,
    *,
    providers: Sequence[str] = ("cpu",),
    labels: str | Path | None = None,
    timing: TimingSettings | None = _DEFAULT_TIMING,
    report: Report = lambda step, done, total: None,
) -> Comparison:
    """Compare models on the same samples, each on every provider.

    Args:
        models: Files of models with the same inputs and outputs; the first, on the CPU, is the
            reference.
        data: Samples to compare and to time on; the outputs of all are compared, one at a time.
        providers: Short or full names of execution providers.
        labels: A file with the right class of each row, for the accuracy of each run.
        timing: How to time; None leaves timing out.
        report: Told of progress.

    Raises:
        UsageError: No model or no provider.
        ProviderError: A provider is not there; nothing has run by then.
        ModelError: A model does not load, or the models differ in their inputs or outputs.
        DataError: A sample does not fit the models, or the labels do not fit the samples.
    """
    paths = [Path(model) for model in models]
    names = distinct_providers(providers)
    if not paths or not names:
        code, text = "compare.nothing", "there is nothing to compare"
        raise UsageError(code, text, remedy="name at least one model and one provider")
    loaded = [load(path) for path in paths]
    check_alike([(path, summary(model)) for path, model in zip(paths, loaded, strict=True)])
    source = with_past(open_data(data, signature(loaded[0])), paths[0], "cpu")
    check_all(source)
    found = load_labels(data, labels)
    aligned = None if found is None else Labels.align(found, source)
    on_cpu = any(execution_providers.require(name) == execution_providers.CPU for name in names)
    check_survives(list(zip(paths, loaded, strict=True))[: None if on_cpu else 1])
    pairs = [(path, provider) for provider in names for path in paths]
    profile = shape_profile(loaded, (sample.feeds for sample in source), names)
    kept = digests(dict(zip(paths, loaded, strict=True)))
    with default_options(profile.provider_options), of_models(kept):
        # Numbers before times: a bad sample or model is then told at once.
        numbers, engines = _compare_numbers(pairs, source, aligned, report)
        timed = _time(pairs, source, timing, report)
        runs = _runs(pairs, engines, numbers, timed)
    language = numbers[0].language
    return Comparison(
        runs=runs,
        samples=len(source),
        timing=timing,
        tokens=None if language is None else language.tokens,
        notes=source.notes,
        profile=profile,
    )


def _compare_numbers(
    pairs: Sequence[tuple[Path, str]],
    source: DataSource,
    labels: Labels | None,
    report: Report,
) -> tuple[list[Fidelity], list[KeptEngine | None]]:
    """Each run against the first model on the CPU; a single run is compared with itself.

    With the engine that TensorRT keeps of each run.
    """
    reference = _open(pairs[0][0], "cpu")
    is_first = _is_reference(pairs)
    alone = is_first and len(pairs) == 1
    first = next(iter(source)).feeds
    found: list[Fidelity] = []
    engines: list[KeptEngine | None] = [None] * (is_first and not alone)
    for path, provider in pairs[is_first:] or pairs:
        other, engine = (reference, None) if alone else open_noting_engine(path, provider, first)
        engines.append(engine)
        found.append(
            compare_outputs(
                reference,
                other,
                source,
                # Whether one of the models was calibrated on these samples is not known here.
                independent=False,
                labels=labels,
                progress=_named(f"run {path.name} on {provider}", report),
            )
        )
    return ([found[0], *found] if is_first and not alone else found), engines


def _is_reference(pairs: Sequence[tuple[Path, str]]) -> bool:
    """Whether the first run is what all are compared with."""
    return execution_providers.require(pairs[0][1]) == execution_providers.CPU


def _named(step: str, report: Report) -> Callable[[int, int], None]:
    return lambda done, total: report(step, done, total)


def _runs(
    pairs: Sequence[tuple[Path, str]],
    engines: Sequence[KeptEngine | None],
    numbers: Sequence[Fidelity],
    timed: Timing | None,
) -> tuple[ComparedRun, ...]:
    """What was measured of each run."""
    models = sum(provider == pairs[0][1] for _, provider in pairs)
    first = 0 if _is_reference(pairs) else None
    # Processes that load a model each: a few at once, each with the libraries that are in use here.
    context = copy_context()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        placements = list(pool.map(lambda pair: context.copy().run(placement, *pair), pairs))
    return tuple(
        ComparedRun(
            model=path,
            provider=provider,
            file_bytes=file_bytes(path),
            kernels=_kernels(path, provider),
            placement=placements[index],
            fidelity=None if index == first else numbers[index],
            accuracy=_accuracy(numbers[index], is_reference=index == first),
            perplexity=_perplexity(numbers[index], is_reference=index == first),
            latency=timed.results[str(index)] if timed else None,
            ratio=timed.ratio(str(index - index % models), str(index))
            if timed and index % models
            else None,
            engine=engines[index],
        )
        for index, (path, provider) in enumerate(pairs)
    )


def _accuracy(found: Fidelity, *, is_reference: bool) -> float | None:
    return found.float_accuracy if is_reference else found.quantized_accuracy


def _perplexity(found: Fidelity, *, is_reference: bool) -> float | None:
    if found.language is None:
        return None
    language = found.language
    return language.float_perplexity if is_reference else language.quantized_perplexity


def _open(path: Path, provider: str) -> Session:
    return open_session(path, SessionSettings(provider=provider, spinning=False))


def _time(
    pairs: Sequence[tuple[Path, str]],
    source: DataSource,
    settings: TimingSettings | None,
    report: Report,
) -> Timing | None:
    if settings is None:
        return None
    feeds = [sample.feeds for sample in islice(source, TIMED_SAMPLES)]
    contenders = [
        Contender(str(index), path, provider) for index, (path, provider) in enumerate(pairs)
    ]
    return measure(contenders, feeds, settings, lambda done, total: report("time", done, total))


def _kernels(path: Path, provider: str) -> KernelCount | None:
    try:
        return count_kernels(path, provider)
    except ModelError:
        # It loaded and ran above: what fails is writing down kernels that a provider compiled.
        if execution_providers.require(provider) == execution_providers.CPU:
            raise
        return None
