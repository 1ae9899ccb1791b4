"""A weight in blocks that becomes float before it is read, by ONNX's own operators.

Written once for each weight however many nodes read it. Two forms: ``dq``
(``block_dequantized.py``) and ``folded`` (``block_folded.py``). Symmetric integers are stored
signed and without zero points. Types of 4 bits want opset 21, those of 2 bits opset 25.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.errors import PlanError
from onnxq.graph.opset import opset_version
from onnxq.passes.block_dequantized import dequantized
from onnxq.passes.block_folded import folded
from onnxq.plan import Reader

if TYPE_CHECKING:
    from onnxq.passes.base import Editor
    from onnxq.passes.block_weight import BlockWeight
    from onnxq.plan import BlockEntry


class FloatWeights:
    """Writes weights that are float where they are read."""

    def __init__(self, editor: Editor) -> None:
        """Nothing is written yet."""
        self._editor = editor
        self._made: dict[tuple[str, str], ir.Value] = {}

    def __call__(self, entry: BlockEntry, weight: BlockWeight) -> None:
        """Let the node of ``entry`` read the weight in its form.

        Raises:
            PlanError: The model's opset lacks the operators.
        """
        version = opset_version(self._editor.model)
        if version < entry.minimum_opset:
            text = f"weights of {entry.bits} bits in the form {entry.form!r} want opset"
            code, text = "plan.opset", f"{text} {entry.minimum_opset}; the model has {version}"
            raise PlanError(code, text, where=entry.node, remedy="make the plan again")
        key = weight.name, entry.form
        if key not in self._made:
            self._made[key] = self._written(entry, weight)
        place = Reader(node=entry.node, input=entry.weight)
        self._editor.rewire((place,), self._made[key])

    def _written(self, entry: BlockEntry, weight: BlockWeight) -> ir.Value:
        write = dequantized if entry.form == "dq" else folded
        nodes = write(self._editor, weight)
        self._editor.put_first(tuple(nodes))
        value = nodes[-1].outputs[0]
        value.shape = ir.Shape(weight.layout.shape)
        return value
