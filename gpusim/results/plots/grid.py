"""The heat map of two swept numbers: each cell shows a total time, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpusim.results.errors import RunsError
from gpusim.results.plots import style
from gpusim.results.plots.canvas import (
    SEPARATOR,
    SMALLEST_PT,
    even_ticks,
    fit_text,
    from_top,
    headline,
    is_narrow,
    left_share,
    spans_decades,
    tick_text,
    wrapped,
)
from gpusim.results.plots.sweep import NARROW_PANEL_IN, NARROW_TOP_IN
from gpusim.results.summary_fields import RUN_FIELDS
from gpusim.results.sweeps.axes import Axes
from gpusim.results.sweeps.config_values import Value, axis_label, describe_value, sort_values
from gpusim.results.sweeps.ensembles import Ensemble
from gpusim.results.verdicts import OUTCOMES, outcome_of
from gpusim.text import format_duration, format_number, time_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from matplotlib.figure import Figure

FEWEST = 3  # values along each side: with fewer, lines show more
FILLED = 0.6  # of the cells: random samples make no grid
_COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3}  # how many panels stand side by side
MAX_WRITTEN = 12  # columns of all panels: with more, a cell is too narrow for text
TICK_CHARACTERS = 18
NO_TIME = "#e4e6e9"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Two keys that were swept over a grid, and panels for the other keys."""

    x: str
    y: str
    panel_keys: list[str]
    panels: list[tuple[str, ...]]


def find_grid(groups: Sequence[Ensemble], axes: Axes) -> Grid | None:
    """Return the grid of the axis and the numeric series with most values, or None."""
    if axes.x is None or not axes.is_numeric:
        return None
    values = {key: sort_values(g.value(key) for g in groups) for key in (axes.x, *axes.series)}
    numeric = [k for k in axes.series if all(v.number is not None for v in values[k])]
    if not numeric:
        return None
    y = max(numeric, key=lambda key: len(values[key]))
    rest = [key for key in axes.series if key != y]
    panels = list(dict.fromkeys(tuple(g.value(k).text for k in rest) for g in groups))
    cells = len(values[axes.x]) * len(values[y]) * len(panels)
    enough = min(len(values[axes.x]), len(values[y])) >= FEWEST and len(groups) >= FILLED * cells
    if not enough or len(panels) not in _COLUMNS:
        return None
    return Grid(x=axes.x, y=y, panel_keys=rest, panels=panels)


def draw_grid(figure: Figure, groups: Sequence[Ensemble], grid: Grid) -> str:
    """Draw the median total time of each cell.

    Returns:
        A sentence about what the picture shows, without a full stop.

    Raises:
        RunsError: no run converged.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    times_s = [time_s for g in groups if (time_s := g.median("total_time_s")) is not None]
    if not times_s:
        raise RunsError("none_converged")
    narrow = is_narrow(figure)
    columns = 1 if narrow else _COLUMNS[len(grid.panels)]
    if narrow:
        figure.set_figheight(NARROW_TOP_IN + NARROW_PANEL_IN * len(grid.panels))
    low, high = min(times_s), max(times_s)
    logarithmic = spans_decades(times_s)
    norm = LogNorm(low, high) if logarithmic else Normalize(low if low < high else 0.0, high)
    colours = ScalarMappable(norm, "cividis_r")
    panels = figure.subplots(
        -(-len(grid.panels) // columns), columns, squeeze=False, sharex=True, sharey=True
    )
    xs, ys = (sort_values(g.value(key) for g in groups) for key in (grid.x, grid.y))
    for index, panel in enumerate(panels.flat):
        if index >= len(grid.panels):
            panel.set_axis_off()
            continue
        chosen = {
            (g.value(grid.x), g.value(grid.y)): g
            for g in groups
            if tuple(g.value(key).text for key in grid.panel_keys) == grid.panels[index]
        }
        written = len(xs) * columns * (2 if narrow else 1) <= MAX_WRITTEN
        unit_s = None if logarithmic else time_unit(high)[1]
        _draw_cells(panel, chosen, xs, ys, colours, unit_s, written=written)
        _set_ticks(panel, xs, ys, most_ticks=6 if narrow else 12 // columns)
        title = ", ".join(map(describe_value, grid.panel_keys, grid.panels[index]))
        text = panel.set_title(title, fontsize=11 if columns == 1 else 9.5)
        fit_text(text, 0.75 * figure.bbox.width / columns, SMALLEST_PT)
        if index + columns >= len(grid.panels):
            panel.set_xlabel(axis_label(grid.x))
            panel.tick_params(labelbottom=True)
        if index % columns == 0:
            panel.set_ylabel(axis_label(grid.y))
    facts = wrapped(figure, [_facts(groups)])
    titled = 0.03 if grid.panel_keys else 0.0
    top = from_top(figure, 0.87 - titled - style.ROW * (len(facts) - 1))
    right, bar_left, low_share = (
        (0.78, 0.82, 1 - from_top(figure, 0.915)) if narrow else (0.87, 0.895, 0.085)
    )
    figure.subplots_adjust(
        left=left_share(figure, 0.1),
        right=right,
        top=top,
        bottom=low_share,
        hspace=0.18,
        wspace=0.06,
    )
    place = (bar_left, low_share, 0.02, top - low_share)
    bar = figure.colorbar(colours, cax=figure.add_axes(place))
    unit, ticks = even_ticks(low, high)
    if logarithmic:
        unit, ticks = "", {tick: format_duration(tick) for tick in style.time_ticks(low, high)}
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.ax.minorticks_off()
    bar.ax.set_title(unit, fontsize=11, fontweight="normal", color=style.QUIET)
    bar.outline.set_visible(False)
    title = f"{RUN_FIELDS['total_time_s'].label} over {axis_label(grid.x)} and {axis_label(grid.y)}"
    headline(figure, title, facts)
    return f"{title}, with a hatch for runs that did not converge"


def _facts(groups: Sequence[Ensemble]) -> str:
    ends = {run.outcome for group in groups for run in group.runs if not run.converged}
    facts = []
    if max(len(group.runs) for group in groups) > 1:
        facts.append("median of the seeds that converged")
    if ends:
        legend = [f"{o.label} ({o.short})" for code, o in OUTCOMES.items() if code in ends]
        facts.append(f"hatched: {', '.join(legend)}")
    else:
        facts.append("every run completed")
    return SEPARATOR.join(facts)


def _draw_cells(
    panel: Panel,
    groups: dict[tuple[Value, Value], Ensemble],
    xs: Sequence[Value],
    ys: Sequence[Value],
    colours: Any,
    unit_s: float | None,
    *,
    written: bool,
) -> None:
    from matplotlib.patches import Rectangle

    size = max(6.5, min(11.0, 96 / max(len(xs), 4)))
    for (x, y), group in groups.items():
        column, row = xs.index(x), ys.index(y)
        median_s = group.median("total_time_s")
        some_stopped = len(group.converged) < len(group.runs)
        colour: Any = NO_TIME if median_s is None else colours.to_rgba(median_s)
        dark = median_s is not None and colours.norm(median_s) > 0.5
        ink = "white" if dark else style.INK
        corner = (column - 0.5, row - 0.5)
        panel.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", lw=1.5))
        if some_stopped:
            hatch = "////" if median_s is None else "/"
            edge = style.GREY if median_s is None else ink
            panel.add_patch(Rectangle(corner, 1, 1, fill=False, ec=edge, hatch=hatch, lw=0))
        if not written:
            continue
        ends = sorted({run.outcome for run in group.runs if not run.converged})
        if median_s is None:
            text = "/".join(outcome_of(end).short for end in ends)
        else:  # In the unit of the colour bar, if it has one.
            text = format_number(median_s / unit_s) if unit_s else format_duration(median_s)
        if median_s is not None and some_stopped:
            text += f"\n{group.share}"
        box = {"facecolor": colour, "edgecolor": "none", "pad": 1.5} if some_stopped else None
        panel.text(column, row, text, ha="center", va="center", color=ink, fontsize=size, bbox=box)


def _set_ticks(panel: Panel, xs: Sequence[Value], ys: Sequence[Value], *, most_ticks: int) -> None:
    """Set ticks at the values, or at some of them if too many would overlap."""
    panel.set_xlim(-0.5, len(xs) - 0.5)
    panel.set_ylim(-0.5, len(ys) - 0.5)
    for axis, values, most in ((panel.xaxis, xs, most_ticks), (panel.yaxis, ys, 2 * most_ticks)):
        step = math.ceil(len(values) / most)
        texts = [tick_text(v.text, TICK_CHARACTERS) for v in values[::step]]
        axis.set_ticks(range(0, len(values), step), texts)
    panel.grid(False)
    panel.tick_params(length=0, labelsize=10)
    for spine in panel.spines.values():
        spine.set_visible(False)
