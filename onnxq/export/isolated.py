"""A checkpoint's folder as transformers sees it: what was checked, and nothing else.

Transformers finds files by their names: adapters, shards of another form, weights in more than one
format, programs. In a folder that holds the checked configuration and links to the checked weights
there is none to be found, and a file that changes meanwhile is not read again.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onnxq.export.config_check import without_origins
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnxq.export.checkpoint import Checkpoint


@contextmanager
def isolated(checkpoint: Checkpoint) -> Iterator[Path]:
    """A private folder with the configuration and links to the weights; gone afterwards."""
    with Scratch() as folder:
        config = json.dumps(without_origins(dict(checkpoint.config)))
        (folder / "config.json").write_text(config, encoding="utf-8")
        for file in checkpoint.weights:
            _link(file.resolve(), folder / file.name)
        yield folder


def _link(file: Path, place: Path) -> None:
    try:
        place.symlink_to(file)
    except OSError:
        # Windows allows links to some users only.
        shutil.copyfile(file, place)
