"""prediction.png: an ensemble of migrations in one picture, and the guest that was measured.

Owns the picture. The numbers come from the prediction and from the timelines of a few members.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusim.engine.records import Result
from gpusim.fit.estimates import Fit
from gpusim.fit.evidence import Evidence, Mixture, evidence_of
from gpusim.predict import prediction_text
from gpusim.predict.bands import HIGH, LOW
from gpusim.predict.prediction import Prediction
from gpusim.results.plots import style
from gpusim.results.plots.canvas import (
    LINE_CHARACTERS,
    NARROW_LEGEND,
    from_top,
    headline,
    is_narrow,
    left_share,
    legend,
    narrow_png,
    picture,
    set_log_scale,
    wrapped,
)
from gpusim.results.plots.run import clock_name
from gpusim.results.timeline import FloatArray
from gpusim.text import format_duration, size_unit, time_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTHS, HEIGHTS = (1.75, 1.0), (1.25, 1.0)
NARROW_IN = 15.0  # height of the picture with its four panels below each other
FAINTEST, STRONGEST = 0.12, 0.45  # opacity of a throttle step that few and that all members reach
LONG_FIRST_PASS = 0.6  # share of the total time, from which the first pass is cut off
BEFORE = 0.06  # share of the shown time, before the end of a first pass that is cut off
LEAST_AFTER = 0.01  # share of the total time. After the first pass an idle VM has less
FEW_SYNCS = 60  # more syncs get a thinner line
MOST_SYNCS = 80  # more passes become a solid band, so the memory after each sync is drawn instead
BINS = 150  # groups of syncs
LEAST_BAND = 0.004  # share of the width. A narrower band is invisible
CURVE_POINTS = 200
NINE_IN_TEN = 1.645  # standard deviations to either side
MOST_BINS, MOST_TICKS = 24, 5
MOST_REASON_ROWS = 3


def draw_prediction(
    prediction: Prediction, median: Result, edges: Sequence[Result], path: Path
) -> bytes:
    """Draw a prediction into a PNG of 1200 x 900 pixels, and return it for narrow pages.

    Args:
        prediction: to draw.
        median: the run of its median member.
        edges: the runs of the members at both ends of the band. May be empty.
        path: of the picture.

    Raises:
        ResultsError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    with picture(path) as figure:
        _draw(figure, prediction, median, edges)
    return narrow_png(lambda figure: _draw(figure, prediction, median, edges))


def _draw(figure: Figure, prediction: Prediction, median: Result, edges: Sequence[Result]) -> None:
    if is_narrow(figure):
        figure.set_figheight(NARROW_IN)
        remaining, throttle, curve, totals = figure.subplots(4, 1, gridspec_kw={"hspace": 0.55})
    else:
        grid = {"width_ratios": WIDTHS, "height_ratios": HEIGHTS, "hspace": 0.3, "wspace": 0.2}
        ((remaining, curve), (throttle, totals)) = figure.subplots(2, 2, gridspec_kw=grid)
    texts = (
        prediction_text.unreliable(prediction),
        f"{prediction_text.subject(prediction)}.",
        prediction_text.large_loss(prediction),
    )
    lines = [" ".join(filter(None, texts))]
    lines += [
        row
        for one in prediction_text.reasons(prediction)
        for row in textwrap.wrap(one, LINE_CHARACTERS)
    ][:MOST_REASON_ROWS]
    lines = wrapped(figure, lines)
    top = from_top(figure, style.PANELS_TOP - style.ROW * len(lines))
    if is_narrow(figure):
        top -= NARROW_LEGEND
    bottom = 1 - from_top(figure, 0.925)
    figure.subplots_adjust(left=left_share(figure, 0.07), right=0.975, top=top, bottom=bottom)
    throttle.sharex(remaining)
    since_s, until_s = _span_s(prediction, median, edges)
    unit, unit_s = time_unit(until_s)
    size = _draw_remaining(remaining, median, edges, since_s, unit_s)
    if not prediction.converges:
        _draw_threshold(remaining, median, size)
    legend(remaining, 4)
    _draw_throttle(throttle, prediction, unit_s, until_s - since_s)
    throttle.set_xlim(since_s / unit_s, until_s / unit_s)
    throttle.set_xlabel(f"{clock_name(median.summary)} since the migrate command ({unit})")
    _draw_curve(curve, prediction)
    _draw_totals(totals, prediction)
    headline(figure, prediction_text.title(prediction), lines)


def _span_s(prediction: Prediction, median: Result, edges: Sequence[Result]) -> tuple[float, float]:
    """Return the shown times: all, or those after a first pass that would hide the rest."""
    ends_s = [run.summary.simulated_s for run in (median, *edges)]
    ends_s += [step.time_s.high for step in prediction.throttle_steps()]
    until_s = max(*ends_s, 1e-3)
    first_s = median.pass_ends_s[0] if median.pass_ends_s else 0.0
    rest_s = until_s - first_s
    hides_rest = first_s > LONG_FIRST_PASS * until_s or not prediction.converges
    is_cut = hides_rest and rest_s > LEAST_AFTER * until_s
    return (first_s - BEFORE * rest_s if is_cut else 0.0), until_s


def _draw_remaining(
    axes: Axes, median: Result, edges: Sequence[Result], since_s: float, unit_s: float
) -> float:
    """Draw the memory left to send, and return the bytes of the axis' unit."""
    shown = [one for run in (median, *edges) for one in run.samples if one.time_s >= since_s]
    largest = max((sample.remaining_bytes for sample in shown), default=1)
    unit, unit_bytes = size_unit(largest)
    many = min(len(run.syncs) for run in (median, *edges)) > MOST_SYNCS
    width = 2.2 if len(median.syncs) < FEW_SYNCS else 1.2
    styles: list[tuple[dict[str, Any], str]] = [
        ({"color": style.BLUE, "lw": width, "zorder": 3}, "median"),
        ({"color": style.QUIET, "lw": 1.3, "ls": "--"}, f"{LOW} %"),
        ({"color": style.QUIET, "lw": 1.3, "ls": ":"}, f"{HIGH} %"),
    ]
    for result, (line, name) in zip((median, *edges), styles, strict=False):
        if many:
            times, left, most = _at_syncs(result, since_s)
            if result is median:
                shade: dict[str, Any] = {"color": style.BLUE, "alpha": 0.2, "lw": 0}
                axes.fill_between(times / unit_s, left / unit_bytes, most / unit_bytes, **shade)
        else:
            times = np.array([sample.time_s for sample in result.samples])
            left = np.array([sample.remaining_bytes for sample in result.samples])
        axes.plot(times / unit_s, left / unit_bytes, label=name, **line)
    axes.set_ylim(0, 1.06 * max(largest, 1) / unit_bytes)
    axes.set_ylabel(unit)
    when = "after each sync" if many else "from pass 2 on" if since_s else "to send"
    axes.set_title(f"Left {when}")
    return unit_bytes


def _at_syncs(result: Result, since_s: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return times and the least and most bytes left. Many syncs are grouped into BINS."""
    shown = [sync for sync in result.syncs if sync.time_s >= since_s] or result.syncs[-1:]
    syncs = np.array([(sync.time_s, sync.remaining_bytes) for sync in shown])
    groups = np.array_split(syncs, min(len(syncs), BINS))
    found = np.array([(one[:, 0].mean(), one[:, 1].min(), one[:, 1].max()) for one in groups])
    return found[:, 0], found[:, 1], found[:, 2]


def _draw_threshold(axes: Axes, median: Result, unit_bytes: float) -> None:
    """Draw the last limit that the remaining memory must fall below: bandwidth x downtime limit."""
    known = [sync.threshold_bytes for sync in median.syncs if sync.threshold_bytes > 0]
    if known:
        line: dict[str, Any] = {"color": style.GREEN, "lw": 2, "ls": "--", "zorder": 4}
        axes.axhline(known[-1] / unit_bytes, label="limit", clip_on=False, **line)


def _draw_throttle(axes: Axes, prediction: Prediction, unit_s: float, shown_s: float) -> None:
    """Draw the median member's steps as a line, and the band of each step as a bar."""
    axes.set_title("Throttle steps")
    axes.set_ylim(0, 108)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_ylabel("%")
    steps = prediction.throttle_steps()
    if not steps:
        axes.text(0.5, 0.5, "never throttled", **_centred(axes))
        return
    below, label = 0, prediction_text.BAND
    for step in steps:
        low, high = step.time_s.low / unit_s, step.time_s.high / unit_s
        least = LEAST_BAND * shown_s / unit_s
        is_visible = high - low > least
        shade = FAINTEST + (STRONGEST - FAINTEST) * step.share
        axes.barh(
            (below + step.percent) / 2,
            max(high - low, least),
            left=low,
            height=step.percent - below,
            color=style.ORANGE,
            alpha=shade,
            lw=0,
            label=label if is_visible else None,
        )
        below, label = step.percent, "" if is_visible else label
    times_s = [0.0, *prediction.median_member.throttle_s.values()]
    percents = [0, *prediction.median_member.throttle_s]
    end_s = max(prediction.median_member.summary.simulated_s, times_s[-1])
    axes.step(
        [time_s / unit_s for time_s in (*times_s, end_s)],
        [*percents, percents[-1]],
        where="post",
        color=style.ORANGE,
        label="median",
    )
    legend(axes, 2)


def _centred(axes: Axes) -> dict[str, Any]:
    return {"transform": axes.transAxes, "ha": "center", "va": "center", "color": style.QUIET}


def _draw_totals(axes: Axes, prediction: Prediction) -> None:
    """Draw a histogram of the total times of the members with the prediction's verdict."""
    from matplotlib.ticker import MaxNLocator

    times_s = [member.summary.total_time_s for member in prediction.agreeing()]
    unit, unit_s = time_unit(max(*times_s, 1e-3))
    times = np.array(times_s) / unit_s
    margin = max(np.ptp(times) * 0.08, times.max() * 0.005)
    edges = np.linspace(times.min() - margin, times.max() + margin, min(MOST_BINS, len(times) + 8))
    band = prediction.band("total_time_s")
    assert band is not None  # every run has one
    low, high = band.low / unit_s, band.high / unit_s
    axes.axvspan(low, high, color=style.BLUE, alpha=0.12, lw=0, label=prediction_text.BAND)
    counts, *_ = axes.hist(times, bins=edges.tolist(), color=style.BLUE, rwidth=0.92)
    axes.axvline(band.middle / unit_s, color=style.INK, lw=1.6, ls="--", label="median")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.25 * np.max(counts))
    axes.yaxis.set_major_locator(MaxNLocator(MOST_TICKS, integer=True))
    axes.set_ylabel("migrations")
    axes.xaxis.set_major_locator(MaxNLocator(MOST_TICKS))
    axes.ticklabel_format(axis="x", useOffset=False)
    count = len(prediction.members)
    share = "" if len(times) == count else f", {len(times)} of {count}"
    axes.set_xlabel(f"{'Total time' if prediction.converges else 'Gave up after'} ({unit}){share}")
    axes.set_title("Total times" if prediction.converges else "Gave up")
    legend(axes, 2)


def _draw_curve(axes: Axes, prediction: Prediction) -> None:
    """Draw the memory dirtied in each measured period, and that of the fitted guest."""
    profile, fit = prediction.profile, prediction.fit
    axes.set_title("Dirtied during a measurement")
    if not profile.measurements:
        axes.text(0.5, 0.5, "nothing was measured", **_centred(axes))
        return
    if not fit.writers:
        axes.text(0.5, 0.5, "no page changed", **_centred(axes))
        axes.set_xticks([])
        axes.set_yticks([])
        return
    seen = evidence_of(profile)
    expected, slope = _counted(fit, seen)
    deviations = np.sqrt(
        seen.sampling_variance(expected) + seen.width**2 / 12 + (fit.drift * slope) ** 2
    )
    nothing = np.isinf(seen.low)  # a rate of 0 hides up to its rounding
    found = np.where(nothing, 0.0, seen.middle)
    upper = NINE_IN_TEN * deviations + np.where(nothing, seen.middle, 0.0)
    seconds = np.geomspace(seen.seconds.min() / 1.3, seen.seconds.max() * 1.3, CURVE_POINTS)
    if profile.history is None:
        line, _ = _counted(fit, replace(seen, seconds=seconds))
    else:  # syncs do not see all pages: show what they would find if they did
        line = fit.distinct_pages(seconds)
        share_seen = expected / fit.distinct_pages(seen.seconds)
        found, deviations, upper = (one / share_seen for one in (found, deviations, upper))
    unit, unit_bytes = size_unit(max(found.max(), line.max()) * profile.page_bytes)
    scale = profile.page_bytes / unit_bytes
    axes.plot(seconds, line * scale, color=style.ORANGE, label="fitted guest", zorder=2)
    axes.errorbar(
        seen.seconds,
        found * scale,
        yerr=np.array([np.minimum(NINE_IN_TEN * deviations, found), upper]) * scale,
        fmt="o",
        ms=4,
        mfc="none",
        lw=1.1,
        color=style.BLUE,
        label="measured",
    )
    set_log_scale(axes.xaxis)
    axes.set_ylim(bottom=0)
    ticks_s = style.time_ticks(seconds[0], seconds[-1], most=5)
    axes.set_xticks(ticks_s, [format_duration(tick) for tick in ticks_s])
    axes.set_xticks([], minor=True)
    axes.set_xlim(seconds[0], seconds[-1])
    axes.set_ylabel(unit)
    axes.legend(loc="upper left")


def _counted(fit: Fit, seen: Evidence) -> tuple[FloatArray, FloatArray]:
    """Return the pages that measurements of the fitted guest count, and their slope with speed."""
    writers = Mixture(
        pages=np.array([writer.pages for writer in fit.writers]),
        rates=np.array([writer.rate for writer in fit.writers]),
        sequential=np.array([writer.kind == "sequential" for writer in fit.writers], dtype=bool),
    )
    return seen.expected(writers, fit.drift)
