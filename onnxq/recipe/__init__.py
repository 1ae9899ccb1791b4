"""What the user wants, as a TOML file.

Everything but ``version`` may be left out; the values shown here are the defaults, except for the
rules, of which there are none::

    version = 1
    scheme = "auto"               # int8, int8-dynamic, int8-weights, fp8, int4, uint4, int2,
                                  # float16, bfloat16; auto measures those of INT8
    format = "qdq"                # or "qoperator": operators on integers instead of Q/DQ pairs
    target = "cpu"                # what runs the model; see `onnxq doctor`
    seed = 0                      # seeds the choice of samples and the held-out split
    eval_fraction = 0.2           # the part of the data that calibration does not see

    channel_scaling = "auto"      # or "off": never even out channels before quantizing
    # engine_cache = "engines"    # folder for what TensorRT builds; left out: none is kept

    [activation]
    type = "uint8"                # or "int8", "uint16", "int16"; left out: what the target wants
    symmetric = false

    [calibration]
    method = "auto"               # minmax, moving-average, percentile, entropy, mse
    percentile = 99.999           # what the percentile method keeps, in percent
    samples = 512                 # at most; left out: all
    memory_budget = "2GiB"        # bytes that calibration may hold at once

    [weights]                     # of int8-weights, int4, uint4 and int2
    form = "auto"                 # blocks (MatMulNBits), folded (at load), dq (at each inference)
    block_size = 128              # 16 to 256; left out: measured
    accuracy_level = 4            # 4 int8, 1 float32 activations; left out: by the bound
    # These keys are of the same schemes and not of auto:
    # algorithm = "awq+gptq"      # rtn, mse, hqq, awq, gptq, mse+gptq, hqq+gptq, awq+gptq, auto;
    #                             # left out: awq+gptq with data, hqq without; rtn of int8-weights
    # symmetric = false           # whether zero points are fixed; left out: as errs least with
    #                             # algorithm = "auto", else they are free
    # sequential = true           # a layer's statistics behind quantized ones; left out: float ones

    [half]                        # of float16 and bfloat16
    form = "auto"                 # weights (float32 at load), compute (nodes too); by the target

    [provider_options.tensorrt]   # ONNX Runtime's own keys, for a provider that is there
    trt_fp16_enable = "1"

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

Rules of the schemes that store weights in blocks speak of blocks instead. A product can be stored
otherwise than the rest, or be kept float where that costs too much::

    version = 1
    scheme = "int4"

    [weights]
    algorithm = "auto"

    [[rules]]
    match = "*/down_proj/*"
    weight = { bits = 8, block_size = 32, symmetric = true, algorithm = "mse" }

    [[rules]]
    match = "/lm_head/*"
    keep = "float"

An unknown key, a value out of range and a pattern that matches nothing are errors, and so is what
the scheme cannot heed: an algorithm or ``bits = 4`` in ``int8``, a granularity in ``int4``.
``bits`` is 2, 4 or 8 in blocks, and 7 or 8 elsewhere. Sites that share a weight are stored as the
first of them is.
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
