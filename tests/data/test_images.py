"""Images: what is read, how they become arrays, and what is refused."""

from __future__ import annotations

import io
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from onnxq.data import Reading, open_data
from onnxq.data.decode import decode
from onnxq.data.imaging import normalized, prepare_image
from onnxq.data.preprocess import ImageSteps
from onnxq.errors import DataError
from onnxq.graph.structure import InputSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.data import DataSource, Signature

FLOAT = np.dtype(np.float32)
IMAGE: Signature = (InputSpec("image", FLOAT, ("n", 3, None, None), required=True),)
SQUARE: Signature = (InputSpec("image", FLOAT, ("n", 3, 8, 8), required=True),)
AS_IT_IS = "version = 1\n[image]\nscale = 1\nmean = 0\nstd = 1\n"


def pixels(height: int = 10, width: int = 14, channels: int = 3, seed: int = 0) -> NDArray[Any]:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def steps(**more: Any) -> ImageSteps:
    return ImageSteps.model_validate({"scale": 1, "mean": 0, "std": 1, **more})


def opened(path: Path, text: str = AS_IT_IS, signature: Signature = IMAGE) -> DataSource:
    file = path.parent / f"{path.name}.steps.toml"
    file.write_text(text, encoding="utf-8")
    return open_data(Reading(path, preprocess=file), signature)


def refused(path: Path, text: str = AS_IT_IS, signature: Signature = IMAGE) -> DataError:
    with pytest.raises(DataError) as caught:
        list(opened(path, text, signature))
    assert len(str(caught.value).splitlines()) == 2
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tif", "webp", "jpg"])
def test_formats(folder: Path, suffix: str) -> None:
    array = np.kron(pixels(2, 3), np.ones((8, 8, 1), np.uint8))
    more: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    more |= {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    Image.fromarray(array).save(folder / f"a.{suffix}", **more)
    (sample,) = opened(folder)
    found = sample.feeds["image"]
    assert found.shape == (1, 3, 16, 24)
    allowed = 4 if suffix == "jpg" else 0
    assert np.abs(found[0].transpose(1, 2, 0) - array).max() <= allowed
    assert sample.name == str(folder / f"a.{suffix}")


def test_images_are_decoded_when_they_are_reached(folder: Path) -> None:
    Image.fromarray(pixels()).save(folder / "1.png")
    (folder / "2.png").write_bytes(b"broken")
    stream = iter(opened(folder))
    assert next(stream).name == str(folder / "1.png")
    with pytest.raises(DataError, match=r"2\.png"):
        next(stream)


def test_contents_tell_the_format_and_not_the_name(folder: Path) -> None:
    Image.fromarray(pixels()).save(folder / "a.png")
    (folder / "a.png").rename(folder / "a.jpg")
    assert len(list(opened(folder))) == 1


def test_one_image_is_one_sample(tmp_path: Path) -> None:
    Image.fromarray(pixels()).save(tmp_path / "a.PNG")
    source = opened(tmp_path / "a.PNG")
    assert len(source) == 1
    assert source.digest() == opened(tmp_path / "a.PNG").digest()


def test_order_nesting_and_labels(folder: Path) -> None:
    for name in ("cat/2.png", "cat/1.png", "dog/3.png", "0.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(seed=len(name))).save(folder / name)
    (folder / "labels.txt").write_text("0\n1\n2\n3\n", encoding="utf-8")
    (folder / "README.md").touch()
    names = [sample.name.removeprefix(f"{folder}/") for sample in opened(folder)]
    assert names == ["0.png", "cat/1.png", "cat/2.png", "dog/3.png"]
    (folder / "cat" / "deeper").mkdir()
    assert "cat/deeper" in refused(folder).message


def test_subsets_and_digest(folder: Path, tmp_path: Path) -> None:
    for index in range(3):
        Image.fromarray(pixels(seed=index)).save(folder / f"{index}.png")
    source = opened(folder)
    assert [s.name[-5:] for s in source.subset([2, 0])] == ["2.png", "0.png"]
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert opened(moved).digest() == source.digest()
    other = AS_IT_IS.replace("mean = 0", "mean = 1")
    assert opened(folder, other).digest() != source.digest()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    array = np.kron(pixels(2, 3), np.ones((8, 8, 1), np.uint8))
    # Where the stored rows and columns of each orientation come from.
    stored = {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.transpose(1, 0, 2),
        6: np.rot90(array, 1),
        7: np.rot90(array, 2).transpose(1, 0, 2),
        8: np.rot90(array, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    image.save(tmp_path / "a.png", exif=exif)
    with (tmp_path / "a.png").open("rb") as stream:
        np.testing.assert_array_equal(np.asarray(decode(stream, "a.png")), array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes(folder: Path, mode: str) -> None:
    image = Image.fromarray(pixels()).convert(mode)
    suffix = "tif" if mode == "CMYK" else "png"
    image.save(folder / f"a.{suffix}")
    for color, channels in (("RGB", 3), ("L", 1)):
        signature = (InputSpec("image", FLOAT, (None, channels, 10, 14), required=True),)
        text = f'{AS_IT_IS}color = "{color}"\nresize = {{ exact = [10, 14] }}\n'
        (sample,) = opened(folder, text, signature)
        want = np.asarray(image.convert("RGBA") if mode == "P" else image.convert("RGB"))[..., :3]
        if color == "RGB":
            np.testing.assert_array_equal(sample.feeds["image"][0].transpose(1, 2, 0), want)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_are_not_clipped_in_silence(folder: Path, dtype: Any) -> None:
    suffix = "png" if dtype == np.uint16 else "tif"
    Image.fromarray((np.arange(6).reshape(2, 3) * 5000).astype(dtype)).save(folder / f"a.{suffix}")
    assert refused(folder).code == "data.image_mode"


@given(
    scale=st.floats(1e-3, 2),
    mean=st.floats(-300, 300),
    std=st.floats(1e-2, 300),
    layout=st.sampled_from(["NCHW", "NHWC"]),
    color=st.sampled_from(["RGB", "BGR", "L"]),
)
def test_arithmetic(scale: float, mean: float, std: float, layout: str, color: str) -> None:
    channels = 1 if color == "L" else 3
    raw = pixels(4, 5, channels)
    means = [mean + index for index in range(channels)]
    declared = steps(scale=scale, mean=means, std=std, layout=layout, color=color)
    found = normalized(raw, declared, "a")
    wide = raw.reshape(4, 5, channels).astype(np.float64)
    wide = wide[..., ::-1] if color == "BGR" else wide
    want = (wide * scale - np.array(means)) / std
    want = want.transpose(2, 0, 1) if layout == "NCHW" else want
    # Two roundings of float32 relative to the largest number on the way.
    allowed = 4 * np.finfo(np.float32).eps * (255 * scale + abs(mean) + 3) / std
    assert found.dtype == np.float32
    assert np.abs(found[0] - want).max() <= allowed


@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8", "int8"])
def test_types(dtype: str) -> None:
    mean = 128 if dtype == "int8" else 0
    found = normalized(pixels(), steps(dtype=dtype, mean=mean), "a")
    assert found.dtype == np.dtype(dtype)
    with pytest.raises(DataError, match="do not fit uint8"):
        normalized(pixels(), steps(dtype="uint8", mean=500), "a")


def test_a_uint8_input_is_fed_pixels(folder: Path) -> None:
    Image.fromarray(pixels()).save(folder / "a.png")
    signature = (InputSpec("x", np.dtype(np.uint8), (1, None, None, 3), required=True),)
    text = f'{AS_IT_IS}dtype = "uint8"\nlayout = "NHWC"\n'
    (sample,) = opened(folder, text, signature)
    np.testing.assert_array_equal(sample.feeds["x"][0], pixels())


@given(height=st.integers(1, 40), width=st.integers(1, 40), shortest=st.integers(1, 30))
def test_shortest(height: int, width: int, shortest: int) -> None:
    declared = steps(resize={"shortest": shortest}, layout="NHWC")
    found = prepare_image(Image.fromarray(pixels(height, width)), declared, "a")
    sides = found.shape[1:3]
    assert min(sides) == shortest
    assert max(sides) == shortest * max(height, width) // min(height, width)
    assert (sides[0] >= sides[1]) == (height >= width) or sides[0] == sides[1]


def test_resizing_is_pillows() -> None:
    image = Image.fromarray(pixels(20, 30))
    for name in ("nearest", "box", "bilinear", "bicubic", "lanczos"):
        declared = steps(resize={"exact": [7, 9], "interpolation": name}, layout="NHWC")
        want = np.asarray(image.resize((9, 7), getattr(Image.Resampling, name.upper())))
        np.testing.assert_array_equal(prepare_image(image, declared, "a")[0], want)


def test_letterbox() -> None:
    image = Image.fromarray(np.full((10, 20, 3), 200, np.uint8))
    declared = steps(resize={"letterbox": [40, 40], "fill": 114}, layout="NHWC")
    found = prepare_image(image, declared, "a")[0, ..., 0]
    assert found.shape == (40, 40)
    assert (found[:10] == 114).all()
    assert (found[30:] == 114).all()
    assert (found[10:30] == 200).all()
    gray = steps(resize={"letterbox": [40, 40], "fill": 7}, color="L")
    assert prepare_image(image, gray, "a")[0, 0, 0, 0] == 7


def test_crop() -> None:
    image = Image.fromarray(pixels(10, 14))
    found = prepare_image(image, steps(crop=[4, 6], layout="NHWC"), "a")
    np.testing.assert_array_equal(found[0], pixels(10, 14)[3:7, 4:10])
    with pytest.raises(DataError, match="14 × 10 pixels are left to crop 20 × 4"):
        prepare_image(image, steps(crop=[4, 20]), "a")


def test_torchvision_agrees(folder: Path) -> None:
    """The usual recipe of ImageNet models, against a float64 reference of its own."""
    image = Image.fromarray(pixels(50, 70))
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    declared = steps(resize={"shortest": 32}, crop=[24, 24], scale="1/255", mean=mean, std=std)
    found = prepare_image(image, declared, "a")
    small = np.asarray(image.resize((44, 32), Image.Resampling.BILINEAR), np.float64)
    want = (small[4:28, 10:34] / 255 - mean) / std
    np.testing.assert_allclose(found[0], want.transpose(2, 0, 1), rtol=0, atol=2e-6)
    assert folder.exists()


def test_nothing_is_guessed(folder: Path) -> None:
    Image.fromarray(pixels()).save(folder / "a.png")
    with pytest.raises(DataError) as caught:
        open_data(folder, IMAGE)
    assert caught.value.code == "data.no_preprocess"
    assert "mean = [0.485, 0.456, 0.406]" in caught.value.remedy


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ("", "preprocess.size", "[8, 8] pixels"),
        ("crop = [9, 8]\n", "preprocess.shape", "[1, 3, 9, 8]"),
        ('crop = [8, 8]\ncolor = "L"\n', "preprocess.shape", "[1, 1, 8, 8]"),
        ('crop = [8, 8]\nlayout = "NHWC"\n', "preprocess.shape", "[1, 8, 8, 3]"),
        ('crop = [8, 8]\ndtype = "uint8"\n', "preprocess.dtype", "float32"),
        ('crop = [8, 8]\ninput = "img"\n', "preprocess.input", "'img'"),
    ],
)
def test_steps_that_do_not_fit_the_model(folder: Path, more: str, code: str, words: str) -> None:
    Image.fromarray(pixels()).save(folder / "a.png")
    error = refused(folder, AS_IT_IS + more, SQUARE)
    assert error.code == code
    assert words in str(error)
    assert error.where.endswith(".toml")


def test_the_input_is_named_where_there_are_two(folder: Path) -> None:
    Image.fromarray(pixels()).save(folder / "a.png")
    two = tuple(InputSpec(n, FLOAT, (None, 3, None, None), required=True) for n in "ab")
    assert refused(folder, AS_IT_IS, two).code == "preprocess.input"
    error = refused(folder, f'{AS_IT_IS}input = "b"\n', two)
    assert "'a' is missing" in error.message


def test_a_text_beside_the_image_is_no_image(folder: Path) -> None:
    Image.fromarray(pixels()).save(folder / "a.png")
    (folder / "notes.txt").touch()
    assert "notes.txt" in refused(folder).message
    (folder / "notes.txt").unlink()
    np.savez(folder / "b.npz", x=np.ones(1))
    assert "a.png" in refused(folder).message


def test_a_missing_package_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(pixels()).save(folder / "a.png")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    error = refused(folder)
    assert error.code == "data.missing_package"
    assert "onnxq[images]" in error.remedy


def test_an_animation_gives_its_first_frame(folder: Path) -> None:
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 200)]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    (sample,) = opened(folder)
    assert sample.feeds["image"].max() == 10


def test_encoded_images_come_from_memory_too() -> None:
    stream = io.BytesIO()
    Image.fromarray(pixels()).save(stream, "PNG")
    stream.seek(0)
    np.testing.assert_array_equal(np.asarray(decode(stream, "a")), pixels())
