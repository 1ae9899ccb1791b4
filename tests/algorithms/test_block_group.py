"""The weights of one activation: no algorithm errs more than rounding to the nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.algorithms.block_algorithm import ALGORITHMS, AUTO
from onnxq.algorithms.block_candidates import WeightTask
from onnxq.algorithms.block_group import GroupTask, solve_group
from onnxq.numerics.affine import dequantize
from onnxq.numerics.blockwise import (
    dequantized,
    minmax_params,
    output_error,
)
from onnxq.numerics.moments import SplitMoments
from onnxq.numerics.packing import unpack_blocks
from tests.numerics import references
from tests.numerics.test_gptq import layer

if TYPE_CHECKING:
    from onnxq.numerics.schemes import Scheme

SCHEME = references.scheme(4, 16)


def moments(activations: np.ndarray, *, held_out: bool = True) -> SplitMoments:
    found = SplitMoments(activations.shape[1])
    end = len(activations) * 4 // 5 if held_out else len(activations)
    found.add(activations[:end], held_out=False)
    found.add(activations[end:], held_out=True)
    return found


def wanted(
    weights: dict[str, np.ndarray],
    names: tuple[str, ...],
    classes: np.ndarray | None = None,
    *,
    schemes: tuple[Scheme, ...] = (SCHEME,),
    least_gain: float = 0.0,
) -> GroupTask:
    algorithms = tuple(ALGORITHMS[name] for name in names)
    tasks = {name: WeightTask(weight, algorithms, schemes) for name, weight in weights.items()}
    return GroupTask(tasks, classes, least_gain)


def error(weight: np.ndarray, result: object, factor: np.ndarray | None, gram: np.ndarray) -> float:
    """Squared error of a quantized weight's product on the tokens of ``gram``."""
    scaled = weight if factor is None else weight * factor
    params = result.params  # type: ignore[attr-defined]
    packed = result.packed  # type: ignore[attr-defined]
    real = dequantized(scaled, params)
    if packed is not None:
        integers = unpack_blocks(packed, params.scheme.bits, 16, weight.shape[1])
        real = dequantize(integers, params)
    return output_error((real if factor is None else real / factor) - weight, gram)


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_none_errs_more_than_rounding_to_the_nearest(name: str, *, held_out: bool) -> None:
    first, activations = layer(11, 24, 40, 300)
    second, _ = layer(12, 8, 40, 1)
    weights = {"first": first, "second": second}
    task = wanted(weights, (name,), np.arange(40))
    found = solve_group(task, moments(activations, held_out=held_out))
    gram = activations.T @ activations
    ours = sum(error(w, found.weights[n], found.factor, gram) for n, w in weights.items())
    plain = sum(
        output_error(dequantized(w, minmax_params(w, SCHEME)) - w, gram) for w in weights.values()
    )
    assert ours <= plain * (1 + 1e-5)
    if ALGORITHMS[name].needs_activations:
        assert ours < 0.9 * plain


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**31),
    st.sampled_from(sorted(ALGORITHMS)),
    st.integers(1, 50),
    st.integers(1, 60),
    st.sampled_from([2, 4, 8]),
    st.booleans(),
)
def test_never_worse_on_the_calibration_tokens(
    seed: int, name: str, columns: int, tokens: int, bits: int, symmetric: bool
) -> None:
    weight, activations = layer(seed, 5, columns, tokens)
    scheme = references.scheme(bits, 16, symmetric=symmetric)
    task = wanted({"w": weight}, (name,), np.arange(columns), schemes=(scheme,))
    found = solve_group(task, moments(activations))
    gram = activations.T @ activations
    plain = output_error(dequantized(weight, minmax_params(weight, scheme)) - weight, gram)
    noise = 1e-5 * output_error(weight, gram)
    assert error(weight, found.weights["w"], found.factor, gram) <= plain * (1 + 1e-3) + noise


def test_auto_is_as_good_on_held_out_tokens_as_each_algorithm_it_tries() -> None:
    weight, activations = layer(13, 32, 64, 400)
    schemes = (SCHEME, references.scheme(4, 16, symmetric=True))
    task = wanted({"w": weight}, AUTO, np.arange(64), schemes=schemes)
    found = solve_group(task, moments(activations))
    noises = found.noises["w"]
    assert len(noises) == 2 * len(AUTO)
    assert noises[found.weights["w"].label] == min(noises.values())
    for name in AUTO:
        task = wanted({"w": weight}, (name,), np.arange(64), schemes=schemes)
        alone = solve_group(task, moments(activations))
        assert min(noises.values()) <= min(alone.noises["w"].values()) * (1 + 1e-6)


def test_channels_of_one_class_get_one_factor() -> None:
    weight, activations = layer(14, 16, 48, 300)
    classes = np.arange(48) % 12
    found = solve_group(wanted({"w": weight}, ("awq",), classes), moments(activations))
    assert found.factor is not None
    for number in range(12):
        assert len(set(found.factor[classes == number])) == 1


def test_channels_are_not_scaled_where_that_is_not_allowed_or_gains_little() -> None:
    weight, activations = layer(15, 16, 48, 300)
    forbidden = wanted({"w": weight}, ("awq",))
    costly = wanted({"w": weight}, ("awq",), np.arange(48), least_gain=0.99)
    for task in (forbidden, costly):
        found = solve_group(task, moments(activations))
        assert found.factor is None
        assert found.exponent == 0.0


def test_gptq_gives_way_where_it_fits_too_few_tokens() -> None:
    weight, _ = layer(16, 32, 64, 1)
    random = np.random.default_rng(0)
    seen = SplitMoments(64)
    # The held-out tokens lie in other directions than the few that are fitted.
    seen.add(random.normal(size=(3, 64)).astype(np.float32) * 100, held_out=False)
    judging = random.normal(size=(400, 64)).astype(np.float32)
    seen.add(judging, held_out=True)
    found = solve_group(wanted({"w": weight}, ("gptq",)), seen)
    change = dequantized(weight, minmax_params(weight, SCHEME)) - weight
    nearest = output_error(change, judging.T @ judging)
    assert min(found.noises["w"].values()) <= nearest
