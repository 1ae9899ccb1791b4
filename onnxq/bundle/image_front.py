"""An image's bytes to the model's input, in the graph: the steps of :mod:`onnxq.data.imaging`.

Everything but two steps is the same arithmetic on the same types, hence equal to the last bit:

- **Resizing** by ONNX's Resize with antialiasing, which has Pillow's filters, its passes (one axis
  after the other) and its rounding to whole pixels between them, but coefficients of its own:
  pixels differ by 1, seldom by 2, of 255. Pillow 12 and older always begin with the rows; newer
  ones begin with the columns where that is less work, as is done here where only the height
  shrinks. Bicubic pixels beside an edge may differ by 20 where the two begin differently.
- **Decoding a JPEG** by the library inside onnxruntime-extensions. Where colours are stored at half
  the resolution it interpolates them in another way than Pillow, by 0.5 of 255 in the mean.

PNG is decoded alike. What a graph cannot do is refused when it is built (lanczos and box filters),
or fails in the run (a JPEG in CMYK). Images are turned upright first
(:mod:`onnxq.bundle.upright`): places in them are of the image as it is seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from onnxq.bundle.draft import IMAGES, Draft, ints
from onnxq.bundle.upright import upright
from onnxq.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.data.preprocess import ImageSteps, Resize

GEOMETRY: Final = "geometry"
"""Last part of the name of what tells where a pixel of the model's input lies in the image."""

_RESIZE: Final[dict[str, dict[str, Any]]] = {
    "bilinear": {"mode": "linear"},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},
}
_GRAY: Final = np.array([19595, 38470, 7471], np.int32)
"""Pillow's weights of red, green and blue, of 65536."""


class ImageFront:
    """Writes the steps, and keeps track of where a pixel comes from."""

    def __init__(self, draft: Draft, steps: ImageSteps, where: str) -> None:
        """Refuse what a graph cannot do.

        Args:
            draft: Where to write.
            steps: What to do.
            where: The file that declares it, for messages.

        Raises:
            DataError: The filter has no operator, or not all pixels fit the type.
        """
        self._draft = draft
        self._steps = steps
        _check(steps, where)
        self._scale: Any = np.ones(2)
        self._offset: Any = ints(0, 0)

    def pixels(self, data: ir.Value) -> ir.Value:
        """The model's input for the bytes of an image."""
        draft, steps = self._draft, self._steps
        decoded = draft("DecodeImage", data, domain=IMAGES, color_space="rgb")
        decoded = upright(draft, data, decoded)
        size = draft("Slice", draft("Shape", decoded), ints(0), ints(2))
        # A JPEG in gray comes with one channel; of CMYK's four this makes an error.
        image = draft("Expand", decoded, draft("Concat", size, ints(3), axis=0))
        if steps.color == "L":
            image = self._gray(image)
        image = draft("Unsqueeze", draft("Transpose", image, perm=[2, 0, 1]), ints(0))
        if steps.resize is not None:
            image, size = self._resized(image, size, steps.resize)
        if steps.crop is not None:
            image = self._cropped(image, size, steps.crop)
        if steps.color == "BGR":
            image = draft("Gather", image, ints(2, 1, 0), axis=1)
        return self._normalized(image)

    def geometry(self) -> ir.Value:
        """float32 ``[4]``: of a place (x, y) in the input ``(x + g[0]) * g[2]`` in the image.

        The second and fourth number are those of y.
        """
        draft = self._draft
        parts = [self._flipped(part) for part in (self._offset, self._scale)]
        return draft("Concat", *parts, axis=0)

    def _flipped(self, value: Any) -> ir.Value:
        """Height and width as x and y, in float32."""
        draft = self._draft
        return draft("Gather", draft("Cast", value, to=ir.DataType.FLOAT), ints(1, 0))

    def _gray(self, image: ir.Value) -> ir.Value:
        draft = self._draft
        weighted = draft("Mul", draft("Cast", image, to=ir.DataType.INT32), _GRAY)
        total = draft("ReduceSum", weighted, ints(2), keepdims=1)
        half, whole = np.array(1 << 15, np.int32), np.array(1 << 16, np.int32)
        return draft("Cast", draft("Div", draft("Add", total, half), whole), to=ir.DataType.UINT8)

    def _resized(
        self, image: ir.Value, size: ir.Value, resize: Resize
    ) -> tuple[ir.Value, ir.Value]:
        """The image, and its height and width."""
        draft = self._draft
        wanted = self._wanted(size, resize)
        self._scale = draft("Div", self._real(size), self._real(wanted))
        image = self._scaled(image, size, wanted, resize.interpolation)
        if resize.letterbox is None:
            return image, wanted
        box = ints(*resize.letterbox)
        spare = draft("Sub", box, wanted)
        before = draft("Div", spare, ints(2))
        behind = draft("Sub", spare, before)
        pads = draft("Concat", ints(0, 0), before, ints(0, 0), behind, axis=0)
        self._offset = draft("Neg", before)
        fill = np.array(resize.fill, np.uint8)
        return draft("Pad", image, pads, fill), draft("Identity", box)

    def _wanted(self, size: ir.Value, resize: Resize) -> ir.Value:
        draft = self._draft
        if resize.shortest is not None:
            short = draft("ReduceMin", size, ints(0), keepdims=1)
            return draft("Div", draft("Mul", size, ints(resize.shortest)), short)
        if resize.exact is not None:
            return draft("Identity", ints(*resize.exact))
        box = np.array(resize.letterbox, np.float64)
        factor = draft("ReduceMin", draft("Div", box, self._real(size)), ints(0), keepdims=1)
        # Rounds halves to the even number, as Python does.
        rounded = draft("Round", draft("Mul", self._real(size), factor))
        return draft("Max", draft("Cast", rounded, to=ir.DataType.INT64), ints(1))

    def _real(self, value: ir.Value) -> ir.Value:
        return self._draft("Cast", value, to=ir.DataType.DOUBLE)

    def _scaled(self, image: ir.Value, size: ir.Value, wanted: ir.Value, method: str) -> ir.Value:
        draft = self._draft
        if method == "nearest":
            for axis in (0, 1):
                image = draft("Gather", image, self._nearest(size, wanted, axis), axis=2 + axis)
            return image
        channels = ints(1, self._steps.channels)
        rows_first = draft("Concat", self._one(size, 0), self._one(wanted, 1), axis=0)
        columns_first = draft("Concat", self._one(wanted, 0), self._one(size, 1), axis=0)
        shrinks = draft("Greater", size, wanted)
        lower = draft("And", self._one(shrinks, 0), draft("Not", self._one(shrinks, 1)))
        between = draft("Where", lower, columns_first, rows_first)
        for target in (between, wanted):
            sizes = draft("Concat", channels, target, axis=0)
            image = draft(
                "Resize",
                image,
                None,
                None,
                sizes,
                antialias=1,
                exclude_outside=1,
                coordinate_transformation_mode="half_pixel",
                **_RESIZE[method],
            )
        return image

    def _nearest(self, size: ir.Value, wanted: ir.Value, axis: int) -> ir.Value:
        """The pixel under the middle of the new one, found by adding up as Pillow does."""
        draft = self._draft
        old, new = self._one(size, axis), self._one(wanted, axis)
        step = draft("Div", self._real(old), self._real(new))
        steps = draft("Expand", step, draft("Sub", new, ints(1)))
        first = draft("Mul", step, np.array([0.5]))
        middles = draft("CumSum", draft("Concat", first, steps, axis=0), np.array(0, np.int64))
        return draft("Cast", draft("Floor", middles), to=ir.DataType.INT64)

    def _one(self, value: ir.Value, place: int) -> ir.Value:
        return self._draft("Slice", value, ints(place), ints(place + 1))

    def _cropped(self, image: ir.Value, size: ir.Value, crop: tuple[int, int]) -> ir.Value:
        draft = self._draft
        start = draft("Div", draft("Sub", size, ints(*crop)), ints(2))
        self._offset = draft("Add", self._offset, start)
        end = draft("Add", start, ints(*crop))
        return draft("Slice", image, start, end, ints(2, 3))

    def _normalized(self, image: ir.Value) -> ir.Value:
        """``(pixel * scale - mean) / std`` in float32, in the order of the arithmetic in Python."""
        draft, steps = self._draft, self._steps
        values = draft("Cast", image, to=ir.DataType.FLOAT)
        values = draft("Mul", values, np.array(steps.scale, np.float32))
        values = draft("Sub", values, _per_channel(steps.mean))
        values = draft("Div", values, _per_channel(steps.std))
        dtype = ir.DataType.from_numpy(np.dtype(steps.dtype))
        if dtype != ir.DataType.FLOAT:
            whole = np.dtype(steps.dtype).kind != "f"
            values = draft("Cast", draft("Round", values) if whole else values, to=dtype)
        if steps.layout == "NHWC":
            values = draft("Transpose", values, perm=[0, 2, 3, 1])
        if steps.size is None:
            return values
        height, width = steps.size
        shape = (1, steps.channels, height, width)
        # Fails where the image is smaller than the crop.
        return draft(
            "Reshape",
            values,
            ints(*(shape if steps.layout == "NCHW" else (1, height, width, steps.channels))),
        )


def _per_channel(value: float | tuple[float, ...]) -> NDArray[np.float32]:
    array = np.asarray(value, np.float32)
    return array if array.ndim == 0 else array.reshape(-1, 1, 1)


def _check(steps: ImageSteps, where: str) -> None:
    method = "nearest" if steps.resize is None else steps.resize.interpolation
    if method != "nearest" and method not in _RESIZE:
        code, text = "bundle.interpolation", f"a graph cannot resize by {method} as Pillow does"
        remedy = f"Say interpolation = nearest, {' or '.join(_RESIZE)}; calibrate with the same."
        raise DataError(code, text, where=where, remedy=remedy)
    dtype = np.dtype(steps.dtype)
    if dtype.kind == "f":
        return
    ends = np.array([[0.0], [255.0]]) * steps.scale
    made = np.rint((ends - np.atleast_1d(steps.mean)) / np.atleast_1d(steps.std))
    info = np.iinfo(dtype)
    if made.min() < info.min or made.max() > info.max:
        code = "bundle.dtype"
        text = f"pixels become {made.min():g} to {made.max():g}, which does not fit {dtype}"
        remedy = "For pixels as they are: scale = 1, mean = 0, std = 1."
        raise DataError(code, text, where=where, remedy=remedy)
