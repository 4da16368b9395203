"""index.html: a whole sweep on one page that needs nothing else: answer, figures, tables, links.

Owns the page: its order and its words around what the other modules found out. What it looks like
and how its table sorts stands in `page/`.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from urllib.parse import quote

from gpusim.files import write_text
from gpusim.results.evacuation_files import EVACUATION_PNG as EVACUATION
from gpusim.results.run_files import REPORT, SUMMARY
from gpusim.results.sweeps.ensembles import Ensemble
from gpusim.results.sweeps.runs import Run, natural
from gpusim.results.sweeps.swept import SEED, Value, label, value
from gpusim.results.verdicts import OUTCOMES
from gpusim.text import format_number
from gpusim.version import __version__

INDEX = "index.html"

# heading, key of the summary, what one of it is
NUMBERS = (
    ("Total time (s)", "total_time_s", 1.0),
    ("Downtime (ms)", "downtime_ms", 1.0),
    ("Paused (s)", "paused_s", 1.0),
    ("Guest CPU lost (%)", "guest_cpu_lost_percent", 1.0),
    ("Guest CPU lost (vCPU s)", "guest_cpu_lost_s", 1.0),
    ("First writes (million)", "write_faults", 1e6),
    ("In first writes (vCPU s)", "guest_fault_s", 1.0),
    ("Highest throttle (%)", "max_throttle_percent", 1.0),
    ("Dirty syncs", "dirty_sync_count", 1.0),
    ("Sent (GiB)", "transferred_bytes", 2.0**30),
    ("Left (GiB)", "remaining_bytes", 2.0**30),
)
STATISTICS = NUMBERS[:9]


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the page tells.

    Attributes:
        folder: where it will lie; links are relative to it.
        questions, commands: of the sweeps, each once.
        answer: sentences.
        figures: (file name, PNG, what it shows).
        notes: why a figure is not there.
        keys: config keys that differ.
        files: names of the tables beside it.
    """

    folder: Path
    title: str
    questions: Sequence[str]
    commands: Sequence[str]
    answer: Sequence[str]
    figures: Sequence[tuple[str, bytes, str]]
    notes: Sequence[str]
    runs: Sequence[Run]
    groups: Sequence[Ensemble]
    keys: Sequence[str]
    passed_over: Sequence[tuple[str, str]]
    files: Sequence[str]
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


def write_index(page: Page) -> Path:
    """Write the page; returns its path.

    Raises:
        OSError: it cannot be written.
    """
    parts = resources.files("gpusim.results.html") / "templates"
    columns = _columns(page)
    text = Template((parts / "index.html").read_text("utf-8")).substitute(
        title=escape(f"{page.title}: gpusim"),
        style=(parts / "index.css").read_text("utf-8"),
        script=(parts / "index.js").read_text("utf-8"),
        heading=escape(" ".join(page.questions) or page.title),
        command=_commands(page),
        answer=_list(page.answer, "answer"),
        figures=_figures(page),
        statistics=_statistics(page),
        outcomes="".join(
            f'<option value="{end}">{outcome.label}</option>'
            for end, outcome in OUTCOMES.items()
            if any(run.outcome == end for run in page.runs)
        ),
        count=f"{len(page.runs)} runs",
        columns="".join(map(_heading, columns)),
        rows="".join(
            f'<tr class="{run.outcome}">{"".join(cells)}</tr>\n'
            for run, *cells in zip(page.runs, *(column.cells for column in columns), strict=True)
        ),
        files=" and ".join(f'<a href="{quote(name)}">{name}</a>' for name in page.files),
        passed_over=_passed_over(page),
        made=f"Made {page.now:%Y-%m-%d %H:%M} UTC by gpusim-collect of gpusim {__version__}.\n"
        f"The runs were made by gpusim {escape(_versions(page.runs))}.",
    )
    path = page.folder / INDEX
    write_text(path, text)
    return path


def _versions(runs: Sequence[Run]) -> str:
    known = {str(run.summary.get("gpusim_version", "of an unknown version")) for run in runs}
    return " and ".join(sorted(known, key=natural))


def _commands(page: Page) -> str:
    lines = [f"<p><code>{escape(command)}</code></p>\n" for command in page.commands]
    if page.questions:
        lines.append(f'<p class="quiet">{escape(page.title)}</p>\n')
    return "".join(lines)


def _list(lines: Sequence[str], look: str) -> str:
    return f'<ul class="{look}">\n' + "".join(f"<li>{escape(x)}</li>\n" for x in lines) + "</ul>\n"


def _figures(page: Page) -> str:
    parts = ['<section aria-labelledby="figures">\n<h2 id="figures">Figures</h2>\n']
    for name, png, shows in page.figures:
        data = base64.b64encode(png).decode()
        parts.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{escape(shows)}" '
            f'width="1200" height="900">\n<figcaption>{escape(shows)}. '
            f'<a href="{quote(name)}">{name}</a></figcaption></figure>\n'
        )
    parts += [f'<p class="quiet">{escape(note)}</p>\n' for note in page.notes]
    return "".join([*parts, "</section>\n"]) if page.figures or page.notes else ""


def _statistics(page: Page) -> str:
    """Median and 5 to 95 % over seeds, where there are seeds."""
    if all(len(group.runs) < 2 for group in page.groups):
        return ""
    keys = [key for key in page.keys if key != SEED]
    heads = [f'<th scope="col" class="words">{escape(label(key))}</th>' for key in keys]
    heads += ['<th scope="col">Converged</th>']
    heads += [f'<th scope="col">{escape(heading)}</th>' for heading, _, _ in STATISTICS]
    rows = []
    for group in page.groups:
        cells = [f'<td class="words">{escape(group.value(key).text)}</td>' for key in keys]
        cells.append(f"<td>{group.share}</td>")
        for _, key, unit in STATISTICS:
            found = group.quantiles(key)
            cells.append(f"<td>{_spread(found, unit) if found else ''}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>\n")
    return (
        '<section aria-labelledby="statistics">\n<h2 id="statistics">Over the seeds</h2>\n'
        '<p class="quiet">The median of the runs that converged, and their 5 % and 95 % quantiles.'
        '</p>\n<div class="scroll" tabindex="0" role="region" aria-labelledby="statistics">\n'
        f"<table>\n<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>\n"
        "</table>\n</div>\n</section>\n"
    )


def _spread(found: tuple[float, float, float], unit: float) -> str:
    low, middle, high = (format_number(number / unit) for number in found)
    return middle if low == high else f"{middle} ({low} to {high})"


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column of the table of runs: its heading, whether it holds words, a cell a run."""

    heading: str
    words: bool
    cells: list[str]


def _columns(page: Page) -> list[_Column]:
    runs = page.runs
    columns = [
        _Column(heading="Run", words=True, cells=[_link(run, page.folder) for run in runs]),
        _Column(
            heading="Outcome",
            words=True,
            cells=[f'<td class="words outcome">{OUTCOMES[run.outcome].label}</td>' for run in runs],
        ),
    ]
    for key in page.keys:
        values = [value(run, key) if run.config else None for run in runs]
        words = all(known is None or known.number is None for known in values)
        cells = [_config_cell(known, words) for known in values]
        columns.append(_Column(heading=label(key), words=words, cells=cells))
    for heading, key, unit in NUMBERS:
        numbers = [run.number(key) for run in runs]
        cells = [f"<td>{'' if n is None else _digits(n / unit)}</td>" for n in numbers]
        if any(number is not None for number in numbers):
            columns.append(_Column(heading=heading, words=False, cells=cells))
    reasons = [str(run.summary.get("error") or run.summary.get("reason") or "") for run in runs]
    cells = [f'<td class="words long">{escape(reason)}</td>' for reason in reasons]
    columns.append(_Column(heading="Why", words=True, cells=cells))
    return columns


def _heading(column: _Column) -> str:
    look = ' class="words"' if column.words else ""
    return f'<th scope="col"{look}>{escape(column.heading)}</th>'


def _link(run: Run, folder: Path) -> str:
    there = [name for name in (REPORT, EVACUATION) if (run.folder / name).is_file()]
    name = there[0] if there else SUMMARY
    link = quote(os.path.relpath(run.folder / name, folder).replace(os.sep, "/"))
    return f'<th scope="row"><a href="{link}">{escape(run.name)}</a></th>'


def _config_cell(known: Value | None, words: bool) -> str:
    """The value as it was written, and what the table is sorted by where that is a number."""
    look = ' class="words"' if words else ""
    if known is None:
        return f"<td{look}></td>"
    sorts = "" if known.number is None else f' data-n="{known.number:.12g}"'
    return f"<td{look}{sorts}>{escape(known.text)}</td>"


def _digits(number: float) -> str:
    """Four digits that matter, never an exponent, nothing behind a whole number's point."""
    if round(number, 6) == int(number):
        return str(int(number))
    return f"{number:.{max(1, min(6, 3 - math.floor(math.log10(abs(number)))))}f}"


def _passed_over(page: Page) -> str:
    if not page.passed_over:
        return ""
    many = len(page.passed_over)
    lines = "".join(
        f"<li><code>{escape(name)}</code>: {escape(reason)}</li>\n"
        for name, reason in page.passed_over
    )
    return (
        '<section aria-labelledby="passed">\n<h2 id="passed">Passed over</h2>\n'
        f"<details{' open' if many <= 10 else ''}><summary>{many} folders or files</summary>\n"
        f'<ul class="passed">\n{lines}</ul></details>\n</section>\n'
    )
