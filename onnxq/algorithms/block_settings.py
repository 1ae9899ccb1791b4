"""How each site's weight is stored in blocks, by recipe and target; and which cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

from onnxq.algorithms.block_algorithm import ALGORITHMS, WITH_DATA, WITHOUT_DATA
from onnxq.algorithms.block_plan import BlockSpec
from onnxq.errors import UsageError
from onnxq.graph.edit import constant_tensor, value_by_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir

    from onnxq.graph.sites import Site
    from onnxq.plan import Decision
    from onnxq.recipe import Recipe, RuleOutcome
    from onnxq.targets import BlockWidth, Target

BITS: Final[dict[str, int]] = {"int2": 2, "int4": 4, "uint4": 4, "int8-weights": 8}
"""The widths of the schemes that store weights in blocks."""

Form = Literal["kernel", "dq", "folded"]

_FORMS: dict[str, Form] = {"auto": "kernel", "blocks": "kernel", "dq": "dq", "folded": "folded"}


@dataclass(frozen=True, slots=True)
class BlockSettings:
    """What a recipe asks for in general.

    Attributes:
        scheme: The scheme's name.
        bits: Width of the integers.
        algorithm: How they are chosen.
        symmetric: Whether zero points are fixed; None leaves it to the error.
        form: What is written.
        block_sizes: The sizes to measure, or the one that is wanted.
        accuracy_levels: The levels to measure, or the one that is wanted.
    """

    scheme: Decision
    bits: int
    algorithm: str
    symmetric: bool | None
    form: Form
    block_sizes: tuple[int, ...]
    accuracy_levels: tuple[int, ...]


def block_settings(recipe: Recipe, target: Target, *, data: bool) -> BlockSettings:
    """What the recipe asks for, made definite.

    Args:
        recipe: Its scheme is one of :data:`BITS`.
        target: What kernels there are.
        data: Whether there is calibration data.

    Raises:
        UsageError: The target has no kernel for it, or the algorithm needs data.
    """
    wanted, scheme = recipe.weights, cast("Decision", recipe.scheme)
    bits = BITS[scheme]
    form = _FORMS[wanted.form]
    width = _width(target, bits) if form == "kernel" else None
    algorithm = wanted.algorithm or (WITH_DATA if data else WITHOUT_DATA)
    if not data and algorithm != "auto" and ALGORITHMS[algorithm].needs_activations:
        code, text = "usage.no_data", f"{algorithm} needs calibration data"
        remedy = "give --data; --algorithm hqq, mse and rtn do without"
        raise UsageError(code, text, where="--algorithm", remedy=remedy)
    if not data and wanted.sequential:
        code, text = "usage.no_data", "sequential refinement of weights needs calibration data"
        remedy = "give --data, or leave out sequential under [weights] of the recipe"
        raise UsageError(code, text, where="weights.sequential", remedy=remedy)
    symmetric = wanted.symmetric
    if symmetric is None and algorithm != "auto":
        symmetric = False
    sizes = (128, 64, 32) if width is None else width.block_sizes
    levels = (0,) if width is None else width.accuracy_levels
    return BlockSettings(
        scheme=scheme,
        bits=bits,
        algorithm=algorithm,
        symmetric=symmetric,
        form=form,
        block_sizes=(wanted.block_size,) if wanted.block_size else sizes,
        accuracy_levels=(wanted.accuracy_level,) if wanted.accuracy_level else levels,
    )


def _width(target: Target, bits: int) -> BlockWidth:
    rules = target.blocks
    if rules is None or bits not in rules.widths:
        have = "" if rules is None else f"; it has them for {_listed(rules.widths)} bits"
        code = "usage.no_kernel"
        text = f"{target.name} has no kernel for weights of {bits} bits in blocks{have}"
        remedy = 'Write form = "dq" or "folded" under [weights] of the recipe.'
        raise UsageError(code, text, where="--scheme", remedy=remedy)
    return rules.widths[bits]


def _listed(widths: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(widths)))


def block_specs(
    sites: Sequence[Site],
    settings: BlockSettings,
    outcomes: Mapping[str, RuleOutcome],
    size: int,
    level: int,
) -> dict[str, BlockSpec]:
    """How each site that is no lookup is stored, by name.

    Args:
        sites: The sites that are quantized.
        settings: What is asked for in general.
        outcomes: What the recipe's rules say of each site.
        size: The block size, where no rule says another.
        level: The accuracy level.
    """
    found = {}
    for site in sites:
        if site.activation is None:
            continue
        rule = outcomes[site.name].weight if site.name in outcomes else None
        bits, symmetric, algorithm = settings.bits, settings.symmetric, settings.algorithm
        here = size
        if rule is not None:
            bits = rule.bits or bits
            here = rule.block_size or here
            symmetric = symmetric if rule.symmetric is None else rule.symmetric
            algorithm = rule.algorithm or algorithm
        found[site.name] = BlockSpec(bits, here, symmetric, algorithm, settings.form, level)
    return found


def too_short(model: ir.Model, sites: Iterable[Site], size: int) -> dict[str, str]:
    """The products whose weight has fewer input channels than a block, with the reason.

    Args:
        model: A normalized model.
        sites: Its sites.
        size: The block size.
    """
    values = value_by_name(model.graph)
    found = {}
    for site in sites:
        value = values.get(site.weight or "")
        tensor = None if value is None else constant_tensor(value)
        if tensor is None or site.activation is None or site.weight_axis is None:
            continue
        shape = tuple(tensor.shape.numpy())
        channels = 1
        for axis in site.sums or [i for i in range(len(shape)) if i != site.weight_axis]:
            channels *= shape[axis]
        if channels < size:
            found[site.name] = f"its {channels} input channels are fewer than a block of {size}"
    return found
