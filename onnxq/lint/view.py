"""What the checks look at: the model as it is written, and as ONNX Runtime would run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxq.runtime.kernels import executed_as, float_sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from onnxq.runtime.apart import Loaded
    from onnxq.runtime.machine import Machine


@dataclass(frozen=True, slots=True)
class View:
    """A model and what is known of it.

    Attributes:
        model: The model; every node has a name of its own, types are inferred where they can be.
        target: What it is to run on: ``cpu``, ``cuda`` or ``tensorrt``.
        machine: The processor, which decides what the CPU provider does.
        renamed: Names that were given to nodes which had none, or that of another.
        loaded: What ONNX Runtime makes of it on the target; None where that was not tried.
        drift_db: SQNR in decibels of the optimized model's outputs on made-up inputs, against those
            of the model as it is written; None where they were not compared.
    """

    model: ir.Model
    target: str
    machine: Machine
    renamed: frozenset[str] = frozenset()
    loaded: Loaded | None = None
    drift_db: float | None = None

    @property
    def runs(self) -> bool:
        """Whether it is known what ONNX Runtime executes."""
        return self.loaded is not None and not self.loaded.refusal

    def in_float(self, weights: Mapping[str, str | None]) -> frozenset[str]:
        """Which of some nodes ONNX Runtime runs, and not in integer kernels.

        Args:
            weights: For each node's name that of its weight's integers; None without a weight.
        """
        executed = () if self.loaded is None else self.loaded.nodes
        return float_sites(executed, weights)

    def operators(self, product: str, weight: str | None) -> frozenset[str]:
        """The operators as which ONNX Runtime executes a product; none if it does not.

        Args:
            product: The node's name.
            weight: That of its weight's integers.
        """
        executed = () if self.loaded is None else self.loaded.nodes
        ran = executed_as(executed, {product: weight}).get(product, ())
        return frozenset(node.op for node in ran)

    def executes(self, op: str) -> frozenset[str]:
        """Names of the first inputs of all nodes of an operator that ONNX Runtime executes."""
        executed = () if self.loaded is None else self.loaded.nodes
        return frozenset(node.inputs[0] for node in executed if node.op == op and node.inputs)
