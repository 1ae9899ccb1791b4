"""The report in a real Chromium: nothing asked for, nothing complained of, readable in any light.

``PLAYWRIGHT_SCREENSHOTS=FOLDER`` keeps the screenshots to be looked at.
"""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tests.compare.report.conftest import Written

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_LEAST_CONTRAST = 4.5


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(params=["light", "dark"])
def page(
    request: pytest.FixtureRequest, browser: Browser, written: Written
) -> Iterator[tuple[Page, list[str]]]:
    scheme: Literal["light", "dark"] = request.param
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": 1200, "height": 900}, offline=True
    )
    opened = context.new_page()
    told: list[str] = []
    opened.on("console", lambda message: told.append(message.text))
    opened.on("pageerror", lambda error: told.append(str(error)))
    opened.on("request", lambda asked: told.append(asked.url))
    opened.on("dialog", lambda dialog: told.append(dialog.message))
    opened.goto(written.path.as_uri())
    yield opened, told
    context.close()


def test_it_opens_without_a_word_and_asks_for_nothing(
    page: tuple[Page, list[str]], written: Written
) -> None:
    opened, told = page
    opened.wait_for_timeout(100)
    assert told == [written.path.as_uri()]
    assert opened.title().startswith("onnxq report: <b>second & third.onnx on cpu is ")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 1200


def test_light_and_dark_look_it(page: tuple[Page, list[str]]) -> None:
    opened, _ = page
    dark = opened.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    shot = opened.screenshot(full_page=True)
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("L"), np.float64)
    assert pixels.mean() < 80 if dark else pixels.mean() > 180
    # More than a page of one colour.
    assert pixels.std() > 10
    folder = os.environ.get("PLAYWRIGHT_SCREENSHOTS")
    if folder:
        Path(folder, f"report-{'dark' if dark else 'light'}.png").write_bytes(shot)


def test_texts_have_contrast(page: tuple[Page, list[str]]) -> None:
    opened, _ = page
    found: list[dict[str, Any]] = opened.evaluate(_COLOURS)
    assert len(found) > 50
    for text in found:
        ratio = _contrast(text["ink"], text["paper"])
        assert ratio >= _LEAST_CONTRAST, (text["what"], ratio)


def test_it_can_be_used_with_the_keyboard(page: tuple[Page, list[str]]) -> None:
    opened, _ = page
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.textContent") == "Skip to the numbers"
    opened.locator("summary").first.focus()
    assert opened.locator("details[open]").count() == 0
    opened.keyboard.press("Enter")
    assert opened.locator("details[open]").count() == 1


def test_a_narrow_screen_and_paper_cut_nothing_off(page: tuple[Page, list[str]]) -> None:
    opened, _ = page
    opened.set_viewport_size({"width": 360, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    opened.emulate_media(media="print")
    assert (
        opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )


_COLOURS = """() => {
  const paper = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (!c.endsWith(', 0)') && c !== 'transparent') return c;
    }
    return 'rgb(255, 255, 255)';
  };
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  return [...document.querySelectorAll('body *')]
    .filter((e) => own(e) && e.checkVisibility())
    .map((e) => ({
      what: e.tagName + ' ' + e.textContent.trim().slice(0, 40),
      ink: e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color,
      paper: paper(e),
    }));
}"""


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance; between 1 and 21."""
    first, second = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (first + 0.05) / (second + 0.05)


def _luminance(colour: str) -> float:
    parts = colour.removeprefix("rgb(").removesuffix(")").split(",")
    channels = np.asarray([float(part) for part in parts]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
