"""The picture of runs that differ only in the seed: every run, the median and the 5 to 95 % band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpusim.errors import one_line
from gpusim.results.errors import RunsError
from gpusim.results.plots import style
from gpusim.results.plots.canvas import (
    figure_legend,
    headline,
    is_narrow,
    left_share,
    set_time_axis,
    tick_text,
    wrapped,
)
from gpusim.results.plots.sweep import KEYS, counted
from gpusim.results.summary_fields import RUN_FIELDS, join_labels
from gpusim.results.sweeps.config_values import SEED
from gpusim.results.sweeps.ensembles import Ensemble
from gpusim.results.sweeps.runs import Run
from gpusim.results.verdicts import outcome_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from matplotlib.figure import Figure

MAX_SEEDS, SEED_CHARACTERS = 25, 12  # on the axis


def draw_seeds(figure: Figure, groups: Sequence[Ensemble]) -> str:
    """Draw total time and guest CPU lost for each seed.

    Returns:
        A sentence about what the picture shows, without a full stop.

    Raises:
        RunsError: there are no two runs to compare.
    """
    known = [run for group in groups for run in group.runs if run.number(KEYS[0]) is not None]
    if len(groups) != 1 or len(known) < 2:
        raise RunsError("no_two_runs")
    runs = sorted(known, key=lambda run: run.number(KEYS[0]) or 0.0)
    time, loss = figure.subplots(2, 1, sharex=True)
    for panel, key in zip((time, loss), KEYS, strict=True):
        _draw_runs(panel, runs, groups[0].quantiles(key), key)
    times_s = [run.number(KEYS[0]) or 0.0 for run in runs]
    set_time_axis(time.yaxis, times_s, name=RUN_FIELDS[KEYS[0]].label, from_zero=False)
    loss.set_ylabel(RUN_FIELDS[KEYS[1]].axis_label())
    step = math.ceil(len(runs) / (MAX_SEEDS // (2 if is_narrow(figure) else 1)))
    seeds = [tick_text(one_line(run.config.get(SEED, "")), SEED_CHARACTERS) for run in runs]
    loss.set_xticks(range(0, len(runs), step), seeds[::step])
    loss.set_xlabel("Seed, ordered by total time")
    facts = wrapped(figure, [counted(groups)])
    top = figure_legend(figure, time.get_legend_handles_labels()[0], len(facts))
    figure.subplots_adjust(left=left_share(figure), right=0.975, top=top, bottom=0.085, hspace=0.14)
    headline(figure, f"Spread over {len(runs)} seeds", facts)
    return f"{join_labels(KEYS)} of {len(runs)} seeds, with median and 5 to 95 %"


def _draw_runs(
    panel: Panel, runs: Sequence[Run], quantiles: tuple[float, float, float] | None, key: str
) -> None:
    if quantiles:
        low, middle, high = quantiles
        panel.axhspan(low, high, color=style.BLUE, alpha=0.12, lw=0, label="5 to 95 %")
        panel.axhline(middle, color=style.BLUE, lw=1.6, label="median")
    for code in dict.fromkeys(run.outcome for run in runs):
        points = [
            (place, number)
            for place, run in enumerate(runs)
            if run.outcome == code and (number := run.number(key)) is not None
        ]
        if points:
            outcome = outcome_of(code)
            panel.plot(
                *zip(*points, strict=True),
                outcome.mark,
                ms=7,
                mew=2,
                color=outcome.colour,
                label=None if code == "converged" else outcome.label,
            )
