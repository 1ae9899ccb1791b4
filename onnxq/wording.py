"""Numbers, sizes and foreign names as people read them, on a terminal and in a report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

DASH: Final = "-"
"""Stands where there is no number."""

_MOST_PLAIN: Final = 1e6


def printable(text: str) -> str:
    """The text on one line, with escapes for what a terminal would obey."""
    flat = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in flat)


def number_text(value: float | None, form: str) -> str:
    """The number in that format; a dash for None."""
    return DASH if value is None else format(value, form)


def bytes_text(count: float) -> str:
    """``105 kB``, in powers of 1000."""
    return f"{_scaled(count, ('', 'k', 'M', 'G', 'T'))}B"


def count_text(count: int | None) -> str:
    """``1.23 M``."""
    return DASH if count is None else _scaled(count, ("", "k", "M", "G", "T")).rstrip()


def ms_text(milliseconds: float) -> str:
    """Three significant digits and the unit."""
    return f"{_three(milliseconds)} ms"


def db_text(decibels: float | None) -> str:
    """One decimal; a dash for None."""
    if decibels is None or math.isnan(decibels):
        return DASH
    return f"{decibels:.1f} dB" if math.isfinite(decibels) else _infinite(decibels)


def percent_text(share: float | None) -> str:
    """``99.90 %``; a dash for None."""
    return DASH if share is None else f"{share:.2%}".replace("%", " %")


def perplexity_text(value: float | None) -> str:
    """Three decimals; four digits and a power of ten where it is too wide for a table."""
    return DASH if value is None else format(value, ".3f" if value < _MOST_PLAIN else ".4g")


def times_text(ratio: float, low: float, high: float) -> str:
    """``1.83 (1.51-2.15)``."""
    return f"{ratio:.2f} ({low:.2f}-{high:.2f})"


def _infinite(decibels: float) -> str:
    return "equal" if decibels > 0 else "-inf dB"


def _scaled(count: float, prefixes: Sequence[str]) -> str:
    power = 0
    while count >= 999.5 and power < len(prefixes) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.0f} " if power == 0 else f"{_three(count)} {prefixes[power]}"


def _three(number: float) -> str:
    """Three significant digits, without an exponent."""
    if not math.isfinite(number) or number == 0:
        return f"{number:.0f}" if number == 0 else DASH
    # Rounded first: 0.9999 has its three digits as 1.00.
    number = float(f"{number:.3g}")
    decimals = max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{number:.{min(decimals, 6)}f}"
