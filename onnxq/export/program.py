"""ExportedProgram files (``.pt2``), whose content `program_check` has seen."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from onnxq.errors import UsageError
from onnxq.export.archives import Kind, copied
from onnxq.export.qat import load_operators
from onnxq.export.quiet import quiet
from onnxq.export.source import one_line
from onnxq.export.spec import ExportSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Program(nn.Module):  # type: ignore[misc]
    """A program behind inputs in a row, of which it wants the last by name."""

    def __init__(self, program: nn.Module, named: tuple[str, ...]) -> None:
        """Wrap a program."""
        super().__init__()
        self.program = program
        self.named = named

    def forward(self, *tensors: Tensor) -> object:
        """Run it."""
        count = len(tensors) - len(self.named)
        return self.program(*tensors[:count], **dict(zip(self.named, tensors[count:], strict=True)))


def program_spec(path: Path) -> ExportSpec:
    """Load a program that was checked.

    Raises:
        UsageError: If it does not load, or its inputs are no tensors in a row.
    """
    where = str(path)
    try:
        with _restricted_unpickler(), copied(path, Kind.PROGRAM) as copy, quiet():
            load_operators()
            program = torch.export.load(copy)
    except Exception as error:
        text = f"PyTorch cannot load this program: {one_line(error)}"
        remedy = "write it again with torch.export.save, in the version of PyTorch installed here"
        raise UsageError(code="export.damaged", message=text, where=where, remedy=remedy) from error
    program._guards_code = []
    example = _example(program, where)
    axes: dict[str, dict[int, str]] = {name: {} for name in example}
    known: dict[str, str] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in example:
            for axis, length in enumerate(node.meta["val"].shape):
                if isinstance(length, torch.SymInt):
                    # A symbol's own name, "s77", says nothing: that of its first place does.
                    axes[node.name][axis] = known.setdefault(str(length), f"{node.name}_{axis}")
    named = tuple(example)[len(program.example_inputs[0]) :]
    return ExportSpec(Program(program.module(check_guards=False), named), example, axes)


def _example(program: Any, where: str) -> dict[str, Tensor]:
    positional, named = program.example_inputs or ((), {})
    values = (*positional, *named.values())
    names = program.graph_signature.user_inputs
    fits = len(values) == len(names) and all(isinstance(value, torch.Tensor) for value in values)
    if not values or not fits:
        text = "its example inputs are missing, or something else than tensors in a row"
        remedy = "export it with tensors as arguments"
        raise UsageError(code="export.bad_inputs", message=text, where=where, remedy=remedy)
    return dict(zip(names, values, strict=True))


@contextmanager
def _restricted_unpickler() -> Iterator[None]:
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
