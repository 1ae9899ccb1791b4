from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnxruntime as ort
import pytest

from onnxq.errors import InternalError, UsageError
from onnxq.numerics.schemes import PAIR_LIMIT
from onnxq.runtime.machine import Machine
from onnxq.runtime.probe import probe
from onnxq.targets import (
    ACTIVATION_MATMUL,
    TABLE,
    OpRule,
    known_targets,
    load_target,
    weight_scheme,
)
from onnxq.targets.target import parse_target

if TYPE_CHECKING:
    from collections.abc import Mapping

CPU = load_target("cpu")
KINDS = ("uint8", "int8")


@pytest.fixture(scope="module")
def integer() -> Mapping[tuple[str, str], bool]:
    """Whether each form runs in integers, by its name and the activations' integers."""
    return {(result.form, result.activation): result.integer for result in probe("cpu")}


def machine(architecture: str, *isa: str) -> Machine:
    return Machine(
        "a processor", architecture, frozenset(isa), 2, 1 << 33, 1 << 32, "Linux", "3.11"
    )


@pytest.mark.skipif(
    ort.__version__ != CPU.probed_with, reason="cpu.toml records another version of ONNX Runtime"
)
@pytest.mark.parametrize("op", sorted(set(CPU.ops) - {TABLE}))
def test_cpu_is_what_the_probe_shows(op: str, integer: Mapping[tuple[str, str], bool]) -> None:
    rule = CPU.ops[op]
    accepted = tuple(kind for kind in KINDS if integer[f"{op}-outq", kind])
    assert rule.activations == accepted
    assert rule.integer == bool(accepted)
    float_output = all(integer[op, kind] for kind in KINDS)
    assert rule.output_q == ("optional" if float_output else "required")
    if (f"{op}-rescale-outq", "uint8") in integer:
        assert rule.same_scale == (rule.integer and not integer[f"{op}-rescale-outq", "uint8"])
    constants = tuple(kind for kind in KINDS if integer.get((f"{op}-constant-outq", kind)))
    assert rule.constants == constants


@pytest.mark.skipif(ort.__version__ != CPU.probed_with, reason="as above")
def test_cpu_biases_are_what_the_probe_shows(integer: Mapping[tuple[str, str], bool]) -> None:
    assert {op for op, rule in CPU.ops.items() if rule.float_output_bias == "int32"} == {
        "Gemm",
        "MatMul",
    }
    assert integer["Gemm-int32_bias", "uint8"]
    assert not integer["Gemm-float_bias", "uint8"]
    assert integer["MatMul-added_int32_bias", "uint8"]
    assert not integer["MatMul-added_bias", "uint8"]
    assert integer["MatMul-added_row-tokens", "uint8"]
    assert not integer["MatMul-added_bias-tokens", "uint8"]


@pytest.mark.skipif(ort.__version__ != CPU.probed_with, reason="as above")
def test_cpu_absorbs_what_the_probe_shows(integer: Mapping[tuple[str, str], bool]) -> None:
    assert CPU.absorbs == ("Relu", "Clip")
    for form in ("Conv-relu", "Conv-clip", "Gemm-relu", "MatMul-relu", "Add-relu"):
        assert integer[f"{form}-outq", "uint8"], form
    for form in ("Conv-relu-mid_zero", "Conv-clip-mid_zero", "Conv-sigmoid", "Conv-hardswish"):
        assert not integer[f"{form}-outq", "uint8"], form


@pytest.mark.skipif(ort.__version__ != CPU.probed_with, reason="as above")
def test_every_probed_operator_has_a_rule(integer: Mapping[tuple[str, str], bool]) -> None:
    assert {form.partition("-")[0] for form, _ in integer} <= set(CPU.ops)


def test_rules() -> None:
    assert CPU.rule("Conv").kind == "weighted"
    assert CPU.rule("Conv").output_q == "required"
    assert CPU.rule("MaxPool").same_scale
    assert CPU.rule(ACTIVATION_MATMUL).kind == "activation_matmul"
    assert CPU.rule(TABLE).kind == "table"
    assert not CPU.rule("NoSuchOperator").integer


def test_schemes() -> None:
    assert (CPU.activation.qmin, CPU.activation.qmax) == (0, 255)
    assert (CPU.weight.qmin, CPU.weight.qmax) == (-127, 127)
    assert CPU.weight.symmetric


@pytest.mark.parametrize(
    "isa", [("avx2", "avx512_vnni"), ("avx2", "avx_vnni"), ("avx512f", "amx_int8")]
)
def test_weights_have_all_bits_with_vnni(isa: tuple[str, ...]) -> None:
    choice = weight_scheme(CPU, machine("x86_64", *isa))
    assert (choice.scheme, choice.pairwise) == (CPU.weight, False)
    assert choice.reason == ""


@pytest.mark.parametrize("isa", [("avx2",), ("avx2", "avx512f"), ()])
def test_weights_do_not_saturate_without_vnni(isa: tuple[str, ...]) -> None:
    choice = weight_scheme(CPU, machine("x86_64", *isa))
    assert choice.pairwise
    assert choice.scheme == CPU.weight
    limit = CPU.activation.qmax * PAIR_LIMIT
    assert limit <= 32_767 < limit + CPU.activation.qmax
    assert "no VNNI" in choice.reason


def test_other_machines_and_providers_keep_all_bits() -> None:
    assert not weight_scheme(CPU, machine("aarch64", "neon")).pairwise
    elsewhere = replace(CPU, saturates_without_vnni=False)
    assert not weight_scheme(elsewhere, machine("x86_64", "avx2")).pairwise


def test_unknown_target_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="'gpu'") as caught:
        load_target("gpu")
    assert known_targets() == ("cpu", "cuda", "tensorrt")
    assert "cpu" in caught.value.remedy


GOOD = """
provider = "cpu"
probed_with = "1"
min_opset = 13
saturates_without_vnni = true
absorbs = []
keep_apart = ["Fused"]
covers = []
activation = {bits = 8}
weight = {bits = 8, signed = true}
[ops.Conv]
kind = "weighted"
integer = true
"""


def test_parse() -> None:
    target = parse_target(GOOD, "x")
    assert target.name == "x"
    assert target.rule("Conv") == OpRule(kind="weighted", integer=True)
    assert target.keep_apart == ("Fused",)
    with pytest.raises(TypeError):
        target.ops["Conv"] = target.ops["Conv"]  # type: ignore[index]


@pytest.mark.parametrize(
    "text",
    [
        GOOD + "colour = 1",
        GOOD.replace('"weighted"', '"heavy"'),
        GOOD.replace("min_opset = 13", ""),
        GOOD.replace('keep_apart = ["Fused"]', ""),
        GOOD + "output_q = 'sometimes'",
        "no toml at all",
    ],
)
def test_damaged_file(text: str) -> None:
    with pytest.raises(InternalError, match="damaged target file"):
        parse_target(text, "x")
