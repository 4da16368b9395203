"""The trade-off of total time and guest CPU time lost, and the runs that no other run beats in both.

Only runs of one VM, workload and tracking compete, because an operator does not choose these. The
loss is vCPU time, since the same share of a longer migration is a larger loss.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpusim.results.errors import RunsError
from gpusim.results.plots import style
from gpusim.results.plots.canvas import (
    LEAST_LOG_S,
    SEPARATOR,
    Place,
    figure_legend,
    headline,
    left_share,
    place_label,
    set_log_scale,
    set_time_axis,
    spans_decades,
    wrapped,
)
from gpusim.results.summary_fields import RUN_FIELDS, join_labels
from gpusim.results.sweeps.axes import Axes
from gpusim.results.sweeps.config_values import axis_label, describe_value, sort_values
from gpusim.results.sweeps.ensembles import Ensemble, series_of
from gpusim.text import format_duration, join_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from matplotlib.figure import Figure

GIVEN = ("vm.", "workload.", "tracking.", "evacuation.guests")  # An operator cannot set these.
KEYS = ("total_time_s", "guest_cpu_lost_s")
MAX_SCENARIOS = 12
MAX_LABELS = 24
LABEL_CHARACTERS = 46
MARK = 5.0  # pixels from a mark's centre to its edge
_PLACES = (((9, 7), "left"), ((-9, -14), "right"), ((9, -14), "left"), ((-9, 7), "right"))
Point = tuple[float, float]  # total_time_s, guest_cpu_lost_s


def front(points: Sequence[Point]) -> list[int]:
    """Return the indices of the points that no other beats in both coordinates, from left to right.

    A point beats another if it is no larger in either coordinate and smaller in one.
    """
    best: list[int] = []
    lowest = float("inf")
    for index in sorted(range(len(points)), key=lambda i: points[i]):
        beaten = points[index][1] >= lowest and not (best and points[index] == points[best[-1]])
        if not beaten:
            best.append(index)
            lowest = points[index][1]
    return best


def draw_pareto(figure: Figure, groups: Sequence[Ensemble], axes: Axes) -> str:
    """Draw the fronts of all scenarios.

    Returns:
        A sentence about what the picture shows, without a full stop.

    Raises:
        RunsError: there is no choice to draw, and why.
    """
    keys = [key for key in (axes.x, *axes.series) if key]
    given = [key for key in keys if key.startswith(GIVEN)]
    chosen = [key for key in keys if key not in given]
    scenarios: dict[tuple[str, ...], list[tuple[Ensemble, Point]]] = {
        scenario: [] for scenario in series_of(groups, given)
    }
    for group in groups:
        time_s, lost_s = group.median(KEYS[0]), group.median(KEYS[1])
        if time_s is not None and lost_s is not None:
            scenario = tuple(group.value(key).text for key in given)
            scenarios[scenario].append((group, (time_s, lost_s)))
    scenarios = {name: members for name, members in scenarios.items() if len(members) > 1}
    if not chosen or not scenarios:
        raise RunsError("no_choice")
    if len(scenarios) > MAX_SCENARIOS:
        raise RunsError("too_many_scenarios", count=len(scenarios))
    panel = figure.add_subplot()
    for index, (scenario, members) in enumerate(scenarios.items()):
        name = ", ".join(map(describe_value, given, scenario)) or "no other run is better in both"
        _draw_scenario(panel, members, index, len(scenarios), name)
    points = [point for members in scenarios.values() for _, point in members]
    panel.grid(visible=True, axis="both")
    times_s, losses_s = zip(*points, strict=True)
    set_time_axis(panel.xaxis, times_s, name=RUN_FIELDS[KEYS[0]].label, from_zero=False)
    _set_loss_axis(panel, losses_s, RUN_FIELDS[KEYS[1]].label)
    handles = panel.get_legend_handles_labels()[0]
    if any(len(members) > len(front([p for _, p in members])) for members in scenarios.values()):
        options: dict[str, Any] = {"ms": 5, "alpha": 0.35, "color": style.QUIET}
        handles += panel.plot([], [], "o", label="another run is better in both", **options)
    facts = ["lower left is better"]
    if any(len(group.runs) > 1 for group in groups):
        facts.append("each point is a median over the seeds that converged")
    lines = wrapped(figure, [SEPARATOR.join(facts)])
    top = figure_legend(figure, handles, len(lines), width=110)
    figure.subplots_adjust(left=left_share(figure), right=0.955, top=top, bottom=0.085)
    names = join_words([axis_label(key) for key in chosen]) if len(chosen) < 3 else "the settings"
    headline(figure, f"{join_labels(KEYS)}, by {names}", lines)
    _draw_labels(figure, panel, list(scenarios.values()), chosen)
    return f"{join_labels(KEYS)}, in full colour if no other run is better in both"


def _colour(index: int, count: int) -> Any:
    if count <= len(style.RUN_COLOURS):
        return style.RUN_COLOURS[index]
    import matplotlib

    return matplotlib.colormaps["viridis"](0.92 * index / (count - 1))


def _draw_scenario(
    panel: Panel, members: list[tuple[Ensemble, Point]], index: int, count: int, name: str
) -> None:
    points = [point for _, point in members]
    best = front(points)
    colour, mark = _colour(index, count), style.MARKS[index % len(style.MARKS)]
    rest = [point for i, point in enumerate(points) if i not in best]
    panel.plot(*_columns(rest), mark, ms=5, color=colour, alpha=0.35)
    panel.plot(
        *_columns([points[i] for i in best]),
        marker=mark,
        ms=8,
        color=colour,
        lw=1.6,
        label=name,
        drawstyle="steps-post",
        zorder=3,
    )


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _set_loss_axis(panel: Panel, lost_s: Sequence[float], name: str) -> None:
    """Set the axis of vCPU time: linear, or logarithmic with a zero if the times span decades."""
    positive = [loss for loss in lost_s if loss >= LEAST_LOG_S]
    if not spans_decades(positive):
        set_time_axis(panel.yaxis, lost_s, name=name, from_zero=False)
        return
    low, high = min(positive), max(positive)
    if len(positive) == len(lost_s):
        set_time_axis(panel.yaxis, lost_s, name=name)
        return
    set_log_scale(panel.yaxis, "symlog", linthresh=low)
    panel.set_ylim(-0.15 * low, 1.5 * high)
    ticks = [0.0, *style.time_ticks(low, 1.5 * high, most=7)]
    panel.set_yticks(ticks, ["0", *(format_duration(tick) for tick in ticks[1:])])
    panel.set_yticks([], minor=True)
    panel.set_ylabel(f"{name}, log scale")


def _draw_labels(
    figure: Figure,
    panel: Panel,
    scenarios: list[list[tuple[Ensemble, Point]]],
    chosen: Sequence[str],
) -> None:
    """Label the points of the fronts first, then the others if one key is enough to name them."""
    figure.canvas.draw()
    marks = [tuple(panel.transData.transform(p)) for members in scenarios for _, p in members]
    taken: list[Any] = []
    for on_front in (True, False) if len(chosen) == 1 else (True,):
        for members in scenarios:
            best = front([point for _, point in members])
            alike: dict[tuple[int, ...], list[tuple[Ensemble, Point]]] = {}
            for index, (group, point) in enumerate(members):
                if (index in best) == on_front:
                    pixels = tuple(round(at / MARK) for at in panel.transData.transform(point))
                    alike.setdefault(pixels, []).append((group, point))
            for same in alike.values():
                if len(taken) < MAX_LABELS:
                    (x, y), text = same[0][1], _label([group for group, _ in same], chosen)
                    here = min(marks, key=lambda t: math.dist(t, panel.transData.transform((x, y))))
                    places = [Place(x=x, y=y, offset=by, side=side) for by, side in _PLACES]
                    others = [mark for mark in marks if mark != here]
                    place_label(panel, text, places, taken=taken, marks=others, leader=True)


def _label(groups: Sequence[Ensemble], chosen: Sequence[str]) -> str:
    """Return the choices in a few short lines: "5 s or off", "initial throttle 20 or 40 %"."""
    values = [[v.text for v in sort_values(group.value(key) for group in groups)] for key in chosen]
    texts = [" or ".join(some if len(some) < 4 else [*some[:2], "..."]) for some in values]
    if len(chosen) == 1:
        return texts[0]
    parts = (
        describe_value(key, text).replace(" ", "\u00a0")
        for key, text in zip(chosen, texts, strict=True)
    )
    return textwrap.fill(", ".join(parts), LABEL_CHARACTERS, break_long_words=False)
