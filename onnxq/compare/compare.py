"""Models side by side: speed, size, memory, numerics and integer kernels on each provider.

The first model on the first provider is the reference. Numbers are compared with it; speed is
compared with the first model on the same provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.compare.alike import check_alike, distinct_providers
from onnxq.data import Labels, check_all, load_labels, open_data
from onnxq.errors import ModelError, UsageError
from onnxq.graph.io import file_bytes, load
from onnxq.graph.structure import signature, summary
from onnxq.runtime import providers as execution_providers
from onnxq.runtime.kernels import KernelCount, count_kernels
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.runtime.timing import Contender, TimingSettings, measure
from onnxq.stages.with_past import with_past
from onnxq.verify.fidelity import Fidelity, compare_outputs
from onnxq.verify.verification import TIMED_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxq.data import DataLike, DataSource
    from onnxq.runtime.session import Session
    from onnxq.runtime.timing import LatencyResult, Ratio, Timing
    from onnxq.verify.verification import Report

_DEFAULT_TIMING = TimingSettings()


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One model on one provider.

    Attributes:
        model: The model's file, as given.
        provider: The provider, as given.
        file_bytes: Size on disk, external data included.
        kernels: Integer kernels; None where the provider compiles kernels that cannot be read.
        fidelity: How close its outputs are to the reference's; None of the reference itself. Its
            ``float_accuracy`` is the reference's, ``quantized_accuracy`` this run's.
        accuracy: Share of rows that are right; None without labels.
        perplexity: Of a language model; None where there is none.
        latency: How fast it is; None where timing was left out.
        ratio: How many times faster than the first model on the same provider; None of that model.
    """

    model: Path
    provider: str
    file_bytes: int
    kernels: KernelCount | None
    fidelity: Fidelity | None
    accuracy: float | None
    perplexity: float | None
    latency: LatencyResult | None
    ratio: Ratio | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What ``compare`` measured.

    Attributes:
        runs: Every model on the first provider, then on the next; the first run is the reference.
        samples: How many samples the outputs were compared on.
        timing: How the latencies were taken; None if they were not.
        tokens: How many tokens' predictions were compared; None where there are none.
        metric: What was asked for.
        notes: What was filled, cut or left out of the data, in sentences.
    """

    runs: tuple[ComparedRun, ...]
    samples: int
    timing: TimingSettings | None
    tokens: int | None = None
    metric: str = "auto"
    notes: tuple[str, ...] = ()

    @property
    def reference(self) -> ComparedRun:
        """What the numbers are compared with."""
        return self.runs[0]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be told with the numbers; runs are counted from 1."""
        texts: list[str] = list(self.notes)
        for number, run in enumerate(self.runs, start=1):
            if run.fidelity is None:
                continue
            if run.fidelity.not_finite:
                texts.append(
                    f"run {number} gives NaN or Inf in {', '.join(run.fidelity.not_finite)}"
                )
            texts.extend(f"run {number}: {text}" for text in run.fidelity.remarks)
        return tuple(texts)


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
        models: Files of models with the same inputs and outputs; the first is the reference.
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
    source = with_past(open_data(data, signature(loaded[0])), paths[0], names[0])
    check_all(source)
    found = load_labels(data, labels)
    aligned = None if found is None else Labels.align(found, source)
    pairs = [(path, provider) for provider in names for path in paths]
    # Numbers before times: a bad sample or model is then told at once.
    numbers = _compare_numbers(pairs, source, aligned, report)
    timed = _time(pairs, source, timing, report)
    language = numbers[0].language
    return Comparison(
        runs=_runs(pairs, len(paths), numbers, timed),
        samples=len(source),
        timing=timing,
        tokens=None if language is None else language.tokens,
        notes=source.notes,
    )


def _compare_numbers(
    pairs: Sequence[tuple[Path, str]],
    source: DataSource,
    labels: Labels | None,
    report: Report,
) -> list[Fidelity]:
    """Each run against the first; the first alone is compared with itself, and runs once."""
    reference = _open(*pairs[0])
    others = pairs[1:] or pairs
    found = [
        compare_outputs(
            reference,
            _open(path, provider) if len(pairs) > 1 else reference,
            source,
            # Whether one of the models was calibrated on these samples is not known here.
            independent=False,
            labels=labels,
            progress=_named(f"run {path.name} on {provider}", report),
        )
        for path, provider in others
    ]
    return [found[0], *found] if len(pairs) > 1 else found


def _named(step: str, report: Report) -> Callable[[int, int], None]:
    return lambda done, total: report(step, done, total)


def _runs(
    pairs: Sequence[tuple[Path, str]],
    models: int,
    numbers: Sequence[Fidelity],
    timed: Timing | None,
) -> tuple[ComparedRun, ...]:
    """What was measured of each run; ``models`` of them have one provider."""
    return tuple(
        ComparedRun(
            model=path,
            provider=provider,
            file_bytes=file_bytes(path),
            kernels=_kernels(path, provider),
            fidelity=numbers[index] if index else None,
            accuracy=_accuracy(numbers, index),
            perplexity=_perplexity(numbers, index),
            latency=timed.results[str(index)] if timed else None,
            ratio=timed.ratio(str(index - index % models), str(index))
            if timed and index % models
            else None,
        )
        for index, (path, provider) in enumerate(pairs)
    )


def _accuracy(numbers: Sequence[Fidelity], index: int) -> float | None:
    return numbers[index].quantized_accuracy if index else numbers[0].float_accuracy


def _perplexity(numbers: Sequence[Fidelity], index: int) -> float | None:
    found = numbers[index].language
    if found is None:
        return None
    return found.quantized_perplexity if index else found.float_perplexity


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
