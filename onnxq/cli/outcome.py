"""What a command hands back: one object for ``--json``, and what it shows otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rich.console import RenderableType

    from onnxq.errors import OnnxqError


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a command that ran to its end.

    Attributes:
        document: What ``--json`` prints.
        views: Makes what is printed without ``--json``.
        error: A bound that was missed; told on standard error, and it sets the exit status.
    """

    document: Mapping[str, object]
    views: Callable[[], Iterable[RenderableType]]
    error: OnnxqError | None = None

    @property
    def status(self) -> int:
        """The exit status."""
        return 0 if self.error is None else self.error.exit_status
