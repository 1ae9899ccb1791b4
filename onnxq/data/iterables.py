"""Readers of Python objects.

========================  =========================================================================
iterable of dicts         arrays by input name, batch dimension included
torch ``DataLoader``      dicts by name, tuples in the order of the inputs; labels are left out
``datasets.Dataset``      rows: columns by input name, texts, images; other columns are left out
``CalibrationDataReader``  what ``get_next`` gives until it gives None, from the beginning
========================  =========================================================================

A sequence (``len`` and integer ``[]``: a list, a map-style dataset) is read by index. Anything
else, generators and data loaders alike, is gone through once and written to a private temporary
folder: a loader that shuffles gives another order each time, and the held-out samples would not
stay held out.
"""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from onnxq.data.arrays import read_npz, write_npz
from onnxq.data.fill import Filler
from onnxq.data.rows import RowMapper
from onnxq.data.sample import Sample, check_sample
from onnxq.data.source import Reader
from onnxq.errors import DataError
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.data.sample import Signature
    from onnxq.data.steps import Steps


Note = Callable[[str], None]
Convert = Callable[[object, str, Note], Sample]
"""From an item and its name to a sample; notes what was left out."""


@runtime_checkable
class _Sized(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class SequenceReader(Reader):
    """Samples that a Python sequence gives by index."""

    def __init__(self, name: str, samples: _Sized, convert: Convert) -> None:
        """Refuse an empty sequence.

        Args:
            name: What messages call it.
            samples: Its items.
            convert: Makes a sample of an item.

        Raises:
            DataError: It is empty.
        """
        super().__init__(name)
        self._samples = samples
        self._convert = convert
        if len(samples) == 0:
            raise _nothing(name)

    def __len__(self) -> int:
        """The sequence's length."""
        return len(self._samples)

    def read(self, index: int) -> Sample:
        """The item at ``index`` as arrays."""
        return self._convert(self._samples[index], f"sample {index}", self.note)


class SpooledReader(Reader):
    """Samples of an iterable, kept in a temporary folder until this reader is gone."""

    def __init__(
        self, name: str, samples: Iterable[object], signature: Signature, convert: Convert
    ) -> None:
        """Go through the iterable once, checking and writing each sample.

        Args:
            name: What messages call it.
            samples: Its items.
            signature: The model's inputs.
            convert: Makes a sample of an item.

        Raises:
            DataError: There is no sample, one does not fit the model, or they would take more
                than half of the free disk space (an endless generator, say).
        """
        super().__init__(name)
        scratch = Scratch()
        self._folder = scratch.path
        self._finalizer = weakref.finalize(self, scratch.close)
        self._count = 0
        self._convert = convert
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
        filler = Filler(signature)
        for value in samples:
            sample = self._convert(value, f"sample {self._count}", self.note)
            check_sample(filler(sample), signature)
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


def open_object(source: Any, signature: Signature, steps: Steps) -> Reader:
    """A reader of a Python object.

    Raises:
        DataError: It is of no known kind, empty, a single dict, or (when it has to be spooled) a
            sample is wrong.
    """
    name = f"Python {type(source).__name__}"
    if isinstance(source, Mapping) and not _is_dataset(source):
        code, text = "data.not_samples", "one dict is one sample, not a list of samples"
        raise DataError(code, text, where=name, remedy="Put it in a list: [sample].")
    if callable(getattr(source, "get_next", None)):
        return _spool_reader(name, source, signature)
    if not isinstance(source, Iterable) and not isinstance(source, _Sized):
        code, text = "data.unknown_form", f"a {type(source).__name__} is no data"
        remedy = "Give an iterable of dicts of arrays, a DataLoader, a Dataset or a path."
        raise DataError(code, text, remedy=remedy)
    convert: Convert = _from_dict
    if _is_dataset(source):
        convert = _FromRow(signature, steps)
    elif _is_loader(source):
        convert = _FromBatch(signature)
    if isinstance(source, _Sized):
        return SequenceReader(name, source, convert)
    return SpooledReader(name, source, signature, convert)


def _is_loader(source: object) -> bool:
    """Whether it is PyTorch's ``DataLoader``, without importing PyTorch."""
    return any(
        kind.__name__ == "DataLoader" and kind.__module__.startswith("torch.utils.data")
        for kind in type(source).__mro__
    )


def _is_dataset(source: object) -> bool:
    """Whether it is a ``datasets.Dataset``, or one that streams: both know their columns."""
    return hasattr(source, "column_names") and hasattr(source, "features")


def _spool_reader(name: str, source: Any, signature: Signature) -> Reader:
    rewind = getattr(source, "rewind", None)
    if callable(rewind):
        rewind()
    spooled = SpooledReader(name, iter(source.get_next, None), signature, _from_dict)
    if callable(rewind):
        rewind()
    return spooled


def _from_dict(value: object, where: str, _: Note) -> Sample:
    return to_sample(where, value)


class _FromRow:
    """Items of a data set: one row each, without a batch dimension."""

    def __init__(self, signature: Signature, steps: Steps) -> None:
        self._mapper = RowMapper(signature, steps, typed=True)

    def __call__(self, value: object, where: str, note: Note) -> Sample:
        if not isinstance(value, Mapping):
            raise _no_mapping(where, value)
        return self._mapper(value, where, note)


class _FromBatch:
    """Batches of a data loader: dicts by name, tuples in the order of the inputs."""

    def __init__(self, signature: Signature) -> None:
        self._inputs = [spec.name for spec in signature]
        self._required = [spec.name for spec in signature if spec.required] or self._inputs

    def __call__(self, value: object, where: str, note: Note) -> Sample:
        if isinstance(value, Mapping):
            return to_sample(where, self._known(value, note))
        batch = list(value) if isinstance(value, tuple | list) else [value]
        if len(self._required) == 1 and len(batch) == 2:
            note("the second element of each batch (labels) is left out: the model has one input")
            batch = batch[:1]
        if len(batch) != len(self._required):
            code = "data.batch"
            text = f"a batch of {len(batch)} elements, the model has {len(self._required)} inputs"
            remedy = f"Give dicts by name: {', '.join(map(repr, self._required))}."
            raise DataError(code, text, where=where, remedy=remedy)
        return to_sample(where, dict(zip(self._required, batch, strict=True)))

    def _known(self, value: Mapping[object, object], note: Note) -> Mapping[object, object]:
        unused = [key for key in value if key not in self._inputs]
        if unused:
            names = ", ".join(map(repr, unused))
            note(f"{names} of each batch left out: the model has no such input")
        return {key: item for key, item in value.items() if key in self._inputs}


def to_sample(name: str, value: object) -> Sample:
    """Arrays from one item of an iterable.

    Args:
        name: What to call the sample.
        value: A mapping of input names to arrays, or to what ``numpy.asarray`` understands.

    Raises:
        DataError: It is no mapping, or a value is no array of numbers or strings.
    """
    if not isinstance(value, Mapping):
        raise _no_mapping(name, value)
    return Sample(name, {str(key): _to_array(name, str(key), item) for key, item in value.items()})


def _no_mapping(where: str, value: object) -> DataError:
    text = f"a sample should be a dict of arrays by input name, not a {type(value).__name__}"
    remedy = (
        "Yield {input name: array}; labels go in a file or array of their own, and items of "
        "PyTorch's data sets through a DataLoader."
    )
    return DataError("data.not_a_mapping", text, where=where, remedy=remedy)


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
