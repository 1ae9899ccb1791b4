"""The page: valid, self-contained, escaped, bounded, and a table beside every picture."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import html5lib
import pytest

from onnxq.compare.report.graph_map import GraphMap, MappedNode
from onnxq.compare.report.page import render
from onnxq.compare.session_search import SessionSearch, Tried
from onnxq.compare.throughput import Throughput
from onnxq.runtime.timing import Ratio, TimingSettings
from onnxq.runtime.tuning import Tuning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    from onnxq.compare.report.evidence import Evidence
    from tests.compare.report.conftest import Written

MOST_BYTES = 5_000_000
_LOADING = ("src", "href", "srcset", "data", "poster", "action", "background")


def _parse(text: str) -> Any:
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(text)


def _elements(text: str) -> Iterator[Element]:
    yield from (element for element in _parse(text).iter() if isinstance(element.tag, str))


def test_it_is_valid_html(written: Written) -> None:
    assert _parse(written.text).find("body/main") is not None


def test_identifiers_are_unique_and_links_lead_somewhere(written: Written) -> None:
    elements = list(_elements(written.text))
    names = [element.get("id") for element in elements if element.get("id")]
    assert len(set(names)) == len(names)
    links = [element.get("href", "") for element in elements if element.tag == "a"]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(names)


def test_nothing_is_loaded_and_no_script_runs(written: Written) -> None:
    for element in _elements(written.text):
        tag = element.tag.rpartition("}")[2]
        assert tag not in {"script", "iframe", "object", "embed", "link", "img", "image", "base"}
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on"), (tag, name)
            if name.rpartition("}")[2] in _LOADING:
                assert value.startswith("#"), (tag, name, value)
            assert not re.search(r"url\((?!#)", value), (tag, name, value)
        if tag == "style":
            assert not re.search(r"@import|@font-face|https?:|url\((?!#)", element.text or "")
    policy = next(e for e in _elements(written.text) if e.get("http-equiv"))
    assert policy.get("content") == "default-src 'none'; style-src 'unsafe-inline'"


def test_names_of_models_and_nodes_are_text(written: Written) -> None:
    text = written.text
    assert "<script" not in text
    assert "<img" not in text
    assert "<b>second" not in text
    assert "&lt;b&gt;second &amp; third.onnx" in text
    # What a template, a terminal or a reader of bidirectional text would obey is shown, not done.
    assert "{{ 7*7 }}" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_every_picture_has_a_text_and_a_table_beside_it(written: Written) -> None:
    page = _parse(written.text)
    pictures = 0
    for section in page.iter("section"):
        here = [e for e in section.iter("div") if e.get("role") == "img"]
        pictures += len(here)
        if here:
            assert next(section.iter("table"), None) is not None
        for picture in here:
            assert picture.get("aria-label")
    # Latency, layers, the distributions of three layers, and a map of each run.
    assert pictures == 7
    for table in page.iter("table"):
        assert "".join(table.find("caption").itertext())
        widths = {len(list(row)) for row in table.iter("tr")}
        assert len(widths) == 1


def test_figures_take_their_colours_from_the_page(written: Written) -> None:
    figures = re.findall(r"<svg .*?</svg>", written.text, re.DOTALL)
    assert len(figures) == 7
    for figure in figures:
        assert "var(--" in figure
        assert "#0a0" not in figure
        assert "mathdefault" not in figure
        assert "<metadata" not in figure


def test_a_report_of_large_models_is_bounded(written: Written) -> None:
    large = _large(written.evidence)
    text = render(large)
    assert len(text.encode()) < MOST_BYTES
    assert "more rows are not shown" in text
    assert "a cell stands for 4 nodes" in text


def _large(found: Evidence) -> Evidence:
    """Twelve runs of 3,000 nodes with long names, of which six models have 400 layers."""
    name = "/model/layers.{}/self_attn/" + "q_proj/" * 40 + "MatMul"
    kinds = ("integer", "few bits", "float", "conversion", "movement", "copy")
    nodes = tuple(
        MappedNode(name.format(i), "MatMul", "CPUExecutionProvider", kinds[i % 6], "no kernel" * 30)  # type: ignore[arg-type]
        for i in range(3001)
    )
    model = found.models[0]
    assert model.layers is not None
    error = model.layers.layers[0]
    layers = tuple(
        replace(error, layer=replace(error.layer, node=name.format(i), place=i), step=0.1 / (i + 1))
        for i in range(400)
    )
    spreads = model.spreads * 2
    wide = replace(model, layers=replace(model.layers, layers=layers), spreads=spreads)
    runs = (found.comparison.runs[0], *([found.comparison.runs[1]] * 11))
    models = tuple(replace(wide, run=run) for run in range(1, 7))
    return replace(
        found,
        comparison=replace(found.comparison, runs=runs),
        maps=tuple(GraphMap((), nodes) for _ in runs),
        models=models,
    )


@pytest.mark.parametrize("timed", [True, False])
def test_one_model_alone_has_a_report(written: Written, timed: bool) -> None:
    found, run = written.evidence, written.comparison.runs[0]
    run = run if timed else replace(run, latency=None)
    comparison = replace(
        found.comparison, runs=(run,), timing=found.comparison.timing if timed else None
    )
    text = render(replace(found, comparison=comparison, maps=found.maps[:1], models=()))
    _parse(text)
    assert "nothing stands beside it" in text
    assert ('id="latency"' in text) is timed
    assert 'id="layers"' not in text


def test_throughput_and_session_settings_are_shown(written: Written) -> None:
    found, run = written.evidence, written.comparison.runs[1]
    throughput = Throughput(run.model, run.provider, 8, 2, 4.0, 2000.0, 1900.0, 2100.0)
    slow = Tried(Tuning(threads=1), 9.0, Ratio(0.5, 0.4, 0.6), taken=False)
    session = SessionSearch(
        run.model, run.provider, Tuning(spinning=False), 5.0, 4.0, Ratio(1.25, 1.1, 1.3), (slow,),
        (), None, TimingSettings(),
    )  # fmt: skip
    comparison = replace(found.comparison, throughput=(throughput,), session=session)
    text = render(replace(found, comparison=comparison))
    _parse(text)
    assert "Throughput" not in render(found)
    for part in ("<h3>Throughput</h3>", "2,000", "1,900", "<h3>Session settings</h3>", "1 thread"):
        assert part in text
    assert session.verdict.startswith("Best: no spinning, 1.25")
    assert session.verdict in html.unescape(text)
