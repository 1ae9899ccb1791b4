"""Make a model ready: load, normalize, find its sites, resolve the recipe's rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from onnxq.algorithms.block_settings import folds_rest, form_of
from onnxq.algorithms.build_plan import PlanLabels
from onnxq.algorithms.float8_sites import without_float8
from onnxq.algorithms.guard import too_small
from onnxq.algorithms.selection import Selection, select
from onnxq.algorithms.static_int8 import Int8Config, with_override
from onnxq.algorithms.weights_int8 import why_no_kernel
from onnxq.errors import ModelError, UsageError
from onnxq.graph.edit import all_nodes_by_name
from onnxq.graph.external import external_files
from onnxq.graph.float_nodes import find_float_nodes, find_readers_of_weights
from onnxq.graph.io import digest, load
from onnxq.graph.normalize import NormalizeResult, normalize
from onnxq.graph.opset import opset_version, raise_opset
from onnxq.graph.quantized import find_already_quantized, has_float_part
from onnxq.graph.sites import Site, find_sites
from onnxq.numerics.half import HALF_TYPES
from onnxq.plan import opset_of_blocks
from onnxq.recipe import BITS, check_fit, stores_blocks
from onnxq.runtime.engine_cache import check_used
from onnxq.runtime.machine import inspect_machine
from onnxq.runtime.provider_options import check_heeded
from onnxq.runtime.providers import available, resolve, runtime_version
from onnxq.runtime.start import stand_in
from onnxq.targets import Target, WeightScheme, load_target, weight_scheme
from onnxq.verify.survival import check_survives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import onnx_ir as ir

    from onnxq.numerics.schemes import Scheme
    from onnxq.plan import BlockFormat
    from onnxq.plan import Decision as SiteDecision
    from onnxq.recipe import Recipe, RuleOutcome


_KERNEL_BITS = 8
"""Integer kernels take activations of no more."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model made ready for quantizing.

    Attributes:
        source: The file it came from.
        model: The normalized model.
        digest: Of the model as it was loaded.
        notes: What normalizing changed or could not do.
        sites: Every site of the normalized model.
        target: What the provider can run.
        recipe: What the user wants.
        outcomes: What the recipe's rules say of each site, by name.
        files: The files beside the model that hold its weights.
        minimum_opset: The opset that what the recipe asks for needs.
        can_fold: Whether the model's opset has what weights in blocks need that no kernel takes.
        provider: Where it is tried here: the target's execution provider, or the CPU's where that
            is not part of this ONNX Runtime.
    """

    source: Path
    model: ir.Model
    digest: str
    notes: tuple[str, ...]
    sites: tuple[Site, ...]
    target: Target
    recipe: Recipe
    outcomes: Mapping[str, RuleOutcome]
    files: frozenset[Path]
    minimum_opset: int
    can_fold: bool
    provider: str

    @property
    def on_target(self) -> bool:
        """Whether it is tried on the provider that it is made for."""
        return self.provider == self.target.provider

    def for_scheme(self, scheme: str) -> Prepared:
        """The same model with the sites of another scheme."""
        recipe = self.recipe.model_copy(update={"scheme": scheme})
        sites = sites_of(self.model, recipe, self.target)
        outcomes = recipe.resolve([(site.name, site.op) for site in sites])
        by_name = {site.name: rule for site, rule in zip(sites, outcomes, strict=True)}
        return replace(self, recipe=recipe, sites=sites, outcomes=by_name)

    def select(
        self, more_float: Mapping[str, str], barred: Mapping[str, str] = MappingProxyType({})
    ) -> Selection:
        """Choose what is quantized.

        Args:
            more_float: Sites to keep, with the reason.
            barred: Tensors that must not be quantized, with what was seen in them.
        """
        kept = {**self.kept(), **more_float}
        # Constants beside activations get the same integers, where the target has kernels for them.
        target = replace(self.target, activation=self._activation())
        return select(self.model, self.sites, target, kept, barred)

    def sound(
        self, choose: Callable[[Mapping[str, str]], Selection], more_float: Mapping[str, str]
    ) -> Selection:
        """Choose what is quantized without calibrated ranges.

        Args:
            choose: Selects, but for the sites that it is given, with the reason.
            more_float: Sites to keep beside the recipe's and those with weights below every scale.
        """
        kept = {**self.kept(), **more_float}
        selection = choose(kept)
        small = too_small(self.model, selection)
        return choose(kept | small) if small else selection

    def kept(self) -> dict[str, str]:
        """The sites that the recipe's rules keep float, or no FP8 kernel takes, with the reason."""
        unfit = without_float8(self.model, self.sites, self.target) if self.float8 else {}
        return unfit | {
            name: rule.reason for name, rule in self.outcomes.items() if rule.keep_float
        }

    @property
    def float8(self) -> bool:
        """Whether FP8 takes the place of integers."""
        return self.recipe.scheme == "fp8"

    @property
    def static(self) -> SiteDecision:
        """What a site is called whose ranges come from calibration."""
        return "fp8" if self.float8 else "int8"

    def config(self, selection: Selection, scheme: SiteDecision | None = None) -> Int8Config:
        """What a scheme, or the static one, is asked to do with what it quantizes."""
        scheme = scheme or self.static
        weight = self._weight(scheme)
        return Int8Config(
            selection=selection,
            activation=self._activation(),
            weight=weight.scheme,
            calibration=self.recipe.calibration,
            outcomes=self.outcomes,
            pairwise=weight.pairwise,
            ranges="run time" if scheme == "int8-dynamic" else "calibrated",
            target=self.target,
            decision=scheme,
        )

    def notes_for(self, scheme: str) -> tuple[str, ...]:
        """The notes, what the machine forbids of a scheme's weights, and what is not heeded."""
        notes = list(self.notes)
        reason = self._weight(scheme).reason
        notes += [text for text in (reason, self.target.discouraged.get(scheme, "")) if text]
        others = ("int8-dynamic", "int8-weights", "fp8", *HALF_TYPES)
        if self.recipe.format == "qoperator" and scheme in others:
            notes.append(f'format = "qoperator" says how static INT8 is written, {scheme} is not')
        return tuple(notes)

    def labels(self, scheme: str, *, independent: bool) -> PlanLabels:
        """What a plan of this scheme says of itself.

        Args:
            scheme: The scheme.
            independent: Whether data was kept from calibration.
        """
        return PlanLabels(
            model_digest=self.digest,
            scheme=scheme,
            target=self.recipe.target,
            minimum_opset=self.minimum_opset,
            independent=independent,
        )

    def _activation(self) -> Scheme:
        return with_override(self.target.activation, self.recipe.activation)

    def _weight(self, scheme: str) -> WeightScheme:
        """What a scheme's weights may have; no kernel adds up what stands beside wider integers."""
        rules = [rule.activation for rule in self.outcomes.values() if rule.activation is not None]
        every = [self._activation(), *(with_override(self._activation(), rule) for rule in rules)]
        in_integers = scheme == "int8" and any(each.bits <= _KERNEL_BITS for each in every)
        if in_integers or scheme == "int8-dynamic":
            return weight_scheme(self.target, inspect_machine())
        return WeightScheme(self.target.weight)


def prepare(source: Path, recipe: Recipe) -> Prepared:
    """Load a float model and make it ready.

    Raises:
        ModelError: The file is no valid model, the model is quantized already, its opset is
            newer than the target's integer operators, or it would end this process.
        RecipeError: A pattern matches no site.
        UsageError: The recipe says what its scheme has not.
    """
    loaded = load(source)
    form = find_already_quantized(loaded)
    in_half = recipe.scheme in HALF_TYPES and has_float_part(loaded)
    if form is not None and not in_half:
        code, text = "model.quantized", f"the model is quantized already ({form})"
        remedy = "give the float model it was made from"
        raise ModelError(code, text, where=str(source), remedy=remedy)
    target = load_target(recipe.target)
    _check_opset(loaded, target, source)
    _check_triable(recipe, target)
    _check_format(recipe, target)
    prepared = make_ready(source, loaded, recipe)
    check_survives_here(prepared, loaded)
    return prepared


def check_survives_here(prepared: Prepared, loaded: ir.Model) -> None:
    """Refuse a model that would end this process, which runs it as it is.

    Args:
        prepared: The model.
        loaded: The same as it was loaded.

    Raises:
        ModelError: It would.
    """
    if prepared.provider == "cpu":
        check_survives([(prepared.source, loaded)])


def make_ready(source: Path, loaded: ir.Model, recipe: Recipe) -> Prepared:
    """As :func:`prepare`, for a model that is loaded, a quantized one too."""
    check_fit(recipe)
    target = load_target(recipe.target)
    if recipe.scheme == "fp8":
        target = target.in_float8()
    check_heeded([target.provider])
    check_used([target.provider])
    provider = stand_in(target.provider)
    opset, remarks = least_opset(recipe, target), _other_runtime(target)
    normalized = normalized_for(loaded, target, opset, recipe.scheme)
    sites = sites_of(normalized.model, recipe, target)
    can_fold = stores_blocks(recipe) and folds_rest(recipe, target)
    if can_fold and _lacks_kernels(normalized.model, sites, target):
        higher = _opset_of(recipe, target, "folded")
        try:
            normalized = normalized_for(loaded, target, higher, recipe.scheme)
        except ModelError as error:
            can_fold = False
            text = f"weights that no kernel for blocks takes stay float: {error.message}"
            remarks = (*remarks, text)
        else:
            opset, sites = higher, sites_of(normalized.model, recipe, target)
    outcomes = recipe.resolve([(site.name, site.op) for site in sites])
    return Prepared(
        source=source,
        model=normalized.model,
        digest=digest(loaded),
        notes=(*normalized.notes, *remarks),
        sites=sites,
        target=target,
        recipe=recipe,
        outcomes={site.name: rule for site, rule in zip(sites, outcomes, strict=True)},
        files=frozenset(external_files(loaded)),
        minimum_opset=opset,
        can_fold=can_fold,
        provider=provider,
    )


def _lacks_kernels(model: ir.Model, sites: Iterable[Site], target: Target) -> bool:
    """Whether the target's kernel for weights in blocks does not take some product."""
    nodes = all_nodes_by_name(model)
    products = (site for site in sites if site.candidate and site.activation is not None)
    return any(why_no_kernel(site, nodes[site.name], target) for site in products)


def _check_opset(loaded: ir.Model, target: Target, source: Path) -> None:
    version = opset_version(loaded)
    if target.max_opset is not None and version > target.max_opset:
        code = "model.opset"
        text = f"opset {version}, where {target.provider} quantizes opsets up to {target.max_opset}"
        remedy = f"export the model with opset {target.max_opset} or older"
        raise ModelError(code, text, where=str(source), remedy=remedy)


def _check_format(recipe: Recipe, target: Target) -> None:
    in_operators = recipe.format == "qoperator" and recipe.scheme in ("auto", "int8")
    if in_operators and not target.integer_operators:
        code, text = "usage.format", f"{target.name} runs no operators on integers"
        raise UsageError(
            code, text, where="--format", remedy="leave it out: Q/DQ pairs are written"
        )


def untriable(target: Target) -> UsageError:
    """The refusal of bfloat16 throughout, where only the CPU could try it."""
    code = "usage.scheme"
    text = (
        f"bfloat16 for {target.name} cannot be tried here: {target.provider} {_lack_of(target)}, "
        "and the CPU does not compute in it"
    )
    remedy = (
        f'run it where {target.provider} starts, or take --scheme float16, or form = "weights" '
        "under [half] of the recipe"
    )
    return UsageError(code, text, where="--scheme", remedy=remedy)


def _check_triable(recipe: Recipe, target: Target) -> None:
    stands_in = stand_in(target.provider) != target.provider
    if stands_in and recipe.scheme == "bfloat16" and half_form(recipe, target) == "compute":
        raise untriable(target)


def _lack_of(target: Target) -> str:
    """Why the CPU stands in for a target's provider."""
    here = resolve(target.provider) in available()
    return "does not start here" if here else "is not part of this ONNX Runtime"


def _other_runtime(target: Target) -> tuple[str, ...]:
    """A remark where the target is not here, or its table is of another ONNX Runtime."""
    found = runtime_version()
    if stand_in(target.provider) != target.provider:
        lack = _lack_of(target)
        text = (
            f"the execution provider {target.provider} {lack}: outputs were compared on "
            "the CPU, which computes what the graph says, and nothing was timed; "
            f"`onnxq compare --providers {target.provider}` on the machine that has it"
        )
        return (text,)
    if found == target.probed_with or not target.probed_with:
        return ()
    text = (
        f"what fuses was learned from ONNX Runtime {target.probed_with}, {found} is installed; "
        "the result's kernels are counted all the same, and `onnxq doctor --probe` shows what "
        "this version fuses"
    )
    return (text,)


def sites_of(model: ir.Model, recipe: Recipe, target: Target) -> tuple[Site, ...]:
    """What the recipe's scheme decides on: nodes with weights, or all that compute in float32."""
    if recipe.scheme not in HALF_TYPES:
        return find_sites(model)
    if half_form(recipe, target) == "compute":
        return find_float_nodes(model)
    return find_readers_of_weights(model)


def least_opset(recipe: Recipe, target: Target) -> int:
    """The opset that the operators of what the recipe asks for need, on any of its sites."""
    if not stores_blocks(recipe):
        return target.min_opset
    return _opset_of(recipe, target, form_of(recipe, target))


def _opset_of(recipe: Recipe, target: Target, form: BlockFormat) -> int:
    widths = {rule.weight.bits for rule in recipe.rules if rule.weight and rule.weight.bits}
    needed = (opset_of_blocks(form, bits) for bits in (BITS[recipe.scheme], *widths))
    return max(target.min_opset, *needed)


def half_form(recipe: Recipe, target: Target) -> Literal["weights", "compute"]:
    """What float16 or bfloat16 is: as the recipe says, else as the target gains most from it."""
    wanted = recipe.half.form
    if wanted != "auto":
        return wanted
    return next((r.form for name, r in target.half.items() if name == recipe.scheme), "compute")


def normalized_for(
    loaded: ir.Model, target: Target, minimum_opset: int, scheme: str
) -> NormalizeResult:
    """The model of at least this opset, normalized: the form that a plan's names refer to.

    Where 16 bits are what is asked for, what has them is not made float32 first.
    """
    widens = () if scheme in HALF_TYPES else target.widens
    return normalize(raise_opset(loaded, minimum_opset), widens=widens)
