"""What the user is told of a result."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from onnxq.errors import InternalError
from onnxq.runtime.timing import LatencyResult, Ratio
from onnxq.stages.judge import missed_bound, warnings
from onnxq.verify.fidelity import Fidelity
from onnxq.verify.kernels import KernelReport
from onnxq.verify.verification import Latency, Verification

FIDELITY = Fidelity(
    output="y",
    sqnr_db=30.0,
    cosine=0.999,
    max_error=0.1,
    equal_share=None,
    top1_agreement=None,
    float_accuracy=None,
    quantized_accuracy=None,
    not_finite=(),
    left_out=0,
    other_shape=0,
    samples=8,
    independent=True,
)
NOTHING = replace(FIDELITY, output="", sqnr_db=None, cosine=None, max_error=None)
KERNELS = KernelReport(
    planned=3,
    integer=3,
    by_op={"QLinearConv": 3},
    missed=(),
    planned_blocks=0,
    blocks=0,
    conversions=2,
    behind={},
    mac_share=1.0,
)


def latency(ratio: float) -> Latency:
    result = LatencyResult(1.0, 1.0, 1.0, 1.0, (1.0,), 0.1, 1)
    return Latency(result, result, Ratio(ratio, ratio, ratio))


def told(
    fidelity: Fidelity = FIDELITY, kernels: KernelReport = KERNELS, ratio: float | None = None
) -> tuple[str, ...]:
    timed = None if ratio is None else latency(ratio)
    return warnings(Verification(fidelity, kernels, timed, 2, 1), ())


def test_a_good_result_needs_no_words() -> None:
    assert told() == ()
    assert told(ratio=1.5) == ()
    assert told(ratio=0.97) == ()


def timed(median: float, low: float, high: float, *, smaller: float = 2.0) -> tuple[str, ...]:
    """What is told of a result that is so many times faster, and smaller, than float."""
    found = replace(latency(median), ratio=Ratio(median, low, high))
    return warnings(Verification(FIDELITY, KERNELS, found, round(1000 * smaller), 1000), ())


def test_rounds_that_do_not_agree_are_no_proof_of_slowness() -> None:
    (text,) = timed(0.9, 0.8, 1.05)
    assert text.startswith("perhaps slower than float: 0.90 times its speed, from 0.80 to 1.05")
    (text,) = timed(0.9, 0.8, 0.95)
    assert text.startswith("slower than float: 0.90 times its speed")
    assert timed(0.98, 0.9, 1.2) == ()


def test_as_large_and_not_faster_is_nothing_gained() -> None:
    for found in (timed(1.0, 0.99, 1.02, smaller=1.01), timed(0.99, 0.98, 0.995, smaller=0.99)):
        (text,) = found
        assert text.startswith("nothing was gained: it is as large as the float model, and not")
    assert timed(1.5, 1.2, 1.9, smaller=1.0) == ()
    (text,) = warnings(Verification(FIDELITY, KERNELS, None, 1000, 1000), ())
    assert "nothing was timed" in text
    (text,) = warnings(Verification(FIDELITY, KERNELS, None, 1000, 1250), ())
    assert text.startswith("larger than float: 1.25 times its size")


def test_slower_because_of_what_stays_float_between() -> None:
    """The operators are named with the conversions made for them, the most frequent first."""
    behind = {"HardSwish": 12, "Softmax": 4, "Elu": 3, "Erf": 2, "Selu": 1}
    kernels = replace(KERNELS, conversions=34, behind=behind)
    (text,) = told(kernels=kernels, ratio=0.8)
    assert "0.80 times" in text
    assert "all 3 planned sites run in integer kernels" in text
    assert "34 conversions" in text
    assert "(12 HardSwish, 4 Softmax, 3 Elu, 2 Erf)" in text
    assert told(kernels=kernels) == told(kernels=kernels, ratio=1.2) == ()


def test_slower_though_nothing_is_converted_between() -> None:
    (text,) = told(ratio=0.5)
    assert "nothing else is converted" in text
    assert "conversions" not in text


def test_slower_because_sites_run_in_float() -> None:
    kernels = replace(KERNELS, integer=1, missed=("a", "b"), behind={"Conv": 2})
    missed, slow = told(kernels=kernels, ratio=0.5)
    assert missed == "2 of 3 planned sites run in float: a, b"
    assert "sites that run in float" in slow
    assert "conversions" not in slow


def test_sites_without_a_kernel_are_told_once() -> None:
    kernels = replace(KERNELS, planned=1, integer=1, without_kernel=("/a", "/b"))
    (text,) = told(kernels=kernels)
    assert text.startswith("2 sites run in float")
    assert text.endswith("/a, /b")
    assert "named above" in told(kernels=kernels, ratio=0.5)[1]


def test_low_accuracy_and_no_independence_are_told() -> None:
    first, second = told(replace(FIDELITY, sqnr_db=9.94, independent=False))
    assert first.startswith("not independently verified: calibration saw samples")
    assert "9.9 dB" in second
    assert len(told(replace(FIDELITY, sqnr_db=-math.inf))) == 1


@pytest.mark.parametrize(
    ("sqnr", "bound", "missed"),
    [
        (30.0, None, False),
        (30.0, 30.0, False),
        (29.99, 30.0, True),
        (math.inf, 200.0, False),
        (-math.inf, 0.0, True),
        (math.nan, 0.0, True),
        (math.nan, None, False),
    ],
)
def test_bounds(sqnr: float, bound: float | None, missed: bool) -> None:
    found = Verification(replace(FIDELITY, sqnr_db=sqnr), KERNELS, None, 2, 1)
    assert bool(missed_bound(found, bound)) is missed


def test_nothing_compared_is_told_and_misses_any_bound() -> None:
    assert told(NOTHING) == ("not compared: the outputs hold no elements",)
    apart = replace(NOTHING, other_shape=8)
    (text,) = told(apart)
    assert text.startswith("not compared: in 8 of 8 samples outputs have another shape")
    (text,) = told(replace(NOTHING, left_out=12))
    assert text.startswith("not compared: 12 elements are Inf or NaN")
    found = Verification(apart, KERNELS, None, 2, 1)
    assert missed_bound(found, None) == ""
    missed = missed_bound(found, -100.0)
    assert missed.startswith("not compared: in 8 of 8")
    assert missed.endswith("-100 dB were asked for")


def test_only_equal_elements_are_a_figure_but_no_sqnr() -> None:
    equal = replace(NOTHING, output="label", equal_share=1.0)
    assert told(equal) == ()
    (text,) = told(replace(equal, equal_share=0.99999))
    assert text == "0.001 % of the elements of label differ from the float model's"
    missed = missed_bound(Verification(equal, KERNELS, None, 2, 1), 20.0)
    assert missed == "no float output to measure SQNR on, but 20 dB were asked for"
    # A float output is what is measured, where there is one.
    assert told(replace(FIDELITY, equal_share=0.5)) == ()


def test_what_the_figures_leave_out_is_told() -> None:
    shapes, elements = told(replace(FIDELITY, left_out=5, other_shape=2))
    assert shapes.startswith("in 2 of 8 samples outputs have another shape")
    assert elements.startswith("5 elements are Inf or NaN in the float model's output")


def test_an_sqnr_that_is_no_number_is_told() -> None:
    (text,) = told(replace(FIDELITY, sqnr_db=math.nan))
    assert text == "the SQNR of y is not a number, so it says nothing"


def test_a_result_that_is_not_finite_is_never_handed_over() -> None:
    found = Verification(replace(FIDELITY, not_finite=("y", "z")), KERNELS, None, 2, 1)
    with pytest.raises(InternalError, match="NaN or Inf in y, z"):
        missed_bound(found, None)


def test_other_outputs_that_are_far_off_are_named_worst_first() -> None:
    others = {"a": 30.0, "b": 9.0, "c": -3.0, "d": math.nan}
    (text,) = told(replace(FIDELITY, others=others))
    assert text.startswith("low accuracy in outputs beside the first: ")
    assert "'b' 9.0 dB" in text
    assert "'c' -3.0 dB" in text
    assert "'a'" not in text
    (many,) = told(replace(FIDELITY, others={f"y{n}": float(n - 20) for n in range(15)}))
    assert many.count("dB") == 10
    assert "'y0' -20.0 dB" in many
    assert many.endswith("and 5 more")
