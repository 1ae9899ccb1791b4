"""Numbers as people read them, and tables that cut nothing."""

from __future__ import annotations

import io

import pytest

from onnxq.cli.console import (
    bytes_text,
    console,
    count_text,
    db_text,
    line,
    ms_text,
    percent_text,
    table,
)
from onnxq.wording import perplexity_text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (105_152, "105 kB"), (999_999, "1.00 MB")],
)
def test_bytes(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_other_numbers() -> None:
    assert [count_text(n) for n in (None, 7, 1_810_000)] == ["-", "7", "1.81 M"]
    assert [ms_text(x) for x in (0.0853, 17.94, 1234.5)] == ["0.0853 ms", "17.9 ms", "1230 ms"]
    decibels = [None, 35.734, float("inf"), float("-inf"), float("nan")]
    assert [db_text(x) for x in decibels] == ["-", "35.7 dB", "equal", "-inf dB", "-"]
    assert [percent_text(x) for x in (None, 0.999)] == ["-", "99.90 %"]


def test_names_fold_and_nothing_is_cut() -> None:
    stream = io.StringIO()
    name = "encoder.layer[0]." * 9 + ":smile: [red]x"
    shown = table("sites", ["site"], ["operator", "weight"])
    shown.add_row(line(name), "MatMul", "1024x1024")
    screen = console(stream)
    screen.width = 80
    screen.print(shown)
    rows = stream.getvalue().splitlines()[3:]
    assert max(map(len, rows)) <= 80
    assert "".join(row[:60].split("  ")[0].rstrip() for row in rows).replace(" ", "") == (
        name.replace(" ", "")
    )
    assert "MatMul  1024x1024" in rows[0]


@pytest.mark.parametrize(
    ("value", "text"), [(27.8374, "27.837"), (15110469841255067648.0, "1.511e+19"), (None, "-")]
)
def test_a_perplexity_is_no_wider_than_a_column(value: float | None, text: str) -> None:
    assert perplexity_text(value) == text
