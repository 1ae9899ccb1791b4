"""A model with its pre- and postprocessing in one file, verified before it is handed over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.bundle.agreement import Agreement, check_agreement
from onnxq.bundle.back import build_back, files_beside
from onnxq.bundle.front import Front, build_front
from onnxq.data.declared import declared
from onnxq.errors import ModelError, UsageError
from onnxq.graph.external import external_files
from onnxq.graph.io import check_output, load, publish, save, staging, to_bytes
from onnxq.graph.parts import Parts, is_bundle, join
from onnxq.graph.structure import domains, signature, summary
from onnxq.runtime.extensions import extensions_for
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.verify.made_up_run import run_made_up
from onnxq.verify.structure import check_structure

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxq.data.declared import Declared
    from onnxq.graph.structure import ValueSummary


@dataclass(frozen=True, slots=True)
class BundleResult:
    """What ``bundle`` wrote.

    Attributes:
        path: The file.
        inputs: What it takes.
        outputs: What it gives.
        agreement: How far preprocessing in the graph agrees with that of calibration; None where
            there is none, or it is a model of the user's own.
        needs_extensions: Whether it runs only with the operators of onnxruntime-extensions.
        notes: What the user should know.
    """

    path: Path
    inputs: tuple[ValueSummary, ...]
    outputs: tuple[ValueSummary, ...]
    agreement: Agreement | None
    needs_extensions: bool
    notes: tuple[str, ...]


def bundle(
    model: str | Path,
    output: str | Path,
    *,
    pre: str | Path | None = None,
    post: str | Path | None = None,
    tokenizer: str | Path | None = None,
) -> BundleResult:
    """Put pre- and postprocessing into a model.

    Args:
        model: The model, float or quantized.
        output: The file to write.
        pre: What makes its inputs, in any form of :mod:`onnxq.data.declared`: the same file that
            calibration reads.
        post: What becomes of its outputs: see :mod:`onnxq.bundle.postprocess`.
        tokenizer: A ``tokenizer.json``, or the folder that holds it.

    Raises:
        UsageError: Nothing is to be put in, or twice the same; the operators are not installed; or
            the output is a file that the bundle is made from.
        DataError: What is declared cannot be put into a graph, or does not fit the model.
        ModelError: The model is a bundle already, or the graph does not agree with calibration.
    """
    source, output = Path(model), Path(output)
    named = [path for path in (_path(pre), _path(post), _path(tokenizer)) if path is not None]
    check_output(output, model=source, files=named)
    core = load(source)
    if is_bundle(core):
        code, text = "bundle.twice", "the model is a bundle already"
        raise ModelError(code, text, where=str(source), remedy="give the model it was made from")
    if pre is None and post is None and tokenizer is None:
        code, text = "bundle.nothing", "there is nothing to put into the model"
        raise UsageError(code, text, remedy="Give --pre, --tokenizer or --post.")
    if tokenizer is not None and pre is not None and Path(pre).suffix.lower() == ".onnx":
        code, text = "bundle.both", "a model that makes the inputs leaves nothing to a tokenizer"
        raise UsageError(code, text, where=str(tokenizer), remedy="Leave --pre or --tokenizer out.")
    found = declared(_path(pre), _path(tokenizer))
    front = build_front(core, found) if found.where else None
    return _write(source, core, front, _path(post), (output, found))


def _write(
    source: Path,
    core: ir.Model,
    front: Front | None,
    post: Path | None,
    target: tuple[Path, Declared],
) -> BundleResult:
    output, found = target
    geometry = None if front is None else front.geometry
    back = None if post is None else build_back(core, post, geometry)
    parts = Parts(None if front is None else front.model, core, back, _outputs(core, back))
    joined = join(_without_unread(parts))
    beside = () if post is None else files_beside(post)
    check_output(output, model=source, files=(*external_files(joined), *beside))
    with extensions_for(domains(joined)) as needs_extensions, staging(output) as staged:
        save(joined, staged)
        run_made_up(check_structure(staged, source), signature(joined), str(source))
        agreement = None
        if parts.front is not None:
            settings = SessionSettings(spinning=False)
            session = open_session(to_bytes(parts.front), settings)
            agreement = check_agreement(session, found, signature(core))
        publish(staged, output)
    written = summary(joined)
    return BundleResult(
        path=output,
        inputs=written.inputs,
        outputs=written.outputs,
        agreement=agreement,
        needs_extensions=needs_extensions,
        notes=() if front is None else front.notes,
    )


def _outputs(core: ir.Model, back: ir.Model | None) -> tuple[str, ...]:
    """The outputs of the part behind, then those of the model that it does not use."""
    own = [value.name or "" for value in core.graph.outputs]
    if back is None:
        return tuple(own)
    used = {value.name for value in back.graph.inputs}
    return (
        *(value.name or "" for value in back.graph.outputs),
        *(name for name in own if name not in used),
    )


def _without_unread(parts: Parts) -> Parts:
    """Without what the part in front makes for one behind that does not read it."""
    if parts.front is None:
        return parts
    read = {value.name for value in parts.core.graph.inputs}
    read |= set() if parts.back is None else {value.name for value in parts.back.graph.inputs}
    kept = [value for value in parts.front.graph.outputs if value.name in read]
    parts.front.graph.outputs.clear()
    parts.front.graph.outputs.extend(kept)
    return parts


def _path(named: str | Path | None) -> Path | None:
    return None if named is None else Path(named)
