"""Small modules exported for real and compared with PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from onnxq.errors import BoundMissedError, UsageError
from onnxq.export import ExportOptions, ExportSpec, Tolerance, export
from onnxq.export.inputs import input_sets
from onnxq.export.verify import verify
from onnxq.graph import io
from onnxq.runtime.session import open_session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from torch import nn
else:
    torch = pytest.importorskip("torch")
    nn = torch.nn

AXES = {0: "batch", 1: "sequence"}


class Tagger(nn.Module):  # type: ignore[misc]
    """Embedding, two linear layers, a masked mean: two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(50, 8)
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 4)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        states = self.second(torch.relu(self.first(self.table(ids))))
        weights = mask[:, :, None].to(states.dtype)
        return {"states": states, "mean": (states * weights).sum(1) / weights.sum(1)}


class Convolutions(nn.Module):  # type: ignore[misc]
    """Conv and BatchNorm in a Sequential: fused, and named after the convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.body(image)


class Fixed(nn.Module):  # type: ignore[misc]
    """Works for one length only."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value * self.weight


class Counting(nn.Module):  # type: ignore[misc]
    """Not a function of its input: PyTorch's result changes from call to call."""

    calls = 0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        Counting.calls += 1
        return value + Counting.calls


def tagger(batch: int = 2, sequence: int = 5) -> ExportSpec:
    mask = torch.ones(batch, sequence, dtype=torch.int64)
    ids = torch.arange(batch * sequence).reshape(batch, sequence) % 50
    names = ("states", "mean")
    return ExportSpec(Tagger(), {"ids": ids, "mask": mask}, {"ids": AXES, "mask": AXES}, names)


def test_two_inputs_two_outputs_dynamic_axes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tagger.onnx"
    seen: list[tuple[int, int]] = []
    result = export(tagger, path, progress=lambda done, total: seen.append((done, total)))

    assert result.path == path
    (model,) = result.models
    assert [(i.name, i.dtype, i.shape) for i in model.inputs] == [
        ("ids", "int64", ("batch", "sequence")),
        ("mask", "int64", ("batch", "sequence")),
    ]
    assert model.outputs == ("states", "mean")
    assert model.opset >= 18
    assert len(model.verified_shapes) >= 3
    assert len({shapes["ids"] for shapes in model.verified_shapes}) >= 3
    assert model.worst.output in model.outputs
    assert 0 <= model.worst.value <= model.worst.allowed
    assert seen == [(done, seen[0][1]) for done in range(1, seen[0][1] + 1)]

    ids = np.arange(33, dtype=np.int64).reshape(3, 11)
    states, mean = open_session(path).run({"ids": ids, "mask": np.ones_like(ids)})
    assert states.shape == (3, 11, 4)
    np.testing.assert_allclose(mean, states.mean(axis=1), rtol=1e-5, atol=1e-6)
    assert list(tmp_path.iterdir()) == [path]
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""


def test_nodes_are_named_after_modules_and_no_paths_remain(tmp_path: Path) -> None:
    path = tmp_path / "tagger.onnx"
    export(tagger(), path)
    model = io.load(path)
    names = [node.name or "" for node in model.graph]
    assert "first.MatMul" in names
    assert "second.MatMul" in names
    assert "table.Gather" in names
    assert len(set(names)) == len(names)
    assert b"site-packages" not in path.read_bytes()
    assert b".py" not in path.read_bytes()


def test_batch_norm_is_folded_and_named_after_the_convolution(tmp_path: Path) -> None:
    path = tmp_path / "conv.onnx"
    specification = ExportSpec(
        Convolutions(), {"image": torch.rand(1, 1, 8, 8)}, {"image": {0: "batch"}}
    )
    (result,) = export(specification, path).models
    assert [node.name for node in io.load(path).graph] == ["body.0.Conv", "body.2.Relu"]
    # A length of one is traced as two, or PyTorch would take the axis for fixed.
    assert result.inputs[0].shape == ("batch", 1, 8, 8)
    assert (1, 1, 8, 8) in [shapes["image"] for shapes in result.verified_shapes]


def test_module_without_dynamic_axes(tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    (result,) = export(lambda: (Fixed(), torch.ones(3, 6)), path).models
    assert result.inputs[0].shape == (3, 6)
    assert len(result.verified_shapes) == 1
    assert result.worst.value == 0


def test_opset_is_kept(tmp_path: Path) -> None:
    options = ExportOptions(opset=21)
    result = export(lambda: (Fixed(), torch.ones(3, 6)), tmp_path / "fixed.onnx", options=options)
    assert result.models[0].opset == 21


def refused(specification: ExportSpec, path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        export(specification, path)
    assert len(str(caught.value).splitlines()) <= 2
    assert not list(path.parent.iterdir())
    return caught.value


def test_axis_that_the_module_fixes(tmp_path: Path) -> None:
    value = {"value": torch.ones(3, 6)}
    error = refused(
        ExportSpec(Fixed(), value, {"value": AXES}, further_inputs=(value,) * 2), tmp_path / "x"
    )
    assert error.code in {"export.fixed_axis", "export.cannot_export"}


@pytest.mark.parametrize(
    ("inputs", "axes", "further", "code"),
    [
        ({}, {}, (), "export.bad_inputs"),
        ({"value": [1.0]}, {}, (), "export.bad_inputs"),
        ({"wrong": torch.ones(6)}, {}, (), "export.bad_inputs"),
        ({"value": torch.ones(6)}, {"other": {0: "n"}}, (), "export.bad_axes"),
        ({"value": torch.ones(6)}, {"value": {1: "n"}}, (), "export.bad_axes"),
        ({"value": torch.ones(6)}, {}, ({"other": torch.ones(6)},), "export.bad_inputs"),
        ({"value": torch.ones(3, 6)}, {}, ({"value": torch.ones(5)},), "export.cannot_run"),
    ],
)
def test_examples_that_do_not_fit(
    tmp_path: Path,
    inputs: Mapping[str, torch.Tensor],
    axes: Mapping[str, Mapping[int, str]],
    further: tuple[Mapping[str, torch.Tensor], ...],
    code: str,
) -> None:
    error = refused(ExportSpec(Fixed(), inputs, axes, further_inputs=further), tmp_path / "x")
    assert error.code == code


def test_a_module_that_cannot_be_traced(tmp_path: Path) -> None:
    class Branching(nn.Module):  # type: ignore[misc]
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return value if value.sum() > 0 else -value

    error = refused(ExportSpec(Branching(), {"value": torch.ones(3)}), tmp_path / "x")
    assert error.code == "export.cannot_export"
    assert "Branching" in error.message


def test_a_model_that_differs_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"kept")
    with pytest.raises(BoundMissedError, match="differs from PyTorch's by") as caught:
        export(ExportSpec(Counting(), {"value": torch.ones(3)}), path)
    assert caught.value.code == "export.differs"
    assert path.read_bytes() == b"kept"
    assert list(tmp_path.iterdir()) == [path]


def test_tolerance_decides(tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    export(lambda: (Fixed(), torch.ones(3, 6)), path)
    module = ExportSpec(Fixed(), {})
    with torch.no_grad():
        module.module.weight += 1e-3
    sets = [{"value": torch.full((3, 6), 2.0)}]
    loose = verify(module, path, sets, tolerance=Tolerance(absolute=1e-2, relative=0))
    assert loose.value == pytest.approx(2e-3, rel=1e-3)
    assert loose.allowed == 1e-2
    assert loose.shapes == {"value": (3, 6)}
    relative = verify(module, path, sets, tolerance=Tolerance(absolute=0, relative=2e-3))
    assert relative.allowed == pytest.approx(2e-3 * 2.002)
    with pytest.raises(BoundMissedError):
        verify(module, path, sets, tolerance=Tolerance(absolute=1e-3, relative=0))


def test_infinities_must_be_the_same(tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    export(lambda: (Fixed(), torch.ones(3, 6)), path)
    sets = [{"value": torch.full((3, 6), float("-inf"))}]
    assert verify(ExportSpec(Fixed(), {}), path, sets, tolerance=Tolerance()).value == 0
    module = ExportSpec(Fixed(), {})
    with torch.no_grad():
        module.module.weight.neg_()
    with pytest.raises(BoundMissedError):
        verify(module, path, sets, tolerance=Tolerance())


@pytest.mark.parametrize(("batch", "sequence"), [(1, 1), (1, 4), (2, 2), (4, 8)])
def test_input_sets_have_three_shapes(batch: int, sequence: int) -> None:
    specification = tagger(batch, sequence)
    sets = input_sets(specification, "here")
    shapes = [tuple(inputs["ids"].shape) for inputs in sets]
    assert len(set(shapes)) >= 3
    assert min(shapes[0]) > 1
    assert (batch, sequence) in shapes
    assert all(inputs["ids"].shape == inputs["mask"].shape for inputs in sets)
