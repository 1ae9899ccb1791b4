"""The calibration table that ONNX Runtime's TensorRT provider reads.

TensorRT before explicit Q/DQ, and models without any, get their INT8 ranges from a table: for each
tensor by name the magnitude that 127 stands for. The provider (``ReadDynamicRange``) reads a
flatbuffer of this schema, and the value by ``std::stof``::

    table KeyValue { key:string; value:string; }
    table TrtTable { dict:[KeyValue]; }

The peer's writer (``onnxruntime.quantization.write_calibration_table``) puts the greater bound
where the magnitude belongs, so that what is mostly negative saturates; here it is the magnitude.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flatbuffers
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

_LEAST = float(np.finfo(np.float32).tiny)
"""``std::stof`` throws at what is smaller."""


def table_bytes(magnitudes: Mapping[str, float]) -> bytes:
    """The table as a flatbuffer.

    Args:
        magnitudes: Greatest magnitude of each tensor, finite, by its name.
    """
    builder = flatbuffers.Builder(1024)
    entries = []
    for name in sorted(magnitudes):
        key = builder.CreateString(name)
        magnitude = float(np.float32(max(magnitudes[name], _LEAST)))
        value = builder.CreateString(str(magnitude))
        builder.StartObject(2)
        builder.PrependUOffsetTRelativeSlot(0, key, 0)
        builder.PrependUOffsetTRelativeSlot(1, value, 0)
        entries.append(builder.EndObject())
    builder.StartVector(4, len(entries), 4)
    for entry in entries:
        builder.PrependUOffsetTRelative(entry)
    content = builder.EndVector()
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, content, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())
