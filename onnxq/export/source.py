"""Finds and calls the factory behind ``"pkg.module:factory"``.

The current working directory is importable while the factory's module is imported and the factory
runs, as with ``python -m``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from onnxq.errors import OnnxqError, UsageError
from onnxq.export.spec import ExportSpec

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor, nn

Source: TypeAlias = str | ExportSpec | Callable[[], Any]

_SYNTAX = 'write a factory as "pkg.module:factory", as in "models.fashion_resnet.model:factory"'
_RETURNS = "return an onnxq.export.ExportSpec, or a tuple (module, example inputs)"


def require_torch() -> None:
    """Refuse if PyTorch is not installed.

    Raises:
        UsageError: With the command that installs it.
    """
    if "torch" not in sys.modules and importlib.util.find_spec("torch") is None:
        code, text = "export.no_torch", "export needs PyTorch, which is not installed"
        raise UsageError(code, text, remedy='pip install "onnxq[export]"')


def resolve(source: Source) -> ExportSpec:
    """Return the specification that a source stands for.

    Args:
        source: ``"pkg.module:factory"``, a factory without arguments, or a specification.

    Raises:
        UsageError: If the text has another form, the module or the attribute does not exist, the
            factory fails, or returns something else than a module with example inputs.
    """
    if isinstance(source, ExportSpec):
        return _specification(source, type(source.module).__name__)
    with _working_directory_importable():
        if isinstance(source, str):
            return _specification(_call(_find(source), source), source)
        where = getattr(source, "__qualname__", type(source).__name__)
        return _specification(_call(source, where), where)


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _find(source: str) -> Callable[[], Any]:
    module_name, colon, attribute = source.partition(":")
    names = [*module_name.split("."), *attribute.split(".")]
    if not colon or not all(name.isidentifier() for name in names):
        code, text = (
            "export.bad_source",
            "neither there as a file or folder nor the name of a factory",
        )
        raise UsageError(code, text, where=source, remedy=_SYNTAX)
    found: Any = _import(module_name, source)
    for name in attribute.split("."):
        if not hasattr(found, name):
            text = f"{module_name} has no attribute {name!r}"
            remedy = "check the name after the colon"
            raise UsageError(code="export.no_attribute", message=text, where=source, remedy=remedy)
        found = getattr(found, name)
    if not callable(found):
        text = f"{attribute} is a {type(found).__name__}, a function without arguments is wanted"
        raise UsageError(code="export.not_callable", message=text, where=source, remedy=_RETURNS)
    factory: Callable[[], Any] = found
    return factory


def _import(module_name: str, source: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            code, text = "export.no_module", f"there is no module {missing}"
            remedy = "run it in the folder that holds the module, or install its package"
            if module_name.endswith(".py"):
                remedy = f"name the module without its ending: {source.replace('.py:', ':')}"
        else:
            code, text = "export.import_failed", f"{module_name} needs {missing}, which is missing"
            remedy = f"install {missing}"
        raise UsageError(code, text, where=source, remedy=remedy) from error
    except OnnxqError:
        raise
    except (Exception, SystemExit) as error:
        text = f"importing {module_name} failed: {one_line(error)}"
        raise UsageError(code="export.import_failed", message=text, where=source) from error


def _call(factory: object, where: str) -> object:
    if not callable(factory):
        text = f"a {type(factory).__name__} is no export source"
        raise UsageError(code="export.bad_source", message=text, where=where, remedy=_SYNTAX)
    try:
        return factory()
    except OnnxqError:
        raise
    except (Exception, SystemExit) as error:
        text = f"the factory failed: {one_line(error)}"
        raise UsageError(code="export.factory_failed", message=text, where=where) from error


def _specification(made: object, where: str) -> ExportSpec:
    from torch import nn

    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        made = ExportSpec(made[0], _named(made[0], made[1], where))
    if not isinstance(made, ExportSpec):
        text = f"the factory returned a {type(made).__name__}"
        raise UsageError(code="export.bad_factory", message=text, where=where, remedy=_RETURNS)
    if not isinstance(made.module, nn.Module):
        text = f"{type(made.module).__name__} is no torch.nn.Module"
        raise UsageError(code="export.bad_factory", message=text, where=where, remedy=_RETURNS)
    # What torch.export made has its mode fixed, and says so.
    with suppress(NotImplementedError):
        made.module.eval()
    return made


def _named(module: nn.Module, inputs: object, where: str) -> Mapping[str, Tensor]:
    """Give positional example inputs the names of the parameters of ``forward``."""
    from torch import Tensor

    if isinstance(inputs, Mapping):
        return dict(inputs)
    values: Sequence[Any] = [inputs] if isinstance(inputs, Tensor) else _sequence(inputs, where)
    try:
        return dict(signature(module.forward).bind(*values).arguments)
    except TypeError as error:
        text = f"{type(module).__name__}.forward does not take the example inputs: {error}"
        raise UsageError(code="export.bad_inputs", message=text, where=where) from error


def _sequence(inputs: object, where: str) -> Sequence[Any]:
    if isinstance(inputs, tuple | list):
        return inputs
    text = f"the example inputs are a {type(inputs).__name__}"
    remedy = "give a tensor, a tuple of tensors, or a dict of them by input name"
    raise UsageError(code="export.bad_inputs", message=text, where=where, remedy=remedy)


def one_line(error: BaseException) -> str:
    """Return the error's type and the first line of its text, 300 characters at most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
