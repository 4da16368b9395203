"""The figures of the study in the docs: a column for each workload, a row for each quantity.

A line joins medians of seeds, and a band is their 5 to 95 %. A value off the axis, such as "never",
has marks and no line.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusim.results.plots import style
from gpusim.results.plots.canvas import (
    figure_legend,
    from_top,
    headline,
    is_narrow,
    left_share,
    set_log_scale,
    wrapped,
)
from gpusim.results.sweeps.ensembles import Ensemble

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from matplotlib.figure import Figure

NEVER = "never"
LABEL_CHARACTERS, TICK_CHARACTERS = 18, 6  # in a line of a label
MANY_ROWS, SHORT_LABEL_CHARACTERS = 5, 16  # so many rows leave less height for each label
NARROW_TOP_IN, NARROW_ROW_IN, NARROW_GAP_IN = 2.0, 1.55, 0.75  # heights of a narrow picture


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A row of panels.

    Attributes:
        key: of summary.json. If no run has the key then there is no row.
        scale: the divisor of each number.
        relative_to: a text of the x axis. The line's median there is the divisor instead.
        logarithmic: whether the axis is logarithmic.
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
        points: text of the x axis -> runs there, which differ only in the seed.
    """

    name: str
    points: Mapping[str, Ensemble]


@dataclass(frozen=True, kw_only=True)
class XAxis:
    """The x axis: logarithmic, or with equal distances if no text is a number.

    Attributes:
        places: text -> place, rising. None: the text is no number and is at the right end.
    """

    label: str
    places: Mapping[str, float | None]

    @property
    def numbers(self) -> list[float]:
        """Return the places of the texts that are numbers."""
        return [place for place in self.places.values() if place is not None]

    def at(self, text: str) -> float:
        """Return the place of a text."""
        place = self.places[text]
        if place is not None:
            return place
        numbers = self.numbers
        if not numbers:
            return float(list(self.places).index(text))
        step = (numbers[-1] / numbers[0]) ** (1 / max(len(numbers) - 1, 1))
        return float(numbers[-1] * step)


def draw_study(
    figure: Figure,
    title: str,
    facts: list[str],
    columns: Mapping[str, Sequence[Line]],
    quantities: Sequence[Quantity],
    x: XAxis,
) -> None:
    """Draw a column of panels for each of `columns` and a row for each quantity that runs have.

    In a narrow figure the columns are below each other.
    """
    shown = [quantity for quantity in quantities if _anyone_has(quantity.key, columns)]
    narrow = is_narrow(figure)
    if narrow:
        panels = _narrow_panels(figure, len(shown), len(columns))
    else:
        panels = figure.subplots(len(shown), len(columns), sharex=True, sharey="row", squeeze=False)
    for column, (name, lines) in enumerate(columns.items()):
        for row, quantity in enumerate(shown):
            for index, line in enumerate(lines):
                _draw_line(panels[row, column], line, index, quantity, x)
        panels[0, column].set_title(name, fontsize=11)
        _set_ticks(panels[-1, column], x)
    is_tight = len(shown) >= MANY_ROWS and not narrow
    characters = SHORT_LABEL_CHARACTERS if is_tight else LABEL_CHARACTERS
    for quantity, row_of_panels in zip(shown, panels, strict=True):
        label = textwrap.fill(quantity.label, characters)
        for panel in row_of_panels if narrow else row_of_panels[:1]:
            panel.set_ylabel(label, fontsize=9 if is_tight else 10)
        first = row_of_panels[0]
        if quantity.logarithmic:
            set_log_scale(first.yaxis)
        else:
            first.set_ylim(0, 1.06 * first.get_ylim()[1])  # All columns are drawn now.
    low = 1 - from_top(figure, 0.985)
    figure.supxlabel(x.label, y=low, fontsize=11, color=style.QUIET)
    facts = wrapped(figure, facts)
    below = figure_legend(figure, panels[0, 0].get_legend_handles_labels()[0], len(facts))
    figure.subplots_adjust(
        left=left_share(figure, 0.08),
        right=0.985,
        top=below - (1 - from_top(figure, 0.981)),
        bottom=1 - from_top(figure, 0.915),
        hspace=0.12,
        wspace=0.08,
    )
    headline(figure, title, facts)


def _narrow_panels(figure: Figure, rows: int, columns: int) -> Any:
    """Return panels by row and column, with the columns below each other."""
    block_in = NARROW_ROW_IN * rows + NARROW_GAP_IN
    figure.set_figheight(NARROW_TOP_IN + block_in * columns)
    gap_rows = NARROW_GAP_IN / NARROW_ROW_IN
    heights = [*([1.0] * rows), gap_rows] * columns
    grid = figure.add_gridspec(len(heights) - 1, 1, height_ratios=heights[:-1])
    panels = np.empty((rows, columns), dtype=object)
    for column in range(columns):
        for row in range(rows):
            place = column * (rows + 1) + row
            first_in_row = panels[row, 0] if column else None
            panel = figure.add_subplot(grid[place, 0], sharex=panels[0, 0], sharey=first_in_row)
            panel.tick_params(labelbottom=row == rows - 1)
            panels[row, column] = panel
    return panels


def _anyone_has(key: str, columns: Mapping[str, Sequence[Line]]) -> bool:
    return any(
        run.number(key) is not None
        for lines in columns.values()
        for line in lines
        for group in line.points.values()
        for run in group.runs
    )


def _draw_line(panel: Panel, line: Line, index: int, quantity: Quantity, x: XAxis) -> None:
    colour, mark = style.RUN_COLOURS[index], style.MARKS[index]
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


def _set_ticks(panel: Panel, x: XAxis) -> None:
    texts = list(x.places)
    if x.numbers:
        set_log_scale(panel.xaxis)
    else:
        panel.set_xlim(-0.6, len(texts) - 0.4)
        wrap = textwrap.TextWrapper(TICK_CHARACTERS, break_long_words=False)
        texts = [wrap.fill(text) for text in texts]  # Neighbours would overlap on one line.
    panel.set_xticks([x.at(text) for text in x.places], texts, fontsize=9)
    panel.set_xticks([], minor=True)
