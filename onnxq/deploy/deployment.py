"""The forms in which a model is deployed: what each folder holds, and what was tried of it.

==========  ============================================================================
genai       ``genai_config.json``, tokenizer, ``model.onnx``: a decoder for onnxruntime-genai
script      ``model.onnx`` and a short program that runs it with onnxruntime and numpy
ort         ``model.ort`` and the operators that it needs, for phones and browsers
optimized   ``model.onnx`` as ONNX Runtime optimizes it for this processor, which loads faster
==========  ============================================================================

Each has a ``run.py``. A folder is written whole or not at all, and only after what lies in it was
run and compared with the model that was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from onnxq.data.image_input import encoded_input
from onnxq.deploy import genai, offline
from onnxq.deploy.attention import UnknownAttentionError, decline
from onnxq.deploy.cache import cache_of
from onnxq.deploy.checkpoint import read_decoder, tokenizer_files
from onnxq.deploy.example import example_inputs
from onnxq.deploy.fuse import fused
from onnxq.deploy.rehearsal import rehearse, with_float_activations
from onnxq.deploy.scripts import EXAMPLE, chat_script, run_script, text_of
from onnxq.errors import BoundMissedError, OnnxqError, UsageError
from onnxq.graph.io import load, save
from onnxq.graph.new_folder import check_folder_free, new_folder
from onnxq.graph.structure import signature, summary
from onnxq.runtime.session import SessionSettings, open_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.deploy.cache import CacheGraph
    from onnxq.deploy.checkpoint import Decoder

Form = Literal["genai", "script", "ort", "optimized"]

SCRIPT: Final = "run.py"
_CLOSE: Final = 1e-3
"""Of the largest output: what reordered sums in float32 may come to."""
_EXTENSIONS: Final = frozenset({"ai.onnx.contrib", "com.microsoft.extensions"})


@dataclass(frozen=True, slots=True)
class Deployment:
    """What was written.

    Attributes:
        folder: The folder.
        form: Its form.
        files: The names of its files.
        difference: The greatest difference to the model that was given, as a part of its greatest
            output, on made-up inputs.
        notes: What was done to the model, and what was not and why.
        command: How to run it.
    """

    folder: Path
    form: Form
    files: tuple[str, ...]
    difference: float
    notes: tuple[str, ...]
    command: str


def deploy(
    model: str | Path, output: str | Path, form: Form, *, checkpoint: str | Path | None = None
) -> Deployment:
    """Write a folder that an application runs a model from.

    Args:
        model: The model, quantized or not.
        output: The folder to write; there is none of this name yet, or an empty one.
        form: What for.
        checkpoint: For ``genai``, the Hugging Face folder that the model was exported from. Its
            configuration and tokenizer are read, nothing in it is executed.

    Raises:
        UsageError: The checkpoint is missing, lacks a file, or belongs to another model; the
            folder cannot be written.
        ModelError: The model is no decoder with a cache (``genai``), has external data (``ort``),
            or does not load.
        BoundMissedError: What would be deployed gives other outputs than the model.
    """
    source, folder = Path(model), Path(output)
    check_folder_free(folder)
    if (form == "genai") is not (checkpoint is not None):
        code, text = "usage.checkpoint", "the checkpoint and the form genai need each other"
        remedy = "onnxq deploy MODEL --as genai --checkpoint FOLDER -o OUT"
        raise UsageError(code, text, where="--checkpoint", remedy=remedy)
    with new_folder(folder) as staged:
        if checkpoint is not None:
            difference, notes = _genai(source, staged, Path(checkpoint))
            taken = ' "PROMPT"'
        else:
            loaded = load(source)
            taken = _argument(loaded)
            if form == "script":
                difference, notes = _script(source, loaded, staged)
            else:
                difference, notes = _offline(source, loaded, staged, form)
        files = tuple(sorted(path.name for path in staged.iterdir()))
    return Deployment(folder, form, files, difference, notes, f"python {folder / SCRIPT}{taken}")


def _genai(source: Path, staged: Path, checkpoint: Path) -> tuple[float, tuple[str, ...]]:
    decoder = read_decoder(checkpoint)
    files = tokenizer_files(checkpoint)
    model = load(source)
    cache = cache_of(model, str(source))
    genai.check_agreement(decoder, cache, source.name, str(checkpoint / "config.json"))
    made, difference, note = _quickest(model, decoder, cache, staged)
    shared = any(node.op_type == "GroupQueryAttention" for node in made.graph)
    save(made, staged / genai.MODEL)
    described = cache_of(made, genai.MODEL)
    genai.write_text(staged, genai.configuration(decoder, described, shared=shared), files)
    (staged / SCRIPT).write_text(chat_script(), encoding="utf-8")
    rehearse(staged / genai.MODEL, described)
    genai.check_folder(staged)
    return difference, (note,)


def _quickest(
    model: ir.Model, decoder: Decoder, cache: CacheGraph, staged: Path
) -> tuple[ir.Model, float, str]:
    """The model with its attention fused, if that computes the same; else as it is."""
    known = cache.heads is not None and cache.head_size is not None and cache.vocabulary is not None
    try:
        if not known:
            decline("its shapes are not known")
        candidate = fused(model, decoder, cache)
        logits = []
        for number, each in enumerate((model, candidate)):
            path = staged / f"tried_{number}.onnx"
            save(with_float_activations(each), path)
            try:
                logits.append(rehearse(path, cache_of(each, path.name)))
            finally:
                for file in staged.glob(f"{path.name}*"):
                    file.unlink()
        difference = _difference(logits[:1], logits[1:])
        if not difference <= _CLOSE:
            decline(f"fused, it differs by {difference:.1g}")
    except UnknownAttentionError as error:
        return model, 0.0, f"attention is not fused: {error}"
    except OnnxqError as error:
        return model, 0.0, f"attention is not fused: {error.message}"
    return candidate, difference, "attention is fused to GroupQueryAttention, with a shared cache"


def _argument(model: ir.Model) -> str:
    """What the program is given on its command line."""
    if encoded_input(signature(model)) is not None:
        return " IMAGE"
    return ' "TEXT"' if text_of(example_inputs(model)) else ""


def _script(source: Path, model: ir.Model, staged: Path) -> tuple[float, tuple[str, ...]]:
    target = staged / genai.MODEL
    save(model, target)
    return _with_script(model, source, target), ()


def _offline(
    source: Path, model: ir.Model, staged: Path, form: Form
) -> tuple[float, tuple[str, ...]]:
    if form == "ort":
        target = staged / "model.ort"
        note = offline.write_ort(source, model, target)
    else:
        target = staged / genai.MODEL
        note = offline.write_optimized(source, model, target)
    return _with_script(model, source, target), (note,)


def _with_script(model: ir.Model, source: Path, target: Path) -> float:
    """Write the program, and compare what it runs with the source."""
    inputs = example_inputs(model)
    extensions = any(domain in _EXTENSIONS for domain in model.opset_imports)
    image = encoded_input(signature(model))
    name = "" if image is None else image.name
    if name:
        target.with_name(EXAMPLE).write_bytes(inputs[name].tobytes())
    text = run_script(target.name, inputs, extensions=extensions, image=name)
    target.with_name(SCRIPT).write_text(text, encoding="utf-8")
    names = [value.name for value in summary(model).outputs]
    settings = SessionSettings(spinning=False)
    expected = open_session(source, settings).run(inputs, names)
    found = open_session(target, settings).run(inputs, names)
    difference = _difference(expected, found)
    if not difference <= _CLOSE:
        code, text = "deploy.differs", f"its outputs differ by {difference:.1g} of their greatest"
        remedy = "deploy it --as script, which runs the model as it is"
        raise BoundMissedError(code, text, where=target.name, remedy=remedy)
    return difference


def _difference(
    expected: Sequence[NDArray[np.generic]], found: Sequence[NDArray[np.generic]]
) -> float:
    """The greatest difference as a part of the greatest output; infinite where kinds differ."""
    worst = 0.0
    for right, other in zip(expected, found, strict=True):
        if right.shape != other.shape or right.dtype != other.dtype:
            return float("inf")
        if right.dtype.kind != "f":
            worst = max(worst, 0.0 if np.array_equal(right, other) else float("inf"))
            continue
        a, b = right.astype(np.float64), other.astype(np.float64)
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return float("inf")
        finite = np.isfinite(a)
        largest = float(np.abs(a[finite]).max(initial=0.0))
        off = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
        worst = max(worst, off / largest if largest else off)
    return worst
