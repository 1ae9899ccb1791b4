"""What was found for groups of weights so far, kept on disk: an interrupted run goes on from there.

One file for each group in a folder of the user's cache, whose name is a digest of everything that
has a say in the results. The folder goes when the run is complete. A damaged file counts as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from onnxq._version import __version__
from onnxq.algorithms.block_candidates import BlockResult
from onnxq.algorithms.block_group import GroupResult
from onnxq.numerics.schemes import PerBlock, QParams, Scheme

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from onnxq.algorithms.block_plan import BlockGroup, BlockSpec

# A damaged description has values of any type anywhere.
_DAMAGES = (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError)


class Checkpoints:
    """Results of groups of one model on one set of data."""

    def __init__(self, model_digest: str, data_digest: str, before: str = "") -> None:
        """Name the folder.

        Args:
            model_digest: Of the model.
            data_digest: Of the samples.
            before: What is done to the model before groups are observed; empty for nothing.
        """
        text = f"{model_digest} {data_digest} {__version__} {version('numpy')} {before}"
        key = hashlib.sha256(text.encode()).hexdigest()
        self._folder = user_cache_path("onnxq") / "groups" / key[:32]

    def load(self, group: BlockGroup, specs: Mapping[str, BlockSpec]) -> GroupResult | None:
        """What was found for a group; None if nothing was, or the file is damaged."""
        path = self._folder / f"{_name(group, specs)}.safetensors"
        try:
            with safe_open(path, framework="numpy") as file:
                body = json.loads((file.metadata() or {})["onnxq"])
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return _restored(body, arrays)
        except _DAMAGES:
            return None

    def save(self, group: BlockGroup, specs: Mapping[str, BlockSpec], result: GroupResult) -> None:
        """Keep what was found; a cache that cannot be written to is no failure."""
        name = _name(group, specs)
        staged = self._folder / f".{name}.{os.getpid()}"
        body, arrays = _taken_apart(result)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(arrays, staged, metadata={"onnxq": json.dumps(body)})
            staged.replace(self._folder / f"{name}.safetensors")
        except (OSError, SafetensorError):
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)

    def clear(self) -> None:
        """The run is complete."""
        shutil.rmtree(self._folder, ignore_errors=True)


def described(group: BlockGroup, specs: Mapping[str, BlockSpec]) -> str:
    """What is wanted of a group."""
    members = [f"{site.name} {specs[site.name]}" for site in group.sites]
    return "\0".join([group.tensor, str(group.scaling is None), *members])


def _name(group: BlockGroup, specs: Mapping[str, BlockSpec]) -> str:
    return hashlib.sha256(described(group, specs).encode()).hexdigest()[:32]


def _taken_apart(result: GroupResult) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    arrays: dict[str, np.ndarray] = {}
    if result.factor is not None:
        arrays["factor"] = result.factor
    weights: dict[str, Any] = {}
    for number, (name, weight) in enumerate(result.weights.items()):
        scheme = weight.params.scheme
        size = scheme.granularity.size if isinstance(scheme.granularity, PerBlock) else 0
        kind = {"bits": scheme.bits, "symmetric": scheme.symmetric, "block_size": size}
        weights[name] = {"label": weight.label, **kind}
        arrays[f"{number}/scale"] = weight.params.scale
        arrays[f"{number}/zero_point"] = weight.params.zero_point
        if weight.packed is not None:
            arrays[f"{number}/packed"] = weight.packed
    body = {
        "exponent": result.exponent,
        "reason": result.reason,
        "weights": weights,
        "signals": dict(result.signals),
        "noises": {name: dict(noises) for name, noises in result.noises.items()},
    }
    return body, arrays


def _restored(body: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> GroupResult:
    weights = {}
    for number, (name, entry) in enumerate(body["weights"].items()):
        blocks = PerBlock(entry["block_size"], 1)
        scheme = Scheme(entry["bits"], symmetric=entry["symmetric"], granularity=blocks)
        params = QParams(arrays[f"{number}/scale"], arrays[f"{number}/zero_point"], scheme)
        weights[name] = BlockResult(entry["label"], params, arrays.get(f"{number}/packed"))
    return GroupResult(
        factor=arrays.get("factor"),
        exponent=body["exponent"],
        reason=body["reason"],
        weights=weights,
        signals=body["signals"],
        noises=body["noises"],
    )
