"""Models come from files and go to files here, and nowhere else.

Reading is lazy: weights in external files are mapped when they are used. Writing is atomic.
"""

from __future__ import annotations

from onnxq.graph.digest import digest
from onnxq.graph.reading import file_bytes, load
from onnxq.graph.tensors import weight_bytes
from onnxq.graph.writing import (
    GIBIBYTE,
    check_output,
    publish,
    save,
    staging,
    to_bytes,
    to_bytes_beside,
)

__all__ = [
    "GIBIBYTE",
    "check_output",
    "digest",
    "file_bytes",
    "load",
    "publish",
    "save",
    "staging",
    "to_bytes",
    "to_bytes_beside",
    "weight_bytes",
]
