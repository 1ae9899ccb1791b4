"""Models that end the process which loads them: refused, and nobody else waits to learn it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from onnxq.errors import ModelError
from onnxq.graph.io import load
from onnxq.pipeline import RunOptions, calibrate, inspect, quantize
from onnxq.recipe import Recipe
from onnxq.runtime.apart import Loaded, load_apart
from onnxq.verify import survival
from onnxq.verify.survival import check_survives
from tests.lint.cases import CASES
from tests.lint.models import write
from tests.small_models import normal
from tests.small_models import write as write_text

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

HALF = [{"x": np.ones((5, 2, 8), np.float16)}]


@pytest.fixture
def dying(tmp_path: Path) -> Path:
    """A model that ends the process which loads it."""
    path = write(CASES["transpose-and-cast"].broken, tmp_path / "model.onnx")
    if not load_apart(path).died:
        pytest.skip("this ONNX Runtime no longer dies of it")
    return path


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_what_ends_the_process_is_refused_and_nothing_is_written(dying: Path, target: str) -> None:
    output, options = dying.parent / "out", RunOptions(timing=None)
    for run in (
        lambda: quantize(dying, None, output, target=target, options=options),
        lambda: quantize(dying, HALF, output, target=target, options=options),
        lambda: calibrate(dying, HALF, output, target=target),
        lambda: inspect(dying, HALF, target=target),
    ):
        with pytest.raises(ModelError, match="ends the process") as caught:
            run()
        assert (caught.value.code, caught.value.where) == ("model.dies", str(dying))
        assert caught.value.remedy == f"`onnxq lint {dying}` says what is behind it"
        assert [path.name for path in dying.parent.iterdir()] == ["model.onnx"]
    # What only looks at the graph says what it sees.
    assert inspect(dying, target=target).sites


@pytest.mark.parametrize("data", [None, [{"x": np.ones((2, 64), np.float16)}] * 5])
def test_a_result_that_would_end_the_process_is_not_written(
    data: list[dict[str, NDArray[np.float16]]] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "g (float16[2, 64] x) => (float[2, 32] y) { h = Cast<to = 1>(x) y = MatMul(h, w) }"
    path, output = write_text(tmp_path / "m.onnx", text, w=normal(0, 64, 32)), tmp_path / "out.onnx"
    recipe = Recipe.model_validate({"version": 1, "scheme": "int8-weights"})
    fine, died = Loaded(), Loaded(refusal="it ends the process (SIGSEGV)", died=True)
    monkeypatch.setattr(survival, "load_apart", lambda model: fine if model == path else died)
    with pytest.raises(ModelError, match="not written: it ends the process") as caught:
        quantize(path, data, output, recipe=recipe, options=RunOptions(timing=None))
    assert (caught.value.code, caught.value.where) == ("model.dies", str(output))
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]


def test_only_what_has_been_seen_to_is_tried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []

    def note(path: Path) -> Loaded:
        tried.append(path)
        return Loaded()

    monkeypatch.setattr(survival, "load_apart", note)
    texts = {
        "plain": "g (float[2, 8] x) => (float[2, 8] y) { y = MatMul(x, w) }",
        "half": "g (float16[2, 8] x) => (float[2, 8] y) { h = Cast<to = 1>(x) y = MatMul(h, w) }",
        # No type is declared of what is between.
        "cast": "g (float[2, 8] x) => (float[2, 8] y) "
        "{ h = Cast<to = 10>(x) v = Cast<to = 10>(w) m = MatMul(h, v) y = Cast<to = 1>(m) }",
        "constant": "g (float[2, 8] x) => (float[2, 8] y) "
        "{ c = Constant<value = float16[1] {1}>() d = Cast<to = 1>(c) y = MatMul(d, w) }",
        "transposed": "g (double[2, 5, 8] x) => (float[5, 2, 8] y) "
        "{ t = Transpose<perm = [1, 0, 2]>(x) c = Cast<to = 1>(t) y = MatMul(c, w) }",
        "other axes": "g (double[5, 2, 8] x) => (float[5, 8, 8] y) "
        "{ t = Transpose<perm = [0, 2, 1]>(x) c = Cast<to = 1>(t) y = MatMul(c, w) }",
        "integers": "g (float[2, 8] x) => (float[2, 8] y) "
        "{ h = Cast<to = 7>(x) g = Cast<to = 1>(h) y = MatMul(g, w) }",
    }
    paths = [write_text(tmp_path / name, text, w=normal(0, 8, 8)) for name, text in texts.items()]
    check_survives([(path, load(path)) for path in paths])
    assert [path.name for path in tried] == ["half", "cast", "constant", "transposed"]
