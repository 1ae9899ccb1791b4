"""Lookup tables: which embeddings are stored as int8 rows, and their scales.

A table is worth it where it is large; a small one would cost three more nodes a lookup for less
than a megabyte. One scale for each row, greatest magnitude over ``qmax``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxq.algorithms.weight_rounding import row_params
from onnxq.graph.edit import constant_array, constant_tensor
from onnxq.numerics.schemes import PerAxis
from onnxq.plan import EmbeddingEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    from onnxq.graph.sites import Site
    from onnxq.numerics.schemes import Scheme

_SMALL_TABLE = 1 << 20
"""Tables of fewer bytes stay float."""


def why_table_stays(site: Site, values: Mapping[str, ir.Value], protected: frozenset[str]) -> str:
    """Why a table stays as it is; empty if its rows are stored as integers.

    Args:
        site: A lookup that is a candidate.
        values: The main graph's values by name.
        protected: Names of the values that must keep their exact value.
    """
    if site.output in protected:
        return f"its output {site.output!r} must keep its value"
    table = constant_tensor(values[site.weight or ""])
    if table is None or table.nbytes < _SMALL_TABLE:
        return "its table is too small for the saving to outweigh the nodes that it takes"
    return ""


def embeddings(
    sites: Iterable[Site], values: Mapping[str, ir.Value], weight: Scheme
) -> tuple[tuple[EmbeddingEntry, ...], dict[str, np.ndarray]]:
    """The entries of a plan for lookups, and the scales of their tables' rows.

    Args:
        sites: Sites of any kind; those without an activation are lookups.
        values: The main graph's values by name.
        weight: The integers of weights; rows always have 8 bits.
    """
    entries: list[EmbeddingEntry] = []
    arrays: dict[str, np.ndarray] = {}
    scheme = replace(weight, bits=8, granularity=PerAxis(0))
    for site in sites:
        if site.activation is not None:
            continue
        name = site.weight or ""
        key = f"embedding/{name}/scale"
        if key not in arrays:
            table = constant_array(values[name])
            arrays[key] = row_params(np.asarray(table, np.float32), scheme).scale
        entries.append(EmbeddingEntry(node=site.name, initializer=name))
    return tuple(entries), arrays
