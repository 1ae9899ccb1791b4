"""What each provider accepts, fuses and wants, as data."""

from onnxq.targets.target import (
    ACTIVATION_MATMUL,
    TABLE,
    BlockRules,
    BlockWidth,
    DynamicRules,
    Float8Rules,
    HalfRules,
    OpRule,
    Target,
    WeightScheme,
    known_targets,
    load_target,
    weight_scheme,
)

__all__ = [
    "ACTIVATION_MATMUL",
    "TABLE",
    "BlockRules",
    "BlockWidth",
    "DynamicRules",
    "Float8Rules",
    "HalfRules",
    "OpRule",
    "Target",
    "WeightScheme",
    "known_targets",
    "load_target",
    "weight_scheme",
]
