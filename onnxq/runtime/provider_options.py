"""Options of execution providers: what the user sets, for every session that is opened meanwhile.

They hold in the processes that time models too. ONNX Runtime refuses a key that a provider does not
know. What is said nearer to the run wins: the command line over a recipe, both over what is derived
from data.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from onnxq.errors import UsageError
from onnxq.runtime import providers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Options: TypeAlias = Mapping[str, Mapping[str, str]]
"""The options by the full name of their provider."""

_NOTHING: Final[Options] = MappingProxyType({})
_DEVICE: Final = "device_id"
_TABLE: Final = "trt_int8_calibration_table_name"
_PATHS: Final = ("trt_engine_cache_path", "trt_timing_cache_path", _TABLE)
_IN_USE: ContextVar[Options] = ContextVar("provider_options", default=_NOTHING)


@contextmanager
def provider_options(options: Options) -> Iterator[None]:
    """Let every session that is opened inside have these options; those set outside stay.

    Args:
        options: Values by key, by the name of a provider.

    Raises:
        ProviderError: Nothing is called that.
        UsageError: The index of a device is no number.
    """
    with _use(_merged(in_use(), _named(options))):
        yield


@contextmanager
def default_options(options: Options) -> Iterator[None]:
    """As :func:`provider_options`, but of a key that is set outside already that value stays.

    Raises:
        ProviderError: Nothing is called that.
        UsageError: The index of a device is no number.
    """
    with _use(_merged(_named(options), in_use())):
        yield


@contextmanager
def _use(options: Options) -> Iterator[None]:
    token = _IN_USE.set(options)
    try:
        yield
    finally:
        _IN_USE.reset(token)


def _named(options: Options) -> Options:
    """The same by the full name of the provider."""
    found: dict[str, dict[str, str]] = {}
    for name, values in options.items():
        # Processes that time models run in folders of their own.
        paths = {key: Path(values[key]).absolute() for key in _PATHS if values.get(key)}
        # A table that does not lie here is looked for among the engines.
        placed = {key: str(p) for key, p in paths.items() if key != _TABLE or p.is_file()}
        found.setdefault(providers.resolve(name), {}).update({**values, **placed})
        if not values.get(_DEVICE, "0").isdecimal():
            code, msg = "runtime.device", f"{values[_DEVICE]!r} is no index of a device"
            where = f"{name}.{_DEVICE}"
            raise UsageError(code, msg, where=where, remedy="write a number, as in 0")
    return found


def _merged(weaker: Options, stronger: Options) -> Options:
    return {name: {**weaker.get(name, {}), **stronger.get(name, {})}
            for name in (*weaker, *(name for name in stronger if name not in weaker))}  # fmt: skip


def in_use() -> Options:
    """The options of the present context, by the full name of their provider."""
    return _IN_USE.get()


def parse_options(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Read ``PROVIDER.KEY=VALUE``.

    Raises:
        UsageError: One has another form.
        ProviderError: There is no such provider.
    """
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        name, dot, rest = text.partition(".")
        key, equals, value = rest.partition("=")
        if not (dot and equals and name and key):
            code, msg = "usage.provider_option", "it is not PROVIDER.KEY=VALUE"
            remedy = "as in tensorrt.trt_fp16_enable=1"
            raise UsageError(code, msg, where=text, remedy=remedy)
        if ":" in name:
            code, msg = "usage.provider_option", "an option is of a provider, not of one device"
            raise UsageError(code, msg, where=text, remedy="leave the index out")
        full = providers.resolve(name)
        if full == providers.CPU:
            # ONNX Runtime takes any key for it and heeds none.
            code, msg = "usage.provider_option", f"{full} has no options"
            raise UsageError(code, msg, where=text, remedy="leave it out")
        found.setdefault(full, {})[key] = value
    return found


def check_heeded(names: Iterable[str]) -> None:
    """Refuse options in use that no session on these providers would heed.

    Args:
        names: The providers that are to be used.

    Raises:
        UsageError: There are options of another provider.
        ProviderError: There is no such provider.
    """
    used = {full for name in names for full in providers.family(name)}
    for full in in_use():
        if full not in used:
            code, msg = "usage.provider_option", f"there are options of {full}, which is not used"
            remedy = "leave them out, or ask for that provider"
            raise UsageError(code, msg, where="--provider-option", remedy=remedy)


def device_in_use(name: str) -> int:
    """The index of the device that a session on this provider uses.

    Args:
        name: A provider's name, which may end in the index; else the options in use tell it, and
            the first device is the default.
    """
    index = providers.device_of(name)
    if index is not None:
        return index
    return int(in_use().get(providers.resolve(name), {}).get(_DEVICE, "0"))


def of_chain(chain: Sequence[str], name: str) -> list[dict[str, str]]:
    """The options of each provider of a session; all of them use the same device.

    Args:
        chain: Full names of the providers.
        name: The name that was asked for, which may end in the index of a device.
    """
    device = providers.device_of(name)
    found = [dict(in_use().get(full, {})) for full in chain]
    for options, full in zip(found, chain, strict=True):
        if device is not None and full != providers.CPU:
            options[_DEVICE] = str(device)
    return found
