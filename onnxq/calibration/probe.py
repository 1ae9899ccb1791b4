"""The probe graph: the model with outputs added where something is to be observed.

Reductions are added as nodes, so that ONNX Runtime computes them and frees the tensor at once; only
tensors whose distribution is wanted leave the graph whole. The model itself is never changed: the
probe is a clone that shares its weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxq.errors import InternalError
from onnxq.graph.edit import NameScope, constant_array, initializer, node_by_name, value_by_name
from onnxq.graph.opset import conversion_domain
from onnxq.numerics.affine import fake_quantize
from onnxq.numerics.histogram import MASK_MAGNITUDE

if TYPE_CHECKING:
    from onnxq.calibration.requests import OutputError, QuantizedInput
    from onnxq.numerics.schemes import QParams


class ProbeGraph:
    """A clone of a model to which probes are added; ``model`` is then run."""

    def __init__(self, model: ir.Model) -> None:
        """Clone ``model`` (weights are shared); its own outputs are no outputs of the probe."""
        self.model = model.clone()
        self.graph = self.model.graph
        self.graph.outputs.clear()
        self._values = value_by_name(self.graph)
        self._nodes = node_by_name(self.graph)
        self._fresh = NameScope(self.model)
        self._quantized: dict[object, ir.Value] = {}
        self._constants: dict[object, ir.Value] = {}
        self._outputs: set[str] = set()

    def pruned(self) -> ir.Model:
        """The probe without what no probe needs, weights included."""
        return common.RemoveUnusedNodesPass()(self.model).model

    def fetch(self, tensor: str) -> str:
        """Make ``tensor`` an output; returns the output's name."""
        value = self._value(tensor)
        if tensor not in self._outputs:
            self.graph.outputs.append(value)
            self._outputs.add(tensor)
        return tensor

    def shape(self, tensor: str) -> str:
        """Add an output with the shape of ``tensor``."""
        return self._output(self._op("Shape", [self._value(tensor)]))

    def extrema(self, tensor: str) -> tuple[str, str, str, str]:
        """Add outputs: least and greatest ordinary value, how many ordinary ones, how many NaN.

        Mask constants, Inf and NaN count as 0 in the extrema.
        """
        value = self._value(tensor)
        limit = self._constant("limit", np.asarray(MASK_MAGNITUDE, np.float32))
        zero = self._constant("zero", np.asarray(0, np.float32))
        ordinary = self._op("Less", [self._op("Abs", [value]), limit])
        kept = self._op("Where", [ordinary, value, zero])
        low = self._op("ReduceMin", [kept], {"keepdims": 0})
        high = self._op("ReduceMax", [kept], {"keepdims": 0})
        count, nan = self._count(ordinary), self._count(self._op("IsNaN", [value]))
        return self._output(low), self._output(high), self._output(count), self._output(nan)

    def channels(self, tensor: str, axis: int) -> tuple[str, str, str]:
        """Add outputs: least, greatest and summed absolute value of each channel along ``axis``."""
        value = self._value(tensor)
        if value.shape is None:
            code, text = "calibration.rank", f"the rank of {tensor!r} is unknown"
            raise InternalError(code, text)
        rank = value.shape.rank()
        others = [i for i in range(rank) if i != axis % rank]
        low = self._reduce("ReduceMin", value, others)
        high = self._reduce("ReduceMax", value, others)
        total = self._reduce("ReduceSum", self._op("Abs", [value]), others)
        return self._output(low), self._output(high), self._output(total)

    def output_error(self, request: OutputError) -> tuple[str, str]:
        """Add outputs: the site's squared output, and the squared error when it is quantized."""
        node = self._nodes[request.site]
        inputs = list(node.inputs)
        if request.activation is not None:
            inputs[request.activation.index] = self._fake_quantized(request.activation)
        if request.weight is not None:
            inputs[request.weight.index] = self._quantized_weight(request.weight)
        twin = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(node.attributes.values()),
            outputs=[ir.val(self._name(), ir.DataType.FLOAT)],
            name=self._name(),
        )
        self.graph.append(twin)
        original = node.outputs[0]
        difference = self._op("Sub", [original, twin.outputs[0]])
        signal_key = ("signal", request.site)
        if signal_key not in self._constants:
            self._constants[signal_key] = self._squared_sum(original)
        return (
            self._output(self._constants[signal_key]),
            self._output(self._squared_sum(difference)),
        )

    def _count(self, condition: ir.Value) -> ir.Value:
        """How many elements are true."""
        as_int = self._op("Cast", [condition], {"to": int(ir.DataType.INT64)})
        return self._op("ReduceSum", [as_int], {"keepdims": 0})

    def _squared_sum(self, value: ir.Value) -> ir.Value:
        return self._op("ReduceSumSquare", [value], {"keepdims": 0})

    def _fake_quantized(self, request: QuantizedInput) -> ir.Value:
        params = request.params
        factor = None if request.factor is None else request.factor.tobytes()
        integers = () if params is None else _integers(params)
        key = (request.name, factor, *integers)
        if key not in self._quantized:
            value = self._value(request.name)
            if request.factor is not None:
                scaling = self._constant(("factor", request.name, factor), request.factor)
                value = self._op("Mul", [value, scaling])
            domain = ""
            if params is None:
                coded, *how = self._quantized_at_run_time(value)
            else:
                how = [self._constant(("scale", *key), np.asarray(params.scale, np.float32))]
                attributes: dict[str, int | list[int]] = {}
                if params.scheme.floating:  # without a zero point, as in passes/insert_qdq.py
                    attributes["output_dtype"] = int(ir.DataType.from_numpy(params.scheme.dtype))
                else:
                    zero_point = np.asarray(params.zero_point)
                    how.append(self._constant(("zero_point", *key), zero_point))
                domain = conversion_domain(self.model, params.scheme.bits)
                coded = self._op("QuantizeLinear", [value, *how], attributes, domain=domain)
            self._quantized[key] = self._op("DequantizeLinear", [coded, *how], domain=domain)
        return self._quantized[key]

    def _quantized_at_run_time(self, value: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        outputs = [ir.val(self._name()) for _ in range(3)]
        node = ir.node("DynamicQuantizeLinear", [value], outputs=outputs, name=self._name())
        self.graph.append(node)
        return outputs[0], outputs[1], outputs[2]

    def _quantized_weight(self, request: QuantizedInput) -> ir.Value:
        factor = None if request.factor is None else request.factor.tobytes()
        params = request.params
        if params is None:
            code, text = "calibration.weight", f"no integers are given for {request.name}"
            raise InternalError(code, text)
        key = ("weight", params.key, factor, request.name)
        if key not in self._constants:
            array = constant_array(self._value(request.name))
            if array is None:
                code, text = "calibration.weight", f"{request.name} is no constant"
                raise InternalError(code, text)
            values = np.asarray(array, np.float32)
            if request.factor is not None:
                values = values * request.factor
            self._constant(key, fake_quantize(values, params))
        return self._constants[key]

    def _reduce(self, op: str, value: ir.Value, axes: list[int]) -> ir.Value:
        axes_input = op == "ReduceSum" or self.graph.opset_imports.get("", 0) >= 18
        if axes_input:
            wanted = self._constant(("axes", *axes), np.asarray(axes, np.int64))
            return self._op(op, [value, wanted], {"keepdims": 0})
        return self._op(op, [value], {"keepdims": 0, "axes": axes})

    def _op(
        self,
        op: str,
        inputs: list[ir.Value],
        attributes: dict[str, int | list[int]] | None = None,
        *,
        domain: str = "",
    ) -> ir.Value:
        output, name = ir.val(self._name()), self._name()
        node = ir.node(op, inputs, attributes or {}, domain=domain, outputs=[output], name=name)
        self.graph.append(node)
        return output

    def _constant(self, key: object, array: np.ndarray) -> ir.Value:
        if key not in self._constants:
            self._constants[key] = initializer(self.model, self._name(), array)
        return self._constants[key]

    def _output(self, value: ir.Value) -> str:
        name = value.name or ""
        if name not in self._outputs:
            self.graph.outputs.append(value)
            self._outputs.add(name)
        return name

    def _value(self, tensor: str) -> ir.Value:
        if tensor not in self._values:
            code, text = "calibration.tensor", f"the model has no tensor {tensor!r}"
            raise InternalError(code, text)
        return self._values[tensor]

    def _name(self) -> str:
        return self._fresh("onnxq_probe")


def _integers(params: QParams) -> tuple[float, int, str]:
    """What tells one tensor's integers from another's."""
    return float(params.scale), int(params.zero_point), str(params.scheme.dtype)
