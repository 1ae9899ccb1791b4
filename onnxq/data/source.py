"""Sources: samples that stream, in one order, as often as asked.

A :class:`Reader` knows one kind of data and reads the sample at an index. A
:class:`ReaderSource` is a reader and a list of indices; a subset is another list of indices.
Nothing keeps a sample: one is in memory at a time.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from onnxq.data.fill import Filler
from onnxq.data.sample import check_sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxq.data.sample import Sample, Signature


@runtime_checkable
class DataSource(Protocol):
    """A list of samples that is never in memory as a whole."""

    @property
    def name(self) -> str:
        """What a message calls it: the path as given, or what kind of object it was."""
        ...

    @property
    def positions(self) -> Sequence[int]:
        """For each sample its place in the original data, to which labels refer."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how the samples read so far came to be, in sentences."""
        ...

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def __iter__(self) -> Iterator[Sample]:
        """The samples in order, the same each time."""
        ...

    def digest(self) -> str:
        """``sha256:...`` over the contents and, in a subset, the choice."""
        ...

    def subset(self, indices: Sequence[int]) -> DataSource:
        """The samples at these indices of this source, in the order given."""
        ...


class Reader(ABC):
    """One kind of data: knows its length and reads the sample at an index."""

    def __init__(self, name: str) -> None:
        """Keep the name that messages use."""
        self.name = name
        self._digest = ""
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, cut or assumed so far, in sentences."""
        return tuple(self._notes)

    def note(self, text: str) -> None:
        """Remember what the user should know; once, however often it is said."""
        self._notes[text] = None

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are; at least one."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """The sample at ``index``, read afresh.

        Raises:
            DataError: It cannot be read.
        """

    def digest(self) -> str:
        """``sha256:...`` over the contents, computed once."""
        if not self._digest:
            hasher = hashlib.sha256()
            self._feed(hasher)
            self._digest = f"sha256:{hasher.hexdigest()}"
        return self._digest

    def _feed(self, hasher: hashlib._Hash) -> None:
        """Hash the contents; by default every array of every sample."""
        for index in range(len(self)):
            for name, array in sorted(self.read(index).feeds.items()):
                hasher.update(f"{index}\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
                hasher.update(np.ascontiguousarray(array).tobytes())


class ReaderSource:
    """The samples of a reader, or some of them."""

    def __init__(self, reader: Reader, positions: Sequence[int] | None = None) -> None:
        """Take all samples of ``reader``, or those at ``positions``."""
        self._reader = reader
        self._positions = range(len(reader)) if positions is None else tuple(positions)

    @property
    def name(self) -> str:
        """The reader's name."""
        return self._reader.name

    @property
    def positions(self) -> Sequence[int]:
        """Indices into the reader."""
        return self._positions

    @property
    def notes(self) -> tuple[str, ...]:
        """The reader's notes."""
        return self._reader.notes

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._positions)

    def __iter__(self) -> Iterator[Sample]:
        """Read one sample after the other."""
        return (self._reader.read(position) for position in self._positions)

    def digest(self) -> str:
        """The reader's digest; for a subset, a digest of that and the positions."""
        whole = self._reader.digest()
        if tuple(self._positions) == tuple(range(len(self._reader))):
            return whole
        hasher = hashlib.sha256(whole.encode())
        hasher.update(np.asarray(self._positions, dtype="<i8").tobytes())
        return f"sha256:{hasher.hexdigest()}"

    def subset(self, indices: Sequence[int]) -> ReaderSource:
        """Another choice from the same reader."""
        return ReaderSource(self._reader, [self._positions[index] for index in indices])


class _CheckedSource:
    """A source whose samples are completed and checked as they pass."""

    def __init__(self, source: DataSource, signature: Signature, filler: Filler) -> None:
        self._source = source
        self._signature = signature
        self._filler = filler

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def positions(self) -> Sequence[int]:
        return self._source.positions

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self._source.notes, *self._filler.notes)

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Sample]:
        return (check_sample(self._filler(sample), self._signature) for sample in self._source)

    def digest(self) -> str:
        return self._source.digest()

    def subset(self, indices: Sequence[int]) -> DataSource:
        return _CheckedSource(self._source.subset(indices), self._signature, self._filler)


def checked(source: DataSource, signature: Signature) -> DataSource:
    """The same source, yielding only samples that fit the model, in the model's input order.

    Inputs that the data leaves out are filled where one value is sensible; ``notes`` says so.

    Raises:
        DataError: While iterating, at the first sample that does not fit.
    """
    return _CheckedSource(source, signature, Filler(signature))


def check_all(source: DataSource) -> None:
    """Go through all samples once, so that a bad one is known before the work begins.

    Costs one reading of the data, of which the work itself needs several, and no memory.

    Raises:
        DataError: A sample cannot be read or does not fit.
    """
    for _ in source:
        pass
