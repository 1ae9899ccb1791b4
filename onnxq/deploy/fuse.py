"""Fuses each layer's attention into GroupQueryAttention, and its norms; or leaves all as it is.

GroupQueryAttention (https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)
turns queries and keys, appends to the cache, repeats no keys, masks and multiplies in one kernel;
in onnxruntime-genai it writes into a cache that is never copied. Positions are counted by it, so
``position_ids`` go. Its angles are a table, which is made by running the model's own angles on all
positions.

It takes a batch's texts as aligned to the left; causal, and without a window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.rewriter.ort_fusions.rms_normalization import fuse_rms_normalization
from onnxscript.rewriter.ort_fusions.skip_normalization import fuse_skip_rms_normalization

from onnxq.deploy.attention import Attention, attention_of, decline
from onnxq.graph.edit import NameScope, clone, initializer
from onnxq.graph.io import to_bytes
from onnxq.runtime.session import SessionSettings, open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.deploy.cache import CacheGraph
    from onnxq.deploy.checkpoint import Decoder

_MICROSOFT: Final = "com.microsoft"
_TRIED: Final = 16


def fused(model: ir.Model, decoder: Decoder, cache: CacheGraph) -> ir.Model:
    """The model with one operator for each attention; ``model`` stays as it is.

    Raises:
        UnknownAttentionError: It cannot be fused; the text says why.
    """
    if decoder.windowed:
        decline("layers see a window of tokens")
    if "position_ids" not in cache.inputs:
        decline("it takes no position_ids")
    made = clone(model)
    values = {value.name: value for value in (*made.graph.inputs, *made.graph.outputs)}
    layers = []
    for layer in range(cache.layers):
        past, present = (
            (values[names[0] % layer], values[names[1] % layer])
            for names in (cache.past, cache.present)
        )
        layers.append((attention_of(past, present), past, present))
    first = layers[0][0]
    if any(found.cos is not first.cos or found.sin is not first.sin for found, _, _ in layers):
        decline("layers are turned by different angles")
    shared = _shared(made, first, decoder, cache)
    for number, (found, past, present) in enumerate(layers):
        _replace(made.graph, number, found, (*past, *shared), present, decoder)
    made.opset_imports.setdefault(_MICROSOFT, 1)
    RemoveUnusedNodesPass()(made)
    position = values[cache.inputs["position_ids"]]
    if position.uses():
        decline("position_ids are used for more than angles")
    made.graph.inputs.remove(position)
    if fuse_rms_normalization(made):
        fuse_skip_rms_normalization(made)
    RemoveUnusedNodesPass()(made)
    return made


def _shared(
    model: ir.Model, found: Attention, decoder: Decoder, cache: CacheGraph
) -> tuple[ir.Value, ...]:
    """What all layers read: lengths of the texts, and the tables of angles."""
    graph, name = model.graph, NameScope(model)
    cos, sin = _tables(model, found, decoder, cache)
    mask = next(v for v in graph.inputs if v.name == cache.inputs["attention_mask"])
    one = initializer(model, name("cache_one"), np.asarray([1], np.int64))
    nodes: list[ir.Node] = []

    def made(op: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        node = ir.node(op, list(inputs), attributes=attributes, name=name(f"cache_{op}"))
        node.outputs[0].name = name(f"cache_{op}_output")
        nodes.append(node)
        return node.outputs[0]

    kind = ir.DataType.INT32
    counted = made("Sub", made("ReduceSum", mask, one, keepdims=0), one)
    last = made("Cast", counted, to=kind)
    length = made("Shape", mask, start=1, end=2)
    total = made("Cast", made("Squeeze", length), to=kind)
    graph.insert_before(next(iter(graph)), nodes)
    tables = [initializer(model, name(f"cache_{t}"), a) for t, a in (("cos", cos), ("sin", sin))]
    return last, total, *tables


def _tables(
    model: ir.Model, found: Attention, decoder: Decoder, cache: CacheGraph
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines ``[context, size / 2]``, as the model computes them."""
    name = cache.inputs["position_ids"]
    given = next(value for value in model.graph.inputs if value.name == name)
    try:
        part = ir.convenience.extract(model.graph, [given], [found.cos, found.sin])
    except ValueError:
        decline("angles depend on more than positions")
    angles = ir.Model(part, ir_version=model.ir_version)
    session = open_session(to_bytes(angles), SessionSettings(spinning=False))
    kind = next(spec.dtype for spec in session.inputs)

    def run(count: int) -> list[NDArray[Any]]:
        return session.run({name: np.arange(count)[None].astype(kind or np.int64)})

    tables = []
    for few, full in zip(run(_TRIED), run(decoder.context), strict=True):
        table = full.reshape(-1, full.shape[-1])
        half = table.shape[1] // 2
        same = np.array_equal(table[:, :half], table[:, half:])
        if table.shape != (decoder.context, decoder.head_size) or not same:
            decline("not all channels of a head are turned, or in other pairs")
        if not np.array_equal(few.reshape(-1, full.shape[-1]), table[:_TRIED]):
            decline("angles depend on the length of the text")
        tables.append(np.ascontiguousarray(table[:, :half], np.float32))
    return tables[0], tables[1]


def _replace(
    graph: ir.Graph,
    number: int,
    found: Attention,
    further: tuple[ir.Value, ...],
    present: tuple[ir.Value, ir.Value],
    decoder: Decoder,
) -> None:
    node = ir.node(
        "GroupQueryAttention",
        [found.query, found.key, found.value, *further],
        attributes={
            "num_heads": decoder.heads,
            "kv_num_heads": decoder.cache_heads,
            "scale": found.scale,
            "do_rotary": 1,
            "rotary_interleaved": 0,
        },
        domain=_MICROSOFT,
        num_outputs=3,
        name=f"layer_{number}.GroupQueryAttention",
    )
    reader = found.output.producer()
    assert reader is not None
    graph.insert_before(reader, node)
    output, *caches = node.outputs
    output.name = f"layer_{number}.attended"
    output.type, output.shape = found.output.type, found.output.shape
    found.output.replace_all_uses_with(output)
    for old, new in zip(present, caches, strict=True):
        new.type, new.shape = old.type, old.shape
        name, old.name = old.name, f"{old.name}.replaced"
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name = name
