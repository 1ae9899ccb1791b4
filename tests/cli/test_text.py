"""Texts for language models on the command line: what is refused, and what is measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from onnxq.runtime.session import open_session
from tests.cli.conftest import MODEL, onnxq
from tests.cli.test_bad_input import check_refused
from tests.small_decoder import save_decoder
from tests.word_tokenizer import numbers, save_tokenizer, some_text

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

WINDOW = 16


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_tokenizer(tmp_path)
    return save_decoder(tmp_path / "decoder.onnx", cache=False)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(some_text(10 * WINDOW))
    return path


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    path = tmp_path / "steps.toml"
    path.write_text(f"version = 1\n[text]\nwindow = {WINDOW}\n")
    return path


def perplexity(model: Path, text: Path) -> float:
    """By the definition, window by window, in float64."""
    tokens = np.asarray(numbers(text.read_text())).reshape(-1, WINDOW)
    session, found = open_session(model), []
    for window in tokens:
        feeds = {"input_ids": window[None], "attention_mask": np.ones((1, WINDOW), np.int64)}
        feeds["position_ids"] = np.arange(WINDOW)[None]
        logits = session.run(feeds)[0][0].astype(np.float64)
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        found.append(logits[np.arange(WINDOW - 1), window[1:]])
    return float(np.exp(-np.mean(found)))


def document(run: Run) -> dict[str, object]:
    assert run.status == 0, run.err
    return run.document


def test_an_empty_text(model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    for content in ("", "\n \n"):
        empty.write_text(content)
        check_refused("data.empty", "compare", model, "--text", empty, mentions="empty.txt")
        check_refused(
            "data.empty", "quantize", model, "--data", empty, "--tokenizer", tmp_path, "-o",
            tmp_path / "out.onnx", mentions="empty.txt",
        )  # fmt: skip
    assert not (tmp_path / "out.onnx").exists()


def test_a_text_of_no_token(model: Path, tmp_path: Path) -> None:
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"Regex": "."}, "content": ""}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    silent = tmp_path / "silent.txt"
    silent.write_text("nothing of this is left")
    check_refused("data.empty_sample", "compare", model, "--text", silent, mentions="silent.txt")


def test_a_tokenizer_of_a_larger_vocabulary(tmp_path: Path, text: Path) -> None:
    """Both of the lines name a file and a number, before anything has run."""
    save_tokenizer(tmp_path)
    model = save_decoder(tmp_path / "decoder.onnx")
    proto = onnx.load(model)
    for tensor in proto.graph.initializer:
        if tensor.name == "embedding":
            array = onnx.numpy_helper.to_array(tensor)[:80]
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, "embedding"))
    onnx.save(proto, model)
    for command in (
        ("quantize", model, "--data", text, "-o", tmp_path / "out.onnx"),
        ("calibrate", model, "--data", text, "-o", tmp_path / "stats"),
        ("compare", model, "--text", text),
    ):
        check_refused("data.vocabulary", *command, "--tokenizer", tmp_path, mentions="80 rows")
        run = onnxq(*command, "--tokenizer", tmp_path)
        assert "tokenizer.json" in run.err
        assert "ids reach 95" in run.err


def test_a_tokenizer_of_a_smaller_vocabulary_is_told(
    model: Path, text: Path, steps: Path, tmp_path: Path
) -> None:
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {word: n for word, n in words.items() if n < 70}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    run = onnxq("compare", model, "--text", text, "--preprocess", steps, "--metric", "perplexity")
    assert run.status == 0
    assert "it has 70 tokens" in " ".join(run.out.split())


def test_ids_beyond_the_table(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    np.savez(folder / "0.npz", input_ids=np.asarray([[1, 2, 95]]))
    np.savez(folder / "1.npz", input_ids=np.asarray([[1, 96, 2]]))
    check_refused("data.vocabulary", "compare", model, "--data", folder, mentions="1.npz")


def test_a_text_needs_a_tokenizer(text: Path, tmp_path: Path) -> None:
    model = save_decoder(tmp_path / "decoder.onnx", cache=False)
    check_refused("data.no_tokenizer", "compare", model, "--text", text, mentions="beside")
    check_refused("data.not_text", "compare", model, "--text", model, mentions="decoder.onnx")


def test_one_of_data_and_text(model: Path, text: Path) -> None:
    check_refused("usage.arguments", "compare", model, mentions="--text")
    check_refused(
        "usage.arguments", "compare", model, "--data", text, "--text", text, mentions="two ways"
    )


def test_metrics_that_do_not_suit(model: Path, text: Path, tmp_path: Path) -> None:
    check_refused(
        "usage.arguments", "compare", model, "--text", text, "--metric", "bleu", mentions="perplex"
    )
    images = tmp_path / "x.npy"
    np.save(images, np.zeros((2, 1, 28, 28), np.float32))
    for metric in ("perplexity", "kl"):
        check_refused(
            "compare.metric", "compare", MODEL, MODEL, "--data", images, "--metric", metric,
            mentions=metric,
        )  # fmt: skip
    check_refused(
        "compare.metric", "compare", model, "--text", text, "--metric", "kl", mentions="first"
    )
    masked = save_decoder(tmp_path / "masked.onnx", cache=False, causal=False)
    check_refused(
        "compare.metric", "compare", masked, "--text", text, "--metric", "perplexity",
        mentions="masked.onnx",
    )  # fmt: skip


def test_perplexity_of_models(model: Path, text: Path, steps: Path, tmp_path: Path) -> None:
    other = save_decoder(tmp_path / "other.onnx", cache=False, gain=0.5)
    arguments = ("compare", model, other, "--text", text, "--preprocess", steps)
    found = document(onnxq(*arguments, "--metric", "perplexity", "--json"))
    assert found["metric"] == "perplexity"
    assert found["timing"] is None
    assert found["verified_on"] == {"samples": 10, "tokens": 160}
    runs = found["runs"]
    assert isinstance(runs, list)
    expected = [perplexity(path, text) for path in (model, other)]
    assert [run["perplexity"] for run in runs] == pytest.approx(expected, rel=1e-5)
    (_, metrics) = (run["metrics"] for run in runs)
    assert metrics["kl_nats"] > 0
    assert metrics["perplexity"] == {
        "float": pytest.approx(expected[0], rel=1e-5),
        "quantized": pytest.approx(expected[1], rel=1e-5),
    }
    shown = onnxq(*arguments, "--metric", "perplexity").out
    assert all(f"{number:.3f}" in shown for number in expected)
    assert "Measured on 10 samples of 160 tokens." in shown
    assert "median" not in shown


@pytest.mark.parametrize(
    ("metric", "words"),
    [("kl", "KL to run 1"), ("sqnr", " dB"), ("top1", " %")],
)
def test_other_metrics(model: Path, text: Path, tmp_path: Path, metric: str, words: str) -> None:
    other = save_decoder(tmp_path / "other.onnx", cache=False, gain=0.5)
    run = onnxq("compare", model, other, "--text", text, "--metric", metric)
    assert run.status == 0, run.err
    assert words in run.out
    assert "reference" in run.out


def test_one_model_alone_has_a_perplexity(model: Path, text: Path, steps: Path) -> None:
    arguments = ("compare", model, "--text", text, "--preprocess", steps)
    found = document(onnxq(*arguments, "--metric", "perplexity", "--json"))
    runs = found["runs"]
    assert isinstance(runs, list)
    assert runs[0]["perplexity"] == pytest.approx(perplexity(model, text), rel=1e-5)


def test_quantize_tells_kl_and_perplexity(
    model: Path, text: Path, steps: Path, tmp_path: Path
) -> None:
    arguments = (
        "quantize", model, "--scheme", "int8", "--data", text, "--tokenizer", tmp_path,
        "--preprocess", steps, "-o", tmp_path / "out.onnx",
    )  # fmt: skip
    found = document(onnxq(*arguments, "--json"))
    metrics = found["metrics"]
    assert isinstance(metrics, dict)
    assert 0 < metrics["kl_nats"] < 1
    assert set(metrics["perplexity"]) == {"float", "quantized"}
    warnings = found["warnings"]
    assert isinstance(warnings, list)
    assert any("10 windows that do not overlap" in warning for warning in warnings)
    shown = onnxq(*arguments).out
    assert "KL to float, nats a token" in shown
    assert "perplexity" in shown


def test_other_models_have_neither(tmp_path: Path) -> None:
    images = tmp_path / "x.npy"
    np.save(images, np.random.default_rng(0).random((2, 1, 28, 28), np.float32))
    run = onnxq("compare", MODEL, MODEL, "--data", images, "--metric", "sqnr", "--json")
    metrics = run.document["runs"][1]["metrics"]
    assert (metrics["kl_nats"], metrics["perplexity"]) == (None, None)
    assert run.document["runs"][0]["perplexity"] is None
