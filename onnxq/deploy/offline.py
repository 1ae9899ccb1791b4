"""Models that ONNX Runtime has optimized beforehand: its own format, or ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from onnxq.errors import ModelError
from onnxq.graph.external import external_files
from onnxq.runtime.offline import required_operators, write_offline

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

OPERATORS: Final = "required_operators.config"


def write_ort(source: Path, model: ir.Model, target: Path) -> str:
    """Write ``.ort`` and, beside it, the operators that a reduced build must have.

    Fusions that hold on every processor are done, those of this one are left to where it runs.

    Raises:
        ModelError: The model keeps weights in another file, which the format cannot.
    """
    if external_files(model):
        code, text = (
            "deploy.external",
            "its weights lie in another file, which .ort cannot refer to",
        )
        remedy = "make it smaller first (onnxq quantize), or deploy it --as script"
        raise ModelError(code, text, where=str(source), remedy=remedy)
    write_offline(source, target, "extended")
    count = required_operators(target, target.with_name(OPERATORS))
    return f"{count} operators are needed: {OPERATORS} is what a reduced build is made with"


def write_optimized(source: Path, model: ir.Model, target: Path) -> str:
    """Write the graph as ONNX Runtime runs it on this processor.

    Raises:
        ModelError: The model keeps weights in another file.
    """
    if external_files(model):
        code, text = "deploy.external", "its weights lie in another file"
        remedy = "deploy it --as script; ONNX Runtime optimizes it when it loads it"
        raise ModelError(code, text, where=str(source), remedy=remedy)
    write_offline(source, target, "all")
    return "optimized for this processor: deploy it anew for another, or with another onnxruntime"
