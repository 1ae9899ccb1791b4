"""The products and convolutions of a model, with the sizes that they have on a sample.

Sizes of activations come from one run with the shape of each as an output; without data the sample
is made up (symbolic lengths: :mod:`onnxq.data.made_up`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final

from onnxq.calibration.probe import ProbeGraph
from onnxq.calibration.session import open_model
from onnxq.data import open_data
from onnxq.data.made_up import made_up
from onnxq.errors import ModelError
from onnxq.graph.edit import constant_tensor, node_by_name
from onnxq.graph.io import load
from onnxq.graph.normalize import normalize
from onnxq.graph.quantized import find_already_quantized
from onnxq.graph.sites import find_sites
from onnxq.graph.structure import signature
from onnxq.runtime.kernel_shapes import ConvShape, ProductShape

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx_ir as ir

    from onnxq.data import DataLike
    from onnxq.graph.sites import Site
    from onnxq.runtime.kernel_shapes import Shape

_OPS: Final = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A shape and the sites that have it.

    Attributes:
        shape: The shape.
        sites: Names of the nodes.
        share: Of the multiplications of all shapes that were found.
    """

    shape: Shape
    sites: tuple[str, ...]
    share: float


def model_shapes(model: str | Path, data: DataLike | None = None) -> tuple[ModelShape, ...]:
    """The shapes of a model's products and convolutions, those that multiply most first.

    What no shape stands for (convolutions that are not of images, dilated or with two strides) is
    left out.

    Args:
        model: The model's file.
        data: Samples, of which the first is run; made up if None.

    Raises:
        ModelError: The model does not load or run, or has no such site.
        DataError: The sample does not fit, or none can be made up.
    """
    graph = normalize(load(model)).model
    nodes = node_by_name(graph.graph)
    sites = [s for s in find_sites(graph) if s.op in _OPS and s.activation and s.name in nodes]
    source = made_up(signature(graph)) if data is None else open_data(data, signature(graph))
    probe = ProbeGraph(graph)
    outputs = {site.name: probe.shape(site.activation or "") for site in sites}
    found: dict[Shape, list[str]] = {}
    if sites:
        wanted = list(dict.fromkeys(outputs.values()))
        try:
            with open_model(probe.pruned(), "none") as session:
                lengths = session.run(next(iter(source)).feeds, wanted)
        except ModelError as error:
            # What is run has no name: it is a part of the model, in memory.
            code, text = error.code, error.message
            raise ModelError(code, text, where=str(model), remedy=error.remedy) from error
        taken = dict(zip(wanted, lengths, strict=True))
        for site in sites:
            activation = tuple(int(length) for length in taken[outputs[site.name]])
            shape = _shape(nodes[site.name], site, activation)
            if shape is not None:
                found.setdefault(shape, []).append(site.name)
    if not found:
        raise _none_found(graph, model)
    total = sum(shape.macs * len(names) for shape, names in found.items())
    listed = [
        ModelShape(shape, tuple(names), shape.macs * len(names) / total)
        for shape, names in found.items()
    ]
    return tuple(sorted(listed, key=lambda entry: -entry.share))


def _none_found(graph: ir.Model, model: str | Path) -> ModelError:
    quantized = find_already_quantized(graph)
    code = "stages.no_shapes"
    text = "no product or convolution with float weights was found to time, bodies of If and Loop "
    text += "not looked into"
    remedy = "name shapes with --shapes"
    if quantized is not None:
        text, remedy = f"it is quantized already ({quantized})", "name the float model"
    return ModelError(code, text, where=str(model), remedy=remedy)


def _shape(node: ir.Node, site: Site, activation: Sequence[int]) -> Shape | None:
    tensor = None if node.inputs[1] is None else constant_tensor(node.inputs[1])
    if tensor is None:
        return None
    weight = tuple(tensor.shape.numpy())
    if site.op == "Conv":
        return _conv_shape(node, activation, weight)
    turned = {key: node.attributes.get_int(key, 0) != 0 for key in ("transA", "transB")}
    if len(weight) != 2 or turned["transA"]:
        return None
    inner, columns = reversed(weight) if turned["transB"] else weight
    return ProductShape(prod(activation[:-1]), inner, columns)


def _conv_shape(
    node: ir.Node, activation: Sequence[int], weight: tuple[int, ...]
) -> ConvShape | None:
    strides = tuple(node.attributes.get_ints("strides", [1, 1]))
    dilations = tuple(node.attributes.get_ints("dilations", [1, 1]))
    if len(activation) != 4 or len(set(strides)) > 1 or set(dilations) != {1}:
        return None
    batch, channels, height, width = activation
    groups = node.attributes.get_int("group", 1)
    kernel = (weight[2], weight[3])
    return ConvShape(batch, channels, height, width, weight[0], kernel, strides[0], groups)
