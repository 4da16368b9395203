"""plot.png: one migration as three panels over one time axis, with the verdict above them.

After a switch to post-copy, postcopy.py adds two panels about the time after it.
"""

from __future__ import annotations

import math
import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from gpusim.engine.records import Result, Summary, SyncRecord, TimelineSample
from gpusim.policies.names import decider_name
from gpusim.results.narrative import facts
from gpusim.results.plots import style
from gpusim.results.plots.canvas import (
    LINE_CHARACTERS,
    LOG_RATIO,
    SEPARATOR,
    headline,
    is_narrow,
    legend,
    panels,
    set_log_scale,
    set_percent_axis,
    wrapped,
)
from gpusim.results.plots.postcopy import draw_postcopy, make_room, mark_postcopy
from gpusim.results.summary_fields import RUN_FIELDS
from gpusim.results.timeline import FloatArray
from gpusim.results.turning_points import pass_borders, samples_of, sending_s, stop_s
from gpusim.results.verdicts import describe_outcome
from gpusim.text import capitalized, rate_unit, size_unit, time_unit
from gpusim.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPEED_BINS = 240  # The guest's speed is an average, or slices of the throttle would fill the panel.
SPEED_BIN_S = 2.0  # two slices at 99 %, QEMU's highest throttle
NARROWEST_PASS = 0.004  # share of the picture's width below which a band is not visible
LABELLED_PASS, NARROW_FACTOR = 0.052, 2.5
FEW_SYNCS = 150  # With more syncs, marks and lines are thin.
SYNC_ROOM = 1.22  # The rows of sync marks are above the highest value.


def draw_run(figure: Figure, result: Result, *, trigger_percent: int | None = None) -> None:
    """Draw one migration.

    Args:
        figure: an empty figure.
        result: the migration.
        trigger_percent: throttle_trigger_threshold, drawn as a share of the bytes sent. None: it is
            not drawn.
    """
    total_s = max(result.summary.simulated_s, 1e-3)
    unit, unit_s = time_unit(total_s)
    lines = wrapped(figure, _below_headline(result.summary))
    if result.summary.postcopy_start_s is not None:
        make_room(figure)
    remaining, speed, rates = panels(figure, (3.2, 2.2, 2.2), len(lines))
    if result.summary.postcopy_start_s is not None:
        draw_postcopy(figure, result)
        mark_postcopy([remaining, speed, rates], result, unit_s)
    _draw_passes([remaining, rates], result, total_s, unit_s)
    _draw_remaining(remaining, result, unit_s)
    _draw_speed(speed, result, total_s, unit_s)
    _draw_rates(rates, result.syncs, unit_s, trigger_percent)
    rates.set_xlabel(f"{clock_name(result.summary)} since the migrate command ({unit})")
    rates.set_xlim(0, total_s / unit_s)
    headline(figure, _title(result.summary), lines)


def clock_name(summary: Summary) -> str:
    """Return what the time axis shows: the clock of the records leaves skipped time out."""
    return "Simulated time" if summary.skipped_s else "Time"


def _title(summary: Summary) -> str:
    outcome = describe_outcome(
        summary.status, summary.verdict, summary.total_time_s, summary.reason_code
    )
    decider = decider_name(summary.qemu_version, summary.policies)
    return SEPARATOR.join((capitalized(outcome), f"{format_bytes(summary.vm_bytes)} VM, {decider}"))


def _below_headline(summary: Summary) -> list[str]:
    """Return the facts as one line, and the reason if it adds to the title."""
    line = SEPARATOR.join(facts(summary))
    if summary.verdict in ("converged", "cancelled"):
        return [line]
    reason = capitalized(summary.reason)
    width = LINE_CHARACTERS
    if len(reason) > LINE_CHARACTERS:  # Two lines of equal length read better than one and a word.
        width = min(len(reason) // 2 + 12, LINE_CHARACTERS)
    return [line, *textwrap.wrap(reason, width, max_lines=2, placeholder=" ...")]


def _draw_passes(panels: list[Axes], result: Result, total_s: float, unit_s: float) -> None:
    """Shade every other pass, and number wide passes in the first panel."""
    for number, (start_s, end_s) in enumerate(pairwise(pass_borders(result)), start=1):
        share = (end_s - start_s) / total_s
        if number % 2 == 0 and share > NARROWEST_PASS:
            for axes in panels:
                axes.axvspan(start_s / unit_s, end_s / unit_s, color=style.SHADE, lw=0, zorder=0)
        if share > LABELLED_PASS * (NARROW_FACTOR if is_narrow(panels[0].figure) else 1):
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
    samples = samples_of(result)
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
    label = RUN_FIELDS["remaining_bytes"].label
    threshold = result.syncs[-1].threshold_bytes if result.syncs else 0
    if threshold and not _shows_threshold(result, largest):  # No line shows it.
        label += f" (QEMU switches over below {format_bytes(threshold)})"
    axes.set_title(label)
    _draw_syncs(axes, result.syncs, unit_s)
    legend(axes, 4)


def _threshold_syncs(result: Result) -> list[SyncRecord]:
    """Return the syncs with a switchover threshold, up to a switch to post-copy."""
    last_s = math.inf if result.summary.postcopy_start_s is None else stop_s(result.summary)
    return [s for s in result.syncs if s.threshold_bytes > 0 and s.time_s < last_s]


def _shows_threshold(result: Result, largest: float) -> bool:
    thresholds = [sync.threshold_bytes for sync in _threshold_syncs(result)]
    return bool(thresholds) and max(thresholds) > 0.02 * largest and min(thresholds) < largest


def _draw_threshold(
    axes: Axes, result: Result, largest: float, unit_s: float, unit_bytes: float
) -> None:
    """Draw the switchover threshold if its line is visible above the axis."""
    known = _threshold_syncs(result)
    thresholds = [sync.threshold_bytes for sync in known]
    if _shows_threshold(result, largest):
        times = [*(sync.time_s for sync in known), pass_borders(result)[-1]]
        axes.step(
            [time_s / unit_s for time_s in times],
            [bytes_ / unit_bytes for bytes_ in (*thresholds, thresholds[-1])],
            where="post",
            color=style.GREEN,
            lw=1.3,
            ls=":",
            label="switchover threshold",
        )


def _draw_syncs(axes: Axes, syncs: list[SyncRecord], unit_s: float) -> None:
    """Mark syncs in two rows: QEMU's own syncs, and fallback syncs below them."""
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
    samples = samples_of(result)
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
        later_s = [step.time_s for step in result.postcopy]
        if later_s:
            later_s.insert(0, sending_s(result.summary))
        edges = _speed_edges(samples, borders, [stop_s(result.summary), *later_s], total_s)
        run_s = np.interp(edges, times, [sample.guest_run_s for sample in samples])
        axes.stairs(
            100 * np.diff(run_s) / np.diff(edges),
            edges / unit_s,
            baseline=None,
            color=style.BLUE,
            lw=1.8,
            label="guest speed",
        )
    set_percent_axis(axes)
    axes.set_title("Throttle and guest speed")
    legend(axes, 3 if pauses else 2)


def _pauses_s(result: Result) -> list[tuple[float, float]]:
    """Return (start, end) of each pause of the VM by a schedule or a manager."""
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
    samples: list[TimelineSample], borders_s: list[float], last_s: list[float], total_s: float
) -> FloatArray:
    """Return bins of the guest's speed, with edges at throttle changes, `borders_s` and `last_s`.

    `last_s` has the stop of the VM, and the steps of post-copy after it.
    """
    changes_s = [
        after.time_s
        for before, after in pairwise(samples)
        if after.cpu_throttle_percentage != before.cpu_throttle_percentage
    ]
    bin_s = max(total_s / SPEED_BINS, min(SPEED_BIN_S, total_s / 10))
    edges = [0.0]
    for until_s in [*sorted([*changes_s, *borders_s]), *last_s, total_s]:
        since_s = edges[-1]
        bins = max(round((until_s - since_s) / bin_s), 1)
        if until_s > since_s:
            edges += np.linspace(since_s, until_s, bins + 1)[1:].tolist()
    return np.array(edges)


def _draw_rates(
    axes: Axes, syncs: list[SyncRecord], unit_s: float, trigger_percent: int | None
) -> None:
    """Draw newly dirty and sent bytes of each closed period, as rates."""
    axes.set_title("Newly dirty and sent")
    closed = [sync for sync in syncs if sync.period_ms]
    if not closed:
        axes.set_yticks([])
        axes.text(
            0.5,
            0.5,
            "QEMU closed no period: a period is longer than 1 s",
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
    # The thin line is drawn on the thick line, so that both are visible if they are equal.
    axes.plot(times, np.repeat(sent, 2), color=style.BLUE, lw=3.4, label="sent")
    axes.plot(times, np.repeat(dirty, 2), color=style.ORANGE, lw=1.7, label="newly dirty")
    if trigger_percent is not None:
        axes.plot(
            times,
            np.repeat(sent, 2) * trigger_percent / 100,
            color=style.BLUE,
            lw=1.2,
            ls=":",
            label=f"{trigger_percent} % of sent (trigger threshold)",
        )
    if logarithmic:
        floor = smallest / unit_rate / 10
        set_log_scale(axes.yaxis)
        axes.set_ylim(floor, 2 * largest / unit_rate)
        axes.set_ylabel(f"{unit}, log scale")
    else:
        axes.set_ylim(0, 1.15 * largest / unit_rate)
        axes.set_ylabel(unit)
