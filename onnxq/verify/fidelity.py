"""How close the quantized model's outputs are to the float model's, on given samples.

The first float output is measured (DESIGN: SQNR pooled over all elements and samples); of the other
float outputs the SQNR is kept too, and of every output that is not float the share of equal
elements, so that none is wrong in silence. Of a language model's logits
the KL to float and both perplexities are measured (:mod:`onnxq.verify.next_tokens`). Left out are
positions that an attention mask marks as padding, and those where the float model itself gives Inf
or NaN. Where the two models give an output different shapes it cannot be compared. Every output is
checked for NaN and Inf.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.algorithms.scheme_choice import LOW_SQNR
from onnxq.data.padding import unpadded
from onnxq.numerics.metrics import AccuracyMeter, AgreementMeter, EqualityMeter, ErrorMeter
from onnxq.verify.next_tokens import NextTokenMeters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from onnxq.data import DataSource, Labels, Sample
    from onnxq.runtime.session import Session, TensorSpec
    from onnxq.verify.next_tokens import NextTokens

    Feeds = Mapping[str, NDArray[Any]]

_NAMED = 10
"""So many outputs are named in one warning."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What the comparison found.

    Attributes:
        output: The output that was measured: the first float one, or the first of all where no
            float one could be. Empty if nothing could be compared.
        sqnr_db: Of the first float output, pooled, decibels; None if no element was compared.
        cosine: The same, pooled.
        max_error: Greatest absolute difference in it.
        equal_share: Share of elements of the first output that are equal; None if it is float or
            no element was compared.
        top1_agreement: Share of rows, of a language model positions, with the same argmax; None
            where the output holds no scores.
        float_accuracy: Share of rows the float model gets right; None without labels.
        quantized_accuracy: The same of the quantized model.
        not_finite: Outputs that are NaN or Inf where the float model's are finite.
        left_out: Elements of all outputs not measured because the float model's are NaN or Inf.
        other_shape: Samples in which an output has another shape than the float model's; that
            output is not compared there.
        samples: How many samples were compared.
        independent: Whether calibration saw none of them.
        why_none: Why nothing was compared, where there was nothing to compare on.
        others: SQNR in decibels of each further float output of which an element was compared.
        others_equal: Share of equal elements of each further output that is not float.
        language: What a language model predicts; None of any other.
    """

    output: str
    sqnr_db: float | None
    cosine: float | None
    max_error: float | None
    equal_share: float | None
    top1_agreement: float | None
    float_accuracy: float | None
    quantized_accuracy: float | None
    not_finite: tuple[str, ...]
    left_out: int
    other_shape: int
    samples: int
    independent: bool
    why_none: str = ""
    others: Mapping[str, float] = field(default_factory=dict)
    others_equal: Mapping[str, float] = field(default_factory=dict)
    language: NextTokens | None = None

    @property
    def compared(self) -> bool:
        """Whether any element was compared."""
        return self.sqnr_db is not None or self.equal_share is not None

    @property
    def farthest(self) -> tuple[str, float] | None:
        """The further float output with the least SQNR, and that; NaN is below all."""
        ranked = sorted(self.others.items(), key=_rank)
        return ranked[0] if ranked else None

    @property
    def all_equal(self) -> bool:
        """Whether every element of every output was compared and is the same."""
        shares = [self.equal_share, *self.others_equal.values()]
        measured = [self.sqnr_db, *self.others.values()]
        gaps = self.not_finite or self.other_shape or self.left_out or not self.compared
        return (
            not gaps
            and all(share in {None, 1.0} for share in shares)
            and all(value in {None, math.inf} for value in measured)
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What must be told with the numbers, a sentence each; empty where they cover all."""
        gaps = tuple(self._gaps())
        if not self.compared:
            none = f"not compared: {'; '.join(gaps) or 'the outputs hold no elements'}"
            return (none, *self._doubts_of_others())
        return (*gaps, *self._doubts(), *self._doubts_of_others())

    def _gaps(self) -> Iterator[str]:
        if self.why_none:
            yield self.why_none
        if self.other_shape:
            yield (
                f"in {self.other_shape} of {self.samples} samples outputs have another shape than "
                "the float model's and cannot be compared"
            )
        if self.left_out:
            yield (
                f"{self.left_out} elements are Inf or NaN in the float model's outputs "
                "and are not measured"
            )

    def _doubts(self) -> Iterator[str]:
        if self.language is not None and self.language.looks_ahead:
            yield (
                "there is no perplexity: the float model's scores of a position depend on the "
                "tokens behind it, so they do not predict them"
            )
        if self.sqnr_db is not None and math.isnan(self.sqnr_db):
            yield f"the SQNR of {self.output} is not a number, so it says nothing"
        if self.sqnr_db is None and self.equal_share is not None and self.equal_share < 1:
            yield _differ(self.output, self.equal_share)

    def _doubts_of_others(self) -> Iterator[str]:
        # A NaN is no number above the bound.
        low = {name: db for name, db in self.others.items() if not db >= LOW_SQNR}
        if low:
            yield _others_wrong(low)
        unequal = {name: share for name, share in self.others_equal.items() if share < 1}
        for name in sorted(unequal, key=lambda name: unequal[name])[:_NAMED]:
            yield _differ(name, unequal[name])


def _rank(item: tuple[str, float]) -> float:
    return -math.inf if math.isnan(item[1]) else item[1]


def _others_wrong(low: Mapping[str, float]) -> str:
    worst = sorted(low.items(), key=_rank)[:_NAMED]
    named = ", ".join(f"{name!r} {db:.1f} dB" for name, db in worst)
    rest = f" and {len(low) - len(worst)} more" if len(low) > len(worst) else ""
    return f"low accuracy in outputs beside the first: {named}{rest}"


def _differ(output: str, share: float) -> str:
    return f"{100 * (1 - share):.3g} % of the elements of {output} differ from the float model's"


def not_compared(why: str) -> Fidelity:
    """What is known where there is nothing to run the models on."""
    return replace(_Meters(None, None).fidelity(0, independent=False), why_none=why)


def compare_outputs(
    reference: Session,
    result: Session,
    data: DataSource,
    *,
    independent: bool,
    labels: Labels | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fidelity:
    """Run both models on each sample and measure the difference; one sample is held at a time.

    Args:
        reference: The float model.
        result: The quantized model, with the same inputs and outputs; it is run once where it is
            ``reference`` itself.
        data: The samples to compare on.
        independent: Whether calibration saw none of them.
        labels: The right classes, for the accuracy of both.
        progress: Called with the samples done and all samples.
    """
    meters = _Meters(reference, labels)
    for done, sample in enumerate(data, start=1):
        expected = reference.run(sample.feeds)
        found = expected if result is reference else result.run(sample.feeds)
        meters.add(expected, found, sample, data.positions[done - 1])
        if progress is not None:
            progress(done, len(data))
    return meters.fidelity(len(data), independent)


class _Meters:
    """What is known so far of the outputs.

    Attributes:
        float_at: Place of the first float output; None if there is none.
    """

    def __init__(self, reference: Session | None, labels: Labels | None) -> None:
        outputs = () if reference is None else reference.outputs
        self.names = [spec.name for spec in outputs]
        self.float_at = next((i for i, spec in enumerate(outputs) if _is_float(spec)), None)
        self.others = {
            place: ErrorMeter()
            for place, spec in enumerate(outputs)
            if _is_float(spec) and place != self.float_at
        }
        self.others_equal = {
            place: EqualityMeter()
            for place, spec in enumerate(outputs)
            if not _is_float(spec) and place > 0
        }
        self.labels = labels
        self.error = ErrorMeter()
        self.equality = EqualityMeter()
        self.agreement = AgreementMeter()
        self.accuracy = (AccuracyMeter(), AccuracyMeter())
        self.next_tokens: NextTokenMeters | None = None
        if reference is not None and self.float_at is not None:
            self.next_tokens = NextTokenMeters(reference, self.names[self.float_at])
        self.bad: dict[str, None] = {}
        self.left_out = 0
        self.other_shape = 0

    def add(
        self,
        expected: Sequence[NDArray[Any]],
        found: Sequence[NDArray[Any]],
        sample: Sample,
        position: int,
    ) -> None:
        feeds = sample.feeds
        alike = [a.shape == b.shape for a, b in zip(expected, found, strict=True)]
        self.other_shape += not all(alike)
        for name, good, value in zip(self.names, expected, found, strict=True):
            self._check_finite(name, good, value)
        at = self.float_at
        for place, meter in self.others.items():
            if alike[place]:
                self.left_out += _measure(meter, expected[place], found[place], feeds)
        for place, equal in self.others_equal.items():
            if alike[place]:
                _count_equal(equal, expected[place], found[place], feeds)
        if at is not None and alike[at]:
            self.left_out += _measure(self.error, expected[at], found[at], feeds)
            self._count_rows(expected[at], found[at], position)
            if self.next_tokens is not None:
                self.next_tokens.add(sample, expected[at], found[at])
        if at != 0 and alike[0]:
            _count_equal(self.equality, expected[0], found[0], feeds)

    def _count_rows(self, expected: NDArray[Any], found: NDArray[Any], position: int) -> None:
        if expected.ndim != 2 or expected.shape[-1] < 2:
            return
        # An infinite score has its rank, as where classes are masked with -Inf; NaN has none.
        ranked = ~np.isnan(expected).any(axis=-1)
        self.agreement.add(expected[ranked], found[ranked])
        right = None if self.labels is None else self.labels.of(position)
        # Rows that are not those of the labels, such as boxes, are no class scores.
        if right is not None and len(right) == len(expected):
            for meter, scores in zip(self.accuracy, (expected, found), strict=True):
                meter.add(scores, right)

    def _check_finite(self, name: str, expected: NDArray[Any], found: NDArray[Any]) -> None:
        if expected.dtype.kind != "f":
            return
        good, value = np.isfinite(expected), np.isfinite(found)
        if good.shape != value.shape:
            good = good.all()
        if np.any(good & ~value):
            self.bad[name] = None

    def fidelity(self, samples: int, independent: bool) -> Fidelity:
        floating, quantized = self.accuracy
        language = None if self.next_tokens is None else self.next_tokens.result()
        measured, matched = self.error.elements > 0, self.equality.elements > 0
        output = ""
        if measured or matched:
            output = self.names[self.float_at if measured and self.float_at is not None else 0]
        return Fidelity(
            output=output,
            sqnr_db=self.error.sqnr_db if measured else None,
            cosine=self.error.cosine if measured else None,
            max_error=self.error.worst if measured else None,
            equal_share=self.equality.share if matched else None,
            top1_agreement=self._top1(language),
            float_accuracy=floating.accuracy if floating.rows else None,
            quantized_accuracy=quantized.accuracy if quantized.rows else None,
            not_finite=tuple(self.bad),
            left_out=self.left_out,
            other_shape=self.other_shape,
            samples=samples,
            independent=independent,
            others={
                self.names[place]: meter.sqnr_db
                for place, meter in self.others.items()
                if meter.elements
            },
            others_equal={
                self.names[place]: equal.share
                for place, equal in self.others_equal.items()
                if equal.elements
            },
            language=language,
        )

    def _top1(self, language: NextTokens | None) -> float | None:
        if language is not None:
            return language.top1_agreement
        return self.agreement.agreement if self.agreement.rows else None


def _measure(meter: ErrorMeter, expected: NDArray[Any], found: NDArray[Any], feeds: Feeds) -> int:
    """Compare where the float model's output is finite; how many elements it is not in."""
    kept = _kept(expected, feeds)
    expected, found = expected[kept], found[kept]
    finite = np.isfinite(expected)
    left_out = int(np.count_nonzero(~finite))
    if left_out:
        expected, found = expected[finite], found[finite]
    # An infinite output is found by _check_finite; it is no reason for numpy to warn.
    with np.errstate(invalid="ignore", over="ignore"):
        meter.add(expected, found)
    return left_out


def _count_equal(
    meter: EqualityMeter, expected: NDArray[Any], found: NDArray[Any], feeds: Feeds
) -> None:
    kept = _kept(expected, feeds)
    meter.add(expected[kept], found[kept])


def _is_float(spec: TensorSpec) -> bool:
    return spec.dtype is not None and spec.dtype.kind == "f"


def _kept(output: NDArray[Any], feeds: Feeds) -> Any:
    """An index that leaves padded positions out; everything where there is no mask."""
    return unpadded(feeds, output.shape[:2]) if output.ndim > 1 else ...
