"""Whether a provider starts, told before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from onnxq.compare.compare import compare
from onnxq.compare.divergence import diverge
from onnxq.errors import ProviderError
from onnxq.runtime import providers, session, start
from onnxq.runtime.provider_options import provider_options
from tests.pretended import pretend
from tests.small_models import normal, write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CUDA = providers.SHORT["cuda"]


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA provider that has one device and knows one option."""

    def refusal(options: Mapping[str, str]) -> str:
        if options.get("device_id", "0") != "0":
            return "CUDA failure 101: invalid device ordinal ; GPU=0 ; expr=cudaSetDevice"
        unknown = options.keys() - {"device_id", "use_tf32"}
        return "Unknown provider option" if unknown else ""

    pretend(monkeypatch, "cuda", refusal)


@pytest.mark.usefixtures("one_gpu")
def test_a_device_that_is_not_there() -> None:
    assert start.require_started("cuda") == start.require_started("cuda:0") == CUDA
    for name, options in (("cuda:99", {}), ("cuda", {"device_id": "99"})):
        with (
            provider_options({"cuda": options}),
            pytest.raises(ProviderError, match="ordinal") as caught,
        ):
            start.require_started(name)
        assert "nvidia-smi -L" in caught.value.remedy


@pytest.mark.usefixtures("one_gpu")
def test_an_option_that_the_provider_does_not_know() -> None:
    with (
        provider_options({"cuda": {"use_tf33": "0"}}),
        pytest.raises(ProviderError, match="Unknown provider option") as caught,
    ):
        start.require_started("cuda")
    assert "--provider-option" in caught.value.remedy


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize("measure", [compare, diverge])
def test_nothing_runs_before_that(
    measure: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(session.Session, "run", lambda *given: ran.append(given))
    text = "g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }"
    model = write(tmp_path / "m.onnx", text, w=normal(1, 4, 3))
    with pytest.raises(ProviderError, match="ordinal"):
        measure([model], [{"x": normal(0, 2, 4)}], providers=["cpu", "cuda:99"])
    assert ran == []


@pytest.mark.usefixtures("one_gpu")
def test_the_cpu_stands_in_for_a_provider_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [start.stand_in(name) for name in ("cuda", "tensorrt", "cpu")] == ["cuda", "cpu", "cpu"]
    assert start.stand_in("cuda:1") == "cpu"
    # Who says which device means one that is here.
    with provider_options({"cuda": {"device_id": "1"}}), pytest.raises(ProviderError):
        start.stand_in("cuda")
    monkeypatch.setattr(providers, "why_not_loaded", lambda full: "libcudart: not found")
    assert start.stand_in("cuda") == "cpu"
