"""Store embedding tables as int8, one scale a row, and dequantize only the rows that are read.

Case: ``Gather(T, i)`` becomes ``Cast(Gather(T_quantized, i)) * Gather(T_scale, i)`` with
``T_scale`` of shape ``[rows, 1]``. A DequantizeLinear in front of the Gather would dequantize the
whole table at every run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.numerics.schemes import PerAxis, QParams, Scheme
from onnxq.passes.base import Editor, PlanPass, rounded

if TYPE_CHECKING:
    from onnxq.plan import EmbeddingEntry

_SCHEME = Scheme(8, signed=True, symmetric=True, granularity=PerAxis(0), narrow=True)


class QuantizeEmbeddings(PlanPass):
    """Rewrite the Gathers of ``plan.embeddings``; several may read one table."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite each Gather."""
        editor = Editor(model)
        tables: dict[str, tuple[ir.Value, ir.Value]] = {}
        for entry in self.plan.embeddings:
            if entry.initializer not in tables:
                tables[entry.initializer] = self._table(editor, entry)
            self._rewrite(editor, entry, *tables[entry.initializer])
        editor.drop_if_unread(tables)
        return ir.passes.PassResult(model, modified=bool(self.plan.embeddings))

    def _table(self, editor: Editor, entry: EmbeddingEntry) -> tuple[ir.Value, ir.Value]:
        name = entry.initializer
        scale = np.asarray(self.plan.array("embedding", name, "scale"), np.float32)
        params = QParams(scale, np.zeros(scale.shape, np.int8), _SCHEME)
        integers = rounded(editor.weight(name), params, f"{name}_quantized")
        coded = editor.constant(f"{name}_quantized", integers)
        return coded, editor.constant(f"{name}_scale", scale.reshape(-1, 1))

    def _rewrite(
        self, editor: Editor, entry: EmbeddingEntry, coded: ir.Value, scale: ir.Value
    ) -> None:
        gather = editor.node(entry.node)
        indices, output = gather.inputs[1], gather.outputs[0]
        if indices is None:
            return
        base = f"{output.name}"
        rows = editor.add("Gather", [coded, indices], f"{base}_rows", ir.DataType.INT8)
        factor = editor.add("Gather", [scale, indices], f"{base}_scale", ir.DataType.FLOAT)
        to = {"to": int(ir.DataType.FLOAT)}
        cast = editor.add("Cast", [rows.outputs[0]], f"{base}_cast", ir.DataType.FLOAT, to)
        inputs = [cast.outputs[0], factor.outputs[0]]
        product = editor.add("Mul", inputs, f"{base}_product", ir.DataType.FLOAT)
        editor.replace(gather, (rows, factor, cast, product))
