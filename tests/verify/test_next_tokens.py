"""KL, perplexity and agreement of two language models against scipy, on models that really run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
from onnxruntime.quantization import quantize_dynamic
from scipy.special import log_softmax

from onnxq.data import open_data
from onnxq.graph.structure import signature
from onnxq.runtime.session import Session, SessionSettings, open_session
from onnxq.verify.fidelity import compare_outputs
from tests.small_decoder import VOCABULARY, decoder

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from onnxq.data import DataSource
    from onnxq.verify.fidelity import Fidelity

Feeds = dict[str, "NDArray[Any]"]


def opened(model: onnx.ModelProto) -> Session:
    settings = SessionSettings(threads=1, spinning=False)
    return open_session(model.SerializeToString(), settings)


def source(model: onnx.ModelProto, samples: list[Feeds]) -> DataSource:
    return open_data(samples, signature(ir.serde.deserialize_model(model)))


def windows(*lengths: int, batch: int = 1) -> list[Feeds]:
    random = np.random.default_rng(0)
    return [{"input_ids": random.integers(0, VOCABULARY, (batch, length))} for length in lengths]


def compared(samples: list[Feeds], *, causal: bool = True, gain: float = 0.8) -> Fidelity:
    model = decoder(causal=causal)
    return compare_outputs(
        opened(model),
        opened(decoder(causal=causal, gain=gain)),
        source(model, samples),
        independent=True,
    )


def likelihoods(samples: list[Feeds], gain: float) -> list[NDArray[np.float64]]:
    """Log-probabilities ``[batch, tokens, vocabulary]`` of each sample."""
    model = decoder(gain=gain)
    session = opened(model)
    return [
        log_softmax(session.run(sample.feeds)[0].astype(np.float64), axis=-1)
        for sample in source(model, samples)
    ]


def test_of_windows() -> None:
    samples = windows(9, 5, 1)
    found = compared(samples).language
    assert found is not None
    one, other = (likelihoods(samples, gain) for gain in (1.0, 0.8))
    kl = [(np.exp(a) * (a - b)).sum(axis=-1).ravel() for a, b in zip(one, other, strict=True)]
    assert found.kl_nats == pytest.approx(np.concatenate(kl).mean(), rel=1e-6)
    for given, perplexity in (
        (one, found.float_perplexity),
        (other, found.quantized_perplexity),
    ):
        following = [
            a[0, np.arange(a.shape[1] - 1), sample["input_ids"][0, 1:]]
            for a, sample in zip(given, samples, strict=True)
        ]
        assert perplexity == pytest.approx(math.exp(-np.concatenate(following).mean()), rel=1e-9)
    assert (found.tokens, found.top1_agreement, found.looks_ahead) == (15, 1.0, False)


def test_padded_positions_are_left_out() -> None:
    (short,) = windows(4)
    ids = short["input_ids"]
    left, right = np.pad(ids, ((0, 0), (3, 0))), np.pad(ids, ((0, 0), (0, 3)))
    mask = np.pad(np.ones_like(ids), ((0, 0), (0, 3)))
    whole = compared([short]).language
    assert whole is not None
    # Both rows of a batch, padded on either side; positions count the kept tokens.
    batch = {
        "input_ids": np.concatenate([right, left]),
        "attention_mask": np.concatenate([mask, mask[:, ::-1]]),
    }
    found = compared([batch]).language
    assert found is not None
    assert found.tokens == 2 * whole.tokens
    assert found.kl_nats == pytest.approx(whole.kl_nats, rel=1e-5)
    assert found.float_perplexity == pytest.approx(whole.float_perplexity, rel=1e-5)


@pytest.mark.parametrize("length", [2, 8, 64])
def test_a_model_that_sees_later_tokens_has_no_perplexity(length: int) -> None:
    found = compared(windows(length), causal=False)
    assert found.language is not None
    assert found.language.kl_nats > 0
    assert (found.language.looks_ahead, found.language.float_perplexity) == (True, None)
    assert any(remark.startswith("there is no perplexity") for remark in found.remarks)


@pytest.mark.parametrize("length", [2, 8, 64])
def test_a_reference_that_is_quantized_itself_is_no_reason(tmp_path: Path, length: int) -> None:
    """One scale for all tokens of a run: later ones change roundings of those before."""
    model = decoder()
    quantize_dynamic(model, tmp_path / "dynamic.onnx", per_channel=True)
    session = open_session(tmp_path / "dynamic.onnx")
    found = compare_outputs(session, session, source(model, windows(length)), independent=False)
    assert found.language is not None
    assert not found.language.looks_ahead


def test_single_tokens_predict_nothing() -> None:
    found = compared(windows(1, 1)).language
    assert found is not None
    assert (found.tokens, found.float_perplexity, found.quantized_perplexity) == (2, None, None)


def test_top1_agreement_is_of_positions() -> None:
    found = compared(windows(8), gain=-1.0)
    assert found.language is not None
    assert found.top1_agreement == found.language.top1_agreement == 0.0


def test_a_model_beside_itself_runs_once() -> None:
    model = decoder()
    session = opened(model)
    found = compare_outputs(session, session, source(model, windows(6)), independent=False).language
    assert found is not None
    assert (found.kl_nats, found.top1_agreement) == (0, 1)
    assert found.float_perplexity == found.quantized_perplexity


def test_nan_is_no_perplexity_of_a_number() -> None:
    found = compared(windows(5), gain=math.nan)
    assert found.language is not None
    assert found.not_finite == ("logits",)
    assert math.isnan(found.language.kl_nats)
