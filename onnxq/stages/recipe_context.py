"""What a recipe says of sessions, in use while it is carried out, and what follows of it."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from onnxq.runtime.engine_cache import engine_cache, folder_of
from onnxq.runtime.provider_options import default_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.recipe import Recipe
    from onnxq.stages.prepare import Prepared


@contextmanager
def sessions_as_in(recipe: Recipe) -> Iterator[None]:
    """Let sessions heed a recipe's provider options and engine cache; what the call says wins.

    Raises:
        ProviderError: There is no such provider.
        UsageError: A device is no number, or the engine cache is no folder.
    """
    folder = recipe.engine_cache
    kept = nullcontext() if folder is None else engine_cache(folder)
    with default_options(recipe.provider_options), kept:
        yield


def engine_remark(prepared: Prepared) -> str:
    """What the user must know of the times where TensorRT keeps engines; empty where not."""
    folder = folder_of(prepared.source) if prepared.on_target else None
    if folder is None:
        return ""
    return (
        f"TensorRT keeps the float model's engine in {folder} and builds the result's anew: the "
        "times of loading and of the first run do not compare"
    )
