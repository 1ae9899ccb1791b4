"""Turns an image upright in the graph, as EXIF says: cameras store pixels as the sensor has them.

The decoder of onnxruntime-extensions leaves that out, calibration (:mod:`onnxq.data.decode`) does
it. The orientation is a number of 1 to 8 (EXIF 2.32, 4.6.4) in the first directory of a TIFF
structure, which lies behind ``Exif`` and two NULs in a JPEG, behind ``eXIf`` in a PNG:

================  =================================================================
``II`` or ``MM``  whether numbers begin with their lowest byte or their highest
42                two bytes
place             of the directory, counted from ``II``; four bytes
directory         two bytes: how many entries; then twelve bytes each: the tag, the
                  type (3: two bytes), a count, the value
================  =================================================================

What is damaged or lies outside of the bytes counts as upright.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from onnxq.bundle.draft import ints

if TYPE_CHECKING:
    from onnxq.bundle.draft import Draft

HEAD: Final = 256 << 10
"""Bytes in which EXIF begins; a profile of colours may stand before it."""

_MARKS: Final = (b"Exif\0\0", b"eXIf")
_TAG: Final = 0x0112
_SHORT: Final = 3
_ENTRY: Final = 12
_LAST: Final = np.iinfo(np.int64).max

_STEPS: Final = np.array(
    [[1, 1], [1, 1], [1, -1], [-1, -1], [-1, 1], [1, 1], [-1, 1], [-1, -1], [1, -1]], np.int64
)
"""By orientation, 0 for none: in which direction rows and columns are gone through."""
_FIRST_TURNED: Final = 5
"""From this orientation on rows become columns, after they were gone through so."""


def upright(draft: Draft, data: ir.Value, image: ir.Value) -> ir.Value:
    """The image as it was seen.

    Args:
        draft: Where to write.
        data: Its bytes, uint8 ``[bytes]``.
        image: Its pixels as they are stored, ``[height, width, channels]``.
    """
    orientation = _Exif(draft, data).orientation()
    step = draft("Gather", _STEPS, orientation)
    # Backwards from the last to before the first, which no number but the least of all says.
    backwards = draft("Less", step, ints(0))
    start = draft("Where", backwards, ints(-1), ints(0))
    end = draft("Where", backwards, ints(-_LAST), ints(_LAST))
    turned = draft("Greater", orientation, np.array(1, np.int64))
    image = draft.where(turned, "Slice", image, start, end, ints(0, 1), step)
    across = draft("GreaterOrEqual", orientation, np.array(_FIRST_TURNED, np.int64))
    return draft.where(across, "Transpose", image, perm=[1, 0, 2])


class _Exif:
    """Reads numbers out of the bytes."""

    def __init__(self, draft: Draft, data: ir.Value) -> None:
        self._draft = draft
        self._data = data
        self._end = draft("Sub", draft("Shape", data), ints(1))
        self._start, self._found = self._structure()
        order = self._bytes(self._start, 2)
        self._little = self._all(draft("Equal", order, ints(*b"II")))
        self._known = draft("Or", self._little, self._all(draft("Equal", order, ints(*b"MM"))))

    def orientation(self) -> ir.Value:
        """int64 scalar of 0 to 8, 0 where nothing is said."""
        draft, start = self._draft, self._start
        magic = self._number(draft("Add", start, ints(2)), 2)
        directory = draft("Add", start, self._number(draft("Add", start, ints(4)), 4))
        count = self._number(directory, 2)
        room = draft("Div", draft("Sub", self._end, directory), ints(_ENTRY))
        count = draft("Squeeze", draft("Max", draft("Min", count, room), ints(1)))
        places = draft("Range", np.array(0, np.int64), count, np.array(1, np.int64))
        entries = draft("Mul", places, ints(_ENTRY))
        entries = draft("Add", draft("Add", entries, directory), ints(2))
        tags, types, values = (
            self._number(draft("Add", entries, ints(offset)), 2) for offset in (0, 2, 8)
        )
        fits = draft("And", draft("Equal", tags, ints(_TAG)), draft("Equal", types, ints(_SHORT)))
        whole = draft("LessOrEqual", draft("Add", entries, ints(_ENTRY - 1)), self._end)
        fits = draft("And", fits, whole)
        # Of several the last counts, as in Pillow.
        number = draft("Cast", fits, to=ir.DataType.INT64)
        place = draft("ArgMax", number, axis=0, keepdims=1, select_last_index=1)
        value = draft("Gather", values, place)
        sound = draft("And", self._found, self._known)
        sound = draft("And", sound, draft("Equal", magic, ints(42)))
        sound = draft("And", sound, draft("Gather", fits, place))
        sound = draft("And", sound, draft("Less", value, ints(len(_STEPS))))
        return draft("Squeeze", draft("Where", sound, value, ints(0)))

    def _structure(self) -> tuple[ir.Value, ir.Value]:
        """Where the first one begins, ``[1]``, and whether there is one, ``[1]``."""
        draft = self._draft
        head = draft("Slice", self._data, ints(0), ints(HEAD))
        head = draft("Cast", head, to=ir.DataType.INT32)
        # So that each pattern fits behind the last byte.
        head = draft("Pad", head, ints(0, max(map(len, _MARKS))), np.array(0, np.int32))
        (jpeg, is_jpeg), (png, is_png) = (self._behind(head, mark) for mark in _MARKS)
        return draft("Where", is_jpeg, jpeg, png), draft("Or", is_jpeg, is_png)

    def _behind(self, head: ir.Value, mark: bytes) -> tuple[ir.Value, ir.Value]:
        draft = self._draft
        count = draft("Sub", draft("Shape", head), ints(len(mark)))
        equal = [
            draft(
                "Equal",
                draft("Slice", head, ints(offset), draft("Add", count, ints(offset))),
                np.array([byte], np.int32),
            )
            for offset, byte in enumerate(mark)
        ]
        matches = reduce(lambda one, other: draft("And", one, other), equal)
        number = draft("Cast", matches, to=ir.DataType.INT32)
        place = draft("ArgMax", number, axis=0, keepdims=1)
        here = draft("Gather", matches, place)
        return draft("Add", place, ints(len(mark))), here

    def _bytes(self, places: ir.Value, width: int) -> ir.Value:
        """int64 ``[places, width]``; beyond the end the last byte."""
        draft = self._draft
        column = draft("Unsqueeze", places, ints(1))
        at = draft("Min", draft("Add", column, ints(*range(width))), self._end)
        found = draft("Gather", self._data, at)
        return draft("Cast", found, to=ir.DataType.INT64)

    def _number(self, places: ir.Value, width: int) -> ir.Value:
        """int64 ``[places]``."""
        draft = self._draft
        rising = [1 << 8 * place for place in range(width)]
        weights = draft("Where", self._little, ints(*rising), ints(*reversed(rising)))
        return draft(
            "ReduceSum", draft("Mul", self._bytes(places, width), weights), ints(1), keepdims=0
        )

    def _all(self, given: ir.Value) -> ir.Value:
        """Whether all of a row are true, ``[1]``."""
        draft = self._draft
        number = draft("Cast", given, to=ir.DataType.INT64)
        least = draft("ReduceMin", number, ints(1), keepdims=0)
        return draft("Equal", least, ints(1))
