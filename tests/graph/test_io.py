"""Reading refuses what is broken or reaches out; writing is all or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxq.errors import InternalError, ModelError, UsageError
from onnxq.graph import edit, io
from onnxq.graph.external import external_files
from onnxq.runtime.session import SessionSettings, open_session

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def external(linear: Path) -> Path:
    """The same model with its weights in ``weights.bin`` beside it."""
    folder = linear.parent / "external"
    folder.mkdir()
    path = folder / "model.onnx"
    model = onnx.load(linear)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def _rewrite(path: Path, key: str, value: str) -> None:
    """Change one external data entry of the first tensor."""
    model = onnx.load(path, load_external_data=False)
    entries = model.graph.initializer[0].external_data
    found = [entry for entry in entries if entry.key == key]
    (found[0] if found else entries.add(key=key)).value = value
    path.write_bytes(model.SerializeToString())


def _refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        io.load(path)
    assert caught.value.remedy
    assert str(path) in caught.value.where
    return caught.value


def test_load_gives_what_the_file_holds(linear: Path) -> None:
    model = io.load(linear)
    assert [node.name for node in model.graph] == ["first", "second"]
    assert model.metadata_props == {"author": "nobody"}
    assert io.weight_bytes(model) == 4 * (16 * 32 + 32 * 8)
    assert io.file_bytes(linear) == linear.stat().st_size


def test_file_bytes_counts_external_data(external: Path) -> None:
    data = external.with_name("weights.bin").stat().st_size
    assert io.file_bytes(external) == external.stat().st_size + data


def test_file_bytes_knows_what_is_left_over(linear: Path) -> None:
    """A tensor that was stored inside again may still name the file where it was."""
    proto = onnx.load(linear)
    proto.graph.initializer[0].external_data.add(key="location", value="gone.bin")
    onnx.save(proto, linear)
    assert io.file_bytes(linear) == linear.stat().st_size


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "none.onnx").code == "graph.cannot_read"
    assert _refusal(tmp_path).code == "graph.cannot_read"


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is no model\n", b"\x00" * 100, b"PK\x03\x04" + b"a" * 50]
)
def test_not_a_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    assert _refusal(path).code in {"graph.truncated", "graph.external_length"}


@given(share=st.floats(0, 1, exclude_max=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_truncated_anywhere(linear: Path, share: float) -> None:
    content = linear.read_bytes()
    path = linear.with_name("cut.onnx")
    path.write_bytes(content[: int(len(content) * share)])
    _refusal(path)


@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
def test_damaged_anywhere_is_read_or_refused(linear: Path, position: int, byte: int) -> None:
    content = bytearray(linear.read_bytes())
    content[position % len(content)] = byte
    path = linear.with_name("damaged.onnx")
    path.write_bytes(content)
    try:
        model = io.load(path)
    except ModelError:
        return
    assert len(model.graph.outputs) >= 1


def test_undefined_value_and_cycle(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    head = '<ir_version: 8, opset_import: ["" : 17]>\nagraph (float[4] x) => (float[4] y) '
    model = onnx.parser.parse_model(head + "{ y = Add(x, x) }")
    model.graph.node[0].input[1] = "nowhere"
    path.write_bytes(model.SerializeToString())
    assert _refusal(path).code == "graph.undefined"
    onnx.save(onnx.parser.parse_model(head + "{ a = Add(x, b) b = Relu(a) y = Relu(b) }"), path)
    with pytest.raises(ModelError, match="cycle"):
        io.load(path)


def test_sparse_initializers_are_refused_not_dropped(linear: Path) -> None:
    model = onnx.load(linear)
    model.graph.sparse_initializer.add().dims.append(4)
    linear.write_bytes(model.SerializeToString())
    assert _refusal(linear).code == "graph.sparse"


def test_missing_opset_import(linear: Path) -> None:
    model = onnx.load(linear)
    del model.opset_import[:]
    linear.write_bytes(model.SerializeToString())
    assert "opset" in _refusal(linear).message


@pytest.mark.parametrize("field", ["raw_data", "float_data"])
def test_inline_tensor_with_too_few_elements(linear: Path, field: str) -> None:
    model = onnx.load(linear)
    tensor = model.graph.initializer[1]
    if field == "raw_data":
        tensor.raw_data = tensor.raw_data[:-4]
    else:
        tensor.ClearField("raw_data")
        tensor.float_data.extend([1.0, 2.0])
    linear.write_bytes(model.SerializeToString())
    error = _refusal(linear)
    assert error.code == "graph.tensor_length"
    assert "w2" in error.where


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("../linear.onnx", "graph.external_outside"),
        ("a/../../linear.onnx", "graph.external_outside"),
        ("..\\linear.onnx", "graph.external_outside"),
        ("/etc/hostname", "graph.external_absolute"),
        ("C:\\weights.bin", "graph.external_absolute"),
        ("", "graph.external_absolute"),
        ("not_there.bin", "graph.external_missing"),
        (".", "graph.external_not_a_file"),
    ],
)
def test_external_location(external: Path, location: str, code: str) -> None:
    _rewrite(external, "location", location)
    assert _refusal(external).code == code


def test_external_link_out_of_the_folder(external: Path) -> None:
    data = external.with_name("weights.bin")
    outside = external.parent.parent / "outside.bin"
    data.rename(outside)
    data.symlink_to(outside)
    assert _refusal(external).code == "graph.external_link"


def test_external_link_inside_the_folder_is_fine(external: Path) -> None:
    data = external.with_name("weights.bin")
    data.rename(data.with_name("real.bin"))
    data.symlink_to("real.bin")
    value = io.load(external).graph.initializers["w1"]
    array = edit.constant_array(value)
    assert array is not None
    assert array.shape == (16, 32)


def test_external_hard_link(external: Path) -> None:
    external.with_name("second.bin").hardlink_to(external.with_name("weights.bin"))
    assert _refusal(external).code == "graph.external_link"


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("offset", "-4", "graph.external_length"),
        ("length", "4", "graph.external_length"),
        ("length", "99999999", "graph.external_length"),
        ("offset", "99999999", "graph.external_truncated"),
        ("offset", "many", "graph.external_length"),
    ],
)
def test_external_offset_and_length(external: Path, key: str, value: str, code: str) -> None:
    _rewrite(external, key, value)
    assert _refusal(external).code == code


def test_external_truncated(external: Path) -> None:
    data = external.with_name("weights.bin")
    data.write_bytes(data.read_bytes()[:-1])
    assert _refusal(external).code == "graph.external_truncated"


def test_external_data_of_a_constant_in_a_function_is_checked(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local": 1]>
    agraph (float[4] x) => (float[4] y) { y = local.f(x) }
    <domain: "local", opset_import: ["" : 17]>
    f (a) => (b) { c = Constant<value = float[1] {1.0}>() b = Add(a, c) }"""
    model = onnx.parser.parse_model(text)
    tensor = model.functions[0].node[0].attribute[0].t
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert _refusal(path).code == "graph.external_outside"


def test_relative_path_is_checked_too(external: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _rewrite(external, "location", "../linear.onnx")
    monkeypatch.chdir(external.parent)
    with pytest.raises(ModelError, match="outside"):
        io.load("model.onnx")


def test_load_is_lazy(external: Path) -> None:
    model = io.load(external)
    tensor = model.graph.initializers["w1"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert tensor.raw is None


@pytest.mark.parametrize("threshold", [io.GIBIBYTE, 100])
def test_save_keeps_everything(linear: Path, tmp_path: Path, threshold: int) -> None:
    model = io.load(linear)
    path = tmp_path / "out.onnx"
    io.save(model, path, external_threshold=threshold)
    again = io.load(path)
    assert io.digest(again) == io.digest(model)
    assert (again.ir_version, again.producer_name) == (8, "a test")
    assert again.opset_imports == {"": 17}
    assert again.metadata_props == {"author": "nobody"}
    assert (tmp_path / "out.onnx.data").exists() == (threshold == 100)
    assert path.stat().st_mode & 0o777 == linear.stat().st_mode & 0o777
    assert isinstance(model.graph.initializers["w1"].const_value, ir.serde.TensorProtoTensor)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_external_names_in_the_file_are_final(linear: Path, tmp_path: Path) -> None:
    io.save(io.load(linear), tmp_path / "out.onnx", external_threshold=0)
    proto = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    entries = {e.key: e.value for t in proto.graph.initializer for e in t.external_data}
    assert entries["location"] == "out.onnx.data"


@pytest.mark.parametrize("threshold", [io.GIBIBYTE, 0])
def test_save_external_and_lazy_tensors(external: Path, tmp_path: Path, threshold: int) -> None:
    model = io.load(external)
    source = edit.constant_array(model.graph.initializers["w1"])
    assert source is not None
    lazy = ir.LazyTensor(
        lambda: ir.tensor(2 * source), dtype=ir.DataType.FLOAT, shape=ir.Shape((16, 32))
    )
    packed = np.arange(-8, 8).reshape(4, 4).astype(ml_dtypes.int4)
    value = edit.initializer(model, "lazy", lazy)
    edit.initializer(model, "packed", packed)
    edit.replace_input(model.graph[0], 1, value)
    path = tmp_path / "elsewhere" / "out.onnx"
    path.parent.mkdir()
    io.save(model, path, external_threshold=threshold)
    again = io.load(path).graph.initializers
    for name, wanted in (("lazy", 2 * source), ("w1", source), ("packed", packed)):
        np.testing.assert_array_equal(edit.constant_array(again[name]), wanted)


def test_save_constant_node_whose_data_is_external(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    agraph (float[2] x) => (float[2] y) { c = Constant<value = float[2] {1, 2}>() y = Add(x, c) }"""
    model = onnx.parser.parse_model(text)
    tensor = model.graph.node[0].attribute[0].t
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="c.bin")
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "c.bin").write_bytes(np.array([3, 4], np.float32).tobytes())
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    io.save(io.load(folder / "m.onnx"), tmp_path / "out.onnx")
    array = edit.constant_array(io.load(tmp_path / "out.onnx").graph[0].outputs[0])
    np.testing.assert_array_equal(array, np.array([3, 4], np.float32))


def test_save_over_the_model_itself(linear: Path) -> None:
    model = io.load(linear)
    model.graph[0].name = "renamed"
    io.save(model, linear)
    assert io.load(linear).graph[0].name == "renamed"


def test_save_over_mapped_weights_is_refused(external: Path) -> None:
    before = external.with_name("weights.bin").read_bytes()
    with pytest.raises(UsageError, match="still reads"):
        io.save(io.load(external), external.with_name("weights.bin"))
    assert external.with_name("weights.bin").read_bytes() == before


def test_save_into_no_folder(linear: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder"):
        io.save(io.load(linear), tmp_path / "none" / "out.onnx")
    with pytest.raises(UsageError, match="folder"):
        io.save(io.load(linear), tmp_path)


def _output_refusal(path: Path | str, model: Path | str | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        io.check_output(path, model=model)
    assert caught.value.remedy
    assert caught.value.where == str(path)
    return caught.value


def test_an_output_that_can_be_written_is_fine_and_nothing_is_made(
    linear: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(tmp_path.iterdir())
    older = linear.with_name("older.onnx")
    older.write_bytes(linear.read_bytes())
    io.check_output(tmp_path / "new.onnx")
    io.check_output(tmp_path / "new.onnx", model=linear)
    io.check_output(older, model=linear)
    io.check_output(older, model=tmp_path / "nowhere.onnx")
    monkeypatch.chdir(tmp_path)
    io.check_output("new.onnx", model=str(linear))
    older.unlink()
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_in_no_folder_or_that_is_a_folder_is_refused(
    linear: Path, tmp_path: Path
) -> None:
    assert _output_refusal(tmp_path / "none" / "out.onnx").code == "usage.no_folder"
    assert _output_refusal(linear / "out.onnx").code == "usage.no_folder"
    assert _output_refusal(tmp_path).code == "usage.is_folder"
    assert _output_refusal(tmp_path, linear).code == "usage.is_folder"
    assert not (tmp_path / "none").exists()


def test_an_output_that_would_replace_the_model_is_refused(
    linear: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever name it goes by."""
    symbolic, hard = linear.with_name("symbolic.onnx"), linear.with_name("hard.onnx")
    symbolic.symlink_to(linear)
    hard.hardlink_to(linear)
    monkeypatch.chdir(linear.parent)
    before = linear.read_bytes()
    for name in (linear, symbolic, hard, linear.name, f"../{linear.parent.name}/{linear.name}"):
        assert _output_refusal(name, linear).code == "usage.replaces_model"
    assert _output_refusal(linear, linear.name).code == "usage.replaces_model"
    assert linear.read_bytes() == before


def test_an_output_that_would_replace_the_models_weights_is_refused(external: Path) -> None:
    """Whatever name they go by, and as the data file of the output too."""
    weights = external.with_name("weights.bin")
    symbolic, beside = external.with_name("symbolic.bin"), external.with_name("weights.bin.onnx")
    symbolic.symlink_to(weights)
    before = weights.read_bytes()
    files = external_files(io.load(external))
    for name in (weights, symbolic):
        with pytest.raises(UsageError, match="made from") as caught:
            io.check_output(name, model=external, files=files)
        assert caught.value.code == "usage.replaces_model"
        assert caught.value.remedy
    with pytest.raises(UsageError, match="made from"):
        io.check_output("out.onnx", files=[Path("out.onnx.data").absolute()])
    io.check_output(beside, model=external, files=files)
    assert weights.read_bytes() == before


def _broken() -> ir.TensorProtocol:
    msg = "no data today"
    raise RuntimeError(msg)


@pytest.mark.parametrize("threshold", [io.GIBIBYTE, 0])
def test_failing_save_leaves_everything_as_it_was(
    linear: Path, tmp_path: Path, threshold: int
) -> None:
    model = io.load(linear)
    path = tmp_path / "old.onnx"
    io.save(model, path, external_threshold=0)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    lazy = ir.LazyTensor(_broken, dtype=ir.DataType.FLOAT, shape=ir.Shape((1000, 1000)))
    edit.initializer(model, "broken", lazy)
    with pytest.raises((ModelError, RuntimeError), match="no data today"):
        io.save(model, path, external_threshold=threshold)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_failing_move_puts_the_old_data_back(
    linear: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = io.load(linear)
    path = tmp_path / "old.onnx"
    io.save(model, path, external_threshold=0)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    edit.initializer(model, "more", np.ones(5000, np.float32))
    replace: Callable[[Path, Path], Path] = Path.replace

    def fail_on_the_model(self: Path, target: Path) -> Path:
        if Path(target) == path:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_on_the_model)
    with pytest.raises(UsageError, match="No space left"):
        io.save(model, path, external_threshold=0)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("threshold", [io.GIBIBYTE, 0])
def test_publish_moves_the_model_and_its_data(linear: Path, tmp_path: Path, threshold: int) -> None:
    model = io.load(linear)
    staged, target = tmp_path / "staging" / "out.onnx", tmp_path / "out.onnx"
    staged.parent.mkdir()
    io.save(model, staged, external_threshold=threshold)
    io.publish(staged, target)
    assert io.digest(io.load(target)) == io.digest(model)
    assert not list(staged.parent.iterdir())
    with pytest.raises(InternalError, match="another name"):
        io.publish(target, tmp_path / "other.onnx")
    with pytest.raises(UsageError, match="No such file"):
        io.publish(staged, target)
    assert io.digest(io.load(target)) == io.digest(model)


def test_to_bytes_refuses_above_two_gibibytes(linear: Path) -> None:
    model = io.load(linear)
    huge = ir.LazyTensor(_broken, dtype=ir.DataType.FLOAT, shape=ir.Shape((1 << 20, 1 << 10)))
    edit.initializer(model, "huge", huge)
    with pytest.raises(ModelError, match="2 GiB"):
        io.to_bytes(model)


def test_digest_does_not_see_the_file_layout(linear: Path, external: Path) -> None:
    wanted = io.digest(io.load(linear))
    assert wanted.startswith("sha256:")
    assert len(wanted) == len("sha256:") + 64
    assert io.digest(io.load(external)) == wanted
    proto = onnx.load(linear)
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).reshape(-1).tolist()
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values)
    proto.producer_name, proto.doc_string = "someone else", "other words"
    linear.write_bytes(proto.SerializeToString())
    assert io.digest(io.load(linear)) == wanted


def _other_weight(model: ir.Model) -> None:
    tensor = edit.constant_array(model.graph.initializers["w2"])
    assert tensor is not None
    changed = tensor.copy()
    changed[3, 3] += np.float32(1e-3)
    model.graph.initializers["w2"].const_value = ir.tensor(changed, name="w2")


def _other_opset(model: ir.Model) -> None:
    model.opset_imports[""] = 18


def _other_name(model: ir.Model) -> None:
    model.graph[0].name = "other"


def _other_shape(model: ir.Model) -> None:
    model.graph.inputs[0].shape = ir.Shape((1, 16))


def _other_attribute(model: ir.Model) -> None:
    model.graph[1].attributes["k"] = ir.AttrFloat32("k", 0.5)


@pytest.mark.parametrize(
    "change", [_other_weight, _other_opset, _other_name, _other_shape, _other_attribute]
)
def test_digest_sees_what_the_model_computes(
    linear: Path, change: Callable[[ir.Model], None]
) -> None:
    model = io.load(linear)
    before = io.digest(model)
    change(model)
    assert io.digest(model) != before


def test_to_bytes_beside_names_the_files_of_weights(external: Path) -> None:
    model = io.load(external)
    content = io.to_bytes_beside(model)
    assert len(content) < io.weight_bytes(model)
    x = np.ones((2, 16), np.float32)
    beside = open_session(content, SessionSettings(weights_folder=external.parent))
    feeds = {beside.inputs[0].name: x}
    np.testing.assert_array_equal(beside.run(feeds)[0], open_session(external).run(feeds)[0])
    with pytest.raises(ModelError, match="does not load"):
        open_session(content, SessionSettings(weights_folder=external.parent.parent))
