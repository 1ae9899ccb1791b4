"""Files inside installed packages, found without importing the packages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


class MissingPackageError(Exception):
    """A package that a model is built from is not installed; the text says what to do."""


def package_version(package: str) -> str:
    """Return the version of an installed package.

    Raises:
        MissingPackageError: If it is not installed.
    """
    try:
        return distribution(package).version
    except PackageNotFoundError as error:
        msg = f"needs the package {package}: pip install {package}"
        raise MissingPackageError(msg) from error


def package_file(package: str, path: str) -> Path:
    """Return the location of a file or folder of an installed package.

    Args:
        package: The distribution's name, such as ``"scikit-image"``.
        path: Relative to the folder that the package is installed in: ``"skimage/data/coins.png"``.

    Raises:
        MissingPackageError: If the package is not installed or has no such file.
    """
    package_version(package)
    located = Path(str(distribution(package).locate_file(path)))
    if not located.exists():
        msg = f"needs {path} of the package {package}: pip install --force-reinstall {package}"
        raise MissingPackageError(msg)
    return located
