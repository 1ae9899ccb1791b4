"""Models that end the process which loads them, found out in a process of their own."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnxq.errors import ModelError
from onnxq.graph.edit import all_nodes
from onnxq.runtime.apart import load_apart

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_HALVES: Final = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def check_survives(models: Iterable[tuple[Path, ir.Model]]) -> None:
    """Refuse models that end the process which loads them on the CPU.

    Only models with floats of 16 bits are tried out: no other has been seen to. So nobody else
    waits for a second process.

    Args:
        models: Each file, with what is in it.

    Raises:
        ModelError: One does.
    """
    for path, model in models:
        if not _has_halves(model):
            continue
        found = load_apart(path)
        if found.died:
            code, remedy = "model.dies", f"`onnxq lint {path}` says what is behind it"
            raise ModelError(code, found.refusal, where=str(path), remedy=remedy)


def _has_halves(model: ir.Model) -> bool:
    graph = model.graph
    values = chain(
        graph.inputs,
        graph.initializers.values(),
        (output for node in all_nodes(model) for output in node.outputs),
    )
    return any(value.dtype in _HALVES for value in values)
