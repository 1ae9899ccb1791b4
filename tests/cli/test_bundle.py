"""``bundle``, and what the other commands make of its results."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from onnxq.graph.io import digest, load
from onnxq.graph.parts import split
from onnxq.runtime.custom_ops import custom_ops
from onnxq.runtime.session import SessionSettings, open_session
from tests.bundle.parts import picture, wordpiece
from tests.cli.conftest import onnxq
from tests.small_models import normal, proto

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

IMAGES = """g (float[N, 3, 16, 16] image) => (float[N, 5] logits) {
    c = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, w, b) r = Relu(c)
    p = GlobalAveragePool(r) f = Flatten(p) logits = Gemm(f, v)
}"""
TEXTS = """g (int64[N, S] input_ids, int64[N, S] attention_mask) => (float[N, S, 8] states) {
    e = Gather(table, input_ids) h = MatMul(e, w) r = Relu(h) s = MatMul(r, v)
    m = Cast<to = 1>(attention_mask) axis = Constant<value_ints = [2]>() k = Unsqueeze(m, axis)
    states = Mul(s, k)
}"""
STEPS = "version = 1\n[image]\nresize = { shortest = 20 }\ncrop = [16, 16]\n"
STEPS += 'scale = "1/255"\nmean = 0.5\nstd = 0.25\n'
CLASSES = 'version = 1\n[classes]\ntop = 2\nlabels = ["a", "b", "c", "d", "e"]\n'
EMBEDDING = "version = 1\n[embedding]\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with a classifier, its steps and a folder of pictures."""
    weights = {"w": normal(0, 16, 3, 3, 3), "b": normal(1, 16), "v": normal(2, 16, 5)}
    save_model(tmp_path / "m.onnx", IMAGES, **weights)
    (tmp_path / "pre.toml").write_text(STEPS)
    (tmp_path / "post.toml").write_text(CLASSES)
    (tmp_path / "photos").mkdir()
    for number in range(10):
        form = "jpg" if number % 2 else "png"
        picture(20 + number, 40, number).save(tmp_path / f"photos/{number}.{form}")
    return tmp_path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder with an encoder, its tokenizer and a file of texts."""
    weights = {"table": normal(0, 96, 32), "w": normal(1, 32, 64), "v": normal(2, 64, 8)}
    save_model(tmp_path / "m.onnx", TEXTS, **weights)
    wordpiece(tmp_path)
    (tmp_path / "post.toml").write_text(EMBEDDING)
    lines = [f"the a is {'un ' * n}x{'s' * n} 12 [MASK]" for n in range(12)]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    return tmp_path


def save_model(path: Path, text: str, **weights: NDArray[Any]) -> None:
    """As the part in front of it, of opset 18: so nothing in it is converted."""
    made = proto(text, **weights)
    made.opset_import[0].version = 18
    onnx.save(made, path)


def bundled(folder: Path, pre: str) -> Path:
    output = folder / "bundle.onnx"
    arguments = ("--pre", folder / pre, "--post", folder / "post.toml", "-o", output)
    run = onnxq("bundle", folder / "m.onnx", *arguments, "--json")
    assert run.status == 0, run.err
    return output


def outputs(path: Path, **feeds: NDArray[Any]) -> dict[str, NDArray[Any]]:
    with custom_ops(["extensions"]):
        session = open_session(path, SessionSettings(threads=1, spinning=False))
    found = session.run(feeds)
    return {spec.name: value for spec, value in zip(session.outputs, found, strict=True)}


EXTENSIONS = ("--custom-ops", "extensions")


def test_images_from_bytes_to_labels_and_to_int8(images: Path) -> None:
    bundle, quantized = bundled(images, "pre.toml"), images / "q.onnx"
    assert digest(split(load(bundle), "b").core) == digest(load(images / "m.onnx"))
    photo = np.fromfile(images / "photos/0.png", np.uint8)
    found = outputs(bundle, image_bytes=photo)
    assert found["labels"].tolist() == [["abcde"[n] for n in found["classes"][0]]]

    data = ("--data", images / "photos", *EXTENSIONS)
    run = onnxq("quantize", bundle, *data, "--scheme", "int8", "-o", quantized, "--json")
    assert run.status == 0, run.err
    decisions = {site["op"]: site["decision"] for site in run.document["sites"]}
    assert decisions == {"Conv": "int8", "Gemm": "int8"}
    assert any(
        "without its preprocessing and postprocessing" in w for w in run.document["warnings"]
    )
    assert run.document["metrics"]["output"] == "logits"
    again = outputs(quantized, image_bytes=photo)
    np.testing.assert_allclose(again["scores"], found["scores"], atol=0.05)
    assert [i.name for i in load(quantized).graph.inputs] == ["image_bytes"]
    assert split(load(quantized), "q").outputs == split(load(bundle), "b").outputs

    run = onnxq("compare", bundle, quantized, *data, "--metric", "sqnr", "--json")
    assert run.status == 0, run.err
    # A bundle of the quantized model is the quantized bundle.
    refused = onnxq("quantize", quantized, *data, "-o", images / "r.onnx", "--json")
    assert refused.document["errors"][0]["code"] == "model.quantized"
    assert refused.document["errors"][0]["where"] == str(quantized)


def test_calibration_sees_what_the_graph_makes(images: Path) -> None:
    """The same numbers as of the model with the steps outside, but for resizing's rounding."""
    bundle = bundled(images, "pre.toml")
    inside, outside = images / "inside.json", images / "outside.json"
    data = ("--data", images / "photos", "--calibration", "minmax", "--json")
    assert onnxq("calibrate", bundle, *data, *EXTENSIONS, "-o", inside).status == 0
    steps = ("--preprocess", images / "pre.toml")
    assert onnxq("calibrate", images / "m.onnx", *data, *steps, "-o", outside).status == 0
    assert inside.stat().st_size == outside.stat().st_size


def test_texts_plan_apply_and_inspect(texts: Path) -> None:
    bundle, quantized = bundled(texts, "tokenizer.json"), texts / "q.onnx"
    text = np.array(["the is un [MASK]"], object)
    vector = outputs(bundle, text=text)["sentence_embedding"]
    np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-5)

    options = ("--scheme", "int8-dynamic", "--data", texts / "texts.txt", *EXTENSIONS)
    plan = ("--plan-out", texts / "plan", "-o", quantized, "--json")
    run = onnxq("quantize", bundle, *options, *plan)
    assert run.status == 0, run.err
    found = outputs(quantized, text=text)["sentence_embedding"]
    assert (found * vector).sum() > 0.99
    assert not np.array_equal(found, vector)

    again = texts / "again.onnx"
    run = onnxq("apply", bundle, texts / "plan", *EXTENSIONS, "-o", again, "--json")
    assert run.status == 0, run.err
    assert again.read_bytes() == quantized.read_bytes()
    # The plan was made for the model inside, so it is good for the model alone.
    alone = onnxq("apply", texts / "m.onnx", texts / "plan", "-o", texts / "alone.onnx", "--json")
    assert alone.status == 0, alone.err

    run = onnxq("inspect", bundle, "--json")
    assert run.status == 0, run.err
    assert [i["name"] for i in run.document["model"]["inputs"]] == ["text"]


def test_several_texts_at_once(texts: Path) -> None:
    """Each has the vector that it has by itself, and so it is in the program that is deployed."""
    bundle = bundled(texts, "tokenizer.json")
    batch = ["the is un [MASK]", "", "a", "x" * 40 + " 12 . the a is"]
    found = outputs(bundle, text=np.array(batch, object))["sentence_embedding"]
    for text, vector in zip(batch, found, strict=True):
        alone = outputs(bundle, text=np.array([text], object))["sentence_embedding"]
        np.testing.assert_allclose(vector, alone[0], rtol=1e-5, atol=1e-6)
    run = onnxq("deploy", bundle, *EXTENSIONS, "-o", texts / "app", "--json")
    assert run.status == 0, run.err
    command = [sys.executable, str(texts / "app/run.py"), "the a", "is un x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "sentence_embedding tensor(float) (2, 8)" in done.stdout, done.stderr


def test_sites_outside_of_the_model_are_left_alone(images: Path) -> None:
    """A front of the user's own that has a weight: one more convolution."""
    front = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18, "com.microsoft.extensions" : 1]> '
        """g (uint8[n] data) => (float[1, 3, 16, 16] image) {
            d = com.microsoft.extensions.DecodeImage<color_space = "rgb">(data)
            f = Cast<to = 1>(d) t = Transpose<perm = [2, 0, 1]>(f)
            axis = Constant<value_ints = [0]>() u = Unsqueeze(t, axis)
            sizes = Constant<value_ints = [1, 3, 16, 16]>()
            r = Resize<mode = "nearest">(u, , , sizes)
            image = Conv(r, k) }"""
    )
    front.graph.initializer.append(numpy_helper.from_array(normal(0, 3, 3, 1, 1) / 255, "k"))
    onnx.save(front, images / "own.onnx")
    bundle = bundled(images, "own.onnx")
    options = ("--data", images / "photos", *EXTENSIONS, "--json")
    for command in (("inspect", bundle), ("quantize", bundle, "-o", images / "q.onnx")):
        run = onnxq(*command, "--scheme", "int8", *options)
        assert run.status == 0, run.err
        (site,) = [s for s in run.document["sites"] if s["name"].startswith("pre/")]
        assert (site["op"], site["decision"]) == ("Conv", "float")
        assert site["reason"] == "part of the preprocessing"


def test_inspect_tells_the_parts_in_words(images: Path) -> None:
    bundle = bundled(images, "pre.toml")
    run = onnxq("inspect", bundle)
    lines = run.out.splitlines()
    assert any(line.startswith("preprocessing: image_bytes -> image (") for line in lines)
    assert "model: image -> logits (5 nodes)" in lines
    assert any(line.startswith("postprocessing: logits -> ") for line in lines)
    assert "onnxq.bundle" not in run.out
    found = onnxq("inspect", bundle, "--json").document
    names = ["preprocessing", "model", "postprocessing"]
    assert [part["name"] for part in found["bundle"]] == names
    core = {"name": "model", "inputs": ["image"], "outputs": ["logits"], "nodes": 5}
    assert found["bundle"][1] == core
    assert "onnxq.bundle" not in found["provenance"]
    assert onnxq("inspect", images / "m.onnx", "--json").document["bundle"] == []


def test_native_code_is_loaded_where_it_is_named(images: Path) -> None:
    bundle = bundled(images, "pre.toml")
    output = images / "q.onnx"
    run = onnxq("quantize", bundle, "--data", images / "photos", "-o", output, "--json")
    (error,) = run.document["errors"]
    assert (run.status, error["code"]) == (2, "runtime.custom_ops")
    assert error["where"] == str(bundle)
    assert "--custom-ops extensions" in error["remedy"]
    assert not output.exists()
    assert onnxq("inspect", bundle, "--json").status == 0


def test_every_command_says_how_its_operators_are_loaded(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, out, data = bundled(images, "pre.toml"), images / "out", images / "photos"
    commands = [
        ("quantize", bundle, "--data", data, "-o", out),
        ("calibrate", bundle, "--data", data, "-o", out),
        ("inspect", bundle, "--data", data),
        ("compare", bundle, bundle, "--data", data),
        ("compare", bundle, bundle, "--data", data, "--diverge"),
        ("deploy", bundle, "-o", out),
        ("deploy", bundle, "--as", "ort", "-o", out),
    ]
    for command in commands:
        run = onnxq(*command, "--json")
        (error,) = run.document["errors"]
        assert run.status == 2, command
        assert "onnxruntime-extensions" in error["message"], command
        assert error["remedy"].startswith("give --custom-ops extensions"), command
        assert not out.exists()
    run = onnxq("lint", bundle, "--target", "cpu", "--json")
    found = {item["rule"]: item for item in run.document["findings"]}
    assert "onnxruntime-extensions" in str(found["does-not-load"])
    assert "--custom-ops" in found["foreign-domain"]["remedy"]
    assert onnxq("lint", bundle, "--target", "cpu", *EXTENSIONS, "--json").status in {0, 1}

    find = importlib.util.find_spec
    hidden = "onnxruntime_extensions"
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == hidden else find(n))
    run = onnxq("compare", bundle, bundle, "--data", data, "--json")
    assert run.document["errors"][0]["remedy"].startswith("pip install 'onnxq[extensions]', then")


def test_a_bundle_is_no_folder_to_check(images: Path) -> None:
    run = onnxq("deploy", bundled(images, "pre.toml"), "--check", "--json")
    assert (run.status, run.document["errors"][0]["code"]) == (2, "deploy.no_folder")
    assert "a file" in run.document["errors"][0]["message"]


def _spec(folder: Path, content: str) -> tuple[str, ...]:
    (folder / "bad.toml").write_text(content)
    return "--pre", str(folder / "bad.toml")


def _post(folder: Path, content: str) -> tuple[str, ...]:
    (folder / "bad.toml").write_text(content)
    return "--post", str(folder / "bad.toml")


def _folder(folder: Path, **files: object) -> str:
    (folder / "checkpoint").mkdir()
    for name, content in files.items():
        (folder / f"checkpoint/{name}.json").write_text(json.dumps(content))
    return str(folder / "checkpoint")


BAD: dict[str, tuple[Any, str, str]] = {
    "nothing": (lambda _: (), "bundle.nothing", "nothing to put"),
    "unknown key": (lambda f: _spec(f, f"{STEPS}blur = 3\n"), "preprocess.unknown_key", "blur"),
    "no steps": (lambda f: _spec(f, "version = 1\n"), "bundle.nothing", "neither images"),
    "another size": (
        lambda f: _spec(f, STEPS.replace("16, 16", "8, 8")), "preprocess.shape", "[1, 3, 8, 8]"),
    "another type": (
        lambda f: _spec(f, STEPS + 'dtype = "uint8"\n'), "preprocess.dtype", "float32"),
    "no filter": (
        lambda f: _spec(f, STEPS.replace("20 }", '20, interpolation = "box" }')),
        "bundle.interpolation", "box"),
    "no ids": (
        lambda f: ("--pre", str(wordpiece(f))), "data.no_token_input", "input_ids"),
    "labels": (
        lambda f: _post(f, CLASSES.replace(', "e"', "")), "bundle.labels", "4 labels"),
    "no labels": (
        lambda f: _post(f, 'version = 1\n[classes]\nlabels = "no.txt"\n'), "bundle.labels", "read"),
    "labels elsewhere": (
        lambda f: _post(f, 'version = 1\n[classes]\nlabels = "../no.txt"\n'),
        "bundle.labels", "no file beside"),
    "no output": (
        lambda f: _post(f, 'version = 1\n[classes]\noutput = "y"\n'), "bundle.output", "'y'"),
    "no embedding": (lambda f: _post(f, EMBEDDING), "bundle.output", "2 axes"),
    "two tables": (
        lambda f: _post(f, f"{EMBEDDING}[classes]\n"), "postprocess.value", "exactly one"),
    "unknown output key": (
        lambda f: _post(f, "version = 1\n[classes]\nbest = 3\n"),
        "postprocess.unknown_key", "best"),
    "empty folder": (lambda f: ("--pre", _folder(f)), "preprocess.folder", "holds no"),
    "processor": (
        lambda f: ("--pre", _folder(f, preprocessor_config={
            "image_processor_type": "DonutImageProcessor"})),
        "preprocess.processor", "DonutImageProcessor"),
    "no classes": (
        lambda f: ("--post", _folder(f, config={})), "postprocess.checkpoint", "id2label"),
    "module": (
        lambda f: ("--post", _folder(f, modules=[
            {"type": "sentence_transformers.models.Dense"}])),
        "postprocess.checkpoint", "Dense"),
    "module outside": (
        lambda f: ("--post", _folder(f, modules=[
            {"type": "sentence_transformers.models.Pooling", "path": "../x"}])),
        "postprocess.checkpoint", "no folder in it"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error(images: Path, case: str) -> None:
    make, code, says = BAD[case]
    output = images / "out.onnx"
    arguments = make(images)
    after = sorted(images.iterdir())
    run = onnxq("bundle", images / "m.onnx", *arguments, "-o", output, "--json")
    assert run.status == 2, run.err
    (error,) = run.document["errors"]
    assert error["code"] == code
    assert says in error["message"]
    assert error["remedy"] or code.endswith(".value")
    assert len(run.err.strip().splitlines()) <= 2
    assert sorted(images.iterdir()) == after


@pytest.mark.parametrize("form", ["script", "ort"])
def test_a_bundle_is_deployed_with_an_image(images: Path, form: str) -> None:
    app = images / "app"
    run = onnxq("deploy", bundled(images, "pre.toml"), "--as", form, *EXTENSIONS, "-o", app)
    assert run.status == 0, run.err
    for arguments in ([], [str(images / "photos/1.jpg")]):
        command = [sys.executable, str(app / "run.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "labels tensor(string)" in done.stdout


def test_a_bundle_of_a_bundle_and_a_second_preprocessing(images: Path) -> None:
    bundle = bundled(images, "pre.toml")
    run = onnxq("bundle", bundle, "--pre", images / "pre.toml", "-o", images / "c.onnx", "--json")
    assert (run.status, run.document["errors"][0]["code"]) == (2, "bundle.twice")
    data = ("--data", images / "photos", "--preprocess", images / "pre.toml", *EXTENSIONS)
    run = onnxq("quantize", bundle, *data, "-o", images / "q.onnx", "--json")
    assert (run.status, run.document["errors"][0]["code"]) == (2, "usage.preprocess")
    run = onnxq("bundle", images / "m.onnx", "--post", bundle, "-o", images / "c.onnx", "--json")
    assert (run.status, run.document["errors"][0]["code"]) == (2, "bundle.twice")


def test_without_the_package_it_says_what_to_install(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    arguments = ("--pre", images / "pre.toml", "-o", images / "c.onnx", "--json")
    run = onnxq("bundle", images / "m.onnx", *arguments)
    (error,) = run.document["errors"]
    assert run.status == 2
    assert "onnxq[extensions]" in error["remedy"]
    assert not (images / "c.onnx").exists()


def test_damaged_images_are_refused_before_any_decoder_sees_them(images: Path) -> None:
    bundle = bundled(images, "pre.toml")
    whole = (images / "photos/1.jpg").read_bytes()
    (images / "photos/1.jpg").write_bytes(whole[: len(whole) // 2])
    data = ("--data", images / "photos", *EXTENSIONS)
    for command in (("quantize", bundle, "-o", images / "q.onnx"), ("compare", bundle, bundle)):
        run = onnxq(*command, *data, "--json")
        (error,) = run.document["errors"]
        assert (run.status, error["code"]) == (2, "data.damaged")
        assert error["where"] == str(images / "photos/1.jpg")


def test_a_part_of_the_users_own_must_fit(images: Path) -> None:
    def model(inputs: dict[str, Any], result: str, shape: list[int]) -> Path:
        nodes = [helper.make_node("Cast", list(inputs), [result], to=onnx.TensorProto.FLOAT)]
        given = [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()]
        made = helper.make_tensor_value_info(result, onnx.TensorProto.FLOAT, shape)
        graph = helper.make_graph(nodes, "g", given, [made])
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), images / "p.onnx")
        return images / "p.onnx"

    uint8 = onnx.TensorProto.UINT8
    target = ("-o", images / "c.onnx", "--json")
    front = model({"a": (uint8, [1, 3, 8, 8])}, "image", [1, 3, 8, 8])
    run = onnxq("bundle", images / "m.onnx", "--pre", front, *target)
    assert (run.status, run.document["errors"][0]["code"]) == (2, "bundle.shape")
    back = model({"other": (uint8, [1, 5])}, "z", [1, 5])
    run = onnxq("bundle", images / "m.onnx", "--post", back, *target)
    assert (run.status, run.document["errors"][0]["code"]) == (2, "postprocess.inputs")
    assert not (images / "c.onnx").exists()


def test_gray_image_data_feeds_the_same(images: Path) -> None:
    """A bundle takes what Pillow reads, whatever it is: GIF, gray, with a palette."""
    bundle = bundled(images, "pre.toml")
    folder = images / "odd"
    folder.mkdir()
    picture(30, 30).convert("P").save(folder / "a.gif")
    picture(30, 30).convert("L").save(folder / "b.png")
    Image.fromarray(np.zeros((30, 30, 4), np.uint8)).save(folder / "c.webp")
    run = onnxq(
        "compare", bundle, bundle, "--data", folder, *EXTENSIONS, "--metric", "sqnr", "--json"
    )
    assert run.status == 0, run.err


def test_labels_are_cut_where_lines_end_and_nowhere_else(images: Path) -> None:
    labels = ["a\u2028b", "c\x0cd", " e ", "f\x85\x1cg\rh", "\ufeffi"]
    (images / "labels.txt").write_bytes("\r\n".join(labels).encode() + b"\n")
    (images / "post.toml").write_text('version = 1\n[classes]\ntop = 5\nlabels = "labels.txt"\n')
    photo = np.fromfile(images / "photos/0.png", np.uint8)
    found = outputs(bundled(images, "pre.toml"), image_bytes=photo)
    assert found["labels"].tolist() == [[labels[n] for n in found["classes"][0]]]


def test_what_a_bundle_is_made_of_is_not_written_over(images: Path) -> None:
    """By any name: as it is, by a link of either kind, in a folder, as weights of a part."""
    (images / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    (images / "post.toml").write_text('version = 1\n[classes]\nlabels = "labels.txt"\n')
    front = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]>
        g (float[N, 3, 16, 16] given) => (float[N, 3, 16, 16] image) { image = Mul(given, k) }"""
    )
    front.graph.initializer.append(numpy_helper.from_array(normal(0, 3, 16, 16), "k"))
    onnx.save(
        front,
        images / "own.onnx",
        save_as_external_data=True,
        location="k.bin",
        size_threshold=0,
    )
    (images / "checkpoint").mkdir()
    steps = json.dumps({"image_processor_type": "ViTImageProcessor", "size": 16})
    (images / "checkpoint/preprocessor_config.json").write_text(steps)
    (images / "link").symlink_to(images / "checkpoint")
    (images / "symbolic.onnx").symlink_to(images / "m.onnx")
    (images / "hard.onnx").hardlink_to(images / "m.onnx")
    (images / "hard.toml").hardlink_to(images / "pre.toml")
    cases = [
        *[("pre.toml", name) for name in ("m.onnx", "./m.onnx", "symbolic.onnx", "hard.onnx")],
        *[("pre.toml", name) for name in ("pre.toml", "hard.toml", "post.toml", "labels.txt")],
        *[("own.onnx", name) for name in ("own.onnx", "k.bin")],
        ("checkpoint", "link/preprocessor_config.json"),
    ]
    before = {path: path.read_bytes() for path in images.rglob("*") if path.is_file()}
    for pre, name in cases:
        parts = ("--pre", images / pre, "--post", images / "post.toml")
        run = onnxq("bundle", images / "m.onnx", *parts, "-o", images / name, "--json")
        assert run.status == 2, (pre, name, run.err)
        assert run.document["errors"][0]["code"].startswith("usage."), (pre, name)
        assert run.document["errors"][0]["remedy"]
    assert {path: path.read_bytes() for path in images.rglob("*") if path.is_file()} == before


def test_a_preprocessing_model_and_a_tokenizer(texts: Path) -> None:
    arguments = ("--pre", texts / "m.onnx", "--tokenizer", texts / "tokenizer.json")
    run = onnxq("bundle", texts / "m.onnx", *arguments, "-o", texts / "c.onnx", "--json")
    assert (run.status, run.document["errors"][0]["code"]) == (2, "bundle.both")
