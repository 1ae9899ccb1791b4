from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq.errors import PlanError
from onnxq.plan import (
    AbsorbedEntry,
    ActivationEntry,
    BiasEntry,
    BlockEmbeddingEntry,
    BlockEntry,
    EmbeddingEntry,
    FoldedEntry,
    KeptApartEntry,
    Plan,
    Provenance,
    Reader,
    ScalingEntry,
    SiteEntry,
    WeightEntry,
    check_digest,
    load_plan,
    plan_digest,
    save_plan,
)

READER = Reader(node="a/MatMul", input=0)


def full() -> Plan:
    """A plan with every part."""
    return Plan(
        onnxq_version="0.1",
        model_digest="sha256:m",
        data_digest="sha256:d",
        scheme="int8",
        target="cpu",
        minimum_opset=13,
        independent=True,
        sites=(SiteEntry(name="a", op="MatMul", decision="float", reason="é", macs=None),),
        scalings=(
            ScalingEntry(
                tensor="t",
                axis=-3,
                folds=(FoldedEntry(node="a/MatMul", input=1, axis=-1, source=0),),
                between=("s",),
                readers=(READER,),
                weights=(READER,),
                axes=(0,),
            ),
        ),
        activations=(
            ActivationEntry(
                tensor="t",
                bits=8,
                signed=False,
                scale=float(np.float32(1 / 3)),
                zero_point=128,
                method="percentile 99.9",
                low=-0.1,
                high=1e-300,
                readers=(READER,),
            ),
        ),
        weights=(WeightEntry(initializer="w", bits=7, axis=None, readers=(READER,)),),
        biases=(BiasEntry(node="a", input=2, initializer="b"),),
        embeddings=(EmbeddingEntry(node="e", initializer="t"),),
        blocks=(
            BlockEntry(
                node="m",
                initializer="v",
                bits=4,
                symmetric=False,
                block_size=48,
                activation=1,
                weight=0,
                axis=0,
                sums=(1,),
                form="folded",
            ),
        ),
        block_embeddings=(
            BlockEmbeddingEntry(node="l", initializer="u", stored="v", bits=2, block_size=16),
        ),
        absorbed=(AbsorbedEntry(node="r", op="Relu"),),
        kept_apart=(KeptApartEntry(node="r", op="Sum"),),
        warnings=("outliers",),
        arrays={
            "weight/w/scale": np.asarray(0.1, np.float32),
            "weight/w/integers": np.arange(12, dtype=np.int8).reshape(3, 4).T,
            "bias/a/integers": np.asarray([2**31 - 1, -5], np.int32),
        },
    )


def test_what_is_saved_comes_back_exactly(tmp_path: Path) -> None:
    save_plan(full(), tmp_path / "deep" / "plan")
    found = load_plan(tmp_path / "deep" / "plan")
    assert found.model_dump() == full().model_dump()
    assert found.arrays.keys() == full().arrays.keys()
    for key, array in full().arrays.items():
        np.testing.assert_array_equal(found.arrays[key], array)
        assert (found.arrays[key].dtype, found.arrays[key].shape) == (array.dtype, array.shape)
    names = sorted(path.name for path in (tmp_path / "deep" / "plan").iterdir())
    assert names == ["plan.json", "plan.safetensors"]


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save_plan(full(), tmp_path / name)
    for file in ("plan.json", "plan.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_scale_and_zero_point_come_back_as_arrays() -> None:
    params = full().activations[0].params()
    assert params.scale.dtype == np.float32
    assert params.zero_point.dtype == np.uint8
    assert float(params.scale) == float(np.float32(1 / 3))
    assert int(params.zero_point) == 128
    assert full().weights[0].scheme.qmax == 63


def test_an_array_that_is_missing_is_named() -> None:
    with pytest.raises(PlanError, match="bias/a/scale"):
        full().array("bias", "a", "scale")


def test_another_models_digest_is_refused() -> None:
    check_digest(full(), "sha256:m", "m.onnx")
    with pytest.raises(PlanError, match="another model") as caught:
        check_digest(full(), "sha256:n", "m.onnx")
    assert caught.value.where == "m.onnx"
    assert "sha256:n" in caught.value.remedy


@pytest.mark.parametrize("file", ["plan.json", "plan.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"[1, 2", b"7"])
def test_a_damaged_file_is_refused(tmp_path: Path, file: str, content: bytes | None) -> None:
    save_plan(full(), tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(PlanError) as caught:
        load_plan(tmp_path)
    assert str(tmp_path) in caught.value.where
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema_version": 2}, "version 2"),
        ({"schema_version": None}, "version"),
        ({"surprise": 1}, "surprise"),
        ({"sites": 3}, "sites"),
        ({"activations": [{"tensor": "t"}]}, "activations"),
        ({"arrays": {}}, None),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, Any], named: str | None
) -> None:
    save_plan(full(), tmp_path)
    content = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps({**content, **change}))
    if named is None:  # the arrays of the other file win
        assert load_plan(tmp_path).arrays
        return
    with pytest.raises(PlanError, match=named):
        load_plan(tmp_path)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_scale_is_refused(tmp_path: Path, scale: float) -> None:
    save_plan(full(), tmp_path)
    content = json.loads((tmp_path / "plan.json").read_text())
    content["activations"][0]["scale"] = scale
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(PlanError, match="scale"):
        load_plan(tmp_path)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("activations", "bits", 64),
        ("activations", "zero_point", 256),
        ("activations", "zero_point", -1),
        ("weights", "bits", 1),
    ],
)
def test_impossible_integers_are_refused(tmp_path: Path, part: str, key: str, value: int) -> None:
    save_plan(full(), tmp_path)
    content = json.loads((tmp_path / "plan.json").read_text())
    content[part][0][key] = value
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(PlanError, match=part) as caught:
        load_plan(tmp_path)
    assert str(value) in str(caught.value) or key in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("file", ["plan.json", "plan.safetensors"])
def test_a_named_pipe_is_no_plan(tmp_path: Path, file: str) -> None:
    save_plan(full(), tmp_path)
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file)
    with pytest.raises(PlanError, match="named pipe"):
        load_plan(tmp_path)


def test_an_interrupted_write_leaves_the_old_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_plan(full(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_plan(full().model_copy(update={"scheme": "other"}), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "said",
    [
        {"onnxq_version": "9"},
        {"model_digest": ""},
        {"data_digest": ""},
        {"target": ""},
        {"independent": False},
        {"provenance": Provenance(recipe={"seed": 1})},
        {"warnings": ()},
    ],
)
def test_the_digest_does_not_see_what_a_plan_says_of_itself(said: dict[str, Any]) -> None:
    assert plan_digest(full().model_copy(update=said)) == plan_digest(full())


@pytest.mark.parametrize(
    "decided",
    [
        {"sites": ()},
        {"scalings": ()},
        {"activations": (full().activations[0].model_copy(update={"zero_point": 127}),)},
        {"weights": ()},
        {"biases": ()},
        {"embeddings": ()},
        {"absorbed": ()},
        {"kept_apart": ()},
        {"arrays": {}},
        {"arrays": {**full().arrays, "bias/a/integers": np.asarray([2**31 - 1, -4], np.int32)}},
        {"arrays": {**full().arrays, "bias/a/integers": np.asarray([[2**31 - 1, -5]], np.int32)}},
        {"arrays": {**full().arrays, "weight/w/scale": np.asarray(0.1, np.float64)}},
    ],
)
def test_the_digest_sees_every_decision(decided: dict[str, Any]) -> None:
    assert plan_digest(full().model_copy(update=decided)) != plan_digest(full())


def test_the_digest_does_not_see_how_arrays_are_kept(tmp_path: Path) -> None:
    save_plan(full(), tmp_path)
    arrays = dict(reversed(full().arrays.items()))
    assert plan_digest(load_plan(tmp_path)) == plan_digest(full())
    assert plan_digest(full().model_copy(update={"arrays": arrays})) == plan_digest(full())
