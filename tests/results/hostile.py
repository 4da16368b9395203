"""Hostile versions of the files that gpusim-collect reads: one value replaced, removed or added."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.formats.hostile import DELETED, changed

HOSTILE: dict[str, Any] = {
    "null": None,
    "flag": True,
    "empty": "",
    "long": "x" * 100_000,
    "huge": 1e308,
    "tiny": 5e-324,
    "zero": 0,
    "negative": -1,
    "30 digits": 10**30,
    "63 bits": 2**63 - 1,
    "list": [],
    "object": {},
    "nested": [[{"a": [None, {"b": []}]}]],
    "NaN": float("nan"),
    "NaN as text": "NaN",
    "control": "\x00\x1b[31m\u202e\n\r\t",
    "surrogate": "\ud800",
    "mathtext": "$x^{$ \\frac_ % {}",
    "formula": "=cmd|' /C calc'!A1",
    "markup": "</script><script>alert(1)</script>'\"",
    "scripts": "\u4e2d\u6587 \U0001f600 \u0639\u0631\u0628",
    "size": "1e300TiB",
}


class Case(NamedTuple):
    """One hostile file: what was changed, and its content."""

    name: str
    text: str


def hostile_versions(content: dict[str, Any]) -> Iterator[Case]:
    """Yield the content with each value replaced, each key removed, and keys added."""
    for path in _paths(content):
        name = ".".join(path)
        for kind, value in HOSTILE.items():
            yield Case(f"{name} = {kind}", _text(changed(content, path, value)))
        yield Case(f"{name} removed", _text(changed(content, path, DELETED)))
    for kind, value in HOSTILE.items():
        yield Case(f"added = {kind}", _text(content | {"added": value}))
        yield Case(f"added: {kind}", _text(content | {str(value): 1}))
        yield Case(f"all = {kind}", _text(value))


def _paths(content: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _paths(value, (*above, key))


def _text(content: Any) -> str:
    return json.dumps(content)
