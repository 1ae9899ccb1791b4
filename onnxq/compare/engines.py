"""Whether TensorRT built an engine for a comparison, or found one that it had kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxq.graph.io import digest
from onnxq.runtime import providers
from onnxq.runtime.engine_cache import TENSORRT, folder_of, in_use
from onnxq.runtime.session import SessionSettings, open_session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.runtime.session import Session


@dataclass(frozen=True, slots=True)
class KeptEngine:
    """An engine that is kept for the next time.

    Attributes:
        folder: Where.
        build_seconds: Loading the model and its first run, where the engine was built then; None
            where it lay there already.
    """

    folder: Path
    build_seconds: float | None

    @property
    def remark(self) -> str:
        """What the user must know beside the times of a model that is loaded again."""
        rest = "the times of loading and of the first run are without building it"
        if self.build_seconds is None:
            return f"its TensorRT engine lay in {self.folder} already: {rest}"
        return (
            f"TensorRT built its engine in {self.build_seconds:.3g} s, first run included, and "
            f"keeps it in {self.folder}: {rest}"
        )


def digests(models: Mapping[Path, ir.Model]) -> dict[Path, str]:
    """What :func:`~onnxq.runtime.engine_cache.of_models` wants; empty where nothing is kept."""
    if in_use() is None:
        return {}
    return {path: digest(model) for path, model in models.items()}


def open_noting_engine(
    path: Path, provider: str, feeds: Mapping[str, NDArray[Any]]
) -> tuple[Session, KeptEngine | None]:
    """Open a model for the first time in a comparison.

    Args:
        path: The model.
        provider: Where it runs.
        feeds: A sample; an engine may be built as late as at the first run.

    Returns:
        The session, and what is kept; None where that is nothing.

    Raises:
        ModelError: It does not load or run.
        ProviderError: The provider is not there.
    """
    settings = SessionSettings(provider=provider, spinning=False)
    folder = folder_of(path) if providers.resolve(provider) == TENSORRT else None
    if folder is None:
        return open_session(path, settings), None
    before, begin = _engines(folder), time.perf_counter()
    session = open_session(path, settings)
    session.execute(feeds)
    seconds = time.perf_counter() - begin
    # An engine of another GPU may lie there too, so that what is new tells, not what is there.
    return session, KeptEngine(folder, None if _engines(folder) == before else seconds)


def _engines(folder: Path) -> dict[str, int]:
    """When each engine was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.engine*")}
