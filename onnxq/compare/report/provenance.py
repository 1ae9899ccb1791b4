"""How to measure the same again: the command, the files by digest, the machine, the versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxq._version import __version__
from onnxq.graph.io import digest
from onnxq.runtime.machine import inspect_machine, versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from onnxq.data import DataSource
    from onnxq.runtime.machine import Machine


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a comparison was made of.

    Attributes:
        command: The command line; empty for a comparison made in Python.
        models: Each model's digest, which is that of what it computes, not of its bytes.
        data: What the data is called.
        data_digest: The digest of the samples.
        onnxq: This version.
        versions: Versions of the packages that decide a result.
        machine: The machine.
    """

    command: str
    models: Mapping[Path, str]
    data: str
    data_digest: str
    onnxq: str
    versions: Mapping[str, str]
    machine: Machine


def provenance(
    models: Sequence[tuple[Path, ir.Model]], data: DataSource, command: str
) -> Provenance:
    """Gather it; reads every weight once, for the digests."""
    return Provenance(
        command=command,
        models={path: digest(model) for path, model in models},
        data=data.name,
        data_digest=data.digest(),
        onnxq=__version__,
        versions=versions(),
        machine=inspect_machine(),
    )
