"""The rules, read from ``rules.toml``: what each says, of which target, and what backs it.

A rule is data; the function that finds where a model breaks it (:mod:`onnxq.lint.checks`) bears the
same identifier, and so does the one that repairs it (:mod:`onnxq.lint.fixes`) where that is safe.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping  # noqa: TC003 - pydantic reads it at run time
from dataclasses import dataclass, field
from importlib import resources
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, StringConstraints, TypeAdapter, ValidationError

from onnxq.errors import InternalError

Severity = Literal["error", "warning", "note"]
"""``error``: it does not load or is wrong there. ``warning``: it is slower or less accurate than it
could be. ``note``: worth knowing; it does not count as a finding for the exit status."""

TargetName = Literal["cpu", "cuda", "tensorrt"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")

_VERIFIED: Final = r"^(cpu measurement|gpu \d{4}-\d\d-\d\d|unverified)$"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        id: Its identifier, the key in the file.
        targets: What it is a rule of.
        severity: How bad it is to break it.
        title: What it finds, in a few words.
        why: What happens otherwise.
        evidence: What backs it: addresses of threads and documents, tests and commands of this
            repository.
        verified: ``cpu measurement``, ``gpu`` and a date, or ``unverified``.
        remedy: What to do.
        unless_explained: Leave out a node that another rule names already: this one sees that
            something is wrong, that one why.
        operators: The operators it is about, where that is a list.
        numbers: Numbers that it goes by, where it has any.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: str
    targets: tuple[TargetName, ...]
    severity: Severity
    title: str
    why: str
    evidence: tuple[str, ...]
    verified: Annotated[str, StringConstraints(pattern=_VERIFIED)]
    remedy: str
    unless_explained: bool = False
    operators: tuple[str, ...] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)


@functools.cache
def load_rules() -> Mapping[str, Rule]:
    """All rules by their identifier, in the order of the file.

    Raises:
        InternalError: The file, part of this package, is damaged.
    """
    text = (resources.files("onnxq.lint") / "rules.toml").read_text(encoding="utf-8")
    try:
        entries = tomllib.loads(text)
        return {
            key: TypeAdapter(Rule).validate_python({"id": key, **entry})
            for key, entry in entries.items()
        }
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        code, msg = "lint.rules", f"damaged rules: {' '.join(str(error).split())}"
        raise InternalError(code, msg, where="rules.toml") from error


def rules_for(target: str) -> tuple[Rule, ...]:
    """The rules of a target, in the order of the file."""
    return tuple(rule for rule in load_rules().values() if target in rule.targets)
