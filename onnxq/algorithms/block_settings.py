"""How each site's weight is stored in blocks, by recipe and target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from onnxq.algorithms.block_algorithm import ALGORITHMS, WITH_DATA, WITHOUT_DATA
from onnxq.algorithms.block_lengths import WantedSize, input_channels, override_of, own_sizes
from onnxq.algorithms.block_plan import BlockSpec
from onnxq.errors import UsageError
from onnxq.recipe import BITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir

    from onnxq.graph.sites import Site
    from onnxq.plan import BlockFormat, Decision
    from onnxq.recipe import Recipe, RuleOutcome
    from onnxq.targets import BlockWidth, Target

_FORMS: Final[dict[str, BlockFormat]] = {
    "auto": "kernel",
    "blocks": "kernel",
    "dq": "dq",
    "folded": "folded",
}


@dataclass(frozen=True, slots=True)
class BlockSettings:
    """What a recipe asks for in general.

    Attributes:
        scheme: The scheme's name.
        bits: Width of the integers.
        algorithm: How they are chosen.
        symmetric: Whether zero points are fixed; None leaves it to the error with ``auto``,
            else they are free.
        form: What is written.
        block_sizes: The sizes to measure, or the one that is wanted.
        open_size: Whether the size is measured; a site with fewer input channels then takes the
            largest that it fills.
        accuracy_levels: The levels to measure, or the one that is wanted.
    """

    scheme: Decision
    bits: int
    algorithm: str
    symmetric: bool | None
    form: BlockFormat
    block_sizes: tuple[int, ...]
    open_size: bool
    accuracy_levels: tuple[int, ...]

    def wanted(self, size: int) -> WantedSize:
        """One of the sizes, with what shorter weights do."""
        return WantedSize(size, fixed=not self.open_size)


def form_of(recipe: Recipe) -> BlockFormat:
    """What is written of a recipe's weights in blocks."""
    return _FORMS[recipe.weights.form]


def block_settings(recipe: Recipe, target: Target, *, data: bool) -> BlockSettings:
    """What the recipe asks for, made definite.

    Args:
        recipe: Its scheme is one of :data:`onnxq.recipe.BITS`.
        target: What kernels there are.
        data: Whether there is calibration data.

    Raises:
        UsageError: The target has no kernel for it or for what a rule says, or an algorithm needs
            data.
    """
    wanted, scheme = recipe.weights, cast("Decision", recipe.scheme)
    bits, form = BITS[scheme], form_of(recipe)
    width = _width(target, bits, "--scheme") if form == "kernel" else None
    algorithm = wanted.algorithm or (WITH_DATA if data else WITHOUT_DATA)
    if not data:
        _refuse_without_data(algorithm, "--algorithm")
    for number, rule in enumerate(recipe.rules, start=1):
        where = f"rules[{number}].weight"
        if rule.weight is not None and rule.weight.bits is not None and form == "kernel":
            _width(target, rule.weight.bits, where)
        if rule.weight is not None and rule.weight.algorithm is not None and not data:
            _refuse_without_data(rule.weight.algorithm, where)
    if not data and wanted.sequential:
        code, text = "usage.no_data", "sequential refinement of weights needs calibration data"
        remedy = "give --data, or leave out sequential under [weights] of the recipe"
        raise UsageError(code, text, where="weights.sequential", remedy=remedy)
    sizes = (128, 64, 32) if width is None else width.block_sizes
    levels = (0,) if width is None else width.accuracy_levels
    return BlockSettings(
        scheme=scheme,
        bits=bits,
        algorithm=algorithm,
        # Unsigned integers have a zero point of their own in every block.
        symmetric=False if scheme == "uint4" else wanted.symmetric,
        form=form,
        block_sizes=(wanted.block_size,) if wanted.block_size else sizes,
        open_size=wanted.block_size is None,
        accuracy_levels=(wanted.accuracy_level,) if wanted.accuracy_level else levels,
    )


def _width(target: Target, bits: int, where: str) -> BlockWidth:
    rules = target.blocks
    if rules is None or bits not in rules.widths:
        have = "" if rules is None else f"; it has them for {_listed(rules.widths)} bits"
        code = "usage.no_kernel"
        text = f"{target.name} has no kernel for weights of {bits} bits in blocks{have}"
        remedy = 'Write form = "dq" or "folded" under [weights] of the recipe.'
        raise UsageError(code, text, where=where, remedy=remedy)
    return rules.widths[bits]


def _listed(widths: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(widths)))


def _refuse_without_data(algorithm: str, where: str) -> None:
    if algorithm != "auto" and ALGORITHMS[algorithm].needs_activations:
        code, text = "usage.no_data", f"{algorithm} needs calibration data"
        remedy = "give --data; the algorithms hqq, mse and rtn do without"
        raise UsageError(code, text, where=where, remedy=remedy)


def block_specs(
    model: ir.Model,
    sites: Sequence[Site],
    settings: BlockSettings,
    outcomes: Mapping[str, RuleOutcome],
    size: int,
    level: int,
) -> dict[str, BlockSpec]:
    """How each site that is no lookup is stored, by name.

    Args:
        model: A normalized model.
        sites: The sites that are quantized.
        settings: What is asked for in general.
        outcomes: What the recipe's rules say of each site.
        size: The block size, where no rule says another.
        level: The accuracy level.
    """
    sizes = own_sizes(input_channels(model, sites), outcomes, settings.wanted(size))
    found = {}
    for site in sites:
        if site.activation is None:
            continue
        rule = override_of(outcomes, site.name)
        algorithm = rule.algorithm or settings.algorithm
        symmetric = settings.symmetric if rule.symmetric is None else rule.symmetric
        if symmetric is None and algorithm != "auto":
            symmetric = False
        found[site.name] = BlockSpec(
            bits=rule.bits or settings.bits,
            block_size=sizes.get(site.name, size),
            symmetric=symmetric,
            algorithm=algorithm,
            form=settings.form,
            accuracy_level=level,
        )
    return found
