"""Where checks are found: one function a rule, by the rule's identifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from onnxq.errors import InternalError
from onnxq.lint.finding import Seen
from onnxq.lint.view import View

if TYPE_CHECKING:
    from collections.abc import Mapping

Check = Callable[[View], Iterator[Seen]]
"""Yields the places where a model breaks the rule."""

_CHECKS: dict[str, Check] = {}


def check(rule: str) -> Callable[[Check], Check]:
    """Register a function as the check of a rule."""

    def register(function: Check) -> Check:
        if rule in _CHECKS:
            code, text = "lint.check", "two functions check one rule"
            raise InternalError(code, text, where=rule)
        _CHECKS[rule] = function
        return function

    return register


def registered() -> Mapping[str, Check]:
    """All checks whose modules are imported."""
    return _CHECKS
