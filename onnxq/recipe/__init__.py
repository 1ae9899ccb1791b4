"""What the user wants, as a TOML file.

Everything but ``version`` may be left out; the values shown here are the defaults, except for the
rules, of which there are none::

    version = 1
    scheme = "auto"               # int8, int8-dynamic, int8-weights, float16, bfloat16
    format = "qdq"                # or "qoperator": operators on integers instead of Q/DQ pairs
    target = "cpu"                # what runs the model; see `onnxq doctor`
    seed = 0                      # seeds the choice of samples and the held-out split
    eval_fraction = 0.2           # the part of the data that calibration does not see

    channel_scaling = "auto"      # or "off": never even out channels before quantizing

    [activation]
    type = "uint8"                # or "int8", "uint16", "int16"; left out: what the target wants
    symmetric = false

    [calibration]
    method = "auto"               # minmax, moving-average, percentile, entropy, mse
    percentile = 99.999           # what the percentile method keeps, in percent
    samples = 512                 # at most; left out: all
    memory_budget = "2GiB"        # bytes that calibration may hold at once

    [weights]                     # of int8-weights
    form = "auto"                 # blocks (MatMulNBits), folded (at load), dq (at each inference)
    block_size = 128              # 16 to 256; left out: measured
    accuracy_level = 4            # 4 int8, 1 float32 activations; left out: by the bound

    [half]                        # of float16 and bfloat16
    form = "auto"                 # weights (float32 at load), compute (nodes too); by the target

    [[rules]]                     # rules go by what a site is; a later rule wins
    match = "op:Conv"             # an operator type
    calibration = "mse"

    [[rules]]
    match = ["/encoder/layers.0/*", "re:/head/.*MatMul(_[0-9]+)?"]
    unless = "/encoder/layers.0/attn/*"
    keep = "float"
    reason = "sensitive"          # what `inspect` and the report say

    [[rules]]
    match = "/decoder/*"          # a glob for the whole name; * also stands for /
    activation = { type = "int8", symmetric = true }
    weight = { granularity = "tensor", bits = 7 }

An unknown key, a value out of range and a pattern that matches nothing are errors.
"""

from onnxq.recipe.fit import BITS, check_fit, stores_blocks
from onnxq.recipe.load import load_recipe, parse_recipe
from onnxq.recipe.rules import RuleOutcome, resolve_rules
from onnxq.recipe.schema import (
    ActivationOverride,
    CalibrationMethod,
    CalibrationSettings,
    HalfSettings,
    Recipe,
    Rule,
    Scheme,
    WeightOverride,
    WeightSettings,
    parse_bytes,
)

__all__ = [
    "BITS",
    "ActivationOverride",
    "CalibrationMethod",
    "CalibrationSettings",
    "HalfSettings",
    "Recipe",
    "Rule",
    "RuleOutcome",
    "Scheme",
    "WeightOverride",
    "WeightSettings",
    "check_fit",
    "load_recipe",
    "parse_bytes",
    "parse_recipe",
    "resolve_rules",
    "stores_blocks",
]
