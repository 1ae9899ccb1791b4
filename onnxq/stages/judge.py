"""Judge a verification: what bound was missed, and what the user must be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.algorithms.scheme_choice import AS_FAST, AS_LARGE, LOW_SQNR
from onnxq.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxq.runtime.timing import Ratio
    from onnxq.verify.kernels import KernelReport
    from onnxq.verify.verification import Verification


def missed_bound(verification: Verification, min_sqnr: float | None) -> str:
    """The bound that the result misses, in a sentence; empty if it misses none.

    Raises:
        InternalError: The result gives NaN or Inf where the float model does not: no user can
            want it, so it is never handed over.
    """
    found = verification.fidelity
    if found.not_finite:
        code = "verify.not_finite"
        text = f"the quantized model gives NaN or Inf in {', '.join(found.not_finite)}"
        remedy = "`onnxq inspect MODEL --data DATA` shows which site; exclude it"
        raise InternalError(code, text, remedy=remedy)
    if min_sqnr is None:
        return ""
    if found.sqnr_db is None:
        why = "no float output to measure SQNR on" if found.compared else found.remarks[0]
        return f"{why}, but {min_sqnr:g} dB were asked for"
    # A NaN is no number above the bound.
    if not found.sqnr_db >= min_sqnr:
        return f"SQNR {found.sqnr_db:.2f} dB is below the {min_sqnr:g} dB asked for"
    return ""


def warnings(verification: Verification, worst: Sequence[str]) -> tuple[str, ...]:
    """Everything about the result that its user should know before deploying it.

    Args:
        verification: What was measured.
        worst: The sites whose activations cost most, as far as that is known.
    """
    fidelity, kernels, latency = (
        verification.fidelity,
        verification.kernels,
        verification.latency,
    )
    texts = []
    if verification.made_up:
        texts.append(
            "not verified on real data: accuracy and speed are those on made-up inputs; give --data"
        )
    elif fidelity.compared and not fidelity.independent:
        texts.append(
            "not independently verified: calibration saw samples that the comparison used; "
            "give more samples, or others with --eval-data"
        )
    texts.extend(fidelity.remarks)
    if fidelity.sqnr_db is not None and fidelity.sqnr_db < LOW_SQNR:
        texts.append(_why_wrong(fidelity.sqnr_db, worst))
    if kernels.without_kernel:
        texts.append(_why_float(kernels))
    if kernels.missed:
        named = ", ".join(kernels.missed[:5])
        planned = kernels.planned + kernels.planned_blocks + kernels.planned_folded
        texts.append(f"{len(kernels.missed)} of {planned} planned sites run in float: {named}")
    if verification.size_ratio < 1 - AS_LARGE:
        texts.append(
            f"larger than float: {1 / verification.size_ratio:.2f} times its size; what is stored "
            "beside its integers outweighs what they save"
        )
    if latency is not None and latency.ratio.median < AS_FAST:
        slow = latency.ratio
        texts.append(_why_slow(kernels, slow.median) if slow.clear else _perhaps_slow(slow))
    elif abs(verification.size_ratio - 1) <= AS_LARGE:
        texts.extend(_nothing_gained(verification))
    return tuple(texts)


def _nothing_gained(verification: Verification) -> Iterator[str]:
    """Where it is as large as the float model and not clearly faster."""
    latency = verification.latency
    if latency is not None and latency.ratio.low > 1:
        return
    speed = "nothing was timed" if latency is None else "not clearly faster"
    yield (
        f"nothing was gained: it is as large as the float model, and {speed}; what is quantized is "
        "too small a part of it (every site that stays float says why)"
    )


def _perhaps_slow(ratio: Ratio) -> str:
    return (
        f"perhaps slower than float: {ratio.median:.2f} times its speed, from {ratio.low:.2f} to "
        f"{ratio.high:.2f} in single rounds, which do not agree; measure again on a quiet machine"
    )


def _why_wrong(sqnr: float, worst: Sequence[str]) -> str:
    named = f"; the activations that cost most are those of {', '.join(worst)}" if worst else ""
    return (
        f"low accuracy: {sqnr:.1f} dB SQNR{named}; "
        "`onnxq inspect MODEL --data DATA` lists every site's error"
    )


def _why_float(kernels: KernelReport) -> str:
    names = kernels.without_kernel
    return (
        f"{len(names)} sites run in float behind QuantizeLinear and DequantizeLinear, because the "
        "provider has no kernel for the integers that the recipe gives their activations: "
        f"{', '.join(names[:5])}"
    )


def _why_slow(kernels: KernelReport, ratio: float) -> str:
    text = f"slower than float: {ratio:.2f} times its speed"
    if kernels.missed or kernels.without_kernel:
        return f"{text}; the cause is the sites that run in float behind Q/DQ pairs, named above"
    if kernels.planned_blocks:
        return f"{text}, though all {kernels.blocks} planned sites run on weights in blocks"
    if kernels.planned_folded:
        return f"{text}, though its weights are float once it is loaded: measure again"
    if kernels.planned_half:
        return f"{text}: at these shapes the provider gains nothing from 16 bits"
    if not kernels.planned:
        return f"{text}; its weights are dequantized at each inference, which buys only size"
    text = f"{text}, though all {kernels.integer} planned sites run in integer kernels"
    if kernels.behind:
        named = ", ".join(f"{count} {op}" for op, count in list(kernels.behind.items())[:4])
        return (
            f"{text}: between them {kernels.conversions} conversions to and from integers are "
            f"executed for operators that stay float ({named})"
        )
    return f"{text} and nothing else is converted: at these shapes its float kernels are faster"
