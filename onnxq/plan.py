"""The plan: everything that was decided, and nothing that still needs data.

A plan lies on disk as two files in one folder: ``plan.json``, which a person can read and compare,
and ``plan.safetensors``, which holds what cannot be a line of text (scales per channel, integers of
biases and of weights that an algorithm chose). It carries the digest of the model and of the data.
Passes execute a plan and decide nothing: the same model and plan give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from onnxq.errors import PlanError, UsageError
from onnxq.files import open_regular, read_regular
from onnxq.numerics.channel_major import ChannelMajor
from onnxq.numerics.half import HalfName
from onnxq.numerics.schemes import (
    FP8,
    WEIGHT_INT8,
    Granularity,
    Number,
    PerAxis,
    PerTensor,
    QParams,
    Scheme,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

SCHEMA_VERSION = 1
JSON_NAME = "plan.json"
ARRAYS_NAME = "plan.safetensors"

_MOST_BYTES = 256 << 20
"""Of ``plan.json``; a site takes some hundred."""

Bits = Annotated[int, Field(ge=2, le=16)]
WeightBits = Annotated[int, Field(ge=2, le=8)]
"""Width of integers."""

BLOCK_BITS = (2, 4, 8)
"""Widths of weights in blocks."""

_ACCURACY_LEVELS = (0, 1, 4)
LEAST_BLOCK = 16
"""Of the kernels for weights in blocks."""

_OPSET_OF_BLOCKS = 21
_OPSET_OF_BITS = {4: 21, 2: 25}
"""From which opset on DequantizeLinear and Cast take blocks, and integers of these widths."""

Decision = Literal[
    "int8",
    "int8-dynamic",
    "int8-weights",
    "fp8",
    "int2",
    "int4",
    "uint4",
    "float16",
    "bfloat16",
    "float",
]
"""``int8`` reads integers of a calibrated range, ``fp8`` numbers of 8 bits with an exponent;
``int8-dynamic`` finds the range at run time;
``int8-weights``, ``int2``, ``int4`` and ``uint4`` read float activations and store their weight as
integers; ``float16`` and ``bfloat16`` compute in that type, or store their weights in it."""

Format = Literal["qdq", "qoperator"]
"""How integers are written: float operators between Q/DQ pairs, or operators on integers."""


BlockFormat = Literal["kernel", "dq", "folded"]
"""How weights in blocks are written; see :class:`BlockEntry`."""


def opset_of_blocks(form: BlockFormat, bits: int) -> int:
    """The opset in which ONNX has the operators of a form and integers of a width; 1 for any."""
    if form == "kernel":
        return 1
    if bits in _OPSET_OF_BITS:
        return _OPSET_OF_BITS[bits]
    return _OPSET_OF_BLOCKS if form == "dq" else 1


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reader(_Entry):
    """One input of one node."""

    node: str
    input: int


class SiteEntry(_Entry):
    """What happens to one site, and why."""

    name: str
    op: str
    decision: Decision
    reason: str
    macs: int | None = None


class ActivationEntry(_Entry):
    """A tensor that passes through QuantizeLinear and DequantizeLinear on the way to some readers.

    Attributes:
        tensor: The value's name.
        bits: Width of the integers.
        signed: Whether they are signed.
        scale: The one scale.
        zero_point: The one zero point.
        method: How the range was chosen.
        low: Lower end of the chosen range.
        high: Upper end of the chosen range.
        readers: Who reads the quantized tensor; everybody else keeps reading the float one.
        number: What it is rounded to.
    """

    tensor: str
    bits: Bits
    signed: bool
    scale: float = Field(gt=0, allow_inf_nan=False)
    zero_point: int
    method: str
    low: float
    high: float
    readers: tuple[Reader, ...]
    number: Number = "integer"

    @model_validator(mode="after")
    def _zero_point_is_one(self) -> ActivationEntry:
        scheme = self.scheme
        if scheme.floating and not (self.bits == scheme.bits and self.signed):
            msg = f"{self.bits} bits are no {scheme.label}"
            raise ValueError(msg)
        fits = scheme.qmin <= self.zero_point <= scheme.qmax and not (
            scheme.floating and self.zero_point
        )
        if not fits:
            msg = f"zero point {self.zero_point} is no {scheme.label}"
            raise ValueError(msg)
        return self

    @property
    def scheme(self) -> Scheme:
        """What it is rounded to, one scale in all."""
        return FP8 if self.number != "integer" else Scheme(bits=self.bits, signed=self.signed)

    def params(self) -> QParams:
        """The parameters as arrays."""
        scheme = self.scheme
        zero_point = np.asarray(self.zero_point, scheme.dtype)
        return QParams(np.asarray(self.scale, np.float32), zero_point, scheme)


class WeightEntry(_Entry):
    """An initializer that is stored as integers; scales (and chosen integers) are in the arrays.

    Attributes:
        initializer: The weight's name.
        bits: Width of its integers.
        axis: Its axis that counts output channels; None for one scale in all.
        readers: Who reads the integers.
        pairs: Its axes along which neighbours are bounded (``Scheme.pairs``).
        folded: Whether they are multiplied by their scales when the model is loaded, and are float
            from then on.
        number: What it is rounded to.
    """

    initializer: str
    bits: WeightBits
    axis: int | None
    readers: tuple[Reader, ...]
    pairs: tuple[int, ...] = ()
    folded: bool = False
    number: Number = "integer"

    @model_validator(mode="after")
    def _is_plain_float8(self) -> WeightEntry:
        plain = self.bits == FP8.bits and not self.pairs and not self.folded
        if self.number != "integer" and not plain:
            msg = "FP8 has 8 bits, no pairs, and is not folded"
            raise ValueError(msg)
        return self

    @property
    def scheme(self) -> Scheme:
        """Symmetric signed integers or FP8, per axis or per tensor."""
        granularity: Granularity = PerTensor() if self.axis is None else PerAxis(self.axis)
        if self.number != "integer":
            return replace(FP8, granularity=granularity)
        return replace(WEIGHT_INT8, bits=self.bits, granularity=granularity, pairs=self.pairs)


class BiasEntry(_Entry):
    """A bias, as a vector, stored as int32 in units of activation scale times weight scale."""

    node: str
    input: int
    initializer: str


class EmbeddingEntry(_Entry):
    """A Gather whose table is stored as int8 with one scale for each row."""

    node: str
    initializer: str


class ConstantEntry(_Entry):
    """A constant that a node without weights reads as integers of the activations' type.

    Attributes:
        node: The node.
        input: Which of its inputs.
        initializer: The constant.
        form: What is stored of it: itself, its negative or its reciprocal.
        op: What the node becomes: Add for a Sub of a constant, Mul for a Div by one.
        scale: The one scale.
        zero_point: The one zero point.
    """

    node: str
    input: int
    initializer: str
    form: Literal["same", "negated", "reciprocal"]
    op: Literal["Add", "Mul"]
    scale: float = Field(gt=0, allow_inf_nan=False)
    zero_point: int


class FoldedEntry(_Entry):
    """A constant that takes the division of an activation's channels.

    Attributes:
        node: The node that reads it; other readers keep what they read.
        input: At which input.
        axis: Its axis along which it is divided, counted from the end.
        source: Number of the array ``scaling/TENSOR/source/NUMBER``, which names for each position
            along the axis the activation's channel whose factor divides it, -1 for none; None where
            the channels are the activation's own, in their order.
    """

    node: str
    input: int
    axis: int = Field(lt=0)
    source: int | None = None


class ScalingEntry(_Entry):
    """Channels of an activation that are divided by a factor, and the weights multiplied by it.

    Attributes:
        tensor: The activation.
        axis: Its axis that counts channels, from the end.
        folds: The constants that take the division; empty where a Mul is inserted instead.
        between: Values between these constants and the activation, which are divided as well.
        readers: The sites' activation inputs.
        weights: The sites' weight inputs.
        axes: For each of ``weights`` the axis of the weight that counts input channels.
    """

    tensor: str
    axis: int = Field(default=-1, lt=0)
    folds: tuple[FoldedEntry, ...] = ()
    between: tuple[str, ...] = ()
    readers: tuple[Reader, ...]
    weights: tuple[Reader, ...]
    axes: tuple[int, ...]

    def factor(self, arrays: Mapping[str, np.ndarray]) -> NDArray[np.float32]:
        """What each channel of the activation is divided by.

        Raises:
            PlanError: The arrays lack it.
        """
        return np.asarray(_array(arrays, f"scaling/{self.tensor}/factor"), np.float32)

    def divisor(self, fold: FoldedEntry, arrays: Mapping[str, np.ndarray]) -> NDArray[np.float32]:
        """What one of the constants is divided by along its axis.

        Raises:
            PlanError: The arrays lack it, or name channels that the activation has not.
        """
        factor = self.factor(arrays)
        if fold.source is None:
            return factor
        source = _array(arrays, f"scaling/{self.tensor}/source/{fold.source}")
        if source.size and not (source.min() >= -1 and source.max() < factor.size):
            raise scaling_misfit(self.tensor)
        return np.where(source < 0, np.float32(1), factor[source])


def scaling_misfit(name: str) -> PlanError:
    """The refusal of factors that do not fit the tensor of this name."""
    code, text = "plan.axis", f"the factors for {name!r} do not fit it"
    return PlanError(code, text, remedy="make a plan for this model")


def _array(arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    if key not in arrays:
        code, text = "plan.incomplete", f"the plan lacks the array {key!r}"
        raise PlanError(code, text, remedy="make the plan again with --plan-out")
    return arrays[key]


class DynamicEntry(_Entry):
    """A product whose activation is quantized at run time.

    Attributes:
        node: A MatMul or Gemm, in whatever graph.
        activation: The input that carries activations.
        weight: The input that carries the weight.
        initializer: The weight's name.
        bits: Width of its integers; symmetric and signed, a scale for each output channel.
        axis: The weight's axis that counts output channels.
        pairs: Its axes along which neighbours are bounded (``Scheme.pairs``).
    """

    node: str
    activation: int
    weight: int
    initializer: str
    bits: WeightBits
    axis: int
    pairs: tuple[int, ...] = ()

    @property
    def scheme(self) -> Scheme:
        """Symmetric signed integers, a scale for each output channel."""
        return replace(
            WEIGHT_INT8, bits=self.bits, granularity=PerAxis(self.axis), pairs=self.pairs
        )


class DynamicRecurrentEntry(_Entry):
    """An LSTM whose input and state are quantized at run time (DynamicQuantizeLSTM).

    Attributes:
        node: The LSTM.
        weights: Names of its two weights, ``[directions, 4 hidden, columns]``.
        bits: Width of their integers.
        pairwise: Whether neighbours of a row are bounded (``Scheme.pairs``).
    """

    node: str
    weights: tuple[str, str]
    bits: WeightBits
    pairwise: bool = False

    @property
    def scheme(self) -> Scheme:
        """Symmetric signed integers of the rows ``[directions · 4 hidden, columns]``."""
        pairs = (1,) if self.pairwise else ()
        return replace(WEIGHT_INT8, bits=self.bits, granularity=PerAxis(0), pairs=pairs)


class InBlocks(_Entry):
    """A node whose weight is stored as unsigned integers 0 to ``2^bits - 1`` in blocks.

    Attributes:
        node: The node, in whatever graph.
        initializer: The weight's name.
        bits: Width of the integers: 2, 4 or 8.
        symmetric: Whether all zero points are ``2^(bits - 1)``; else the arrays hold them.
        block_size: So many consecutive input channels of an output channel share a scale.
    """

    node: str
    initializer: str
    bits: int
    symmetric: bool = True
    block_size: int = Field(ge=1)

    @model_validator(mode="after")
    def _has_whole_bytes(self) -> InBlocks:
        if self.bits not in BLOCK_BITS:
            msg = f"{self.bits} bits; weights in blocks have 2, 4 or 8"
            raise ValueError(msg)
        return self

    @property
    def fits_kernels(self) -> bool:
        """Whether ONNX Runtime's operators on packed blocks take this size."""
        return self.block_size >= LEAST_BLOCK and self.block_size.bit_count() == 1

    def scheme(self, granularity: Granularity) -> Scheme:
        """The integers; blocks lie along another axis in ``[N, K]`` than in the weight itself."""
        return Scheme(self.bits, symmetric=self.symmetric, granularity=granularity)


class BlockEntry(InBlocks):
    """A MatMul, Gemm or Conv with float activations whose weight is stored in blocks.

    Attributes:
        activation: The input that carries activations.
        weight: The input that carries the weight.
        axis: The weight's axis that counts output channels.
        sums: The weight's axes that products are summed over; empty for all but ``axis``.
        accuracy_level: How MatMulNBits may compute: 4 with int8 activations, 0 and 1 with float32.
        form: ``kernel``: MatMulNBits multiplies the packed integers. ``dq``: DequantizeLinear in
            front of the node. ``folded``: multiplied out when the model is loaded.
    """

    activation: int
    weight: int
    axis: int
    sums: tuple[int, ...] = ()
    accuracy_level: int = 0
    form: BlockFormat = "kernel"

    @model_validator(mode="after")
    def _has_a_kernel(self) -> BlockEntry:
        if self.accuracy_level not in _ACCURACY_LEVELS:
            msg = f"accuracy level {self.accuracy_level}; MatMulNBits has 0, 1 and 4"
            raise ValueError(msg)
        if self.form == "kernel" and not self.fits_kernels:
            msg = f"block size {self.block_size}; MatMulNBits takes 16, 32, 64, 128, ..."
            raise ValueError(msg)
        return self

    @property
    def minimum_opset(self) -> int:
        """The opset in which ONNX has its operators; 1 where any will do."""
        return opset_of_blocks(self.form, self.bits)

    def layout(self, shape: tuple[int, ...]) -> ChannelMajor:
        """The way from the weight, of this shape, to ``[N, K]``.

        Raises:
            PlanError: The weight has no such axes.
        """
        rank = len(shape)
        sums = self.sums or tuple(axis for axis in range(rank) if axis != self.axis)
        fits = set(sums) < set(range(rank)) and self.axis in set(range(rank)) - set(sums)
        if not fits or sums != tuple(sorted(set(sums))):
            code, text = "plan.axis", f"the plan names axes of {self.initializer!r} that it lacks"
            raise PlanError(code, text, where=self.node, remedy="make a plan for this model")
        return ChannelMajor(shape, sums)


class BlockEmbeddingEntry(InBlocks):
    """A Gather along axis 0 whose table ``[rows, K]`` is stored in blocks along its rows.

    Attributes:
        stored: Whose ``block/NAME/...`` arrays and integers it reads: its own table's, or those of
            the product that multiplies by the transposed table and shares one copy with it.
    """

    stored: str

    @model_validator(mode="after")
    def _has_a_kernel(self) -> BlockEmbeddingEntry:
        if not self.fits_kernels:
            msg = f"block size {self.block_size}; GatherBlockQuantized takes 16, 32, 64, 128, ..."
            raise ValueError(msg)
        return self


class MaskEntry(_Entry):
    """A constant that masks, and is bounded to a magnitude that 16 bits hold."""

    initializer: str
    magnitude: float = Field(gt=0, allow_inf_nan=False)


class HalfWeightEntry(_Entry):
    """A float32 constant that is stored in 16 bits; who reads float32 reads it through a Cast."""

    initializer: str
    type: HalfName


class HalfNodeEntry(_Entry):
    """A node that computes in 16 bits.

    Attributes:
        node: A node, in whatever graph; a Cast then casts to ``type``.
        type: The type.
        inputs: The inputs that it reads in that type.
        outputs: The outputs that it makes in that type.
    """

    node: str
    type: HalfName
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class AbsorbedEntry(_Entry):
    """A Relu or Clip that the quantizer behind it already performs, and that is taken out."""

    node: str
    op: str


class KeptApartEntry(_Entry):
    """A node that is written as ``op``, which computes the same and is not fused.

    ``Copy`` leaves the node as it is and puts a Sum of its one output behind it.
    """

    node: str
    op: Literal["Sum", "Max", "Copy"]


class Provenance(_Entry):
    """Where a plan comes from and how its result did; dates are left out, so that bytes repeat.

    Attributes:
        recipe: What was wanted, where it differs from the default, in the recipe's own words.
        versions: Of ``onnxruntime`` and ``onnx``, which decided and measured.
        measured: What the comparison with the float model came to, by name; empty where there was
            none.
    """

    recipe: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    measured: dict[str, float | int | str] = Field(default_factory=dict)


class Plan(_Entry):
    """What was decided for one model.

    Attributes:
        format: How the model is written; ``qoperator`` needs the domain com.microsoft.
        independent: Whether data that calibration did not see was kept for the comparison.
        provenance: Where it comes from; None of one that is only tried.
        arrays: What cannot be a line of text, by key: ``weight/NAME/scale``,
            ``weight/NAME/integers`` (only where an algorithm chose them), ``bias/NODE/scale``,
            ``bias/NODE/integers``, ``constant/NODE/integers``, ``embedding/NAME/scale``,
            ``scaling/TENSOR/factor``, ``scaling/TENSOR/source/NUMBER``. Of weights in blocks, as a
            matrix of N output by K input channels whatever the weight's layout:
            ``block/NAME/scale``, float32 ``[N, blocks]``; ``block/NAME/zero_point``, uint8
            ``[N, blocks]``, only where not symmetric; ``block/NAME/packed``, uint8
            ``[N, blocks, ceil(block_size · bits / 8)]``, only where an algorithm chose the integers
            (``numerics/packing.py`` has their layout).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    schema_version: Literal[1] = 1
    onnxq_version: str
    model_digest: str
    data_digest: str
    scheme: str
    format: Format = "qdq"
    target: str
    minimum_opset: int
    independent: bool
    provenance: Provenance | None = None
    sites: tuple[SiteEntry, ...]
    scalings: tuple[ScalingEntry, ...] = ()
    activations: tuple[ActivationEntry, ...] = ()
    weights: tuple[WeightEntry, ...] = ()
    biases: tuple[BiasEntry, ...] = ()
    constants: tuple[ConstantEntry, ...] = ()
    embeddings: tuple[EmbeddingEntry, ...] = ()
    dynamic: tuple[DynamicEntry, ...] = ()
    recurrent: tuple[DynamicRecurrentEntry, ...] = ()
    blocks: tuple[BlockEntry, ...] = ()
    block_embeddings: tuple[BlockEmbeddingEntry, ...] = ()
    masks: tuple[MaskEntry, ...] = ()
    half_weights: tuple[HalfWeightEntry, ...] = ()
    half_nodes: tuple[HalfNodeEntry, ...] = ()
    absorbed: tuple[AbsorbedEntry, ...] = ()
    kept_apart: tuple[KeptApartEntry, ...] = ()
    warnings: tuple[str, ...] = ()
    arrays: dict[str, np.ndarray] = Field(default_factory=dict, exclude=True, repr=False)

    def array(self, kind: str, name: str, what: str) -> NDArray[np.generic]:
        """The array ``kind/name/what``.

        Raises:
            PlanError: The plan lacks it.
        """
        return _array(self.arrays, f"{kind}/{name}/{what}")


def plan_digest(plan: Plan) -> str:
    """``sha256:...`` over every decision and array, whatever the plan says of itself."""
    said = {
        "onnxq_version",
        "model_digest",
        "data_digest",
        "target",
        "independent",
        "provenance",
        "warnings",
    }
    hasher = hashlib.sha256(plan.model_dump_json(exclude=said).encode())
    for key, array in sorted(plan.arrays.items()):
        hasher.update(f"{key}\0{array.dtype.str}\0{array.shape}\0".encode())
        hasher.update(np.ascontiguousarray(array).data)
    return f"sha256:{hasher.hexdigest()}"


def check_plan_folder(folder: Path | None) -> None:
    """Refuse before any work a folder that a plan cannot be written to.

    Raises:
        UsageError: It is a file.
    """
    if folder is not None and folder.exists() and not folder.is_dir():
        code, text = "usage.is_file", "this is a file, a folder for the plan is wanted"
        raise UsageError(code, text, where=str(folder), remedy="name a folder")


def save_plan(plan: Plan, folder: Path) -> None:
    """Write ``plan.json`` and ``plan.safetensors`` into ``folder``, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    # Not np.ascontiguousarray, which would make a vector of the one scale of a tensor.
    arrays = {key: np.asarray(value, order="C") for key, value in sorted(plan.arrays.items())}
    staged = folder / f".{ARRAYS_NAME}.{os.getpid()}"
    try:
        save_file(arrays, staged)
        staged.replace(folder / ARRAYS_NAME)
        staged.write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8")
        staged.replace(folder / JSON_NAME)
    finally:
        staged.unlink(missing_ok=True)


def load_plan(folder: Path) -> Plan:
    """Read a plan.

    Raises:
        PlanError: A file is missing, damaged, or of another version.
    """
    where = str(folder / JSON_NAME)
    remedy = "make the plan again with `onnxq quantize ... --plan-out DIR`"
    try:
        raw = json.loads(read_regular(folder / JSON_NAME, _MOST_BYTES).decode("utf-8"))
        open_regular(folder / ARRAYS_NAME).close()
        arrays = load_file(folder / ARRAYS_NAME)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        code, text = "plan.unreadable", f"the plan cannot be read: {reason}"
        raise PlanError(code, text, where=where, remedy=remedy) from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        code, text = "plan.version", f"plan version {version!r}; this onnxq reads {SCHEMA_VERSION}"
        raise PlanError(code, text, where=where, remedy=remedy)
    try:
        return Plan.model_validate({**raw, "arrays": arrays})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        code, text = "plan.invalid", f"{key}: {first['msg']}"
        raise PlanError(code, text, where=where, remedy=remedy) from error


def check_digest(plan: Plan, digest: str, model_path: str) -> None:
    """Refuse to use a plan with another model than the one it was made for.

    Raises:
        PlanError: The digests differ.
    """
    if plan.model_digest != digest:
        code, text = "plan.other_model", "the plan was made for another model (digests differ)"
        remedy = f"plan: {plan.model_digest}, model: {digest}; make a plan for this model"
        raise PlanError(code, text, where=model_path, remedy=remedy)
