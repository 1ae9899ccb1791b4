"""Execution providers by name: short names, what is offered here, and what to do about a lack.

A name may end in the index of a device, as ``cuda:1``.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import functools
import io
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import onnxruntime as ort

from onnxq.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping

CPU: Final = "CPUExecutionProvider"

SHORT: Final = MappingProxyType(
    {
        "cpu": CPU,
        "cuda": "CUDAExecutionProvider",
        "tensorrt": "TensorrtExecutionProvider",
    }
)
"""The short names of the command line and what ONNX Runtime calls them."""

_GPU_REMEDY: Final = (
    "install the GPU build in place of the CPU one: "
    "pip uninstall onnxruntime, then pip install onnxruntime-gpu; `onnxq doctor` shows what is seen"
)
_REMEDIES: Final = MappingProxyType({SHORT["cuda"]: _GPU_REMEDY, SHORT["tensorrt"]: _GPU_REMEDY})

_FATAL_ONLY: Final = 4

_WITH_DEVICES: Final = frozenset(
    f"{name}ExecutionProvider" for name in ("CUDA", "Tensorrt", "NvTensorRTRTX", "MIGraphX", "DML")
)
"""Providers with an option ``device_id``."""

_LIBRARIES: Final = MappingProxyType(
    {
        SHORT["cuda"]: "libonnxruntime_providers_cuda.so",
        SHORT["tensorrt"]: "libonnxruntime_providers_tensorrt.so",
    }
)

_FALLBACKS: Final = MappingProxyType({SHORT["tensorrt"]: (SHORT["cuda"],)})
"""Providers that take the nodes another one leaves, before the CPU does."""

_ENTRIES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {SHORT["tensorrt"]: {"session.disable_quant_qdq": "1"}}
)
"""What a session on a provider is configured with.

Before providers see a graph ONNX Runtime quantizes float biases between Q/DQ pairs to int32
(WeightBiasQuantization, microsoft/onnxruntime#22889), which TensorRT does not parse: it is to see
the pairs as they are written.
"""


def runtime_version() -> str:
    """The version of the ONNX Runtime that runs models here."""
    return str(ort.__version__)


def hush() -> None:
    """Keep ONNX Runtime from writing to the console what is told as an error anyway.

    For a program of its own, not for a library in somebody else's.
    """
    ort.set_default_logger_severity(_FATAL_ONLY)


def available() -> tuple[str, ...]:
    """The full names of the providers that this installation of ONNX Runtime offers."""
    return tuple(ort.get_available_providers())


def device_of(name: str) -> int | None:
    """The index of the device that a name ends in; None without one.

    Raises:
        ProviderError: It is no index, or the provider has no devices to choose from.
    """
    _, colon, index = name.partition(":")
    if not colon:
        return None
    full = resolve(name)
    if not index.isdecimal():
        code, msg = "runtime.device", f"{index!r} is no index of a device"
        raise ProviderError(code, msg, where=name, remedy="write a number, as in cuda:0")
    if full not in _WITH_DEVICES:
        code, msg = "runtime.device", f"{full} has no devices to choose from"
        raise ProviderError(code, msg, where=name, remedy="leave the index out")
    return int(index)


def resolve(name: str) -> str:
    """ONNX Runtime's full name of a provider; it need not be installed.

    Args:
        name: A short name such as ``"cuda"`` or a full one such as ``"OpenVINOExecutionProvider"``,
            in any case; the ``ExecutionProvider`` at the end may be left out, and the index of a
            device may follow.

    Raises:
        ProviderError: Nothing is called that.
    """
    name = name.partition(":")[0]
    known: dict[str, str] = {
        full.lower(): full for full in (*ort.get_all_providers(), *available())
    }
    lowered = name.lower()
    for key in (SHORT.get(lowered, "").lower(), lowered, f"{lowered}executionprovider"):
        if key in known:
            return known[key]
    names = sorted(
        {*SHORT, *(full.removesuffix("ExecutionProvider").lower() for full in known.values())}
    )
    near = difflib.get_close_matches(lowered, names, n=3) or names
    msg = f"there is no execution provider called {name!r}"
    code = "runtime.unknown_provider"
    raise ProviderError(code, msg, remedy=f"known names: {', '.join(near)}")


def require(name: str) -> str:
    """ONNX Runtime's full name of a provider that this installation offers.

    Raises:
        ProviderError: Nothing is called that, or it is not part of this installation.
    """
    full = resolve(name)
    offered = available()
    if full not in offered:
        msg = f"the execution provider {full} was asked for and is not part of this ONNX Runtime"
        default = "install a build of ONNX Runtime that has it, or choose one of those offered"
        remedy = f"{_REMEDIES.get(full, default)} (offered here: {', '.join(offered)})"
        code = "runtime.missing_provider"
        raise ProviderError(code, msg, remedy=remedy)
    return full


def require_loadable(name: str) -> str:
    """ONNX Runtime's full name of a provider whose library loads here.

    Whether a device is there is known only when a session is opened.

    Raises:
        ProviderError: As :func:`require` and :func:`device_of`, or the library does not load.
    """
    full = require(name)
    device_of(name)
    why = why_not_loaded(full)
    if why:
        raise start_error(full, why)
    return full


def start_error(full: str, why: str, where: str = "") -> ProviderError:
    """The error for a provider that is part of this installation and does not start."""
    code, msg = "runtime.provider_start", f"the execution provider {full} did not start: {why}"
    remedy = "check its driver and libraries; `onnxq doctor` shows what is seen"
    if "ordinal" in why or "device ID" in why:
        remedy = "nvidia-smi -L lists the devices, counted from 0"
    elif "shape profiles" in why:
        remedy = (
            "the graph is divided: give those inputs' shapes too (trt_profile_min_shapes and so "
            "on), or no profile: --provider-option tensorrt.trt_profile_min_shapes="
        )
    elif "option" in why.lower():
        remedy = "check --provider-option: each provider has its own keys"
    return ProviderError(code, msg, where=where, remedy=remedy)


def family(name: str) -> tuple[str, ...]:
    """The full name of a provider, and of those that take what it leaves, the CPU not counted.

    Raises:
        ProviderError: Nothing is called that.
    """
    full = resolve(name)
    return (full, *_FALLBACKS.get(full, ()))


@functools.cache
def _preload() -> None:
    """Load CUDA and cuDNN from packages that are installed beside ONNX Runtime, if there are any.

    ONNX Runtime itself looks in the system's folders alone, and prints what it misses: what is
    really missing is told by the provider that does not start.
    """
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


@functools.cache
def why_not_loaded(full: str) -> str:
    """Why the library of a provider does not load; empty if it does or is none of its own.

    ONNX Runtime writes the reason to the console alone.
    """
    stem = _LIBRARIES.get(full)
    if stem is None:
        return ""
    _preload()
    folder = Path(ort.__file__).parent / "capi"
    try:
        for path in (folder / "libonnxruntime_providers_shared.so", folder / stem):
            if path.is_file():
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return ""


def session_entries(full: str) -> Mapping[str, str]:
    """Entries of a session's configuration that a provider, by its full name, wants."""
    return _ENTRIES.get(full, MappingProxyType({}))


def chain(name: str) -> tuple[str, ...]:
    """The providers of a session in order: the one asked for, then those that take what it leaves.

    Raises:
        ProviderError: As :func:`require`.
    """
    full = require(name)
    offered = available()
    if full in _LIBRARIES:
        _preload()
    helpers = tuple(p for p in _FALLBACKS.get(full, ()) if p in offered)
    return (full, *helpers) if full == CPU else (full, *helpers, CPU)
