"""Where fixes are found: one function a rule, by the rule's identifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Mapping

Fix = Callable[[ir.Model, frozenset[str]], None]
"""Repairs a model in place, at the nodes of these names."""

_FIXES: dict[str, Fix] = {}


def fix(*rules: str) -> Callable[[Fix], Fix]:
    """Register a function as the fix of rules."""

    def register(function: Fix) -> Fix:
        for rule in rules:
            _FIXES[rule] = function
        return function

    return register


def registered() -> Mapping[str, Fix]:
    """All fixes whose modules are imported."""
    return _FIXES
