"""Learn types and ranks from ONNX Runtime where shape inference knows none.

ONNX's inference stops at operators of other domains. ONNX Runtime knows the types of every value it
can run, and a real run of one sample tells the ranks; lengths stay open, since they may vary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.calibration.collect import observed_dtypes, observed_shapes
from onnxq.graph.edit import value_by_name
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.stages.prepare import sites_of

if TYPE_CHECKING:
    from onnxq.data import DataSource
    from onnxq.stages.prepare import Prepared


def learn_types(prepared: Prepared, data: DataSource | None) -> Prepared:
    """The same, with types and ranks of all values that ONNX Runtime can name; needs a sample.

    Runs the float model itself first, so that one that cannot be run is refused before the work.

    Raises:
        ModelError: The model does not load, or does not run on the first sample.
    """
    if data is None:
        return prepared
    settings = SessionSettings(provider=prepared.provider, spinning=False)
    open_session(prepared.source, settings).execute(next(iter(data)).feeds)
    model = prepared.model.clone()
    values = value_by_name(model.graph)
    unknown = [
        name
        for name, value in values.items()
        if not value.is_initializer() and (value.dtype is None or value.shape is None)
    ]
    if not unknown:
        return prepared
    dtypes = observed_dtypes(model, unknown)
    tensors = {name: dtype for name, dtype in dtypes.items() if dtype is not None}
    if not tensors:
        return prepared
    shapes = observed_shapes(model, list(tensors), next(iter(data)))
    for name, dtype in tensors.items():
        values[name].dtype = ir.DataType.from_numpy(dtype)
        values[name].shape = ir.Shape([None] * len(shapes[name]))
    sites = sites_of(model, prepared.recipe, prepared.target)
    return replace(prepared, model=model, sites=sites)
