"""The types of a recipe."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from onnxq.errors import RecipeError
from onnxq.recipe.patterns import check_pattern
from onnxq.recipe.rules import resolve_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxq.recipe.patterns import NamedSite
    from onnxq.recipe.rules import RuleOutcome

CalibrationMethod = Literal["minmax", "moving-average", "percentile", "entropy", "mse", "auto"]
"""How a range is chosen; ``auto`` picks per site the one with the least error of its output."""

Scheme = Literal[
    "auto",
    "int8",
    "int8-dynamic",
    "int8-weights",
    "fp8",
    "int2",
    "int4",
    "uint4",
    "float16",
    "bfloat16",
]
"""What the result is; ``auto`` measures those of INT8 and takes the best."""

BlockAlgorithm = Literal[
    "auto", "rtn", "mse", "hqq", "awq", "gptq", "mse+gptq", "hqq+gptq", "awq+gptq"
]
"""How the integers of weights in blocks are chosen."""

_UNITS = {"b": 1} | {
    f"{letter}{middle}b": base**power
    for power, letter in enumerate("kmgt", start=1)
    for middle, base in (("", 1000), ("i", 1024))
}
_BYTES = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*", re.IGNORECASE)


def parse_bytes(text: str | int) -> int:
    """A number of bytes from ``"2GiB"``, ``"500 MB"`` or a plain number.

    Args:
        text: A positive number with B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB
            (powers of 1024); capital and small letters mean the same.

    Raises:
        RecipeError: It is none of these, or less than one byte.
    """
    found = _BYTES.fullmatch(f"{text}B" if str(text).strip().isdecimal() else str(text))
    unit = _UNITS.get(found[2].lower()) if found else None
    size = round(float(found[1]) * unit) if found and unit else 0
    if size < 1:
        code, reason = "recipe.bytes", f"{text!r} is not an amount of memory"
        raise RecipeError(code, reason, remedy="Write it like 2GiB or 500MB.")
    return size


def _bytes(value: object) -> int:
    # pydantic reports a ValueError together with the key; an error of ours would pass it by.
    try:
        return parse_bytes(value if isinstance(value, int) else str(value))
    except RecipeError as error:
        raise ValueError(error.message) from error


def _one_or_more(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CalibrationSettings(_Frozen):
    """How ranges are found.

    Attributes:
        method: How a range is chosen.
        percentile: What the percentile method keeps, in percent.
        samples: At most so many samples; None for all.
        memory_budget: Bytes that calibration may hold at once.
    """

    method: CalibrationMethod = "auto"
    percentile: float = Field(default=99.999, gt=50.0, le=100.0)
    samples: int | None = Field(default=None, ge=1)
    memory_budget: Annotated[int, BeforeValidator(_bytes)] = 2 << 30


class WeightSettings(_Frozen):
    """How ``int8-weights``, ``int4``, ``uint4`` and ``int2`` store weights.

    Attributes:
        form: ``blocks`` is the target's kernel for weights in blocks (MatMulNBits); ``folded`` a
            Cast and a Mul, which ONNX Runtime computes once when it loads the model: small in the
            file, float in memory; ``dq`` a DequantizeLinear, which every tool knows and which runs
            at each inference. ``auto`` takes blocks where the target has a kernel that is not
            slower than float, else ``folded``.
        algorithm: How integers are chosen (``algorithms/block_algorithm.py``), or ``auto`` for the
            best at each site. None is ``awq+gptq`` with data, ``hqq`` without; of ``int8-weights``
            rounding to the nearest.
        symmetric: Whether zero points are fixed in the middle; None leaves it to the error of each
            weight with ``auto``, else they are free.
        block_size: Input channels that share a scale; None measures the target's sizes.
        accuracy_level: 4 lets the kernel round activations to int8, 1 keeps them float32; None
            measures, and takes 1 where a bound on the accuracy asks for it.
        sequential: Whether the statistics of a layer come from a model whose earlier layers are
            quantized already.
    """

    form: Literal["auto", "blocks", "folded", "dq"] = "auto"
    algorithm: BlockAlgorithm | None = None
    symmetric: bool | None = None
    block_size: Literal[16, 32, 64, 128, 256] | None = None
    accuracy_level: Literal[1, 4] | None = None
    sequential: bool = False


class HalfSettings(_Frozen):
    """What ``float16`` and ``bfloat16`` are.

    Attributes:
        form: ``weights`` stores weights in 16 bits behind a Cast to float32, which ONNX Runtime
            computes once when it loads the model; ``compute`` converts the nodes that 16 bits suit,
            for providers that have kernels for them. ``auto`` takes what the target gains from.
    """

    form: Literal["auto", "weights", "compute"] = "auto"


class ActivationOverride(_Frozen):
    """Another scheme for activations; None keeps what is said more generally, or the target's.

    Attributes:
        type: The integers.
        symmetric: Whether the zero point is in the middle.
    """

    type: Literal["uint8", "int8", "uint16", "int16"] | None = None
    symmetric: bool | None = None


class WeightOverride(_Frozen):
    """Another scheme for the weight of a site; None keeps what is said more generally.

    Attributes:
        granularity: One scale for the tensor, or one for each output channel; not of blocks.
        bits: 7 leaves room for the sum of two products in 16 bits on CPUs without VNNI, whatever
            CPU the model is quantized on; 2 and 4 are for weights in blocks.
        block_size: Of weights in blocks, input channels that share a scale.
        symmetric: Of weights in blocks, whether zero points are fixed in the middle.
        algorithm: Of weights in blocks, how integers are chosen.
    """

    granularity: Literal["tensor", "channel"] | None = None
    bits: Literal[2, 4, 7, 8] | None = None
    block_size: Literal[16, 32, 64, 128, 256] | None = None
    symmetric: bool | None = None
    algorithm: BlockAlgorithm | None = None


class Rule(_Frozen):
    """What is different for the sites that match.

    Attributes:
        match: Patterns, of which one must match: a glob or ``re:`` expression for the site's whole
            name, or ``op:`` with an operator type. Globs know ``*``, ``?`` and ``[...]``.
        unless: Patterns of sites that the rule leaves alone all the same.
        keep: ``float`` leaves the site as it is.
        calibration: How the range of its activation is chosen.
        percentile: What the percentile method keeps here, in percent.
        activation: Another scheme for its activation.
        weight: Another scheme for its weight.
        reason: Why; stands in the report beside the site.
    """

    match: Annotated[tuple[str, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
    unless: Annotated[tuple[str, ...], BeforeValidator(_one_or_more)] = ()
    keep: Literal["float"] | None = None
    calibration: CalibrationMethod | None = None
    percentile: float | None = Field(default=None, gt=50.0, le=100.0)
    activation: ActivationOverride | None = None
    weight: WeightOverride | None = None
    reason: str = ""

    @field_validator("match", "unless")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            check_pattern(pattern)
        return patterns

    @model_validator(mode="after")
    def _says_one_thing(self) -> Rule:
        changes = (self.calibration, self.percentile, self.activation, self.weight)
        changed = any(change is not None for change in changes)
        if self.keep is None and not changed:
            msg = "the rule changes nothing: it needs keep, calibration, activation or weight"
            raise ValueError(msg)
        if self.keep is not None and changed:
            msg = 'keep = "float" leaves nothing to calibrate or to quantize otherwise'
            raise ValueError(msg)
        return self


class Recipe(_Frozen):
    """What the user wants; see :mod:`onnxq.recipe` for the file.

    Attributes:
        version: The version of the format.
        scheme: What the result is; ``auto`` picks by model and data.
        format: How integers are written: ``qdq`` keeps float operators between QuantizeLinear and
            DequantizeLinear, ``qoperator`` writes operators on integers, some of them in ONNX
            Runtime's own domain com.microsoft.
        target: What runs the model.
        seed: Seeds the choice of samples and the held-out split.
        eval_fraction: The part of the data that calibration does not see.
        channel_scaling: Whether channels of activations may be evened out (SmoothQuant) where that
            lowers the error of the sites that read them; in fp8 it does not.
        activation: Another scheme for all activations than the target's.
        calibration: How ranges are found.
        weights: How weights alone are stored.
        half: What float16 and bfloat16 are.
        provider_options: Options of execution providers, for every session of the run: a table for
            each provider, with the keys that ONNX Runtime documents.
        engine_cache: The folder in which TensorRT keeps its engines and timings of kernels; a
            relative one begins where the program was started.
        rules: What is different for some sites; a later rule wins.
    """

    version: Literal[1] = 1
    scheme: Scheme = "auto"
    format: Literal["qdq", "qoperator"] = "qdq"
    target: str = Field(default="cpu", min_length=1)
    seed: int = Field(default=0, ge=0)
    eval_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)
    channel_scaling: Literal["auto", "off"] = "auto"
    activation: ActivationOverride = ActivationOverride()
    calibration: CalibrationSettings = CalibrationSettings()
    weights: WeightSettings = WeightSettings()
    half: HalfSettings = HalfSettings()
    provider_options: dict[str, dict[str, str]] = Field(default_factory=dict)
    engine_cache: str | None = Field(default=None, min_length=1)
    rules: Annotated[tuple[Rule, ...], BeforeValidator(_one_or_more)] = ()

    def resolve(self, sites: Sequence[NamedSite]) -> tuple[RuleOutcome, ...]:
        """What the rules say about each site; see :func:`onnxq.recipe.rules.resolve_rules`."""
        return resolve_rules(self, sites)

    def narrowed(self, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Recipe:
        """The recipe with what ``--include`` and ``--exclude`` say, as rules after its own.

        Args:
            include: Patterns; a site that matches none of them stays float. Empty for all.
            exclude: Patterns; a site that matches one of them stays float.

        Raises:
            RecipeError: A pattern is malformed.
        """
        for option, patterns in (("--include", include), ("--exclude", exclude)):
            for pattern in patterns:
                try:
                    check_pattern(pattern)
                except ValueError as error:
                    code, text = "recipe.pattern", str(error)
                    raise RecipeError(code, text, where=option) from error
        added: list[Rule] = []
        if include:
            reason = f"not named by --include {' '.join(include)}"
            added.append(Rule(match=("*",), unless=tuple(include), keep="float", reason=reason))
        added += [
            Rule(match=(pattern,), keep="float", reason=f"--exclude {pattern}")
            for pattern in exclude
        ]
        return self.model_copy(update={"rules": (*self.rules, *added)})
