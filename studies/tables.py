"""Tables in Markdown documents. Each table stands between two comments that name it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence


def row(cells: Iterable[str]) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(cells)} |"


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table."""
    return [row(head), "|" + "---|" * len(head), *map(row, rows)]


def code(text: str) -> list[str]:
    """Return the lines of a block of code."""
    return ["```", *text.splitlines(), "```"]


def places(text: str) -> list[str]:
    """Return the names of the tables that a document has a place for, in order."""
    return re.findall(r"<!-- (?!end -->)(\w+) -->\n", text)


def with_tables(text: str, tables: Mapping[str, Sequence[str]]) -> str:
    """Return the document with new tables.

    Args:
        tables: name -> lines.

    Raises:
        ValueError: the document has no place of that name.
    """
    for name, lines in tables.items():
        between = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        place = between.search(text)
        if place is None:
            raise ValueError(f"the document has no place for the table {name!r}")
        text = text.replace(place[0], "".join([place[1], *(f"{x}\n" for x in lines), place[2]]))
    return text
