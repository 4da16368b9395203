"""The figures of docs/validation/: measured against simulated times, and a replay over its recording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpusim.engine.records import Result
from gpusim.formats.quantities import recorded_quantities, simulated_quantities, throttle_steps
from gpusim.formats.recording import Recording
from gpusim.results.plots import style
from gpusim.results.plots.canvas import (
    SEPARATOR,
    figure_legend,
    headline,
    is_narrow,
    left_share,
    panels,
    save_pictures,
    set_log_scale,
    wrapped,
)
from gpusim.text import format_duration
from gpusim.units import MIB
from gpusim.validation.accuracy import error_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BANDS_PERCENT = (5, 10)
FARTHEST_PERCENT = 60.0  # a larger error is an arrow in a row of its own
ROW_PERCENT, EDGE_PERCENT = 67.0, 75.0  # the middle of that row, and the end of the axis
MOST_TICKS, NARROW_TICKS = 8, 5  # of an axis of times
MARKS = ("o", "s", "D", "^", "P", "v")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One total time, measured and simulated.

    Attributes:
        group: the entry of the legend.
        measured_s, simulated_s: total times. An infinite one means that the migration never ends.
    """

    group: str
    measured_s: float
    simulated_s: float

    @property
    def error_percent(self) -> float:
        """Return the error as a share of the measured time."""
        return 100 * (self.simulated_s / self.measured_s - 1)


def save_errors(path: Path, points: Sequence[Point]) -> None:
    """Draw measured against simulated total times, and below them the errors, into two PNGs.

    Raises:
        ResultsError: matplotlib is missing.
        OSError: a file cannot be written.
    """
    save_pictures(path, lambda figure: draw_errors(figure, points))


def draw_errors(figure: Figure, points: Sequence[Point]) -> None:
    """Draw measured against simulated total times, and below them the errors."""
    ended = [point for point in points if math.isfinite(point.simulated_s)]
    times_s = [time for point in ended for time in (point.measured_s, point.simulated_s)]
    ends_s = (min(times_s) / 1.15, max(times_s) * 1.15)
    groups = list(dict.fromkeys(point.group for point in points))
    subtitle = ["Every migration that judges. Below: the errors of the same points."]
    if len(ended) < len(points):
        never = len(points) - len(ended)
        subtitle.append(f"Migrations that never end in gpusim, not drawn: {never}.")
    narrow = is_narrow(figure)
    if not narrow:
        subtitle = [" ".join(subtitle)]
    facts = wrapped(figure, subtitle)
    times, errors = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": (3.4, 2.0), "hspace": 0.08}
    )
    appearance: dict[str, Any]
    for percent, shade in zip(BANDS_PERCENT, (0.18, 0.1), strict=True):
        below, above = ([end * (1 + sign * percent / 100) for end in ends_s] for sign in (-1, 1))
        label = f"within {percent} %"
        appearance = {"color": style.BLUE, "alpha": shade, "lw": 0}
        times.fill_between(ends_s, below, above, label=label, **appearance)
        errors.axhspan(-percent, percent, **appearance)
    times.plot(ends_s, ends_s, color=style.QUIET, lw=0.8)
    errors.axhline(0, color=style.QUIET, lw=0.8)
    for index, group in enumerate(groups):
        of_group = [point for point in ended if point.group == group]
        appearance = {"marker": MARKS[index], "color": style.RUN_COLOURS[index]}
        appearance |= {"ls": "", "ms": 6, "mfc": "none", "mew": 1.5}
        label = f"{group} ({len(of_group)})"
        x = [point.measured_s for point in of_group]
        times.plot(x, [point.simulated_s for point in of_group], label=label, **appearance)
        _draw_deviations(errors, of_group, appearance)
    _set_axes(times, errors, ends_s, most=NARROW_TICKS if narrow else MOST_TICKS)
    if narrow:  # a legend inside would hide points
        top = figure_legend(figure, times.get_legend_handles_labels()[0], len(facts), width=0)
    else:
        times.legend(loc="upper left")
        top = style.PANELS_TOP - style.ROW * len(facts)
    figure.subplots_adjust(left=left_share(figure), right=0.965, top=top, bottom=0.085)
    headline(figure, "Total times, measured and simulated", facts)


def _set_axes(times: Axes, errors: Axes, ends_s: tuple[float, float], most: int) -> None:
    """Set limits, ticks and labels of both panels."""
    for panel in (times, errors):
        set_log_scale(panel.xaxis)
        panel.grid(axis="both")
    set_log_scale(times.yaxis)
    times.set_xlim(ends_s)
    times.set_ylim(ends_s)
    times.set_ylabel("simulated")
    errors.set_ylabel("error (%)")
    errors.set_ylim(-EDGE_PERCENT, EDGE_PERCENT)
    errors.set_xlabel("measured total time")
    ticks_s = style.time_ticks(*ends_s, most)
    errors.set_xticks(ticks_s, [format_duration(tick) for tick in ticks_s])
    errors.set_xticks([], minor=True)
    times.set_yticks(ticks_s, [format_duration(tick) for tick in ticks_s])
    times.set_yticks([], minor=True)


def _draw_deviations(errors: Axes, points: Sequence[Point], appearance: dict[str, Any]) -> None:
    """Draw the errors. An error that is too large is an arrow at the edge with its number."""
    inside = [point for point in points if abs(point.error_percent) <= FARTHEST_PERCENT]
    x = [point.measured_s for point in inside]
    errors.plot(x, [point.error_percent for point in inside], **appearance)
    for point in points:
        if abs(point.error_percent) > FARTHEST_PERCENT:
            up = point.error_percent > 0
            errors.text(
                point.measured_s,
                ROW_PERCENT if up else -ROW_PERCENT,
                f"{point.error_percent:+.0f} % {'↑' if up else '↓'}",
                ha="center",
                va="center",
                fontsize=9,
                color=str(appearance["color"]),
            )


def save_replay(path: Path, recording: Recording, result: Result) -> None:
    """Draw a replay over its recording into two PNGs: remaining memory, throttle and syncs.

    Raises:
        ResultsError: matplotlib is missing.
        OSError: a file cannot be written.
    """
    save_pictures(path, lambda figure: draw_replay(figure, recording, result))


def draw_replay(figure: Figure, recording: Recording, result: Result) -> None:
    """Draw a replay over its recording: remaining memory, throttle and syncs."""
    real, ours = recorded_quantities(recording), simulated_quantities(result)
    error = error_percent(real.total_time_s, ours.total_time_s)
    parts = [
        f"QEMU {recording.qemu[0]}.{recording.qemu[1]}: {_outcome(real.total_time_s)}",
        f"gpusim: {_outcome(ours.total_time_s)}" + (f" ({error:+.2f} %)" if error else ""),
        "blue: recorded, orange: simulated",
    ]
    facts = wrapped(figure, [SEPARATOR.join(parts)])
    remaining, throttle, writes = panels(figure, (3.0, 1.6, 1.8), rows=len(facts))
    _draw_remaining(remaining, recording, result)
    _draw_throttle(throttle, recording, result)
    _draw_syncs(writes, recording, result)
    writes.set_xlabel("Time since the migrate command (s)")
    ends_s = [sample.time_s for sample in recording.samples]
    writes.set_xlim(0, max(ends_s[-1], result.summary.total_time_s))
    headline(figure, f"{recording.case}, replayed", facts)


def _outcome(total_time_s: float | None) -> str:
    return "did not converge" if total_time_s is None else f"{total_time_s:.2f} s"


def _draw_remaining(axes: Axes, recording: Recording, result: Result) -> None:
    known = [
        (sample.time_s, sample.ram.remaining_bytes / MIB)
        for sample in recording.samples
        if sample.ram is not None
    ]
    axes.plot(*zip(*known, strict=True), "o", color=style.BLUE, ms=3.2, label="QEMU, every 0.2 s")
    line = [(sample.time_s, sample.remaining_bytes / MIB) for sample in result.samples]
    axes.plot(*zip(*line, strict=True), color=style.ORANGE, lw=1.2, label="gpusim")
    axes.set_title("Left to send (MiB)")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right")


def _draw_throttle(axes: Axes, recording: Recording, result: Result) -> None:
    end_s = recording.samples[-1].time_s
    steps = [(0.0, 0), *throttle_steps(recording)]
    steps.append((end_s, steps[-1][1]))
    axes.step(
        *zip(*steps, strict=True), where="post", color=style.BLUE, lw=3.5, alpha=0.45, label="QEMU"
    )
    ours = [(sample.time_s, sample.cpu_throttle_percentage) for sample in result.samples]
    axes.step(*zip(*ours, strict=True), where="post", color=style.ORANGE, lw=1.4, label="gpusim")
    axes.set_title("Throttle (%)")
    axes.set_ylim(0, 100)


def _draw_syncs(axes: Axes, recording: Recording, result: Result) -> None:
    """Draw each sync: its time and the newly dirty pages of its period so far."""
    real, ended = [], "migration_bitmap_sync_end"
    for event in recording.events:
        if event.name == ended:
            real.append((event.time_s, int(event.arguments.removeprefix("dirty_pages ")) / 1e3))
    axes.plot(*zip(*real, strict=True), "o", color=style.BLUE, ms=7, mfc="none", mew=1.6)
    ours = [(time_s, pages / 1e3) for time_s, pages in period_counts(result)]
    axes.plot(*zip(*ours, strict=True), "x", color=style.ORANGE, ms=6, mew=1.6)
    short = "Newly dirty pages at each sync (thousand)"
    full = "Each sync: newly dirty pages of its period so far (thousand)"
    axes.set_title(short if is_narrow(axes.figure) else full)
    axes.set_ylim(bottom=0)


def period_counts(result: Result) -> list[tuple[float, int]]:
    """Return (seconds, pages) of each sync, counted over the period so far as QEMU's trace event does."""
    found, so_far = [], 0
    for sync in result.syncs:
        so_far += sync.newly_dirty_pages
        found.append((sync.time_s, so_far))
        if sync.period_ms is not None:
            so_far = 0
    return found
