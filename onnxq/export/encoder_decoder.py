"""Encoders with a decoder: two ONNX files in a folder, texts or sound to tokens.

``encoder.onnx`` maps ``input_ids`` and ``attention_mask``, or ``input_features``, to
``last_hidden_state`` and to what the decoder's cross-attention reads of it,
``present.N.encoder.key`` and ``.value``: worked out once for a text.
``decoder.onnx`` maps ``input_ids``, ``encoder_attention_mask`` (texts),
``past_key_values.N.decoder.key`` and ``.value`` (of no tokens at first) and
``past_key_values.N.encoder.key`` and ``.value`` to ``logits`` and ``present.N.decoder.key`` and
``.value``. So one decoder serves the first token and all others, and its weights are stored once.

Without a cache the decoder reads ``encoder_hidden_states`` and gives ``logits``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from onnxq.errors import UsageError
from onnxq.export import examples
from onnxq.export.calls import run_module, shapes_of
from onnxq.export.decoder import (
    BATCH,
    PAST,
    SEQUENCE,
    TOTAL,
    cache_names,
    cache_parameter,
    layers_of,
)
from onnxq.export.spec import Compared, ExportSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnxq.export.spec import Run

ENCODED: Final = "encoder_sequence_length"
FEATURES: Final = "input_features"
_STATES: Final = "encoder_hidden_states"
_MASK: Final = "encoder_attention_mask"


class EncoderPart(nn.Module):  # type: ignore[misc]
    """The encoder, and the keys and values that the decoder works out of it at its first token."""

    def __init__(self, model: nn.Module, *, cached: bool) -> None:
        """Wrap a model."""
        super().__init__()
        self.model = model
        self.cached = cached

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Map a text or sound to its states, and keys and values."""
        named: dict[str, Any] = dict(zip(_encoder_inputs(self.model), tensors, strict=True))
        if not self.cached:
            return (self.model.get_encoder()(**named).last_hidden_state,)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        named[cache_parameter(self.model)] = cache
        start = torch.zeros(tensors[0].shape[0], 1, dtype=torch.int64)
        found = self.model(**named, decoder_input_ids=start, use_cache=True)
        return (found.encoder_last_hidden_state, *layers_of(cache.cross_attention_cache))


class DecoderPart(nn.Module):  # type: ignore[misc]
    """The decoder behind inputs in a row.

    Attributes:
        model: The whole model of transformers.
        names: The inputs' names, in order.
        heads: Number of heads and width of each tensor in a cache; empty without one.
    """

    def __init__(self, model: nn.Module, heads: list[tuple[int, int]]) -> None:
        """Wrap a model."""
        super().__init__()
        self.model = model
        self.heads = heads
        names = ["input_ids"] if heads else ["input_ids", _STATES]
        if model.main_input_name != FEATURES:
            names.append(_MASK)
        kinds = cache_names(len(heads))
        names += [f"past_key_values.{kind.replace('.', '.decoder.')}" for kind in kinds]
        names += [f"past_key_values.{kind.replace('.', '.encoder.')}" for kind in kinds]
        self.names = tuple(names)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Map tokens to logits and, with a cache, its keys and values."""
        given = dict(zip(self.names, tensors, strict=True))
        own = [tensor for name, tensor in given.items() if ".decoder." in name]
        cross = [tensor for name, tensor in given.items() if ".encoder." in name]
        named: dict[str, Any] = {"use_cache": bool(own), "attention_mask": given.get(_MASK)}
        states = given.get(_STATES)
        cache = DynamicCache(_pairs(own))
        if states is None:
            # Nothing reads them, since cross-attention has its keys and values already.
            batch, _, length, _ = cross[0].shape
            states = cross[0].new_zeros(batch, length, self.model.config.hidden_size)
            whole = EncoderDecoderCache(cache, DynamicCache(_pairs(cross)))
            named[cache_parameter(self.model)] = whole
        encoded = BaseModelOutput(last_hidden_state=states)
        ids = given["input_ids"]
        logits = self.model(encoder_outputs=encoded, decoder_input_ids=ids, **named).logits
        return (logits, *layers_of(cache))


@dataclass(frozen=True)
class Continued:
    """Prefill, and a step with its cache, give what the whole model gives in one run."""

    encoder: EncoderPart
    decoder: DecoderPart
    source: Mapping[str, Tensor]
    tokens: int

    def __call__(self, run: Run) -> Iterator[Compared]:
        """Compare the logits."""
        model = self.decoder.model
        source = {
            name: value.to(model.dtype) if value.is_floating_point() else value
            for name, value in self.source.items()
        }
        _, *cross = run_module(self.encoder, source)
        batch = cross[0].shape[0]
        ids = _decoder_ids(batch, self.tokens, model.config)
        with torch.inference_mode():
            right = model(**source, decoder_input_ids=ids, use_cache=False).logits
        inputs = _decoder_inputs(self.decoder, ids, 0, cross[0].shape[2])
        if _MASK in inputs:
            inputs[_MASK] = source["attention_mask"]
        encoded = [name for name in inputs if ".encoder." in name]
        inputs |= dict(zip(encoded, cross, strict=True))
        logits = []
        for part in (ids[:, :-2], ids[:, -2:-1], ids[:, -1:]):
            inputs["input_ids"] = part
            shapes = shapes_of(inputs)
            found = dict(run(inputs))
            logits.append(found.pop("logits"))
            inputs |= {n.replace("present.", "past_key_values."): v for n, v in found.items()}
        yield Compared("logits", torch.cat(logits, 1), right, shapes)


def encoder_decoder_specs(model: Any, *, cached: bool, where: str) -> tuple[ExportSpec, ExportSpec]:
    """What is exported of a model: its encoder, and its decoder.

    Raises:
        UsageError: If it reads something else than texts or features of sound, or its cache is not
            made of keys and values.
    """
    sources = _sources(model, where)
    encoder = EncoderPart(model, cached=cached)
    cross = _cross(encoder, sources[0], where)
    heads = [(tensor.shape[1], tensor.shape[3]) for tensor in cross]
    kinds = [f"present.{kind.replace('.', '.encoder.')}" for kind in cache_names(len(heads))]
    sound = FEATURES in sources[0]
    axes = {0: BATCH} if sound else {0: BATCH, 1: SEQUENCE}
    first = ExportSpec(
        module=encoder,
        example_inputs=sources[0],
        dynamic_axes=dict.fromkeys(sources[0], axes),
        output_names=("last_hidden_state", *kinds),
        further_inputs=tuple(sources[1:]),
    )
    return first, _decoder_spec(encoder, heads, sources)


def _decoder_spec(
    encoder: EncoderPart, heads: list[tuple[int, int]], sources: list[dict[str, Tensor]]
) -> ExportSpec:
    model = encoder.model
    decoder = DecoderPart(model, heads)
    # Sound has one length.
    fixed = int(model.config.max_source_positions) if FEATURES in sources[0] else 0

    def made(batch: int, length: int, past: int, encoded: int) -> dict[str, Tensor]:
        ids = _decoder_ids(batch, length, model.config)
        return _decoder_inputs(decoder, ids, past, fixed or encoded)

    axes: dict[str, dict[int, str]] = {"input_ids": {0: BATCH, 1: SEQUENCE}}
    axes[_MASK] = {0: BATCH, 1: ENCODED}
    axes[_STATES] = {0: BATCH} if fixed else {0: BATCH, 1: ENCODED}
    for name in decoder.names:
        if ".decoder." in name:
            axes[name] = {0: BATCH, 2: PAST}
        if ".encoder." in name:
            axes[name] = {0: BATCH} if fixed else {0: BATCH, 2: ENCODED}
    kinds = [f"present.{kind.replace('.', '.decoder.')}" for kind in cache_names(len(heads))]
    example, further = made(2, 3, 5, 7), [made(1, 6, 0, 4), made(2, 4, 0, 11)]
    if heads:
        further += [made(1, 1, 9, 5), made(3, 1, 1, 6)]
    return ExportSpec(
        module=decoder,
        example_inputs=example,
        dynamic_axes={name: axes[name] for name in decoder.names},
        output_names=("logits", *kinds),
        further_inputs=tuple(further),
        axis_names={f"{PAST} + {SEQUENCE}": TOTAL, f"{SEQUENCE} + {PAST}": TOTAL},
        checks=tuple(Continued(encoder, decoder, source, 9) for source in sources[:2])
        if heads
        else (),
    )


def _encoder_inputs(model: Any) -> tuple[str, ...]:
    return (FEATURES,) if model.main_input_name == FEATURES else ("input_ids", "attention_mask")


def _sources(model: Any, where: str) -> list[dict[str, Tensor]]:
    """Texts, or sound, to encode."""
    config = model.config
    names = ("num_mel_bins", "max_source_positions")
    if model.main_input_name == FEATURES and all(hasattr(config, name) for name in names):
        like = next(model.parameters())
        # Two convolutions halve the number of frames.
        frames = 2 * config.max_source_positions
        shape = (config.num_mel_bins, frames)
        return [{FEATURES: examples.floats(batch, *shape, like=like)} for batch in (2, 1, 3)]
    if model.main_input_name != "input_ids":
        text = f"{type(model).__name__} reads {model.main_input_name}, which is not exported"
        remedy = "export it by a factory"
        raise UsageError(code="export.unknown_family", message=text, where=where, remedy=remedy)
    masks = [
        examples.mask(2, 9, right=3),
        examples.mask(1, 5),
        examples.mask(3, examples.longest(config, 40), right=1),
    ]
    return [
        {"input_ids": examples.token_ids(mask, config), "attention_mask": mask} for mask in masks
    ]


def _cross(encoder: EncoderPart, source: Mapping[str, Tensor], where: str) -> list[Tensor]:
    """Keys and values of cross-attention; none without a cache."""
    try:
        _, *cross = run_module(encoder, source)
    except UsageError as error:
        text = f"{type(encoder.model).__name__} does not run with a cache: {error.message}"
        remedy = "--without-past exports it" if encoder.cached else "export it by a factory"
        raise UsageError(code="export.cache", message=text, where=where, remedy=remedy) from error
    return cross


def _decoder_ids(batch: int, length: int, config: Any) -> Tensor:
    return examples.token_ids(examples.mask(batch, length), config)


def _decoder_inputs(
    decoder: DecoderPart, ids: Tensor, past: int, encoded: int
) -> dict[str, Tensor]:
    batch = ids.shape[0]
    like = next(decoder.model.parameters())
    width = decoder.model.config.hidden_size
    lengths = {"decoder": past, "encoder": encoded}
    inputs = {}
    for name in decoder.names:
        if name == "input_ids":
            inputs[name] = ids
        elif name == _STATES:
            inputs[name] = examples.floats(batch, encoded, width, like=like)
        elif name == _MASK:
            inputs[name] = examples.mask(batch, encoded, right=2 if batch > 1 else 0)
        else:
            _, layer, side, kind = name.split(".")
            heads, size = decoder.heads[2 * int(layer) + (kind == "value")]
            inputs[name] = examples.floats(batch, heads, lengths[side], size, like=like)
    return inputs


def _pairs(tensors: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(tensors[::2], tensors[1::2], strict=True))
