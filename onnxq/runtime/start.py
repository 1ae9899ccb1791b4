"""Whether an execution provider starts: the smallest model there is, run before any work."""

from __future__ import annotations

from typing import Final

from onnx import parser

from onnxq.errors import ProviderError
from onnxq.runtime import provider_options, providers
from onnxq.runtime.session import SessionSettings, open_session

_SMALLEST_MODEL: Final = """
    <ir_version: 8, opset_import: ["" : 17]>
    smallest (float[1] x) => (float[1] y) { y = Neg(x) }
"""


def open_smallest(name: str) -> None:
    """Open the smallest model on a provider, with the options in use.

    Raises:
        ProviderError: The provider is unknown, not part of this installation, or does not start.
    """
    model = parser.parse_model(_SMALLEST_MODEL).SerializeToString()
    open_session(model, SessionSettings(provider=name, threads=1, spinning=False))


def require_started(name: str) -> str:
    """ONNX Runtime's full name of a provider that starts here, on the device that is asked for.

    A driver that is missing, a device that is not there and an option that it does not know are
    told in a second, where a model would be compared for minutes on the CPU first.

    Args:
        name: A provider's name, which may end in the index of a device.

    Raises:
        ProviderError: As :func:`~onnxq.runtime.providers.require_loadable`, or it does not start.
    """
    full = providers.require_loadable(name)
    if full != providers.CPU:
        open_smallest(name)
    return full


def stand_in(name: str) -> str:
    """The provider on which a model for ``name`` can be tried here: itself, or else the CPU.

    The CPU stands in where it is not part of this ONNX Runtime or does not start. Who gives it
    options, a device's index say, means a provider that is here: then that is an error.

    Raises:
        ProviderError: Nothing is called that, or it does not start with the options in use.
    """
    full = providers.resolve(name)
    if full not in providers.available() or providers.why_not_loaded(full):
        return "cpu"
    try:
        require_started(name)
    except ProviderError:
        if any(provider_options.in_use().get(part) for part in providers.family(name)):
            raise
        return "cpu"
    return name
