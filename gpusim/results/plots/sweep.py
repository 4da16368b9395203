"""The picture of a sweep: total time and guest CPU lost over the values of one key.

Lines join medians of converged runs. A run that did not converge has a mark of its own, at the time
at which it was stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusim.results.errors import RunsError
from gpusim.results.plots import style
from gpusim.results.plots.canvas import (
    LOG_RATIO,
    SEPARATOR,
    SMALLEST_PT,
    figure_legend,
    fit_text,
    from_top,
    headline,
    is_narrow,
    left_share,
    set_log_scale,
    set_time_axis,
    tick_text,
    wrapped,
)
from gpusim.results.summary_fields import RUN_FIELDS, join_labels
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
from gpusim.text import format_number, join_words, size_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from matplotlib.figure import Figure

MAX_COLOURS = len(style.RUN_COLOURS)
MAX_PANELS = 6
NARROW_TOP_IN, NARROW_PANEL_IN = 2.0, 5.0  # the height of a narrow picture with several panels
MAX_TICKS = 9  # swept values that all get a tick
TICK_CHARACTERS = 30  # of a tick that leans
CLOSEST_TICKS = 0.07  # of the axis: nearer labels would overlap
MOST_CATEGORIES = 48  # texts on the axes of all panels: with more, they would overlap
DODGE = 0.11  # between the series of one category
KEYS = ("total_time_s", "guest_cpu_lost_percent")
STOPPED = "did not converge (time of the stop)"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which series share a panel, and which keys give the colours of a panel's lines."""

    panels: list[Series]
    colours: list[Series]
    panel_keys: list[str]
    colour_keys: list[str]


def layout(groups: Sequence[Ensemble], keys: Sequence[str]) -> Layout | None:
    """Return one panel if its lines are distinct, else a few panels, or None if too many."""
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


def draw_sweep(figure: Figure, groups: Sequence[Ensemble], axes: Axes) -> str:
    """Draw total time and guest CPU lost over `axes.x`.

    Returns:
        A sentence about what the picture shows, without a full stop.

    Raises:
        RunsError: no run has a total time.
    """
    assert axes.x is not None  # Without an axis, draw_seeds draws the runs.
    groups = [g for g in groups if any(run.number(KEYS[0]) is not None for run in g.runs)]
    if not groups:
        raise RunsError("no_total_time")
    plan = layout(groups, axes.series)
    joined = plan is not None
    plan = plan or Layout(panels=[()], colours=[()], panel_keys=[], colour_keys=[])
    x = _XAxis.of(groups, axes)
    narrow, columns = is_narrow(figure), len(plan.panels)
    if narrow and columns > 1:  # the panels of all columns below each other
        figure.set_figheight(NARROW_TOP_IN + NARROW_PANEL_IN * columns)
        below = figure.subplots(2 * columns, 1, sharex=True, squeeze=False)
        rows, columns = below.reshape(columns, 2).T, 1
    else:
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
            text = rows[0, column].set_title(title, fontsize=11 if columns < 4 else 9.5)
            fit_text(text, 0.85 * figure.bbox.width / columns, SMALLEST_PT)
        x.set_ticks(rows[1, column], 3 if narrow else columns)
        if columns <= 2 and (not narrow or panel == plan.panels[-1]):
            rows[1, column].set_xlabel(x.label)
    if columns > 2:  # One label for all panels.
        figure.supxlabel(x.label, y=0.02, fontsize=11, color=style.QUIET)
    for column in range(rows.shape[1] if narrow else 1):  # the others share their axes
        _set_axes(rows[0, column], rows[1, column], groups)
    title = f"{join_labels(KEYS)} over {axis_label(axes.x)}"
    facts = [counted(groups)]
    if not joined:
        also = join_words([axis_label(key) for key in axes.series])
        facts.append(f"Each mark is a run. Runs also differ in {also}.")
    handles = rows[0, 0].get_legend_handles_labels()[0]
    if any(not run.converged for group in groups for run in group.runs):
        options: dict[str, Any] = {"ms": 9, "mew": 2.2, "color": style.QUIET}
        handles += rows[0, 0].plot([], [], "x", label=STOPPED, **options)
    facts = wrapped(figure, facts)
    titled = (0.035 if plan.panel_keys else 0.0) * style.HEIGHT_IN / figure.get_figheight()
    figure.subplots_adjust(
        left=left_share(figure),
        right=0.975,
        top=figure_legend(figure, handles, len(facts)) - titled,
        bottom=1 - from_top(figure, 0.915) if narrow else 0.085,
        hspace=0.4 if narrow and plan.panel_keys else 0.14,
        wspace=0.09,
    )
    headline(figure, title, facts)
    if not (axes.series and joined):
        return title
    return f"{title}, for each {join_words([axis_label(key) for key in axes.series])}"


def _matches(group: Ensemble, plan: Layout, panel: Series, colours: Series) -> bool:
    return (
        tuple(group.value(key).text for key in plan.panel_keys) == panel
        and tuple(group.value(key).text for key in plan.colour_keys) == colours
    )


@dataclass(frozen=True, kw_only=True)
class _XAxis:
    """The horizontal axis: a value is at its number, or categories have equal distances."""

    name: str
    kind: str
    values: list[Value]
    numeric: bool
    logarithmic: bool

    @classmethod
    def of(cls, groups: Sequence[Ensemble], axes: Axes) -> _XAxis:
        assert axes.x is not None
        values = sort_values(group.value(axes.x) for group in groups)
        numbers = [v.number or 0.0 for v in values]
        kind = dimension_of((group.runs[0] for group in groups), axes.x)
        logarithmic = axes.is_numeric and max(numbers) > LOG_RATIO * min(numbers) > 0
        return cls(
            name=axes.x, kind=kind, values=values, numeric=axes.is_numeric, logarithmic=logarithmic
        )

    @property
    def label(self) -> str:
        return axis_label(self.name) + (", log scale" if self.logarithmic else "")

    def at(self, group: Ensemble) -> float:
        value = group.value(self.name)
        if self.numeric and value.number is not None:
            return value.number
        return float(self.values.index(value))

    def set_ticks(self, panel: Panel, columns: int) -> None:
        """Set ticks at the swept values, or at round values if there are many."""
        if self.logarithmic:
            set_log_scale(panel.xaxis)
        places = [v.number if self.numeric else float(i) for i, v in enumerate(self.values)]
        texts = [tick_text(v.text, TICK_CHARACTERS) for v in self.values]
        ticks = dict(zip([float(p or 0.0) for p in places], texts, strict=True))
        if self.numeric:
            # Wider margins, or the outermost labels of neighbouring panels would overlap.
            panel.set_xlim(
                *_with_margin(list(ticks), self.logarithmic, 0.05 if columns < 3 else 0.18)
            )
            if len(ticks) > MAX_TICKS:
                found = _round_ticks(list(ticks), self)
                ticks = {tick: format_value(self.kind, tick) for tick in found}
            ticks = _apart(ticks, self.logarithmic, CLOSEST_TICKS * columns)
        else:
            panel.set_xlim(-0.6, len(self.values) - 0.4)
            step = math.ceil(len(ticks) / (MOST_CATEGORIES // columns))
            ticks = dict(list(ticks.items())[::step])
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


def _round_ticks(places: list[float], x: _XAxis) -> list[float]:
    """Return even steps, or powers of two or ten on a logarithmic axis."""
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
    return [float(tick) * unit for tick in found if low <= tick * unit <= high] or [low, high]


def _with_margin(places: list[float], logarithmic: bool, share: float) -> tuple[float, float]:
    """Return limits of an axis that leave a share of it free on both sides."""
    low, high = min(places), max(places)
    if logarithmic:
        margin = (high / low) ** share
        return low / margin, high * margin
    margin = share * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def _apart(ticks: dict[float, str], logarithmic: bool, closest: float) -> dict[float, str]:
    """Drop the labels that would overlap the label before."""
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
    x: _XAxis,
    index: int,
    shift: float,
    name: str | None,
    joined: bool,
) -> None:
    """Draw medians, the band of 5 to 95 %, and the runs that did not converge."""
    colour = style.RUN_COLOURS[index]
    groups = sorted(groups, key=x.at)
    at = np.array([x.at(group) for group in groups]) + (0.0 if x.numeric else shift)
    none = (math.nan,) * 3
    found = np.array([group.quantiles(key) or none for group in groups]).reshape(-1, 3)
    low, middle, high = found.T
    options: dict[str, Any] = {"color": colour, "zorder": 3}
    if x.numeric and joined:
        panel.fill_between(at, low, high, color=colour, alpha=0.16, lw=0)
    panel.vlines(at, low, high, color=colour, lw=2.2, alpha=0.55, zorder=2)
    mark = style.MARKS[index] if joined else ""
    panel.plot(at, middle, ls="", marker=mark or "o", ms=7 if mark else 5, **options)
    line = style.RUN_LINES[index]
    on_line = [group.value(x.name).number is not None for group in groups]
    if joined and any(on_line):  # No line leads from 60 s to "off".
        panel.plot(at[on_line], middle[on_line], ls=line, **options)
    else:
        line = ""
    if name:
        panel.plot([], [], ls=line, marker=mark, ms=7, label=name, **options)
    for place, group in zip(at.tolist(), groups, strict=True):
        stopped = [n for r in group.runs if not r.converged and (n := r.number(key)) is not None]
        panel.plot([place] * len(stopped), stopped, "x", ms=10, mew=2.4, clip_on=False, **options)
        if group.converged and stopped and key == "total_time_s":
            panel.annotate(
                group.share,
                (place, group.median(key) or 0.0),
                textcoords="offset points",
                xytext=(9, -11),
                fontsize=9,
                color=colour,
            )


def _set_axes(time: Panel, loss: Panel, groups: Sequence[Ensemble]) -> None:
    times_s = [n for g in groups for r in g.runs if (n := r.number("total_time_s"))]
    set_time_axis(time.yaxis, times_s, name=RUN_FIELDS[KEYS[0]].label)
    highest = max(
        (r.number("guest_cpu_lost_percent") or 0.0 for g in groups for r in g.runs), default=0.0
    )
    loss.set_ylim(0, 1.1 * highest if highest else 1.0)
    loss.set_ylabel(RUN_FIELDS[KEYS[1]].axis_label())


def counted(groups: Sequence[Ensemble]) -> str:
    """Return how many runs converged, and how much seeds spread, as a line of facts."""
    runs = [run for group in groups for run in group.runs]
    converged = sum(run.converged for run in runs)
    switched = sum(run.outcome == "postcopy" for run in runs)
    facts = [f"{converged} of {len(runs)} runs {'completed' if switched else 'converged'}"]
    if switched:
        facts.append(f"{switched} with post-copy")
    seeds = sorted({len(group.runs) for group in groups})
    if seeds[-1] > 1:
        count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        facts.append(f"median and 5 to 95 % of {count} seeds (converged runs only)")
        spreads = [(q[2] - q[0]) / q[1] for g in groups if (q := g.quantiles(KEYS[0])) and q[1]]
        if spreads:
            widest = f"{format_number(100 * max(spreads))} %"
            facts.append(f"total times of seeds differ by at most {widest}")
    return SEPARATOR.join(facts)
