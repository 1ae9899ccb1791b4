"""What a recipe says of sessions, in use while it is carried out."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from onnxq.runtime.engine_cache import engine_cache
from onnxq.runtime.provider_options import default_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.recipe import Recipe


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
