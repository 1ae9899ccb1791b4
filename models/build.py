"""Builds the models that are not committed, with samples of real data, into ``models/.cache``.

Run from the repository root::

    python -m models.build NAME...      # or: all
    python -m models.build --list
    python -m models.build --force NAME

``models/.cache/NAME`` then holds ``model.onnx``; ``calibration/`` and ``evaluation/`` with one
``.npz`` a sample (``calibration.npy`` and ``evaluation.npy`` for fashion_resnet, a row a sample);
``labels.npy`` or ``labels.txt``, one for each evaluation sample in the order of their names, where
there are labels; ``similarity/`` with what people judged of texts for minilm; ``tokenizer.json`` of
a language model; and ``SOURCE.json``: packages, versions, licences, and the SHA-256 of all that was
read and written. A model is built again only if a package's version, a file that was read or the
building code changed. A build that fails leaves what was there.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.packages import MissingPackageError, package_version
from onnxq.errors import OnnxqError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from models.source import ModelSource

MODELS: Final = Path(__file__).parent
CACHE: Final = MODELS / ".cache"
SOURCE_FILE: Final = "SOURCE.json"


def names() -> list[str]:
    """Return the models that can be built: the folders with a ``build.py``."""
    return sorted(path.parent.name for path in MODELS.glob("*/build.py"))


def find(name: str) -> ModelSource:
    """Return what a model's ``build.py`` declares.

    Raises:
        MissingPackageError: If a package that it imports is not installed.
    """
    try:
        source: ModelSource = importlib.import_module(f"models.{name}.build").SOURCE
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        package = "pillow" if module == "PIL" else module.replace("_", "-")
        msg = f"needs the package {package}: pip install {package}"
        raise MissingPackageError(msg) from error
    return source


def build(source: ModelSource, *, cache: Path = CACHE, force: bool = False) -> tuple[Path, bool]:
    """Build a model unless the cache holds it, made from the same.

    Returns:
        The model's folder in the cache, and whether it was built now.

    Raises:
        MissingPackageError: If a package is not installed.
    """
    made_from = _made_from(source)
    folder = cache / source.name
    if not force and _is_current(folder, made_from):
        return folder, False
    cache.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{source.name}-", dir=cache))
    try:
        source.write(staging)
        written = {
            "written": {str(p.relative_to(staging)): _entry(p) for p in _files(staging)},
        }
        text = json.dumps({**made_from, **written}, indent=1, ensure_ascii=False)
        (staging / SOURCE_FILE).write_text(text + "\n", encoding="utf-8")
        staging.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder, True


def _made_from(source: ModelSource) -> dict[str, Any]:
    """Return all that the result depends on; equal means: no need to build."""
    origins = [
        {"package": o.package, "version": _version(o.package), "licence": o.licence, "what": o.what}
        for o in source.origins
    ]
    shared = ("fashion_mnist_files", "images", "packages", "source", "texts")
    code = [
        MODELS / source.name,
        MODELS.parent / "onnxq" / "export",
        *(MODELS / f"{name}.py" for name in shared),
    ]
    return {
        "name": source.name,
        "origins": origins,
        "tools": {tool: package_version(tool) for tool in source.tools},
        "code_sha256": _digest(p for path in code for p in _files(path) if p.suffix == ".py"),
        "read": {_short(path): _read_entry(path) for path in source.reads()},
    }


def _version(package: str) -> str:
    """Return the version of a Python package; Debian's are pinned by their files' SHA-256."""
    return "" if package.startswith("apt:") else package_version(package)


def _read_entry(path: Path) -> dict[str, Any]:
    return _entry(path) if path.is_file() else {"sha256": _digest(_files(path))}


def _is_current(folder: Path, made_from: dict[str, Any]) -> bool:
    try:
        found = json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))
        written = found.pop("written")
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    return found == made_from and all(
        (folder / name).is_file() and (folder / name).stat().st_size == entry["bytes"]
        for name, entry in written.items()
    )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return sorted(found)


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {_entry(path)['sha256']}\n".encode())
    return digest.hexdigest()


def _short(path: Path) -> str:
    """Return a path without the folder that packages, or this repository, lie in."""
    if path.is_relative_to(MODELS.parent) and "site-packages" not in path.parts:
        return str(path.relative_to(MODELS.parent))
    parts = path.parts
    start = parts.index("site-packages") + 1 if "site-packages" in parts else 0
    return str(Path(*parts[start:]))


def _list() -> None:
    for name in names():
        state = "built" if (CACHE / name / SOURCE_FILE).is_file() else "not built"
        readme = (MODELS / name / "README.md").read_text(encoding="utf-8")
        sys.stdout.write(f"{name:20} {state:10} {readme.splitlines()[0].lstrip('# ')}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and build; return the exit status: 0, or 2 if something is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m models.build", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a model, or all")
    parser.add_argument("--list", action="store_true", help="list the models and their state")
    parser.add_argument("--force", action="store_true", help="build even if nothing changed")
    options = parser.parse_args(arguments)
    if options.list:
        _list()
        return 0
    wanted = names() if options.names == ["all"] else options.names
    unknown = [name for name in wanted if name not in names()]
    if unknown or not wanted:
        parser.error(f"name one of: all, {', '.join(names())}")
    return max(_build_one(name, options.force) for name in wanted)


def _build_one(name: str, force: bool) -> int:
    start = time.monotonic()
    try:
        folder, built = build(find(name), force=force)
    except (MissingPackageError, OnnxqError) as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 2
    seconds = time.monotonic() - start
    sys.stdout.write(f"{folder}: {f'built in {seconds:.0f} s' if built else 'nothing changed'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
