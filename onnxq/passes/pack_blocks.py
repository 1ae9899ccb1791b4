"""Store weights in blocks: products, lookups of rows, and weights that become float again.

The forms are those of ``block_product.py`` (MatMulNBits), ``block_lookup.py``
(GatherBlockQuantized) and ``block_float.py`` (DequantizeLinear, or folded when the model is
loaded). A table and the product that is tied to it share one copy of the integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.errors import PlanError
from onnxq.graph.derived import Transposed, origin_of
from onnxq.graph.opset import MICROSOFT
from onnxq.numerics.channel_major import ChannelMajor
from onnxq.passes.base import Editor, PlanPass
from onnxq.passes.block_float import FloatWeights
from onnxq.passes.block_lookup import Lookups
from onnxq.passes.block_product import Products
from onnxq.passes.block_weight import BlockWeight, read_weight

if TYPE_CHECKING:
    from onnxq.plan import BlockEmbeddingEntry, InBlocks, Plan


class PackBlocks(PlanPass):
    """Rewrite the nodes of ``plan.blocks`` and ``plan.block_embeddings``."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite each node; those that share a weight share its integers."""
        plan, editor = self.plan, Editor(model)
        weights = _Weights(plan, editor)
        products, floats = Products(editor), FloatWeights(editor)
        lookups = Lookups(editor, products)
        for entry in plan.blocks:
            name = entry.initializer
            layout = entry.layout(tuple(editor.weight(name).shape.numpy()))
            write = products if entry.form == "kernel" else floats
            write(entry, weights(name, layout, entry))
        for lookup in plan.block_embeddings:
            layout = _layout_of_table(editor, lookup)
            lookups(lookup, weights(lookup.stored, layout, lookup))
        entries = (*plan.blocks, *plan.block_embeddings)
        editor.drop_if_unread(entry.initializer for entry in entries)
        if plan.block_embeddings or any(entry.form == "kernel" for entry in plan.blocks):
            model.opset_imports.setdefault(MICROSOFT, 1)
        return ir.passes.PassResult(model, modified=bool(entries))


class _Weights:
    """The weights of a plan, each read once."""

    def __init__(self, plan: Plan, editor: Editor) -> None:
        self._plan = plan
        self._editor = editor
        self._known: dict[str, BlockWeight] = {}

    def __call__(self, name: str, layout: ChannelMajor, entry: InBlocks) -> BlockWeight:
        if name not in self._known:
            tensor = self._editor.weight(name)
            self._known[name] = read_weight(self._plan, name, tensor, layout, entry)
        found = self._known[name]
        stored = found.layout, found.bits, found.symmetric, found.block_size
        if stored != (layout, entry.bits, entry.symmetric, entry.block_size):
            raise _refused(entry, f"the plan stores {name!r} in two ways")
        return found


def _layout_of_table(editor: Editor, entry: BlockEmbeddingEntry) -> ChannelMajor:
    """Of the weight whose integers a lookup reads, which has to be the table or its transpose.

    Raises:
        PlanError: It is another one.
    """
    table, stored = editor.value(entry.initializer), editor.value(entry.stored)
    shape = tuple(editor.weight(entry.stored).shape.numpy())
    if stored is table and len(shape) == 2:
        return ChannelMajor(shape, (1,))
    origin = origin_of(stored)
    tied = origin is not None and origin.tensor is table.const_value
    if origin is None or not tied or origin.steps != (Transposed((1, 0)),):
        text = f"{entry.stored!r}, whose integers it is to read, is not its table transposed"
        raise _refused(entry, text)
    return ChannelMajor(shape, (0,))


def _refused(entry: InBlocks, text: str) -> PlanError:
    return PlanError("plan.blocks", text, where=entry.node, remedy="make the plan again")
