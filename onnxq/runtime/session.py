"""ONNX Runtime sessions from bytes or a path, with one-line errors that name the node."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from onnxq.errors import ModelError, ProviderError
from onnxq.runtime import custom_ops, engine_cache, provider_options, providers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Optimization = Literal["all", "extended", "basic", "none"]

PROTOBUF_LIMIT: Final = (1 << 31) - 1
"""The most bytes of a protobuf message; a larger model is a file with external data."""

RECORD_ASSIGNMENTS: Final = ("session.record_ep_graph_assignment_info", "1")
"""The entry of a session's configuration that lets it tell what runs where."""

ORT_ERRORS: Final[tuple[type[Exception], ...]] = (
    RuntimeError,
    ValueError,
    *(
        kind
        for kind in vars(ort_state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
)
"""What ONNX Runtime raises; its own classes share no base but :class:`Exception`."""

_LEVELS: Final = MappingProxyType(
    {
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    }
)

_DTYPES: Final = MappingProxyType(
    {
        "float": np.float32,
        "double": np.float64,
        "float16": np.float16,
        "bool": np.bool_,
        **{f"{u}int{n}": getattr(np, f"{u}int{n}") for u in ("", "u") for n in (8, 16, 32, 64)},
    }
)

_FATAL_ONLY: Final = 4
_WEIGHTS_FOLDER: Final = "session.model_external_initializers_file_folder_path"
_INFO: Final = 1
_PREFIX: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_IN_NODE: Final = re.compile(
    r"^Non-zero status code returned while running (?P<op>\S+) node\. "
    r"Name:'(?P<name>.*?)' Status Message: (?P<reason>.*)$"
)
_UNKNOWN_OP: Final = (
    re.compile(r"error: (?P<domain>[^:]*):(?P<op>[^(]*)\(-?\d+\) is not a registered function/op"),
    re.compile(
        r"In Node, \(\"(?P<node>.*?)\", (?P<op>\S*), "
        r"\"(?P<domain>[^\"]*)\", -?\d+\).*No Op registered"
    ),
)
_SOURCE_LINE: Final = re.compile(
    r"\S*/onnxruntime\S*\.(?:h|cc|cpp|cu):\d+ (?:[^()]*\([^()]*\)(?: const)? )?"
)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a model.

    Attributes:
        name: Its name.
        dtype: The numpy type; ``None`` for a string, a sequence, a map, an optional, and for number
            types that numpy lacks.
        type_text: ONNX Runtime's spelling, such as ``tensor(float)``.
        shape: A size, a symbol's name, or ``None`` for each axis. Empty for a scalar and for what
            is not a tensor.
    """

    name: str
    dtype: np.dtype[Any] | None
    type_text: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How a session is opened.

    Attributes:
        provider: A name that :func:`onnxq.runtime.providers.resolve` knows, which may end in the
            index of a device. What :mod:`onnxq.runtime.provider_options` holds is heeded.
        optimization: ``"all"`` is what users run; ``"extended"`` leaves layouts as they are;
            ``"basic"`` keeps Q/DQ pairs apart; ``"none"`` runs the graph as it is written.
        threads: Threads within an operator; ONNX Runtime's choice if ``None``.
        spinning: Whether idle threads spin. ONNX Runtime's default is yes, which slows other
            sessions of the same process.
        config: More entries of the session's configuration, ``(key, value)``.
        optimized_path: Where ONNX Runtime writes the graph it has optimized, if anywhere.
        libraries: Libraries of custom operators to load; their code runs in this process.
        weights_folder: Where the files lie that a model in memory names as those of its weights.
        parallel: Whether operators that do not need each other run at once.
        arena: Whether the CPU's memory comes from an arena.
        memory_pattern: Whether allocations are planned from those of earlier runs.
        talkative: Whether ONNX Runtime writes what it does to the standard error.
    """

    provider: str = "cpu"
    optimization: Optimization = "all"
    threads: int | None = None
    spinning: bool = True
    config: tuple[tuple[str, str], ...] = ()
    optimized_path: Path | None = None
    libraries: tuple[Path, ...] = ()
    weights_folder: Path | None = None
    parallel: bool = False
    arena: bool = True
    memory_pattern: bool = True
    talkative: bool = False


class Session:
    """A loaded model. Make one with :func:`open_session`.

    Attributes:
        inputs: The model's inputs, in order; initializers that may be overridden are left out.
        outputs: The model's outputs, in order.
        providers: Full names of the providers in use, in order.
    """

    def __init__(self, inner: ort.InferenceSession, where: str) -> None:
        """Wrap a session of ONNX Runtime; ``where`` names the model in errors."""
        self._inner = inner
        self._where = where
        self.inputs = tuple(_spec(arg) for arg in inner.get_inputs())
        self.outputs = tuple(_spec(arg) for arg in inner.get_outputs())
        self.providers: tuple[str, ...] = tuple(inner.get_providers())

    def __repr__(self) -> str:
        """The model and where it runs."""
        return f"Session({self._where or 'model in memory'}, {', '.join(self.providers)})"

    def run(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> list[NDArray[Any]]:
        """Run the model.

        Args:
            feeds: An array for each input.
            outputs: Names of the outputs wanted, all of them if ``None``.

        Returns:
            The arrays, in the order of ``outputs``.

        Raises:
            ModelError: ONNX Runtime refuses the feeds or fails in a node, which is then named; or
                an output is no tensor (a sequence or a map).
        """
        names = [spec.name for spec in self.outputs] if outputs is None else list(outputs)
        values = self._run(feeds, names)
        for name, value in zip(names, values, strict=True):
            if not isinstance(value, np.ndarray):
                code, msg = (
                    "runtime.output_type",
                    f"output {name!r} is no tensor but a {type(value).__name__}",
                )
                raise ModelError(code, msg, where=self._where, remedy="ask for tensor outputs only")
        return values

    def assignments(self) -> dict[str, list[tuple[str, str, str]]]:
        """The nodes that each provider runs: name, operator, domain, by its full name.

        The session must have been opened with the entry :data:`RECORD_ASSIGNMENTS`.
        """
        found: dict[str, list[tuple[str, str, str]]] = {}
        for part in self._inner.get_provider_graph_assignment_info():
            nodes = [(node.name, node.op_type, node.domain) for node in part.get_nodes()]
            found.setdefault(part.ep_name, []).extend(nodes)
        return found

    def execute(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Run the model and drop its outputs, of whatever type they are.

        Raises:
            ModelError: As :meth:`run`.
        """
        self._run(feeds, None)

    def _run(self, feeds: Mapping[str, NDArray[Any]], names: list[str] | None) -> list[Any]:
        try:
            values: list[Any] = self._inner.run(names, dict(feeds))
        except ORT_ERRORS as error:
            code, remedy = "runtime.run", "check that the sample's shapes and values fit the model"
            raise ModelError(code, reason(error), where=self._where, remedy=remedy) from error
        return values


def open_session(model: bytes | Path, settings: SessionSettings = SessionSettings()) -> Session:
    """Load a model into ONNX Runtime.

    Args:
        model: The serialized model, or its path. External data is found through a path, or in the
            settings' ``weights_folder``.
        settings: How to open it.

    Raises:
        ModelError: It does not load; the message is ONNX Runtime's reason in one line.
        ProviderError: The provider is unknown, not part of this installation, or cannot start. The
            CPU never takes its place in silence.
    """
    where = str(model) if isinstance(model, Path) else ""
    if isinstance(model, bytes) and len(model) > PROTOBUF_LIMIT:
        code, msg = "runtime.too_large", f"a model of {len(model)} bytes does not load from memory"
        raise ModelError(code, msg, remedy="save it with external data and load it by its path")
    chain = providers.chain(settings.provider)
    given = list(zip(chain, _provider_options(chain, settings.provider, model), strict=True))
    source = str(model) if isinstance(model, Path) else model
    try:
        options = _options(settings, providers.session_entries(chain[0]))
        inner = ort.InferenceSession(source, options, providers=given, enable_fallback=0)
    except ORT_ERRORS as error:
        raise _load_error(error, model, settings, chain[0], where) from error
    if chain[0] not in inner.get_providers():
        why = providers.why_not_loaded(chain[0]) or "ONNX Runtime left it out"
        raise providers.start_error(chain[0], why, where)
    return Session(inner, where)


def _provider_options(
    chain: Sequence[str], provider: str, model: bytes | Path
) -> list[dict[str, str]]:
    """The options of each provider, with what TensorRT keeps of this model."""
    kept = engine_cache.options_of(model if isinstance(model, Path) else None)
    options = provider_options.of_chain(chain, provider)
    return [
        {**kept, **given} if full == engine_cache.TENSORRT else given
        for full, given in zip(chain, options, strict=True)
    ]


def _load_error(
    error: Exception, model: bytes | Path, settings: SessionSettings, provider: str, where: str
) -> ModelError | ProviderError:
    """Blame the provider if the CPU loads the model."""
    if provider != providers.CPU:
        folder = settings.weights_folder
        plain = SessionSettings(
            optimization="none", threads=1, spinning=False, weights_folder=folder
        )
        try:
            open_session(model, plain)
        except ModelError:
            pass
        else:
            why = providers.why_not_loaded(provider) or reason(error)
            return providers.start_error(provider, why, where)
    return _unloaded(reason(error), where)


def _unloaded(text: str, where: str) -> ModelError:
    """The error for a model that no provider loads; an unknown operator has a remedy."""
    code, msg = "runtime.load", f"ONNX Runtime does not load the model: {text}"
    remedy = "export it again; onnx.checker.check_model(path, full_check=True) may say more"
    unknown = next((match for form in _UNKNOWN_OP if (match := form.search(text))), None)
    if unknown is not None:
        code, domain = "runtime.unknown_op", unknown["domain"]
        named = f"operator {unknown['op']!r} of domain {domain or 'ai.onnx'!r}"
        msg = f"ONNX Runtime does not know {named} in the opset that the model imports"
        if domain in custom_ops.EXTENSIONS_DOMAINS:
            msg = f"operator {unknown['op']!r} is of onnxruntime-extensions, which is not loaded"
        node = unknown.groupdict().get("node")
        msg = f"node {node!r}: {msg}" if node else msg
        remedy = _where_to_find(domain)
    return ModelError(code, msg, where=where, remedy=remedy)


def _where_to_find(domain: str) -> str:
    """The remedy for an unknown operator."""
    if domain in custom_ops.EXTENSIONS_DOMAINS:
        return custom_ops.how_to_load()
    if domain in {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}:
        return "upgrade onnxruntime, or check the operator's name and the model's opsets"
    return "name the library that brings it, if you trust it: --custom-ops LIB"


def reason(error: Exception) -> str:
    """ONNX Runtime's reason in one line, with the node first if it names one.

    The status code, source paths and function signatures of its messages are left out.
    """
    text = " ".join(_PREFIX.sub("", str(error)).split())
    in_node = _IN_NODE.match(text)
    detail = _SOURCE_LINE.sub("", in_node["reason"] if in_node else text).strip()
    if in_node is None:
        return detail
    return f"node {in_node['name']!r} ({in_node['op']}): {detail}"


def _options(settings: SessionSettings, entries: Mapping[str, str]) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _INFO if settings.talkative else _FATAL_ONLY
    options.enable_cpu_mem_arena = settings.arena
    options.enable_mem_pattern = settings.memory_pattern
    if settings.parallel:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.graph_optimization_level = _LEVELS[settings.optimization]
    if settings.threads is not None:
        options.intra_op_num_threads = settings.threads
    if not settings.spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    for key, value in {**entries, **dict(settings.config)}.items():
        options.add_session_config_entry(key, value)
    if settings.weights_folder is not None:
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(settings.weights_folder))
    custom_ops.register(options)
    if settings.optimized_path is not None:
        options.optimized_model_filepath = str(settings.optimized_path)
    for library in settings.libraries:
        options.register_custom_ops_library(str(library))
    return options


def _spec(arg: ort.NodeArg) -> TensorSpec:
    match = re.fullmatch(r"tensor\((\w+)\)", arg.type)
    kind = _DTYPES.get(match[1]) if match else None
    shape = tuple(arg.shape or ())
    return TensorSpec(arg.name, None if kind is None else np.dtype(kind), arg.type, shape)
