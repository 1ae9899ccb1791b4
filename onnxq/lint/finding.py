"""What a check sees, and what the user is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxq.lint.catalogue import Severity


@dataclass(frozen=True, slots=True)
class Seen:
    """A place where a rule is broken.

    Attributes:
        node: The node's name; empty where it is the whole model.
        op: Its operator; empty likewise.
        message: What is wrong there, with the names and numbers of this model.
        fixable: Whether the rule's fix, if it has one, can be used here.
    """

    node: str
    op: str
    message: str
    fixable: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule, with all that is known of it.

    Attributes:
        rule: The rule's identifier.
        severity: How bad it is.
        node: The node's name; empty where it is the whole model.
        op: Its operator; empty likewise.
        message: What is wrong there.
        why: What happens because of it.
        evidence: The threads, documents, tests and commands that back the rule.
        verified: ``cpu measurement``, ``gpu`` and a date, or ``unverified``.
        remedy: What to do.
        fixable: Whether ``fix`` repairs it.
    """

    rule: str
    severity: Severity
    node: str
    op: str
    message: str
    why: str
    evidence: tuple[str, ...]
    verified: str
    remedy: str
    fixable: bool

    @property
    def counts(self) -> bool:
        """Whether the exit status tells of it: errors and warnings, not notes."""
        return self.severity != "note"


def at(node: ir.Node, message: str, *, fixable: bool = True) -> Seen:
    """A broken rule at a node."""
    op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return Seen(node.name or "", op, message, fixable)


def of_model(message: str, *, fixable: bool = True) -> Seen:
    """A broken rule of the whole model."""
    return Seen("", "", message, fixable)
