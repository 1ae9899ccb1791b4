"""Folding what follows a Conv: against float64, and where it must not happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxq.graph import edit
from onnxq.graph.fold_affine import FoldAffinePass
from onnxq.graph.normalize import normalize
from tests.small_models import normal, proto

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Run = Callable[[ir.Model, Mapping[str, NDArray[np.generic]]], list[NDArray[Any]]]


def _model(seed: int, *, group: int = 1, bias: bool = True) -> ir.Model:
    """Conv (6 channels, 3x3) then BatchNormalization."""
    rng = np.random.default_rng(seed)
    x = ir.val("x", ir.DataType.FLOAT, ["n", 4, 5, 5])
    arrays = {
        "w": rng.normal(size=(6 if group == 1 else 4, 4 // group, 3, 3)),
        "b": rng.normal(size=6 if group == 1 else 4),
    }
    channels = arrays["b"].size
    arrays["gamma"] = rng.normal(size=channels)
    arrays["beta"] = rng.normal(size=channels)
    arrays["mean"] = rng.normal(size=channels)
    arrays["var"] = rng.uniform(0.01, 3, size=channels)
    values = {}
    for name, array in arrays.items():
        tensor = ir.tensor(array.astype(np.float32), name=name)
        values[name] = ir.val(name, const_value=tensor)
    conv_inputs = [x, values["w"], values["b"]] if bias else [x, values["w"]]
    conv = ir.node("Conv", conv_inputs, attributes={"group": group}, name="conv")
    norm_inputs = [conv.outputs[0], *(values[k] for k in ("gamma", "beta", "mean", "var"))]
    norm = ir.node("BatchNormalization", norm_inputs, attributes={"epsilon": 1e-3}, name="norm")
    conv.outputs[0].name, norm.outputs[0].name = "c", "y"
    norm.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    norm.outputs[0].shape = ir.Shape(["n", channels, 3, 3])
    used = [v for k, v in values.items() if bias or k != "b"]
    graph = ir.Graph(
        [x],
        [norm.outputs[0]],
        nodes=[conv, norm],
        initializers=used,
        opset_imports={"": 17},
        name="g",
    )
    return ir.Model(graph, ir_version=8)


@given(seed=st.integers(0, 10_000), group=st.sampled_from([1, 4]), bias=st.booleans())
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_same_outputs_with_one_node_less(seed: int, group: int, bias: bool, run: Run) -> None:
    model = _model(seed, group=group, bias=bias)
    result = normalize(model).model
    assert [node.op_type for node in result.graph] == ["Conv"]
    assert [value.name for value in result.graph.outputs] == ["y"]
    x = np.random.default_rng(seed).normal(size=(2, 4, 5, 5)).astype(np.float32)
    wanted, got = run(model, {"x": x})[0], run(result, {"x": x})[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-4)


def test_weights_against_float64() -> None:
    model = _model(1)
    arrays = {
        name: np.asarray(edit.constant_array(value), np.float64)
        for name, value in model.graph.initializers.items()
    }
    scale = arrays["gamma"] / np.sqrt(arrays["var"] + np.float64(np.float32(1e-3)))
    conv = normalize(model).model.graph[0]
    weight, bias = (edit.constant_array(value) for value in conv.inputs[1:])
    wanted = (arrays["w"] * scale[:, None, None, None]).astype(np.float32)
    np.testing.assert_array_max_ulp(np.asarray(weight), wanted, maxulp=1)
    shift = (arrays["b"] - arrays["mean"]) * scale + arrays["beta"]
    np.testing.assert_allclose(np.asarray(bias), shift.astype(np.float32), rtol=1e-6, atol=1e-7)


def _conv_output_is_output(model: ir.Model) -> None:
    model.graph.outputs.append(model.graph[0].outputs[0])


def _second_reader(model: ir.Model) -> None:
    relu = ir.node("Relu", [model.graph[0].outputs[0]])
    relu.outputs[0].name = "r"
    model.graph.append(relu)
    model.graph.outputs.append(relu.outputs[0])


def _training(model: ir.Model) -> None:
    model.graph[1].attributes["training_mode"] = ir.AttrInt64("training_mode", 1)


def _overridable(model: ir.Model) -> None:
    model.graph.inputs.append(model.graph.initializers["w"])


def _not_finite(model: ir.Model) -> None:
    gamma = np.array([np.inf, 1, 1, 1, 1, 1], np.float32)
    model.graph.initializers["gamma"].const_value = ir.tensor(gamma, name="gamma")


def _negative_variance(model: ir.Model) -> None:
    variance = np.array([-1, 1, 1, 1, 1, 1], np.float32)
    model.graph.initializers["var"].const_value = ir.tensor(variance, name="var")


@pytest.mark.parametrize(
    "change",
    [
        _conv_output_is_output,
        _second_reader,
        _training,
        _overridable,
        _not_finite,
        _negative_variance,
    ],
)
def test_declined(change: Callable[[ir.Model], None]) -> None:
    model = _model(2)
    change(model)
    result = FoldAffinePass()(model)
    assert not result.modified
    assert "BatchNormalization" in [node.op_type for node in result.model.graph]


CONSTANTS = {
    "one element": np.float32(3),
    "a channel": np.linspace(-2, 2, 6, dtype=np.float32).reshape(1, 6, 1, 1),
    "without batch": np.linspace(0.5, 2, 6, dtype=np.float32).reshape(6, 1, 1),
}


def _arithmetic(expression: str, constant: NDArray[np.generic]) -> ir.Model:
    return ir.serde.deserialize_model(
        proto(
            "g (float[n, 4, 5, 5] x) => (float[n, 6, 3, 3] y)"
            f"{{ c = Conv(x, w) y = {expression} }}",
            w=normal(0, 6, 4, 3, 3),
            k=np.asarray(constant),
        )
    )


@pytest.mark.parametrize("constant", CONSTANTS.values(), ids=CONSTANTS.keys())
@pytest.mark.parametrize(
    "expression", ["Add(c, k)", "Add(k, c)", "Sub(c, k)", "Mul(k, c)", "Div(c, k)"]
)
def test_arithmetic_with_a_constant(
    expression: str, constant: NDArray[np.generic], run: Run
) -> None:
    model = _arithmetic(expression, constant)
    result = normalize(model).model
    assert [node.op_type for node in result.graph] == ["Conv"]
    x = normal(1, 2, 4, 5, 5)
    wanted, got = run(model, {"x": x})[0], run(result, {"x": x})[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("expression", "constant"),
    [
        ("Sub(k, c)", np.float32(3)),
        ("Div(k, c)", np.float32(3)),
        ("Div(c, k)", np.float32(0)),
        ("Add(c, k)", np.float32(np.nan)),
        ("Mul(c, k)", np.float32(np.inf)),
        ("Add(c, k)", np.ones(3, np.float32)),
        ("Add(c, k)", np.ones((2, 1, 1, 1), np.float32)),
        ("Add(c, k)", np.ones((1, 1, 1, 1, 1), np.float32)),
        ("Add(c, c)", np.float32(3)),
    ],
)
def test_arithmetic_that_stays(expression: str, constant: NDArray[np.generic]) -> None:
    result = FoldAffinePass()(_arithmetic(expression, constant))
    assert not result.modified


def test_a_chain_folds_and_a_shared_weight_is_only_shifted(run: Run) -> None:
    """A Mul would change the weight that the other Conv reads too; an Add leaves it alone."""
    model = ir.serde.deserialize_model(
        proto(
            """g (float[n, 4, 5, 5] x) => (float[n, 6, 3, 3] y, float[n, 6, 3, 3] z) {
                c = Conv(x, w) a = Add(c, k) y = Mul(a, k)
                d = Conv(x, v) e = Add(d, k) f = Mul(e, k) z = Add(f, k)
                u = Conv(x, w) z2 = Neg(u)
            }""",
            w=normal(0, 6, 4, 3, 3),
            v=normal(1, 6, 4, 3, 3),
            k=np.linspace(0.5, 2, 6, dtype=np.float32).reshape(6, 1, 1),
        )
    )
    model.graph.outputs.append(model.graph[-1].outputs[0])
    result = normalize(model).model
    assert sorted(node.op_type for node in result.graph) == ["Conv", "Conv", "Conv", "Mul", "Neg"]
    x = normal(2, 2, 4, 5, 5)
    for wanted, got in zip(run(model, {"x": x}), run(result, {"x": x}), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_a_name_stands_for_the_same_values_afterwards() -> None:
    text = """g (float[1, 2, 4, 4] x) => (float[1, 3, 2, 2] y) {
        c = Conv(x, w)
        b = BatchNormalization(c, s, t, m, v)
        k = Mul(b, two)
        y = Relu(k)
    }"""
    constants = {"w": normal(0, 3, 2, 3, 3), "two": np.full((3, 1, 1), 2, np.float32)}
    constants |= {name: np.abs(normal(seed, 3)) for seed, name in enumerate("stmv")}
    model = ir.serde.deserialize_model(proto(text, **constants))
    FoldAffinePass()(model)
    assert [(node.op_type, node.outputs[0].name) for node in model.graph] == [
        ("Conv", "k"),
        ("Relu", "y"),
    ]
