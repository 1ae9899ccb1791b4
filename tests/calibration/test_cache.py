from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from safetensors import SafetensorError

from onnxq.calibration import stats as stats_module
from onnxq.calibration.cache import cache_path, load_cached, store
from onnxq.calibration.stats import SiteError, Stats, save_stats

if TYPE_CHECKING:
    from pathlib import Path


def known() -> Stats:
    return Stats("sha256:m", "sha256:d", 4, sites={"s": SiteError(2.0, {"minmax": 0.5})})


def test_what_is_stored_is_found_again(cache_home: Path) -> None:
    store(known())
    assert cache_path("sha256:m", "sha256:d").is_relative_to(cache_home)
    found = load_cached("sha256:m", "sha256:d")
    assert (found.samples, found.sites) == (4, known().sites)


@pytest.mark.parametrize(
    ("model", "data"), [("sha256:n", "sha256:d"), ("sha256:m", "sha256:e"), ("sha256:d", "")]
)
def test_another_model_or_other_data_finds_nothing(model: str, data: str) -> None:
    store(known())
    found = load_cached(model, data)
    assert found == Stats(model, data)


def test_a_file_of_other_digests_under_the_right_name_is_ignored() -> None:
    save_stats(known(), cache_path("sha256:x", "sha256:y"))
    assert load_cached("sha256:x", "sha256:y") == Stats("sha256:x", "sha256:y")


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100, b"garbage"])
def test_a_damaged_file_counts_as_absent(content: bytes) -> None:
    store(known())
    cache_path("sha256:m", "sha256:d").write_bytes(content)
    assert load_cached("sha256:m", "sha256:d") == Stats("sha256:m", "sha256:d")


def test_a_cache_that_cannot_be_made_is_no_failure(cache_home: Path) -> None:
    (cache_home / "onnxq").write_text("a file where the folder should be")
    store(known())
    assert load_cached("sha256:m", "sha256:d") == Stats("sha256:m", "sha256:d")


def test_a_full_disk_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        text = "Error while serializing: I/O error: No space left on device (os error 28)"
        raise SafetensorError(text)

    monkeypatch.setattr(stats_module, "save_file", fail)
    store(known())
    assert load_cached("sha256:m", "sha256:d") == Stats("sha256:m", "sha256:d")
