"""Small models as text, data for them, and their graphs back as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper, parser

from onnxq.data import open_data
from onnxq.graph.io import to_bytes
from onnxq.graph.normalize import normalize
from onnxq.graph.structure import signature
from onnxq.runtime.session import SessionSettings, open_session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.data import DataSource
    from onnxq.runtime.session import Optimization

Feeds = dict[str, "NDArray[Any]"]


def proto(text: str, **weights: NDArray[Any]) -> onnx.ModelProto:
    """A model of opset 17 from the text of its graph, and its initializers."""
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    return model


def write(path: Path, text: str, **weights: NDArray[Any]) -> Path:
    """The model of :func:`proto` as a file."""
    onnx.save(proto(text, **weights), path)
    return path


def normalized(text: str, **weights: NDArray[Any]) -> ir.Model:
    """The model of :func:`proto`, normalized."""
    return normalize(ir.serde.deserialize_model(proto(text, **weights))).model


def source(model: ir.Model, samples: Sequence[Mapping[str, NDArray[Any]]]) -> DataSource:
    """Samples that are checked against the model."""
    return open_data(list(samples), signature(model))


def run(
    model: ir.Model | Path, feeds: Mapping[str, NDArray[Any]], optimization: Optimization = "none"
) -> list[NDArray[Any]]:
    """Run a model, by default exactly as it is written."""
    settings = SessionSettings(optimization=optimization, threads=1, spinning=False)
    content = to_bytes(model) if isinstance(model, ir.Model) else model
    return open_session(content, settings).run(feeds)


def graph_text(model: ir.Model) -> str:
    """One line for each node, ``Op(inputs) -> outputs``, in an order that does not vary."""
    lines = []
    for node in model.graph:
        inputs = ", ".join("" if value is None else value.name or "" for value in node.inputs)
        outputs = ", ".join(value.name or "" for value in node.outputs)
        lines.append(f"{node.op_type}({inputs}) -> {outputs}")
    return "\n".join(lines)


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    """Normally distributed float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
