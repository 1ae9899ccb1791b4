"""What the GPU suite measures: models with their samples, and the forms that they are given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from onnxq import quantize
from onnxq.pipeline import RunOptions
from onnxq.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    Feeds = dict[str, NDArray[Any]]

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = ROOT / "models" / ".cache"
CALIBRATED: Final = 32


@dataclass(frozen=True)
class Case:
    """A model and what it is measured on.

    Attributes:
        name: The model's name.
        model: Its float32 file.
        calibration: Samples for ranges.
        evaluation: Samples that outputs are compared and latency is measured on, as they come.
        samples: How many of these.
        batch: A batch of what an application with much traffic sends; None to leave it out.
        batch_text: What it is.
    """

    name: str
    model: Path
    calibration: Path
    evaluation: Path
    samples: int = 16
    batch: Callable[[], Feeds] | None = None
    batch_text: str = ""

    def feeds(self) -> list[Feeds]:
        """The samples, the first of them by name."""
        if self.evaluation.suffix == ".npy":
            rows = np.load(self.evaluation, mmap_mode="r")[: self.samples]
            return [{"image": np.array(row[np.newaxis], np.float32)} for row in rows]
        found = []
        for path in sorted(self.evaluation.glob("*.npz"))[: self.samples]:
            with np.load(path, allow_pickle=False) as arrays:
                found.append({name: arrays[name] for name in arrays})
        return found


def _tokens(names: tuple[str, ...], batch: int, length: int, top: int) -> Feeds:
    draw = np.random.default_rng(0)
    shape = (batch, length)
    values: Mapping[str, NDArray[Any]] = {
        "input_ids": draw.integers(0, top, shape),
        "attention_mask": np.ones(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
    }
    return {name: values[name] for name in names}


def _images(name: str, batch: int, *shape: int) -> Feeds:
    draw = np.random.default_rng(0)
    return {name: draw.standard_normal((batch, *shape)).astype(np.float32)}


_BERT: Final = ("input_ids", "attention_mask", "token_type_ids")


def _built(name: str, **more: Any) -> Case:
    folder = CACHE / name
    return Case(name, folder / "model.onnx", folder / "calibration", folder / "evaluation", **more)


CASES: Final = {
    case.name: case
    for case in (
        _built(
            "minilm",
            batch=lambda: _tokens(_BERT, 32, 128, 30_000),
            batch_text="32 texts of 128 tokens",
        ),
        _built(
            "efficientnet_lite0",
            batch=lambda: _images("image", 32, 3, 224, 224),
            batch_text="32 images of 224 x 224",
        ),
        _built(
            "smollm2",
            samples=6,
            batch=lambda: _tokens(_BERT[:2], 1, 1, 49_000),
            batch_text="1 token",
        ),
        # Every sample has a width of its own, for which cuDNN tries all of its algorithms anew.
        _built("ppocr_v6", samples=4),
        _built("magika"),
        Case(
            "fashion_resnet",
            ROOT / "models" / "fashion_resnet" / "fashion_resnet.onnx",
            ROOT / "calibration_data" / "fashion_mnist" / "calibration.npy",
            ROOT / "calibration_data" / "fashion_mnist" / "test.npy",
        ),
    )
}


@dataclass(frozen=True)
class Form:
    """How a model is stored.

    Attributes:
        name: What it is called in results.
        scheme: The scheme; empty for the float32 model.
        target: What it is made for.
        of: The form that it is made from.
        data: Whether calibration data is given; weights of few bits are chosen without any.
    """

    name: str
    scheme: str = ""
    target: str = "cpu"
    of: str = "float32"
    data: bool = True
    more: Mapping[str, Any] = field(default_factory=dict)


FORMS: Final = {
    form.name: form
    for form in (
        Form("float32"),
        Form("float16", "float16", "cuda"),
        Form("int8-tensorrt", "int8", "tensorrt"),
        Form("fp8-tensorrt", "fp8", "tensorrt"),
        Form("int8-cpu", "int8", "cpu"),
        Form("int4", "int4", "cuda", data=False),
        Form("int4-float16", "float16", "cuda", of="int4"),
    )
}


def made(case: Case, form: Form, folder: Path) -> Path:
    """The model in that form; made once, and found again.

    Raises:
        OnnxqError: It cannot be made.
    """
    if not form.scheme:
        return case.model
    output = folder / f"{case.name}.{form.name}.onnx"
    if not output.is_file():
        source = made(case, FORMS[form.of], folder)
        recipe = Recipe.model_validate(
            {"scheme": form.scheme, "calibration": {"samples": CALIBRATED}}
        )
        evaluation = list(_few(case))
        quantize(
            source,
            case.calibration if form.data else None,
            output,
            recipe=recipe,
            target=form.target,
            options=RunOptions(eval_data=evaluation if form.data else None, timing=None),
        )
    return output


def _few(case: Case) -> Iterator[Feeds]:
    yield from case.feeds()[:4]
