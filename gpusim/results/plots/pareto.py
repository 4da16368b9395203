"""Total time against guest loss: what is bought with what, and which choices no other beats in both.

Owns the front and its picture. Only runs of one VM, workload and tracking compete with each other:
a smaller VM is no choice of the operator's. The loss is vCPU time, since a share of a longer
migration would be cheaper to have than the same share of a short one.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpusim.errors import ResultsError
from gpusim.results.plots import style
from gpusim.results.plots.run import LOG_RATIO, headline, picture
from gpusim.results.plots.sweep import MARKS, dress_time
from gpusim.results.sweeps.axes import Axes
from gpusim.results.sweeps.config_values import axis_label, describe_value, sort_values
from gpusim.results.sweeps.ensembles import Ensemble, series_of
from gpusim.text import format_duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from matplotlib.figure import Figure

GIVEN = (
    "vm.",
    "workload.",
    "tracking.",
    "evacuation.guests",
)  # what an operator finds, not what he sets
MAX_SCENARIOS = 12
MAX_LABELS = 24
LABEL_CHARACTERS = 46
MARK = 5.0  # pixels from a mark's centre to its edge
Point = tuple[float, float]  # total_time_s, guest_cpu_lost_s


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other beats in both coordinates, from left to right.

    A point is beaten by one that is no larger in either and smaller in one.
    """
    best: list[int] = []
    lowest = float("inf")
    for index in sorted(range(len(points)), key=lambda i: points[i]):
        beaten = points[index][1] >= lowest and not (best and points[index] == points[best[-1]])
        if not beaten:
            best.append(index)
            lowest = points[index][1]
    return best


def draw_pareto(groups: Sequence[Ensemble], axes: Axes, path: Path) -> str:
    """Draw the fronts of all scenarios into `path`, a PNG of 1200 x 900 pixels.

    Returns:
        What it shows, in words.

    Raises:
        ResultsError: there is no choice to draw, and why; or matplotlib is missing.
        OSError: the file cannot be written.
    """
    keys = [key for key in (axes.x, *axes.series) if key]
    given = [key for key in keys if key.startswith(GIVEN)]
    chosen = [key for key in keys if key not in given]
    scenarios: dict[tuple[str, ...], list[tuple[Ensemble, Point]]] = {
        scenario: [] for scenario in series_of(groups, given)
    }
    for group in groups:
        time_s, lost_s = group.median("total_time_s"), group.median("guest_cpu_lost_s")
        if time_s is not None and lost_s is not None:
            scenario = tuple(group.value(key).text for key in given)
            scenarios[scenario].append((group, (time_s, lost_s)))
    scenarios = {name: members for name, members in scenarios.items() if len(members) > 1}
    if not chosen or not scenarios:
        raise ResultsError("no two converged runs of one VM and workload differ in their settings")
    if len(scenarios) > MAX_SCENARIOS:
        raise ResultsError(f"{len(scenarios)} VMs and workloads are too many for one picture")
    with picture(path) as figure:
        panel = figure.add_subplot()
        everything = [point for members in scenarios.values() for _, point in members]
        for index, (scenario, members) in enumerate(scenarios.items()):
            name = ", ".join(map(describe_value, given, scenario)) or "no other is better in both"
            _draw_scenario(panel, members, index, len(scenarios), name)
        panel.grid(axis="both")
        dress_time(panel.xaxis, [t for t, _ in everything], name="Total time", from_zero=False)
        dress_loss(panel, [lost_s for _, lost_s in everything])
        if any(
            len(members) > len(front([p for _, p in members])) for members in scenarios.values()
        ):
            panel.plot(
                [], [], "o", ms=5, alpha=0.35, color=style.QUIET, label="another is better in both"
            )
        handles, labels = panel.get_legend_handles_labels()
        columns = max(1, min(len(labels), 110 // (8 + max(map(len, labels)))))
        figure.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(0.012, 0.903), ncols=columns
        )
        rows = -(-len(labels) // columns)
        figure.subplots_adjust(left=0.085, right=0.955, top=0.87 - 0.026 * rows, bottom=0.085)
        names = " and ".join(map(axis_label, chosen)) if len(chosen) < 3 else "the settings"
        facts = "lower left is better"
        if any(len(group.runs) > 1 for group in groups):
            facts += "  \u00b7  each point a median over the seeds that converged"
        headline(figure, f"Total time against guest loss, by {names}", [facts])
        _draw_labels(figure, panel, list(scenarios.values()), chosen)
    return "Total time against the vCPU time the guest loses; in full colour what no other beats in both"


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
    colour, mark = _colour(index, count), MARKS[index % len(MARKS)]
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


def dress_loss(panel: Panel, lost_s: Sequence[float]) -> None:
    """The axis of vCPU time: linear, logarithmic where it spans decades, both where some is zero."""
    positive = [loss for loss in lost_s if loss > 0]
    name = "Guest CPU lost, vCPU time"
    if not positive or max(positive) <= LOG_RATIO * min(positive):
        dress_time(panel.yaxis, lost_s, name=name, from_zero=False)
        return
    low, high = min(positive), max(positive)
    if len(positive) == len(lost_s):
        dress_time(panel.yaxis, lost_s, name=name)
        return
    panel.set_yscale("symlog", linthresh=low)
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
    """Name the points, those of the fronts first, each where its words hide neither a point nor other words."""
    figure.canvas.draw()
    taken = [tuple(panel.transData.transform(p)) for members in scenarios for _, p in members]
    boxes: list[Any] = []
    for all_named in (False, True):  # what is on a front comes first
        for members in scenarios:
            best = front([point for _, point in members])
            alike: dict[tuple[int, ...], list[tuple[Ensemble, Point]]] = {}  # for the eye
            for index, (group, point) in enumerate(members):
                if (index in best) != all_named:
                    pixels = tuple(round(at / MARK) for at in panel.transData.transform(point))
                    alike.setdefault(pixels, []).append((group, point))
            for same in alike.values():
                if len(boxes) < MAX_LABELS and (len(chosen) == 1 or not all_named):
                    words = _words([group for group, _ in same], chosen)
                    _place(figure, panel, words, same[0][1], taken, boxes)


def _words(groups: Sequence[Ensemble], chosen: Sequence[str]) -> str:
    """The choices in a few short lines: "5 s or off", "initial throttle 20 or 40 %"."""
    texts = [[v.text for v in sort_values(group.value(key) for group in groups)] for key in chosen]
    said = [" or ".join(some if len(some) < 4 else [*some[:2], "..."]) for some in texts]
    if len(chosen) == 1:
        return said[0]
    parts = (
        describe_value(key, text).replace(" ", "\u00a0")
        for key, text in zip(chosen, said, strict=True)
    )
    return textwrap.fill(", ".join(parts), LABEL_CHARACTERS, break_long_words=False)


def _rounded(point: Point) -> Point:
    """Points that no eye tells apart are one."""
    time_s, lost_s = (float(f"{number:.3g}") for number in point)
    return time_s, lost_s


_PLACES = (((9, 7), "left"), ((-9, -14), "right"), ((9, -14), "left"), ((-9, 7), "right"))


def _place(
    figure: Figure, panel: Panel, text: str, point: Point, taken: list[Any], boxes: list[Any]
) -> None:
    from matplotlib.text import Text

    here = tuple(min(taken, key=lambda t: math.dist(t, panel.transData.transform(point))))
    for offset, side in _PLACES:
        words = panel.annotate(
            text,
            point,
            xytext=offset,
            textcoords="offset points",
            ha=side,
            fontsize=9.5,
            color=style.INK,
            zorder=5,
            arrowprops={
                "arrowstyle": "-",
                "color": style.GREY,
                "lw": 0.7,
                "shrinkA": 1,
                "shrinkB": 5,
            },
        )
        words.get_window_extent()  # which puts it in its place
        box = Text.get_window_extent(words)  # of the words, without the line to their point
        inside = panel.bbox.contains(box.x0, box.y0) and figure.bbox.contains(box.x1, box.y1)
        free = not any(box.overlaps(other) for other in boxes)
        clear = not any(
            box.x0 - MARK < x < box.x1 + MARK and box.y0 - MARK < y < box.y1 + MARK
            for x, y in taken
            if (x, y) != here
        )
        if inside and free and clear:
            boxes.append(box)
            return
        words.remove()
