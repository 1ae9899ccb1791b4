"""Slice, Gather and Split followed backwards, against numpy's own indexing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.graph.channels import NONE, NoFoldError
from onnxq.graph.selections import before_selection, reads_divided
from tests.foldable import ints, modern, number

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

INPUT = np.arange(3 * 4 * 8).reshape(3, 4, 8)


def selection(line: str, **constants: NDArray[Any]) -> ir.Node:
    """The node of a model that selects from ``x``, whose first axis is of unknown length."""
    outputs = line.split(" = ")[0].split(", ")
    made = ", ".join(f"float t{i}" for i in range(len(outputs)))
    tails = " ".join(f"t{i} = ReduceSum<keepdims = 0>({o})" for i, o in enumerate(outputs))
    model = modern(
        f"g (float[B, 4, 8] x, int64[1] k) => ({made}) {{ {line} {tails} }}", **constants
    )
    return next(node for node in model.graph if node.op_type in {"Slice", "Gather", "Split"})


CASES: list[tuple[str, dict[str, NDArray[Any]], list[NDArray[Any]]]] = [
    (
        "a = Slice(x, s, e, d)",
        {"s": ints(2), "e": ints(7), "d": ints(2)},
        [INPUT[:, :, 2:7]],
    ),
    (
        "a = Slice(x, s, e, d, p)",
        {"s": ints(1, 0), "e": ints(-1, 2**62), "d": ints(-2, -1), "p": ints(1, 3)},
        [INPUT[:, 1:-1, ::3]],
    ),
    ("a = Gather<axis = 2>(x, i)", {"i": ints(5, 0, -1)}, [INPUT[:, :, [5, 0, -1]]]),
    ("a = Gather<axis = 1>(x, i)", {"i": number(-2, np.int64)}, [INPUT[:, -2]]),
    (
        "a, b = Split<axis = -1>(x, n)",
        {"n": ints(3, 5)},
        [INPUT[..., :3], INPUT[..., 3:]],
    ),
    (
        "a, b, c = Split<axis = 2, num_outputs = 3>(x)",
        {},
        [INPUT[..., :3], INPUT[..., 3:6], INPUT[..., 6:]],
    ),
]


@pytest.mark.parametrize(("line", "constants", "parts"), CASES, ids=[case[0] for case in CASES])
def test_what_is_selected_keeps_its_label_and_nothing_else_has_one(
    line: str, constants: dict[str, NDArray[Any]], parts: list[NDArray[Any]]
) -> None:
    node = selection(line, **constants)
    for output, part in enumerate(parts):
        # Labels do not depend on the axis of unknown length.
        found = before_selection(node, output, part[:1], alone=False)
        expected = np.where(np.isin(INPUT, part), INPUT, NONE)[:1]
        np.testing.assert_array_equal(found, expected)
        assert reads_divided(node, found)
        assert not reads_divided(node, np.full_like(found, NONE))


def test_what_is_not_selected_may_be_divided_where_nobody_reads_it() -> None:
    node = selection("a = Slice(x, s, e, d)", s=ints(0), e=ints(1), d=ints(1))
    labels = np.arange(8)
    assert before_selection(node, 0, labels, alone=True).shape == (1, 1, 8)
    found = before_selection(node, 0, labels, alone=False)
    assert found.shape == (1, 4, 8)
    assert (found[0, 1:] == NONE).all()


def test_readers_of_other_channels_are_told_apart() -> None:
    node = selection("a = Slice(x, s, e, d)", s=ints(4), e=ints(8), d=ints(2))
    labels = np.full(8, NONE)
    labels[:4] = np.arange(4)
    assert not reads_divided(node, labels)
    labels[4] = 4
    assert reads_divided(node, labels)


@pytest.mark.parametrize(
    ("line", "constants"),
    [
        ("a = Slice(x, k, e, d)", {"e": ints(7), "d": ints(2)}),
        ("a = Slice(x, s, e, k)", {"s": ints(2), "e": ints(7)}),
        ("a = Slice(x, s, e, d, p)", {"s": ints(7), "e": ints(2), "d": ints(2), "p": ints(-1)}),
        ("a = Gather<axis = 2>(x, k)", {}),
        ("a = Gather<axis = 2>(x, i)", {"i": ints(1, 1)}),
        ("a = Gather<axis = 2>(x, i)", {"i": ints(1, 2).reshape(1, 2)}),
    ],
)
def test_what_is_not_constant_is_refused(line: str, constants: dict[str, NDArray[Any]]) -> None:
    node = selection(line, **constants)
    with pytest.raises(NoFoldError):
        before_selection(node, 0, np.arange(2), alone=False)
    assert reads_divided(node, np.arange(8))
