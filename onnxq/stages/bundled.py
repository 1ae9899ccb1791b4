"""Bundles: what is quantized is the model between their pre- and postprocessing.

A bundle is taken apart at the boundary that it records. Its core becomes a file of its own, which
goes the way of every model; its front is the preprocessing model of the data, so that calibration
sees what deployment will; then the parts are joined again, and the whole is loaded and run once.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxq.data import DataSource, Reading
from onnxq.errors import OnnxqError, UsageError
from onnxq.graph.edit import all_nodes
from onnxq.graph.external import external_files
from onnxq.graph.io import check_output, load, publish, save, staging
from onnxq.graph.parts import Parts, is_bundle, join, split
from onnxq.graph.sites import find_sites
from onnxq.graph.structure import domains, signature
from onnxq.runtime.extensions import require_extensions
from onnxq.scratch import Scratch
from onnxq.verify.made_up_run import run_made_up
from onnxq.verify.structure import check_structure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx_ir as ir

    from onnxq.data import DataLike
    from onnxq.graph.sites import Site
    from onnxq.runtime.session import Optimization

_FRONT = "preprocessing.onnx"


@dataclass(frozen=True, slots=True)
class BundlePart:
    """What a bundle is made of, in its order.

    Attributes:
        name: ``preprocessing``, ``model`` or ``postprocessing``.
        inputs: The names of what it reads.
        outputs: The names of what it makes.
        nodes: How many nodes it has.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A model, and the part of it that is quantized.

    Attributes:
        source: The file as given.
        core: The file of what is quantized; ``source`` itself where that is no bundle.
        parts: What a bundle is made of; None of any other model.
        front: The file of what makes the core's inputs; None where nothing does.
    """

    source: Path
    core: Path
    parts: Parts | None = None
    front: Path | None = None

    @property
    def left_alone(self) -> tuple[tuple[Site, str], ...]:
        """The sites outside of the core, each with the reason."""
        if self.parts is None:
            return ()
        return tuple(
            (site, f"part of the {name}")
            for name, part in self.parts.others
            for site in find_sites(part)
        )

    @property
    def described(self) -> tuple[BundlePart, ...]:
        """The parts of a bundle in their order; empty for a plain model."""
        if self.parts is None:
            return ()
        named = (
            ("preprocessing", self.parts.front),
            ("model", self.parts.core),
            ("postprocessing", self.parts.back),
        )
        return tuple(_described(name, part) for name, part in named if part is not None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the numbers of a bundle are of."""
        if self.parts is None:
            return ()
        names = " and ".join(name for name, _ in self.parts.others)
        return (f"numbers and sites are of the model without its {names}, which stays as it is",)

    def reading(self, data: DataLike | None) -> DataLike | None:
        """Data as the core takes it: images and texts go through the front.

        Raises:
            UsageError: Another preprocessing is named.
        """
        if data is None or self.front is None or isinstance(data, DataSource):
            return data
        found = data if isinstance(data, Reading) else Reading(data)
        if found.preprocess is not None or found.tokenizer is not None:
            code, text = "usage.preprocess", "the model has its preprocessing inside"
            remedy = "Leave --preprocess and --tokenizer out."
            raise UsageError(code, text, where=str(self.source), remedy=remedy)
        self.require_operators()
        return replace(found, preprocess=self.front)

    def require_operators(self) -> None:
        """Refuse before the work where its pre- and postprocessing could not be run.

        Raises:
            UsageError: It needs a library that the user does not name.
        """
        if self.parts is not None:
            parts = [domains(part) for _, part in self.parts.others]
            require_extensions(frozenset().union(*parts), str(self.source))

    def publish(self, staged: Path, output: Path, optimization: Optimization) -> None:
        """Put a result in place; of a bundle with all its parts, loaded and run before.

        Args:
            staged: What the core became.
            output: Where the whole belongs.
            optimization: How far the whole is optimized when it is run.

        Raises:
            InternalError: The whole is invalid or does not load.
            ModelError: It does not run.
        """
        if self.parts is None:
            publish(staged, output)
            return
        whole = join(replace(self.parts, core=load(staged)))
        with staging(output) as place:
            save(whole, place)
            session = check_structure(place, self.source, optimization=optimization)
            run_made_up(session, signature(whole), str(self.source))
            publish(place, output)


def _described(name: str, part: ir.Model) -> BundlePart:
    return BundlePart(
        name=name,
        inputs=tuple(v.name or "" for v in part.graph.inputs if not v.is_initializer()),
        outputs=tuple(v.name or "" for v in part.graph.outputs),
        nodes=sum(1 for _ in all_nodes(part)),
    )


@contextmanager
def opened(model: Path, output: Path | None = None) -> Iterator[Opened]:
    """Take a model apart, if it is a bundle; its parts are gone afterwards.

    Args:
        model: The file.
        output: What will be written, which may not be one of the model's own files. Where it is
            given, the parts must be such as can be run.

    Raises:
        ModelError: It cannot be read, or what it records is damaged.
        UsageError: It needs a library that the user does not name.
    """
    loaded = load(model)
    if not is_bundle(loaded):
        yield Opened(model, model)
        return
    if output is not None:
        check_output(output, model=model, files=external_files(loaded))
    parts = split(loaded, str(model))
    with Scratch() as folder:
        core, front = folder / model.name, None
        save(parts.core, core)
        if parts.front is not None:
            (folder / "front").mkdir()
            front = folder / "front" / _FRONT
            save(parts.front, front)
        found = Opened(model, core, parts, front)
        if output is not None:
            found.require_operators()
        try:
            yield found
        except OnnxqError as error:
            # The user knows the bundle, not its parts in a folder that is gone.
            for path in (core, front):
                if path is not None:
                    error.where = error.where.replace(str(path), str(model))
                    error.message = error.message.replace(str(path), str(model))
                    error.remedy = error.remedy.replace(str(path), str(model))
            raise
