"""ExportedProgram and TorchScript files, and what is neither."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.errors import UsageError
from onnxq.export import ExportOptions, export
from onnxq.export.archives import Kind, copied
from onnxq.export.input_text import InputForm, example_sets, parse_input
from onnxq.export.options import chosen_opset
from onnxq.export.quiet import quiet
from onnxq.graph import io
from onnxq.graph.quantized import find_already_quantized
from onnxq.runtime.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from torch import nn
else:
    torch = pytest.importorskip("torch")
    nn = torch.nn

FORM = ExportOptions(inputs=("value=float32[batch,sequence,4]",))


class Recurrent(nn.Module):  # type: ignore[misc]
    """An LSTM and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells = nn.LSTM(4, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(value)[0])


class Halves(nn.Module):  # type: ignore[misc]
    """Two inputs of different lengths, one by name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return torch.cat((self.layer(first), second))[: first.shape[0] // 2]


class Executes:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (type(self.path).touch, (self.path,))


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    with quiet():
        torch.jit.trace(Recurrent().eval(), torch.randn(2, 5, 4)).save(path)
    return path


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt2"
    dynamic = torch.export.Dim.DYNAMIC
    exported = torch.export.export(
        Halves().eval(),
        (torch.randn(6, 4),),
        {"second": torch.randn(3, 4)},
        dynamic_shapes={"first": {0: dynamic}, "second": {0: dynamic}},
    )
    torch.export.save(exported, path)
    return path


def refused(path: Path, code: str, *words: str, options: ExportOptions | None = None) -> None:
    if options is None and path.suffix == ".pt":
        options = FORM
    output = path.parent / "out" / "model.onnx"
    output.parent.mkdir()
    with pytest.raises(UsageError) as caught:
        export(path, output, options=options)
    assert caught.value.code == code
    assert not list(output.parent.iterdir())
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    for word in words:
        assert word in text


def test_torchscript_keeps_its_lstm(script: Path, tmp_path: Path) -> None:
    (model,) = export(script, tmp_path / "model.onnx", options=FORM).models
    assert [(i.name, i.dtype, i.shape) for i in model.inputs] == [
        ("value", "float32", ("batch", "sequence", 4))
    ]
    assert model.outputs == ("output",)
    assert len({shapes["value"] for shapes in model.verified_shapes}) == 3
    assert "LSTM" in [node.op_type for node in io.load(model.path).graph]


def test_torchscript_whose_inputs_are_not_told(script: Path) -> None:
    refused(script, "export.bad_inputs", "value", "--input", options=ExportOptions())


def test_torchscript_with_other_inputs(script: Path) -> None:
    options = ExportOptions(inputs=("other=float32[1,2,4]",))
    refused(script, "export.bad_inputs", "its inputs are value", options=options)


def test_torchscript_that_its_inputs_do_not_fit(script: Path) -> None:
    options = ExportOptions(inputs=("value=int64[batch,sequence,4]",))
    refused(script, "export.cannot_run", "(2, 5, 4)", options=options)


def test_torchscript_stops_at_opset_20(script: Path) -> None:
    refused(script, "export.opset", "20", options=ExportOptions(opset=21, inputs=FORM.inputs))


def test_damaged_torchscript(script: Path) -> None:
    script.write_bytes(script.read_bytes()[:-40])
    refused(script, "export.damaged", "model.pt")


def test_program(program: Path, tmp_path: Path) -> None:
    (model,) = export(program, tmp_path / "model.onnx").models
    assert [(i.name, i.shape) for i in model.inputs] == [
        ("first", ("first_0", 4)),
        ("second", ("second_0", 4)),
    ]
    value = np.ones((8, 4), np.float32)
    (found,) = open_session(model.path).run({"first": value, "second": value[:3]})
    right = Halves()(torch.from_numpy(value), torch.from_numpy(value[:3])).detach().numpy()
    np.testing.assert_allclose(found, right, atol=1e-6)


def rewritten(path: Path, change: Callable[[str, bytes], bytes], more: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    folder = next(iter(entries)).partition("/")[0]
    entries |= {f"{folder}/{name}": content for name, content in more.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r'"torch.ops.aten.cat.default"', '"torch.hub.load"'),
        (r'"torch.ops.aten.cat.default"', '"torch.ops.load_library"'),
        (r'"torch.ops.aten.cat.default"', '"torch.ops.aten.from_file.default"'),
        (r'"torch.ops.aten.cat.default"', '"_operator.attrgetter"'),
        (r'"expr_str": "[^"]*"', '"expr_str": "__import__(\'os\').getcwd()"'),
        (r'"expr_str": "[^"]*"', '"expr_str": "open(0)"'),
        (r'"expr_str": "[^"]*"', '"expr_str": "(lambda: s0)()"'),
    ],
)
def test_a_program_that_is_more_than_tensors(program: Path, old: str, new: str) -> None:
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        text = json.dumps(json.loads(content))
        assert re.search(old, text)
        return re.sub(old, new, text).encode()

    rewritten(program, change, {})
    refused(program, "export.unsafe_program")


def test_a_program_with_pickled_objects(program: Path) -> None:
    rewritten(program, lambda _, content: content, {"data/constants/opaque_obj_0": b"\x80\x04."})
    refused(program, "export.unsafe_program", "opaque_obj_0")


@pytest.mark.parametrize(
    "name", ["data/constants/OPAQUE_OBJ_0", "data/aotinductor/model/x.so", "MODELS/Model.json"]
)
def test_a_program_with_something_beside_it(program: Path, name: str) -> None:
    rewritten(program, lambda _, content: content, {name: b"{}"})
    with zipfile.ZipFile(program) as archive:
        assert any(entry.endswith(name) for entry in archive.namelist())
    refused(program, "export.unsafe_program" if "MODELS" not in name else "export.damaged")


def test_a_program_under_a_name_in_capitals(program: Path) -> None:
    """PyTorch finds entries in any case; the size that it evaluates must not go unseen."""
    content = program.read_bytes()
    assert b"models/model.json" in content
    program.write_bytes(content.replace(b"models/model.json", b"models/model.JSON"))
    refused(program, "export.unsafe_program", "model.JSON")


def test_a_program_of_an_older_format_beside_it(program: Path) -> None:
    with zipfile.ZipFile(program, "a") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    refused(program, "export.damaged", "one folder")


def test_pytorch_sees_the_entries_that_were_checked(program: Path, tmp_path: Path) -> None:
    """PyTorch looks for the directory where the end says, Python in front of the end."""
    with copied(program, Kind.PROGRAM) as copy, zipfile.ZipFile(copy) as archive:
        names = archive.namelist()
        assert {name.partition("/")[0] for name in names} == {"model"}
        assert "model/models/model.json" in names
    program.write_bytes(b"PK" + bytes(100) + program.read_bytes())
    assert export(program, tmp_path / "model.onnx").models


class Writes(nn.Module):  # type: ignore[misc]
    """Writes a file when it runs, and another when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        torch.save(value, self.path)
        return value + 1

    @torch.jit.export
    def __getstate__(self):  # type: ignore[no-untyped-def]
        return (self.path, self.training)

    @torch.jit.export  # type: ignore[untyped-decorator]
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.path)


def test_torchscript_that_writes_files(tmp_path: Path) -> None:
    path, seen = tmp_path / "model.pt", tmp_path / "written"
    with quiet():
        torch.jit.script(Writes(str(seen))).save(path)
    refused(path, "export.unsafe_script", "torch.save")
    assert not seen.exists()


@pytest.mark.parametrize(
    "line",
    [
        "t = torch; t.from_file(a)",
        'getattr(torch, "s\\x61ve")(a, b)',
        "o = ops",
        "ops.image.write_file(a, b)",
        "x : __torch__.torch.classes.aoti.Loader",
    ],
)
def test_torchscript_that_does_more_than_compute(script: Path, line: str) -> None:
    rewritten(script, lambda _, content: content, {"code/more.PY": line.encode()})
    refused(script, "export.unsafe_script")


def test_a_programs_pickles_are_not_executed(program: Path, tmp_path: Path) -> None:
    seen = tmp_path / "executed"

    def change(name: str, content: bytes) -> bytes:
        if "sample_inputs" not in name:
            return content
        path = tmp_path / "evil"
        torch.save(Executes(seen), path)
        return path.read_bytes()

    rewritten(program, change, {})
    refused(program, "export.damaged", "model.pt2")
    assert not seen.exists()


def test_a_damaged_program(program: Path) -> None:
    program.write_bytes(program.read_bytes()[:3000])
    refused(program, "export.damaged", "model.pt2")


@pytest.mark.parametrize("form", ["zip", "old", "plain"])
def test_pickles_are_refused_unread(tmp_path: Path, form: str) -> None:
    path, seen = tmp_path / "model.pt", tmp_path / "executed"
    if form == "plain":
        path.write_bytes(pickle.dumps(Executes(seen)))
    else:
        torch.save(Executes(seen), path, _use_new_zipfile_serialization=form == "zip")
    refused(path, "export.pickle", "torch.save")
    assert not seen.exists()


def test_something_else(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"nothing of the kind")
    refused(path, "export.bad_source", "config.json")


class Learned(nn.Module):  # type: ignore[misc]
    """A convolution between fake quantizers, as quantization-aware training leaves it."""

    def __init__(self, low: int) -> None:
        super().__init__()
        from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver
        from torch.ao.quantization import MovingAveragePerChannelMinMaxObserver as PerChannel

        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, 4, 3)
        self.of_value = FakeQuantize(MovingAverageMinMaxObserver, 0, 255, dtype=torch.quint8)
        self.of_weight = FakeQuantize(
            PerChannel, low, 127, dtype=torch.qint8, qscheme=torch.per_channel_symmetric
        )

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        weight = self.of_weight(self.layer.weight)
        return nn.functional.conv2d(self.of_value(value), weight, self.layer.bias)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("low", [-128, -127])
def test_fake_quantizers_become_qdq(tmp_path: Path, low: int) -> None:
    module = Learned(low)
    example = torch.randn(2, 1, 8, 8)
    module(example)
    (model,) = export(lambda: (module, example), tmp_path / "model.onnx").models
    loaded = io.load(model.path)
    assert find_already_quantized(loaded) == "QDQ: 2 QuantizeLinear, 2 DequantizeLinear"
    assert "Clip" not in [node.op_type for node in loaded.graph]
    # Without rounding it would differ by far more.
    assert model.worst.value < 1e-5


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("a=float32[2,3]", InputForm("a", "float32", (2, 3))),
        ("a.b=int64[batch, n=7]<100", InputForm("a.b", "int64", (("batch", 0), ("n", 7)), 100)),
        ("x=bool[]", InputForm("x", "bool", ())),
    ],
)
def test_input_texts(text: str, form: InputForm) -> None:
    assert parse_input(text) == form


@pytest.mark.parametrize(
    "text", ["a", "a=float32", "a=float32[0]", "a=float3[1]", "a=float32[1,-]"]
)
def test_input_texts_that_are_none(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_input(text)
    assert caught.value.code == "export.bad_input_form"


def test_example_sets_vary_their_axes() -> None:
    form = parse_input("ids=int64[batch,length=6,3]<5")
    sets = [inputs["ids"] for inputs in example_sets((form,))]
    assert [tuple(tensor.shape) for tensor in sets] == [(2, 6, 3), (1, 5, 3), (4, 8, 3)]
    assert max(int(tensor.max()) for tensor in sets) <= 4


def test_opsets_keep_to_the_target() -> None:
    assert chosen_opset(ExportOptions()) == 18
    assert chosen_opset(ExportOptions(opset=21)) == 21
    for opset in (12, 90):
        with pytest.raises(UsageError, match=f"opset {opset}"):
            chosen_opset(ExportOptions(opset=opset))
    with pytest.raises(UsageError, match="no target called"):
        chosen_opset(ExportOptions(target="abacus"))
