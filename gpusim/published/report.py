"""Published beside simulated: rows, figures over them, and both as text, JSON and Markdown.

Pure arithmetic over outcomes; it starts no run. Migrations of a real QEMU and what others' models say are
two groups, and no figure mixes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import median
from typing import Any, NamedTuple

from gpusim.published.rows import Outcome
from gpusim.published.tables import FittedValue, Table

# "typical error 6-7 %" over 5779 migrations of a 32 GiB guest: data/gudkov.yaml.
BEST_PUBLISHED = "6-7 % of 5779 real runs, with nothing fitted (A. Gudkov, 2023)"
GROUPS = {"measured": "migrations of a real QEMU", "model": "others' models of QEMU"}
# Quantity of a row -> column, and its digits.
BESIDES = {
    "downtime_ms": ("downtime, ms", 0),
    "syncs": ("syncs", 0),
    "max_throttle_percent": ("throttle, %", 0),
    "first_pass_s": ("first pass, s", 1),
    "sent_mib": ("sent, MiB", 0),
}


class Judged(NamedTuple):
    """A published total time beside the simulated one, which is infinite if that did not converge."""

    name: str
    measured_s: float
    simulated_s: float
    source: str


def judged(outcomes: Sequence[Outcome], kind: str = "measured") -> list[Judged]:
    """Every judged row of a group that has a published total time."""
    return [
        Judged(
            outcome.row.name,
            outcome.measured_s,
            math.inf if outcome.simulated_s is None else outcome.simulated_s,
            outcome.table.name,
        )
        for outcome in outcomes
        if outcome.judged and outcome.table.kind == kind and outcome.measured_s is not None
    ]


def role(outcome: Outcome) -> str:
    """What a row is for: judged, or why it is not."""
    fitted = outcome.table.fitted_on(outcome.row)
    if fitted:
        return "fitted: " + ", ".join(value.key for value in fitted)
    if not outcome.row.run:
        return "not simulated"
    return f"not judged: {outcome.row.not_judged}" if outcome.row.not_judged else "judged"


def rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One mapping a row, for JSON."""
    return [
        {
            "table": outcome.table.name,
            "row": outcome.row.name,
            "kind": outcome.table.kind,
            "command": outcome.row.run,
            "role": role(outcome),
            "measured_converges": outcome.row.converges,
            "simulated_converges": outcome.converged if outcome.runs else None,
            "measured_total_s": outcome.measured_s,
            "simulated_total_s": outcome.simulated_s,
            "error_percent": outcome.error_percent,
            **{
                f"{side}_{name}": value
                for name in BESIDES
                for side, value in zip(("measured", "simulated"), outcome.means(name), strict=True)
            },
        }
        for outcome in outcomes
    ]


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Of each group: how many rows are judged, how they err, and what was fitted where."""
    found: dict[str, Any] = {}
    for kind in GROUPS:
        group = [outcome for outcome in outcomes if outcome.table.kind == kind]
        if not group:
            continue
        errors = [abs(100 * (row.simulated_s / row.measured_s - 1)) for row in judged(group, kind)]
        verdicts = [outcome for outcome in group if outcome.judged]
        found[kind] = {
            "judged_total_times": len(errors),
            "never_simulated_to_converge": errors.count(math.inf),
            "median_abs_error_percent": _finite(median(errors)) if errors else None,
            "largest_abs_error_percent": max(filter(math.isfinite, errors), default=None),
            "judged_verdicts": len(verdicts),
            "verdicts_agreed_on": sum(o.converged == o.row.converges for o in verdicts),
            "fitted": [
                {"table": table.name, "row": value.row, "key": value.key, "value": value.value}
                for table in _tables(group)
                for value in table.fitted
            ],
        }
    return found


def _percent(error: float | None) -> str:
    return "-" if error is None else f"{error:.1f} %"


def _finite(error: float) -> float | None:
    return error if math.isfinite(error) else None


def _tables(outcomes: Sequence[Outcome]) -> list[Table]:
    return list({outcome.table.name: outcome.table for outcome in outcomes}.values())


def _by_table(outcomes: Sequence[Outcome]) -> Iterator[tuple[Table, list[Outcome]]]:
    for _, group in groupby(outcomes, key=lambda outcome: outcome.table.name):
        own = list(group)
        yield own[0].table, own


def text(outcomes: Sequence[Outcome]) -> str:
    """For a terminal: a table a source, what was given to it, and the figures."""
    parts = []
    for table, group in _by_table(outcomes):
        source = table.source
        title = (
            f"{table.name}: {source.author}, {source.title}, {source.date}\n{table.what.strip()}"
        )
        parts.append("\n".join([title, *_given(table)]))
        cells = [_columns(group), *([*_cells(outcome, group), role(outcome)] for outcome in group)]
        cells[0].append("")
        parts.append(_aligned(cells))
    parts += [_figures(kind, found) for kind, found in summary(outcomes).items()]
    return "\n\n".join(parts)


def _figures(kind: str, found: dict[str, Any]) -> str:
    lines = [f"{GROUPS[kind]}:"]
    if found["judged_total_times"]:
        middle, largest = found["median_abs_error_percent"], found["largest_abs_error_percent"]
        never = found["never_simulated_to_converge"]
        lines.append(
            f"  median |error| of {found['judged_total_times']} judged total times {_percent(middle)}, "
            f"largest {_percent(largest)}{f'; {never} never end in gpusim' if never else ''}"
        )
        if kind == "measured":
            lines.append(f"  the best published predictor: {BEST_PUBLISHED}")
    if found["judged_verdicts"]:
        agreed = f"{found['verdicts_agreed_on']} of {found['judged_verdicts']}"
        lines.append(f"  whether it converges: agrees in {agreed}")
    fitted = [f"{one['key']} = {one['value']:.10g} on {one['row']}" for one in found["fitted"]]
    lines += [f"  fitted, and not judged: {line}" for line in fitted]
    return "\n".join(lines)


def _given(table: Table) -> list[str]:
    """What the simulator was told besides the source's own words, and what nobody can tell it."""
    lines = [f"not published: {line}" for line in table.not_published]
    lines += [f"read as: {line}" for line in table.readings]
    lines += [f"fitted: {_fitted(value)}" for value in table.fitted]
    return lines + ([f"left out: {table.left_out.strip()}"] if table.left_out else [])


def _fitted(value: FittedValue) -> str:
    low, high = value.holds
    return (
        f"{value.what}, {value.value:.10g} {value.unit} ({value.key}), on the row {value.row}, "
        f"which {low:.10g} to {high:.10g} hold within 5 % or its repeats"
    )


def _columns(group: Sequence[Outcome]) -> list[str]:
    heads = ["case", "published", "gpusim", "error"]
    if group[0].table.only_verdicts:
        heads.remove("error")
    return heads + [head for name, (head, _) in BESIDES.items() if _known(group, name)]


def _known(group: Sequence[Outcome], quantity: str) -> bool:
    return any(getattr(outcome.row, quantity) for outcome in group)


def _cells(outcome: Outcome, group: Sequence[Outcome]) -> list[str]:
    """A row's name, published and simulated total time, error, and what else its table tells."""
    table, error = outcome.table, outcome.error_percent
    cells = [outcome.row.name]
    if table.only_verdicts:
        cells += ["yes" if outcome.row.converges else "no", "yes" if outcome.converged else "no"]
    else:
        ours = _seconds(outcome, outcome.simulated_s) if outcome.runs else "-"
        cells += [_seconds(outcome, outcome.measured_s), ours]
        cells.append("-" if error is None else f"{error:+.1f} %")
    for name, (_, digits) in BESIDES.items():
        if _known(group, name):
            pair = outcome.means(name)
            cells.append(" / ".join("-" if one is None else f"{one:.{digits}f}" for one in pair))
    return cells


def _seconds(outcome: Outcome, seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return f"{seconds:.0f} s" if outcome.table.rounded_up else f"{seconds:.1f} s"


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, the first and the last flush left."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in (0, last) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The section "Published measurements" of docs/validation.md."""
    parts = [
        "## Published measurements",
        "`gpusim-validate published` runs all of it again. A number that a source does not give is fitted "
        "on the first row of its table that it decides, by trying all candidates; that row judges nothing. "
        "Total times are means of the published repeats.",
    ]
    for kind, found in summary(outcomes).items():
        figures = _figures(kind, found).splitlines()
        parts.append(
            "\n".join(
                f"- {line.strip()}" if n else f"**{line}**\n" for n, line in enumerate(figures)
            )
        )
    for table, group in _by_table(outcomes):
        source = table.source
        parts.append(f"### {table.heading}")
        parts.append(
            f'{source.author}, "{source.title}", {source.date} ({source.where}). {table.what.strip()}'
        )
        if given := _given(table):
            parts.append(
                "\n".join(f"- {line[0].upper()}{line[1:].removesuffix('.')}." for line in given)
            )
        parts.append(_grid(group) if group[0].row.cell else _table(group))
        if table.notes:
            parts.append(table.notes.strip())
    return "\n\n".join(parts) + "\n"


def _table(group: Sequence[Outcome]) -> str:
    heads = [*_columns(group), "judged"]
    lines = [heads]
    for outcome in group:
        said = "yes" if outcome.judged else role(outcome).removeprefix("not judged: ")
        lines.append([*_cells(outcome, group), said])
    return _piped(lines)


def _grid(group: Sequence[Outcome]) -> str:
    """Published / simulated in the source's own grid; a cell that is 15 % and 1 s off is bold."""
    columns = list(dict.fromkeys(outcome.row.cell[1] for outcome in group))
    lines = [["published / gpusim", *columns]]
    for name, own in groupby(group, key=lambda outcome: outcome.row.cell[0]):
        lines.append([name, *(_cell(outcome) for outcome in own)])
    return _piped(lines)


def _piped(lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, heads first."""
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|---" * len(lines[0]) + "|", *rest])


def _cell(outcome: Outcome) -> str:
    published, ours = (
        "-" if seconds is None else f"{seconds:.0f}"
        for seconds in (outcome.measured_s, outcome.simulated_s)
    )
    return f"**{published} / {ours}**" if not close(outcome) else f"{published} / {ours}"


def close(outcome: Outcome, share: float = 0.15, seconds: float = 1.0) -> bool:
    """Whether both converge and lie within a share or some seconds of each other, or neither does."""
    published, ours = outcome.measured_s, outcome.simulated_s
    if published is None or ours is None:
        return published is ours
    return math.isclose(ours, published, rel_tol=0, abs_tol=max(share * published, seconds))
