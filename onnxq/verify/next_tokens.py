"""How close two language models' predictions of the next token are, sample by sample.

A sample counts where it says which input holds the tokens that the logits score, ``[batch,
sequence]``, and the first float output is ``[batch, sequence, vocabulary]``. Padded positions are
left out. Tokens that came before, as past keys and values, are no rows of the logits.

Whether the logits at a position know the tokens behind it is tried, once: a model that fills in
masked tokens does, and has no perplexity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from onnxq.data.padding import unpadded_tokens
from onnxq.numerics.metrics import AgreementMeter
from onnxq.numerics.token_metrics import NOTHING_FOLLOWS, TokenMeter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.data import Sample
    from onnxq.runtime.session import Session

_SAME: Final = 1e-2
"""Share of the logits' energy up to which later tokens changed nothing but roundings: all tokens of
a run may have one scale where the reference is quantized itself."""

_TRIED: Final = 16
"""Positions before the changed tokens at which that is looked for."""


@dataclass(frozen=True, slots=True)
class NextTokens:
    """What two language models predict.

    Attributes:
        kl_nats: KL of the quantized model's distributions to the float model's, mean over tokens.
        top1_agreement: Share of positions with the same likeliest token.
        float_perplexity: The float model's perplexity; None where no next token is known, or its
            logits know it already.
        quantized_perplexity: The same of the quantized model.
        tokens: How many positions were compared.
        looks_ahead: Whether the float model's logits depend on later tokens.
    """

    kl_nats: float
    top1_agreement: float
    float_perplexity: float | None
    quantized_perplexity: float | None
    tokens: int
    looks_ahead: bool


class NextTokenMeters:
    """What is known so far of two language models; nothing, of any other model."""

    def __init__(self, reference: Session, output: str) -> None:
        """Measure this output, and try ``reference``, the float model."""
        self._reference = reference
        self._output = output
        self._meter = TokenMeter()
        self._agreement = AgreementMeter()
        self._looks_ahead: bool | None = None

    def add(self, sample: Sample, expected: NDArray[Any], found: NDArray[Any]) -> None:
        """Compare the logits of one sample, both ``[batch, sequence, vocabulary]``."""
        tokens = sample.feeds.get(sample.tokens)
        if tokens is None or expected.ndim != 3 or expected.shape[:2] != tokens.shape:
            return
        if expected.shape[2] <= tokens.max(initial=0):
            return
        kept = unpadded_tokens(sample.feeds, tokens.shape)
        if self._looks_ahead is None:
            self._looks_ahead = self._try(sample, expected, kept)
        following = np.full(tokens.shape, NOTHING_FOLLOWS, np.int64)
        # A negative number counts from the end of the vocabulary, as in the table of embeddings.
        following[:, :-1] = tokens[:, 1:] % expected.shape[2]
        following[:, :-1][~kept[:, 1:]] = NOTHING_FOLLOWS
        for one, other, rows, behind in zip(expected, found, kept, following, strict=True):
            whole = bool(rows.all())
            a, b = (one, other) if whole else (one[rows], other[rows])
            self._meter.add(a, b, behind[rows])
            self._agreement.add(a, b)

    def _try(self, sample: Sample, logits: NDArray[Any], kept: NDArray[np.bool_]) -> bool | None:
        """Whether another second half changes the logits of the first; None if there are no two."""
        places = np.flatnonzero(kept[0])
        if len(places) < 2:
            return None
        first, second = places[: len(places) // 2], places[len(places) // 2 :]
        tokens = sample.feeds[sample.tokens].copy()
        tokens[0, second] = (tokens[0, second].astype(np.int64) + 1) % logits.shape[2]
        (changed,) = self._reference.run({**sample.feeds, sample.tokens: tokens}, [self._output])
        nearest = first[-_TRIED:]
        before = logits[0, nearest].astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            change = float(np.square(changed[0, nearest] - before).sum())
            centered = before - before.mean(axis=-1, keepdims=True)
            return change > _SAME * float(np.square(centered).sum())

    def result(self) -> NextTokens | None:
        """What was found; None where no token was compared."""
        meter, ahead = self._meter, bool(self._looks_ahead)
        if not meter.tokens:
            return None
        predicts = meter.predicted > 0 and not ahead
        return NextTokens(
            kl_nats=meter.kl_nats,
            top1_agreement=self._agreement.agreement,
            float_perplexity=meter.perplexity if predicts else None,
            quantized_perplexity=meter.other_perplexity if predicts else None,
            tokens=meter.tokens,
            looks_ahead=ahead,
        )
