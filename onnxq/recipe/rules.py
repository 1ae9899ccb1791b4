"""What the rules of a recipe say about each site of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxq.errors import RecipeError
from onnxq.recipe.patterns import matches, near

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxq.recipe.patterns import NamedSite
    from onnxq.recipe.schema import (
        ActivationOverride,
        CalibrationMethod,
        Recipe,
        Rule,
        WeightOverride,
    )


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """What the rules say about one site; None where they say nothing.

    Attributes:
        keep_float: Whether it stays float.
        reason: Why it does, for people; empty if it does not.
        method: How the range of its activation is chosen.
        percentile: What the percentile method keeps, in percent.
        activation: Another scheme for its activation.
        weight: Another scheme for its weight.
    """

    keep_float: bool = False
    reason: str = ""
    method: CalibrationMethod | None = None
    percentile: float | None = None
    activation: ActivationOverride | None = None
    weight: WeightOverride | None = None


def resolve_rules(recipe: Recipe, sites: Sequence[NamedSite]) -> tuple[RuleOutcome, ...]:
    """Apply the rules in their order; each replaces what it speaks of, and keeps the rest.

    A site that a rule keeps float stays so, whatever later rules say of its calibration; what
    shall be spared stands in that rule's ``unless``.

    Args:
        recipe: The recipe.
        sites: Name and operator type of each site, also of those that cannot be quantized, so
            that naming one of them is no error.

    Returns:
        An outcome for each site, in the order of ``sites``.

    Raises:
        RecipeError: A pattern matches no site, though there are sites.
    """
    outcomes = [RuleOutcome() for _ in sites]
    for number, rule in enumerate(recipe.rules, start=1):
        _refuse_unmatched(number, rule, sites)
        for index, site in enumerate(sites):
            pattern = next((pattern for pattern in rule.match if matches(pattern, site)), None)
            if pattern is None or any(matches(spared, site) for spared in rule.unless):
                continue
            outcomes[index] = _apply(outcomes[index], rule, f"rule {number} ({pattern})")
    return tuple(outcomes)


def _apply(before: RuleOutcome, rule: Rule, origin: str) -> RuleOutcome:
    if rule.keep == "float":
        return replace(before, keep_float=True, reason=rule.reason or f"kept float by {origin}")
    return replace(
        before,
        method=before.method if rule.calibration is None else rule.calibration,
        percentile=before.percentile if rule.percentile is None else rule.percentile,
        activation=before.activation if rule.activation is None else rule.activation,
        weight=before.weight if rule.weight is None else rule.weight,
    )


def _refuse_unmatched(number: int, rule: Rule, sites: Sequence[NamedSite]) -> None:
    for pattern in (*rule.match, *rule.unless):
        if not sites or any(matches(pattern, site) for site in sites):
            continue
        close = near(pattern, sites)
        code, text = "recipe.unmatched", f"the pattern {pattern!r} matches no site of the model"
        remedy = (
            f"Did you mean {', '.join(map(repr, close))}?"
            if close
            else f"`onnxq inspect` lists the names; the operator types are {_types(sites)}."
        )
        where = f"rule {number} ({rule.reason})" if rule.reason else f"rule {number}"
        raise RecipeError(code, text, where=where, remedy=remedy)


def _types(sites: Sequence[NamedSite]) -> str:
    return ", ".join(sorted({op for _, op in sites}))
