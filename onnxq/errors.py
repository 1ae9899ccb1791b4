"""The one tree of errors.

::

    OnnxqError                 what every deliberate refusal derives from
    ├── InputError             bad usage or bad input                    exit status 2
    │   ├── UsageError         options that contradict each other or lack something
    │   ├── ModelError         a model file: truncated, invalid, data outside its folder
    │   ├── DataError          a sample: missing, extra, wrong shape or dtype, NaN or Inf
    │   ├── RecipeError        a recipe: unknown key, pattern that matches nothing
    │   ├── PlanError          a plan or statistics file: other model, other version, damaged
    │   └── ProviderError      an execution provider that is not there
    ├── BoundMissedError       a bound that was asked for is missed      exit status 1
    └── InternalError          a fault of onnxq itself                   exit status 3

An error carries four short texts, the same that ``--json`` prints: ``code`` (stable, for
programs), ``message`` (what is wrong), ``where`` (the file, node, tensor or sample) and ``remedy``
(what to do).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class OnnxqError(Exception):
    """A refusal that names what is wrong, where, and what to do.

    Attributes:
        code: A stable identifier, ``room.what`` in lower case, e.g. ``"data.missing_input"``.
        message: What is wrong, one sentence without a full stop.
        where: The file, node, tensor or sample; empty if there is none.
        remedy: What the reader can do about it; empty if nothing is known.
    """

    exit_status: ClassVar[int] = 3

    def __init__(self, code: str, message: str, *, where: str = "", remedy: str = "") -> None:
        """Keep the four texts."""
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        """One or two lines: ``where: message`` and the remedy."""
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n{self.remedy}" if self.remedy else head


class InputError(OnnxqError):
    """Bad usage or bad input."""

    exit_status = 2


class UsageError(InputError):
    """Options that contradict each other or lack something."""


class ModelError(InputError):
    """A model file that cannot be read, is invalid, or reaches outside its folder."""


class DataError(InputError):
    """Calibration or evaluation data that does not fit the model."""


class RecipeError(InputError):
    """A recipe with an unknown key, a bad value or a pattern that matches nothing."""


class PlanError(InputError):
    """A plan or statistics file that is damaged or belongs to another model."""


class ProviderError(InputError):
    """An execution provider that was asked for and is not there."""


class BoundMissedError(OnnxqError):
    """A bound that was asked for is missed."""

    exit_status = 1


class InternalError(OnnxqError):
    """A fault of onnxq itself."""

    exit_status = 3


def listed(names: Sequence[str], most: int) -> str:
    """The first ``most`` names for a sentence, and dots if there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
