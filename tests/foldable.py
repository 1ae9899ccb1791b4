"""Models of one opset with ONNX Runtime's own operators, and what scaling all their groups does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnx import numpy_helper, parser

from onnxq.algorithms.scaling_groups import scaling_groups
from onnxq.graph.normalize import normalize
from onnxq.graph.sites import find_sites
from onnxq.passes.scale_channels import ScaleChannels
from tests.small_models import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from onnxq.algorithms.scaling_groups import ScalingGroup


def decoder_layer_text(width: int, heads: int) -> str:
    """A layer of a decoder: norms, attention with a head of values for all, a gated product."""
    return f"""g (float[B, S, {width}] x) => (float[B, S, {width}] y) {{
        n = RMSNormalization(x, g)
        q = MatMul(n, wq) k = MatMul(n, wk) v = MatMul(n, wv)
        a = Attention<q_num_heads = {heads}, kv_num_heads = 1, is_causal = 1>(q, k, v)
        o = MatMul(a, wo)
        r = Add(x, o)
        m = RMSNormalization(r, h)
        gate = MatMul(m, wg) s = Sigmoid(gate) silu = Mul(gate, s)
        up = MatMul(m, wu)
        e = Mul(silu, up)
        d = MatMul(e, wd)
        y = Add(r, d)
    }}"""


def modern(text: str, **weights: NDArray[Any]) -> ir.Model:
    """A normalized model of opset 23 from the text of its graph, and its initializers."""
    header = '<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>'
    model = parser.parse_model(f"{header} {text}")
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    return normalize(ir.serde.deserialize_model(model)).model


def ints(*values: int) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)


def number(value: float, dtype: type[np.generic]) -> NDArray[Any]:
    return np.asarray(value, dtype)


def groups_of(model: ir.Model) -> tuple[ScalingGroup, ...]:
    return scaling_groups(model, find_sites(model))


def group_on(model: ir.Model, tensor: str) -> ScalingGroup:
    (group,) = [group for group in groups_of(model) if group.tensor == tensor]
    return group


def random_factor(group: ScalingGroup, seed: int) -> NDArray[np.float64]:
    """Factors from 1/4 to 4 that are equal within each class."""
    random = np.random.default_rng(seed)
    classes = group.fold.classes
    factor: NDArray[np.float64] = 4.0 ** random.uniform(-1, 1, int(classes.max()) + 1)[classes]
    return factor


def scaled(model: ir.Model, groups: Sequence[ScalingGroup], seed: int = 0) -> ir.Model:
    """All these groups scaled by random factors."""
    arrays: dict[str, np.ndarray] = {}
    for number, group in enumerate(groups):
        assert group.reason == ""
        arrays |= group.arrays(random_factor(group, seed + number))
    entries = tuple(group.entry() for group in groups)
    return ScaleChannels(entries, arrays)(model.clone()).model


def folds(model: ir.Model, tensor: str) -> list[tuple[str, int]]:
    """Operator and input of each constant that takes the division of an activation."""
    nodes = {node.name: node for node in model.graph}
    group = group_on(model, tensor)
    return [(nodes[p.node].op_type, p.input) for p in group.fold.parameters]


def assert_equal_when_scaled(
    model: ir.Model, feeds: Mapping[str, NDArray[Any]], seed: int = 0
) -> ir.Model:
    """Scale all groups that can be; outputs stay within 1e-4 of their norm. The scaled model."""
    able = [group for group in groups_of(model) if not group.reason]
    result = scaled(model, able, seed)
    inserted = sum(not group.fold.parameters for group in able)
    assert len(result.graph) == len(model.graph) + inserted
    for before, after in zip(run(model, feeds), run(result, feeds), strict=True):
        assert np.isfinite(before).all()
        error = np.linalg.norm(np.asarray(after - before, np.float64))
        assert error <= 1e-4 * np.linalg.norm(np.asarray(before, np.float64))
    return result
