"""How far two forms of one model agree on made-up inputs, which prove nothing about accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnxq.data import limit
from onnxq.data.made_up import made_up
from onnxq.errors import DataError, ModelError
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.verify.fidelity import compare_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.data import Signature
    from onnxq.verify.fidelity import Fidelity

AS_WRITTEN: Final = SessionSettings(optimization="none", spinning=False)
OPTIMIZED: Final = SessionSettings(spinning=False)

_NOT_AT_ALL: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Form:
    """A model file and how it is opened."""

    path: Path
    settings: SessionSettings


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the comparison gave.

    Attributes:
        sqnr_db: The least SQNR of any float output in decibels; infinite where all outputs are
            equal, minus infinite where one has another shape, is not finite or differs in integers,
            or the second form does not run. None where the first does not.
        why_none: Why there is none.
    """

    sqnr_db: float | None
    why_none: str = ""


def agreement(reference: Form, other: Form, signature: Signature, samples: int) -> Agreement:
    """Run both forms on the same made-up samples.

    Args:
        reference: The form that is right.
        other: The form that should agree with it.
        signature: What both take.
        samples: On how many.
    """
    try:
        data = limit(made_up(signature), samples)
        first = open_session(reference.path, reference.settings)
        for sample in data:
            first.run(sample.feeds)
    except (DataError, ModelError) as error:
        return Agreement(None, f"the model does not run on made-up inputs: {error.message}")
    try:
        second = open_session(other.path, other.settings)
        return Agreement(_least(compare_outputs(first, second, data, independent=False)))
    except ModelError:
        return Agreement(_NOT_AT_ALL)


def _least(found: Fidelity) -> float:
    shares = {found.equal_share, *found.others_equal.values()}
    if found.not_finite or found.other_shape or not shares <= {None, 1.0}:
        return _NOT_AT_ALL
    values = [found.sqnr_db, *found.others.values()]
    return min((value for value in values if value is not None), default=float("inf"))
