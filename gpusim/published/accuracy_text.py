"""Published tables beside simulations, as text for a terminal and as JSON rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from gpusim.published.accuracy import QUANTITIES, find_role, summarize
from gpusim.published.outcomes import Outcome
from gpusim.published.tables import FittedValue, Table
from gpusim.text import Message, text_table

# "typical error 6-7 %" over 5779 migrations of a 32 GiB guest: data/gudkov.yaml.
BEST_PUBLISHED = "6-7 % of 5779 real runs, with nothing fitted (A. Gudkov, 2023)"
GROUPS = {"measured": "migrations of a real QEMU", "model": "other models of QEMU"}
COLUMNS = {  # quantity -> head and digits
    "downtime_ms": ("downtime, ms", 0),
    "syncs": ("syncs", 0),
    "max_throttle_percent": ("throttle, %", 0),
    "first_pass_s": ("first pass, s", 1),
    "sent_mib": ("sent, MiB", 0),
}


def list_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return one mapping per row, for JSON."""
    return [
        {
            "table": outcome.table.name,
            "row": outcome.row.name,
            "kind": outcome.table.kind,
            "command": outcome.row.run,
            "role": role_text(find_role(outcome)),
            "measured_converges": outcome.row.converges,
            "simulated_converges": outcome.converged if outcome.runs else None,
            "measured_total_s": outcome.measured_s,
            "simulated_total_s": outcome.simulated_s,
            "error_percent": outcome.error_percent,
            **{
                f"{side}_{name}": value
                for name in QUANTITIES
                for side, value in zip(("measured", "simulated"), outcome.means(name), strict=True)
            },
        }
        for outcome in outcomes
    ]


def role_text(role: Message) -> str:
    """Return the role of a row for people."""
    match role.code:
        case "fitted":
            return f"fitted: {', '.join(role.data['keys'])}"
        case "not_judged":
            return f"not judged: {role.data['reason']}"
        case "not_simulated":
            reason = role.data["reason"]
            return f"not simulated: {reason}" if reason else "not simulated"
        case "verdict_judged":
            return "verdict judged"
    return "judged"


def group_by_table(outcomes: Sequence[Outcome]) -> Iterator[tuple[Table, list[Outcome]]]:
    """Yield each table with its outcomes."""
    for _, group in groupby(outcomes, key=lambda outcome: outcome.table.name):
        own = list(group)
        yield own[0].table, own


def describe_outcomes(outcomes: Sequence[Outcome]) -> str:
    """Return a table per source, what gpusim was given for it, and the figures."""
    parts = []
    for table, group in group_by_table(outcomes):
        source = table.source
        title = f"{table.name}: {source.author}, {source.title}, {source.date}"
        given = (f"{label}: {text}" for label, text in list_given(table))
        parts.append("\n".join([title, table.what.strip(), *given]))
        cells = [
            list_heads(group),
            *([*list_cells(outcome, group), _role(outcome)] for outcome in group),
        ]
        cells[0].append("")
        parts.append(text_table(cells, left_columns=(0, len(cells[0]) - 1)))
    for kind, figures in summarize(outcomes).items():
        lines = (f"  {line}" for line in describe_figures(kind, figures))
        parts.append("\n".join([f"{GROUPS[kind]}:", *lines]))
    return "\n\n".join(parts)


def _role(outcome: Outcome) -> str:
    return role_text(find_role(outcome))


def describe_figures(kind: str, figures: Mapping[str, Any]) -> list[str]:
    """Return one line per figure of a kind.

    Args:
        kind: a key of GROUPS.
        figures: of this kind, from `summarize`.
    """
    lines = []
    if figures["judged_total_times"]:
        middle, largest = (
            _format_percent(figures[f"{name}_abs_error_percent"]) for name in ("median", "largest")
        )
        never = figures["never_simulated_to_converge"]
        lines.append(
            f"median |error| of {figures['judged_total_times']} judged total times {middle}, "
            f"largest {largest}{f', {never} never end in gpusim' if never else ''}"
        )
        if kind == "measured":
            lines.append(f"the best published predictor: {BEST_PUBLISHED}")
    if figures["judged_verdicts"]:
        agreed = f"{figures['verdicts_agreed_on']} of {figures['judged_verdicts']}"
        lines.append(f"whether it converges: agrees in {agreed}")
    fitted = (f"{one['key']} = {one['value']:.10g} on {one['row']}" for one in figures["fitted"])
    return lines + [f"fitted, and not judged: {line}" for line in fitted]


def _format_percent(error: float | None) -> str:
    return "-" if error is None else f"{error:.1f} %"


def list_given(table: Table) -> list[tuple[str, str]]:
    """Return (label, text) of what the source lacks, and what gpusim was given instead."""
    found = [("not published", line) for line in table.not_published]
    found += [("read as", line) for line in table.readings]
    found += [("fitted", _describe_fitted(value)) for value in table.fitted]
    reasons = [("times are not judged", table.times_not_judged), ("left out", table.left_out)]
    return found + [(label, text.strip()) for label, text in reasons if text]


def _describe_fitted(value: FittedValue) -> str:
    low, high = value.holds
    return (
        f"{value.what}, {value.value:.10g} {value.unit} ({value.key}), on the row {value.row}. "
        f"From {low:.10g} to {high:.10g} this row is within 5 % or its repeats."
    )


def list_heads(group: Sequence[Outcome]) -> list[str]:
    """Return the heads of the columns of `list_cells`."""
    heads = ["case", "published", "gpusim", "error"]
    if group[0].table.only_verdicts:
        heads.remove("error")
    return heads + [head for name, (head, _) in COLUMNS.items() if _is_published(group, name)]


def _is_published(group: Sequence[Outcome], quantity: str) -> bool:
    return any(getattr(outcome.row, quantity) for outcome in group)


def list_cells(outcome: Outcome, group: Sequence[Outcome]) -> list[str]:
    """Return a row's name, its total times and error, and the other quantities of its table."""
    table, error = outcome.table, outcome.error_percent
    cells = [outcome.row.name]
    if table.only_verdicts:
        cells += ["yes" if outcome.row.converges else "no", "yes" if outcome.converged else "no"]
    else:
        ours = _format_seconds(outcome, outcome.simulated_s) if outcome.runs else "-"
        cells += [_format_seconds(outcome, outcome.measured_s), ours]
        cells.append("-" if error is None else f"{error:+.1f} %")
    for name, (_, digits) in COLUMNS.items():
        if _is_published(group, name):
            pair = outcome.means(name)
            cells.append(" / ".join("-" if one is None else f"{one:.{digits}f}" for one in pair))
    return cells


def _format_seconds(outcome: Outcome, seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return f"{seconds:.0f} s" if outcome.table.rounded_up else f"{seconds:.1f} s"
