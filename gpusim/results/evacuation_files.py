"""What an evacuation leaves on disk: summary.json, evacuation.csv and .png, and its guests' runs.

Owns those names and the picture: a bar a guest over time, and what goes over the link below. Like
all of this room it decides nothing.
"""

from __future__ import annotations

import csv
import io
import math
import shutil
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusim.config.run_hash import run_hash as hash_of
from gpusim.engine.records import EvacuatedGuest, Evacuation, EvacuationSummary
from gpusim.files import write_text
from gpusim.results.plots import style
from gpusim.results.plots.run import headline, legend, picture, require_matplotlib
from gpusim.results.run_files import SUMMARY, begin_run, whole_run, write_run, write_summary
from gpusim.results.summary_fields import GUEST_KEYS
from gpusim.results.timeline import FloatArray
from gpusim.text import format_duration, format_number, rate_unit, time_unit
from gpusim.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GUESTS = "guests"
EVACUATION_CSV = "evacuation.csv"
EVACUATION_PNG = "evacuation.png"

FIRST_PASS, LATER = "#b9d7ea", style.BLUE
SHARES = ("#80868b", "#b4b9be", "#dadde1")  # of the link
LINK_BINS = 240
MOST_NAMES = 40  # rows that have room for a line of text
BAR = 0.66  # of a row's height


def write_evacuation(
    evacuation: Evacuation, folder: Path, *, plot: bool = True, run_hash: str = ""
) -> None:
    """Write everything an evacuation leaves, summary.json last.

    Args:
        evacuation: of a host.
        folder: where to write; made if missing. What an earlier run left there is replaced.
        plot: draw evacuation.png; the guests' own folders hold no pictures.
        run_hash: of the run, gpusim.run_hash.

    Raises:
        ResultsError: a plot is asked for and matplotlib is missing; nothing is written.
        OSError: a file cannot be written; summary.json is then not there.
    """
    if plot:
        require_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    for name in (SUMMARY, EVACUATION_CSV, EVACUATION_PNG):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / GUESTS, ignore_errors=True)
    for guest in evacuation.guests:
        own = folder / GUESTS / guest.name
        begin_run(guest.config, own)
        write_run(guest.result, own, plot=False, run_hash=hash_of(guest.config))
    write_text(folder / EVACUATION_CSV, _csv(evacuation.guests))
    if plot:
        draw_evacuation(evacuation, folder / EVACUATION_PNG)
    write_summary(folder, asdict(evacuation.summary) | {"run_hash": run_hash})


def whole_evacuation(folder: Path, run_hash: str, *, plot: bool) -> dict[str, Any] | None:
    """The summary of an evacuation that need not be computed again; see whole_run."""
    wanted = (EVACUATION_CSV, *([EVACUATION_PNG] if plot else []))
    return whole_run(folder, run_hash, plot=plot, wanted=wanted)


def _csv(guests: list[EvacuatedGuest]) -> str:
    """A row a guest, in the order they started."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["name", "vm_bytes", "vcpus", "start_s", "end_s", *GUEST_KEYS])
    for guest in guests:
        summary = guest.result.summary
        own = [
            guest.name,
            summary.vm_bytes,
            guest.vcpus,
            f"{guest.start_s:.9f}",
            f"{guest.end_s:.9f}",
        ]
        rows.writerow([*own, *(getattr(summary, name) for name in GUEST_KEYS)])
    return text.getvalue()


def draw_evacuation(evacuation: Evacuation, path: Path) -> None:
    """Draw an evacuation into `path`, a PNG of 1200 x 900 pixels.

    Raises:
        ResultsError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    summary = evacuation.summary
    with picture(path) as figure:
        total_s = max(summary.total_time_s, 1e-3)
        unit, unit_s = time_unit(total_s)
        facts = _facts(summary)
        bars, link = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": (4.6, 1.7), "hspace": 0.24}
        )
        top = style.PANELS_TOP - style.ROW * len(facts) - 0.01
        left = 0.03 + 0.0085 * max([6, *(len(guest.name) for guest in evacuation.guests)])
        figure.subplots_adjust(left=min(left, 0.3), right=0.965, top=top, bottom=0.075)
        _draw_guests(bars, evacuation.guests, total_s, unit_s)
        _draw_link(link, evacuation, total_s, unit_s)
        link.set_xlabel(f"Time since the evacuation began ({unit})")
        link.set_xlim(0, total_s / unit_s)
        headline(figure, _title(summary), facts)


def _title(summary: EvacuationSummary) -> str:
    after = format_duration(summary.total_time_s)
    left = summary.left_behind
    outcome = f"Host empty in {after}"
    if summary.status != "ok":
        outcome = f"Stopped after {after} without an outcome"
    elif left:
        who = left[0][:20] if len(left) == 1 else f"{len(left)} guests"
        outcome = f"Host not empty after {after}: {who} left behind"
    return f"{outcome}  \u00b7  {summary.at_a_time} at a time"


def _facts(summary: EvacuationSummary) -> list[str]:
    facts = [
        f"{summary.guests} guests, {format_bytes(summary.vm_bytes)}, {summary.order.replace('_', ' ')}"
    ]
    if summary.max_throttle_percent:
        lost = format_duration(summary.guest_cpu_lost_s)
        facts.append(
            f"guests lost {lost} of vCPU time ({format_number(summary.guest_cpu_lost_percent)} %)"
        )
        facts.append(f"throttle up to {summary.max_throttle_percent} %")
    else:
        facts.append("no guest was throttled")
    if summary.downtime_ms is not None:
        facts.append(f"downtime up to {format_duration(summary.downtime_ms / 1e3)}")
    if summary.link_used_percent is not None:
        facts.append(f"link used {format_number(summary.link_used_percent)} %")
    lines = ["  \u00b7  ".join(facts)]
    if summary.verdict != "converged":
        reason = summary.reason[:1].upper() + summary.reason[1:]
        lines += textwrap.wrap(reason, 145, max_lines=2, placeholder=" ...")
    return lines


def _draw_guests(axes: Axes, guests: list[EvacuatedGuest], total_s: float, unit_s: float) -> None:
    """A bar a guest: first pass, the rest, and the throttle as height; what it cost beside it."""
    named = len(guests) <= MOST_NAMES
    for row, guest in enumerate(guests):
        start, end = guest.start_s / unit_s, guest.end_s / unit_s
        summary = guest.result.summary
        axes.plot([0, start], [row, row], color=style.GREY, lw=1, ls=":", zorder=1)
        first_s = summary.total_time_s if summary.first_pass_s is None else summary.first_pass_s
        first = first_s / unit_s
        axes.barh(row, first, BAR, left=start, color=FIRST_PASS, lw=0)
        axes.barh(row, end - start - first, BAR, left=start + first, color=LATER, lw=0)
        _draw_throttle(axes, row, guest, unit_s)
        if summary.verdict != "converged":
            axes.barh(
                row,
                end - start,
                BAR,
                left=start,
                fill=False,
                hatch="///",
                edgecolor=style.INK,
                lw=1,
            )
        if named:
            _draw_text(axes, row, guest, total_s, unit_s)
    axes.set_yticks(range(len(guests)) if named else [])
    axes.set_yticklabels([guest.name for guest in guests] if named else [])
    axes.set_ylim(len(guests) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=style.INK)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_title("Each guest's migration")
    _explain(axes, guests)


def _draw_throttle(axes: Axes, row: int, guest: EvacuatedGuest, unit_s: float) -> None:
    """From the bar's lower edge upwards, as high as the throttle: 100 % would fill the bar."""
    samples = guest.result.samples
    times = [(guest.start_s + sample.time_s) / unit_s for sample in samples]
    low = row + BAR / 2  # rows count downwards
    height = [low - BAR * sample.cpu_throttle_percentage / 100 for sample in samples]
    axes.fill_between(times, low, height, step="post", color=style.ORANGE, lw=0, zorder=3)


def _draw_text(axes: Axes, row: int, guest: EvacuatedGuest, total_s: float, unit_s: float) -> None:
    """What a reader asks about one guest, where there is room: behind its bar, before it, or on it."""
    summary = guest.result.summary
    words = [format_bytes(summary.vm_bytes), f"in {format_duration(summary.total_time_s)}"]
    if summary.verdict != "converged":
        words[1] = f"stays behind, given up after {format_duration(summary.total_time_s)}"
    if summary.max_throttle_percent:
        words.append(f"throttle {summary.max_throttle_percent} %")
    if summary.guest_cpu_lost_s:
        words.append(f"CPU lost {format_number(summary.guest_cpu_lost_percent)} %")
    text = ", ".join(words)
    width_s = 0.0058 * len(text) * total_s
    look: dict[str, Any] = {"va": "center", "fontsize": 9.5, "color": style.INK, "zorder": 4}
    gap = 0.006 * total_s / unit_s
    if guest.end_s + width_s < total_s:
        axes.text(guest.end_s / unit_s + gap, row, text, ha="left", **look)
    elif guest.start_s > width_s:
        halo = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(guest.start_s / unit_s - gap, row, text, ha="right", bbox=halo, **look)
    else:  # on the first pass, if that is long: it is light
        halo = {"facecolor": FIRST_PASS, "edgecolor": "none", "pad": 1.5}
        axes.text(guest.start_s / unit_s + gap, row, text, ha="left", bbox=halo, **look)


def _explain(axes: Axes, guests: list[EvacuatedGuest]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    summaries = [guest.result.summary for guest in guests]
    handles: list[Any] = [Line2D([], [], color=style.GREY, lw=1, ls=":", label="waits")]
    handles.append(Patch(color=FIRST_PASS, label="first pass"))
    handles.append(Patch(color=LATER, label="sends again"))
    if any(summary.max_throttle_percent for summary in summaries):
        handles.append(Patch(color=style.ORANGE, label="throttle (full height: 100 %)"))
    if any(summary.verdict != "converged" for summary in summaries):
        handles.append(Patch(fill=False, hatch="///", label="stays behind"))
    axes.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.005), ncols=len(handles),
        borderaxespad=0.0, borderpad=0.3, handlelength=1.4, columnspacing=1.4,
    )  # fmt: skip


def _draw_link(axes: Axes, evacuation: Evacuation, total_s: float, unit_s: float) -> None:
    """What each guest sends, stacked, below what the link gives."""
    edges = np.linspace(0.0, total_s, LINK_BINS + 1)
    sent: list[FloatArray] = []
    for guest in evacuation.guests:
        samples = guest.result.samples
        times = [guest.start_s + sample.time_s for sample in samples]
        sent.append(
            np.diff(np.interp(edges, times, [sample.transferred_bytes for sample in samples]))
        )
    rates = np.array(sent).reshape(len(sent), LINK_BINS) * LINK_BINS / total_s
    finite = [pace for _, pace in evacuation.link_bandwidth if math.isfinite(pace)]
    unit, unit_rate = rate_unit(max([1.0, *finite, float(rates.sum(axis=0).max(initial=0))]))
    below: FloatArray = np.zeros(LINK_BINS)
    for row, rate in enumerate(rates):
        axes.stairs(
            (below + rate) / unit_rate, edges / unit_s, baseline=below / unit_rate, fill=True,
            color=SHARES[row % len(SHARES)], lw=0,
        )  # fmt: skip
        below = below + rate
    if len(finite) == len(evacuation.link_bandwidth):
        times = [time_s / unit_s for time_s, _ in evacuation.link_bandwidth] + [total_s / unit_s]
        paces = [pace / unit_rate for pace in [*finite, finite[-1]]]
        axes.step(times, paces, where="post", color=style.INK, lw=1.2, ls="--", label="the link")
    axes.set_ylim(bottom=0)
    axes.set_ylabel(unit)
    axes.set_title("Sent over the link, a grey a guest; gaps: zero pages and switchovers")
    legend(axes, 1)
