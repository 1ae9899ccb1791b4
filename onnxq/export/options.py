"""What an export may be told, and the operator set that follows from the target."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from onnxq.errors import UsageError
from onnxq.targets import load_target

if TYPE_CHECKING:
    from collections.abc import Collection

Dtype: TypeAlias = Literal["keep", "float32", "float16", "bfloat16"]
Cache: TypeAlias = Literal["with-past", "without-past"]
Weights: TypeAlias = Literal["safetensors", "pickle"]
Code: TypeAlias = Literal["installed", "checkpoint"]

DTYPES: Final[tuple[Dtype, ...]] = ("keep", "float32", "float16", "bfloat16")
OLDEST_OPSET: Final = 18
"""What PyTorch's exporter is written for; others it converts to."""
NEWEST_OPSET: Final = 25
"""The newest that onnxscript's converter reaches."""

_FOR: Final = {
    "task": ("--task", "a checkpoint folder"),
    "cache": ("--with-past and --without-past", "a decoder in a checkpoint folder"),
    "weights": ("--allow-pickle", "a checkpoint folder"),
    "code": ("--trust-remote-code", "a checkpoint folder"),
    "inputs": ("--input", "a TorchScript file, which does not tell its inputs"),
}
"""Fields that not every source has a use for: the option, and what it is for."""


@dataclass(frozen=True)
class ExportOptions:
    """How a source is exported. What is asked of a source that it does not concern is refused.

    Attributes:
        opset: Operator set version; the lowest that the target and PyTorch share if None.
        target: Whose limits the operator set keeps to.
        dtype: Type of the weights and of what is computed: the source's own or another.
        task: What a checkpoint's model does, such as ``"text-generation"``; by its
            configuration if empty.
        cache: Whether a decoder takes and gives keys and values of earlier tokens; it does if None.
        weights: Which files of a checkpoint are read: pickles, with PyTorch's restricted unpickler,
            only if asked for.
        code: Whether Python files of a checkpoint may be executed.
        inputs: The inputs of a TorchScript file, such as ``"image=float32[batch,3,224,224]"``.
    """

    opset: int | None = None
    target: str = "cpu"
    dtype: Dtype = "keep"
    task: str = ""
    cache: Cache | None = None
    weights: Weights = "safetensors"
    code: Code = "installed"
    inputs: tuple[str, ...] = ()


def check_options(options: ExportOptions, taken: Collection[str], source: str, where: str) -> None:
    """Refuse what was asked for and does not concern a source.

    Args:
        options: What was asked for.
        taken: The fields, of those that not every source has a use for, that this one has.
        source: What it is, such as ``"a TorchScript file"``.
        where: What to call it in errors.

    Raises:
        UsageError: With the option, and what it is for.
    """
    for field in fields(options):
        if field.name not in _FOR or field.name in taken:
            continue
        if getattr(options, field.name) == field.default:
            continue
        option, purpose = _FOR[field.name]
        verb = "say" if " and " in option else "says"
        text = f"{option} {verb} nothing of {source}"
        remedy = f"leave it out: it is for {purpose}"
        raise UsageError(code="export.option", message=text, where=where, remedy=remedy)


def chosen_opset(options: ExportOptions) -> int:
    """Return the operator set to write.

    Raises:
        UsageError: If the target is unknown, or does not run what was asked for.
    """
    target = load_target(options.target)
    low = max(OLDEST_OPSET, target.min_opset)
    high = min(NEWEST_OPSET, target.max_opset or NEWEST_OPSET)
    if options.opset is None:
        return low
    if not low <= options.opset <= high:
        text = f"opset {options.opset} is not what {options.target} runs and PyTorch exports to"
        remedy = f"take one from {low} to {high}"
        raise UsageError(code="export.opset", message=text, where="--opset", remedy=remedy)
    return options.opset
