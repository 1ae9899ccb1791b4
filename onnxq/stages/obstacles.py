"""What would stop a model, or most of it, from being quantized, whoever wrote it.

ONNX Runtime does not load it: an operator of a domain that no library here brings, say;
there are no floating-point weights, or none that feed an operator that is quantized;
weights lie in the bodies of If, Loop or Scan, which calibration does not see into;
an input leaves its number of axes open, or is no tensor, so that no data fits it for certain;
an output is no tensor, so that it cannot be compared.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.errors import ModelError, listed
from onnxq.graph.edit import all_nodes
from onnxq.runtime.session import SessionSettings, open_session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST = 3
_WITH_BODIES = frozenset({"If", "Loop", "Scan"})


def obstacles(model: ir.Model, path: Path, *, sites: int) -> tuple[str, ...]:
    """Return a sentence for each.

    Args:
        model: As it was read.
        path: Its file.
        sites: How many sites it has.
    """
    return tuple(_obstacles(model, path, sites))


def _obstacles(model: ir.Model, path: Path, sites: int) -> Iterator[str]:
    try:
        open_session(path, SessionSettings(optimization="none", threads=1, spinning=False))
    except ModelError as error:
        yield ". ".join(part for part in (error.message, error.remedy) if part)
    if not sites:
        yield _no_sites(model)
    flow = Counter(node.op_type for node in all_nodes(model) if node.op_type in _WITH_BODIES)
    if flow:
        counted = ", ".join(f"{count} {op}" for op, count in sorted(flow.items()))
        yield f"control flow ({counted}): calibration does not see what its bodies compute"
    for kind, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        other = [v.name or "" for v in values if not isinstance(v.type, ir.TensorType)]
        if other:
            yield f"{kind} {listed(other, _MOST)}: no tensor, which is neither fed nor compared"
    given = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    open_rank = [
        v.name or "" for v in given if isinstance(v.type, ir.TensorType) and v.shape is None
    ]
    if open_rank:
        yield f"input {listed(open_rank, _MOST)}: its number of axes is left open"


def _no_sites(model: ir.Model) -> str:
    floats = [
        value
        for value in model.graph.initializers.values()
        if value.dtype is not None and value.dtype.is_floating_point()
    ]
    if not floats:
        trees = [node.op_type for node in model.graph if node.op_type.startswith("Tree")]
        return "there are no floating-point weights" + (f" ({trees[0]})" if trees else "")
    return "no weight feeds an operator that is quantized"
