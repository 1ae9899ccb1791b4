"""The search for a session's settings on known times, and what is written, run by others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxq.compare import session_search
from onnxq.compare.session_search import check_folder, save_session, search_session
from onnxq.errors import DataError, UsageError
from onnxq.runtime.custom_ops import portable
from onnxq.runtime.engine_cache import engine_cache
from onnxq.runtime.provider_options import provider_options
from onnxq.runtime.session import open_session
from onnxq.runtime.timing import LatencyResult, Timing, TimingSettings
from onnxq.runtime.tuning import Tuning, deployed
from tests.pretended import pretend
from tests.small_models import normal, proto, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxq.runtime.timing import Contender

TEXT = "g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }"
W = normal(1, 4, 3)
SAMPLES = [{"x": normal(0, 2, 4)}]
BRIEF = TimingSettings(rounds=1, runs=1, warmup=0, seconds=0.0)
OTHER = Tuning(2, spinning=False, optimization="basic", parallel=True, arena=False,
               memory_pattern=False)  # fmt: skip

Rounds = tuple[float, float, float]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model.onnx", TEXT, w=W)


def known(monkeypatch: pytest.MonkeyPatch, times: Callable[[Tuning], Rounds]) -> list[list[Tuning]]:
    """Let settings take known times; the list gets what each step timed."""
    steps: list[list[Tuning]] = []

    def measure(
        contenders: Sequence[Contender], feeds: Any, settings: TimingSettings, progress: Any
    ) -> Timing:
        tunings = [contender.tuning or Tuning() for contender in contenders]
        steps.append(tunings)
        results = {
            contender.name: LatencyResult(
                float(np.median(times(tuning))), 1.0, 1.0, 1.0, times(tuning), 1.0, 1
            )
            for contender, tuning in zip(contenders, tunings, strict=True)
        }
        return Timing(results, settings)

    monkeypatch.setattr(session_search, "measure", measure)
    monkeypatch.setattr(session_search, "physical_cores", lambda: 4)
    return steps


def test_each_step_stands_on_the_best_so_far(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def times(tuning: Tuning) -> Rounds:
        time = 10.0 - 2 * (tuning.threads == 2) - tuning.parallel - (not tuning.arena)
        return time, time, time

    steps = known(monkeypatch, times)
    found = search_session(model, SAMPLES)
    assert found.best == Tuning(2, parallel=True, arena=False)
    assert (found.default_ms, found.best_ms) == (10.0, 6.0)
    assert found.lost is None
    assert found.faster.median == pytest.approx(10 / 6)
    assert [entry.tuning for entry in found.tried if entry.taken] == [
        Tuning(2), Tuning(2, parallel=True), Tuning(2, parallel=True, arena=False),
    ]  # fmt: skip
    assert steps[0] == [Tuning(), Tuning(1), Tuning(2)]
    assert steps[1] == [Tuning(2), Tuning(2, spinning=False), Tuning(2, parallel=True)]
    assert len(steps[2]) == 5
    assert steps[3] == [Tuning(), found.best]


def test_what_is_not_clearly_better_is_not_taken(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def times(tuning: Tuning) -> Rounds:
        if tuning.threads == 1:
            return 5.0, 5.0, 10.1  # much faster, but not in every round
        return (9.9, 9.9, 9.9) if not tuning.spinning else (10.0, 10.0, 10.0)

    known(monkeypatch, times)
    found = search_session(model, SAMPLES)
    assert found.best == Tuning()
    assert not any(entry.taken for entry in found.tried)
    assert found.faster.median == 1


def test_a_winner_that_wins_most_rounds_alone_loses(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Tuning] = []

    def times(tuning: Tuning) -> Rounds:
        calls.append(tuning)
        if tuning.threads != 2:
            return (10.0, 10.0, 10.0)
        return (5.0, 5.0, 5.0) if len(calls) < 12 else (9.0, 9.0, 11.0)

    known(monkeypatch, times)
    assert search_session(model, SAMPLES).best == Tuning()


def test_a_winner_that_does_not_win_again_loses(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Tuning] = []

    def times(tuning: Tuning) -> Rounds:
        calls.append(tuning)
        fast = tuning.threads == 2 and len(calls) < 12
        return (5.0, 5.0, 5.0) if fast else (10.0, 10.0, 10.0)

    known(monkeypatch, times)
    found = search_session(model, SAMPLES)
    assert any(entry.taken for entry in found.tried)
    assert found.best == Tuning()
    assert found.lost is not None
    assert (found.lost.tuning.threads, found.lost.median_ms) == (2, 10.0)
    lost = session_search.document(found)["measured"]["lost_to_defaults"]
    assert lost["settings"] == "2 threads"
    assert lost["times_faster"]["median"] == 1


def test_the_time_limit_leaves_steps_out(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = known(monkeypatch, lambda tuning: (1.0, 1.0, 1.0))
    found = search_session(model, SAMPLES, limit_seconds=-1)
    assert found.left_out == session_search._NAMES
    assert steps == [[Tuning()]]
    assert found.best == Tuning()


def test_a_sample_that_does_not_fit(model: Path) -> None:
    with pytest.raises(DataError, match="shape"):
        search_session(model, [{"x": np.ones((1, 5), np.float32)}])


@pytest.mark.slow
def test_settings_are_timed_in_processes(model: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    found = search_session(model, SAMPLES, timing=BRIEF, report=lambda *step: steps.append(step))
    assert len(found.tried) >= 7
    assert all(entry.median_ms > 0 for entry in found.tried)
    assert steps[0][0] == "time threads"
    assert steps[-1][0] == "time against the defaults"


def written(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    known(monkeypatch, lambda tuning: (1.0, 1.0, 1.0))
    found = search_session(model, SAMPLES)
    json_path, code_path = save_session(found, folder)
    assert sorted(folder.iterdir()) == [code_path, json_path]
    document: dict[str, Any] = json.loads(json_path.read_text(encoding="utf-8"))
    return document


def test_what_is_written_says_how_it_was_found(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = written(model, tmp_path / "new" / "session", monkeypatch)
    assert (document["version"], document["model"]) == (1, "model.onnx")
    measured = document["measured"]
    assert measured["onnxruntime"] == ort.__version__
    assert measured["best_ms"] == measured["default_ms"] == 1.0
    assert {entry["settings"] for entry in measured["tried"]} >= {"1 thread", "no spinning"}
    # Again into the same folder: the files are replaced.
    written(model, tmp_path / "new" / "session", monkeypatch)


def test_the_code_loads_the_model_with_onnxruntime_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "session"
    document = written(model, folder, monkeypatch)
    changed = {**document, **deployed(OTHER, "cpu")}
    (folder / "session.json").write_text(json.dumps(changed), encoding="utf-8")
    np.save(tmp_path / "x.npy", SAMPLES[0]["x"])
    code = f"""
import sys
import tempfile
import numpy as np
sys.path.insert(0, {str(folder)!r})
from load_session import load
session = load({str(model)!r})
options = session.get_session_options()
print(options.intra_op_num_threads, options.execution_mode.name, options.enable_cpu_mem_arena)
print(options.graph_optimization_level.name, options.enable_mem_pattern)
print(options.get_session_config_entry("session.intra_op.allow_spinning"))
np.save({str(tmp_path / "y.npy")!r}, session.run(None, {{"x": np.load({str(tmp_path / "x.npy")!r})}})[0])
assert not any(name.split(".")[0] == "onnxq" for name in sys.modules)
"""  # noqa: E501
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "2", "ORT_PARALLEL", "False", "ORT_ENABLE_BASIC", "False", "0",
    ]  # fmt: skip
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), SAMPLES[0]["x"] @ W, rtol=1e-5)


@pytest.mark.parametrize("tuning", [Tuning(), OTHER], ids=Tuning.changes)
def test_what_is_deployed_is_what_was_timed(tuning: Tuning, model: Path) -> None:
    session = open_session(model, tuning.settings("cpu"))
    options = session._inner.get_session_options()
    found = deployed(tuning, "cpu")
    assert options.graph_optimization_level.name == found["optimization"]
    assert options.execution_mode.name == found["execution_mode"]
    for name, value in found["session_options"].items():
        assert getattr(options, name) == value
    for key, value in found["config_entries"].items():
        assert options.get_session_config_entry(key) == value


def test_tensorrts_profile_goes_along(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "tensorrt")
    known(monkeypatch, lambda tuning: (1.0, 1.0, 1.0))
    with provider_options({"tensorrt": {"trt_fp16_enable": "1"}}):
        found = search_session(model, [{"x": normal(0, n, 4)} for n in (1, 5)], provider="tensorrt")
        path, _ = save_session(found, tmp_path / "session")
    (name, options), (last, _) = json.loads(path.read_text(encoding="utf-8"))["providers"]
    assert (name, last) == ("TensorrtExecutionProvider", "CPUExecutionProvider")
    assert options == {
        "trt_fp16_enable": "1",
        "trt_profile_min_shapes": "x:1x4",
        "trt_profile_opt_shapes": "x:1x4",
        "trt_profile_max_shapes": "x:5x4",
    }


@pytest.mark.parametrize("own", [True, False], ids=["a library", "extensions"])
def test_the_folder_can_be_moved(
    own: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extensions = pytest.importorskip("onnxruntime_extensions")
    made = proto("g (string[n] t) => (string[n] u) { u = ai.onnx.contrib.StringUpper(t) }")
    made.opset_import.add(domain="ai.onnx.contrib", version=1)
    path = tmp_path / "m.onnx"
    onnx.save(made, path)
    library = tmp_path / "ops.so"
    shutil.copy(extensions.get_library_path(), library)
    known(monkeypatch, lambda tuning: (1.0, 1.0, 1.0))
    found = search_session(model, SAMPLES)
    # Only named, for a second copy of the library would end this process.
    in_use = (library if own else Path(extensions.get_library_path()),)
    monkeypatch.setattr("onnxq.runtime.custom_ops.in_use", lambda: in_use)
    files = save_session(found, tmp_path / "made" / "session")
    assert [file.name for file in files][2:] == ["ops.so"] * own
    library.unlink()
    moved = (tmp_path / "made").rename(tmp_path / "moved") / "session"
    assert str(tmp_path) not in (moved / "session.json").read_text(encoding="utf-8")
    code = f"""
import sys
import tempfile
import numpy as np
sys.path.insert(0, {str(moved)!r})
from load_session import load
print(*load({str(path)!r}).run(None, {{"t": np.asarray(["a", "b"])}})[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["A", "B"]


def test_libraries_of_one_name_keep_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    given = (Path("/one/ops.so"), Path("/two/ops.so"), Path("/two/ops-2.so"))
    monkeypatch.setattr("onnxq.runtime.custom_ops.in_use", lambda: given)
    assert dict(portable()) == dict(zip(("ops.so", "ops-2.so", "ops-2-2.so"), given, strict=True))


def test_kept_engines_lie_in_the_folder_of_the_session(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "tensorrt")
    known(monkeypatch, lambda tuning: (1.0, 1.0, 1.0))
    with engine_cache(tmp_path / "cache"):
        found = search_session(model, SAMPLES, provider="tensorrt")
        path, _ = save_session(found, tmp_path / "session")
    options = json.loads(path.read_text(encoding="utf-8"))["providers"][0][1]
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == "engines"
    # What is written is what ONNX Runtime is given, but for where the folder lies.
    given: list[Any] = []
    monkeypatch.setattr(ort, "InferenceSession", lambda *a, **k: given.append(k["providers"]))
    space: dict[str, Any] = {"__file__": str(tmp_path / "session" / "load_session.py")}
    exec((tmp_path / "session" / "load_session.py").read_text(encoding="utf-8"), space)
    space["load"](str(model))
    ((name, handed), _) = given[0]
    assert name == "TensorrtExecutionProvider"
    assert handed["trt_engine_cache_path"] == str(tmp_path / "session" / "engines")
    assert handed["trt_engine_cache_enable"] == handed["trt_timing_cache_enable"] == "1"


def test_options_of_the_provider_go_along() -> None:
    with provider_options({"cpu": {"key": "value"}}):
        assert deployed(Tuning(), "cpu")["providers"] == [
            ["CPUExecutionProvider", {"key": "value"}]
        ]


def test_a_folder_that_cannot_be_made(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    known(monkeypatch, lambda tuning: (1.0, 1.0, 1.0))
    found = search_session(model, SAMPLES)
    with pytest.raises(UsageError, match="cannot be written") as caught:
        save_session(found, tmp_path / "file" / "session")
    assert caught.value.remedy


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    check_folder(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(UsageError, match="cannot be written: Permission denied") as caught:
        check_folder(tmp_path / "new" / "deep")
    assert caught.value.where == str(tmp_path / "new" / "deep")


def test_changes_in_words() -> None:
    assert Tuning().changes() == "the defaults"
    assert OTHER.changes() == (
        "2 threads, no spinning, optimization basic, operators in parallel, no memory arena, "
        "no memory pattern"
    )
