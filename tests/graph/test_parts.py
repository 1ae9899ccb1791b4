"""Bundles are joined and taken apart without a trace, or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from onnxq.errors import ModelError
from onnxq.graph.io import digest, load, save
from onnxq.graph.opset import opset_version, raise_opset
from onnxq.graph.parts import KEY, Parts, free_prefix, is_bundle, join, renamed, split
from tests.small_models import normal, normalized, run

if TYPE_CHECKING:
    from pathlib import Path

CORE = """g (float[N, 4] x, float[N, 4] y) => (float[N, 3] s, float[N, 4] t) {
    h = MatMul(x, w) s = Relu(h) t = Add(x, y)
}"""


def part(text: str, opset: int = 17) -> ir.Model:
    return ir.from_proto(
        parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]> {text}')
    )


def parts(opset: int = 17) -> Parts:
    front = part(
        """g (int64[M, 4] raw) => (float[M, 4] x, float[] pre_size) {
            pre_r = Cast<to = 1>(raw) pre_two = Constant<value_float = 2.0>()
            x = Mul(pre_r, pre_two)
            pre_size = ReduceSum<keepdims = 0>(pre_r) }""",
        opset,
    )
    back = part("g (float[N, 3] s, float pre_size) => (float[N, 3] z) { z = Add(s, pre_size) }")
    return Parts(front, normalized(CORE, w=normal(0, 4, 3)), back, ("z", "t"))


def test_the_whole_computes_what_the_parts_compute(tmp_path: Path) -> None:
    given = parts()
    whole = join(given)
    save(whole, tmp_path / "m.onnx")
    raw, y = np.arange(8, dtype=np.int64).reshape(2, 4), normal(1, 2, 4)
    z, t = run(tmp_path / "m.onnx", {"raw": raw, "y": y})
    x = raw.astype(np.float32) * 2
    np.testing.assert_allclose(z, np.maximum(x @ normal(0, 4, 3), 0) + raw.sum(), rtol=1e-5)
    np.testing.assert_allclose(t, x + y, rtol=1e-6)
    assert [value.name for value in whole.graph.inputs] == ["raw", "y"]
    assert is_bundle(whole)
    assert not is_bundle(given.core)


def test_what_is_taken_apart_is_what_was_joined(tmp_path: Path) -> None:
    given = parts()
    save(join(given), tmp_path / "m.onnx")
    whole = load(tmp_path / "m.onnx")
    found = split(whole, "m.onnx")
    assert digest(found.core) == digest(given.core)
    assert KEY not in found.core.metadata_props
    assert found.outputs == ("z", "t")
    assert [name for name, _ in found.others] == ["preprocessing", "postprocessing"]
    assert digest(join(found)) == digest(whole)
    # The bundle itself stays as it was.
    assert digest(whole) == digest(load(tmp_path / "m.onnx"))


@pytest.mark.parametrize("missing", ["front", "back"])
def test_one_part_alone(missing: str) -> None:
    given = parts()
    if missing == "front":
        back = part("g (float[N, 3] s) => (float[N, 3] z) { z = Neg(s) }")
        given = replace(given, front=None, back=back)
    else:
        given = replace(given, back=None, outputs=("s", "t"))
        assert given.front is not None
        given.front.graph.outputs.pop()
    found = split(join(given), "m")
    assert getattr(found, missing) is None
    assert digest(found.core) == digest(given.core)


@pytest.mark.parametrize("newer", ["core", "front"])
def test_the_newest_opset_holds_for_all(newer: str, tmp_path: Path) -> None:
    given = parts()
    if newer == "core":
        given = replace(given, core=raise_opset(given.core, 21))
    else:
        assert given.front is not None
        given = replace(given, front=raise_opset(given.front, 21))
    whole = join(given)
    assert opset_version(whole) == 21
    save(whole, tmp_path / "m.onnx")
    raw = np.ones((1, 4), np.int64)
    run(tmp_path / "m.onnx", {"raw": raw, "y": normal(0, 1, 4)})


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("{", "no JSON"),
        ("[]", "not of version 1"),
        ('{"version": 2}', "not of version 1"),
        ('{"version": 1, "inputs": ["x"], "outputs": "s", "shared": []}', "lists no names"),
        (
            '{"version": 1, "inputs": ["q"], "outputs": ["s"], "shared": []}',
            "does not fit its graph",
        ),
        (
            '{"version": 1, "inputs": ["z"], "outputs": ["s"], "shared": []}',
            "does not fit its graph",
        ),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_damaged_record_is_refused(record: str, says: str) -> None:
    whole = join(parts())
    whole.metadata_props[KEY] = record
    with pytest.raises(ModelError, match=says) as caught:
        split(whole, "m.onnx")
    assert caught.value.code == "graph.bundle"
    assert caught.value.where == "m.onnx"


def test_the_record_names_the_boundary() -> None:
    record = json.loads(join(parts()).metadata_props[KEY])
    assert record["inputs"] == ["x", "y"]
    assert record["outputs"] == ["s", "t"]
    assert record["shared"] == ["pre_size"]


def test_names_that_are_taken() -> None:
    core = normalized("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    prefix = free_prefix(core, "pre")
    named = renamed(core, prefix, ["x"])
    assert [value.name for value in named.graph.inputs] == ["x"]
    assert [node.outputs[0].name for node in named.graph] == ["pre/y"]
    assert free_prefix(named, "pre") == "pre1/"
