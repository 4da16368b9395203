"""plot.png: what happened in one migration, for a reader who has ten seconds and no glossary.

Owns the picture alone: three panels over one time axis, the verdict above them. It draws what the
records say and computes nothing that a rule of QEMU's depends on.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpusim.engine.records import Result, Summary, SyncRecord, TimelineSample
from gpusim.errors import require
from gpusim.files import whole_file
from gpusim.results.plots import style
from gpusim.results.timeline import FloatArray
from gpusim.results.turning_points import pass_borders, stop_s
from gpusim.results.verdicts import describe_outcome
from gpusim.text import (
    capitalized,
    decider_name,
    format_duration,
    format_number,
    rate_unit,
    size_unit,
    time_unit,
)
from gpusim.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPEED_BINS = 240  # the guest's speed is averaged, or throttle slices would hatch the panel
SPEED_BIN_S = 2.0  # two slices at 99 %, QEMU's highest throttle
NARROWEST_PASS = 0.004  # of the picture's width: narrower bands would only flicker
LABELLED_PASS = 0.052
LINE_CHARACTERS = 145  # what fits on a line below the headline
FEW_SYNCS = 150  # more of them are drawn thinner, or they become one black block
SYNC_ROOM = 1.22  # the rows of syncs stand above the highest value
LOG_RATIO = 12.0  # rates further apart than this share no linear axis


def require_matplotlib() -> None:
    """Check that a picture can be drawn, before anything is computed or written.

    Raises:
        ResultsError: matplotlib is not installed.
    """
    require("matplotlib", "plot")


def draw_run(result: Result, path: Path, *, trigger_percent: int | None = None) -> None:
    """Draw one migration into `path`, a PNG of 1200 x 900 pixels.

    Args:
        result: the migration.
        path: of the picture.
        trigger_percent: throttle_trigger_threshold, drawn as a share of what is sent; None: not.

    Raises:
        ResultsError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    with picture(path) as figure:
        total_s = max(result.summary.total_time_s, 1e-3)
        unit, unit_s = time_unit(total_s)
        lines = _below_headline(result.summary)
        remaining, speed, rates = panels(figure, (3.2, 2.2, 2.2), len(lines))
        _draw_passes([remaining, rates], result, total_s, unit_s)
        _draw_remaining(remaining, result, unit_s)
        _draw_speed(speed, result, total_s, unit_s)
        _draw_rates(rates, result.syncs, unit_s, trigger_percent)
        rates.set_xlabel(f"Time since the migrate command ({unit})")
        rates.set_xlim(0, total_s / unit_s)
        headline(figure, _title(result.summary), lines)


@contextmanager
def picture(path: Path) -> Iterator[Figure]:
    """An empty figure to draw on, saved to `path` when the block ends; no state of pyplot's.

    Raises:
        ResultsError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=(style.WIDTH_IN, style.HEIGHT_IN), dpi=style.DPI)
        FigureCanvasAgg(figure)
        yield figure
        with whole_file(path) as file:
            figure.savefig(file, format="png")


def panels(figure: Figure, heights: tuple[float, ...], rows: int) -> list[Axes]:
    """Panels above each other over one time axis, below a headline and `rows` lines of text."""
    axes = figure.subplots(
        len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights, "hspace": 0.34}
    )
    top = style.PANELS_TOP - style.ROW * rows
    figure.subplots_adjust(left=0.085, right=0.965, top=top, bottom=0.075)
    return list(axes)


def legend(axes: Axes, columns: int) -> None:
    """The panel's legend at the right of its title, where it hides no data."""
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1.0, 1.005),
            ncols=columns,
            borderaxespad=0.0,
            borderpad=0.3,
            handlelength=1.6,
            columnspacing=1.6,
        )


def headline(figure: Figure, title: str, lines: list[str]) -> None:
    """One bold line, and under it what a reader wants to know next."""
    figure.text(0.02, 0.972, title, fontsize=18, fontweight="bold", va="top")
    figure.text(
        0.02, 0.932, "\n".join(lines), fontsize=11, color=style.QUIET, va="top", linespacing=1.45
    )


def _title(summary: Summary) -> str:
    outcome = capitalized(describe_outcome(summary.status, summary.verdict, summary.total_time_s))
    vm = f"{format_bytes(summary.vm_bytes)} VM, {decider_name(summary.qemu_version, summary.policies)}"
    return f"{outcome}  \u00b7  {vm}"


def facts(summary: Summary) -> list[str]:
    """What a reader wants to know next, in a few words each."""
    told = [f"attempt {summary.attempt}"] if summary.attempt > 1 else []
    if summary.downtime_ms is not None:
        told.append(f"downtime {format_duration(summary.downtime_ms / 1e3)}")
    if summary.paused_s:
        told.append(f"paused for {format_duration(summary.paused_s)}")
    if summary.max_throttle_percent:
        highest = format_duration(summary.time_at_max_throttle_s)
        told.append(f"throttle up to {summary.max_throttle_percent} % (for {highest})")
        told.append(f"guest CPU lost {format_number(summary.guest_cpu_lost_percent)} %")
    else:
        told.append("never throttled")
    told.append(f"{summary.dirty_sync_count} sync{'' if summary.dirty_sync_count == 1 else 's'}")
    if summary.fallback_sync_count:
        told[-1] += f", {summary.fallback_sync_count} of them by the fallback timer"
    return told


def _below_headline(summary: Summary) -> list[str]:
    """The facts on a line, and the reason if it says anything else."""
    line = "  \u00b7  ".join(facts(summary))
    if summary.verdict in ("converged", "cancelled"):  # the title has said it all
        return [line]
    reason = capitalized(summary.reason)
    width = LINE_CHARACTERS
    if len(reason) > LINE_CHARACTERS:  # two lines of about the same length, not one and a word
        width = min(len(reason) // 2 + 12, LINE_CHARACTERS)
    return [line, *textwrap.wrap(reason, width, max_lines=2, placeholder=" ...")]


def _draw_passes(panels: list[Axes], result: Result, total_s: float, unit_s: float) -> None:
    """Every other pass shaded, and numbered in the first panel where there is room."""
    for number, (start_s, end_s) in enumerate(pairwise(pass_borders(result)), start=1):
        share = (end_s - start_s) / total_s
        if number % 2 == 0 and share > NARROWEST_PASS:
            for axes in panels:
                axes.axvspan(start_s / unit_s, end_s / unit_s, color=style.SHADE, lw=0, zorder=0)
        if share > LABELLED_PASS:
            panels[0].text(
                (start_s + end_s) / 2 / unit_s,
                0.985,
                f"pass {number}",
                transform=panels[0].get_xaxis_transform(),
                ha="center",
                va="top",
                fontsize=9.5,
                color=style.QUIET,
            )


def _draw_remaining(axes: Axes, result: Result, unit_s: float) -> None:
    samples = result.samples
    largest = max((sample.remaining_bytes for sample in samples), default=0)
    unit, unit_bytes = size_unit(largest)
    few = len(result.syncs) < FEW_SYNCS
    axes.plot(
        [sample.time_s / unit_s for sample in samples],
        [sample.remaining_bytes / unit_bytes for sample in samples],
        color=style.INK,
        lw=1.6 if few else 1.0,
        alpha=1.0 if few else 0.8,
    )
    _draw_threshold(axes, result, largest, unit_s, unit_bytes)
    top = max(largest, 1) / unit_bytes
    axes.set_ylim(0, SYNC_ROOM * top)
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 1.01 * top])
    axes.set_ylabel(unit)
    axes.set_title(_title_of_remaining(result, largest))
    _draw_syncs(axes, result.syncs, unit_s)
    legend(axes, 3)


def _shows_threshold(result: Result, largest: float) -> bool:
    thresholds = [sync.threshold_bytes for sync in result.syncs if sync.threshold_bytes > 0]
    return bool(thresholds) and max(thresholds) > 0.02 * largest and min(thresholds) < largest


def _title_of_remaining(result: Result, largest: float) -> str:
    """With the threshold in words where its line could not be told from the axis."""
    last = result.syncs[-1].threshold_bytes if result.syncs else 0
    if not last or _shows_threshold(result, largest):
        return "Left to send"
    return f"Left to send; QEMU switches over below {format_bytes(last)}"


def _draw_threshold(
    axes: Axes, result: Result, largest: float, unit_s: float, unit_bytes: float
) -> None:
    """Below it QEMU switches over; drawn where it can be told from the axis."""
    known = [sync for sync in result.syncs if sync.threshold_bytes > 0]
    thresholds = [sync.threshold_bytes for sync in known]
    if _shows_threshold(result, largest):
        times = [*(sync.time_s for sync in known), result.summary.total_time_s]
        axes.step(
            [time_s / unit_s for time_s in times],
            [bytes_ / unit_bytes for bytes_ in (*thresholds, thresholds[-1])],
            where="post",
            color=style.GREEN,
            lw=1.3,
            ls=":",
            label="switches over below",
        )


def _draw_syncs(axes: Axes, syncs: list[SyncRecord], unit_s: float) -> None:
    """Ticks in two rows: QEMU's own syncs, and below them those of the fallback timer."""
    fallback = [sync.time_s / unit_s for sync in syncs if sync.kind == "fallback"]
    others = [sync.time_s / unit_s for sync in syncs if sync.kind != "fallback"]
    rows = (
        (others, 0.898, "|", style.INK, f"sync ({len(others)})"),
        (fallback, 0.85, "v", style.ORANGE, f"fallback sync ({len(fallback)})"),
    )
    for times, height, mark, colour, label in rows:
        few = len(times) < FEW_SYNCS
        if times:
            axes.plot(
                times,
                [height] * len(times),
                transform=axes.get_xaxis_transform(),
                ls="none",
                marker=mark,
                ms=8 if mark == "|" else 5,
                mew=(1.2 if few else 0.4) if mark == "|" else 0,
                color=colour,
                alpha=1.0 if few else 0.5,
                clip_on=False,
                zorder=3,
                label=label,
            )


def _draw_speed(axes: Axes, result: Result, total_s: float, unit_s: float) -> None:
    samples = result.samples
    times = [sample.time_s for sample in samples]
    throttle = [sample.cpu_throttle_percentage for sample in samples]
    axes.fill_between(
        [time_s / unit_s for time_s in times],
        throttle,
        step="post",
        color=style.ORANGE,
        alpha=0.16,
        lw=0,
    )
    axes.step(
        [time_s / unit_s for time_s in times],
        throttle,
        where="post",
        color=style.ORANGE,
        label="throttle",
    )
    pauses = _pauses_s(result)
    for number, (since_s, until_s) in enumerate(pauses):
        label = None if number else "paused"
        axes.axvspan(
            since_s / unit_s, until_s / unit_s, color=style.SHADE, lw=0, zorder=0, label=label
        )
    if len(samples) > 1:
        borders = [border_s for pause in pauses for border_s in pause]
        edges = _speed_edges(samples, borders, stop_s(result.summary), total_s)
        run_s = np.interp(edges, times, [sample.guest_run_s for sample in samples])
        axes.stairs(
            100 * np.diff(run_s) / np.diff(edges),
            edges / unit_s,
            baseline=None,
            color=style.BLUE,
            lw=1.8,
            label="guest speed",
        )
    axes.set_ylim(0, 108)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_ylabel("%")
    axes.set_title(f"What the throttle{' and the pauses leave' if pauses else ' leaves'} the guest")
    legend(axes, 3 if pauses else 2)


def _pauses_s(result: Result) -> list[tuple[float, float]]:
    """When a schedule had the VM paused: from, until."""
    stopped_s = stop_s(result.summary)
    changes = [
        (event.time_s, event.arguments["running"])
        for event in result.events
        if event.event == "vm_state_notify"
    ]
    ends = [*(at_s for at_s, _ in changes[1:]), stopped_s]
    found = zip(changes, ends, strict=False)
    return [(at_s, end_s) for (at_s, running), end_s in found if not running and end_s > at_s]


def _speed_edges(
    samples: list[TimelineSample], borders_s: list[float], stopped_s: float, total_s: float
) -> FloatArray:
    """Bins of the guest's speed, borders where the throttle changes, at others, and where the VM stops."""
    changes_s = [
        after.time_s
        for before, after in pairwise(samples)
        if after.cpu_throttle_percentage != before.cpu_throttle_percentage
    ]
    bin_s = max(total_s / SPEED_BINS, min(SPEED_BIN_S, total_s / 10))
    edges = [0.0]
    for until_s in [*sorted([*changes_s, *borders_s]), stopped_s, total_s]:
        since_s = edges[-1]
        bins = max(round((until_s - since_s) / bin_s), 1)
        if until_s > since_s:
            edges += np.linspace(since_s, until_s, bins + 1)[1:].tolist()
    return np.array(edges)


def _draw_rates(
    axes: Axes, syncs: list[SyncRecord], unit_s: float, trigger_percent: int | None
) -> None:
    """Two staircases, a step a closed period, shaded where the guest outruns the wire."""
    axes.set_title("Newly dirty against sent")
    closed = [sync for sync in syncs if sync.period_ms]
    if not closed:
        axes.set_yticks([])
        axes.text(
            0.5,
            0.5,
            "no period closed: QEMU compares the two rates after more than 1 s",
            transform=axes.transAxes,
            ha="center",
            va="center",
            color=style.QUIET,
        )
        return
    period_s = np.array([(sync.period_ms or 0) / 1e3 for sync in closed])
    dirty = np.array([sync.bytes_dirty_period or 0 for sync in closed]) / period_s
    sent = np.array([sync.bytes_xfer_period or 0 for sync in closed]) / period_s
    edges = np.array([max(closed[0].time_s - period_s[0], 0.0), *(s.time_s for s in closed)])
    _draw_staircases(axes, edges / unit_s, dirty, sent, trigger_percent)
    legend(axes, 4)


def _draw_staircases(
    axes: Axes,
    edges: FloatArray,
    dirty: FloatArray,
    sent: FloatArray,
    trigger_percent: int | None,
) -> None:
    largest = float(max(dirty.max(), sent.max(), 1.0))
    smallest = float(min(dirty.max(), sent.max()))
    unit, unit_rate = rate_unit(largest)
    logarithmic = largest > LOG_RATIO * smallest > 0
    dirty, sent = dirty / unit_rate, sent / unit_rate
    times = np.repeat(edges, 2)[1:-1]
    axes.fill_between(
        times,
        np.repeat(dirty, 2),
        np.repeat(sent, 2),
        where=np.repeat(dirty > sent, 2).tolist(),
        color=style.ORANGE,
        alpha=0.16,
        lw=0,
    )
    # the thin line lies on the thick one where the two are equal
    axes.plot(times, np.repeat(sent, 2), color=style.BLUE, lw=3.4, label="sent")
    axes.plot(times, np.repeat(dirty, 2), color=style.ORANGE, lw=1.7, label="newly dirty")
    if trigger_percent is not None:
        axes.plot(
            times,
            np.repeat(sent, 2) * trigger_percent / 100,
            color=style.BLUE,
            lw=1.2,
            ls=":",
            label=f"{trigger_percent} % of sent: twice above it, and the throttle rises",
        )
    if logarithmic:
        floor = smallest / unit_rate / 10
        axes.set_yscale("log")
        axes.set_ylim(floor, 2 * largest / unit_rate)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylabel(f"{unit}, log scale")
    else:
        axes.set_ylim(0, 1.15 * largest / unit_rate)
        axes.set_ylabel(unit)
