"""Weights in blocks in every form: the numbers are those of the dequantized float model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from onnxq.errors import PlanError
from onnxq.graph.io import save, to_bytes
from onnxq.graph.opset import raise_opset
from onnxq.passes.execute import execute
from onnxq.plan import BlockEmbeddingEntry, BlockEntry
from onnxq.runtime.kernels import executed
from tests.passes.block_plans import Arrays, drawn, plan_of
from tests.small_models import normal, normalized, run

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

COMPUTED_WHEN_LOADED = {"Cast", "Expand", "Mul", "Reshape", "Slice", "Sub", "Transpose"}
Form = Literal["kernel", "dq", "folded"]
FORMS: tuple[Form, ...] = ("kernel", "dq", "folded")
MATMUL = "g (float[B, L, K] x) => (float[B, L, N] y) { y = MatMul(x, w) }"
LEFT = "g (float[B, K, L] x) => (float[B, N, L] y) { y = MatMul(w, x) }"
GEMM = "g (float[B, K] x) => (float[B, N] y) { y = Gemm(x, w, b) }"
GEMM_T = "g (float[B, K] x) => (float[B, N] y) { y = Gemm<transB = 1>(x, w, b) }"


def entry(node: ir.Node, form: Form, **fields: Any) -> BlockEntry:
    """The entry of a product with its weight ``w`` on the right."""
    given = {
        "node": node.name,
        "activation": 0,
        "weight": 1,
        "initializer": "w",
        "bits": 4,
        "symmetric": True,
        "axis": 0 if node.attributes.get_int("transB", 0) else 1,
        "block_size": 16,
        "form": form,
    }
    return BlockEntry.model_validate(given | fields)


def close(found: NDArray[Any], expected: NDArray[Any], tolerance: float = 1e-5) -> None:
    """To a part of the greatest magnitude; a thousandth is what is promised."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def check(model: ir.Model, feeds: Arrays, expected: NDArray[Any], tolerance: float = 1e-5) -> None:
    """As it is written, and as ONNX Runtime rewrites it."""
    for level in ("none", "all"):
        close(run(model, feeds, level)[0], expected, tolerance)


def op_types(model: ir.Model) -> list[str]:
    return [node.op for node in executed(to_bytes(model))]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("length", "channels", "size"),
    [(32, 8, 16), (40, 6, 32), (71, 5, 16), (160, 12, 32), (576, 9, 128), (12, 6, 16)],
)
@pytest.mark.parametrize("text", [MATMUL, GEMM, GEMM_T, LEFT])
def test_numbers(
    text: str, length: int, channels: int, size: int, form: Form, bits: int, *, symmetric: bool
) -> None:
    """Every width; ragged K; odd numbers of blocks; levels that keep activations float."""
    arrays, matrix = drawn("w", channels, length, bits, size, symmetric=symmetric)
    own = matrix if text in (GEMM_T, LEFT) else matrix.T
    bias = normal(1, channels)
    constants = {"w": own.astype(np.float32)} | ({"b": bias} if "Gemm" in text else {})
    text = (
        text.replace("K", str(length)).replace("N]", f"{channels}]").replace("N,", f"{channels},")
    )
    model = normalized(text, **constants)
    fields: dict[str, Any] = {"bits": bits, "symmetric": symmetric, "block_size": size}
    if "w, x" in text:
        fields |= {"activation": 1, "weight": 0, "axis": 0}
    (node,) = model.graph
    wanted = entry(node, form, **fields)
    model = raise_opset(model, wanted.minimum_opset)
    x = normal(2, *((3, length) if "Gemm" in text else (2, 3, length)))
    expected = x @ matrix.T + (bias if "Gemm" in text else 0)
    if "w, x" in text:
        x, expected = x.swapaxes(1, 2), expected.swapaxes(1, 2)
    quantized = execute(plan_of(arrays, [wanted]), model)
    # ONNX Runtime makes MatMulNBits of level 4, with int8 activations, of DequantizeLinear.
    fuses = form == "dq" and ("(x, w)" in text or "Gemm(x" in text)
    for level in ("none",) if fuses else ("none", "all"):
        close(run(quantized, {"x": np.ascontiguousarray(x)}, level)[0], expected)  # type: ignore[arg-type]
    if fuses:
        close(run(quantized, {"x": x}, "all")[0], expected, 0.03)
    if form == "kernel":
        assert op_types(quantized).count("MatMulNBits") == 1
    if form == "folded":
        assert set(op_types(quantized)) <= {"MatMul", "Gemm"}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("form", ["kernel", "folded"])
def test_integers_that_no_algorithm_chose_are_the_nearest(
    form: Form, bits: int, *, symmetric: bool
) -> None:
    arrays, _ = drawn("w", 6, 70, bits, 32, symmetric=symmetric)
    del arrays["block/w/packed"]
    w = normal(0, 6, 70) * 2
    scale, points = np.empty((6, 70)), np.full((6, 70), float(1 << (bits - 1)))
    for column in range(70):
        scale[:, column] = arrays["block/w/scale"][:, column // 32]
        if not symmetric:
            points[:, column] = arrays["block/w/zero_point"][:, column // 32]
    rounded = np.clip(np.rint(w / scale.astype(np.float32)) + points, 0, 2**bits - 1)
    model = normalized(GEMM_T.replace("K", "70").replace("N]", "6]").replace(", b", ""), w=w)
    (node,) = model.graph
    wanted = entry(node, form, bits=bits, symmetric=symmetric, block_size=32)
    model = raise_opset(model, wanted.minimum_opset)
    x = normal(1, 3, 70)
    check(execute(plan_of(arrays, [wanted]), model), {"x": x}, x @ ((rounded - points) * scale).T)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("form", ["dq", "folded"])
@pytest.mark.parametrize(("length", "size"), [(48, 16), (40, 32), (8, 16)])
def test_a_weight_for_each_expert(length: int, size: int, form: Form, *, symmetric: bool) -> None:
    arrays, matrix = drawn("w", 2 * 6, length, 4, size, symmetric=symmetric)
    own = matrix.reshape(2, 6, length).swapaxes(1, 2)
    text = f"g (float[2, B, {length}] x) => (float[2, B, 6] y) {{ y = MatMul(x, w) }}"
    model = raise_opset(normalized(text, w=own.astype(np.float32)), 21)
    (node,) = model.graph
    wanted = entry(node, form, axis=2, sums=(1,), symmetric=symmetric, block_size=size)
    x = normal(1, 2, 5, length)
    check(execute(plan_of(arrays, [wanted]), model), {"x": x}, x @ own)


def test_the_kernel_takes_no_weight_for_each_expert() -> None:
    arrays, matrix = drawn("w", 2 * 6, 32, 4, 16, symmetric=True)
    own = matrix.reshape(2, 6, 32).swapaxes(1, 2)
    text = "g (float[2, B, 32] x) => (float[2, B, 6] y) { y = MatMul(x, w) }"
    model = normalized(text, w=own.astype(np.float32))
    (node,) = model.graph
    with pytest.raises(PlanError, match="MatMulNBits multiplies by a matrix"):
        execute(plan_of(arrays, [entry(node, "kernel", axis=2, sums=(1,))]), model)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("form", ["dq", "folded"])
@pytest.mark.parametrize(
    ("op", "shape", "size"),
    [
        ("Conv", (6, 4, 3, 3), 36),
        ("Conv", (6, 4, 3, 3), 16),
        ("Conv", (6, 4, 1, 1), 4),
        ("Conv<group = 2>", (6, 2, 3), 6),
    ],
)
def test_conv(
    op: str, shape: tuple[int, ...], size: int, form: Form, bits: int, *, symmetric: bool
) -> None:
    """A scale for each channel, and in blocks over input channels and places."""
    arrays, matrix = drawn("w", 6, int(np.prod(shape[1:])), bits, size, symmetric=symmetric)
    own = matrix.reshape(shape).astype(np.float32)
    space = (8,) * (len(shape) - 2)
    length = (9 - shape[2],) * len(space)
    dims, out = (", ".join(map(str, sizes)) for sizes in (space, length))
    text = f"g (float[B, 4, {dims}] x) => (float[B, 6, {out}] y) {{ y = {op}(x, w) }}"
    model = normalized(text, w=own)
    (node,) = model.graph
    wanted = entry(node, form, axis=0, bits=bits, symmetric=symmetric, block_size=size)
    feeds = {"x": normal(1, 2, 4, *space)}
    expected = run(model, feeds)[0]
    quantized = execute(plan_of(arrays, [wanted]), raise_opset(model, wanted.minimum_opset))
    check(quantized, feeds, expected)
    if form == "folded":
        assert not COMPUTED_WHEN_LOADED & set(op_types(quantized))


ONE_COPY = {"kernel": (6, 2, 16), "dq": (40, 6), "folded": (2, 32, 6)}
READERS = {"kernel": 2, "dq": 1, "folded": 1}


@pytest.mark.parametrize("form", FORMS)
def test_nodes_that_share_a_weight_share_its_integers(form: Form) -> None:
    arrays, matrix = drawn("w", 6, 40, 4, 32, symmetric=False)
    text = """g (float[B, 40] x) => (float[B, 6] y, float[B, 6] z) {
        n = Neg(x)
        y = MatMul(x, w)
        z = MatMul(n, w)
    }"""
    model = raise_opset(normalized(text, w=matrix.T.astype(np.float32)), 21)
    nodes = [node for node in model.graph if node.op_type == "MatMul"]
    wanted = [entry(node, form, block_size=32, symmetric=False) for node in nodes]
    quantized = execute(plan_of(arrays, wanted), model)
    stored = [value for value in quantized.graph.initializers.values() if value.name != "w"]
    assert len({value.name for value in stored}) == len(stored)
    integers = [value for value in stored if "scale" not in (value.name or "")]
    assert [len(v.uses()) for v in integers if v.shape == ONE_COPY[form]] == [READERS[form]]
    x = normal(1, 3, 40)
    y, z = run(quantized, {"x": x})
    close(y, x @ matrix.T)
    close(z, -x @ matrix.T)


TIED = """g (int64[B, L] i) => (float[B, L, R] y) {
    e = Gather(t, i)
    h = Tanh(e)
    w = Transpose<perm = [1, 0]>(t)
    y = MatMul(h, w)
}"""


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("length", "size"), [(32, 16), (576, 128), (50, 32), (12, 16)])
def test_a_tied_table_shares_the_integers_of_its_product(
    length: int, size: int, bits: int, *, symmetric: bool
) -> None:
    stored = "t.transpose"
    arrays, table = drawn(stored, 30, length, bits, size, symmetric=symmetric)
    model = normalized(TIED.replace("R", "30"), t=table.astype(np.float32))
    gather, _, product = model.graph
    fields: dict[str, Any] = {"bits": bits, "symmetric": symmetric, "block_size": size}
    wanted = entry(product, "kernel", initializer=stored, **fields)
    lookup = BlockEmbeddingEntry(node=gather.name or "", initializer="t", stored=stored, **fields)
    quantized = execute(plan_of(arrays, [wanted], [lookup]), model)
    packed = [v for v in quantized.graph.initializers.values() if "packed" in (v.name or "")]
    assert [len(value.uses()) for value in packed] == [2]
    assert not {"t", stored} & set(quantized.graph.initializers)
    indices = np.asarray([[0, 29, 7], [-1, 3, -30]])
    check(quantized, {"i": indices}, np.tanh(table[indices]) @ table.T)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("indices", [np.asarray(4), np.asarray([[1, 2]]), np.zeros((0, 3), int)])
@pytest.mark.parametrize("size", [16, 32])
def test_a_table_of_its_own(indices: NDArray[Any], size: int, *, symmetric: bool) -> None:
    """Indices of any rank, none at all among them; the rank may be unknown."""
    arrays, table = drawn("t", 30, 48, 4, size, symmetric=symmetric)
    axes = [f"D{axis}" for axis in range(indices.ndim)]
    known = "int64" + (f"[{', '.join(axes)}]" if axes else "")
    whole = ", ".join([*axes, "48"])
    text = f"g ({known} i) => (float[{whole}] y) {{ e = Gather(t, i) y = Neg(e) }}"
    fields: dict[str, Any] = {"bits": 4, "symmetric": symmetric, "block_size": size}
    for rank_known in (True, False):
        model = normalized(text, t=table.astype(np.float32))
        if not rank_known:
            model.graph.inputs[0].shape = None
        lookup = BlockEmbeddingEntry(
            node=model.graph[0].name or "", initializer="t", stored="t", **fields
        )
        quantized = execute(plan_of(arrays, (), [lookup]), model)
        model.graph.inputs[0].shape = quantized.graph.inputs[0].shape = ir.Shape(indices.shape)
        check(quantized, {"i": indices}, -table[indices]) if indices.size else None
        assert run(quantized, {"i": indices})[0].shape == (*indices.shape, 48)


def test_lookups_and_products_of_a_body_read_the_main_graphs_integers() -> None:
    arrays, matrix = drawn("w", 6, 40, 4, 32, symmetric=False)
    text = """g (float[B, 40] x, bool c) => (float[B, 6] y) {
        y = If(c) <then_branch = t () => (float[B, 6] p) { p = MatMul(x, w) },
                   else_branch = e () => (float[B, 6] q) { m = MatMul(x, w) q = Neg(m) }>
    }"""
    model = raise_opset(normalized(text, w=matrix.T.astype(np.float32)), 21)
    bodies = [a.as_graph() for node in model.graph for a in node.attributes.values()]
    nodes = [node for body in bodies for node in body if node.op_type == "MatMul"]
    x = normal(1, 3, 40)
    for form in FORMS:
        wanted = [entry(node, form, block_size=32, symmetric=False) for node in nodes]
        quantized = execute(plan_of(arrays, wanted), model)
        for choice, sign in ((True, 1), (False, -1)):
            feeds = {"x": x, "c": np.asarray(choice)}
            close(run(quantized, feeds)[0], sign * (x @ matrix.T))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("form", FORMS)
def test_integers_of_every_width_lie_in_an_external_file(
    form: Form, bits: int, tmp_path: Path, *, symmetric: bool
) -> None:
    """Odd counts of them too: the last byte of a tensor is not full."""
    arrays, matrix = drawn("w", 67, 129, bits, 16, symmetric=symmetric)
    text = "g (float[B, 129] x) => (float[B, 67] y) { y = Gemm<transB = 1>(x, w) }"
    model = raise_opset(normalized(text, w=matrix.astype(np.float32)), 25)
    (node,) = model.graph
    wanted = entry(node, form, bits=bits, symmetric=symmetric)
    save(execute(plan_of(arrays, [wanted]), model), tmp_path / "m.onnx", external_threshold=0)
    assert (tmp_path / "m.onnx.data").stat().st_size >= 67 * 129 * bits // 8
    x = normal(1, 3, 129)
    close(run(tmp_path / "m.onnx", {"x": x})[0], x @ matrix.T)


def product_model(opset: int = 17) -> tuple[ir.Model, Arrays, BlockEntry]:
    arrays, matrix = drawn("w", 6, 40, 4, 32, symmetric=False)
    text = "g (float[B, 40] x) => (float[B, 6] y) { y = MatMul(x, w) }"
    model = raise_opset(normalized(text, w=matrix.T.astype(np.float32)), opset)
    (node,) = model.graph
    return model, arrays, entry(node, "kernel", block_size=32, symmetric=False)


@pytest.mark.parametrize(
    ("what", "change", "said"),
    [
        ("scale", lambda a: a.T, r"float32 \[2, 6\], float32 \[6, 2\] is wanted"),
        ("scale", lambda a: a.astype(float), "float64"),
        ("scale", lambda a: a * 0, "a scale is 0"),
        ("scale", lambda a: a * np.float32("nan"), "not finite"),
        ("zero_point", lambda a: a + 16, "does not fit into 4 bits"),
        ("zero_point", lambda a: a[:, :1], "is wanted"),
        ("packed", lambda a: a[:, :, :8], "is wanted"),
    ],
)
def test_arrays_that_do_not_fit_are_named(what: str, change: Any, said: str) -> None:
    model, arrays, wanted = product_model()
    arrays[f"block/w/{what}"] = change(arrays[f"block/w/{what}"])
    with pytest.raises(PlanError, match=said) as caught:
        execute(plan_of(arrays, [wanted]), model)
    assert caught.value.where == "w"


def test_a_missing_array_is_named() -> None:
    model, arrays, wanted = product_model()
    del arrays["block/w/zero_point"]
    with pytest.raises(PlanError, match="block/w/zero_point"):
        execute(plan_of(arrays, [wanted]), model)


@pytest.mark.parametrize("change", [{"axis": 2}, {"axis": -1}, {"sums": (1,)}, {"sums": (0, 1)}])
def test_axes_that_the_weight_does_not_have(change: dict[str, Any]) -> None:
    model, arrays, wanted = product_model()
    with pytest.raises(PlanError, match="axes of 'w'"):
        execute(plan_of(arrays, [wanted.model_copy(update=change)]), model)


def test_integers_of_4_bits_want_a_newer_opset() -> None:
    model, arrays, wanted = product_model()
    for form in ("dq", "folded"):
        changed = wanted.model_copy(update={"form": form})
        with pytest.raises(PlanError, match="want opset 21; the model has 17"):
            execute(plan_of(arrays, [changed]), model)


def test_one_weight_is_stored_in_one_way() -> None:
    model, arrays, wanted = product_model()
    other = wanted.model_copy(update={"bits": 8})
    with pytest.raises(PlanError, match="'w' in two ways"):
        execute(plan_of(arrays, [wanted, other]), model)


def test_a_lookup_reads_no_other_weights_integers() -> None:
    arrays, table = drawn("v", 30, 32, 4, 16, symmetric=True)
    text = """g (int64[B] i) => (float[B, 30] y) { e = Gather(t, i) y = MatMul(e, v) }"""
    model = normalized(text, t=table.astype(np.float32), v=table.T.astype(np.float32))
    fields: dict[str, Any] = {"bits": 4, "symmetric": True, "block_size": 16}
    lookup = BlockEmbeddingEntry(
        node=model.graph[0].name or "", initializer="t", stored="v", **fields
    )
    with pytest.raises(PlanError, match="is not its table transposed"):
        execute(plan_of(arrays, (), [lookup]), model)


def test_a_left_weight_wants_the_rank_of_what_it_multiplies() -> None:
    arrays, matrix = drawn("w", 6, 32, 4, 16, symmetric=True)
    text = "g (float[B, 32, L] x) => (float[B, 6, L] y) { n = Neg(x) y = MatMul(w, n) }"
    model = normalized(text, w=matrix.astype(np.float32))
    _, product = model.graph
    wanted = entry(product, "kernel", activation=1, weight=0, axis=0)
    product.inputs[1].shape = None  # type: ignore[union-attr]
    with pytest.raises(PlanError, match="rank is not known"):
        execute(plan_of(arrays, [wanted]), model)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bits": 3}, "3 bits"),
        ({"accuracy_level": 2}, "accuracy level 2"),
        ({"block_size": 48}, "MatMulNBits takes 16, 32"),
        ({"block_size": 8}, "MatMulNBits takes 16, 32"),
        ({"block_size": 0}, "greater than or equal to 1"),
    ],
)
def test_entries_that_no_kernel_takes(change: dict[str, Any], said: str) -> None:
    _, _, wanted = product_model()
    with pytest.raises(ValidationError, match=said):
        BlockEntry.model_validate(wanted.model_dump() | change)
    if change.get("block_size"):
        BlockEntry.model_validate(wanted.model_dump() | change | {"form": "folded"})


def test_lookups_of_blocks_that_no_kernel_takes() -> None:
    with pytest.raises(ValidationError, match="GatherBlockQuantized takes 16, 32"):
        BlockEmbeddingEntry(node="n", initializer="t", stored="t", bits=4, block_size=24)
