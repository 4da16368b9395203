"""The part of plot.png about post-copy: where it is, and two panels about the time after the switch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gpusim.engine.records import Result
from gpusim.results.plots import style
from gpusim.results.plots.canvas import from_top, is_narrow, left_share, legend, set_percent_axis
from gpusim.results.turning_points import lost_links, resume_s, sending_s, stop_s
from gpusim.text import format_duration, format_number, time_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches of the two panels below the others, with their titles and labels.
ROOM_IN, NARROW_ROOM_IN = 3.3, 5.4
SHOWN_TIMES = 3.0  # times the guest's recovery, if the phase is longer
MOST_TICKS = 8
LABELLED, FLAT_LABEL = (
    0.04,
    0.35,
)  # of the width, for the text in the band where the guest stands still


def make_room(figure: Figure) -> None:
    """Make an empty figure higher, for `draw_postcopy`."""
    figure.set_figheight(figure.get_figheight() + _room_in(figure))


def _room_in(figure: Figure) -> float:
    return NARROW_ROOM_IN if is_narrow(figure) else ROOM_IN


def draw_postcopy(figure: Figure, result: Result) -> None:
    """Draw the two panels below the others, which move up.

    Args:
        figure: a figure after `make_room`, with its other panels.
        result: a migration that switched to post-copy.
    """
    high_in, room_in = figure.get_figheight(), _room_in(figure)
    figure.subplots_adjust(bottom=(room_in + 0.075 * style.HEIGHT_IN) / high_in)
    narrow = is_narrow(figure)
    rows, columns = (2, 1) if narrow else (1, 2)
    grid = figure.add_gridspec(
        rows,
        columns,
        left=left_share(figure),
        right=0.965,
        bottom=0.66 / high_in,
        top=from_top(figure, 1 - (high_in - room_in + 0.45) / style.HEIGHT_IN),
        wspace=0.16,
        hspace=0.85,
    )
    _draw_recovery(figure.add_subplot(grid[0, 0]), result)
    _draw_latency(figure.add_subplot(grid[1, 0] if narrow else grid[0, 1]), result)


def mark_postcopy(panels: list[Axes], result: Result, unit_s: float) -> None:
    """Mark the time from the switch to the end in panels over the whole run."""
    summary = result.summary
    since, until = stop_s(summary) / unit_s, summary.simulated_s / unit_s
    for number, panel in enumerate(panels):
        panel.axvspan(since, until, color=style.GREEN, alpha=0.1, lw=0, zorder=0)
        label = None if number else "switch to post-copy"
        panel.axvline(since, color=style.GREEN, lw=1.4, ls="--", label=label)
        _mark_lost_links(panel, result, 0.0, unit_s, "" if number else "link lost")


def _mark_lost_links(
    axes: Axes, result: Result, origin_s: float, unit_s: float, label: str = ""
) -> None:
    for number, (lost_s, found_s) in enumerate(lost_links(result)):
        axes.axvspan(
            (lost_s - origin_s) / unit_s,
            (found_s - origin_s) / unit_s,
            facecolor="none",
            edgecolor=style.ORANGE,
            hatch="///",
            alpha=0.45,
            lw=0,
            zorder=0,
            label=label if label and not number else None,
        )


def _draw_recovery(axes: Axes, result: Result) -> None:
    """Draw the speed of the guest and the missing memory from the switch on."""
    summary, steps = result.summary, result.postcopy
    switched_s = stop_s(summary)
    whole_s = max(summary.simulated_s - switched_s, 1e-6)
    resumed_s = min(resume_s(summary) - switched_s, whole_s)
    slow_s = resumed_s + (summary.postcopy_recovery_s or 0.0)
    shown_s = min(whole_s, SHOWN_TIMES * slow_s)
    unit, unit_s = time_unit(shown_s)
    since_s = sending_s(summary) - switched_s
    edges = [0.0, since_s, *(step.time_s - switched_s for step in steps)]
    speeds = [0.0, *(step.guest_speed_percent for step in steps)]
    missing = summary.postcopy_bytes or 1
    left = [100.0, 100.0, *(100 * step.missing_bytes / missing for step in steps)]
    axes.axvspan(0, resumed_s / unit_s, color=style.SHADE, lw=0, zorder=0)
    if resumed_s > LABELLED * shown_s:
        upright = resumed_s < FLAT_LABEL * shown_s
        axes.text(
            (0.5 if upright else 0.03) * resumed_s / unit_s,
            45 if upright else 8,
            "guest stands still",
            rotation=90 if upright else 0,
            ha="center" if upright else "left",
            va="center",
            fontsize=9.5,
            color=style.QUIET,
        )
    axes.plot([at / unit_s for at in edges], left, color=style.INK, lw=1.6, label="missing memory")
    axes.stairs(
        speeds,
        [at / unit_s for at in edges],
        baseline=None,
        color=style.BLUE,
        lw=1.8,
        label="guest speed",
    )
    _mark_lost_links(axes, result, switched_s, unit_s)
    set_percent_axis(axes)
    axes.set_xlim(0, shown_s / unit_s)
    axes.set_xlabel(f"Time since the switch ({unit})")
    axes.set_title("After the switch")
    legend(axes, 2)


def _draw_latency(axes: Axes, result: Result) -> None:
    """Draw how many requests took how long, in QEMU's buckets."""
    summary, counts = result.summary, result.postcopy_latency_counts
    requests = sum(counts)
    noun = "request" if requests == 1 else "requests"
    axes.set_title(f"{requests:,} {noun} by latency" if requests else "Requests")
    filled = [bucket for bucket, count in enumerate(counts) if count]
    if not filled:
        axes.set_yticks([])
        axes.set_xticks([])
        axes.text(
            0.5,
            0.5,
            "The guest asked for no page",
            transform=axes.transAxes,
            ha="center",
            va="center",
            color=style.QUIET,
        )
        return
    first, last = max(filled[0] - 1, 0), min(filled[-1] + 1, len(counts) - 1)
    buckets = range(first, last + 1)
    axes.bar(
        buckets,
        [100 * counts[bucket] / requests for bucket in buckets],
        width=0.92,
        align="edge",
        color=style.BLUE,
    )
    mean_us = 1000 * (summary.postcopy_latency_ms or 0.0)
    if mean_us >= 1:
        label = f"mean {format_duration(mean_us / 1e6)}"
        axes.axvline(math.log2(mean_us), color=style.ORANGE, lw=1.4, ls="--", label=label)
    step = -(-(len(buckets) + 1) // MOST_TICKS)
    ticks = list(range(first, last + 2, step))
    axes.set_xticks(ticks, [format_number(2**tick / 1e3) if tick else "0" for tick in ticks])
    axes.set_xlim(first - 0.2, last + 1.2)
    axes.set_xlabel("Time of a request (ms, log scale)")
    axes.set_ylabel("% of requests")
    legend(axes, 1)
