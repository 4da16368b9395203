"""The spread over seeds, where nothing else was varied: every run, and the quantiles across.

Owns that picture alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpusim.errors import ResultsError
from gpusim.results.plots import style
from gpusim.results.plots.run import headline, picture
from gpusim.results.plots.sweep import KEYS, LOSS, STOPPED, counted, dress_time, place_legend
from gpusim.results.sweeps.config_values import SEED
from gpusim.results.sweeps.ensembles import Ensemble
from gpusim.results.sweeps.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel

MAX_SEEDS = 25  # on the axis


def draw_seeds(groups: Sequence[Ensemble], path: Path) -> str:
    """Draw total time and guest loss of each seed into `path`, a PNG of 1200 x 900 pixels.

    Returns:
        What it shows, in words.

    Raises:
        ResultsError: there are not two runs to compare, or matplotlib is missing.
        OSError: the file cannot be written.
    """
    known = [run for group in groups for run in group.runs if run.number(KEYS[0]) is not None]
    if len(groups) != 1 or len(known) < 2:
        raise ResultsError("there are not two runs to compare")
    runs = sorted(known, key=lambda run: run.number(KEYS[0]) or 0.0)
    with picture(path) as figure:
        time, loss = figure.subplots(2, 1, sharex=True)
        for panel, key in ((time, KEYS[0]), (loss, KEYS[1])):
            _draw_runs(panel, runs, groups[0].quantiles(key), key)
        times_s = [run.number(KEYS[0]) or 0.0 for run in runs]
        dress_time(time.yaxis, times_s, name="Total time", from_zero=False)
        loss.set_ylabel(LOSS)
        step = math.ceil(len(runs) / MAX_SEEDS)
        seeds = [str(run.config.get(SEED, "")) for run in runs]
        loss.set_xticks(range(0, len(runs), step), seeds[::step])
        loss.set_xlabel("Seed, in order of the total time")
        top = place_legend(figure, time, [], 1, titled=False)
        figure.subplots_adjust(left=0.085, right=0.975, top=top, bottom=0.085, hspace=0.14)
        headline(figure, f"What chance changes: {len(runs)} seeds", [counted(groups)])
    return f"Total time and guest CPU lost of {len(runs)} seeds, with median and 5 to 95 %"


def _draw_runs(
    panel: Panel, runs: Sequence[Run], found: tuple[float, float, float] | None, key: str
) -> None:
    if found:
        low, middle, high = found
        panel.axhspan(low, high, color=style.BLUE, alpha=0.12, lw=0, label="5 to 95 %")
        panel.axhline(middle, color=style.BLUE, lw=1.6, label="median")
    for mark, colour, converged in (("o", style.BLUE, True), ("x", style.ORANGE, False)):
        points = [
            (place, number)
            for place, run in enumerate(runs)
            if run.converged == converged and (number := run.number(key)) is not None
        ]
        if points:
            name = None if converged else STOPPED
            panel.plot(*zip(*points, strict=True), mark, ms=7, mew=2, color=colour, label=name)
