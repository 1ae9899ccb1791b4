"""Samples whose first tokens a model has seen already, as past keys and values.

A window of tokens becomes two runs. The first tokens go through the float model, whose present keys
and values are the past of the rest; the mask covers both. Nothing is kept: the first run is done
again whenever the samples are gone through, by a session that is open as long, so that memory is
the model's and one sample's.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.roles import present_of, role_of_name
from onnxq.errors import DataError
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.verify.verification import TIMED_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.data import DataSource, Sample
    from onnxq.runtime.session import Session

    Feeds = dict[str, NDArray[Any]]

_LEAST_TOKENS = 2
_DECODED_SAMPLES = 4
"""Each holds a cache of its own."""

_OF_EACH_TOKEN = frozenset({"ids", "types", "positions"})


def with_past(source: DataSource, model: Path, provider: str) -> DataSource:
    """The samples with the past that they ask for; the source itself where they ask for none.

    Args:
        source: Samples that fit the model, not empty.
        model: The float model.
        provider: Where it runs.
    """
    first = next(iter(source))
    return _WithPast(source, model, provider, first.past) if first.past else source


def timed_feeds(
    source: DataSource, model: Path, provider: str
) -> tuple[list[Mapping[str, NDArray[Any]]], int]:
    """What a model is timed on, and how many tokens the past of each holds.

    A decoder that is fed whole windows and an empty cache is timed on the last token of each behind
    all others: generating text takes that for every token, and the window once.

    Args:
        source: Samples that fit the model, not empty.
        model: The float model, which makes the past.
        provider: Where it runs.
    """
    first = next(iter(source))
    tokens = _tokens(first)
    empty = [a.size == 0 for n, a in first.feeds.items() if role_of_name(n) == "past"]
    caches: dict[str, str] = {}
    if tokens >= _LEAST_TOKENS and empty and all(empty):
        session = open_session(model, SessionSettings(provider=provider, spinning=False))
        # A model that gives no present values has nothing to be the past of anything.
        with suppress(DataError):
            caches = _caches(session, model)
    if not caches:
        return [sample.feeds for sample in islice(source, TIMED_SAMPLES)], 0
    few = [replace(s, past=_tokens(s) - 1) for s in islice(source, _DECODED_SAMPLES)]
    return [_seen(s, session, caches).feeds for s in few if s.past > 0], tokens - 1


def _tokens(sample: Sample) -> int:
    """How many tokens it has; 0 where it has no ids."""
    lengths = (
        a.shape[1] for n, a in sample.feeds.items() if role_of_name(n) == "ids" and a.ndim > 1
    )
    return int(next(lengths, 0))


class _WithPast:
    """A source whose samples get their past as they are read."""

    def __init__(self, source: DataSource, model: Path, provider: str, past: int) -> None:
        self._source = source
        self._model = model
        self._provider = provider
        self._past = past

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def positions(self) -> Sequence[int]:
        return self._source.positions

    @property
    def notes(self) -> tuple[str, ...]:
        note = f"the first {self._past} tokens of each window are fed as past keys and values"
        return (*self._source.notes, f"{note}, which {self._model.name} makes of them")

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Sample]:
        settings = SessionSettings(provider=self._provider, spinning=False)
        session = open_session(self._model, settings)
        caches = _caches(session, self._model)
        for sample in self._source:
            yield _seen(sample, session, caches)

    def digest(self) -> str:
        return self._source.digest()

    def subset(self, indices: Sequence[int]) -> DataSource:
        chosen = self._source.subset(indices)
        return _WithPast(chosen, self._model, self._provider, self._past)


def _caches(session: Session, model: Path) -> dict[str, str]:
    """For each input of past keys or values the output that gives the present ones."""
    outputs = [spec.name for spec in session.outputs]
    found: dict[str, str] = {}
    for spec in session.inputs:
        if role_of_name(spec.name) != "past":
            continue
        output = present_of(spec.name, outputs)
        if output is None:
            code, text = "data.past", f"the model gives no present values for {spec.name!r}"
            remedy = "Leave [text] past out of the preprocessing file."
            raise DataError(code, text, where=str(model), remedy=remedy)
        found[spec.name] = output
    return found


def _seen(sample: Sample, session: Session, caches: dict[str, str]) -> Sample:
    """The rest of a sample behind its past."""
    before, rest = _split(sample)
    presents = session.run(before, list(caches.values()))
    rest.update(zip(caches, presents, strict=True))
    return replace(sample, feeds=rest, past=0)


def _split(sample: Sample) -> tuple[Feeds, Feeds]:
    """What the model is fed first, and then, but for the past."""
    before: Feeds = dict(sample.feeds)
    rest: Feeds = dict(sample.feeds)
    for name, array in sample.feeds.items():
        role = role_of_name(name)
        if role in _OF_EACH_TOKEN or role == "mask":
            before[name] = array[:, : sample.past]
        if role in _OF_EACH_TOKEN:
            rest[name] = array[:, sample.past :]
        elif role == "branch":
            rest[name] = np.ones_like(array)
    return before, rest
