"""Every scheme on every graph: random models and the onnx package's own backend tests.

More of the same, with tables: ``python -m tests.whole_graph.run --graphs 5000``.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from onnxq.pipeline import quantize
from tests.small_models import normal, proto
from tests.whole_graph import check as checking
from tests.whole_graph import run
from tests.whole_graph.check import SCHEMES, Subject, check
from tests.whole_graph.draft import AWKWARD, awkward
from tests.whole_graph.generate import generate
from tests.whole_graph.pool import Job, run_all
from tests.whole_graph.subjects import backend_groups, backend_subjects, random_subject

if TYPE_CHECKING:
    from pathlib import Path

WORKERS = 2
FEW_BITS = ("int2", "int4", "uint4")
SHORT = (*FEW_BITS, "float16", "bfloat16")
"""Schemes that pass over the short weights of the backend tests."""

DISTINCT = tuple(s for s in SCHEMES if s not in {"fp8", "int2", "uint4", "float16", "bfloat16"})
"""One scheme of each kind: the others differ in numbers alone, and all of them would take long."""

TELLING = (
    "conv", "convtranspose", "einsum", "gather", "gemm", "gru", "if_", "layernormalization", "loop",
    "lstm", "matmul", "optionalhaselement", "pad", "rnn", "scan", "sequenceinsert", "softmax",
)  # fmt: skip
"""Operators that have weights or subgraphs, or that pass what is no tensor."""


def _assert_all_hold(jobs: list[Job]) -> dict[str, run.Tally]:
    tallies, failures = run.count(run_all(jobs, WORKERS))
    told = "\n".join(f"{o.name} [{o.scheme}]: {o.reason}" for o in failures)
    assert not failures, told
    return tallies


@pytest.mark.parametrize("graphs", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_random_graphs_hold_in_every_scheme(graphs: int) -> None:
    schemes = SCHEMES if graphs <= 50 else DISTINCT
    tallies = _assert_all_hold(run.random_jobs(0, graphs, schemes, "minmax"))
    assert set(tallies) == set(schemes)
    for scheme, tally in tallies.items():
        assert tally.kinds.total() == graphs
        # The generator makes what can be quantized, and honest numbers: few lose much. Few of its
        # weights are as long as a block, of 32 at the least for 2 bits.
        share = 50 if scheme == "int2" else 12 if scheme in FEW_BITS else 4
        assert tally.kinds["quantized"] > graphs // share
        assert tally.kinds["refused"] <= graphs // 50
        assert tally.warned < graphs // (5 if scheme == "int2" else 20)


def test_telling_onnx_backend_tests_hold() -> None:
    jobs = [Job("backend", f"node/{name}", DISTINCT) for name in TELLING]
    assert {job.key for job in jobs} <= set(backend_groups(large=False))
    for scheme, tally in _assert_all_hold(jobs).items():
        assert tally.kinds.total() > 100
        assert scheme in SHORT or tally.kinds["quantized"] > 3


@pytest.mark.slow
def test_onnx_backend_tests_hold_in_every_scheme() -> None:
    tallies = _assert_all_hold(run.backend_jobs(DISTINCT, "minmax", large=False))
    for scheme, tally in tallies.items():
        assert tally.kinds.total() > 2500
        # Convolutions are quantized with calibrated ranges alone.
        assert scheme in SHORT or tally.kinds["quantized"] > 15


@pytest.mark.slow
def test_whole_networks_of_onnx_hold() -> None:
    groups = [group for group in backend_groups(large=True) if group.startswith("light/")]
    tallies = _assert_all_hold([Job("backend", group, DISTINCT) for group in groups])
    assert all(tally.kinds.total() == len(groups) == 9 for tally in tallies.values())


def test_a_seed_gives_the_same_model_again() -> None:
    first, second = generate(7), generate(7)
    assert first.proto.SerializeToString() == second.proto.SerializeToString()
    assert first.style == second.style
    for one, other in zip(first.evaluation, second.evaluation, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    assert generate(8).proto.SerializeToString() != first.proto.SerializeToString()


def test_seeds_cover_operators_opsets_bodies_and_types() -> None:
    ops, opsets, kinds = Counter[str](), set(), Counter[int]()
    functions = overridable = several = 0
    for seed in range(200):
        graph = (made := generate(seed)).proto.graph
        nodes = list(graph.node)
        for node in nodes:
            ops[node.op_type] += 1
            nodes += [inner for entry in node.attribute for inner in entry.g.node]
        opsets.add(made.style.opset)
        functions += bool(made.proto.functions)
        known = {tensor.name for tensor in graph.initializer}
        overridable += made.style.ir_version > 3 and any(v.name in known for v in graph.input)
        several += len(graph.output) > 1
        kinds.update(value.type.tensor_type.elem_type for value in graph.input)
    wanted = {
        "MatMul", "Gemm", "Conv", "ConvTranspose", "Gather", "Einsum", "LSTM", "GRU", "If", "Loop",
        "Scan", "LayerNormalization", "BatchNormalization", "MaxPool", "Concat", "Split", "Reshape",
        "Transpose", "Slice", "Pad", "Softmax", "Where", "ReduceMean", "Cast", "Identity",
        "Constant", "SequenceConstruct", "FusedMatMul",
    }  # fmt: skip
    assert wanted <= set(ops)
    assert {min(opsets), max(opsets)} == {7, 26}
    assert min(functions, overridable, several) > 5
    assert {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.STRING} <= set(kinds)


@pytest.mark.parametrize("kind", AWKWARD)
def test_awkward_weights_are_finite_and_differ(kind: str) -> None:
    plain = np.random.default_rng(0).normal(size=(6, 4))
    made = awkward(np.random.default_rng(1), plain.copy(), 0, kind).astype(np.float32)
    assert np.isfinite(made).all()
    assert not np.array_equal(made, plain.astype(np.float32))


def _subject(weight: float = 1.0) -> Subject:
    model = proto(
        "g (float[N, 8] x) => (float[N, 8] y) { h = MatMul(x, w)  y = Tanh(h) }",
        w=normal(0, 8, 8) * np.float32(weight),
    )
    samples = [{"x": normal(n, 4, 8)} for n in range(1, 8)]
    return Subject("one", model, samples[:5], samples[5:])


def test_the_check_finds_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    good = check(_subject(), "int8")
    assert (good.kind, dict(good.quantized)) == ("quantized", {"MatMul": 1})
    assert good.sqnr_db is not None
    assert good.sqnr_db > 20
    honest = quantize
    other = _subject(weight=-1.0).proto

    def wrong(source: Path, data: object, output: Path, **more: object) -> object:
        result = honest(source, data, output, **more)  # type: ignore[arg-type]
        onnx.save(other, output)
        return result

    monkeypatch.setattr(checking, "quantize", wrong)
    assert "silent error: output 'y'" in check(_subject(), "int8").reason
    other.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9
    assert check(_subject(), "int8").reason.startswith("WrongError: invalid")
    other.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "M"
    assert "outputs were" in check(_subject(), "int8").reason

    def broken(*_: object, **__: object) -> object:
        msg = "no such thing"
        raise KeyError(msg)

    monkeypatch.setattr(checking, "quantize", broken)
    assert check(_subject(), "int8").reason.startswith("KeyError: 'no such thing' (test_whole")


def test_a_process_that_dies_costs_one_job_and_is_named() -> None:
    jobs = [Job("crash", "0", ("int8",)), Job("random", "3", ("int8",))]
    found = {outcome.name: outcome for outcome in run_all(jobs, 1)}
    assert found["crash 0"].kind == "failed"
    assert "Segmentation fault" in found["crash 0"].reason
    assert found["graph 3"].kind in {"quantized", "unchanged"}


def test_backend_tests_come_as_they_are_and_frozen() -> None:
    for _ in range(2):
        names = [subject.name for subject in backend_subjects("node/matmul")]
        assert {"test_matmul_2d", "test_matmul_2d frozen"} <= set(names)


def test_the_command_prints_tables_and_writes_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "counts.json"
    arguments = ["--graphs", "3", "--no-backend", "--schemes", "int8", "--workers", "1"]
    assert run.main([*arguments, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "0 failures" in printed
    assert "| int8 " in printed
    assert '"graphs": 3' in path.read_text("utf-8")
    assert random_subject(0).name == "graph 0"
