"""Weights in blocks as ``inspect`` prints them: errors under each algorithm, and their scaling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.cli.console import DASH, db_text, line, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import RenderableType

    from onnxq.pipeline import InspectedSite

_SYMMETRIC = " symmetric"


def held_out(sites: Sequence[InspectedSite]) -> Iterator[RenderableType]:
    """A table of the sites whose weight was quantized in several ways; nothing if there is none.

    Of what is known of a site only what was measured as the chosen one is shown, integers of the
    same width in the same blocks; ``--json`` has the rest.
    """
    compared = [site for site in sites if site.chosen in site.held_out]
    if not compared:
        return
    found = [(site, _by_algorithm(site)) for site in compared]
    algorithms = list(dict.fromkeys(name for _, errors in found for name in errors))
    both = any(len(each) > 1 for _, errors in found for each in errors.values())
    # Whole names would make the table too wide.
    headers = [name.replace("+", "+\n") for name in algorithms]
    shown = table(f"{len(found)} weights in blocks", ["site"], [*headers, "best", "exp."])
    for site, errors in found:
        numbers = [_cell(errors.get(name, {})) for name in algorithms]
        exponent = DASH if site.exponent is None else f"{site.exponent:.2f}"
        shown.add_row(line(site.name), *numbers, _best(site.chosen), exponent)
    yield ""
    yield shown
    kinds = ", ".join(dict.fromkeys(_kind(site.chosen) for site, _ in found))
    yield line(f"SQNR in dB of each site's output on tokens held out; {kinds}.")
    if both:
        yield line("Above: zero points that are free; below: fixed in the middle (s).")
    yield line("exp.: AWQ's exponent where input channels are scaled.")
    yield from _scalings(compared)


def _by_algorithm(site: InspectedSite) -> dict[str, dict[bool, float]]:
    """Errors by algorithm and by whether zero points are fixed."""
    found: dict[str, dict[bool, float]] = {}
    for label, error in site.held_out.items():
        if _kind(label) == _kind(site.chosen):
            algorithm, integers = label.split(", ")[:2]
            found.setdefault(algorithm, {})[integers.endswith(_SYMMETRIC)] = error
    return found


def _kind(label: str) -> str:
    """Width and block of ``awq, uint4 symmetric, block 128``."""
    return label.partition(", ")[2].replace(_SYMMETRIC, "")


def _cell(errors: dict[bool, float]) -> str:
    texts = (db_text(errors[fixed]).removesuffix(" dB") for fixed in sorted(errors))
    return "\n".join(texts) or DASH


def _best(label: str) -> str:
    algorithm, integers = label.split(", ")[:2]
    return algorithm + (" s" if integers.endswith(_SYMMETRIC) else "")


def _scalings(sites: Iterable[InspectedSite]) -> Iterator[RenderableType]:
    """Why channels are not scaled, or only by a Mul; those of one reason together."""
    reasons: dict[str, list[str]] = {}
    for site in sites:
        if site.scaling and site.scaling != "folded":
            reasons.setdefault(site.scaling, []).append(site.name)
    if not reasons:
        return
    count = sum(map(len, reasons.values()))
    shown = table(f"{count} sites without folded scaling", ["scaling by", "site"], [])
    for reason, names in reasons.items():
        for place, name in enumerate(names):
            shown.add_row(line("" if place else reason), line(name))
    yield ""
    yield shown
