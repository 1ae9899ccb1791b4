"""What is printed of the shapes that TensorRT was told of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.cli.console import line, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from onnxq.stages.shape_profile import ShapeProfile


def profile_views(found: ShapeProfile) -> Iterator[RenderableType]:
    """The range of each input; nothing where no profile was derived."""
    if not found.inputs:
        return
    title = f"TensorRT's profile, from {found.samples} samples"
    shown = table(title, ["input"], ["least", "built for", "greatest"])
    for entry in found.inputs:
        shapes = (entry.least, entry.typical, entry.greatest)
        shown.add_row(line(entry.name), *("x".join(map(str, shape)) for shape in shapes))
    yield shown
    yield ""
