"""Images in the graph against Pillow and numpy, which feed calibration."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from onnxq.data.decode import decode
from onnxq.data.imaging import as_png, prepare_image
from onnxq.errors import DataError, ModelError
from onnxq.graph.io import save
from tests.bundle.parts import image_graph, opened, picture

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.data.preprocess import ImageSteps
    from onnxq.runtime.session import Session

SIZES = [(100, 150), (150, 100), (31, 40), (333, 57), (57, 333), (64, 64), (2, 3)]

BILINEAR = 2.0
BICUBIC = 24.0
"""Levels of 255 by which pixels may differ; the mean is below 0.5."""


@pytest.mark.parametrize(
    ("steps", "most"),
    [
        ({"resize": {"shortest": 64}, "crop": (56, 48), "scale": 1 / 255, "mean": (0.4, 0.5, 0.6),
          "std": (0.2, 0.3, 0.25)}, BILINEAR),
        ({"resize": {"exact": (40, 72)}, "color": "BGR", "layout": "NHWC", "std": 2.0}, BILINEAR),
        ({"resize": {"letterbox": (96, 80), "fill": 114}}, BILINEAR),
        ({"resize": {"shortest": 33, "interpolation": "bicubic"}, "color": "L"}, BICUBIC),
        ({"resize": {"exact": (9, 11), "interpolation": "bicubic"}, "dtype": "uint8"}, BICUBIC),
        ({"resize": {"exact": (40, 72), "interpolation": "nearest"}, "dtype": "float16"}, 0.0),
        ({"resize": {"letterbox": (33, 20), "interpolation": "nearest"}, "color": "BGR"}, 0.0),
        ({"crop": (2, 3), "mean": 128.0, "dtype": "int8"}, 0.0),
        ({"scale": 1 / 255, "color": "L", "mean": 0.5, "std": 0.5}, 0.0),
    ],
)  # fmt: skip
def test_a_graph_makes_what_the_code_makes(steps: dict[str, Any], most: float) -> None:
    graph, declared = image_graph(**steps)
    session = opened(graph)
    levels = float(np.max(declared.std)) / declared.scale
    for size in SIZES:
        image = picture(*size)
        expected = prepare_image(image, declared, "image")
        (found,) = session.run({"image_bytes": as_png(image)}, ["pixels"])
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        apart = np.abs(found.astype(np.float64) - expected.astype(np.float64)) * levels
        assert apart.max() <= most + 1e-3
        assert apart.mean() < 0.5


def encoded(image: Image.Image, form: str, exif: Any) -> bytes:
    stream = io.BytesIO()
    options = {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
    image.save(stream, form, exif=exif, **options)
    return stream.getvalue()


def check_upright(session: Session, declared: ImageSteps, content: bytes) -> tuple[int, ...]:
    """The same as in the code that feeds calibration; the shape."""
    image = decode(io.BytesIO(content), "image")
    expected = prepare_image(image, declared, "image")
    (found,) = session.run({"image_bytes": np.frombuffer(content, np.uint8)}, ["pixels"])
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 3
    return tuple(found.shape[2:])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_an_image_is_turned_upright(form: str, order: str) -> None:
    graph, declared = image_graph()
    session = opened(graph)
    pixels = np.kron(np.arange(6).reshape(2, 3) * 40, np.ones((16, 16), int)).astype(np.uint8)
    image = Image.fromarray(np.stack([pixels] * 3, axis=-1))
    shapes = {}
    for orientation in (*range(10), 0x0106, 65535):
        exif = Image.Exif()
        exif.endian = order
        exif[0x010F], exif[0x0110], exif[0x0131] = "a maker", "a model", "x" * 3000
        exif[0x0112] = orientation
        content = encoded(image, form, exif)
        assert content.count(b"II*" if order == "<" else b"MM\0*") == 1
        shapes[orientation] = check_upright(session, declared, content)
    assert {shapes[n] for n in (0, 1, 2, 3, 4, 9)} == {(32, 48)}
    assert {shapes[n] for n in (5, 6, 7, 8)} == {(48, 32)}


def test_exif_that_says_nothing_or_is_damaged() -> None:
    graph, declared = image_graph()
    session = opened(graph)
    image = picture(20, 30)
    plain = Image.Exif()
    plain[0x010F] = "a maker"
    turned = Image.Exif()
    turned[0x0112] = 6
    whole = turned.tobytes()
    head = b"Exif\0\0"
    sizes = [check_upright(session, declared, encoded(image, "JPEG", plain))]
    for damaged in (
        head,
        head + b"II",
        head + b"II*\0\xff\xff\xff\xff",
        head + b"XX" + whole[8:],
        whole[:10] + b"\xff" * 4 + whole[14:],
        whole[:-12],
        head + b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x13" * 6,
    ):
        content = encoded(image, "JPEG", damaged)
        (found,) = session.run({"image_bytes": np.frombuffer(content, np.uint8)}, ["pixels"])
        sizes.append(tuple(found.shape[2:]))
    assert set(sizes) == {(20, 30)}


def test_exif_behind_a_large_profile_and_in_one_that_is_too_far() -> None:
    session = opened(image_graph()[0])
    turned = Image.Exif()
    turned[0x0112] = 8
    content = encoded(picture(20, 30), "JPEG", turned)
    place = content.index(b"\xff\xe1")
    profile = b"\xff\xe2\xff\xff" + b"ICC_PROFILE\0" + bytes(65521)
    assert len(profile) == 65537
    for count, shape in ((0, (30, 20)), (2, (30, 20)), (4, (20, 30))):
        longer = content[:place] + profile * count + content[place:]
        (found,) = session.run({"image_bytes": np.frombuffer(longer, np.uint8)}, ["pixels"])
        assert found.shape[2:] == shape, count


def test_gray_pictures() -> None:
    graph, declared = image_graph()
    session = opened(graph)
    gray = picture(9, 7).convert("L")
    for form in ("PNG", "JPEG"):
        encoded = io.BytesIO()
        gray.save(encoded, form, quality=100)
        (found,) = session.run(
            {"image_bytes": np.frombuffer(encoded.getvalue(), np.uint8)}, ["pixels"]
        )
        expected = prepare_image(decode(io.BytesIO(encoded.getvalue()), "x"), declared, "x")
        assert np.abs(found - expected).max() <= 1


def test_a_crop_larger_than_the_image_fails_as_it_does_in_the_code() -> None:
    graph, declared = image_graph(crop=(20, 30))
    small = picture(10, 40)
    with pytest.raises(DataError, match="pixels are left to crop"):
        prepare_image(small, declared, "x")
    with pytest.raises(ModelError):
        opened(graph).run({"image_bytes": as_png(small)})


@pytest.mark.parametrize("method", ["lanczos", "box"])
def test_a_filter_without_an_operator_is_refused_by_name(method: str) -> None:
    with pytest.raises(DataError, match=method) as caught:
        image_graph(resize={"shortest": 8, "interpolation": method})
    assert caught.value.code == "bundle.interpolation"
    assert caught.value.where == "steps.toml"


def test_pixels_that_do_not_fit_their_type_are_refused() -> None:
    with pytest.raises(DataError, match="0 to 255, which does not fit int8"):
        image_graph(dtype="int8")


@pytest.mark.parametrize("resize", [{"letterbox": (96, 80)}, {"shortest": 64}, {"exact": (40, 72)}])
def test_geometry_leads_back_into_the_image(resize: dict[str, Any]) -> None:
    crop = {} if "letterbox" in resize else {"crop": (32, 48)}
    graph, _ = image_graph(resize=resize, **crop)
    width, height = 200, 120
    pixels, geometry = opened(graph).run({"image_bytes": as_png(picture(height, width))})
    middle = (np.array(pixels.shape[:1:-1]) / 2 + geometry[:2]) * geometry[2:]
    # The middle of the input is the middle of the image, but for half a pixel that is rounded.
    np.testing.assert_allclose(middle, [width / 2, height / 2], atol=2 * geometry[2:].max())


_RUN = """
import json, sys
import numpy as np, onnxruntime, onnxruntime_extensions
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
session = onnxruntime.InferenceSession(sys.argv[1], options)
for path in sys.argv[2:]:
    np.save(path + ".npy", session.run(["pixels"], {"image_bytes": np.fromfile(path, np.uint8)})[0])
"""


def in_a_process(graph: Path, *images: Path) -> subprocess.CompletedProcess[str]:
    """Run the decoder where it may crash, exit or hang."""
    command = [sys.executable, "-c", _RUN, str(graph), *map(str, images)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("options", "most", "mean"),
    [({"subsampling": 0}, 2.0, 0.05), ({"subsampling": 2}, 255.0, 4.0),
     ({"subsampling": 0, "progressive": True}, 2.0, 0.05)],
)  # fmt: skip
def test_jpeg_against_pillow(
    tmp_path: Path, options: dict[str, Any], most: float, mean: float
) -> None:
    graph, declared = image_graph()
    save(graph, tmp_path / "front.onnx")
    path = tmp_path / "image.jpg"
    picture(120, 90).save(path, "JPEG", quality=92, **options)
    done = in_a_process(tmp_path / "front.onnx", path)
    assert done.returncode == 0, done.stderr
    with path.open("rb") as stream:
        expected = prepare_image(decode(stream, "x"), declared, "x")
    apart = np.abs(np.load(f"{path}.npy") - expected)
    assert apart.max() <= most
    assert apart.mean() <= mean


def test_cmyk_is_an_error_and_no_wrong_colours(tmp_path: Path) -> None:
    graph, _ = image_graph()
    save(graph, tmp_path / "front.onnx")
    Image.new("CMYK", (8, 8), (10, 20, 30, 40)).save(tmp_path / "c.jpg")
    done = in_a_process(tmp_path / "front.onnx", tmp_path / "c.jpg")
    assert done.returncode != 0
    assert "Expand" in done.stderr
    assert not (tmp_path / "c.jpg.npy").exists()
