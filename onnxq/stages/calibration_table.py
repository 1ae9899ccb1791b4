"""Export the ranges of every activation for TensorRT's implicit INT8, which knows no Q/DQ.

The names are those of the model as it is, as ONNX Runtime hands it to TensorRT; nothing is
normalized first. In the table are the inputs and all that nodes of the main graph compute, as far
as it is float; weights and the values of Constant nodes TensorRT takes from themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.algorithms.range_choice import candidates, choose
from onnxq.calibration.collect import collect, observed_dtypes
from onnxq.calibration.requests import Distribution
from onnxq.calibration.stats import Stats
from onnxq.calibration.table import table_bytes
from onnxq.data import check_all, limit, open_data
from onnxq.errors import ModelError, listed
from onnxq.graph.edit import all_nodes
from onnxq.graph.external import external_files
from onnxq.graph.io import check_output, digest, load, staging
from onnxq.graph.parts import is_bundle
from onnxq.graph.quantized import find_already_quantized
from onnxq.graph.structure import signature
from onnxq.recipe import Recipe
from onnxq.stages.with_past import with_past
from onnxq.targets import load_target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

    from onnxq.calibration.stats import TensorStats
    from onnxq.data import DataLike
    from onnxq.recipe import CalibrationSettings
    from onnxq.verify.verification import Report

_NAMED = 3


@dataclass(frozen=True, slots=True)
class CalibrationTable:
    """A table that was written.

    Attributes:
        path: The file.
        method: How ranges were chosen.
        samples: How many samples were seen.
        tensors: How many tensors it has.
        notes: What is not in it, and what became of the data, in sentences.
    """

    path: Path
    method: str
    samples: int
    tensors: int
    notes: tuple[str, ...]

    @property
    def options(self) -> dict[str, str]:
        """TensorRT's options that make use of it."""
        return {
            "trt_int8_enable": "1",
            "trt_int8_calibration_table_name": str(self.path.absolute()),
            "trt_int8_use_native_calibration_table": "0",
        }


def export_calibration_table(
    model: str | Path,
    data: DataLike,
    output: str | Path,
    *,
    recipe: Recipe | None = None,
    report: Report = lambda step, done, total: None,
) -> CalibrationTable:
    """Observe a float model's activations and write their ranges for TensorRT's implicit INT8.

    Args:
        model: The float model.
        data: Calibration data; all of it is used, or as much as the recipe says.
        output: The file to write.
        recipe: How ranges are found; of ``auto`` the range with the least squared error of each
            tensor is taken. Its other parts have no say, for the table is no quantized model.
        report: Told of progress.

    Raises:
        ModelError: The model is quantized, or a bundle.
        OnnxqError: As :func:`onnxq.calibrate`.
    """
    path, target = Path(model), Path(output)
    settings, seed = (recipe or Recipe()).calibration, (recipe or Recipe()).seed
    check_output(target, model=path)
    loaded = load(path)
    check_output(target, model=path, files=external_files(loaded))
    _check_float(loaded, path)
    source = limit(open_data(data, signature(loaded)), settings.samples, seed=seed)
    source = with_past(source, path, "cpu")
    check_all(source)
    names = list(dict.fromkeys(_activations(loaded)))
    dtypes = observed_dtypes(loaded, names)
    floats = [name for name in names if (kind := dtypes[name]) is not None and kind.kind == "f"]
    stats = collect(
        loaded,
        [Distribution(name) for name in floats],
        source,
        Stats(digest(loaded), source.digest()),
        budget=settings.memory_budget,
        progress=lambda done, total: report("calibrate", done, total),
    )
    found = {name: _magnitude(stats.tensors[name], settings) for name in floats}
    with staging(target) as staged:
        staged.write_bytes(table_bytes(found))
        staged.replace(target)
    notes = (*source.notes, *_remarks(loaded, stats))
    return CalibrationTable(target, settings.method, len(source), len(found), notes)


def _check_float(loaded: ir.Model, path: Path) -> None:
    form = find_already_quantized(loaded)
    if form is not None:
        code, text = "model.quantized", f"the model is quantized already ({form})"
        remedy = "TensorRT takes a table for models without Q/DQ: give the float model"
        raise ModelError(code, text, where=str(path), remedy=remedy)
    if is_bundle(loaded):
        code, text = "model.bundle", "the model has its pre- or postprocessing inside"
        remedy = "give the model that it was made of: names in a bundle are others"
        raise ModelError(code, text, where=str(path), remedy=remedy)


def _activations(loaded: ir.Model) -> Iterator[str]:
    values = [value for value in loaded.graph.inputs if not value.is_initializer()]
    values += [o for node in loaded.graph if node.op_type != "Constant" for o in node.outputs]
    yield from (value.name for value in values if value.name)


def _magnitude(stats: TensorStats, settings: CalibrationSettings) -> float:
    """What 127 stands for."""
    scheme = load_target("tensorrt").activation
    options = candidates(stats, scheme, settings.method, settings.percentile)
    chosen = choose(options, stats, {})
    return float(chosen.params.scale) * scheme.qmax


def _remarks(loaded: ir.Model, stats: Stats) -> Iterator[str]:
    inner = sum(1 for _ in all_nodes(loaded)) - len(list(loaded.graph))
    if inner:
        yield f"what {inner} nodes in subgraphs and functions compute is not in the table"
    for what, found in (
        ("NaN", [name for name, tensor in stats.tensors.items() if tensor.nan]),
        ("infinite values or mask constants", _masked(stats)),
    ):
        if found:
            yield f"{what} were left out of the ranges of {listed(found, _NAMED)}"


def _masked(stats: Stats) -> Sequence[str]:
    return [name for name, tensor in stats.tensors.items() if tensor.masked]
