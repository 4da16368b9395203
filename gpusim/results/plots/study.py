"""Small multiples for docs/study.md: a column a workload, a row a quantity, a line a VM.

Owns how they look; which runs a line joins is study.py's. Lines join medians of seeds, bands are their 5 to
95 %; a place off the axis, such as "never", has marks and no line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpusim.results.plots import style
from gpusim.results.plots.run import headline, picture
from gpusim.results.sweeps.ensembles import Ensemble

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel

MARKS = ("o", "s", "^", "D", "v", "P")
NEVER = "never"


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A row of panels.

    Attributes:
        key: of summary.json; where no run has it there is no row.
        scale: what a run's number is divided by.
        relative_to: a text of the x axis, by whose median a line is divided instead.
        logarithmic: the axis is.
    """

    key: str
    label: str
    scale: float = 1.0
    relative_to: str | None = None
    logarithmic: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a panel.

    Attributes:
        points: a text of the x axis -> the runs there, alike in all but the seed.
    """

    name: str
    points: Mapping[str, Ensemble]


@dataclass(frozen=True, kw_only=True)
class XAxis:
    """Where texts stand: on a logarithmic axis, or beside each other if none is a number.

    Attributes:
        places: text -> place, rising; None: it is no number, and stands at the right end.
    """

    label: str
    places: Mapping[str, float | None]

    @property
    def numbers(self) -> list[float]:
        """The places of those that are numbers."""
        return [place for place in self.places.values() if place is not None]

    def at(self, text: str) -> float:
        """Its place."""
        place = self.places[text]
        if place is not None:
            return place
        numbers = self.numbers
        if not numbers:
            return float(list(self.places).index(text))
        step = (numbers[-1] / numbers[0]) ** (1 / max(len(numbers) - 1, 1))
        return float(numbers[-1] * step)


def draw_study(
    path: Path,
    title: str,
    facts: list[str],
    columns: Mapping[str, Sequence[Line]],
    quantities: Sequence[Quantity],
    x: XAxis,
) -> None:
    """Draw the panels into `path`, a PNG of 1200 x 900 pixels.

    Raises:
        ResultsError: matplotlib is missing.
        OSError: the file cannot be written.
    """
    shown = [quantity for quantity in quantities if _anyone_has(quantity.key, columns)]
    with picture(path) as figure:
        panels = figure.subplots(len(shown), len(columns), sharex=True, sharey="row", squeeze=False)
        for column, (name, lines) in enumerate(columns.items()):
            for row, quantity in enumerate(shown):
                panel = panels[row, column]
                for index, line in enumerate(lines):
                    _draw_line(panel, line, index, quantity, x)
            panels[0, column].set_title(name, fontsize=11)
            _dress(panels[-1, column], x)
        for quantity, panel in zip(shown, panels[:, 0], strict=True):
            panel.set_ylabel(quantity.label, fontsize=10)
            if quantity.logarithmic:
                panel.set_yscale("log")
            else:
                panel.set_ylim(0, panel.get_ylim()[1])  # of all columns, now that all is drawn
        figure.supxlabel(x.label, y=0.015, fontsize=11, color=style.QUIET)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        below = 0.930 - style.ROW * len(facts)
        figure.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(0.012, below), ncols=len(labels)
        )
        figure.subplots_adjust(
            left=0.08, right=0.985, top=below - 0.075, bottom=0.085, hspace=0.12, wspace=0.08
        )
        headline(figure, title, facts)


def _anyone_has(key: str, columns: Mapping[str, Sequence[Line]]) -> bool:
    return any(
        run.number(key) is not None
        for lines in columns.values()
        for line in lines
        for group in line.points.values()
        for run in group.runs
    )


def _draw_line(panel: Panel, line: Line, index: int, quantity: Quantity, x: XAxis) -> None:
    colour, mark = style.RUN_COLOURS[index], MARKS[index]
    scale = quantity.scale
    if quantity.relative_to is not None:
        baseline = line.points.get(quantity.relative_to)
        scale = (baseline and baseline.median(quantity.key)) or 1.0
    found = {text: group.quantiles(quantity.key) for text, group in line.points.items()}
    joined = [(x.at(text), q) for text, q in found.items() if q and x.places[text] is not None]
    joined.sort()
    at = [place for place, _ in joined]
    low, middle, high = ([q[i] / scale for _, q in joined] for i in range(3))
    panel.fill_between(at, low, high, color=colour, alpha=0.18, lw=0)
    panel.plot(
        at, middle, color=colour, ls=style.RUN_LINES[index], marker=mark, ms=5, label=line.name
    )
    for text, quantiles in found.items():
        if quantiles and x.places[text] is None:
            low_, middle_, high_ = (number / scale for number in quantiles)
            panel.vlines(x.at(text), low_, high_, color=colour, lw=2.2, alpha=0.55)
            panel.plot([x.at(text)], [middle_], color=colour, marker=mark, ms=5)
    stopped = [
        (x.at(text), number / scale)
        for text, group in line.points.items()
        for run in group.runs
        if not run.converged and (number := run.number(quantity.key)) is not None
    ]
    if stopped:
        panel.plot(*zip(*stopped, strict=True), "x", color=colour, ms=9, mew=2.2)


def _dress(panel: Panel, x: XAxis) -> None:
    texts = list(x.places)
    if x.numbers:
        panel.set_xscale("log")
    else:
        panel.set_xlim(-0.6, len(texts) - 0.4)
        texts = [text.replace(" ", "\n") for text in texts]  # or neighbours would meet
    panel.set_xticks([x.at(text) for text in x.places], texts, fontsize=9)
    panel.set_xticks([], minor=True)
