"""Compare models by one number alone, without timing them.

==============  ===================================================================================
``perplexity``  of each model: exp of the mean negative log-likelihood of the next token
``kl``          to the first model, mean over tokens, nats
``sqnr``        to the first model, of the first float output, decibels
``top1``        share of rows or positions with the first model's top class or token
==============  ===================================================================================

A number that a model does not have is refused by its name, where the model tells so before it runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from onnxq.compare.compare import Comparison, compare
from onnxq.errors import ModelError, UsageError
from onnxq.graph.io import load
from onnxq.graph.structure import signature

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxq.compare.compare import ComparedRun
    from onnxq.data import DataLike
    from onnxq.verify.verification import Report

Metric = Literal["perplexity", "kl", "sqnr", "top1"]

_OF_LANGUAGE: Final = ("perplexity", "kl")


def compare_by(
    metric: Metric,
    models: Sequence[str | Path],
    data: DataLike,
    *,
    providers: Sequence[str] = ("cpu",),
    report: Report = lambda step, done, total: None,
) -> Comparison:
    """Measure one number of each model on every provider.

    Args:
        metric: The number.
        models: As for :func:`onnxq.compare`.
        data: The same.
        providers: The same.
        report: The same.

    Returns:
        The comparison, without latencies; :func:`score` gives each run's number.

    Raises:
        OnnxqError: As :func:`onnxq.compare`; or the metric does not suit the models.
    """
    _check_suitable(metric, models, providers)
    found = compare(models, data, providers=providers, timing=None, report=report)
    for run in found.runs:
        if score(run, metric) is None and (run is not found.reference or metric == "perplexity"):
            text = f"the model has no {metric} on these samples"
            raise _refusal(text, str(run.model))
    return replace(found, metric=metric)


def score(run: ComparedRun, metric: str) -> float | None:
    """The number of a run; None where it has none, as the reference's KL to itself."""
    fidelity = run.fidelity
    if metric == "perplexity":
        return run.perplexity
    if fidelity is None:
        return None
    if metric == "kl":
        return None if fidelity.language is None else fidelity.language.kl_nats
    return fidelity.sqnr_db if metric == "sqnr" else fidelity.top1_agreement


def _check_suitable(metric: Metric, models: Sequence[str | Path], providers: Sequence[str]) -> None:
    if metric != "perplexity" and len(models) == 1 and len(providers) == 1:
        code, text = "compare.metric", f"{metric} compares with the first model, there is no other"
        raise UsageError(code, text, remedy="Name a second model.")
    if metric in _OF_LANGUAGE and models:
        inputs = signature(load(models[0]))
        if not any(spec.scored for spec in inputs):
            text = f"{metric} is of language models, and this one gives no logits over its tokens"
            raise _refusal(text, str(models[0]))


def _refusal(text: str, where: str) -> ModelError:
    remedy = "--metric auto shows what can be measured."
    return ModelError("compare.metric", text, where=where, remedy=remedy)
