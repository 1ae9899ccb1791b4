"""Compiled loops where nothing can be kept on disk."""

from __future__ import annotations

from typing import Any

import numba
import pytest

from onnxq.numerics.compiled import compiled


def test_without_a_place_to_keep_them_they_are_compiled_anew() -> None:
    """Code that is in no file has no folder beside it, as code in a folder that is read-only."""
    names: dict[str, Any] = {}
    exec("def twice(x):\n    return 2 * x", names)
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(names["twice"])
    assert compiled(names["twice"])(21) == 42
