"""Compiled loops, kept on disk between runs where there is a place for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

_F = TypeVar("_F", bound="Callable[..., Any]")


def compiled(function: _F, fastmath: set[str] | None = None) -> _F:
    """Compile a function at its first call; it releases the GIL.

    The result is kept beside the code or in the user's cache folder. Where neither can be written,
    as in a container with a read-only file system and no home, every process compiles anew.

    Args:
        function: What to compile.
        fastmath: The liberties that the compiler may take.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": fastmath or False}
    try:
        made: _F = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        made = numba.njit(**options)(function)
    return made
