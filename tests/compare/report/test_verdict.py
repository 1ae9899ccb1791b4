"""The verdict is made from the numbers, and what is wrong stands in front."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from onnxq.compare.report.page import render
from onnxq.compare.report.verdict import best_run, headline, sentence, warnings
from onnxq.runtime.placement import PlacedNode
from onnxq.runtime.timing import Ratio

if TYPE_CHECKING:
    from onnxq.compare.compare import ComparedRun
    from onnxq.compare.report.evidence import Evidence
    from tests.compare.report.conftest import Written


def _with(found: Evidence, *others: ComparedRun) -> Evidence:
    runs = (found.comparison.runs[0], *others)
    maps = (found.maps[0], *(found.maps[1] for _ in others))
    return replace(found, comparison=replace(found.comparison, runs=runs), maps=maps)


def _run(found: Evidence, ratio: float, smaller: float, sqnr: float) -> ComparedRun:
    first, run = found.comparison.runs[:2]
    assert run.fidelity is not None
    return replace(
        run,
        ratio=Ratio(ratio, ratio, ratio),
        file_bytes=round(first.file_bytes / smaller),
        fidelity=replace(run.fidelity, sqnr_db=sqnr),
    )


@pytest.mark.parametrize(
    ("ratio", "smaller", "sqnr", "words"),
    [
        (1.94, 4.0, 19.32, "is 1.9 times as fast and 4.0 times smaller; outputs agree to 19.3 dB"),
        (1.0, 1.0, float("inf"), "is as fast and as large; outputs are equal"),
        (1.05, 0.5, 40.0, "is 1.05 times as fast and 2.0 times larger; outputs agree to 40.0 dB"),
        (0.8, 2.0, 25.0, "is slower, 0.80 times as fast and 2.0 times smaller; outputs agree"),
    ],
)
def test_the_sentence_says_the_numbers(
    written: Written, ratio: float, smaller: float, sqnr: float, words: str
) -> None:
    found = written.evidence
    text = headline(_with(found, _run(found, ratio, smaller, sqnr)))
    assert words in text
    assert text.startswith("<b>second & third.onnx on cpu is ")
    assert text.endswith("; nothing fell back.")


@pytest.mark.parametrize(
    ("sqnr", "others", "words"),
    [
        (float("inf"), {"w": -15.56}, "; what was compared of v is equal, w to -15.6 dB; "),
        (float("inf"), {"w": float("inf")}, "; outputs are equal; "),
        (30.0, {"w": 12.0, "z": 50.0}, "; outputs agree to 30.0 dB, w to 12.0 dB; "),
        (30.0, {"w": 40.0}, "; outputs agree to 30.0 dB; "),
    ],
)
def test_an_output_that_is_farther_than_the_first_is_named(
    written: Written, sqnr: float, others: dict[str, float], words: str
) -> None:
    run = _run(written.evidence, 1.5, 2, sqnr)
    assert run.fidelity is not None
    fidelity = replace(run.fidelity, output="v", others=others)
    assert words in headline(_with(written.evidence, replace(run, fidelity=fidelity)))


def test_the_fastest_sound_run_makes_the_headline(written: Written) -> None:
    found = written.evidence
    slow, fast = _run(found, 1.1, 2, 30), _run(found, 2.0, 4, 20)
    broken = _run(found, 9.0, 4, 20)
    assert broken.fidelity is not None
    broken = replace(broken, fidelity=replace(broken.fidelity, not_finite=("y",)))
    every = _with(found, slow, fast, broken)
    assert best_run(every) == 2
    assert "its outputs hold NaN or Inf" in sentence(every, 3)


def test_what_is_wrong_is_told_first(written: Written) -> None:
    found = written.evidence
    every = _with(found, _run(found, 0.5, 4, 4.2))
    texts = warnings(every)
    assert texts[0] == "run 2: outputs agree to 4.2 dB only"
    assert texts[1] == "run 2 is slower than the first model on cpu: 0.50 times its speed"
    page = render(replace(every, models=()))
    assert page.index("outputs agree to 4.2 dB only") < page.index("<h1>")
    good = _with(found, _run(found, 1.5, 4, 30))
    assert not any("run 2" in text for text in warnings(good))


def test_rounds_that_do_not_agree_say_so(written: Written) -> None:
    found = written.evidence
    run = replace(_run(found, 0.94, 4, 30), ratio=Ratio(0.94, 0.85, 1.04))
    every = _with(found, run)
    rounds = "0.85 to 1.04 in single rounds, which do not agree"
    assert f"is about as fast (0.94 times, {rounds}) and 4.0 times smaller" in headline(every)
    assert warnings(every)[0] == (
        f"run 2 is perhaps slower than the first model on cpu: 0.94 times its speed, {rounds}"
    )


def test_nodes_that_fell_back_are_counted(written: Written) -> None:
    found = written.evidence
    run = _run(found, 1.5, 4, 30)
    away = PlacedNode("n", "TopK", "", "CPUExecutionProvider", "CUDA has no kernel for this TopK")
    meant = replace(away, op="Gather", reason="shape arithmetic: faster on the CPU")
    placement = replace(run.placement, asked="CUDAExecutionProvider", nodes=(away, meant))
    text = headline(_with(found, replace(run, provider="cuda", placement=placement)))
    assert text.endswith("; 1 node does not run on cuda (TopK).")
