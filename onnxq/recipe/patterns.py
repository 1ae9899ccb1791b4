"""Patterns that name sites: ``glob``, ``op:TYPE`` and ``re:REGEX``."""

from __future__ import annotations

import difflib
import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NamedSite = tuple[str, str]
"""A site's name and operator type."""


def check_pattern(pattern: str) -> None:
    """Refuse a malformed pattern.

    Raises:
        ValueError: It is empty, or its regular expression does not compile.
    """
    kind, text = _split(pattern)
    if not text:
        msg = f"the pattern {pattern!r} is empty"
        raise ValueError(msg)
    if kind == "re":
        try:
            re.compile(text)
        except re.error as error:
            msg = f"{pattern!r} is not a regular expression ({error})"
            raise ValueError(msg) from error


def matches(pattern: str, site: NamedSite) -> bool:
    """Whether a pattern names a site; case counts, and the whole name is compared.

    A glob that is literally a site's name matches it, brackets and all.
    """
    kind, text = _split(pattern)
    name, op = site
    if kind == "op":
        return fnmatch.fnmatchcase(op, text)
    if kind == "re":
        return re.fullmatch(text, name) is not None
    return name == text or fnmatch.fnmatchcase(name, text)


def near(pattern: str, sites: Sequence[NamedSite], *, count: int = 3) -> list[str]:
    """What the user may have meant: patterns that name a site and look like this one."""
    kind, text = _split(pattern)
    if kind == "op":
        by_lower = {op.lower(): op for _, op in sites}
        found = difflib.get_close_matches(text.lower(), by_lower, n=count, cutoff=0.5)
        return [f"op:{by_lower[op]}" for op in found]
    # The letters without what makes them a pattern are what can be mistyped.
    plain = re.sub(r"[\\^$.*?+()\[\]{}|]+" if kind == "re" else r"[*?]+", "", text)
    names = [name for name, _ in sites]
    found = difflib.get_close_matches(plain, names, n=count, cutoff=0.4)
    return found or [name for name in names if plain.lower() in name.lower()][:count]


def _split(pattern: str) -> tuple[str, str]:
    kind, colon, text = pattern.partition(":")
    return (kind, text) if colon and kind in {"op", "re"} else ("glob", pattern)
