"""How each site's weight is stored in blocks, by recipe and target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from onnxq.algorithms.block_algorithm import ALGORITHMS, WITH_DATA, WITHOUT_DATA
from onnxq.algorithms.block_lengths import filled, input_channels, override_of
from onnxq.algorithms.block_plan import BlockSpec
from onnxq.algorithms.lookup_tables import tied_weights
from onnxq.algorithms.weights_int8 import why_no_kernel
from onnxq.errors import UsageError
from onnxq.graph.edit import all_nodes_by_name, value_by_name
from onnxq.plan import LEAST_BLOCK
from onnxq.recipe import BITS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import onnx_ir as ir

    from onnxq.graph.sites import Site
    from onnxq.plan import BlockFormat, Decision
    from onnxq.recipe import Recipe, RuleOutcome
    from onnxq.targets import BlockWidth, Target

_FORMS: Final[dict[str, BlockFormat]] = {
    "blocks": "kernel",
    "dq": "dq",
    "folded": "folded",
}

_FOLDED_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class BlockSettings:
    """What a recipe asks for in general.

    Attributes:
        target: What kernels there are.
        scheme: The scheme's name.
        bits: Width of the integers.
        algorithm: How they are chosen.
        symmetric: Whether zero points are fixed; None leaves it to the error with ``auto``,
            else they are free.
        form: What is written.
        folds_rest: Whether weights that the kernel does not take are folded; else they stay float.
        block_sizes: The sizes to measure, or the one that is wanted.
        open_size: Whether the size is measured; a site with fewer input channels then takes the
            largest that it fills.
        least: The smallest that there is a kernel for.
        accuracy_levels: The levels to measure, or the one that is wanted.
        slow_levels: Those of them that the target knows to be slow.
        kernels: Whether only what the target has kernels for is stored in the form.
    """

    target: Target
    scheme: Decision
    bits: int
    algorithm: str
    symmetric: bool | None
    form: BlockFormat
    folds_rest: bool
    block_sizes: tuple[int, ...]
    open_size: bool
    least: int
    accuracy_levels: tuple[int, ...]
    slow_levels: tuple[int, ...]
    kernels: bool


def form_of(recipe: Recipe, target: Target) -> BlockFormat:
    """What is written of a recipe's weights in blocks, where the target has a kernel for them."""
    if recipe.weights.form == "auto":
        return "kernel" if target.blocks is None else target.blocks.form
    return _FORMS[recipe.weights.form]


def folds_rest(recipe: Recipe, target: Target) -> bool:
    """Whether weights that the target has no kernel for are folded."""
    return recipe.weights.form == "auto" and form_of(recipe, target) == "kernel"


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
    bits, form = BITS[scheme], form_of(recipe, target)
    # The form that the target's own kernel has; the others are for any width.
    kernels = form == ("kernel" if target.blocks is None else target.blocks.form)
    width = _width(target, bits, "--scheme") if kernels else None
    algorithm = wanted.algorithm or (WITH_DATA if data else WITHOUT_DATA)
    if not data:
        _refuse_without_data(algorithm, "--algorithm")
    for number, rule in enumerate(recipe.rules, start=1):
        where = f"rules[{number}].weight"
        if rule.weight is not None and rule.weight.bits is not None and kernels:
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
        target=target,
        scheme=scheme,
        bits=bits,
        algorithm=algorithm,
        symmetric=_symmetric(recipe, target, kernels=kernels),
        form=form,
        folds_rest=folds_rest(recipe, target),
        block_sizes=(wanted.block_size,) if wanted.block_size else sizes,
        open_size=wanted.block_size is None,
        least=LEAST_BLOCK if width is None else width.least,
        accuracy_levels=(wanted.accuracy_level,) if wanted.accuracy_level else levels,
        slow_levels=() if width is None else width.slow_levels,
        kernels=kernels,
    )


def _symmetric(recipe: Recipe, target: Target, *, kernels: bool) -> bool | None:
    wanted = recipe.weights.symmetric
    if not kernels or target.blocks is None or not target.blocks.symmetric:
        # Unsigned integers have a zero point of their own in every block.
        return False if recipe.scheme == "uint4" else wanted
    if recipe.scheme == "uint4" or wanted is False:
        code, text = "usage.no_kernel", f"{target.name} takes no zero points beside weights"
        remedy = "take --scheme int4, and leave out symmetric = false"
        raise UsageError(code, text, where="weights", remedy=remedy)
    return True


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

    Where the target looks up only rows whose zero points are alike, a product that shares its
    weight with a lookup has such zero points too, unless it was asked otherwise.

    Args:
        model: A normalized model.
        sites: The sites that are quantized.
        settings: What is asked for in general.
        outcomes: What the recipe's rules say of each site.
        size: The block size, where no rule says another.
        level: The accuracy level.
    """
    products = [site for site in sites if site.activation is not None]
    lengths, folded = input_channels(model, products), folded_weights(model, products, settings)
    sizes = block_sizes(products, lengths, folded, settings, outcomes, size)
    rules = settings.target.blocks
    alike: set[str] = set()
    if rules is not None and rules.lookup_symmetric and settings.form == "kernel":
        alike = tied_weights(sites, value_by_name(model.graph))
    found = {}
    for site in products:
        rule, folds = override_of(outcomes, site.name), site.weight in folded
        algorithm = rule.algorithm or settings.algorithm
        symmetric = settings.symmetric if rule.symmetric is None else rule.symmetric
        if symmetric is None and site.weight in alike:
            symmetric = True
        if symmetric is None and algorithm != "auto":
            symmetric = False
        found[site.name] = BlockSpec(
            bits=rule.bits or settings.bits,
            block_size=sizes.get(site.name, size),
            symmetric=symmetric,
            algorithm=algorithm,
            form="folded" if folds else settings.form,
            accuracy_level=0 if folds else level,
        )
    return found


def block_sizes(
    sites: Iterable[Site],
    lengths: Mapping[str, int],
    folded: Collection[str | None],
    settings: BlockSettings,
    outcomes: Mapping[str, RuleOutcome],
    size: int,
) -> dict[str, int]:
    """The block size of each product, by name: a rule's, else the general one.

    Where the size is open, a weight of fewer input channels takes the largest that it fills. What
    is folded has float's speed whatever its blocks: they are fine there, and what is shorter than
    they are is too small to gain anything.

    Args:
        sites: The sites.
        lengths: Input channels of each product's weight.
        folded: The weights that are folded.
        settings: What is asked for in general.
        outcomes: What the recipe's rules say of each site.
        size: The block size, where no rule says another.
    """

    def own(site: Site, channels: int) -> int:
        if not settings.open_size:
            return size
        return (
            min(size, _FOLDED_SIZE)
            if site.weight in folded
            else filled(size, channels, settings.least)
        )

    return {
        site.name: override_of(outcomes, site.name).block_size or own(site, lengths[site.name])
        for site in sites
        if site.name in lengths
    }


def folded_weights(
    model: ir.Model, sites: Iterable[Site], settings: BlockSettings
) -> set[str | None]:
    """The weights that are folded: who shares one reads it in one form.

    Args:
        model: A normalized model.
        sites: Some of its sites.
        settings: What is asked for in general.
    """
    products = [site for site in sites if site.activation is not None]
    if settings.form == "folded":
        return {site.weight for site in products}
    if not settings.folds_rest:
        return set()
    nodes = all_nodes_by_name(model)
    return {s.weight for s in products if why_no_kernel(s, nodes[s.name], settings.target)}
