"""The verdict of ``quantize``: what it says of size and speed agrees with the numbers."""

from __future__ import annotations

import pytest

from onnxq.cli.show_quantize import size_text, speed_text
from onnxq.runtime.timing import Ratio


@pytest.mark.parametrize(
    ("median", "low", "high", "text"),
    [
        (1.5, 1.2, 1.9, "1.50 times as fast as float"),
        (0.8, 0.7, 0.9, "0.80 times as fast as float, SLOWER"),
        (0.998, 0.93, 1.08, "1.00 times as fast as float (0.93 to 1.08, no clear difference)"),
        (0.9, 0.7, 1.1, "0.90 times as fast as float (0.70 to 1.10, no clear difference)"),
        (1.3, 0.9, 1.7, "1.30 times as fast as float (0.90 to 1.70, no clear difference)"),
        # As fast by definition, though every round was a little slower.
        (0.997, 0.99, 0.999, "1.00 times as fast as float"),
        (0.97, 0.97, 0.98, "0.97 times as fast as float"),
    ],
)
def test_speed(median: float, low: float, high: float, text: str) -> None:
    assert speed_text(Ratio(median, low, high)) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (3.9, "3.90 times smaller"),
        (1.004, "as large as float"),
        (0.99, "as large as float"),
        (0.8, "1.25 times LARGER"),
    ],
)
def test_size(ratio: float, text: str) -> None:
    assert size_text(ratio) == text
