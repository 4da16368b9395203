"""index.html: the page of a whole sweep, which needs no other file and no network.

The page shows findings, figures, statistics over seeds and a table with links to the runs. This
module prepares the values of the template.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from gpusim.errors import one_line
from gpusim.files import write_text
from gpusim.results.bottleneck import LINK
from gpusim.results.evacuation_files import EVACUATION_PNG
from gpusim.results.html.render import render
from gpusim.results.run_files import REPORT, SUMMARY
from gpusim.results.summary_fields import RUNS_TABLE_KEYS, STATISTICS_KEYS, SUMMARY_FIELDS
from gpusim.results.sweeps.config_values import MISSING, SEED, axis_label, value_of
from gpusim.results.sweeps.ensembles import Ensemble
from gpusim.results.sweeps.natural_order import natural
from gpusim.results.sweeps.runs import Run, Skipped
from gpusim.results.sweeps.sentences import describe_finding, describe_skipped
from gpusim.results.verdicts import OUTCOMES, outcome_of
from gpusim.text import Message, count_noun, format_number
from gpusim.version import __version__

INDEX = "index.html"
MOST_KEYS = 40  # columns of settings. runs.csv has all of them.
MOST_OPEN, MOST_LISTED = 10, 1000  # skipped files that are listed without a click, and at all
LONGEST_TEXT, LONGEST_VERSION, MOST_VERSIONS = 1000, 40, 5  # characters of a foreign text


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture of the sweep: its file name, two PNGs and its caption without a full stop.

    Attributes:
        narrow: the same picture for narrow pages.
    """

    name: str
    png: bytes
    narrow: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class SweepPage:
    """The content of the page.

    Attributes:
        folder: the folder of the page. Links are relative to it.
        title: the names of the folders that were searched.
        questions, commands: of the sweeps, each once.
        findings: see findings.py.
        figures: the pictures.
        notes: why a picture is missing.
        runs, groups: the runs and their ensembles.
        keys: the config keys that differ.
        skipped: what the search could not use.
        files: names of the tables in the folder.
        now: the time on the page.
    """

    folder: Path
    title: str
    questions: Sequence[str]
    commands: Sequence[str]
    findings: Sequence[Message]
    figures: Sequence[Figure]
    notes: Sequence[str]
    runs: Sequence[Run]
    groups: Sequence[Ensemble]
    keys: Sequence[str]
    skipped: Sequence[Skipped]
    files: Sequence[str]
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A cell of a table, the number to sort by, and the target of its link."""

    text: str
    number: float | None = None
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column of the table of runs, with one cell per run. `kind` becomes its CSS class."""

    heading: str
    kind: str
    cells: list[_Cell]


def write_index(page: SweepPage) -> None:
    """Write the page.

    Raises:
        OSError: if the page cannot be written.
    """
    columns = _columns(page)
    text = render(
        "index.html",
        title=f"{page.title}: gpusim",
        header_class="sweep",
        heading=" ".join(one_line(text, LONGEST_TEXT) for text in page.questions) or page.title,
        subtitle=page.title if page.questions else "",
        commands=[one_line(command, LONGEST_TEXT) for command in page.commands],
        findings=[describe_finding(finding) for finding in page.findings],
        figures=page.figures,
        notes=page.notes,
        statistics=_statistics(page),
        outcomes=[
            (code, outcome.label)
            for code, outcome in OUTCOMES.items()
            if any(run.outcome == code for run in page.runs)
        ],
        columns=columns,
        rows=[
            (run.outcome, cells)
            for run, *cells in zip(page.runs, *(column.cells for column in columns), strict=True)
        ],
        files=page.files,
        skipped=[(one.name, describe_skipped(one.reason)) for one in page.skipped[:MOST_LISTED]],
        more_skipped=max(0, len(page.skipped) - MOST_LISTED),
        skipped_count=count_noun(len(page.skipped), "folder or file", "folders or files"),
        is_open=len(page.skipped) <= MOST_OPEN,
        made=f"{page.now:%Y-%m-%d %H:%M} UTC",
        version=__version__,
        run_versions=_versions(page.runs),
    )
    write_text(page.folder / INDEX, text)


def _versions(runs: Sequence[Run]) -> list[str]:
    known = {run.summary.get("gpusim_version") or "of an unknown version" for run in runs}
    names = [one_line(name, LONGEST_VERSION) for name in sorted(known, key=natural)]
    return names if len(names) <= MOST_VERSIONS else [*names[:MOST_VERSIONS], "others"]


@dataclass(frozen=True, kw_only=True)
class _Statistics:
    """The table of statistics. Its first columns are `settings` config keys."""

    settings: int
    headings: list[str]
    rows: list[list[str]]


def _statistics(page: SweepPage) -> _Statistics | None:
    """Return the statistics over seeds. None if no group has two seeds."""
    if all(len(group.runs) < 2 for group in page.groups):
        return None
    keys = [key for key in page.keys if key != SEED][:MOST_KEYS]
    fields = [SUMMARY_FIELDS[key] for key in STATISTICS_KEYS]
    headings = [*map(axis_label, keys), "Converged", *(field.heading for field in fields)]
    rows = []
    for group in page.groups:
        spreads = [_spread(group.quantiles(field.key), field.column_scale) for field in fields]
        rows.append([*group.series(keys), group.share, *spreads])
    return _Statistics(settings=len(keys), headings=headings, rows=rows)


def _spread(quantiles: tuple[float, float, float] | None, scale: float) -> str:
    if quantiles is None:
        return ""
    low, middle, high = (format_number(number / scale) for number in quantiles)
    return middle if low == high else f"{middle} ({low} to {high})"


def _columns(page: SweepPage) -> list[_Column]:
    runs = page.runs
    names = [_Cell(text=run.name, link=_link(run, page.folder)) for run in runs]
    outcomes = [_Cell(text=outcome_of(run.outcome).label) for run in runs]
    columns = [
        _Column(heading="Run", kind="text", cells=names),
        _Column(heading="Outcome", kind="text outcome", cells=outcomes),
        *(_config_column(runs, key) for key in page.keys[:MOST_KEYS]),
    ]
    for key in RUNS_TABLE_KEYS:
        field = SUMMARY_FIELDS[key]
        numbers = [run.number(key) for run in runs]
        if any(number is not None for number in numbers):
            cells = [_number_cell(number, field.column_scale) for number in numbers]
            columns.append(_Column(heading=field.heading, kind="", cells=cells))
    if any(run.summary.get("bottleneck_code") not in (None, LINK) for run in runs):
        texts = [one_line(run.summary.get("bottleneck") or "", LONGEST_TEXT) for run in runs]
        cells = [_Cell(text=text) for text in texts]
        columns.append(
            _Column(heading=SUMMARY_FIELDS["bottleneck"].label, kind="text", cells=cells)
        )
    reasons = [str(run.summary.get("error") or run.summary.get("reason") or "") for run in runs]
    cells = [_Cell(text=one_line(reason, LONGEST_TEXT)) for reason in reasons]
    return [*columns, _Column(heading="Reason", kind="text long", cells=cells)]


def _link(run: Run, folder: Path) -> str:
    names = (REPORT, EVACUATION_PNG)
    name = next((name for name in names if os.path.isfile(run.folder / name)), SUMMARY)
    return quote(os.fsencode(os.path.relpath(run.folder / name, folder)))


def _config_column(runs: Sequence[Run], key: str) -> _Column:
    values = [value_of(run, key) if run.config else MISSING for run in runs]
    cells = [_Cell(text="" if v == MISSING else v.text, number=v.number) for v in values]
    kind = "text" if all(cell.number is None for cell in cells) else ""
    return _Column(heading=axis_label(key), kind=kind, cells=cells)


def _number_cell(number: float | None, scale: float) -> _Cell:
    return _Cell(text="") if number is None else _Cell(text=_digits(number / scale), number=number)


def _digits(number: float) -> str:
    """Return four significant digits without an exponent. Whole numbers have no decimals."""
    if round(number, 6) == int(number):
        return str(int(number))
    return f"{number:.{max(1, min(6, 3 - math.floor(math.log10(abs(number)))))}f}"
