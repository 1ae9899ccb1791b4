"""Decoding images that nobody vouches for, with Pillow, in bounded time and memory.

What a file is, its first bytes tell, not its name. Before a pixel is decoded, its size, its number
of scans and the length of its metadata are bounded: each is a known way to make a small file cost
gigabytes or minutes. A truncated file is an error. Of an animation the first frame is taken.
"""

from __future__ import annotations

import struct
import warnings
from typing import TYPE_CHECKING, BinaryIO, Final

from onnxq.data.extras import require
from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from PIL import Image

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

MAX_PIXELS: Final = 50_000_000
"""The largest image, about what the largest cameras take."""

MAX_IMAGE_BYTES: Final = 256 << 20
"""The largest file: an image of :data:`MAX_PIXELS` that is not compressed."""

_MAX_SCANNED: Final = 1 << 30
"""Pixels times scans of a progressive JPEG; each scan goes through all pixels once more."""

_MAX_EXIF: Final = 128 << 10
"""EXIF has 64 KiB by its standard. Its entries may overlap, so memory grows with its square."""

_MAGIC: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
)
_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_ORIENTATION: Final = 0x0112
# What turns an image upright, by the orientation that EXIF gives.
_UPRIGHT: Final = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_TIFF_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_TILE: Final = (322, 323)


def decode(stream: BinaryIO, where: str) -> Image.Image:
    """Decode an image and turn it upright.

    Args:
        stream: The encoded image, at its start.
        where: The file, for messages.

    Returns:
        The pixels, in one of Pillow's modes with 8 bits a channel.

    Raises:
        DataError: It is no image of a known format, damaged, truncated, or too large.
    """
    pillow = require("PIL.Image", where)
    kind = _kind(stream, where)
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of sizes that are refused here anyway.
            warnings.simplefilter("ignore")
            return _decoded(pillow, stream, kind, where)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them into.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, pillow.DecompressionBombError):
            raise _too_large(where) from error
        code, text = "data.damaged", f"the image cannot be decoded ({reason})"
        remedy = "It may be truncated; write it again, or leave it out."
        raise DataError(code, text, where=where, remedy=remedy) from error


def _decoded(pillow: ModuleType, stream: BinaryIO, kind: str, where: str) -> Image.Image:
    scans = _check_jpeg(stream, where) if kind == "JPEG" else 1
    if kind == "TIFF":
        _check_tiff(stream, where)
    stream.seek(0)
    image: Image.Image = pillow.open(stream, formats=(kind,))
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(where, f"{image.width} × {image.height} pixels")
    if image.width * image.height * scans > _MAX_SCANNED:
        raise _too_large(where, f"{scans} scans of {image.width} × {image.height} pixels")
    if image.mode not in _MODES:
        code, text = "data.image_mode", f"its pixels are {image.mode}, not 8 bits a channel"
        remedy = "Convert it to 8 bits as for training, or give .npz samples."
        raise DataError(code, text, where=where, remedy=remedy)
    if len(image.info.get("exif", b"")) > _MAX_EXIF:
        raise _metadata(where)
    if kind == "PNG":
        # Checks the checksum of every chunk, and leaves the image unusable.
        image.verify()
        stream.seek(0)
        image = pillow.open(stream, formats=(kind,))
    image.load()
    turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    if turn is None:
        return image
    return image.transpose(getattr(pillow.Transpose, turn))


def _kind(stream: BinaryIO, where: str) -> str:
    size = stream.seek(0, 2)
    stream.seek(0)
    head = stream.read(12)
    stream.seek(0)
    if size > MAX_IMAGE_BYTES:
        raise _too_large(where, f"{size >> 20} MiB")
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return "WEBP"
    kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    if kind is None:
        what = "the file is empty" if size == 0 else "the file is none of the known image formats"
        code, remedy = "data.not_an_image", f"Give {', '.join(FORMATS)}, or leave it out."
        raise DataError(code, what, where=where, remedy=remedy)
    return kind


def _check_jpeg(stream: BinaryIO, where: str) -> int:
    """Bound the EXIF of a JPEG; return how many scans it has."""
    content = stream.read()
    # Pillow joins all segments of EXIF to one.
    if sum(len(segment) for segment in _segments(content, 0xE1, b"Exif\0\0")) > _MAX_EXIF:
        raise _metadata(where)
    # Within pixels FF is followed by 00; a thumbnail in the metadata adds one or two.
    return content.count(b"\xff\xda")


def _segments(content: bytes, wanted: int, prefix: bytes) -> Iterator[bytes]:
    """The segments of one marker that begin so, as far as the pixels."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        if content[at + 1] == 0xFF:
            at += 1
            continue
        length = max(int.from_bytes(content[at + 2 : at + 4], "big"), 2)
        if content[at + 1] == wanted and content.startswith(prefix, at + 4):
            yield content[at + 4 : at + 2 + length]
        at += 2 + length


def _check_tiff(stream: BinaryIO, where: str) -> None:
    """Bound what the entries of the first directory say they hold, and the tiles."""
    order = "<" if stream.read(4)[:2] == b"II" else ">"
    size = stream.seek(0, 2)
    stream.seek(4)
    stream.seek(struct.unpack(f"{order}I", stream.read(4))[0])
    (count,) = struct.unpack(f"{order}H", stream.read(2))
    entries = stream.read(12 * count)
    total, tile = 0, 1
    for tag, kind, length, inline in struct.iter_unpack(f"{order}HHI4s", entries):
        total += _TIFF_SIZES.get(kind, 8) * length
        if tag in _TILE:
            short = struct.unpack(f"{order}H2x" if kind == 3 else f"{order}I", inline)[0]
            tile *= max(short, 1)
    if total > size + _MAX_EXIF:
        raise _metadata(where)
    if tile > MAX_PIXELS:
        raise _too_large(where, "a tile is larger than any image")


def _too_large(where: str, what: str = "") -> DataError:
    text = f"the image is too large{f' ({what})' if what else ''}"
    remedy = f"Scale it down; {MAX_PIXELS // 1_000_000} million pixels are read at most."
    return DataError("data.too_large", text, where=where, remedy=remedy)


def _metadata(where: str) -> DataError:
    text = "its metadata claim to hold more than they can"
    return DataError("data.damaged", text, where=where, remedy="Write it again without metadata.")
