"""The packages that only a report needs."""

from __future__ import annotations

import importlib.util

from onnxq.errors import UsageError

_PACKAGES = ("jinja2", "matplotlib")


def require_packages() -> None:
    """Refuse before any work if one of them is not installed.

    Raises:
        UsageError: With the extra to install.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        code, text = "report.missing_package", f"a report needs {' and '.join(missing)}"
        raise UsageError(code, text, remedy="pip install 'onnxq[report]'")
