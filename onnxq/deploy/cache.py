"""What a decoder's graph says of its cache: layers, heads, names of inputs and outputs.

A decoder takes ``input_ids`` and an ``attention_mask``, maybe ``position_ids``, and for each layer
past keys and values ``[batch, heads, past, head size]``; it gives logits ``[batch, tokens,
vocabulary]`` and the present keys and values. Their names hold the layer's number in one place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from onnxq.data.roles import present_of, role_of_name
from onnxq.errors import ModelError, listed
from onnxq.graph.structure import summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from onnxq.graph.structure import ValueSummary

_ROLES: Final = {"ids": "input_ids", "mask": "attention_mask", "positions": "position_ids"}
_NUMBER: Final = re.compile(r"(?<=[._])\d+(?=[._]|$)")
_EXPORT: Final = "export it with its cache: inputs past_key_values.N.key and .value"
_RANK: Final = 4


@dataclass(frozen=True, slots=True)
class CacheGraph:
    """A decoder with a cache, as its graph describes it.

    Attributes:
        inputs: The names of the inputs that are no cache, by what onnxruntime-genai calls them.
        past: The names of past keys and values, with ``%d`` for the layer.
        present: The names of present keys and values, likewise.
        logits: The name of the output that scores the next token.
        layers: How many layers there are.
        heads: Heads of keys and values; None where the graph leaves it open.
        head_size: Width of a head; None likewise.
        vocabulary: How many tokens the logits score; None likewise.
    """

    inputs: Mapping[str, str]
    past: tuple[str, str]
    present: tuple[str, str]
    logits: str
    layers: int
    heads: int | None
    head_size: int | None
    vocabulary: int | None


def cache_of(model: ir.Model, where: str) -> CacheGraph:
    """Describe a decoder.

    Args:
        model: The model.
        where: Its path, for errors.

    Raises:
        ModelError: It is no decoder with a cache, or one whose inputs nobody would feed.
    """
    found = summary(model)
    outputs = [value.name for value in found.outputs]
    plain: dict[str, str] = {}
    caches: list[ValueSummary] = []
    for value in found.inputs:
        role = role_of_name(value.name)
        if role == "past":
            caches.append(value)
        elif role in _ROLES:
            plain[_ROLES[role]] = value.name
        else:
            text = f"onnxruntime-genai feeds no input called {value.name!r}"
            _refuse("deploy.input", text, where, "export the decoder without that input")
    if not caches:
        _refuse("deploy.no_cache", "it takes no past keys and values", where, _EXPORT)
    if missing := {"input_ids", "attention_mask"} - plain.keys():
        text = f"it lacks the input {listed(sorted(missing), 2)}"
        _refuse("deploy.input", text, where, _EXPORT)
    past, present = _patterns([value.name for value in caches], outputs, where)
    others = [v for v in found.outputs if v.name not in _named(present, len(caches) // 2)]
    logits = next((v for v in others if v.name == "logits"), others[0] if others else None)
    if logits is None or logits.shape is None or len(logits.shape) != 3:
        text = "it has no output of logits [batch, tokens, vocabulary]"
        _refuse("deploy.no_logits", text, where, "export it with its language model's head")
    heads, head_size = _heads(caches, where)
    return CacheGraph(
        inputs=plain,
        past=past,
        present=present,
        logits=logits.name,
        layers=len(caches) // 2,
        heads=heads,
        head_size=head_size,
        vocabulary=_number(logits.shape[2]),
    )


def _patterns(
    names: Sequence[str], outputs: Sequence[str], where: str
) -> tuple[tuple[str, str], tuple[str, str]]:
    """Names of keys and of values with ``%d``, of the past and of the present."""
    past = sorted({_NUMBER.sub("%d", name, count=1) for name in names}, key=_is_value)
    layers = len(names) // 2
    if len(past) != 2 or _is_value(past[0]) or not _is_value(past[1]):
        text = f"its caches are not called as keys and values are: {listed(sorted(names), 4)}"
        _refuse("deploy.cache_names", text, where, _EXPORT)
    if sorted(names) != sorted(_named((past[0], past[1]), layers)):
        text = f"its {len(names)} caches are not those of layers 0 to {layers - 1}"
        _refuse("deploy.cache_names", text, where, _EXPORT)
    found = {name: present_of(name, outputs) for name in names}
    lacking = [name for name, output in found.items() if output is None]
    if lacking:
        text = f"it gives no present values for {listed(lacking, 3)}"
        _refuse("deploy.cache_names", text, where, "export it with present.N.key and .value")
    present = [_NUMBER.sub("%d", found[pattern % 0] or "", count=1) for pattern in past]
    return (past[0], past[1]), (present[0], present[1])


def _named(patterns: tuple[str, str], layers: int) -> set[str]:
    return {pattern.replace("%d", str(layer)) for layer in range(layers) for pattern in patterns}


def _is_value(name: str) -> bool:
    return "value" in name.replace("past_key_values", "").replace("present_key_values", "")


def _heads(caches: Sequence[ValueSummary], where: str) -> tuple[int | None, int | None]:
    shapes = {value.name: value.shape for value in caches}
    for name, shape in shapes.items():
        if shape is None or len(shape) != _RANK:
            text = f"{name!r} is not [batch, heads, past, head size]"
            _refuse("deploy.cache_shape", text, where, _EXPORT)
    first = next(iter(shapes.values())) or ()
    for name, shape in shapes.items():
        if shape is not None and (shape[1], shape[3]) != (first[1], first[3]):
            text = f"{name!r} has other heads than {caches[0].name!r}: {shape[1]} of {shape[3]}"
            remedy = "onnxruntime-genai runs decoders whose layers have equal caches"
            _refuse("deploy.cache_shape", text, where, remedy)
    return _number(first[1]), _number(first[3])


def _number(dim: int | str | None) -> int | None:
    return dim if isinstance(dim, int) else None


def _refuse(code: str, text: str, where: str, remedy: str) -> NoReturn:
    raise ModelError(code, text, where=where, remedy=remedy)
