"""Published tables beside simulations, as a section of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from gpusim.published.accuracy import find_role, is_close, summarize
from gpusim.published.accuracy_text import (
    GROUPS,
    describe_figures,
    group_by_table,
    list_cells,
    list_given,
    list_heads,
    role_text,
)
from gpusim.published.outcomes import Outcome
from studies.tables import table

INTRODUCTION = (
    "`gpusim-validate published` runs all of it again. If a source does not give a number, gpusim "
    "fits the number on the first row of the table that it decides, by trying all candidates. That "
    "row judges nothing. Total times are means of the published repeats."
)


def write_markdown(outcomes: Sequence[Outcome]) -> str:
    """Return the section "Published measurements" of the documentation."""
    parts = ["## Published measurements", INTRODUCTION]
    for kind, figures in summarize(outcomes).items():
        lines = (f"- {line}" for line in describe_figures(kind, figures))
        parts.append("\n".join([f"**{GROUPS[kind]}:**\n", *lines]))
    for source_table, group in group_by_table(outcomes):
        source = source_table.source
        where = f'{source.author}, "{source.title}", {source.date} ({source.where}).'
        parts += [f"### {source_table.heading}", f"{where} {source_table.what.strip()}"]
        if given := list_given(source_table):
            parts.append("\n".join(f"- {label.capitalize()}: {text}" for label, text in given))
        parts.append(_grid(group) if group[0].row.cell else _list(group))
        if source_table.notes:
            parts.append(source_table.notes.strip())
    return "\n\n".join(parts) + "\n"


def _list(group: Sequence[Outcome]) -> str:
    lines = [[*list_heads(group), "judged"]]
    for outcome in group:
        role = find_role(outcome)
        judged = {
            "judged": "yes",
            "verdict_judged": "the verdict",
            "not_judged": role.data.get("reason", ""),
        }
        lines.append([*list_cells(outcome, group), judged.get(role.code) or role_text(role)])
    return "\n".join(table(lines[0], lines[1:]))


def _grid(group: Sequence[Outcome]) -> str:
    """Return published / simulated in the source's own grid. Cells that are not close are bold."""
    columns = list(dict.fromkeys(outcome.row.cell[1] for outcome in group))
    lines = [["published / gpusim", *columns]]
    for name, own in groupby(group, key=lambda outcome: outcome.row.cell[0]):
        lines.append([name, *map(_grid_cell, own)])
    return "\n".join(table(lines[0], lines[1:]))


def _grid_cell(outcome: Outcome) -> str:
    pair = " / ".join(
        "-" if seconds is None else f"{seconds:.0f}"
        for seconds in (outcome.measured_s, outcome.simulated_s)
    )
    return pair if is_close(outcome) else f"**{pair}**"
