"""The part behind a model, from whatever declares it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.bundle.backs import boxes, classes, embedding
from onnxq.bundle.checkpoint import of_checkpoint, of_config
from onnxq.bundle.draft import Draft
from onnxq.bundle.own_part import inputs_from, load_part
from onnxq.bundle.postprocess import BoxSteps, ClassSteps, EmbeddingSteps, load_postprocess
from onnxq.data.roles import role_of_name
from onnxq.errors import DataError
from onnxq.files import lines_of, read_regular
from onnxq.graph.edit import NameScope
from onnxq.graph.parts import free_prefix

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from onnxq.bundle.postprocess import Postprocess

    Steps = ClassSteps | EmbeddingSteps | BoxSteps

_MOST_BYTES = 16 << 20


def build_back(core: ir.Model, path: Path, geometry: ir.Value | None) -> ir.Model:
    """Write the part that makes something of a model's outputs.

    Args:
        core: The model.
        path: A file of steps, a checkpoint's folder or ``config.json``, or an ``.onnx``.
        geometry: Where pixels of the model's input lie in the image, if that is known.

    Raises:
        DataError: It cannot be read, or does not fit the model's outputs.
    """
    where = str(path)
    if path.suffix.lower() == ".onnx":
        return inputs_from(load_part(path, core, "post"), core, where)
    steps = _declared(path).chosen
    draft = Draft(free_prefix(core, "post"), NameScope(core))
    output = _output(core, steps, where)
    if isinstance(steps, ClassSteps):
        classes(draft, output, steps, _labels(steps, path), where)
    elif isinstance(steps, EmbeddingSteps):
        embedding(draft, output, _mask(core), steps, where)
    else:
        boxes(draft, output, geometry, steps, _labels(steps, path), where)
    return draft.model()


def files_beside(path: Path) -> tuple[Path, ...]:
    """The files that what declares the outputs names: that of the labels, if there is one.

    Raises:
        DataError: It cannot be read.
    """
    labels = None
    if path.suffix.lower() != ".onnx":
        labels = getattr(_declared(path).chosen, "labels", None)
    return (path.parent / labels,) if isinstance(labels, str) else ()


def _declared(path: Path) -> Postprocess:
    if path.is_dir():
        return of_checkpoint(path)
    return of_config(path) if path.suffix.lower() == ".json" else load_postprocess(path)


def _output(core: ir.Model, steps: Steps, where: str) -> ir.Value:
    """The output that the steps are for: the one named, the only one, or the only one of a rank."""
    outputs = {value.name or "": value for value in core.graph.outputs}
    if steps.output is not None:
        if steps.output in outputs:
            return outputs[steps.output]
        code, text = "bundle.output", f"the model has no output {steps.output!r}"
    else:
        flat = isinstance(steps, ClassSteps) or getattr(steps, "pool", "") == "none"
        rank = 2 if flat else 3
        fitting = [v for v in outputs.values() if v.shape is None or len(v.shape) == rank]
        for found in (list(outputs.values()), fitting):
            if len(found) == 1:
                return found[0]
        code, text = "bundle.output", "which of the model's outputs it is for is not said"
    remedy = f"Say output = one of {', '.join(map(repr, outputs))}."
    raise DataError(code, text, where=where, remedy=remedy)


def _mask(core: ir.Model) -> ir.Value | None:
    return next((v for v in core.graph.inputs if role_of_name(v.name or "") == "mask"), None)


def _labels(steps: ClassSteps | BoxSteps, path: Path) -> tuple[str, ...] | None:
    """The names of the classes; a file of them lies beside the one that names it."""
    if not isinstance(steps.labels, str):
        return steps.labels
    name = steps.labels
    file = path.parent / name
    if "/" in name or "\\" in name or name in {"", ".", ".."} or file.is_symlink():
        code, text = "bundle.labels", f"labels = {name!r} is no file beside it"
        raise DataError(code, text, where=str(path), remedy="Put the labels beside it.")
    try:
        content = read_regular(file, _MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        code, text = "bundle.labels", f"the labels cannot be read ({reason})"
        raise DataError(code, text, where=str(file), remedy="Write a label a line.") from error
    return lines_of(content)
