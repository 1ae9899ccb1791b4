"""What inputs are looked up in, and which outputs are logits over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.graph.structure import signature
from onnxq.graph.vocabulary import FEWEST_ROWS
from tests.small_decoder import VOCABULARY, decoder
from tests.small_models import normal, proto

if TYPE_CHECKING:
    from onnxq.graph.structure import InputSpec

LOOKUP = "h = Gather(table, input_ids)"


def tokens(graph: str, rows: int = 80, width: int = 80) -> InputSpec:
    model = proto(graph, table=normal(0, rows, 8), w=normal(1, 8, width))
    return signature(ir.serde.deserialize_model(model))[0]


@pytest.mark.parametrize("cache", [True, False])
def test_a_language_model(cache: bool) -> None:
    found = signature(ir.serde.deserialize_model(decoder(cache=cache)))
    rows = {spec.name: (spec.rows, spec.scored) for spec in found if spec.rows}
    assert rows == {"input_ids": (VOCABULARY, True), "position_ids": (64, False)}


@pytest.mark.parametrize(
    ("declared", "rows", "width", "scored"),
    [
        ("float[B, T, 80] y", 80, 80, True),
        ("float[B, T, 384] y", 80, 384, False),  # hidden states
        ("float[B, T, 96] logits", 80, 96, True),  # padded to a multiple of 32
        ("float[B, T, 96] y", 80, 96, False),
        ("float[B, T, V] logits", 80, 80, True),  # of unknown width
        ("float[B, T, V] y", 80, 80, False),
        ("float[B, T, 7] logits", 80, 7, False),  # classes of tokens
        ("float[B, T, 2000] logits", 80, 2000, False),
        ("float[B, T, 63] y", FEWEST_ROWS - 1, 63, False),  # a table of types
    ],
)
def test_which_outputs_are_logits(declared: str, rows: int, width: int, scored: bool) -> None:
    output = declared.split()[-1]
    graph = f"g (int64[B, T] input_ids) => ({declared}) {{ {LOOKUP} {output} = MatMul(h, w) }}"
    found = tokens(graph, rows, width)
    assert (found.rows, found.scored) == (rows, scored)


def test_only_the_first_float_output_counts() -> None:
    graph = f"""g (int64[B, T] input_ids) => (int64[B, T] c, float[B, T, 8] h, float[B, T, 80] y) {{
        {LOOKUP} y = MatMul(h, w) c = ArgMax<axis = -1, keepdims = 0>(y)
    }}"""
    assert tokens(graph).scored is False


def test_a_lookup_is_found_behind_what_keeps_the_numbers() -> None:
    graph = """g (int32[B, T] input_ids) => (float[B, T, 80] y) {
        c = Cast<to = 7>(input_ids) i = Identity(c) h = Gather(table, i) y = MatMul(h, w)
    }"""
    assert tokens(graph).scored is True
    counted = graph.replace(
        "i = Identity(c)", "one = Constant<value = int64 {1}>() i = Add(c, one)"
    )
    assert tokens(counted).rows is None


def test_a_table_that_only_a_branch_reads_is_no_bound() -> None:
    graph = """g (int64[B, T] input_ids, bool go) => (float[B, T, 8] y) {
        y = If(go) <
            then_branch = a () => (float[B, T, 8] h) { h = Gather(table, input_ids) },
            else_branch = b () => (float[B, T, 8] k) { k = Gather(w, input_ids) }
        >
    }"""
    assert tokens(graph, width=8).rows is None


def test_a_quantized_table() -> None:
    graph = "g (int64[B, T] input_ids) => (float[B, T, 8] h) { h = "
    graph += "com.microsoft.GatherBlockQuantized<gather_axis = 0>(table, input_ids, scale) }"
    model = proto(graph, table=np.zeros((80, 4), np.uint8), scale=np.ones((80, 1), np.float32))
    (found,) = signature(ir.serde.deserialize_model(model))
    assert found.rows == 80


def test_a_long_chain_does_not_overflow_the_stack() -> None:
    chain = " ".join(f"i{n + 1} = Identity(i{n})" for n in range(3000))
    graph = f"""g (int64[B, T] input_ids) => (float[B, T, 8] h) {{
        i0 = Identity(input_ids) {chain} h = Gather(table, i3000)
    }}"""
    assert tokens(graph).rows == 80
