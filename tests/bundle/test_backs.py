"""What becomes of outputs, against numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.bundle.backs import boxes, classes, embedding
from onnxq.bundle.postprocess import BoxSteps, ClassSteps, EmbeddingSteps
from onnxq.errors import DataError
from tests.bundle.parts import draft, opened
from tests.small_models import normal

if TYPE_CHECKING:
    from numpy.typing import NDArray


def value(name: str, *shape: int | str, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def run(part: Any, **feeds: NDArray[Any]) -> dict[str, NDArray[Any]]:
    session = opened(part.model())
    found = session.run(feeds)
    return {spec.name: array for spec, array in zip(session.outputs, found, strict=True)}


@pytest.mark.parametrize("scores", ["softmax", "sigmoid", "none"])
def test_classes(scores: Any) -> None:
    part, logits = draft("post/"), normal(0, 3, 7)
    labels = [f"class {n}" for n in range(7)]
    classes(part, value("logits", "n", 7), ClassSteps(top=4, scores=scores), labels, "p")
    found = run(part, logits=logits)
    order = np.argsort(-logits, axis=1)[:, :4]
    np.testing.assert_array_equal(found["classes"], order)
    assert found["labels"].tolist() == [[labels[n] for n in row] for row in order]
    wide = logits.astype(np.float64)
    expected = {
        "softmax": np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True),
        "sigmoid": 1 / (1 + np.exp(-wide)),
        "none": wide,
    }[scores]
    np.testing.assert_allclose(found["scores"], np.take_along_axis(expected, order, 1), rtol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "first", "max", "none"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_embedding(pool: Any, normalize: bool, masked: bool) -> None:
    part = draft("post/")
    flat = pool == "none"
    states = normal(1, *((2, 6) if flat else (2, 5, 6)))
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int64)
    shape = ("n", 6) if flat else ("n", "tokens", 6)
    given = value("mask", "n", "tokens", dtype=ir.DataType.INT64) if masked else None
    embedding(
        part, value("states", *shape), given, EmbeddingSteps(pool=pool, normalize=normalize), "p"
    )
    feeds: dict[str, NDArray[Any]] = {"states": states}
    if masked and pool in {"mean", "max"}:
        feeds["mask"] = mask
    found = run(part, **feeds)["sentence_embedding"]
    kept = [np.ones(5, bool)] * 2 if not masked else mask.astype(bool)
    rows = {
        "mean": lambda: [s[k].mean(axis=0) for s, k in zip(states, kept, strict=True)],
        "max": lambda: [s[k].max(axis=0) for s, k in zip(states, kept, strict=True)],
        "first": lambda: list(states[:, 0]),
        "none": lambda: list(states),
    }[pool]()
    expected = np.array(rows, np.float64)
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def suppressed(
    corners: NDArray[Any], scores: NDArray[Any], least: float, most_overlap: float
) -> list[tuple[float, int, int]]:
    """Score, class and box of what remains, the best first; greedy, class by class."""
    kept = []
    for number, row in enumerate(scores):
        chosen: list[int] = []
        for box in np.argsort(-row, kind="stable"):
            if row[box] > least and all(
                overlap(corners[box], corners[c]) <= most_overlap for c in chosen
            ):
                chosen.append(int(box))
        kept += [(float(row[box]), number, box) for box in chosen]
    return sorted(kept, reverse=True)


def overlap(a: NDArray[Any], b: NDArray[Any]) -> float:
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    both = float(sides.prod())
    return both / float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both)


@pytest.mark.parametrize("channels", ["first", "last"])
@pytest.mark.parametrize("objectness", [True, False])
@pytest.mark.parametrize("form", ["cxcywh", "xyxy"])
def test_boxes(channels: Any, objectness: bool, form: Any) -> None:
    chance = np.random.default_rng(3)
    middles, sizes = chance.uniform(20, 80, (2, 40)), chance.uniform(8, 40, (2, 40))
    corners = np.concatenate([middles - sizes / 2, middles + sizes / 2]).astype(np.float32)
    rows = corners if form == "xyxy" else np.concatenate([middles, sizes]).astype(np.float32)
    scores = chance.uniform(0, 1, (3, 40)).astype(np.float32)
    there = chance.uniform(0, 1, (1, 40)).astype(np.float32)
    numbers = np.concatenate([rows, there, scores] if objectness else [rows, scores])[np.newaxis]
    shape: tuple[int | str, ...] = (1, len(numbers[0]), "boxes")
    if channels == "last":
        numbers, shape = numbers.transpose(0, 2, 1), (1, "boxes", len(numbers[0]))
    part = draft("post/")
    steps = BoxSteps(format=form, channels=channels, objectness=objectness, min_score=0.3)
    labels = ["cat", "dog", "cow"]
    boxes(part, value("found", *shape), value("geometry", 4), steps, labels, "p")
    geometry = np.array([-3, -5, 2, 4], np.float32)
    found = run(part, found=np.ascontiguousarray(numbers), geometry=geometry)
    weighed = scores * there if objectness else scores
    expected = suppressed(corners.T, weighed, 0.3, 0.45)
    assert len(expected) > 10
    np.testing.assert_allclose(found["scores"], [row[0] for row in expected], rtol=1e-6)
    assert found["classes"].tolist() == [row[1] for row in expected]
    assert found["labels"].tolist() == [labels[row[1]] for row in expected]
    in_image = (corners.T[[row[2] for row in expected]] + [-3, -5, -3, -5]) * [2, 4, 2, 4]
    np.testing.assert_allclose(found["boxes"], in_image, rtol=1e-5, atol=1e-4)


def test_no_box_is_no_error() -> None:
    part = draft("post/")
    boxes(part, value("found", 1, 6, "boxes"), None, BoxSteps(), None, "p")
    found = run(part, found=np.zeros((1, 6, 9), np.float32))
    assert found["boxes"].shape == (0, 4)
    assert found["classes"].shape == found["scores"].shape == (0,)


def test_what_does_not_fit_is_refused() -> None:
    cases: list[tuple[Any, str]] = [
        (lambda d: classes(d, value("y", "n", 7), ClassSteps(), ["a"], "p"), "1 labels"),
        (lambda d: classes(d, value("y", "n", 7), ClassSteps(top=8), None, "p"), "top = 8"),
        (lambda d: classes(d, value("y", "n", 7, 2), ClassSteps(), None, "p"), "3 axes"),
        (lambda d: embedding(d, value("y", "n", 7), None, EmbeddingSteps(), "p"), "2 axes"),
        (lambda d: boxes(d, value("y", 1, 4, 9), None, BoxSteps(), None, "p"), "4 numbers"),
        (lambda d: boxes(d, value("y", 1, 6, 9), None, BoxSteps(), ["a"], "p"), "1 labels"),
    ]
    for make, says in cases:
        with pytest.raises(DataError, match=says) as caught:
            make(draft("post/"))
        assert caught.value.where == "p"
        assert caught.value.remedy
