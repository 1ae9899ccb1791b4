"""One side of a search for what differs: a model, where it runs, and its pieces that run alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxq.errors import ModelError
from onnxq.graph.io import load, save, to_bytes, to_bytes_beside, weight_bytes
from onnxq.graph.segment import Segments
from onnxq.runtime.kernels import executed
from onnxq.runtime.session import SessionSettings, open_session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.graph.segment import Segment

Values = dict[str, "NDArray[Any]"]

_IN_MEMORY = 1 << 26
"""Bytes of weights up to which every piece holds its own."""
_READABLE = 1 << 28
"""Bytes of weights up to which a piece is loaded again to read what it runs as."""


@dataclass(frozen=True, slots=True)
class Side:
    """A model and how it is run.

    Attributes:
        model: The model's file, as given.
        settings: Provider, optimization level and the like.
    """

    model: Path
    settings: SessionSettings = field(default_factory=lambda: SessionSettings(spinning=False))

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.model.name} on {self.settings.provider}, optimization {self.level}"

    @property
    def level(self) -> str:
        """The optimization level."""
        return self.settings.optimization


class SideGraph:
    """The graph of a side; holds no session and no activations between calls."""

    def __init__(self, side: Side, folder: Path) -> None:
        """Load the model.

        Args:
            side: What to load.
            folder: An empty folder; large weights are put there once, as a file that the pieces
                name instead of holding their own.

        Raises:
            ModelError: It cannot be read.
        """
        self.side = side
        self._settings = side.settings
        model = load(side.model)
        if weight_bytes(model) > _IN_MEMORY:
            save(model, folder / "model.onnx", external_threshold=0)
            model = load(folder / "model.onnx")
            self._settings = replace(side.settings, weights_folder=folder)
        self.segments = Segments(model)

    def run(self, segment: Segment, values: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run a piece alone, on this side's provider and level.

        Raises:
            ModelError: It does not load or run; ``where`` names its last node.
        """
        for value in segment.model.graph.inputs:
            if value.type is None and value.name:
                value.type = ir.TensorType(ir.DataType.from_numpy(values[value.name].dtype))
        try:
            # The user's own files of weights cannot be named in what is loaded from memory.
            aside = self._settings.weights_folder is not None
            piece = (to_bytes_beside if aside else to_bytes)(segment.model)
            session = open_session(piece, self._settings)
            return session.run({name: values[name] for name in segment.inputs})
        except ModelError as error:
            where = f"{self.side.label}, {described(segment.nodes[-1])}"
            raise ModelError(error.code, error.message, where=where, remedy=error.remedy) from error

    def fetch(self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> Values:
        """The values of these names when the whole model runs; what they do not need is left out.

        Raises:
            ModelError: As :meth:`run`.
        """
        made = [name for name in names if name in self.segments.varying]
        found = {name: feeds[name] for name in names if name not in self.segments.varying}
        if made:
            piece = self.segments.cut(made, frozenset())
            found.update(zip(made, self.run(piece, feeds), strict=True))
        return found

    def runs_as(self, piece: Segment) -> tuple[str, ...]:
        """The operators that a piece runs as, in order; empty where that cannot be read."""
        if weight_bytes(piece.model) > _READABLE:
            return ()
        settings = self.side.settings
        try:
            nodes = executed(to_bytes(piece.model), settings.provider, settings.optimization)
        except ModelError:
            return ()
        return tuple(node.op for node in nodes)


def described(node: ir.Node) -> str:
    """A node's name, or where it has none, what it makes."""
    if node.name:
        return f"node {node.name!r} ({node.op_type})"
    return f"the {node.op_type} that makes {node.outputs[0].name!r}"
