"""What a provider accepts and fuses, read from a file of this folder.

The files are data: ``cpu.toml`` records what the kernel probe showed, and a test compares the two.
A planner asks :meth:`Target.rule` for an operator and :func:`weight_scheme` for the integers that
weights may have on a given machine.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Mapping  # noqa: TC003 - pydantic reads it at run time
from dataclasses import dataclass, field, replace
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from onnxq.errors import InternalError, UsageError
from onnxq.numerics.half import HalfName  # noqa: TC001 - pydantic reads it at run time
from onnxq.numerics.schemes import FP8, Scheme

if TYPE_CHECKING:
    from onnxq.runtime.machine import Machine

Kind = Literal["weighted", "activation_matmul", "elementwise", "data_movement", "table"]
"""``weighted`` has a constant weight, ``data_movement`` only hands integers on."""

ActivationDtype = Literal["uint8", "int8", "float8e4m3fn"]

ACTIVATION_MATMUL: Final = "MatMul-activations"
"""The key of the rule for a MatMul of two activations."""

TABLE: Final = "Gather-table"
"""The key of the rule for a Gather of rows of a weight."""

_STRICT: Final = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class OpRule:
    """What a provider does with one operator between Q/DQ pairs.

    Attributes:
        kind: What sort of operator it is.
        integer: Whether it runs in integers at all. Q/DQ around one that does not is pure cost.
        output_q: ``"required"`` if it runs in integers only with a Q/DQ pair on every output;
            ``"optional"`` if also with a float output.
        activations: The integers of the activations with which it runs in integers, and FP8 where
            it runs in that.
        same_scale: Whether its output must have its input's scale and zero point.
        float_output_bias: For a weighted operator with a float output, the bias with which it stays
            in integers: ``"int32"`` (quantized by the product of activation's and weight's scale),
            or ``"none"``.
        constants: The integers of the activations with which a quantized constant may be its other
            operand. A constant left in float always makes it a float operator.
        weight_axis: The axis along which its weight has a scale for each slice; None for that of
            the output channels.
        merges: Operators of two operands behind it that the provider merges into it if their other
            operand is quantized.
        note: Where the knowledge comes from, and what else there is to know.
    """

    __pydantic_config__ = _STRICT

    kind: Kind
    integer: bool
    output_q: Literal["required", "optional"] = "required"
    activations: tuple[ActivationDtype, ...] = ()
    same_scale: bool = False
    float_output_bias: Literal["int32", "none"] = "none"
    constants: tuple[ActivationDtype, ...] = ()
    weight_axis: int | None = None
    merges: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class DynamicRules:
    """What a provider runs in integers when activations are quantized at run time.

    Attributes:
        kernels: The fused kernel by operator.
        declined: Operators that have a kernel which is not worth it, with the reason.
    """

    __pydantic_config__ = _STRICT

    kernels: Mapping[str, str] = field(default_factory=dict)
    declined: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BlockWidth:
    """What the kernel for weights in blocks does with integers of one width.

    Attributes:
        accuracy_levels: The levels that are worth it, the fastest first. 4 rounds activations to
            int8 in blocks, 1 keeps them float32.
        slow_levels: Those of them that take several times as long as float, for few rows at least:
            only where nothing else is accurate enough.
        block_sizes: The sizes to measure, the fastest first; the first level has a kernel for each.
            A size without one is computed in float, however slow.
        least: The smallest that it has a kernel for, which short weights take.
        note: What else there is to know.
    """

    __pydantic_config__ = _STRICT

    accuracy_levels: tuple[int, ...]
    block_sizes: tuple[int, ...]
    least: int = 16
    slow_levels: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class BlockRules:
    """The kernels for weights in blocks beside float activations.

    Attributes:
        kernel: The name of the one that multiplies, or of the operator that stands in front of a
            product which the provider compiles together with it.
        ops: The operators that can be written with it.
        lookup: The name of the one that looks rows up; empty if there is none.
        lookup_symmetric: Whether it computes only rows whose zero points are all alike.
        even: Whether the last dimension of a stored weight must be even.
        widths: What the first does, by the width of the integers.
        form: What is written by default: ``kernel`` for the kernel's own operator, ``dq`` for a
            DequantizeLinear in blocks.
        symmetric: Whether zero points must be 0.
    """

    __pydantic_config__ = _STRICT

    kernel: str
    ops: tuple[str, ...]
    lookup: str
    widths: Mapping[int, BlockWidth]
    form: Literal["kernel", "dq"] = "kernel"
    symmetric: bool = False
    lookup_symmetric: bool = False
    even: bool = False


@dataclass(frozen=True)
class HalfRules:
    """What a provider makes of a floating type of 16 bits.

    Attributes:
        form: What a conversion is by default: ``weights`` stores weights in the type and computes
            in float32, ``compute`` computes in it.
        kernels: The operators that have a kernel for it, or that the provider runs all the same;
            None for all.
        declined: Operators that must not have it here, with the reason.
        note: What it costs to compute in it.
    """

    __pydantic_config__ = _STRICT

    form: Literal["weights", "compute"]
    kernels: tuple[str, ...] | None = None
    declined: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Float8Rules:
    """What a provider runs in FP8 (E4M3FN); :attr:`OpRule.activations` says which operators.

    Attributes:
        min_opset: The lowest opset in which it is written.
        least_channels: A Conv of fewer channels, a group's inputs or all outputs, has no kernel.
        channel_multiple: Nor has one whose two numbers of channels differ modulo this.
        most_taps: Nor has one whose window has more positions.
        notes: What else there is to know.
    """

    __pydantic_config__ = _STRICT

    min_opset: int
    least_channels: int = 1
    channel_multiple: int = 1
    most_taps: int | None = None
    notes: tuple[str, ...] = field(default=())

    def why_not(self, shape: tuple[int, ...]) -> str:
        """Why a Conv with a weight ``[out, in a group, window...]`` has no kernel; empty if it has.

        Depthwise ones read one channel a group.
        """
        made, read, *window = shape
        channels = f"of {read} input channels a group and {made} outputs"
        least, multiple, taps = self.least_channels, self.channel_multiple, math.prod(window)
        if min(made, read) < least:
            return f"{channels}, fewer than {least}"
        if made % multiple != read % multiple:
            return f"{channels}, which differ modulo {multiple}"
        if self.most_taps is not None and taps > self.most_taps:
            return f"with a window of {taps} positions, more than {self.most_taps}"
        return ""


FLOAT_ONLY: Final = OpRule(kind="elementwise", integer=False, note="not in the target's table")
"""The rule for an operator that a target says nothing of."""


@dataclass(frozen=True)
class Target:
    """What a provider accepts, fuses and wants.

    Attributes:
        name: The target's name, the file's without ``.toml``.
        provider: The short name of its execution provider.
        probed_with: The version of ONNX Runtime whose probe the file records; empty where none has
            been run, and what the file says is of documents.
        min_opset: The lowest opset in which its integer models can be written.
        max_opset: The highest whose QuantizeLinear, DequantizeLinear and Cast it implements; None
            where no limit is known.
        activation: The scheme of activations, per tensor.
        weight: The scheme of weights; the granularity is decided at each site.
        saturates_without_vnni: Whether x86 processors without VNNI add products in 16 bits.
        absorbs: Operators between an integer operator and its output's Q/DQ pair that vanish if the
            pair represents nothing outside their range: ``Relu`` if the lowest integer stands for
            0, ``Clip`` if the representable range lies within its bounds.
        keep_apart: Fused operators that are slower than what they replace; the graph is written
            so that they are not made.
        covers: Operators that keep a product float where they stand between it and float readers.
        lone_quantizer: Whether a quantizer behind a product must be all that reads it; else the
            product stays float.
        ops: The rule of each operator.
        dynamic: What runs in integers when activations are quantized at run time.
        blocks: The kernel for weights in blocks; None if there is none.
        half: What becomes of float16 and bfloat16, by the type's name.
        float8: What it runs in FP8; None if nothing.
        widens: Types of values that the provider computes in float32 anyway.
        bias: What a bias beside a quantized weight is: ``int32`` in units of activation's times
            weight's scale, or ``float``, left as it is.
        activation_products: Whether products of two activations are quantized as well.
        lookups: Whether rows of a table can be stored as integers and looked up.
        integer_operators: Whether it runs operators on integers (QLinearConv, QLinearMatMul, ...);
            else static INT8 can be written as Q/DQ pairs alone.
        discouraged: Why a scheme is a poor choice for the provider, by its name.
        preferred: The scheme that ``auto`` takes where nothing can be measured; empty for the one
            that the data allows.
        notes: What else there is to know, such as what costs latency.
    """

    __pydantic_config__ = _STRICT

    name: str
    provider: str
    probed_with: str
    min_opset: int
    activation: Scheme
    weight: Scheme
    saturates_without_vnni: bool
    absorbs: tuple[str, ...]
    keep_apart: tuple[str, ...]
    covers: tuple[str, ...]
    ops: Mapping[str, OpRule]
    dynamic: DynamicRules = DynamicRules()
    blocks: BlockRules | None = None
    max_opset: int | None = None
    half: Mapping[HalfName, HalfRules] = field(default_factory=dict)
    float8: Float8Rules | None = None
    widens: tuple[Literal["FLOAT16", "BFLOAT16"], ...] = field(default=())
    bias: Literal["int32", "float"] = "int32"
    activation_products: bool = False
    lookups: bool = True
    integer_operators: bool = True
    lone_quantizer: bool = False
    discouraged: Mapping[str, str] = field(default_factory=dict)
    preferred: Literal["", "float16"] = ""
    notes: tuple[str, ...] = field(default=())

    def rule(self, op: str) -> OpRule:
        """The rule of an operator, or of :data:`ACTIVATION_MATMUL` or :data:`TABLE`.

        One that the target says nothing of counts as float.
        """
        return self.ops.get(op, FLOAT_ONLY)

    def in_float8(self) -> Target:
        """The same provider with FP8 in the place of integers."""

        def runs(rule: OpRule) -> bool:
            return self.float8 is not None and FP8.number in rule.activations

        ops = {op: replace(rule, integer=runs(rule)) for op, rule in self.ops.items()}
        opset = self.min_opset if self.float8 is None else self.float8.min_opset
        return replace(self, activation=FP8, weight=FP8, ops=MappingProxyType(ops), min_opset=opset)


@dataclass(frozen=True, slots=True)
class WeightScheme:
    """The integers that weights may have on a machine.

    Attributes:
        scheme: All of them.
        pairwise: Whether neighbours in a sum are bounded (``Scheme.pairs``).
        reason: Why they are; empty if they are not.
    """

    scheme: Scheme
    pairwise: bool = False
    reason: str = ""


def weight_scheme(target: Target, machine: Machine) -> WeightScheme:
    """The scheme of weights for a target on a machine.

    x86 processors without VNNI multiply uint8 by int8 with ``VPMADDUBSW``, which adds two products
    in 16 bits with saturation: 2 · 255 · 127 = 64,770 does not fit into 32,767. Applies where the
    target's provider runs on the processor.
    """
    if not target.saturates_without_vnni or not machine.x86 or machine.vnni:
        return WeightScheme(target.weight)
    reason = (
        "neighbouring weights of integer products are bounded together, which costs up to one of "
        "their 8 bits, because this processor has no VNNI: its sums of two uint8 x int8 products "
        "saturate at 16 bits"
    )
    return WeightScheme(target.weight, pairwise=True, reason=reason)


def known_targets() -> tuple[str, ...]:
    """The names of the targets there are."""
    files = resources.files("onnxq.targets").iterdir()
    return tuple(sorted(file.name[:-5] for file in files if file.name.endswith(".toml")))


@functools.cache
def load_target(name: str) -> Target:
    """Load a target by its name.

    Raises:
        UsageError: There is none of that name.
        InternalError: Its file, part of this package, is damaged.
    """
    names = known_targets()
    if name not in names:
        code, msg = "targets.unknown", f"there is no target called {name!r}"
        raise UsageError(code, msg, remedy=f"targets: {', '.join(names)}")
    text = (resources.files("onnxq.targets") / f"{name}.toml").read_text(encoding="utf-8")
    return parse_target(text, name)


def parse_target(text: str, name: str) -> Target:
    """Read a target from the text of its file.

    Raises:
        InternalError: It is no TOML, lacks a key, or has an unknown key or a bad value.
    """
    try:
        target = TypeAdapter(Target).validate_python({"name": name, **tomllib.loads(text)})
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        code, msg = "targets.file", f"damaged target file: {' '.join(str(error).split())}"
        raise InternalError(code, msg, where=f"{name}.toml") from error
    return replace(target, ops=MappingProxyType(dict(target.ops)))
