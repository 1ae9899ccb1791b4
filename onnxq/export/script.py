"""TorchScript files, whose code `script_check` has seen: it runs when they are loaded.

The exporter is PyTorch's older one (``dynamo=False``), which reads TorchScript as it is, keeps an
LSTM one node and lets axes vary; to the newer one the file would first have to be traced again,
which fixes axes and takes an LSTM apart.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Final

import onnx
import onnx_ir as ir

from onnxq.errors import UsageError
from onnxq.export.archives import Kind, copied
from onnxq.export.calls import run_module
from onnxq.export.input_text import SYNTAX, InputForm, example_sets
from onnxq.export.quiet import quiet
from onnxq.export.source import one_line
from onnxq.export.spec import ExportSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

NEWEST_OPSET: Final = 20
"""The newest that this exporter writes."""


def script_spec(path: Path, forms: tuple[InputForm, ...]) -> ExportSpec:
    """Load a TorchScript file.

    Args:
        path: The file.
        forms: Its inputs, which it does not tell itself.

    Raises:
        UsageError: If it is damaged, or takes other inputs.
    """
    import torch

    where = str(path)
    try:
        with quiet(), copied(path, Kind.SCRIPT) as copy:
            module = torch.jit.load(copy, map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError, zipfile.BadZipFile) as error:
        text = f"PyTorch cannot load this TorchScript: {one_line(error)}"
        remedy = "write the file again with torch.jit.save"
        raise UsageError(code="export.damaged", message=text, where=where, remedy=remedy) from error
    wanted = [item.name for item in module.forward.schema.arguments[1:]]
    names = [form.name for form in forms]
    if names != wanted[: len(names)] or not names:
        text = f"its inputs are {', '.join(wanted)}, in this order"
        if not names:
            text = f"a TorchScript file does not say the form of its inputs: {', '.join(wanted)}"
        remedy = f"give --input for each; {SYNTAX}"
        raise UsageError(code="export.bad_inputs", message=text, where=where, remedy=remedy)
    first, *others = example_sets(forms)
    count = len(run_module(module, first))
    return ExportSpec(
        module=module,
        example_inputs=first,
        dynamic_axes={form.name: form.names for form in forms},
        output_names=("output",) if count == 1 else tuple(f"output_{i}" for i in range(count)),
        further_inputs=tuple(others),
    )


def trace_script(
    specification: ExportSpec, inputs: Mapping[str, Tensor], where: str, opset: int
) -> ir.Model:
    """Export TorchScript.

    Raises:
        UsageError: If the operator set is too new for this exporter.
        Exception: Whatever PyTorch raises where it cannot export.
    """
    import torch

    if opset > NEWEST_OPSET:
        text = f"PyTorch exports TorchScript to opset {NEWEST_OPSET} at most"
        remedy = f"take one from 18 to {NEWEST_OPSET}"
        raise UsageError(code="export.opset", message=text, where=where, remedy=remedy)
    content = io.BytesIO()
    torch.onnx.export(
        specification.module,
        tuple(inputs.values()),
        content,
        dynamo=False,
        input_names=list(inputs),
        output_names=list(specification.output_names) or None,
        dynamic_axes={name: dict(axes) for name, axes in specification.dynamic_axes.items()},
        opset_version=opset,
    )
    return ir.serde.deserialize_model(onnx.load_model_from_string(content.getvalue()))
