"""Sessions of models in memory, for calibration."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from onnxq.graph.io import save, to_bytes, weight_bytes
from onnxq.runtime.session import Optimization, Session, SessionSettings, open_session
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

_IN_MEMORY = 1 << 26
"""Bytes of weights up to which a probe is opened from memory. ONNX Runtime keeps such a message
beside its own copies of the weights, three times their size at its worst, where it maps a file."""


@contextmanager
def open_model(model: ir.Model, optimization: Optimization = "all") -> Iterator[Session]:
    """A session of an in-memory model; a large one goes by a file in a private folder.

    Args:
        model: The model.
        optimization: ``none`` loads in a fraction of the time what is run once at most.
    """
    # Spinning threads of the session would steal the cores from the counting in between.
    settings = SessionSettings(optimization=optimization, spinning=False)
    if weight_bytes(model) < _IN_MEMORY:
        yield open_session(to_bytes(model), settings)
        return
    with Scratch() as folder:
        path = folder / "probe.onnx"
        save(model, path, external_threshold=_IN_MEMORY)
        yield open_session(path, settings)
