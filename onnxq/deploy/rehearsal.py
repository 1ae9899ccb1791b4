"""Runs a decoder as a text generator does: the beginning at once, then token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import all_nodes, clone
from onnxq.runtime.session import SessionSettings, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.deploy.cache import CacheGraph
    from onnxq.runtime.session import Session

    Logits = NDArray[np.floating[Any]]

TOKENS: Final = 12
"""Tokens that are run at first."""
STEPS: Final = 4
"""Tokens that follow one by one."""


def rehearse(model: Path, cache: CacheGraph) -> Logits:
    """Logits ``[TOKENS + STEPS, vocabulary]`` of a made-up text, the last rows by way of the cache.

    Args:
        model: The decoder; heads, head size and vocabulary must be known.
        cache: Its description.

    Raises:
        ModelError: It does not load or run.
    """
    session = open_session(model, SessionSettings(spinning=False))
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, cache.vocabulary or 2, TOKENS + STEPS)
    names = {
        pattern.replace("%d", str(layer)): present.replace("%d", str(layer))
        for pattern, present in zip(cache.past, cache.present, strict=True)
        for layer in range(cache.layers)
    }
    dtypes = {spec.name: spec.dtype or np.float32 for spec in session.inputs}
    past: dict[str, NDArray[Any]] = {
        name: np.zeros((1, cache.heads or 1, 0, cache.head_size or 1), dtypes[name])
        for name in names
    }
    rows: list[Logits] = []
    for start, end in ((0, TOKENS), *((i, i + 1) for i in range(TOKENS, TOKENS + STEPS))):
        feeds = past | _feeds(session, cache, tokens[start:end], start)
        logits, *presents = session.run(feeds, [cache.logits, *names.values()])
        rows.extend(logits[0])
        past = dict(zip(names, presents, strict=True))
    return np.asarray(rows[-TOKENS - STEPS :])


def with_float_activations(model: ir.Model) -> ir.Model:
    """A copy whose products compute with float activations, so that roundings do not flip."""
    made = clone(model)
    for node in all_nodes(made):
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 1)
    return made


def _feeds(
    session: Session, cache: CacheGraph, tokens: NDArray[np.int64], start: int
) -> dict[str, NDArray[Any]]:
    made = {
        "input_ids": tokens[None],
        "attention_mask": np.ones((1, start + len(tokens)), np.int64),
        "position_ids": np.arange(start, start + len(tokens))[None],
    }
    dtypes = {spec.name: spec.dtype or np.int64 for spec in session.inputs}
    return {name: made[role].astype(dtypes[name]) for role, name in cache.inputs.items()}
