"""Total time and guest loss against what was swept: the picture of a sweep.

Owns that picture alone. Lines join medians of converged runs; a run that did not converge has a
mark of its own, where it was stopped, and breaks the line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusim.errors import ResultsError
from gpusim.results.plots import style
from gpusim.results.plots.run import LOG_RATIO, headline, picture
from gpusim.results.sweeps.axes import Axes
from gpusim.results.sweeps.config_values import (
    Value,
    axis_label,
    describe_value,
    dimension_of,
    format_value,
    sort_values,
)
from gpusim.results.sweeps.ensembles import Ensemble, Series, series_of
from gpusim.text import format_duration, format_number, size_unit, time_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from matplotlib.figure import Figure

MAX_COLOURS = len(style.RUN_COLOURS)
MAX_PANELS = 6
MAX_TICKS = 9  # swept values that all get a tick
CLOSEST_TICKS = 0.07  # of the axis: nearer labels would overlap
DODGE = 0.11  # between the series of one category
MARKS = ("o", "s", "^", "D", "v", "P")
KEYS = ("total_time_s", "guest_cpu_lost_percent")
LOSS = "Guest CPU lost (% of vCPU time)"
STOPPED = "did not converge: where it was stopped"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which series share a panel, and which key gives the colours of a panel's lines."""

    panels: list[Series]
    colours: list[Series]
    panel_keys: list[str]
    colour_keys: list[str]


def layout(groups: Sequence[Ensemble], keys: Sequence[str]) -> Layout | None:
    """One panel if its lines can be told apart, else a few; None: too many for both."""
    everything = series_of(groups, keys)
    if len(everything) <= MAX_COLOURS:
        return Layout(panels=[()], colours=everything, panel_keys=[], colour_keys=list(keys))
    best: Layout | None = None
    for key in keys:
        rest = [other for other in keys if other != key]
        tried = Layout(
            panels=series_of(groups, rest),
            colours=series_of(groups, [key]),
            panel_keys=rest,
            colour_keys=[key],
        )
        fits = len(tried.panels) <= MAX_PANELS and len(tried.colours) <= MAX_COLOURS
        if fits and (best is None or len(tried.panels) < len(best.panels)):
            best = tried
    return best


def draw_sweep(groups: Sequence[Ensemble], axes: Axes, path: Path) -> str:
    """Draw total time and guest loss over `axes.x` into `path`, a PNG of 1200 x 900 pixels.

    Returns:
        What it shows, in words.

    Raises:
        ResultsError: nothing can be drawn, and why; or matplotlib is missing.
        OSError: the file cannot be written.
    """
    assert axes.x is not None  # without an axis there are only seeds: seeds_plot.py
    groups = [g for g in groups if any(run.number("total_time_s") is not None for run in g.runs)]
    if not groups:
        raise ResultsError("no run has a total time")
    plan = layout(groups, axes.series)
    joined = plan is not None
    plan = plan or Layout(panels=[()], colours=[()], panel_keys=[], colour_keys=[])
    x = _X.of(groups, axes)
    with picture(path) as figure:
        columns = len(plan.panels)
        rows = figure.subplots(2, columns, sharex=True, sharey="row", squeeze=False)
        for column, panel in enumerate(plan.panels):
            for index, colours in enumerate(plan.colours):
                chosen = [g for g in groups if _matches(g, plan, panel, colours)]
                name = ", ".join(map(describe_value, plan.colour_keys, colours)) or None
                shift = DODGE * (index - (len(plan.colours) - 1) / 2)
                for row, key in enumerate(KEYS):
                    _draw_line(rows[row, column], chosen, key, x, index, shift, name, joined)
            if panel:
                title = "\n".join(map(describe_value, plan.panel_keys, panel))
                rows[0, column].set_title(title, fontsize=11 if columns < 4 else 9.5)
            x.dress(rows[1, column], columns)
            if columns > 2:  # one name for all
                figure.supxlabel(
                    rows[1, column].get_xlabel(), y=0.02, fontsize=11, color=style.QUIET
                )
                rows[1, column].set_xlabel("")
        _dress(rows[0, 0], rows[1, 0], groups)
        title = f"Total time and guest loss against {axis_label(axes.x)}"
        facts = [counted(groups)]
        if not joined:
            facts.append(f"Each dot is a run; {_listed(axes.series)} vary too")
        top = place_legend(figure, rows[0, 0], groups, len(facts), titled=bool(plan.panel_keys))
        figure.subplots_adjust(
            left=0.085, right=0.975, top=top, bottom=0.085, hspace=0.14, wspace=0.09
        )
        headline(figure, title, facts)
    return title + (f", for each {_listed(axes.series)}" if axes.series and joined else "")


def _listed(keys: Sequence[str]) -> str:
    """Names in a sentence."""
    *first, last = map(axis_label, keys)
    return f"{', '.join(first)} and {last}" if first else last


def _matches(group: Ensemble, plan: Layout, panel: Series, colours: Series) -> bool:
    return (
        tuple(group.value(key).text for key in plan.panel_keys) == panel
        and tuple(group.value(key).text for key in plan.colour_keys) == colours
    )


@dataclass(frozen=True, kw_only=True)
class _X:
    """Where a value stands on the axis: at its number, or in the order of the categories."""

    name: str
    kind: str
    values: list[Value]
    numeric: bool
    logarithmic: bool

    @classmethod
    def of(cls, groups: Sequence[Ensemble], axes: Axes) -> _X:
        assert axes.x is not None  # the caller has asked
        values = sort_values(group.value(axes.x) for group in groups)
        numbers = [v.number or 0.0 for v in values]
        kind = dimension_of((group.runs[0] for group in groups), axes.x)
        logarithmic = axes.is_numeric and max(numbers) > LOG_RATIO * min(numbers) > 0
        return cls(
            name=axes.x, kind=kind, values=values, numeric=axes.is_numeric, logarithmic=logarithmic
        )

    def at(self, group: Ensemble) -> float:
        value = group.value(self.name)
        if self.numeric and value.number is not None:
            return value.number
        return float(self.values.index(value))

    def dress(self, panel: Panel, columns: int) -> None:
        """Ticks at what was swept, or at round values between."""
        panel.set_xlabel(axis_label(self.name) + (", log scale" if self.logarithmic else ""))
        if self.logarithmic:
            panel.set_xscale("log")
        places = [v.number if self.numeric else float(i) for i, v in enumerate(self.values)]
        ticks = dict(
            zip([float(p or 0.0) for p in places], (v.text for v in self.values), strict=True)
        )
        if self.numeric:
            # or the outermost labels of neighbours would meet
            panel.set_xlim(
                *_with_room(list(ticks), self.logarithmic, 0.05 if columns < 3 else 0.18)
            )
            if len(ticks) > MAX_TICKS:
                found = _round_ticks(list(ticks), self)
                ticks = {tick: format_value(self.kind, tick) for tick in found}
            ticks = _apart(ticks, self.logarithmic, CLOSEST_TICKS * columns)
        else:
            panel.set_xlim(-0.6, len(self.values) - 0.4)
        crowded = not self.numeric and sum(map(len, ticks.values())) > 110 / columns
        panel.set_xticks(
            list(ticks),
            list(ticks.values()),
            rotation=25 if crowded else 0,
            ha="right" if crowded else "center",
        )
        panel.set_xticks([], minor=True)
        if columns > 2:
            panel.tick_params(axis="x", labelsize=9.5)


def _round_ticks(places: list[float], x: _X) -> list[float]:
    """Powers of two for sizes and of ten for the rest on a logarithmic axis, else even steps."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(places), max(places)
    if x.logarithmic:
        base = 2.0 if x.kind == "size" else 10.0
        powers = range(math.ceil(math.log(low, base) - 1e-9), math.floor(math.log(high, base)) + 2)
        step = max(1, math.ceil(len(powers) / MAX_TICKS))
        ticks = [base**power for power in powers[::step]]
        return [tick for tick in ticks if low / 1.01 <= tick <= high * 1.01] or [low, high]
    unit = size_unit(high)[1] if x.kind == "size" else 1.0
    found = MaxNLocator(MAX_TICKS - 1).tick_values(low / unit, high / unit)
    return [float(tick) * unit for tick in found if low <= tick * unit <= high]


def _with_room(places: list[float], logarithmic: bool, share: float) -> tuple[float, float]:
    """Limits of an axis that leave a share of it free on both sides."""
    low, high = min(places), max(places)
    if logarithmic:
        room = (high / low) ** share
        return low / room, high * room
    room = share * (high - low) or 0.5 * abs(high) or 1.0
    return low - room, high + room


def _apart(ticks: dict[float, str], logarithmic: bool, closest: float) -> dict[float, str]:
    """Without the labels that would overlap the one before."""
    scale = math.log if logarithmic else float
    span = scale(max(ticks)) - scale(min(ticks)) or 1.0
    kept: dict[float, str] = {}
    for tick, text in sorted(ticks.items()):
        if not kept or (scale(tick) - scale(max(kept))) / span >= closest:
            kept[tick] = text
    return kept


def _draw_line(
    panel: Panel,
    groups: Sequence[Ensemble],
    key: str,
    x: _X,
    index: int,
    shift: float,
    name: str | None,
    joined: bool,
) -> None:
    """Medians, the band of 5 to 95 %, and the runs that did not converge."""
    colour = style.RUN_COLOURS[index]
    groups = sorted(groups, key=x.at)
    at = np.array([x.at(group) for group in groups]) + (0.0 if x.numeric else shift)
    none = (math.nan,) * 3
    found = np.array([group.quantiles(key) or none for group in groups]).reshape(-1, 3)
    low, middle, high = found.T
    look: dict[str, Any] = {"color": colour, "zorder": 3}
    if x.numeric and joined:
        panel.fill_between(at, low, high, color=colour, alpha=0.16, lw=0)
    panel.vlines(at, low, high, color=colour, lw=2.2, alpha=0.55, zorder=2)
    mark = MARKS[index] if joined else ""
    panel.plot(at, middle, ls="", marker=mark or "o", ms=7 if mark else 5, **look)
    line = style.RUN_LINES[index]
    on_line = [group.value(x.name).number is not None for group in groups]
    if joined and any(on_line):  # no line leads from 60 s to "off"
        panel.plot(at[on_line], middle[on_line], ls=line, **look)
    else:
        line = ""
    if name:
        panel.plot([], [], ls=line, marker=mark, ms=7, label=name, **look)
    for place, group in zip(at.tolist(), groups, strict=True):
        stopped = [n for r in group.runs if not r.converged and (n := r.number(key)) is not None]
        panel.plot([place] * len(stopped), stopped, "x", ms=10, mew=2.4, clip_on=False, **look)
        if group.converged and stopped and key == "total_time_s":
            panel.annotate(
                group.share,
                (place, group.median(key) or 0.0),
                textcoords="offset points",
                xytext=(9, -11),
                fontsize=9,
                color=colour,
            )


def _dress(time: Panel, loss: Panel, groups: Sequence[Ensemble]) -> None:
    times_s = [n for g in groups for r in g.runs if (n := r.number("total_time_s"))]
    dress_time(time.yaxis, times_s, name="Total time")
    highest = max(
        (r.number("guest_cpu_lost_percent") or 0.0 for g in groups for r in g.runs), default=0.0
    )
    loss.set_ylim(0, 1.1 * highest if highest else 1.0)
    loss.set_ylabel(LOSS)


def dress_time(axis: Any, times_s: Sequence[float], *, name: str, from_zero: bool = True) -> None:
    """Limits, ticks and label of an axis of seconds; logarithmic where they span decades."""
    low, high = min(times_s, default=0.0), max(times_s, default=1.0)
    set_limits = axis.axes.set_ylim if axis.axis_name == "y" else axis.axes.set_xlim
    if high > LOG_RATIO * low > 0:
        (axis.axes.set_yscale if axis.axis_name == "y" else axis.axes.set_xscale)("log")
        set_limits(low / 1.4, high * 1.4)
        ticks = style.time_ticks(low / 1.4, high * 1.4)
        axis.set_ticks(ticks, [format_duration(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
        axis.set_label_text(f"{name}, log scale")
        return
    room = 0.15 * (high - low) or 0.1 * high or 1.0
    bottom, top = (0.0, 1.1 * high or 1.0) if from_zero else (max(low - room, 0.0), high + room)
    unit, even = even_ticks(bottom, top)
    axis.set_ticks(list(even), list(even.values()))
    set_limits(bottom, top)
    axis.set_label_text(f"{name} ({unit})")


def even_ticks(low_s: float, high_s: float) -> tuple[str, dict[float, str]]:
    """Unit and ticks, place -> text, of a linear axis of seconds: round numbers of the unit."""
    from matplotlib.ticker import MaxNLocator

    unit, unit_s = time_unit(high_s)
    found = MaxNLocator(7, steps=[1, 2, 5, 10]).tick_values(low_s / unit_s, high_s / unit_s)
    inside = [float(t) for t in found if low_s <= t * unit_s * (1 + 1e-9) and t * unit_s <= high_s]
    return unit, {tick * unit_s: f"{tick:g}" for tick in inside}


def place_legend(
    figure: Figure, panel: Panel, groups: Sequence[Ensemble], facts: int, *, titled: bool
) -> float:
    """The legend below the facts; returns where the panels may begin."""
    handles, labels = panel.get_legend_handles_labels()
    if any(not run.converged for group in groups for run in group.runs):
        mark = panel.plot([], [], "x", ms=9, mew=2.2, color=style.QUIET)
        handles, labels = [*handles, *mark], [*labels, STOPPED]
    below = 0.930 - style.ROW * facts
    if not handles:
        return below - 0.02
    columns = max(1, min(len(labels), 130 // (8 + max(map(len, labels)))))
    figure.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(0.012, below),
        ncols=columns,
        columnspacing=2.0,
    )
    rows = math.ceil(len(labels) / columns)
    return below - 0.03 - 0.026 * rows - (0.035 if titled else 0.0)


def counted(groups: Sequence[Ensemble]) -> str:
    runs = [run for group in groups for run in group.runs]
    converged = sum(run.converged for run in runs)
    facts = [f"{converged} of {len(runs)} runs converged"]
    seeds = sorted({len(group.runs) for group in groups})
    if seeds[-1] > 1:
        count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        facts.append(f"median and 5 to 95 % of {count} seeds, of those that converged")
        spreads = [(q[2] - q[0]) / q[1] for g in groups if (q := g.quantiles(KEYS[0])) and q[1]]
        if spreads:
            widest = f"{format_number(100 * max(spreads))} %"
            facts.append(f"total times spread over at most {widest}")
    return "  \u00b7  ".join(facts)
