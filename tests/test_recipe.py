"""Recipes: what they may say, what they refuse, and how rules reach sites."""

from __future__ import annotations

import re
import textwrap
import tomllib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnxq.recipe
from onnxq.errors import RecipeError, UsageError
from onnxq.recipe import (
    ActivationOverride,
    CalibrationSettings,
    Recipe,
    Rule,
    RuleOutcome,
    WeightOverride,
    WeightSettings,
    check_fit,
    load_recipe,
    parse_bytes,
    parse_recipe,
    stores_blocks,
)

if TYPE_CHECKING:
    from pathlib import Path

SITES = (
    ("/encoder/layers.0/attn/MatMul", "MatMul"),
    ("/encoder/layers.0/mlp/Gemm", "Gemm"),
    ("/stem/Conv", "Conv"),
    ("x[0]", "MatMul"),
)


def rules(*items: dict[str, object]) -> Recipe:
    return parse_recipe({"version": 1, "rules": list(items)})


def test_defaults() -> None:
    recipe = parse_recipe({"version": 1})
    assert recipe == Recipe()
    assert recipe.calibration == CalibrationSettings(
        method="auto", percentile=99.999, samples=None, memory_budget=2 << 30
    )
    assert recipe.resolve(SITES) == (RuleOutcome(),) * len(SITES)


def _documented(number: int, folder: Path) -> Path:
    """One of the examples of the documentation as a file."""
    example = (onnxq.recipe.__doc__ or "").split("::\n")[1 + number]
    path = folder / "recipe.toml"
    path.write_text(textwrap.dedent(re.split(r"\n(?=\S)", example)[0]), encoding="utf-8")
    return path


def test_the_documented_example_of_blocks_loads(tmp_path: Path) -> None:
    path = _documented(1, tmp_path)
    recipe = load_recipe(path)
    check_fit(recipe)
    assert stores_blocks(recipe)
    assert recipe.rules[0].weight == WeightOverride(
        bits=8, block_size=32, symmetric=True, algorithm="mse"
    )


def test_the_documented_keys_of_blocks_load(tmp_path: Path) -> None:
    """Those that stand behind a #, because the example's scheme has none."""
    text = _documented(0, tmp_path).read_text(encoding="utf-8")
    table = text[text.index("[weights]") : text.index("[half]")]
    shown = re.sub(r"^# (?=\w+ = )", "", table, flags=re.MULTILINE)
    path = tmp_path / "blocks.toml"
    path.write_text(f"version = 1\nscheme = 'int4'\n{shown}", encoding="utf-8")
    recipe = load_recipe(path)
    check_fit(recipe)
    assert tomllib.loads(path.read_text())["weights"].keys() == WeightSettings.model_fields.keys()


@pytest.mark.parametrize(
    ("scheme", "weights", "blocks"),
    [
        ("int4", {}, True),
        ("int8-weights", {}, False),
        ("int8-weights", {"algorithm": "rtn", "symmetric": False}, True),
        ("auto", {"block_size": 32}, False),
        ("int8", {"form": "dq"}, False),
    ],
)
def test_what_stores_weights_in_blocks(
    scheme: str,
    weights: dict[str, object],
    blocks: bool,
) -> None:
    recipe = parse_recipe({"version": 1, "scheme": scheme, "weights": weights})
    check_fit(recipe)
    assert stores_blocks(recipe) is blocks


def test_the_documented_example_loads(tmp_path: Path) -> None:
    path = _documented(0, tmp_path)
    recipe = load_recipe(path)
    check_fit(recipe)
    assert recipe.calibration.samples == 512
    assert recipe.rules[0].match == ("op:Conv",)
    assert recipe.rules[1].unless == ("/encoder/layers.0/attn/*",)
    assert recipe.rules[2].activation == ActivationOverride(type="int8", symmetric=True)
    assert recipe.rules[2].weight == WeightOverride(granularity="tensor", bits=7)
    shown = tomllib.loads(path.read_text(encoding="utf-8"))
    assert shown["scheme"] == Recipe().scheme
    assert recipe.activation == ActivationOverride(type="uint8", symmetric=False)
    assert shown["eval_fraction"] == Recipe().eval_fraction


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("", "recipe.version", ["version = 1"]),
        ("version = 2", "recipe.version", ["version 2", "reads version 1"]),
        ("version = true", "recipe.version", ["version True"]),
        ("version = 1\nversoin = 1", "recipe.unknown_key", ["versoin", "'version'"]),
        (
            "version = 1\n[calibration]\nmehtod = 'mse'",
            "recipe.unknown_key",
            ["calibration.mehtod", "Did you mean 'method'?", "memory_budget"],
        ),
        (
            "version = 1\n[activation]\ntype = 'uint12'",
            "recipe.value",
            ["activation.type = 'uint12'", "Did you mean 'uint16'?"],
        ),
        (
            "version = 1\n[activation]\nbits = 16",
            "recipe.unknown_key",
            ["activation.bits", "The keys here: type, symmetric."],
        ),
        ("version = 1\nformat = 'qop'", "recipe.value", ["format = 'qop'"]),
        (
            "version = 1\n[[rules]]\nmatch = '*'\nkep = 'float'",
            "recipe.unknown_key",
            ["rules[1].kep", "Did you mean 'keep'?"],
        ),
        (
            "version = 1\n[[rules]]\nmatch = '*'\nweight = {bit = 7}",
            "recipe.unknown_key",
            ["rules[1].weight.bit", "Did you mean 'bits'?"],
        ),
        (
            "version = 1\n[calibration]\nmethod = 'percentle'",
            "recipe.value",
            ["calibration.method = 'percentle'", "Did you mean 'percentile'?"],
        ),
        ("version = 1\n[calibration]\npercentile = 10", "recipe.value", ["percentile = 10"]),
        ("version = 1\n[calibration]\nsamples = 0", "recipe.value", ["calibration.samples = 0"]),
        ("version = 1\n[calibration]\nsamples = '3'", "recipe.value", ["samples = '3'"]),
        (
            "version = 1\n[calibration]\nmemory_budget = '2 parsecs'",
            "recipe.value",
            ["calibration.memory_budget", "'2 parsecs' is not an amount of memory"],
        ),
        ("version = 1\ncalibration = 3", "recipe.value", ["calibration = 3"]),
        ("version = 1\neval_fraction = 1.0", "recipe.value", ["eval_fraction = 1.0"]),
        ("version = 1\nseed = true", "recipe.value", ["seed = True"]),
        ("version = 1\nrules = 'all'", "recipe.value", ["rules"]),
        ("version = 1\n[[rules]]\nkeep = 'float'", "recipe.missing_key", ["rules[1].match"]),
        ("version = 1\n[[rules]]\nmatch = []\nkeep = 'float'", "recipe.value", ["rules[1].match"]),
        (
            "version = 1\n[[rules]]\nmatch = 're:('\nkeep = 'float'",
            "recipe.value",
            ["rules[1].match", "not a regular expression"],
        ),
        ("version = 1\n[[rules]]\nmatch = 'op:'\nkeep = 'float'", "recipe.value", ["is empty"]),
        ("version = 1\n[[rules]]\nmatch = '*'", "recipe.value", ["rules[1]", "changes nothing"]),
        (
            "version = 1\n[[rules]]\nmatch = '*'\nkeep = 'float'\ncalibration = 'mse'",
            "recipe.value",
            ["leaves nothing to calibrate"],
        ),
        ("version = 1\nseed = x", "recipe.syntax", ["not TOML", "line 2"]),
    ],
)
def test_bad_recipe(tmp_path: Path, body: str, code: str, words: list[str]) -> None:
    path = tmp_path / "r.toml"
    path.write_text(body, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    error = caught.value
    assert error.code == code
    assert error.exit_status == 2
    assert error.where == str(path)
    for word in words:
        assert word in str(error)
    assert len(str(error).splitlines()) <= 2
    assert "pydantic" not in str(error)


def test_unreadable_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="No such file"):
        load_recipe(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(str(tmp_path / "binary.toml"))


def test_rules_choose_by_glob_type_and_expression() -> None:
    recipe = rules(
        {"match": "op:MatMul", "calibration": "mse"},
        {"match": "/encoder/*", "calibration": "percentile", "percentile": 99.9},
        {"match": ["re:/stem/.*", "x[0]"], "keep": "float"},
    )
    attention, mlp, stem, bracket = recipe.resolve(SITES)
    assert attention == RuleOutcome(method="percentile", percentile=99.9)
    assert mlp == attention
    assert stem.keep_float
    assert stem.reason == "kept float by rule 3 (re:/stem/.*)"
    assert bracket.keep_float
    assert bracket.method == "mse"


def test_later_rules_win_and_leave_the_rest() -> None:
    recipe = rules(
        {"match": "*", "calibration": "mse", "weight": {"bits": 7}},
        {"match": "op:Conv", "calibration": "entropy"},
        {"match": "op:Conv", "activation": {"type": "int8"}},
    )
    assert recipe.resolve(SITES)[2] == RuleOutcome(
        method="entropy",
        weight=WeightOverride(bits=7),
        activation=ActivationOverride(type="int8"),
    )


def test_a_float_site_stays_float_and_unless_spares() -> None:
    recipe = rules(
        {"match": "op:MatMul", "unless": "x*", "keep": "float", "reason": "sensitive"},
        {"match": "*", "calibration": "mse"},
    )
    outcomes = recipe.resolve(SITES)
    assert [outcome.keep_float for outcome in outcomes] == [True, False, False, False]
    assert outcomes[0].reason == "sensitive"


def test_expressions_must_match_the_whole_name() -> None:
    with pytest.raises(RecipeError):
        rules({"match": "re:/stem", "keep": "float"}).resolve(SITES)


@pytest.mark.parametrize(
    ("pattern", "suggestion"),
    [
        ("op:matmul", "'op:MatMul'"),
        ("op:Convv", "'op:Conv'"),
        ("/stem/Cnv", "'/stem/Conv'"),
        ("encoder/*", "'/encoder/layers.0/attn/MatMul'"),
        ("re:/stm/Conv.*", "'/stem/Conv'"),
        ("op:Zzz", "Conv, Gemm, MatMul"),
    ],
)
def test_unmatched_pattern(pattern: str, suggestion: str) -> None:
    with pytest.raises(RecipeError) as caught:
        rules({"match": pattern, "keep": "float"}).resolve(SITES)
    assert caught.value.code == "recipe.unmatched"
    assert caught.value.where == "rule 1"
    assert repr(pattern) in caught.value.message
    assert suggestion in caught.value.remedy


def test_every_pattern_of_a_list_must_match() -> None:
    with pytest.raises(RecipeError, match="op:LSTM"):
        rules({"match": ["op:Conv", "op:LSTM"], "keep": "float"}).resolve(SITES)
    with pytest.raises(RecipeError, match="op:LSTM"):
        rules({"match": "*", "unless": "op:LSTM", "keep": "float"}).resolve(SITES)


def test_a_model_without_sites_is_no_error() -> None:
    assert rules({"match": "op:Conv", "keep": "float"}).resolve(()) == ()


def test_include_and_exclude() -> None:
    file = rules({"match": "*mlp*", "keep": "float", "reason": "file"})
    recipe = file.narrowed(include=["/encoder/*", "op:Conv"], exclude=["op:Conv"])
    outcomes = recipe.resolve(SITES)
    assert [outcome.keep_float for outcome in outcomes] == [False, True, True, True]
    assert outcomes[1].reason == "file"
    assert outcomes[2].reason == "--exclude op:Conv"
    assert outcomes[3].reason == "not named by --include /encoder/* op:Conv"
    assert len(file.rules) == 1
    assert file.narrowed() == file


def test_bad_include_and_exclude() -> None:
    with pytest.raises(RecipeError, match=r"--include: .*'re:\['"):
        Recipe().narrowed(include=["re:["])
    with pytest.raises(RecipeError, match="Did you mean 'op:Conv'") as caught:
        Recipe().narrowed(exclude=["op:Cnv"]).resolve(SITES)
    assert "--exclude op:Cnv" in caught.value.where
    with pytest.raises(RecipeError, match="--include"):
        Recipe().narrowed(include=["nothing like it"]).resolve(SITES)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 << 30),
        ("1.5 MiB", 3 << 19),
        ("500MB", 500_000_000),
        ("7kB", 7000),
        ("512", 512),
        (512, 512),
        ("64 b", 64),
        ("1tib", 1 << 40),
    ],
)
def test_parse_bytes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "2G", "-1GiB", "0", 0, -5, "1.5", "two GiB", "1e3MB"])
def test_parse_bytes_refuses(text: str | int) -> None:
    with pytest.raises(RecipeError, match="not an amount of memory"):
        parse_bytes(text)


@given(st.integers(1, 1 << 50))
def test_parse_bytes_of_an_integer(size: int) -> None:
    assert parse_bytes(size) == parse_bytes(str(size)) == size


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().seed = 3
    assert Rule(match=("*",), keep="float") == Rule(match=("*",), keep="float")


def test_unsigned_integers_are_never_symmetric() -> None:
    check_fit(Recipe.model_validate({"scheme": "uint4", "weights": {"symmetric": False}}))
    with pytest.raises(UsageError, match="zero points of its own"):
        check_fit(Recipe.model_validate({"scheme": "uint4", "weights": {"symmetric": True}}))
