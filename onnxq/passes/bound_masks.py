"""Bound constants that mask to what 16 bits hold: case ``c -> readers`` becomes ``c' -> readers``.

All readers read the bounded one, those in float32 too: a mask of another magnitude masks the same.
What is infinite stays so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.passes.base import Editor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxq.plan import MaskEntry


class BoundMasks(ir.passes.InPlacePass):
    """Replace the constants of the given entries."""

    def __init__(self, entries: Sequence[MaskEntry]) -> None:
        """Keep the entries."""
        self.entries = entries

    def __repr__(self) -> str:
        """The pass's name."""
        return "BoundMasks()"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace each constant's contents; its name stays."""
        editor = Editor(model)
        for entry in self.entries:
            array = editor.weight(entry.initializer).numpy()
            bounded = np.clip(array, -entry.magnitude, entry.magnitude)
            value = editor.value(entry.initializer)
            found = np.where(np.isfinite(array), bounded, array).astype(array.dtype)
            value.const_value = ir.Tensor(found, name=entry.initializer)
            # It is no longer what it was derived from.
            value.meta.clear()
        return ir.passes.PassResult(model, modified=bool(self.entries))
