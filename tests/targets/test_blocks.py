"""What cpu.toml says of weights in blocks beside what ONNX Runtime computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest

from onnxq.passes.execute import execute
from onnxq.plan import BLOCK_BITS, BlockEmbeddingEntry, BlockEntry
from onnxq.targets import load_target
from tests.passes.block_plans import drawn, plan_of
from tests.small_models import normal, normalized, run

if TYPE_CHECKING:
    from numpy.typing import NDArray

CPU = load_target("cpu")
SIZES = (16, 32, 64, 128, 256)
"""All that MatMulNBits takes and a model is likely to have."""

EXACT = 1e-4
"""Activations were not rounded: a part of the greatest magnitude."""

RULES = CPU.blocks
pytestmark = pytest.mark.skipif(
    ort.__version__ != CPU.probed_with, reason="cpu.toml records another version of ONNX Runtime"
)


def error(bits: int, level: int, size: int, rows: int, *, symmetric: bool) -> float:
    """Of one product beside float64, as a part of the greatest magnitude; K is ragged."""
    length, channels = 2 * size + size // 2, 24
    arrays, matrix = drawn("w", channels, length, bits, size, symmetric=symmetric)
    text = f"g (float[B, {length}] x) => (float[B, {channels}] y) {{ y = MatMul(x, w) }}"
    model = normalized(text, w=matrix.T.astype(np.float32))
    entry = BlockEntry(
        node=model.graph[0].name or "",
        activation=0,
        weight=1,
        initializer="w",
        bits=bits,
        symmetric=symmetric,
        axis=1,
        block_size=size,
        accuracy_level=level,
    )
    x = normal(1, rows, length)
    found = run(execute(plan_of(arrays, [entry]), model), {"x": x}, "all")[0]
    expected: NDArray[Any] = x @ matrix.T
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_every_width_is_described() -> None:
    assert RULES is not None
    assert tuple(RULES.widths) == BLOCK_BITS


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bits", BLOCK_BITS)
def test_levels_and_sizes_are_what_the_runtime_computes(
    bits: int, size: int, *, symmetric: bool
) -> None:
    assert RULES is not None
    width = RULES.widths[bits]
    for rows in (1, 64):
        for level in (0, 1):
            assert error(bits, level, size, rows, symmetric=symmetric) < EXACT
        rounded = error(bits, 4, size, rows, symmetric=symmetric)
        # Where there is no kernel for int8 activations the runtime computes in float.
        assert rounded < 0.03
        if size in width.block_sizes:
            assert rounded > EXACT


@pytest.mark.parametrize("bits", BLOCK_BITS)
def test_sizes_without_a_kernel_are_those_left_out(bits: int) -> None:
    assert RULES is not None
    fallen = {size for size in SIZES if error(bits, 4, size, 64, symmetric=True) < EXACT}
    assert fallen == ({16, 256} if bits == 2 else set())
    assert not fallen & set(RULES.widths[bits].block_sizes)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bits", BLOCK_BITS)
def test_lookups_are_exact(bits: int, size: int, *, symmetric: bool) -> None:
    arrays, table = drawn("t", 20, 2 * size, bits, size, symmetric=symmetric)
    text = f"g (int64[B] i) => (float[B, {2 * size}] y) {{ y = Gather(t, i) }}"
    model = normalized(text, t=table.astype(np.float32))
    entry = BlockEmbeddingEntry(
        node=model.graph[0].name or "",
        initializer="t",
        stored="t",
        bits=bits,
        symmetric=symmetric,
        block_size=size,
    )
    found = run(execute(plan_of(arrays, (), [entry]), model), {"i": np.asarray([0, -1, 7])}, "all")
    assert np.abs(found[0] - table[[0, -1, 7]]).max() <= 1e-6 * np.abs(table).max()
