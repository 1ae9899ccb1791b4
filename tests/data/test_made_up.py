"""A decoder with a cache is run on made-up inputs too: its past is empty."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.data.made_up import made_up
from onnxq.graph.io import load
from onnxq.graph.structure import signature
from onnxq.runtime.session import open_session
from tests.small_decoder import GROUPS, HEAD, save_decoder

if TYPE_CHECKING:
    from pathlib import Path


def test_the_past_is_empty_and_the_model_runs(tmp_path: Path) -> None:
    model = save_decoder(tmp_path / "m.onnx")
    sample = next(iter(made_up(signature(load(model)))))
    assert sample.feeds["past_key_values.0.key"].shape == (1, GROUPS, 0, HEAD)
    assert sample.feeds["attention_mask"].shape == sample.feeds["input_ids"].shape
    open_session(model).run(sample.feeds)
