"""Readers of Python objects that give dicts of arrays.

A sequence (``len`` and integer ``[]``: a list, a map-style dataset) is read by index. Anything
else, generators and data loaders alike, is gone through once and written to a private temporary
folder: a loader that shuffles gives another order each time, and the held-out samples would not
stay held out.
"""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from onnxq.data.arrays import read_npz, write_npz
from onnxq.data.sample import Sample, check_sample
from onnxq.data.source import Reader
from onnxq.errors import DataError
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.data.sample import Signature


@runtime_checkable
class _Sized(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class SequenceReader(Reader):
    """Samples that a Python sequence gives by index."""

    def __init__(self, name: str, samples: _Sized) -> None:
        """Refuse an empty sequence.

        Raises:
            DataError: It is empty.
        """
        super().__init__(name)
        self._samples = samples
        if len(samples) == 0:
            raise _nothing(name)

    def __len__(self) -> int:
        """The sequence's length."""
        return len(self._samples)

    def read(self, index: int) -> Sample:
        """The dict at ``index`` as arrays."""
        return to_sample(f"sample {index}", self._samples[index])


class SpooledReader(Reader):
    """Samples of an iterable, kept in a temporary folder until this reader is gone."""

    def __init__(self, name: str, samples: Iterable[object], signature: Signature) -> None:
        """Go through the iterable once, checking and writing each sample.

        Raises:
            DataError: There is no sample, one does not fit the model, or they would take more
                than half of the free disk space (an endless generator, say).
        """
        super().__init__(name)
        scratch = Scratch()
        self._folder = scratch.path
        self._finalizer = weakref.finalize(self, scratch.close)
        self._count = 0
        try:
            self._spool(samples, signature)
        except BaseException:
            self.close()
            raise
        if self._count == 0:
            self.close()
            raise _nothing(name)

    def _spool(self, samples: Iterable[object], signature: Signature) -> None:
        room = shutil.disk_usage(self._folder).free // 2
        for value in samples:
            sample = check_sample(to_sample(f"sample {self._count}", value), signature)
            _refuse_unstorable(sample)
            room -= sum(array.nbytes for array in sample.feeds.values())
            if room < 0:
                code = "data.too_large"
                text = f"{self._count} samples fill half of the free space in {self._folder.parent}"
                remedy = "Give fewer samples, a folder of .npz files, or a list."
                raise DataError(code, text, where=self.name, remedy=remedy)
            write_npz(self._path(self._count), sample.feeds)
            self._count += 1

    def _path(self, index: int) -> Path:
        return self._folder / f"{index}.npz"

    def __len__(self) -> int:
        """The number of samples that came."""
        return self._count

    def read(self, index: int) -> Sample:
        """One sample, from the temporary folder."""
        return Sample(f"sample {index}", read_npz(self._path(index)))

    def close(self) -> None:
        """Remove the temporary folder."""
        self._finalizer()


def open_iterable(samples: Iterable[Mapping[str, object]], signature: Signature) -> Reader:
    """A reader of dicts of arrays.

    Raises:
        DataError: It is empty, a single dict, or (when it has to be spooled) a sample is wrong.
    """
    name = f"Python {type(samples).__name__}"
    if isinstance(samples, Mapping):
        code, text = "data.not_samples", "one dict is one sample, not a list of samples"
        raise DataError(code, text, where=name, remedy="Put it in a list: [sample].")
    if isinstance(samples, _Sized):
        return SequenceReader(name, samples)
    return SpooledReader(name, samples, signature)


def to_sample(name: str, value: object) -> Sample:
    """Arrays from one item of an iterable.

    Args:
        name: What to call the sample.
        value: A mapping of input names to arrays, or to what ``numpy.asarray`` understands.

    Raises:
        DataError: It is no mapping, or a value is no array of numbers or strings.
    """
    if not isinstance(value, Mapping):
        code = "data.not_a_mapping"
        text = f"a sample should be a dict of arrays by input name, not a {type(value).__name__}"
        remedy = "Yield {input name: array}; labels go in a file or array of their own."
        raise DataError(code, text, where=name, remedy=remedy)
    return Sample(name, {str(key): _to_array(name, str(key), item) for key, item in value.items()})


def _to_array(name: str, key: str, value: object) -> NDArray[Any]:
    where = f"{name}, input {key!r}"
    try:
        array: NDArray[Any] = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        code = "data.not_an_array"
        text = f"a {type(value).__name__} that numpy cannot make an array of"
        remedy = "Give a numpy array; for a tensor, tensor.detach().cpu().numpy()."
        raise DataError(code, text, where=where, remedy=remedy) from error
    if not array.dtype.hasobject:
        return array
    if all(isinstance(item, str) for item in array.flat):
        return array.astype(np.str_)
    code, text = "data.not_an_array", f"a {type(value).__name__} of Python objects, not of numbers"
    raise DataError(code, text, where=where, remedy="Give a numpy array.")


def _refuse_unstorable(sample: Sample) -> None:
    for key, array in sample.feeds.items():
        if array.dtype.kind == "V":
            code, text = "data.dtype", f"{array.dtype} arrays cannot be written to a temporary file"
            where = f"{sample.name}, input {key!r}"
            raise DataError(code, text, where=where, remedy="Give the samples as a list.")


def _nothing(name: str) -> DataError:
    text = "it gives no sample"
    remedy = "Give at least one sample; a generator that was gone through before is empty."
    return DataError("data.empty", text, where=name, remedy=remedy)
