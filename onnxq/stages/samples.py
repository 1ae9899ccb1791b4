"""The samples that a run has: for calibration, for comparison, or made up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxq.data import (
    DataLike,
    DataSource,
    Labels,
    check_all,
    held_out,
    limit,
    load_labels,
    open_data,
    shared_samples,
)
from onnxq.data.made_up import made_up
from onnxq.errors import DataError, ModelError
from onnxq.graph.structure import signature
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.stages.shape_profile import NO_PROFILE, ShapeProfile, shape_profile
from onnxq.stages.with_past import timed_feeds, with_past
from onnxq.verify.verification import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.runtime.timing import TimingSettings
    from onnxq.stages.prepare import Prepared


@dataclass(frozen=True, slots=True)
class Samples:
    """What there is to calibrate with and to compare on.

    Attributes:
        calibration: What calibration may see; None without data.
        evaluation: What the result is compared on; None where there is nothing it can be run on.
        independent: Whether calibration sees nothing of what is compared on.
        made_up: Whether ``evaluation`` is made up.
        labels: The right classes, if there are any.
        why_none: Why there is nothing to compare on; empty if there is something.
    """

    calibration: DataSource | None
    evaluation: DataSource | None
    independent: bool
    made_up: bool = False
    labels: Labels | None = None
    why_none: str = ""

    @property
    def for_choosing(self) -> DataSource | None:
        """What may be looked at before a choice: never what proves the result."""
        if self.calibration is not None:
            return self.calibration
        return self.evaluation if self.made_up else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the data; each sentence once."""
        parts = (self.calibration, self.evaluation)
        return tuple(dict.fromkeys(n for part in parts if part is not None for n in part.notes))

    @property
    def first(self) -> DataSource | None:
        """Any samples to run the model on once."""
        return self.calibration if self.calibration is not None else self.evaluation

    def shape_profile(self, prepared: Prepared) -> ShapeProfile:
        """What TensorRT is told of the shapes to come, of which made-up inputs say nothing."""
        if self.made_up or self.evaluation is None:
            return NO_PROFILE
        return shape_profile(
            [prepared.model], self._every_feed(prepared), [prepared.target.provider]
        )

    def _every_feed(self, prepared: Prepared) -> Iterator[Mapping[str, NDArray[Any]]]:
        """What the model is run on, in calibration, comparison and timing."""
        parts = [part for part in (self.calibration, self.evaluation) if part is not None]
        for part in parts:
            yield from (sample.feeds for sample in part)
        if prepared.on_target:
            for part in parts:
                yield from timed_feeds(part, prepared.source, prepared.provider)[0]

    def evidence(
        self,
        macs: Mapping[str, int],
        source: Path,
        provider: str,
        timing: TimingSettings | None,
    ) -> Evidence:
        """What a result is judged on; ``source`` is the float model."""
        timed: list[Mapping[str, NDArray[Any]]] = []
        past = 0
        if timing is not None and self.evaluation is not None:
            timed, past = timed_feeds(self.evaluation, source, provider)
        return Evidence(
            timed=tuple(timed),
            timed_past=past,
            data=self.evaluation,
            independent=self.independent,
            made_up=self.made_up,
            why_none=self.why_none,
            labels=self.labels,
            macs=macs,
            provider=provider,
            timing=timing,
        )


def open_samples(
    prepared: Prepared, data: DataLike | None, eval_data: DataLike | None, labels: Path | None
) -> Samples:
    """Open data and divide it; without any, make samples up.

    Raises:
        DataError: Data or labels do not fit the model.
    """
    recipe, wanted = prepared.recipe, signature(prepared.model)
    if data is None:
        return _made_up(prepared) if eval_data is None else _evaluation(prepared, eval_data, labels)
    source = open_data(data, wanted)
    if eval_data is None:
        split = held_out(source, fraction=recipe.eval_fraction, seed=recipe.seed)
        calibration, evaluation, labelled = split.calibration, split.evaluation, source
        found = load_labels(data, labels)
    else:
        calibration, evaluation = source, open_data(eval_data, wanted)
        labelled, found = evaluation, load_labels(eval_data, labels)
    calibration = limit(calibration, recipe.calibration.samples, seed=recipe.seed)
    aligned = None if found is None else Labels.align(found, labelled)
    calibration = with_past(calibration, prepared.source, prepared.provider)
    evaluation = with_past(evaluation, prepared.source, prepared.provider)
    independent = shared_samples(calibration, evaluation) == 0
    return Samples(calibration, evaluation, independent=independent, labels=aligned)


def open_calibration(prepared: Prepared, data: DataLike) -> DataSource:
    """Open data of which calibration sees all, or as much as the recipe says.

    Raises:
        DataError: A sample does not fit the model.
    """
    recipe = prepared.recipe
    source = open_data(data, signature(prepared.model))
    source = limit(source, recipe.calibration.samples, seed=recipe.seed)
    source = with_past(source, prepared.source, prepared.provider)
    check_all(source)
    return source


def _evaluation(prepared: Prepared, eval_data: DataLike, labels: Path | None) -> Samples:
    """Samples to compare on, and none to calibrate with."""
    evaluation = open_data(eval_data, signature(prepared.model))
    evaluation = with_past(evaluation, prepared.source, prepared.provider)
    check_all(evaluation)
    found = load_labels(eval_data, labels)
    aligned = None if found is None else Labels.align(found, evaluation)
    return Samples(None, evaluation, independent=True, labels=aligned)


def _made_up(prepared: Prepared) -> Samples:
    """Made-up samples, if the float model runs on them."""
    settings = SessionSettings(provider=prepared.provider, spinning=False)
    try:
        data = made_up(signature(prepared.model), prepared.recipe.seed)
        session = open_session(prepared.source, settings)
        for sample in data:
            session.execute(sample.feeds)
    except (DataError, ModelError) as error:
        why = f"there is no data, and the model does not run on made-up inputs: {error.message}"
        return Samples(None, None, independent=False, why_none=why)
    return Samples(None, data, independent=False, made_up=True)
