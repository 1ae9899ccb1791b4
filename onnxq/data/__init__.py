"""Calibration and evaluation data, read one sample at a time.

``open_data`` turns what the user gave into a :class:`DataSource` that yields only samples that
fit the model; a :class:`Reading` says how images and texts become arrays; ``held_out`` keeps a
part of it away from calibration; ``load_labels`` and
``Labels`` carry the true classes along through any subset. A new kind of data is one
:class:`Reader` and one line in ``open.py``.
"""

from onnxq.data.labels import Labels, find_labels, load_labels, read_labels
from onnxq.data.open import DataLike, open_data
from onnxq.data.reading import Reading
from onnxq.data.sample import Sample, Signature, check_sample
from onnxq.data.source import DataSource, Reader, ReaderSource, check_all, checked
from onnxq.data.split import Split, held_out, limit, shared_samples

__all__ = [
    "DataLike",
    "DataSource",
    "Labels",
    "Reader",
    "ReaderSource",
    "Reading",
    "Sample",
    "Signature",
    "Split",
    "check_all",
    "check_sample",
    "checked",
    "find_labels",
    "held_out",
    "limit",
    "load_labels",
    "open_data",
    "read_labels",
    "shared_samples",
]
