"""Will a model load on a target, will it fuse, will it be fast, is it accurate there?"""

from onnxq.lint.catalogue import Rule, load_rules
from onnxq.lint.finding import Finding
from onnxq.lint.repair import Fixed
from onnxq.lint.run import LintResult, Skipped, lint

__all__ = ["Finding", "Fixed", "LintResult", "Rule", "Skipped", "lint", "load_rules"]
