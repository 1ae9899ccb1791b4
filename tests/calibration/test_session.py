"""Sessions of models in memory, small ones and such as go by a folder."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from onnxq.calibration import session
from onnxq.calibration.session import open_model
from tests.small_models import normal, normalized

if TYPE_CHECKING:
    from pathlib import Path

W = normal(0, 8, 4)
X = normal(1, 3, 8)
GRAPH = "g (float[N, 8] x) => (float[N, 4] y) { y = MatMul(x, w) }"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_small_model_touches_no_disk(folder: Path) -> None:
    with open_model(normalized(GRAPH, w=W)) as opened:
        assert list(folder.iterdir()) == []
        np.testing.assert_allclose(opened.run({"x": X})[0], X @ W, rtol=1e-5)


def test_a_large_model_goes_by_a_folder_that_is_gone_afterwards(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_IN_MEMORY", W.nbytes)
    with open_model(normalized(GRAPH, w=W)) as opened:
        assert len(list(folder.iterdir())) == 1
        np.testing.assert_allclose(opened.run({"x": X})[0], X @ W, rtol=1e-5)
    assert list(folder.iterdir()) == []


def test_a_failure_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_IN_MEMORY", 0)
    with pytest.raises(KeyboardInterrupt), open_model(normalized(GRAPH, w=W)):
        raise KeyboardInterrupt
    assert list(folder.iterdir()) == []


def test_the_model_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_IN_MEMORY", 0)
    model = normalized(GRAPH, w=W)
    with open_model(model), open_model(model) as again:
        np.testing.assert_allclose(again.run({"x": X})[0], X @ W, rtol=1e-5)
    value = model.graph.initializers["w"].const_value
    assert value is not None
    np.testing.assert_array_equal(value.numpy(), W)
