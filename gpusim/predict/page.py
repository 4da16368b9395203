"""A prediction on the terminal, and as JSON.

Owns the layout of the page and the keys of the document; the words are story.py's.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from gpusim.fit.fit import Fit
from gpusim.formats.profile import Profile
from gpusim.predict import recommended, story
from gpusim.predict.advise import Advice
from gpusim.predict.goal import Better
from gpusim.predict.prediction import Member, Prediction
from gpusim.predict.words import Words
from gpusim.version import __version__

WIDTH = 100  # columns
INDENT = "  "
GAP = 3  # columns between those of a table
BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|ms|s|min|h|[kKMGT]?i?B)(?![A-Za-z]))")
UNBROKEN = "\u00a0"
NOTED_IN = "--report, --json"
DOUBTS = "In doubt: read this before you believe the rest"

FORMAT = 1
BANDS = (  # fields of Summary, under their own names
    "total_time_s",
    "first_pass_s",
    "downtime_ms",
    "transferred_bytes",
    "max_throttle_percent",
    "time_at_max_throttle_s",
    "guest_cpu_lost_percent",
    "guest_cpu_lost_s",
    "longest_vcpu_stall_ms",
    "dirty_sync_count",
    "fallback_sync_count",
)


def lines(
    prediction: Prediction, advice: Advice | None = None, better: Better | None = None
) -> str:
    """The page: at most 100 columns, for an operator."""
    parts = [
        [story.subject(prediction)],
        [row for one in story.verdict(prediction) for row in _wrapped(one, "")],
        _bullets(DOUBTS, story.doubts(prediction)),
        _ways_out(prediction, advice) if advice is not None else [],
        _expected(prediction),
        _throttle(prediction),
        _guest(prediction),
        _limits(advice) if advice is not None else [],
        _better(prediction, better) if better is not None else [],
        _bullets("Assumed", story.assumptions(prediction)),
        _words(recommended.words(prediction, better), better),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _ways_out(prediction: Prediction, advice: Advice) -> list[str]:
    ways = recommended.ways_out(prediction, advice)
    if ways is None:
        return []
    rows = _wrapped(ways.head, "")
    for way in ways.found:
        rows += _wrapped(way.said, INDENT, mark="- ")
        rows += [row for line in way.lines for row in _wrapped(line, INDENT * 3)]
        rows += _wrapped(way.tools, INDENT * 2)
    return rows


def _expected(prediction: Prediction) -> list[str]:
    head = ("Expected", "middle", story.BAND)
    found = _table([head, *story.rows(prediction)])
    found += _wrapped(f"Over {story.whose(prediction)}.")
    where = story.where_the_time_goes(prediction)
    return [*found, *(_wrapped(f"The middle one's time: {where}.") if where else [])]


def _throttle(prediction: Prediction) -> list[str]:
    steps = story.throttle_rows(prediction)
    if not steps:
        return ["Throttle: never."]
    head = ("Throttle", "migrations", "first set at", story.BAND)
    return _table([head, *((percent, many, row.middle, row.band) for percent, many, row in steps)])


def _guest(prediction: Prediction) -> list[str]:
    fit = prediction.fit
    writers = story.writer_rows(fit, prediction.profile.page_bytes)
    found = _table([("The guest writes", "", "", ""), *writers])
    if not writers:
        found = [story.UNSEEN]
    said = story.measured(prediction.profile, fit)
    return [*found, *(row for one in said for row in _wrapped(one))]


def _limits(advice: Advice) -> list[str]:
    rows = recommended.limit_rows(advice)
    in_two = [line for row in rows for line in _in_two(row)]
    found = _table([recommended.LIMITS, *in_two]) if rows else []
    said = [*recommended.notes(advice), recommended.fallback_sync(advice.typical.fallback_sync)]
    return [*found, *(row for one in said for row in _wrapped(one))]


def _in_two(row: Sequence[str]) -> list[list[str]]:
    """What each cell has in brackets on a line of its own: side by side they are too wide."""
    cells = [cell.partition(" (") for cell in row]
    below = [inside.removesuffix(")") for _, _, inside in cells]
    return [[cell for cell, _, _ in cells], *([below] if any(below) else [])]


def _better(prediction: Prediction, better: Better) -> list[str]:
    rows = recommended.better_rows(prediction, better)
    said = [row for one in recommended.better_notes(better) for row in _wrapped(one)]
    return [*(_table(rows) if rows else []), *said]


def _words(tools: Mapping[str, Words], better: Better | None) -> list[str]:
    """What to type or to put into a file; QEMU's once, in the way that fits a terminal."""
    rows = []
    for tool, words in tools.items():
        if tool != "QEMU, QMP":
            rows += [f"{INDENT}# {tool}", *(row for line in words.lines for row in _command(line))]
            for note in recommended.surprises(words):
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


def document(
    prediction: Prediction, advice: Advice | None = None, better: Better | None = None
) -> dict[str, Any]:
    """The same for programs: docs/predict.md tells each key. JSON knows it: no NaN, no infinity."""
    fit, profile = prediction.fit, prediction.profile
    found: dict[str, Any] = {
        "prediction": FORMAT,
        "gpusim_version": __version__,
        "converges": prediction.converges,
        "probability": prediction.probability,
        "verdict": story.verdict(prediction),
        "members": [_member(one) for one in prediction.members],
        **{name: prediction.band(name) for name in BANDS},
        "throttle": prediction.throttle_steps(),
        "vm": _vm(profile),
        "guest": _fitted(fit, profile),
        "doubts_and_assumptions": [*story.doubts(prediction), *story.assumptions(prediction)],
        "config": prediction.middle.config,
        "in_words": recommended.words(prediction, better),
        "advice": advice,
        "better": better,
    }
    plain: dict[str, Any] = _plain(found)
    return plain


def _member(member: Member) -> dict[str, Any]:
    summary = member.summary
    return {
        "seed": member.config.seed,
        "converges": member.converges,
        "verdict": summary.verdict,
        "reason": summary.reason,
        **{name: getattr(summary, name) for name in BANDS},
        "throttle_s": {str(percent): time_s for percent, time_s in member.throttle_s.items()},
    }


def _vm(profile: Profile) -> dict[str, Any]:
    return {
        "source": profile.source,
        "memory_bytes": profile.memory_bytes,
        "page_bytes": profile.page_bytes,
        "vcpus": profile.vcpus,
        "zero_share": profile.zero_share,
    }


def _fitted(fit: Fit, profile: Profile) -> dict[str, Any]:
    return {
        "writers": [
            {
                "kind": writer.kind,
                "bytes": round(writer.pages * profile.page_bytes),
                "page_writes_per_s": writer.page_writes_per_s,
                "writes_per_s_to_each_page": writer.rate,
            }
            for writer in fit.writers
        ],
        "residuals_in_deviations": fit.residuals,
        "chi_square": fit.chi_square,
        "speed_drift_share": fit.drift,
    }


def _plain(value: Any) -> Any:
    """Data classes as mappings, arrays as lists; what is no finite number as null, as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
