"""Sessions of models in memory, for calibration."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from onnxq.graph.io import save, to_bytes, weight_bytes
from onnxq.runtime.session import Session, SessionSettings, open_session
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

_IN_MEMORY = 3 << 29
"""Bytes of weights up to which a probe is opened from memory; a message ends at 2 GiB."""

# Spinning threads of the session would steal the cores from the counting in between.
_SETTINGS = SessionSettings(spinning=False)


@contextmanager
def open_model(model: ir.Model) -> Iterator[Session]:
    """A session of an in-memory model; one too large for a message goes by a private folder."""
    if weight_bytes(model) < _IN_MEMORY:
        yield open_session(to_bytes(model), _SETTINGS)
        return
    with Scratch() as folder:
        path = folder / "probe.onnx"
        save(model, path)
        yield open_session(path, _SETTINGS)
