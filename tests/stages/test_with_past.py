"""Windows behind their past: the logits must be those of the whole window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from scipy.special import log_softmax

from onnxq.data import Reading, open_data
from onnxq.data.roles import present_of
from onnxq.errors import DataError
from onnxq.graph.io import load
from onnxq.graph.structure import signature
from onnxq.pipeline import RunOptions, calibrate, inspect, quantize
from onnxq.recipe import Recipe
from onnxq.runtime.session import open_session
from onnxq.runtime.timing import TimingSettings
from onnxq.stages.with_past import timed_feeds, with_past
from tests.small_decoder import GROUPS, HEAD, save_decoder
from tests.word_tokenizer import save_tokenizer, some_text

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.data import DataSource


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_decoder(tmp_path / "decoder.onnx")


def reading(folder: Path, past: int, window: int = 20, words: int = 400) -> Reading:
    text = folder / "text.txt"
    text.write_text(some_text(words))
    steps = folder / f"past{past}.toml"
    steps.write_text(f"version = 1\n[text]\nwindow = {window}\npast = {past}\n")
    return Reading(text, steps, save_tokenizer(folder))


def windows(model: Path, past: int, window: int = 20) -> DataSource:
    source = open_data(reading(model.parent, past, window), signature(load(model)))
    return with_past(source, model, "cpu")


@pytest.mark.parametrize("past", [1, 7, 19])
def test_logits_behind_a_past_are_those_of_the_window(model: Path, past: int) -> None:
    session = open_session(model)
    whole, behind = windows(model, 0), windows(model, past)
    assert len(whole) == len(behind) == 20
    for one, other in zip(whole, behind, strict=True):
        assert other.feeds["past_key_values.0.key"].shape == (1, GROUPS, past, HEAD)
        assert np.any(other.feeds["past_key_values.0.value"] != 0)
        assert other.feeds["attention_mask"].shape == (1, 20)
        expected, found = session.run(one.feeds)[0], session.run(other.feeds)[0]
        # float32, and only the order of sums may differ.
        np.testing.assert_allclose(found, expected[:, past:], rtol=1e-5, atol=1e-5)


def test_samples_come_again_the_same(model: Path) -> None:
    source = windows(model, 5)
    first, again = (list(each) for each in (source, source))
    picked = list(source.subset([3, 1]))
    for one, other in [
        *zip(first, again, strict=True),
        (first[3], picked[0]),
        (first[1], picked[1]),
    ]:
        assert one.name == other.name
        for name, array in one.feeds.items():
            np.testing.assert_array_equal(array, other.feeds[name])
    assert source.subset([3, 1]).positions == (3, 1)
    assert any("first 5 tokens" in note and "decoder.onnx" in note for note in source.notes)
    assert source.digest() != windows(model, 6).digest()


def test_without_a_past_the_source_stays_itself(model: Path) -> None:
    source = open_data(reading(model.parent, 0), signature(load(model)))
    assert with_past(source, model, "cpu") is source
    (sample, *_) = source
    assert sample.feeds["past_key_values.0.key"].shape == (1, GROUPS, 0, HEAD)


def test_a_branch_without_cache_is_taken_first(tmp_path: Path, model: Path) -> None:
    """As models do that hold the graphs of both runs."""
    proto = onnx.load(model)
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info("use_cache_branch", onnx.TensorProto.BOOL, [1])
    )
    onnx.save(proto, model)
    source = open_data(reading(tmp_path, 4), signature(load(model)))
    assert {bool(sample.feeds["use_cache_branch"][0]) for sample in source} == {False}
    behind = with_past(source, model, "cpu")
    assert {bool(sample.feeds["use_cache_branch"][0]) for sample in behind} == {True}


def test_a_decoder_is_timed_on_the_last_token_of_its_windows(model: Path) -> None:
    source = windows(model, 0)
    feeds, past = timed_feeds(source, model, "cpu")
    assert past == 19
    assert 0 < len(feeds) < len(source)
    session = open_session(model)
    for sample, feed in zip(source, feeds, strict=False):
        assert feed["input_ids"].shape == (1, 1)
        assert feed["past_key_values.0.key"].shape == (1, GROUPS, 19, HEAD)
        expected = session.run(sample.feeds)[0][:, -1:]
        np.testing.assert_allclose(session.run(feed)[0], expected, rtol=1e-5, atol=1e-5)


def test_others_are_timed_on_whole_samples(tmp_path: Path, model: Path) -> None:
    behind = windows(model, 7)
    feeds, past = timed_feeds(behind, model, "cpu")
    assert past == 0
    assert feeds[0]["input_ids"].shape == (1, 13)
    plain = save_decoder(tmp_path / "plain.onnx", cache=False)
    source = open_data(reading(tmp_path, 0), signature(load(plain)))
    feeds, past = timed_feeds(source, plain, "cpu")
    assert past == 0
    assert feeds[0]["input_ids"].shape == (1, 20)
    proto = onnx.load(model)
    del proto.graph.output[1:]
    onnx.save(proto, model)
    feeds, past = timed_feeds(windows(model, 0), model, "cpu")
    assert past == 0
    assert feeds[0]["input_ids"].shape == (1, 20)


def test_quantize_times_one_token_behind_a_window(model: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"scheme": "int8-weights"})
    timing = TimingSettings(rounds=1, runs=2, warmup=1, seconds=0.0, threads=1)
    found = quantize(
        model,
        reading(tmp_path, 0),
        tmp_path / "o.onnx",
        recipe=recipe,
        options=RunOptions(timing=timing),
    )
    assert found.verification is not None
    assert found.verification.latency is not None
    assert found.verification.timed_past == 19


def test_a_model_that_gives_no_present(tmp_path: Path, model: Path) -> None:
    proto = onnx.load(model)
    del proto.graph.output[1:]
    onnx.save(proto, model)
    with pytest.raises(
        DataError, match=r"no present values for .past_key_values\.0\.key."
    ) as caught:
        list(windows(model, 4))
    assert caught.value.where == str(model)


@pytest.mark.parametrize(
    ("past", "present"),
    [
        ("past_key_values.0.key", "present.0.key"),
        ("past_key_values.3.decoder.value", "present.3.decoder.value"),
        ("past_key_values.0.key", "present_key_values.0.key"),
        ("past_0", "present_0"),
        ("past_key_self_1", "present_key_self_1"),
    ],
)
def test_names_of_exporters(past: str, present: str) -> None:
    assert present_of(past, ["logits", present]) == present
    assert present_of(past, ["logits"]) is None


def test_the_whole_way(tmp_path: Path, model: Path) -> None:
    """Calibrated, compared and measured on tokens behind their past."""
    past = 8
    data = reading(tmp_path, past)
    output = tmp_path / "out.onnx"
    recipe = Recipe.model_validate({"scheme": "int8"})
    options = RunOptions(timing=None)
    result = quantize(model, data, output, recipe=recipe, options=options)
    assert result.verification is not None
    language = result.verification.fidelity.language
    assert language is not None
    assert language.tokens == 4 * (20 - past)
    assert language.quantized_perplexity is not None
    assert any("past keys and values" in text for text in result.warnings)
    # Perplexity behind the past is that of the window's last tokens, in float64 by scipy.
    session = open_session(model)
    surprise = []
    for position, sample in enumerate(windows(model, 0)):
        if position in _held_out(20):
            logits = session.run(sample.feeds)[0][0].astype(np.float64)
            following = sample.feeds["input_ids"][0, past + 1 :]
            found = log_softmax(logits, axis=-1)[past:-1]
            surprise.extend(-found[np.arange(len(following)), following])
    assert language.float_perplexity == pytest.approx(np.exp(np.mean(surprise)), rel=1e-5)
    assert calibrate(model, data, tmp_path / "stats").samples == 20
    assert inspect(model, data).sites


def _held_out(count: int) -> set[int]:
    """The positions that the default recipe keeps from calibration."""
    order = np.random.default_rng(0).permutation(count)
    return set(order[: count // 5].tolist())
