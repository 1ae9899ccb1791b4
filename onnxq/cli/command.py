"""Makes a click command of a function that takes its options as one typed object."""

from __future__ import annotations

from contextlib import nullcontext
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxq.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from onnxq.cli.outcome import Outcome

Arguments = TypeVar("Arguments")

_WRITTEN = ("output", "report", "calibration_table")
"""The parameters that name a file to write."""

_READ = (
    *(".npz", ".npy", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".txt", ".csv", ".jsonl", ".parquet", ".safetensors", ".bin", ".model", ".py"),
    *("config.json", "tokenizer.json", "vocab.json", "map.json", "index.json", "modules.json"),
)
"""Endings of what is read of a folder, of samples or a checkpoint's; not of what an earlier run may
have left there: a model, statistics, a report."""


def command(
    run: Callable[[Arguments], Outcome],
    arguments: type[Arguments],
    parameters: Sequence[click.Parameter],
) -> click.Command:
    """A command named like ``run``; ``--json`` and ``--debug`` come with it.

    Where ``parameters`` holds ``--custom-ops``, ``--provider-option`` and ``--engine-cache``, the
    command runs with those libraries, options and that folder in use.

    Args:
        run: The command; its docstring is the help.
        arguments: A dataclass with a field for each parameter.
        parameters: What the command line takes.
    """

    def callback(
        custom_ops: tuple[str, ...] = (),
        provider_option: tuple[str, ...] = (),
        engine_cache: Path | None = None,
        **given: Any,
    ) -> Outcome:
        _keep_inputs(given)
        _hush_runtime()
        with (
            _with_libraries(custom_ops),
            _with_options(provider_option),
            _with_engine_cache(engine_cache),
        ):
            return run(arguments(**given))

    text = getdoc(run) or ""
    return click.Command(
        run.__name__,
        callback=callback,
        params=[*parameters, *_everywhere()],
        help=text,
        short_help=text.partition("\n")[0],
    )


def _keep_inputs(given: Mapping[str, Any]) -> None:
    """Refuse to write over a file that is read: data, labels, a recipe, a tokenizer.

    Models are not among them: the work itself refuses that, their weights' files included.
    """
    outputs = [Path(given[name]) for name in _WRITTEN if given.get(name) is not None]
    for name, value in given.items():
        if name in {*_WRITTEN, "model", "models", "source"} or not isinstance(value, str | Path):
            continue
        for output in outputs:
            if _reads(Path(value), output):
                code, text = (
                    "usage.replaces_input",
                    f"the result would replace what {_option(name)} reads",
                )
                raise UsageError(code, text, where=str(output), remedy="write to another file")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _reads(given: Path, output: Path) -> bool:
    """Whether a path that is read is a file to be written, or a folder that holds it."""
    try:
        if not output.is_file():
            return False
        if not given.is_dir():
            return output.samefile(given)
        inside = any(given.samefile(parent) for parent in output.absolute().parents)
        return inside and output.name.lower().endswith(_READ)
    except (OSError, ValueError):
        # It does not exist, or is no path: a choice, say.
        return False


def _hush_runtime() -> None:
    """What ONNX Runtime would write to the console is told as an error anyway."""
    from onnxq.runtime.providers import hush

    hush()


def _with_libraries(libraries: tuple[str, ...]) -> AbstractContextManager[None]:
    """The libraries of custom operators in use; without one nothing is imported."""
    if not libraries:
        return nullcontext()
    from onnxq.runtime.custom_ops import custom_ops

    return custom_ops(libraries)


def _with_options(texts: tuple[str, ...]) -> AbstractContextManager[None]:
    """Options of execution providers in use; without one nothing is imported."""
    if not texts:
        return nullcontext()
    from onnxq.runtime.provider_options import parse_options, provider_options

    return provider_options(parse_options(texts))


def _with_engine_cache(folder: Path | None) -> AbstractContextManager[None]:
    """A folder for TensorRT's engines in use; without one nothing is imported."""
    if folder is None:
        return nullcontext()
    from onnxq.runtime.engine_cache import engine_cache

    return engine_cache(folder)


def _everywhere() -> tuple[click.Option, ...]:
    # Both are looked for before parsing, because they also say how its errors are told.
    return (
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            help="Print one JSON object on standard output, on failure too.",
        ),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error."
        ),
    )
