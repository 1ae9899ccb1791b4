"""The settings of onnxruntime.quantization that onnxq is measured against.

Its own defaults with weights per channel come first, then what serves it better. On texts of
different lengths its histogram methods fail unless samples are collected one at a time; quantizing
what the MatMuls read and not what they write gains 9 dB on MiniLM; quantizing the embeddings too is
what makes that model small.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import onnx

from tests.benchmarks.peer_tasks import Variant

if TYPE_CHECKING:
    from pathlib import Path

_MATMUL: Final = Variant("", "minmax", op_types=("MatMul",), weights_only=True)
_INPUTS: Final = replace(_MATMUL, float_outputs=True)

TEXTS: Final = (
    Variant("peer minmax", "minmax"),
    Variant("peer percentile", "percentile"),
    Variant("peer entropy", "entropy"),
    replace(_MATMUL, name="peer minmax, weight MatMuls"),
    replace(_INPUTS, name="peer minmax, MatMul inputs"),
    replace(
        _INPUTS,
        name="peer percentile, MatMul inputs, 1 at a time",
        method="percentile",
        at_a_time=1,
    ),
    replace(
        _INPUTS, name="peer entropy, MatMul inputs, 1 at a time", method="entropy", at_a_time=1
    ),
    replace(
        _INPUTS,
        name="peer percentile, MatMul inputs and embeddings, 1 at a time",
        method="percentile",
        at_a_time=1,
        op_types=("MatMul", "Gather"),
    ),
    Variant("peer dynamic", "dynamic"),
)

IMAGES: Final = (
    *(
        Variant(f"peer {method}{', preprocessed' * prepared}", method, preprocess=prepared)
        for method in ("minmax", "percentile", "entropy")
        for prepared in (False, True)
    ),
    Variant(
        "peer percentile, preprocessed, asymmetric, 8 at a time",
        "percentile",
        preprocess=True,
        symmetric=False,
        at_a_time=8,
    ),
)


def variants_for(model: Path) -> tuple[Variant, ...]:
    """The peer's settings for a model: with convolutions those for images, else for texts."""
    graph = onnx.load(model, load_external_data=False).graph
    return IMAGES if any(node.op_type == "Conv" for node in graph.node) else TEXTS
