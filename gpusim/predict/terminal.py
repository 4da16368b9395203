"""A prediction on the terminal. Owns the layout. The text comes from the *_text modules."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from gpusim.explore.goal_search import BetterSettings
from gpusim.explore.setting_limits import Advice
from gpusim.predict import advice_text, postcopy_text, prediction_text
from gpusim.predict.advice_text import LimitRow
from gpusim.predict.commands import QMP, ToolCommands
from gpusim.predict.messages import text_of
from gpusim.predict.prediction import Prediction
from gpusim.text import text_table, wrap_texts

WIDTH = 100  # columns
INDENT = "  "
ESSENTIAL_NOTES = (  # without them the commands mislead. --report and --json have all notes
    "cannot_set",
    "virsh_cannot_set",
    "nova_raises_downtime",
    "nova_timeout",
    "kubevirt_downtime",
)


def prediction_lines(
    prediction: Prediction, advice: Advice | None = None, better: BetterSettings | None = None
) -> str:
    """Return a prediction as text for a terminal of WIDTH columns, without a final line feed.

    The first lines answer whether the migration converges, with which margin, and what to change. If
    the user has bounds, then the very first lines answer them.

    Args:
        prediction: to show.
        advice: limits of the settings, if known.
        better: better settings for a goal, if searched.
    """
    first = [
        [prediction_text.subject(prediction)],
        wrapped(prediction_text.answer(prediction), ""),
    ]
    parts = [
        *(first[::-1] if prediction.bounds else first),
        [] if advice is None else _margin(prediction, advice),
        wrapped(filter(None, [postcopy_text.recommended(prediction)]), ""),
        _bulleted("Warnings about the profile:", prediction_text.warnings(prediction)),
        wrapped(prediction_text.reasons(prediction), ""),
        _expected(prediction),
        _throttle(prediction),
        _guest(prediction),
        [] if advice is None else _limits(advice),
        _ways(prediction),
        [] if better is None else _better(prediction, better),
        _bulleted("Assumptions:", prediction_text.assumptions(prediction)),
        _commands(
            advice_text.commands_for(prediction, better),
            advice_text.commands_heading(prediction, better),
        ),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _margin(prediction: Prediction, advice: Advice) -> list[str]:
    ways = advice_text.ways_out(prediction, advice)
    if ways is None:
        margin = advice_text.margin(advice)
        return wrapped([margin], "") if margin else []
    rows = wrapped([ways.heading], "")
    for way in ways.found:
        rows += wrapped([f"{way.change} ({way.outcome})"], INDENT, mark="- ")
        rows += [INDENT * 3 + line for line in way.lines]
        rows += wrapped([way.managers], INDENT * 2) if way.managers else []
    return rows


def _expected(prediction: Prediction) -> list[str]:
    head = ("Expected", "median", prediction_text.BAND)
    texts = [prediction_text.band_members(prediction), prediction_text.time_parts(prediction)]
    return [*_table([head, *prediction_text.rows(prediction)]), *wrapped(filter(None, texts))]


def _throttle(prediction: Prediction) -> list[str]:
    steps = prediction_text.throttle_rows(prediction)
    if not steps:
        return ["QEMU never throttles the guest."]
    return _table([("Throttle", "migrations", "first set at", prediction_text.BAND), *steps])


def _guest(prediction: Prediction) -> list[str]:
    fit, profile = prediction.fit, prediction.profile
    writers = prediction_text.writer_rows(fit, profile.page_bytes)
    head = ("The guest writes", "pages", "rate", "interval")
    table = _table([head, *writers]) if writers else [prediction_text.IDLE]
    return [*table, *wrapped(prediction_text.measured(profile, fit))]


def _limits(advice: Advice) -> list[str]:
    rows = [line for row in advice_text.limit_rows(advice) for line in _two_lines(row)]
    table = _table([advice_text.LIMITS_HEAD, *rows]) if rows else []
    return [*table, *wrapped(map(text_of, advice_text.limit_notes(advice)))]


def _two_lines(row: LimitRow) -> list[tuple[str, ...]]:
    """Put the outcomes on a second line, because side by side they are too wide."""
    lines = [(row.label, row.now, row.median.value, row.p95.value)]
    outcomes = (row.median.outcome, row.p95.outcome)
    return [*lines, ("", "", *outcomes)] if any(outcomes) else [*lines]


def _better(prediction: Prediction, better: BetterSettings) -> list[str]:
    """Return what a goal gains and costs, which is the first line, and then the table."""
    rows = advice_text.better_rows(prediction, better)
    first, *others = map(text_of, advice_text.better_notes(better))
    return [*wrapped([first], ""), *(_table(rows) if rows else []), *wrapped(others)]


def _ways(prediction: Prediction) -> list[str]:
    """Return precopy beside post-copy. A range stands below its median."""
    rows = []
    for label, cells in postcopy_text.rows(prediction):
        rows.append((label, *(median for median, _ in cells)))
        if any(edges for _, edges in cells):
            rows.append(("", *(edges for _, edges in cells)))
    ways = prediction.ways
    table = _table([postcopy_text.heads(ways), *rows]) if rows and ways is not None else []
    return [*table, *wrapped(postcopy_text.sentences(prediction))]


def _commands(tools: Mapping[str, ToolCommands], heading: str) -> list[str]:
    """Return what to type or to put into a file. HMP stands for QMP, because it is shorter."""
    rows = []
    for tool, commands in tools.items():
        if tool != QMP:
            rows += [f"{INDENT}# {tool}", *(row for line in commands.lines for row in _shell(line))]
            notes = [text_of(one) for one in commands.notes if one.code in ESSENTIAL_NOTES]
            rows += wrapped(notes, f"{INDENT}# ")
    if not rows:
        return []
    return [f"{heading} (--report and --json list rounding and unsupported settings):", *rows]


def _shell(line: str) -> list[str]:
    """Return a command on rows that a shell reads as one line."""
    if len(INDENT + line) <= WIDTH:
        return [INDENT + line]
    first, *rest = textwrap.wrap(line, WIDTH - len(INDENT) * 3, break_on_hyphens=False)
    rows = [INDENT + first, *(INDENT * 2 + row for row in rest)]
    return [*(f"{row} \\" for row in rows[:-1]), rows[-1]]


def _bulleted(heading: str, texts: Sequence[str]) -> list[str]:
    return [heading, *wrapped(texts, INDENT, mark="- ")] if texts else []


def wrapped(texts: Iterable[str], indent: str = INDENT, mark: str = "") -> list[str]:
    """Return texts on rows of WIDTH columns."""
    return wrap_texts(texts, WIDTH, indent, mark)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows whose columns are aligned left, with the rows after the head indented."""
    head, *body = rows
    indented = [head, *((INDENT + row[0], *row[1:]) for row in body)]
    return text_table(indented, left_columns=range(len(head))).splitlines()
