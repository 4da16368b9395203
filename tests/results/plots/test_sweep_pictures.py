"""Do the pictures of a sweep show the medians, bands and outcomes of its runs?"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpusim.results.errors import RunsError
from gpusim.results.plots.grid import draw_grid, find_grid
from gpusim.results.plots.pareto import draw_pareto
from gpusim.results.plots.seeds import draw_seeds
from gpusim.results.plots.study import NEVER, Line, Quantity, XAxis, draw_study
from gpusim.results.plots.sweep import STOPPED, draw_sweep
from gpusim.results.summary_fields import RUN_FIELDS
from gpusim.results.sweeps.axes import choose_axes
from gpusim.results.sweeps.ensembles import Ensemble, ensembles
from gpusim.results.sweeps.runs import find_runs
from gpusim.results.verdicts import OUTCOMES
from tests.results.plots.drawn import (
    assert_ticks_fit_the_label,
    figure_of,
    legend_texts,
    line,
    lines,
    texts,
    ticks,
)
from tests.results.sweep_folders import write

FALLBACK = "migration.fallback_sync_interval"
PERCENT = "workload.working_set_percent"
TIME, LOSS = RUN_FIELDS["total_time_s"], RUN_FIELDS["guest_cpu_lost_percent"]


def collected(folder: Path) -> tuple[list[Ensemble], Any]:
    runs = find_runs([folder]).runs
    return ensembles(runs), choose_axes(runs)


def sweep_of(folder: Path) -> tuple[list[Ensemble], Any]:
    """Two timers, three working sets, three seeds. One run with the largest working set stalls."""
    for timer, percent, seed in product(("1s", "5s"), (10, 20, 40), (1, 2, 3)):
        stalls = timer == "1s" and percent == 40 and seed == 3
        write(
            folder / f"{timer},{percent},{seed}",
            {FALLBACK: timer, PERCENT: percent, "seed": seed},
            total_time_s=60.0 * percent + 30 * (timer == "5s") + seed,
            guest_cpu_lost_percent=percent / 2 + seed,
            verdict="not_converged" if stalls else "converged",
        )
    return collected(folder)


def test_a_sweep_shows_medians_bands_and_stopped_runs(tmp_path: Path) -> None:
    groups, axes = sweep_of(tmp_path)
    with figure_of(draw_sweep, groups, axes) as figure:
        time, loss = figure.axes
        assert time.get_ylabel() == "Total time (min)"
        assert loss.get_ylabel() == LOSS.axis_label() == "Guest CPU lost (%)"
        assert loss.get_xlabel() == "working set (% of RAM)"
        assert_ticks_fit_the_label(time.yaxis)
        assert [*ticks(loss.xaxis)] == [10, 20, 40]
        names = ["fallback sync 1 s", "fallback sync 5 s"]
        assert legend_texts(figure) == [*names, STOPPED]
        for panel, key in ((time, "total_time_s"), (loss, "guest_cpu_lost_percent")):
            joined = [one for one in lines(panel)[""] if one.get_linestyle() != "None"]
            assert len(joined) == 2
            for found, timer in zip(joined, ("1 s", "5 s"), strict=True):
                own = [group for group in groups if group.value(FALLBACK).text == timer]
                expected = sorted((g.value(PERCENT).number or 0, g.median(key)) for g in own)
                assert list(zip(*found.get_data(), strict=True)) == expected
            crosses = [one for one in lines(panel)[""] if one.get_marker() == "x"]
            stopped = {"total_time_s": 2403.0, "guest_cpu_lost_percent": 23.0}[key]
            assert [(*one.get_xdata(), *one.get_ydata()) for one in crosses] == [(40, stopped)]
            spans = sorted(
                (float(end[0]), float(start[1]), float(end[1]))
                for bars in panel.collections
                if hasattr(bars, "get_segments")
                for start, end in bars.get_segments()
            )
            bands = [(g.value(PERCENT).number, *g.quantiles(key)[::2]) for g in groups]
            assert np.array(spans) == pytest.approx(np.array(sorted(bands)))
        assert texts(time) == ["2 of 3"]
        assert "17 of 18 runs converged" in texts(figure)[1]


def test_many_series_are_spread_over_panels(tmp_path: Path) -> None:
    memories = ("1GiB", "2GiB", "4GiB")
    for timer, percent, memory in product(("1s", "5s", "20s"), range(10, 50, 5), memories):
        values = {FALLBACK: timer, PERCENT: percent, "vm.memory": memory}
        write(tmp_path / f"{timer},{percent},{memory}", values, total_time_s=percent)
    with figure_of(draw_sweep, *collected(tmp_path)) as figure:
        assert len(figure.axes) == 6
        titles = [panel.get_title("left") for panel in figure.axes[:3]]
        assert titles == [f"fallback sync {seconds} s" for seconds in (1, 5, 20)]
        assert figure.get_supxlabel() == "working set (% of RAM)"
        assert not any(panel.get_xlabel() for panel in figure.axes)
        for panel in figure.axes:
            assert sum(one.get_linestyle() != "None" for one in lines(panel)[""]) == 3


def test_categories_have_places_of_their_own_and_no_lines(tmp_path: Path) -> None:
    for mode in ("kvm_manual", "kvm_legacy"):
        write(tmp_path / mode, {"tracking.mode": mode}, total_time_s=10.0)
    with figure_of(draw_sweep, *collected(tmp_path)) as figure:
        assert ticks(figure.axes[1].xaxis) == {0.0: "kvm_legacy", 1.0: "kvm_manual"}
        assert all(one.get_linestyle() == "None" for one in lines(figure.axes[0])[""])


def test_long_and_short_times_have_a_logarithmic_axis(tmp_path: Path) -> None:
    for memory, time_s in (("1GiB", 1.0), ("32GiB", 60.0), ("1TiB", 3600.0)):
        write(tmp_path / memory, {"vm.memory": memory}, total_time_s=time_s)
    with figure_of(draw_sweep, *collected(tmp_path)) as figure:
        time, loss = figure.axes
        assert time.get_ylabel() == f"{TIME.label}, log scale"
        assert loss.get_xlabel() == "VM memory, log scale"
        assert ticks(time.yaxis)[60.0] == "60 s" or ticks(time.yaxis)[60.0] == "1 min"
        assert ticks(loss.xaxis)[2.0**40] == "1 TiB"


def test_seeds_show_every_run_the_median_and_the_band(tmp_path: Path) -> None:
    times_s = [63.0, 61.0, 62.0, 64.0]
    for seed, time_s in enumerate(times_s):
        verdict = "time_limit" if time_s == 64.0 else "converged"
        write(tmp_path / str(seed), {"seed": seed}, total_time_s=time_s, verdict=verdict)
    groups, _ = collected(tmp_path)
    with figure_of(draw_seeds, groups) as figure:
        time, loss = figure.axes
        assert time.get_ylabel() == "Total time (s)"
        assert loss.get_ylabel() == LOSS.axis_label()
        assert_ticks_fit_the_label(time.yaxis)
        assert [*ticks(loss.xaxis).values()] == ["1", "2", "0", "3"]
        limit = OUTCOMES["time_limit"].label
        assert legend_texts(figure) == ["5 to 95 %", "median", limit]
        (dots,) = [one for one in lines(time)[""] if one.get_marker() == "o"]
        assert [*dots.get_ydata()] == [61.0, 62.0, 63.0]
        assert line(time, limit)[1].tolist() == [64.0]
        assert line(time, "median")[1].tolist() == [62.0, 62.0]
        (band,) = time.patches
        low, high = np.quantile([61.0, 62.0, 63.0], [0.05, 0.95])
        assert (band.get_y(), band.get_height()) == pytest.approx((low, high - low))
    with pytest.raises(RunsError) as caught:
        draw_seeds(figure, [])
    assert caught.value.code == "no_two_runs"


def test_a_grid_shows_each_median_in_the_unit_of_the_bar(tmp_path: Path) -> None:
    for percent, memory in product((10, 20, 40), ("1GiB", "2GiB", "4GiB")):
        stalls = (percent, memory) == (40, "4GiB")
        values = {PERCENT: percent, "vm.memory": memory}
        write(
            tmp_path / f"{percent},{memory}",
            values,
            total_time_s=60.0 * percent / 10,
            verdict="not_converged" if stalls else "converged",
        )
    groups, axes = collected(tmp_path)
    grid = find_grid(groups, axes)
    assert grid
    with figure_of(draw_grid, groups, grid) as figure:
        panel, bar = figure.axes
        labels = {PERCENT: "working set (% of RAM)", "vm.memory": "VM memory"}
        assert (panel.get_xlabel(), panel.get_ylabel()) == (labels[grid.x], labels[grid.y])
        assert (bar.get_title("left"), panel.texts[0].get_text()) == ("min", "1")
        for place, text in ticks(bar.yaxis).items():
            assert float(text) * 60 == pytest.approx(place)
        columns, rows = ticks(panel.xaxis), ticks(panel.yaxis)
        cells = {}
        for text in panel.texts:
            column, row = text.get_position()
            cells[columns[column], rows[row]] = text.get_text()
        expected = {}
        for group in groups:
            median_s = group.median("total_time_s")
            shown = OUTCOMES["not_converged"].short if median_s is None else f"{median_s / 60:g}"
            expected[group.value(grid.x).text, group.value(grid.y).text] = shown
        assert cells == expected
        filled = [patch for patch in panel.patches if patch.get_fill()]
        assert len(filled) == 9
        assert len({tuple(patch.get_facecolor()) for patch in filled}) == 4
        assert sum(patch.get_hatch() is not None for patch in panel.patches) == 1
        assert "did not converge (stalled)" in texts(figure)[1]


def test_a_front_shows_the_choices_that_no_other_beats(tmp_path: Path) -> None:
    costs = {"1s": (10, 90), "5s": (20, 40), "20s": (30, 41), "never": (50, 10)}
    for timer, (time_s, lost_s) in costs.items():
        write(tmp_path / timer, {FALLBACK: timer}, total_time_s=time_s, guest_cpu_lost_s=lost_s)
    with figure_of(draw_pareto, *collected(tmp_path)) as figure:
        (panel,) = figure.axes
        assert panel.get_xlabel() == "Total time (s)"
        assert panel.get_ylabel() == "Guest CPU time lost (s)"
        assert_ticks_fit_the_label(panel.xaxis)
        assert_ticks_fit_the_label(panel.yaxis)
        best, beaten = legend_texts(figure)
        assert "no other" in best
        assert "another" in beaten
        times, losses = line(panel, best)
        assert (times.tolist(), losses.tolist()) == ([10, 20, 50], [90, 40, 10])
        (rest,) = [one for one in lines(panel)[""] if one.get_alpha()]
        assert (*rest.get_xdata(), *rest.get_ydata()) == (30, 41)
        labels = {text.get_text(): text.xy for text in panel.texts}
        assert labels == {"1 s": (10, 90), "5 s": (20, 40), "20 s": (30, 41), "off": (50, 10)}
        boxes = [text.get_window_extent() for text in panel.texts]
        assert not any(one.overlaps(two) for i, one in enumerate(boxes) for two in boxes[:i])
    groups, axes = collected(tmp_path / "1s")
    with pytest.raises(RunsError) as caught:
        draw_pareto(figure, groups, axes)
    assert caught.value.code == "no_choice"


def test_a_study_shows_scaled_relative_and_unnumbered_points(tmp_path: Path) -> None:
    costs = {"1s": 120.0, "5s": 60.0, "never": 240.0}
    for (timer, time_s), seed in product(costs.items(), (1, 2)):
        verdict = "not_converged" if (timer, seed) == ("1s", 2) else "converged"
        values = {FALLBACK: timer, "seed": seed}
        write(tmp_path / f"{timer},{seed}", values, total_time_s=time_s, verdict=verdict)
    texts_of = {"1 s": "1", "5 s": "5", "off": NEVER}
    points = {texts_of[g.value(FALLBACK).text]: g for g in collected(tmp_path)[0]}
    quantities = (
        Quantity(key="total_time_s", label="total time (min)", scale=60.0),
        Quantity(key="total_time_s", label="total time, 1 = never", relative_to=NEVER),
        Quantity(key="no_such_key", label="missing"),
    )
    axis = XAxis(label="interval (s)", places={"1": 1.0, "5": 5.0, NEVER: None})
    columns = {"uniform": [Line(name="1 TiB", points=points)]}
    with figure_of(draw_study, "Title", ["fact"], columns, quantities, axis) as figure:
        minutes, relative = figure.axes
        assert minutes.get_ylabel() == "total time (min)"
        assert relative.get_ylabel() == "total time, 1 =\nnever"
        assert figure.get_supxlabel() == "interval (s)"
        assert legend_texts(figure) == ["1 TiB"]
        assert texts(figure)[1:] == ["Title", "fact"]
        assert minutes.get_title("left") == "uniform"
        for panel, scale in ((minutes, 60.0), (relative, 240.0)):
            x, y = line(panel, "1 TiB")
            assert (x.tolist(), y.tolist()) == ([1, 5], [120 / scale, 60 / scale])
            marks = {one.get_marker(): one.get_xydata().tolist() for one in lines(panel)[""]}
            assert marks["o"] == [[axis.at(NEVER), 240 / scale]]
            assert marks["x"] == [[1, 120 / scale]]
        assert [*ticks(relative.xaxis).values()] == ["1", "5", NEVER]
