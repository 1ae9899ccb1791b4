from __future__ import annotations

import pytest

from onnxq.errors import ProviderError
from onnxq.runtime import providers


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("cpu", "CPUExecutionProvider"),
        ("CUDA", "CUDAExecutionProvider"),
        ("tensorrt", "TensorrtExecutionProvider"),
        ("openvino", "OpenVINOExecutionProvider"),
        ("QNNExecutionProvider", "QNNExecutionProvider"),
    ],
)
def test_resolve(name: str, full: str) -> None:
    assert providers.resolve(name) == full


def test_unknown_name_lists_near_ones() -> None:
    with pytest.raises(ProviderError, match="'cudda'") as caught:
        providers.resolve("cudda")
    assert "cuda" in caught.value.remedy


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_missing_gpu_provider_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "available", lambda: (providers.CPU,))
    with pytest.raises(ProviderError) as caught:
        providers.chain(name)
    assert caught.value.exit_status == 2
    assert "pip install onnxruntime-gpu" in caught.value.remedy
    assert providers.CPU in caught.value.remedy


def test_chain_puts_helpers_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    full = tuple(providers.SHORT.values())
    monkeypatch.setattr(providers, "available", lambda: full)
    assert providers.chain("cpu") == (providers.CPU,)
    assert providers.chain("cuda") == (providers.SHORT["cuda"], providers.CPU)
    assert providers.chain("tensorrt") == (
        providers.SHORT["tensorrt"],
        providers.SHORT["cuda"],
        providers.CPU,
    )
