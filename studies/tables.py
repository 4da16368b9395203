"""Tables of the documents that a command writes: each stands between two comments that name it.

Owns Markdown and where a table goes; what it says is the caller's. Used by study.py,
policy_study.py and validation/document.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence


def row(cells: Iterable[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a table."""
    return [row(head), "|" + "---|" * len(head), *map(row, rows)]


def code(text: str) -> list[str]:
    """The lines of a block that is shown as it is."""
    return ["```", *text.splitlines(), "```"]


def places(text: str) -> list[str]:
    """The names of the tables that a document has room for, in its order."""
    return re.findall(r"<!-- (?!end -->)(\w+) -->\n", text)


def with_tables(text: str, tables: Mapping[str, Sequence[str]]) -> str:
    """The document with its tables anew.

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
