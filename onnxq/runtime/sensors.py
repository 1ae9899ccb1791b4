"""Memory of a GPU, its name and energy, where the machine tells of them.

The GPU's come from NVIDIA's management library (package ``nvidia-ml-py``), the processors' energy
from the kernel's ``powercap`` files (RAPL), which only root may read on many systems. Both counters
are of the whole device: what else runs there is counted in.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, Final

from onnxq.runtime import provider_options, providers

_ZONES: Final = "/sys/class/powercap"
_PACKAGE: Final = "intel-rapl:[0-9]"
_DRIVER: Final = "/proc/driver/nvidia"

_NVIDIA: Final = frozenset(providers.SHORT[name] for name in ("cuda", "tensorrt"))


class Sensors:
    """What can be read of the device that a provider uses."""

    def __init__(self, provider: str) -> None:
        """Look for the device; where there is none to read, everything is None.

        Args:
            provider: A provider's name, which may end in the index of a device.
        """
        self._nvml, self._device = _nvidia_device(provider)
        self._used_before = self._used()
        self._zones = () if self._nvml else tuple(sorted(Path(_ZONES).glob(_PACKAGE)))

    def joules(self) -> float | None:
        """Energy that the device has taken since some moment; None where it does not tell."""
        if self._nvml is not None:
            try:
                return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._device)) / 1e3
            except self._nvml.NVMLError:
                return None
        try:
            readings = [int((zone / "energy_uj").read_text()) for zone in self._zones]
        except (OSError, ValueError):
            return None
        return sum(readings) / 1e6 if readings else None

    def device_bytes(self) -> int | None:
        """Memory of the GPU that this process holds; None without a GPU.

        Where the driver does not tell it by process, what more is taken than at first.
        """
        if self._nvml is None:
            return None
        try:
            running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._device)
        except self._nvml.NVMLError:
            running = []
        for process in running:
            if process.pid == os.getpid() and process.usedGpuMemory is not None:
                return int(process.usedGpuMemory)
        used = self._used()
        return None if used is None or self._used_before is None else used - self._used_before

    def _used(self) -> int | None:
        if self._nvml is None:
            return None
        try:
            return int(self._nvml.nvmlDeviceGetMemoryInfo(self._device).used)
        except self._nvml.NVMLError:
            return None


def device_name(provider: str) -> str:
    """The GPU that a provider uses and its driver; empty where it uses none or nothing tells.

    Without NVIDIA's management library the driver's files tell of all GPUs, in no order.

    Args:
        provider: A provider's name, which may end in the index of a device.
    """
    if providers.resolve(provider) not in _NVIDIA:
        return ""
    nvml, device = _nvidia_device(provider)
    if nvml is None:
        return _named_by_driver()
    try:
        texts = (nvml.nvmlDeviceGetName(device), nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        return _named_by_driver()
    # Older versions of the library give bytes.
    return ", ".join(text.decode() if isinstance(text, bytes) else str(text) for text in texts)


def _named_by_driver() -> str:
    folder = Path(_DRIVER)
    try:
        version = (folder / "version").read_text(encoding="utf-8").splitlines()[:1]
        files = sorted(folder.glob("gpus/*/information"))
        lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    models = sorted(line.partition(":")[2].strip() for line in lines if line.startswith("Model:"))
    return ", ".join([*models, *version])


def _nvidia_device(provider: str) -> tuple[Any, Any]:
    """The management library and the handle of the device; None where it is another's."""
    if providers.resolve(provider) not in _NVIDIA:
        return None, None
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None, None
    try:
        nvml.nvmlInit()
        return nvml, _handle(nvml, provider_options.device_in_use(provider))
    except (nvml.NVMLError, LookupError):
        return None, None


def _handle(nvml: Any, index: int) -> Any:
    """The device that CUDA counts as this one: the library heeds no CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return nvml.nvmlDeviceGetHandleByIndex(index)
    named = visible.split(",")[index].strip()
    if named.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(named))
    return nvml.nvmlDeviceGetHandleByUUID(named)
