"""Is the file a valid ONNX model that ONNX Runtime loads, optimized and as written?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.errors import InternalError, ModelError
from onnxq.graph.native import NativeError, check_file
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.targets import load_target

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.runtime.session import Optimization, Session


def level_for(target: str, provider: str) -> Optimization:
    """How far a model is optimized where it is tried out.

    What the CPU alone makes of Q/DQ is left out of a model for another provider: on x86 it turns
    int8 activations into uint8, after which some of them no longer load.

    Args:
        target: What the model is for.
        provider: Where it is tried out.
    """
    return "all" if load_target(target).provider == provider else "basic"


def check_structure(
    path: Path, source: Path, provider: str = "cpu", optimization: Optimization = "all"
) -> Session:
    """Check a written model against the ONNX specification and load it at two levels.

    Args:
        path: The model; its external data lies beside it.
        source: The model that it was made from, which may be the one that is at fault.
        provider: Where it is to run.
        optimization: How far it is optimized when it is used, as :func:`level_for` says.

    Returns:
        The model as it is loaded to be used.

    Raises:
        ModelError: The model it was made from is invalid in itself.
        InternalError: It is invalid or does not load; what onnxq wrote is then wrong.
    """
    try:
        check_file(path)
    except NativeError as error:
        reason = str(error)[:200]
        _check_source(source)
        code, text = "verify.invalid", f"the result is no valid ONNX model: {reason}"
        raise InternalError(code, text, where=path.name) from error
    _open(path, "none", provider)
    return _open(path, optimization, provider)


def _open(path: Path, level: Optimization, provider: str) -> Session:
    try:
        settings = SessionSettings(provider=provider, optimization=level, spinning=False)
        return open_session(path, settings)
    except ModelError as error:
        code = "verify.does_not_load"
        text = f"the result does not load at optimization {level!r}: {error.message}"
        raise InternalError(code, text, where=path.name) from error


def _check_source(source: Path) -> None:
    """Refuse a source that breaks the specification itself; what is made of it must too."""
    try:
        check_file(source)
    except NativeError as error:
        reason = str(error)[:200]
        code, text = "model.invalid", f"the model breaks the ONNX specification: {reason}"
        remedy = "correct the shape or type that it declares, or export it again"
        raise ModelError(code, text, where=str(source), remedy=remedy) from error
