"""How each weight is stored: recipe, rules and target; what is refused."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from onnxq.algorithms.block_settings import block_settings, block_specs
from onnxq.errors import UsageError
from onnxq.graph.sites import find_sites
from onnxq.recipe import Recipe, RuleOutcome, WeightOverride
from onnxq.targets import load_target
from tests.small_models import normal, normalized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.algorithms.block_plan import BlockSpec
    from onnxq.graph.sites import Site

CPU = load_target("cpu")
MODEL = normalized(
    """g (float[N, 48] x, float[N, 4, 9, 9] z, int64[N] i)
       => (float[N, 8] a, float[N, 24] b, float[N, 6, 7, 7] c, float[N, 5] e) {
        a = MatMul(x, w) b = Gemm<transB = 1>(x, v) c = Conv(z, k) e = Gather(t, i)
    }""",
    w=normal(0, 48, 8), v=normal(1, 24, 48), k=normal(2, 6, 4, 3, 3), t=normal(3, 9, 5),
)  # fmt: skip
SITES = find_sites(MODEL)
NOTHING_SAID: Mapping[str, RuleOutcome] = MappingProxyType({})


def named(op: str) -> Site:
    (site,) = [site for site in SITES if site.op == op]
    return site


def recipe(scheme: str = "int4", rules: tuple[Any, ...] = (), **weights: Any) -> Recipe:
    return Recipe.model_validate({"scheme": scheme, "weights": weights, "rules": rules})


def outcomes(op: str, **override: Any) -> dict[str, RuleOutcome]:
    """A rule for the one site of this operator."""
    return {named(op).name: RuleOutcome(weight=WeightOverride(**override))}


def specs(
    wanted: Recipe,
    said: Mapping[str, RuleOutcome] = NOTHING_SAID,
    size: int = 32,
) -> dict[str, BlockSpec]:
    found = block_specs(MODEL, SITES, block_settings(wanted, CPU, data=True), said, size, 4)
    return {site.op: found[site.name] for site in SITES if site.name in found}


@pytest.mark.parametrize(
    ("scheme", "bits"), [("int2", 2), ("int4", 4), ("uint4", 4), ("int8-weights", 8)]
)
def test_what_is_taken_where_nothing_is_said(scheme: str, bits: int) -> None:
    settings = block_settings(recipe(scheme), CPU, data=True)
    assert CPU.blocks is not None
    width = CPU.blocks.widths[bits]
    assert (settings.bits, settings.algorithm, settings.form) == (bits, "awq+gptq", "kernel")
    assert settings.block_sizes == width.block_sizes
    assert settings.accuracy_levels == width.accuracy_levels
    assert block_settings(recipe(scheme), CPU, data=False).algorithm == "hqq"


def test_what_is_said_is_taken() -> None:
    wanted = recipe(form="dq", block_size=64, accuracy_level=1, algorithm="hqq", symmetric=True)
    settings = block_settings(wanted, CPU, data=False)
    assert (settings.form, settings.algorithm, settings.symmetric) == ("dq", "hqq", True)
    assert (settings.block_sizes, settings.accuracy_levels) == ((64,), (1,))


def test_lookups_have_no_spec() -> None:
    assert specs(recipe()).keys() == {"MatMul", "Gemm", "Conv"}


@pytest.mark.parametrize(
    ("weights", "override", "symmetric"),
    [
        ({}, {}, False),
        ({"symmetric": True}, {}, True),
        ({"algorithm": "auto"}, {}, None),
        ({"algorithm": "auto", "symmetric": False}, {}, False),
        ({"algorithm": "auto"}, {"symmetric": True}, True),
        # What a rule says of the algorithm holds for its symmetry, too.
        ({"algorithm": "auto"}, {"algorithm": "rtn"}, False),
        ({"algorithm": "rtn"}, {"algorithm": "auto"}, None),
        ({"symmetric": True}, {"algorithm": "auto"}, True),
    ],
)
def test_symmetry(weights: Any, override: Any, symmetric: bool | None) -> None:
    found = specs(recipe(**weights), outcomes("Gemm", **override))
    assert found["Gemm"].symmetric is symmetric
    assert len(found["Gemm"].schemes) == (2 if symmetric is None else 1)
    assert found["MatMul"] == specs(recipe(**weights))["MatMul"]


def test_a_rule_replaces_what_it_speaks_of() -> None:
    found = specs(recipe(algorithm="awq"), outcomes("MatMul", bits=8, block_size=16))
    assert (found["MatMul"].bits, found["MatMul"].block_size) == (8, 16)
    assert found["MatMul"].algorithm == "awq"
    assert (found["Gemm"].bits, found["Gemm"].block_size) == (4, 32)
    assert found["Gemm"].accuracy_level == found["MatMul"].accuracy_level == 4


@pytest.mark.parametrize(
    ("weights", "size", "conv", "matmul"),
    [
        ({}, 128, ("folded", 32, 0), ("kernel", 32, 4)),  # 48 and 36 input channels
        ({}, 16, ("folded", 16, 0), ("kernel", 16, 4)),
        ({"block_size": 16}, 16, ("folded", 16, 0), ("kernel", 16, 4)),
        ({"form": "folded"}, 32, ("folded", 32, 0), ("folded", 32, 0)),
        ({"form": "dq"}, 32, ("dq", 32, 4), ("dq", 32, 4)),
    ],
)
def test_what_no_kernel_takes_is_folded_in_fine_blocks(
    weights: Any, size: int, conv: Any, matmul: Any
) -> None:
    found = specs(recipe(**weights), size=size)

    def how(spec: BlockSpec) -> tuple[str, int, int]:
        return spec.form, spec.block_size, spec.accuracy_level

    assert how(found["Conv"]) == conv
    assert how(found["MatMul"]) == matmul


def test_who_shares_a_weight_reads_it_in_one_form() -> None:
    """MatMulNBits wants two dimensions; a vector times the same matrix is folded, and so both."""
    model = normalized(
        """g (float[N, 48] x, float[48] v) => (float[N, 8] a, float[8] b) {
            a = MatMul(x, w) b = MatMul(v, w)
        }""",
        w=normal(0, 48, 8),
    )
    settings = block_settings(recipe(), CPU, data=True)
    found = block_specs(model, find_sites(model), settings, NOTHING_SAID, 32, 4)
    assert [spec.form for spec in found.values()] == ["folded", "folded"]


def test_a_width_without_a_kernel_names_those_there_are() -> None:
    assert CPU.blocks is not None
    widths = {bits: CPU.blocks.widths[bits] for bits in (4, 8)}
    target = replace(CPU, name="small", blocks=replace(CPU.blocks, widths=widths))
    message = "small has no kernel for weights of 2 bits in blocks; it has them for 4, 8 bits"
    with pytest.raises(UsageError, match=message) as refused:
        block_settings(recipe("int2"), target, data=True)
    assert (refused.value.code, refused.value.where) == ("usage.no_kernel", "--scheme")
    rule = {"match": "*", "weight": {"bits": 2}}
    with pytest.raises(UsageError, match=message) as refused:
        block_settings(recipe(rules=(rule,)), target, data=True)
    assert refused.value.where == "rules[1].weight"
    assert block_settings(recipe("int2", form="dq"), target, data=True).form == "dq"
    with pytest.raises(UsageError) as refused:
        block_settings(recipe(), replace(CPU, blocks=None), data=True)
    assert refused.value.message == "cpu has no kernel for weights of 4 bits in blocks"


def test_a_rule_whose_algorithm_needs_data() -> None:
    rules = (
        {"match": "*", "weight": {"algorithm": "hqq"}},
        {"match": "*", "weight": {"algorithm": "mse+gptq"}},
    )
    with pytest.raises(UsageError, match=r"mse\+gptq needs calibration data") as refused:
        block_settings(recipe(rules=rules), CPU, data=False)
    assert refused.value.where == "rules[2].weight"
    block_settings(recipe(rules=rules), CPU, data=True)


def test_where_the_size_is_open_a_short_weight_takes_the_largest_that_it_fills() -> None:
    sizes = {op: spec.block_size for op, spec in specs(recipe(), size=128).items()}
    assert sizes == {"MatMul": 32, "Gemm": 32, "Conv": 32}
    sizes = {op: spec.block_size for op, spec in specs(recipe(block_size=128), size=128).items()}
    assert sizes == {"MatMul": 128, "Gemm": 128, "Conv": 128}
