"""Which measured result is taken: accurate first, then not slower than float, then the best."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.algorithms.scheme_choice import AS_FAST, Trial, choose_form, choose_scheme


def trial(
    name: str, sqnr: float | None, ratio: float | None, agreement: float | None = None
) -> Trial:
    return Trial(name, name.partition(",")[0], sqnr, agreement, ratio, 1000)


def test_the_fastest_accurate_one_is_taken_and_the_others_are_told() -> None:
    trials = [trial("int8", 20.0, 2.5), trial("int8-dynamic", 19.0, 2.0), trial("slow", 30.0, 0.8)]
    best, reason = choose_scheme(trials, None)
    assert best is trials[0]
    for text in ("int8 (20.0 dB, 2.50", "int8-dynamic (19.0 dB, 2.00", "slow (30.0 dB, 0.80"):
        assert text in reason


def test_nearly_as_fast_and_more_accurate_wins() -> None:
    trials = [trial("int8", 18.0, 2.00), trial("int8-dynamic", 21.0, 1.95)]
    assert choose_scheme(trials, None)[0] is trials[1]
    trials = [trial("int8", 18.0, 2.00), trial("int8-dynamic", 21.0, 1.80)]
    assert choose_scheme(trials, None)[0] is trials[0]


@pytest.mark.parametrize(
    ("trials", "why"),
    [
        ([trial("int8", 20.0, 0.9), trial("int8-dynamic", 20.0, 0.5)], "none is as fast as float"),
        ([trial("int8", 3.0, 2.0), trial("int8-dynamic", 9.9, 2.0)], "none is accurate enough"),
        ([trial("int8", 3.0, 2.0), trial("int8-weights", 30.0, 0.6)], "none is as fast as float"),
    ],
)
def test_where_nothing_pays_the_model_stays_float(trials: list[Trial], why: str) -> None:
    best, reason = choose_scheme(trials, None)
    assert best is None
    assert reason.startswith(why)


def test_agreeing_classes_make_up_for_a_low_sqnr() -> None:
    assert choose_scheme([trial("int8", 8.0, 2.0, 0.995)], None)[0] is not None
    assert choose_scheme([trial("int8", 8.0, 2.0, 0.95)], None)[0] is None


def test_a_bound_rules_out_what_is_faster() -> None:
    trials = [trial("int8", 18.0, 2.5), trial("int8-weights", 30.0, 1.0)]
    assert choose_scheme(trials, 25.0)[0] is trials[1]


def test_a_bound_that_nothing_reaches_leaves_the_most_accurate_to_be_judged() -> None:
    best, reason = choose_scheme([trial("int8", 18.0, 2.5), trial("w", 30.0, 0.7)], 40.0)
    assert best is not None
    assert best.name == "w"
    assert "none reaches 40 dB" in reason


def test_the_form_is_the_most_accurate_that_is_not_slower() -> None:
    trials = [trial("128", 27.0, 1.1), trial("64", 29.0, 0.98), trial("32", 31.0, 0.8)]
    assert choose_form(trials, None).name == "64"
    slow = [trial("128", 27.0, 0.9), trial("64", 29.0, 0.7)]
    assert choose_form(slow, None).name == "128"
    assert choose_form(slow, 28.0).name == "64"
    assert choose_form(slow, 90.0).name == "64"


def test_a_form_that_is_small_in_memory_too_is_preferred() -> None:
    folded = replace(trial("folded", 28.0, 1.0), folded=True)
    assert choose_form([trial("128", 27.0, 1.1), folded], None).name == "128"
    assert choose_form([trial("128", 27.0, 0.9), folded], None).name == "folded"
    assert choose_form([trial("128", 27.0, 1.1), folded], 27.5).name == "folded"
    few = replace(trial("128", 27.0, 1.1), bytes=2000)
    assert choose_form([few, folded], None).name == "folded"


def test_what_failed_is_never_taken() -> None:
    failed = replace(trial("int8", None, None), failed="no kernel")
    assert choose_scheme([failed, trial("int8-dynamic", 12.0, 1.2)], None)[0] is not failed
    assert choose_scheme([failed, trial("int8-dynamic", 12.0, 1.2)], 20.0)[0] is not failed
    assert choose_scheme([failed], None)[0] is None
    assert choose_form([failed, trial("64", 12.0, 0.5)], None).name == "64"


numbers = st.floats(-20, 90)
ratios = st.floats(0.1, 10)


@given(st.lists(st.tuples(numbers, ratios), min_size=1, max_size=6), st.none() | numbers)
def test_what_auto_takes_is_accurate_and_not_slower_unless_a_bound_is_missed(
    found: list[tuple[float, float]], bound: float | None
) -> None:
    trials = [trial(str(index), sqnr, ratio) for index, (sqnr, ratio) in enumerate(found)]
    best, reason = choose_scheme(trials, bound)
    assert reason
    if best is None:
        assert not any(t.accurate(bound) and t.as_fast for t in trials)
    elif best.accurate(bound):
        assert best.ratio is not None
        assert best.ratio >= AS_FAST
    else:
        assert not any(t.accurate(bound) for t in trials)
