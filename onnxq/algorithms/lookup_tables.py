"""Lookup tables: which embeddings are stored as int8 rows, and their scales.

A table is worth it where it is large; a small one would cost three more nodes a lookup for less
than a megabyte. One scale for each row, greatest magnitude over ``qmax``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxq.algorithms.weight_rounding import row_params
from onnxq.graph.derived import Transposed, origin_of
from onnxq.graph.edit import constant_array, constant_tensor
from onnxq.numerics.schemes import PerAxis
from onnxq.plan import BlockEmbeddingEntry, EmbeddingEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir

    from onnxq.graph.sites import Site
    from onnxq.numerics.schemes import Scheme
    from onnxq.plan import BlockEntry
    from onnxq.targets import Target

_SMALL_TABLE = 1 << 20
"""Tables of fewer bytes stay float."""


def why_table_stays(
    site: Site, values: Mapping[str, ir.Value], protected: frozenset[str], target: Target
) -> str:
    """Why a table stays as it is; empty if its rows are stored as integers.

    Args:
        site: A lookup that is a candidate.
        values: The main graph's values by name.
        protected: Names of the values that must keep their exact value.
        target: Tells whether rows of integers can be looked up.
    """
    if not target.lookups:
        return f"{target.name} cannot look up rows of integers"
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


def tied_lookups(
    sites: Iterable[Site],
    values: Mapping[str, ir.Value],
    blocks: Sequence[BlockEntry],
    target: Target,
) -> tuple[BlockEmbeddingEntry, ...]:
    """Lookups of tables that a product in blocks multiplies by too: both read one copy.

    Args:
        sites: Sites of any kind; those without an activation are lookups.
        values: The main graph's values by name.
        blocks: The products in blocks.
        target: Tells whether rows can be looked up in blocks.
    """
    if target.blocks is None or not target.blocks.lookup:
        return ()
    owners: dict[int, BlockEntry] = {}
    for entry in blocks:
        stored = _table_of(values[entry.initializer], entry.axis)
        unlike = target.blocks.lookup_symmetric and not entry.symmetric
        if entry.form == "kernel" and stored is not None and not unlike:
            owners[stored] = entry
    entries = []
    for site in sites:
        table = values.get(site.weight or "")
        owner = None if table is None else owners.get(id(table.const_value))
        if site.activation is not None or owner is None:
            continue
        entries.append(
            BlockEmbeddingEntry(
                node=site.name,
                initializer=site.weight or "",
                bits=owner.bits,
                symmetric=owner.symmetric,
                block_size=owner.block_size,
                stored=owner.initializer,
            )
        )
    return tuple(entries)


def tied_weights(sites: Iterable[Site], values: Mapping[str, ir.Value]) -> set[str]:
    """The weights of products whose contents lookups read too.

    Args:
        sites: Sites of any kind; those without an activation are lookups.
        values: The main graph's values by name.
    """
    tables: set[int] = set()
    products: dict[str, int] = {}
    for site in sites:
        name, value = site.weight or "", values.get(site.weight or "")
        if value is None:
            continue
        if site.activation is None:
            tables.add(id(value.const_value))
        elif (table := _table_of(value, site.weight_axis or 0)) is not None:
            products[name] = table
    return {name for name, table in products.items() if table in tables}


def _table_of(value: ir.Value, axis: int) -> int | None:
    """Which tensor holds a weight's output channels as its rows, by identity; None if none does."""
    origin = origin_of(value)
    if origin is not None and origin.steps == (Transposed((1, 0)),) and axis == 1:
        return id(origin.tensor)
    return id(value.const_value) if axis == 0 else None
