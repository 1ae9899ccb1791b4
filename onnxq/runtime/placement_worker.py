"""Open one model and tell where its nodes run: ``python -m onnxq.runtime.placement_worker SPEC``.

The specification is a JSON object that :mod:`onnxq.runtime.placement` writes; the answer is one
JSON line on standard output, ONNX Runtime's log goes to standard error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from onnxq.runtime.session import RECORD_ASSIGNMENTS, SessionSettings, open_session
from onnxq.runtime.worker import serve


def find(spec: dict[str, Any]) -> dict[str, Any]:
    """The assignments of the model of a specification: ``model`` (path) and ``provider``.

    Raises:
        ModelError: The model does not load.
        ProviderError: The provider is not there.
    """
    settings = SessionSettings(
        provider=spec["provider"],
        threads=1,
        spinning=False,
        config=(RECORD_ASSIGNMENTS,),
        talkative=True,
    )
    return {"assignments": open_session(Path(spec["model"]), settings).assignments()}


if __name__ == "__main__":
    sys.exit(serve(find, Path(sys.argv[1])))
