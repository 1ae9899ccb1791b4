"""A folder in which TensorRT keeps the engines that it builds, and the timings of its kernels.

ONNX Runtime finds a stored engine by the names in a model's graph (``TRTGenerateId``) and looks
neither at weights nor at most options: of a model that was quantized again it would load the engine
of the one before (microsoft/onnxruntime#6455, #32254). So every model has a folder of its own in
there for each set of options, named after the contents of both. Timings are of kernels alone, and
all models share them.

===========  ====================================================================================
``DIR``      ``trt_timing_cache_path``
``DIR/...``  ``trt_engine_cache_path`` of one model; models that are not known beforehand, such as
             the pieces that a search tries, keep no engine
===========  ====================================================================================
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from onnxq.errors import UsageError
from onnxq.runtime import provider_options, providers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

TENSORRT: Final = providers.SHORT["tensorrt"]
ENGINES: Final = ("trt_engine_cache_enable", "trt_engine_cache_path")
TIMINGS: Final = ("trt_timing_cache_enable", "trt_timing_cache_path")
_TABLE: Final = "trt_int8_calibration_table_name"
_LOOKED_AT: Final = frozenset(
    {
        "device_id",
        *(f"trt_profile_{which}_shapes" for which in ("min", "opt", "max")),
        *ENGINES,
        *TIMINGS,
    }
)
"""Options that change no engine, or by which ONNX Runtime tells one from another itself."""
_ON: Final = frozenset({"1", "true"})
_REMEDY: Final = "name a folder that can be made or written to"


@dataclass(frozen=True, slots=True)
class EngineCache:
    """What is kept where.

    Attributes:
        folder: The folder that was asked for.
        models: A digest of each model whose engines are kept, by its resolved path.
    """

    folder: Path
    models: Mapping[str, str] = field(default_factory=dict)


_IN_USE: ContextVar[EngineCache | None] = ContextVar("engine_cache", default=None)


@contextmanager
def engine_cache(folder: str | Path) -> Iterator[None]:
    """Let TensorRT keep what it builds in a folder, for every session that is opened inside.

    A folder that is in use already stays: what is said nearer to the run wins. Options of TensorRT
    that the user sets go before.

    Args:
        folder: Made when it is first needed, see :func:`check_used` and :func:`of_models`.

    Raises:
        UsageError: It is a file, or would lie in one.
    """
    if in_use() is not None:
        yield
        return
    target = Path(folder).absolute()
    for place in (target, *target.parents):
        if place.exists():
            if place.is_dir():
                break
            code, why = "usage.engine_cache", "this is a file, a folder is wanted"
            raise UsageError(code, why, where=str(place), remedy=_REMEDY)
    with _use(EngineCache(target)):
        yield


@contextmanager
def of_models(models: Mapping[Path, str]) -> Iterator[None]:
    """Keep the engines of these models too; nothing changes where no folder is in use.

    The provider makes a model's own folder, and not the one that it lies in.

    Args:
        models: A digest of the contents of each; the folder is made if there is one.

    Raises:
        UsageError: The folder cannot be made or written to.
    """
    found = in_use()
    if found is None or not models:
        yield
        return
    _make(found.folder)
    known = {str(path.resolve()): digest for path, digest in models.items()}
    with _use(replace(found, models={**found.models, **known})):
        yield


def restored(texts: Mapping[str, Any]) -> AbstractContextManager[None]:
    """What another process has in use; ``texts`` has nothing, or the fields as JSON has them."""
    return _use(EngineCache(Path(texts["folder"]), texts["models"])) if texts else nullcontext()


@contextmanager
def _use(found: EngineCache) -> Iterator[None]:
    token = _IN_USE.set(found)
    try:
        yield
    finally:
        _IN_USE.reset(token)


def in_use() -> EngineCache | None:
    """What the present context keeps; None without a folder."""
    return _IN_USE.get()


def check_used(names: Iterable[str]) -> None:
    """Refuse a folder in use that nothing would be kept in; make it, where TensorRT is there.

    Args:
        names: The providers that are to be used.

    Raises:
        UsageError: TensorRT is not among them, or the folder cannot be made or written to.
        ProviderError: There is no such provider.
    """
    found = in_use()
    if found is None:
        return
    if TENSORRT not in {providers.resolve(name) for name in names}:
        code, why = "usage.engine_cache", "only TensorRT builds engines, and it is not used"
        remedy = "leave it out, or ask for tensorrt"
        raise UsageError(code, why, where="--engine-cache", remedy=remedy)
    if TENSORRT in providers.available():
        _make(found.folder)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        code, why = "usage.engine_cache", f"cannot be written: {error.strerror or error}"
        raise UsageError(code, why, where=str(folder), remedy=_REMEDY) from error


def options_of(model: Path | None) -> dict[str, str]:
    """What TensorRT is told of what is kept; the user's own options go before.

    Args:
        model: The model's path; None of one in memory.
    """
    found = in_use()
    if found is None:
        return {}
    options = dict(zip(TIMINGS, ("1", str(found.folder)), strict=True))
    digest = None if model is None else found.models.get(str(model.resolve()))
    if digest is not None:
        place = found.folder / _name(digest)
        options |= dict(zip(ENGINES, ("1", str(place)), strict=True))
    return options


def _name(digest: str) -> str:
    """The folder of a model's engines under the options in use."""
    given = provider_options.in_use().get(TENSORRT, {})
    said = sorted((key, value) for key, value in given.items() if key not in _LOOKED_AT)
    table = Path(given.get(_TABLE) or ".")
    content = hashlib.sha256(table.read_bytes()).hexdigest() if table.is_file() else ""
    return hashlib.sha256(json.dumps([digest, said, content]).encode()).hexdigest()[:16]


def deployed_options(folder: str) -> dict[str, str]:
    """What TensorRT is told where a single model is deployed with what is in use; empty if nothing.

    Args:
        folder: Where it is to keep both.
    """
    if in_use() is None:
        return {}
    return dict(zip((*ENGINES, *TIMINGS), ("1", folder, "1", folder), strict=True))


def folder_of(model: Path) -> Path | None:
    """Where TensorRT keeps the engines of a model; None where it keeps none."""
    given = provider_options.in_use().get(TENSORRT, {})
    options = {**options_of(model), **given}
    enabled, path = (options.get(key, "") for key in ENGINES)
    return Path(path) if enabled.lower() in _ON and path else None
