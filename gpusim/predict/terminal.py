"""A prediction on the terminal, and as JSON.

Owns the layout of the page and the keys of the document; the words are prediction_text.py's.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from gpusim.explore.goal_search import BetterSettings
from gpusim.explore.setting_limits import Advice
from gpusim.predict import advice_text, prediction_text
from gpusim.predict.commands import Words
from gpusim.predict.prediction import Prediction

WIDTH = 100  # columns
INDENT = "  "
GAP = 3  # columns between those of a table
BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|ms|s|min|h|[kKMGT]?i?B)(?![A-Za-z]))")
UNBROKEN = "\u00a0"
NOTED_IN = "--report, --json"
WARNINGS = "Warnings about the profile: read them before you trust the prediction"


def lines(
    prediction: Prediction, advice: Advice | None = None, better: BetterSettings | None = None
) -> str:
    """The page: at most 100 columns, for an operator."""
    parts = [
        [prediction_text.subject(prediction)],
        [row for one in prediction_text.verdict(prediction) for row in _wrapped(one, "")],
        _bullets(WARNINGS, prediction_text.warnings(prediction)),
        _ways_out(prediction, advice) if advice is not None else [],
        _expected(prediction),
        _throttle(prediction),
        _guest(prediction),
        _limits(advice) if advice is not None else [],
        _better(prediction, better) if better is not None else [],
        _bullets("Assumed", prediction_text.assumptions(prediction)),
        _words(advice_text.words(prediction, better), better),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _ways_out(prediction: Prediction, advice: Advice) -> list[str]:
    ways = advice_text.ways_out(prediction, advice)
    if ways is None:
        return []
    rows = _wrapped(ways.head, "")
    for way in ways.found:
        rows += _wrapped(way.said, INDENT, mark="- ")
        rows += [row for line in way.lines for row in _wrapped(line, INDENT * 3)]
        rows += _wrapped(way.tools, INDENT * 2)
    return rows


def _expected(prediction: Prediction) -> list[str]:
    head = ("Expected", "middle", prediction_text.BAND)
    found = _table([head, *prediction_text.rows(prediction)])
    found += _wrapped(f"Over {prediction_text.whose(prediction)}.")
    where = prediction_text.where_the_time_goes(prediction)
    return [*found, *(_wrapped(f"The middle one's time: {where}.") if where else [])]


def _throttle(prediction: Prediction) -> list[str]:
    steps = prediction_text.throttle_rows(prediction)
    if not steps:
        return ["Throttle: never."]
    head = ("Throttle", "migrations", "first set at", prediction_text.BAND)
    return _table([head, *((percent, many, row.middle, row.band) for percent, many, row in steps)])


def _guest(prediction: Prediction) -> list[str]:
    fit = prediction.fit
    writers = prediction_text.writer_rows(fit, prediction.profile.page_bytes)
    found = _table([("The guest writes", "", "", ""), *writers])
    if not writers:
        found = [prediction_text.UNSEEN]
    said = prediction_text.measured(prediction.profile, fit)
    return [*found, *(row for one in said for row in _wrapped(one))]


def _limits(advice: Advice) -> list[str]:
    rows = advice_text.limit_rows(advice)
    in_two = [line for row in rows for line in _in_two(row)]
    found = _table([advice_text.LIMITS, *in_two]) if rows else []
    said = [
        *advice_text.notes(advice),
        advice_text.fallback_sync(advice.median_guest.fallback_sync),
    ]
    return [*found, *(row for one in said for row in _wrapped(one))]


def _in_two(row: Sequence[str]) -> list[list[str]]:
    """What each cell has in brackets on a line of its own: side by side they are too wide."""
    cells = [cell.partition(" (") for cell in row]
    below = [inside.removesuffix(")") for _, _, inside in cells]
    return [[cell for cell, _, _ in cells], *([below] if any(below) else [])]


def _better(prediction: Prediction, better: BetterSettings) -> list[str]:
    rows = advice_text.better_rows(prediction, better)
    said = [row for one in advice_text.better_notes(better) for row in _wrapped(one)]
    return [*(_table(rows) if rows else []), *said]


def _words(tools: Mapping[str, Words], better: BetterSettings | None) -> list[str]:
    """What to type or to put into a file; QEMU's once, in the way that fits a terminal."""
    rows = []
    for tool, words in tools.items():
        if tool != "QEMU, QMP":
            rows += [f"{INDENT}# {tool}", *(row for line in words.lines for row in _command(line))]
            for note in advice_text.surprises(words):
                rows += [f"{INDENT}# {row}" for row in _wrapped(note, "", width=WIDTH - 4)]
    if not rows:
        return []
    which = "The better settings in" if better is not None and better.settings else "In"
    return [
        f"{which} the words of the tools; all that they round and cannot set: {NOTED_IN}",
        *rows,
    ]


def _command(line: str) -> list[str]:
    """A line that a shell, or nobody, takes in pieces."""
    if len(INDENT + line) <= WIDTH:
        return [INDENT + line]
    first, *rest = textwrap.wrap(line, WIDTH - len(INDENT) * 3, break_on_hyphens=False)
    rows = [INDENT + first, *(INDENT * 2 + row for row in rest)]
    return [*(f"{row} \\" for row in rows[:-1]), rows[-1]]


def _bullets(title: str, said: Sequence[str]) -> list[str]:
    if not said:
        return []
    return [title, *(row for one in said for row in _wrapped(one, INDENT, mark="- "))]


def _wrapped(text: str, indent: str = INDENT, mark: str = "", width: int = WIDTH) -> list[str]:
    """A sentence on as many rows as it takes; names, and a number and its unit, are not broken."""
    rows = textwrap.wrap(
        BEFORE_UNIT.sub(UNBROKEN, text),
        width,
        initial_indent=indent + mark,
        subsequent_indent=indent + " " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [row.replace(UNBROKEN, " ") for row in rows]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows below their head, columns aligned at the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = rows
    cells = [(f"{head[0]:<{widths[0] + len(INDENT)}}", *head[1:])]
    cells += [(f"{INDENT}{row[0]:<{widths[0]}}", *row[1:]) for row in body]
    return [
        (
            first
            + " " * GAP
            + (" " * GAP).join(
                f"{cell:<{width}}" for cell, width in zip(rest, widths[1:], strict=True)
            )
        ).rstrip()
        for first, *rest in cells
    ]
