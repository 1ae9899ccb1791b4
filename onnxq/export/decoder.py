"""Language models: ``input_ids`` to ``logits``, with a cache of keys and values or without.

With a cache the inputs are ``input_ids``, ``attention_mask``, ``position_ids`` (where the model
takes them) and ``past_key_values.N.key`` and ``.value``, ``[batch_size, heads,
past_sequence_length, width]``; the outputs ``logits`` and ``present.N.key`` and ``.value``. The
mask covers the past too: ``[batch_size, total_sequence_length]``. That is the layout which
onnxruntime-genai, optimum and transformers.js run.

The mask is spelled out, ``(1 - visible) * min``: a few nodes, where the library's own makes dozens.
That is done where it gives the same logits, and never where a layer sees only a window of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from onnxq.errors import UsageError
from onnxq.export import examples
from onnxq.export.agreement import agree, sees_a_window
from onnxq.export.calls import run_module, shapes_of
from onnxq.export.spec import Compared, ExportSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxq.export.spec import Run

BATCH: Final = "batch_size"
SEQUENCE: Final = "sequence_length"
PAST: Final = "past_sequence_length"
TOTAL: Final = "total_sequence_length"
POSITIONS: Final = "position_ids"


class Decoder(nn.Module):  # type: ignore[misc]
    """A language model behind inputs in a row.

    Attributes:
        model: The model of transformers.
        names: The inputs' names, in order.
        heads: Number of heads and width of each tensor in the cache.
        plain_mask: Whether the mask is spelled out.
    """

    def __init__(self, model: nn.Module, heads: Sequence[tuple[int, int]], *, plain_mask: bool):
        """Wrap a model; without heads it has no cache."""
        super().__init__()
        self.model = model
        self.heads = tuple(heads)
        names = ["input_ids", "attention_mask"]
        if heads and POSITIONS in signature(model.forward).parameters:
            names.append(POSITIONS)
        names += [f"past_key_values.{kind}" for kind in cache_names(len(heads))]
        self.names = tuple(names)
        self.plain_mask = plain_mask

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Map the inputs to the logits and, with a cache, its keys and values."""
        given = dict(zip(self.names, tensors, strict=True))
        past = [tensor for name, tensor in given.items() if name.startswith("past_key_values.")]
        ids, mask = given["input_ids"], given["attention_mask"]
        start = past[0].shape[2] if past else 0
        named: dict[str, Any] = {"use_cache": bool(past)}
        if POSITIONS in given:
            named[POSITIONS] = given[POSITIONS]
        cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        if past:
            named[cache_parameter(self.model)] = cache
        plain = self._plain(ids, mask, start) if self.plain_mask else mask
        logits = self.model(input_ids=ids, attention_mask=plain, **named).logits
        return (logits, *layers_of(cache))

    def _plain(self, ids: Tensor, mask: Tensor, start: int) -> Tensor:
        """``[batch, 1, sequence, total]``: 0 where a token is seen, the lowest number elsewhere."""
        dtype = self.model.dtype
        keys = torch.arange(mask.shape[1])
        queries = torch.arange(ids.shape[1]) + start
        visible = (keys[None, :] <= queries[:, None]) & mask[:, None, None, :].bool()
        return (1.0 - visible.to(dtype)) * torch.finfo(dtype).min


def cache_names(tensors: int) -> list[str]:
    """``N.key`` and ``N.value`` of each layer."""
    return [f"{i // 2}.{'value' if i % 2 else 'key'}" for i in range(tensors)]


def cache_parameter(model: nn.Module) -> str:
    """What ``forward`` calls its cache, which newer versions of transformers rename."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def layers_of(cache: Any) -> list[Tensor]:
    """Keys and values of each layer, in order."""
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


@dataclass(frozen=True)
class Continued:
    """A prefill and a step with its cache give what the whole run gives."""

    reference: Decoder
    tokens: int

    def __call__(self, run: Run) -> Iterator[Compared]:
        """Compare logits and cache."""
        whole = _inputs(self.reference, 2, self.tokens, 0)
        expected = run_module(self.reference, whole)
        cut = self.tokens - 2
        first = {**whole, "input_ids": whole["input_ids"][:, :cut]}
        first["attention_mask"] = whole["attention_mask"][:, :cut]
        rest = {**whole, "input_ids": whole["input_ids"][:, cut:]}
        if POSITIONS in whole:
            first[POSITIONS] = whole[POSITIONS][:, :cut]
            rest[POSITIONS] = whole[POSITIONS][:, cut:]
        prefilled = run(first)
        for name, tensor in prefilled.items():
            rest[name.replace("present.", "past_key_values.")] = tensor
        found = run({name: rest[name] for name in whole})
        shapes = shapes_of({name: rest[name] for name in whole})
        logits = torch.cat((prefilled["logits"], found["logits"]), 1)
        yield Compared("logits", logits, expected[0], shapes)
        for (name, tensor), right in zip(list(found.items())[1:], expected[1:], strict=True):
            yield Compared(name, tensor, right, shapes)


def decoder_spec(model: Any, *, cached: bool, where: str) -> ExportSpec:
    """What is exported of a language model.

    Raises:
        UsageError: If its cache is not made of keys and values.
    """
    config = model.config.get_text_config(decoder=True)
    heads = _cache_heads(model, where) if cached else []
    reference = Decoder(model, heads, plain_mask=False)

    def made(batch: int, length: int, past: int, **padding: int) -> dict[str, Tensor]:
        return _inputs(reference, batch, length, past, **padding)

    example = made(2, 3, 5) if cached else made(2, 5, 0)
    longest = examples.longest(config, 64)
    further = [made(1, 7, 0), made(2, 6, 0, right=3), made(1, longest, 0)]
    if cached:
        further += [made(1, 1, 9), made(2, 1, 8, left=3)]
    module = Decoder(model, heads, plain_mask=True)
    if sees_a_window(config) or not agree(module, reference, [example, *further]):
        module = reference
    axes = {"input_ids": {0: BATCH, 1: SEQUENCE}, POSITIONS: {0: BATCH, 1: SEQUENCE}}
    axes["attention_mask"] = {0: BATCH, 1: TOTAL if cached else SEQUENCE}
    axes |= {name: {0: BATCH, 2: PAST} for name in reference.names if name.startswith("past_")}
    return ExportSpec(
        module=module,
        example_inputs=example,
        dynamic_axes={name: axes[name] for name in reference.names},
        output_names=("logits", *(f"present.{kind}" for kind in cache_names(len(heads)))),
        further_inputs=tuple(further),
        axis_names={f"{PAST} + {SEQUENCE}": TOTAL, f"{SEQUENCE} + {PAST}": TOTAL},
        reference=reference,
        checks=(Continued(reference, 11),) if cached else (),
    )


def _inputs(
    decoder: Decoder, batch: int, length: int, past: int, **padding: int
) -> dict[str, Tensor]:
    """Inputs by name; ``padding`` is that of :func:`examples.mask`, over past and present."""
    mask = examples.mask(batch, past + length, **padding)
    ids = examples.token_ids(mask[:, past:], decoder.model.config.get_text_config(decoder=True))
    inputs = {"input_ids": ids, "attention_mask": mask}
    if POSITIONS in decoder.names:
        inputs[POSITIONS] = (mask.cumsum(1) - 1).clamp(min=0)[:, past:]
    like = next(decoder.model.parameters())
    for name, (heads, width) in zip(cache_names(len(decoder.heads)), decoder.heads, strict=True):
        past_tensor = examples.floats(batch, heads, past, width, like=like)
        inputs[f"past_key_values.{name}"] = past_tensor
    return inputs


def _cache_heads(model: Any, where: str) -> list[tuple[int, int]]:
    """Number of heads and width of all keys and values, as a run on two tokens gives them."""
    cache = DynamicCache()
    given = {"input_ids": torch.zeros(1, 2, dtype=torch.int64), cache_parameter(model): cache}
    try:
        with torch.inference_mode():
            model(**given, use_cache=True)
        layers = layers_of(cache)
        fits = all(layer.ndim == 4 and layer.shape[2] == 2 for layer in layers)
    except Exception:
        layers, fits = [], False
    if not layers or not fits:
        text = f"{type(model).__name__} keeps something else than keys and values of tokens"
        raise UsageError(
            code="export.cache", message=text, where=where, remedy="--without-past exports it"
        )
    return [(layer.shape[1], layer.shape[3]) for layer in layers]
