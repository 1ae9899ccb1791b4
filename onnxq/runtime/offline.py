"""Lets ONNX Runtime write down the graph that it has optimized, in its own format or in ONNX."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

from onnxq.runtime.session import SessionSettings, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.runtime.session import Optimization


def write_offline(source: Path, target: Path, level: Optimization) -> None:
    """Write the optimized graph; ``.ort`` in the name means ONNX Runtime's own format.

    Raises:
        ModelError: The model does not load.
    """
    form = "ORT" if target.suffix == ".ort" else "ONNX"
    config = (("session.save_model_format", form),)
    open_session(
        source,
        SessionSettings(optimization=level, spinning=False, config=config, optimized_path=target),
    )


def required_operators(model: Path, target: Path) -> int:
    """Write the operators that a ``.ort`` model needs, as ONNX Runtime's build reads them.

    Returns:
        How many there are.
    """
    from onnxruntime.tools.ort_format_model import create_config_from_models

    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # It leaves the model's file to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        create_config_from_models([model], target, False)
    lines = target.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("# - ")]
    target.write_text("\n".join([*kept, ""]), encoding="utf-8")
    return sum(len(line.rpartition(";")[2].split(",")) for line in kept if ";" in line)
