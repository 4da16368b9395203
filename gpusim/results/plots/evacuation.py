"""evacuation.png: a bar for each guest over time, and the use of the link below them."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusim.engine.records import EvacuatedGuest, Evacuation, EvacuationSummary
from gpusim.results.plots import style
from gpusim.results.plots.canvas import (
    LINE_CHARACTERS,
    SEPARATOR,
    SMALLEST_PT,
    Place,
    fit_text,
    from_top,
    headline,
    is_narrow,
    left_share,
    legend,
    legend_share,
    place_label,
    tick_text,
    wrapped,
)
from gpusim.results.timeline import FloatArray
from gpusim.results.turning_points import samples_of
from gpusim.results.verdicts import describe_outcome
from gpusim.text import (
    capitalized,
    count_noun,
    format_duration,
    format_number,
    rate_unit,
    time_unit,
)
from gpusim.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIRST_PASS, LATER, POSTCOPY = "#b9d7ea", style.BLUE, style.GREEN
SHARES = ("#80868b", "#b4b9be", "#dadde1")  # of the link
LINK_BINS = 240
LONGEST_NAME = 32  # characters
MOST_NAMES = 40  # With more rows, the labels would overlap.
BAR = 0.66  # of a row's height
# A narrow picture has the name and the numbers of a guest above its bar.
NARROW_BAR, NARROW_ROW_IN, NARROW_REST_IN = 0.44, 0.62, 5.0


def draw_evacuation(figure: Figure, evacuation: Evacuation) -> None:
    """Draw an evacuation.

    Args:
        figure: an empty figure.
        evacuation: with any number of guests, none included.
    """
    summary = evacuation.summary
    total_s = max(summary.total_time_s, 1e-3)
    unit, unit_s = time_unit(total_s)
    facts = wrapped(figure, _facts(summary))
    narrow, guests = is_narrow(figure), evacuation.guests
    if narrow and len(guests) <= MOST_NAMES:
        rows_in = NARROW_ROW_IN * len(guests)
        figure.set_figheight(max(style.HEIGHT_IN, NARROW_REST_IN + rows_in))
    bars, link = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": (4.6, 1.7), "hspace": 0.24}
    )
    top = from_top(figure, style.PANELS_TOP - style.ROW * len(facts) - 0.01)
    left = 0.03 + 0.0085 * max([6, *(len(guest.name) for guest in guests)])
    figure.subplots_adjust(
        left=left_share(figure, min(left, 0.3)),
        right=0.965,
        top=top - legend_share(figure, len(_legend_handles(guests))),
        bottom=1 - from_top(figure, 0.925),
    )
    link.set_xlabel(f"Time since the evacuation began ({unit})")
    link.set_xlim(0, total_s / unit_s)
    _draw_guests(bars, guests, unit_s)
    _draw_link(link, evacuation, total_s, unit_s)
    headline(figure, _title(summary), facts)


def _title(summary: EvacuationSummary) -> str:
    after = format_duration(summary.total_time_s)
    left = summary.left_behind
    outcome = f"Host empty in {after}"
    if summary.verdict is None:
        ended = describe_outcome(summary.status, summary.verdict, summary.total_time_s)
        outcome = capitalized(ended)
    elif left:
        who = left[0][:20] if len(left) == 1 else f"{len(left)} guests"
        outcome = f"Host not empty after {after}: {who} left behind"
    return f"{outcome}{SEPARATOR}{summary.at_a_time} at a time"


def _facts(summary: EvacuationSummary) -> list[str]:
    facts = [
        f"{count_noun(summary.guests, 'guest')}, {format_bytes(summary.vm_bytes)}, "
        f"{summary.order.replace('_', ' ')}"
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
    lines = [SEPARATOR.join(facts)]
    if summary.verdict != "converged":
        reason = capitalized(summary.reason)
        lines += textwrap.wrap(reason, LINE_CHARACTERS, max_lines=2, placeholder=" ...")
    return lines


def _draw_guests(axes: Axes, guests: list[EvacuatedGuest], unit_s: float) -> None:
    """Draw a bar for each guest: first pass, later passes, post-copy, and the throttle as a height."""
    named, narrow = len(guests) <= MOST_NAMES, is_narrow(axes.figure)
    bar = NARROW_BAR if narrow else BAR
    axes.set_yticks(range(len(guests)) if named else [])
    axes.set_yticklabels(["" if narrow else _name(guest) for guest in guests] if named else [])
    axes.set_ylim(len(guests) - 0.4, -0.6)
    for row, guest in enumerate(guests):
        start, end = guest.start_s / unit_s, guest.end_s / unit_s
        summary = guest.result.summary
        axes.plot([0, start], [row, row], color=style.GREY, lw=1, ls=":", zorder=1)
        first_s = summary.total_time_s if summary.first_pass_s is None else summary.first_pass_s
        first = first_s / unit_s
        axes.barh(row, first, bar, left=start, color=FIRST_PASS, lw=0)
        axes.barh(row, end - start - first, bar, left=start + first, color=LATER, lw=0)
        if summary.postcopy_start_s is not None:
            switch = start + summary.postcopy_start_s / unit_s
            axes.barh(row, end - switch, bar, left=switch, color=POSTCOPY, lw=0, zorder=2)
        _draw_throttle(axes, row, guest, unit_s, bar)
        if summary.verdict != "converged":
            axes.barh(
                row,
                end - start,
                bar,
                left=start,
                fill=False,
                hatch="///",
                edgecolor=style.INK,
                lw=1,
            )
        if named and narrow:
            _label_above(axes, row, guest)
        elif named:
            _label_guest(axes, row, guest, unit_s)
    axes.tick_params(axis="y", length=0, labelcolor=style.INK)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_title("Each guest's migration")
    handles = _legend_handles(guests)
    legend(axes, len(handles), handles)


def _draw_throttle(axes: Axes, row: int, guest: EvacuatedGuest, unit_s: float, bar: float) -> None:
    """Draw the throttle from the bar's lower edge upwards: 100 % fills the bar."""
    samples = samples_of(guest.result)
    times = [(guest.start_s + sample.time_s) / unit_s for sample in samples]
    low = row + bar / 2  # Rows count downwards.
    height = [low - bar * sample.cpu_throttle_percentage / 100 for sample in samples]
    axes.fill_between(times, low, height, step="post", color=style.ORANGE, lw=0, zorder=3)


def _name(guest: EvacuatedGuest) -> str:
    return tick_text(guest.name, LONGEST_NAME)


def _label_above(axes: Axes, row: int, guest: EvacuatedGuest) -> None:
    """Write the name and the main numbers of a guest above its bar."""
    text = axes.annotate(
        f"{_name(guest)}: {_numbers(guest)}",
        (0.0, row - NARROW_BAR / 2),
        xycoords=("axes fraction", "data"),
        xytext=(0, 1),
        textcoords="offset points",
        va="bottom",
        fontsize=9.5,
    )
    fit_text(text, 0.82 * axes.figure.bbox.width, SMALLEST_PT)


def _label_guest(axes: Axes, row: int, guest: EvacuatedGuest, unit_s: float) -> None:
    """Write the main numbers of a guest after its bar, before it, or on it."""
    start, end = guest.start_s / unit_s, guest.end_s / unit_s
    places = [
        Place(x=end, y=row, offset=(5, 0), side="left", vertical="center"),
        Place(x=start, y=row, offset=(-5, 0), side="right", vertical="center", background="white"),
        Place(x=start, y=row, offset=(5, 0), side="left", vertical="center", background=FIRST_PASS),
    ]
    place_label(axes, _numbers(guest), places, taken=[])


def _numbers(guest: EvacuatedGuest) -> str:
    """Return the main numbers of a guest."""
    summary = guest.result.summary
    duration = format_duration(summary.total_time_s)
    parts = [format_bytes(summary.vm_bytes)]
    left = summary.verdict != "converged"
    parts.append(f"left behind after {duration}" if left else f"in {duration}")
    if summary.max_throttle_percent:
        parts.append(f"throttle {summary.max_throttle_percent} %")
    if summary.guest_cpu_lost_s:
        parts.append(f"CPU lost {format_number(summary.guest_cpu_lost_percent)} %")
    return ", ".join(parts)


def _legend_handles(guests: list[EvacuatedGuest]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    summaries = [guest.result.summary for guest in guests]
    handles: list[Any] = [Line2D([], [], color=style.GREY, lw=1, ls=":", label="waits")]
    handles.append(Patch(color=FIRST_PASS, label="first pass"))
    handles.append(Patch(color=LATER, label="later passes"))
    if any(summary.postcopy_start_s is not None for summary in summaries):
        handles.append(Patch(color=POSTCOPY, label="post-copy"))
    if any(summary.max_throttle_percent for summary in summaries):
        handles.append(Patch(color=style.ORANGE, label="throttle (full height: 100 %)"))
    if any(summary.verdict != "converged" for summary in summaries):
        handles.append(Patch(fill=False, hatch="///", label="left behind"))
    return handles


def _draw_link(axes: Axes, evacuation: Evacuation, total_s: float, unit_s: float) -> None:
    """Draw the rates at which guests send, stacked, and the bandwidth of the link."""
    edges = np.linspace(0.0, total_s, LINK_BINS + 1)
    sent: list[FloatArray] = []
    for guest in evacuation.guests:
        samples = samples_of(guest.result)
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
        axes.step(
            times, paces, where="post", color=style.INK, lw=1.2, ls="--", label="link bandwidth"
        )
    axes.set_ylim(bottom=0)
    axes.set_ylabel(unit)
    gaps = "" if is_narrow(axes.figure) else " (gaps: zero pages, switchovers)"
    axes.set_title(f"Sent over the link by each guest{gaps}")
    legend(axes, 1)
