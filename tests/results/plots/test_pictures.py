"""Does the picture of a run, or of several runs, show what their records hold?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpusim.engine.records import Event, Result
from gpusim.results import write_failure, write_run
from gpusim.results.errors import RunsError
from gpusim.results.plots.canvas import picture
from gpusim.results.plots.compare import draw_comparison, read_runs, write_comparison
from gpusim.results.plots.run import LABELLED_PASS, NARROWEST_PASS, draw_run
from gpusim.results.summary_fields import RUN_FIELDS
from gpusim.results.timeline import timeline
from gpusim.results.turning_points import pass_borders
from gpusim.results.verdicts import describe_outcome
from tests.results.plots.drawn import figure_of, legend_texts, line, lines, png_size, texts, unit_in
from tests.results.runs import RUNS, fake

every_run = pytest.mark.parametrize("name", RUNS)


@every_run
def test_a_run_has_a_title_three_panels_and_one_time_axis(name: str) -> None:
    result = RUNS[name]()
    summary = result.summary
    with figure_of(draw_run, result) as figure:
        assert len(figure.axes) == 3
        remaining, speed, rates = figure.axes
        assert remaining.get_title("left").startswith(RUN_FIELDS["remaining_bytes"].label)
        assert [panel.get_title("left") for panel in (speed, rates)] == [
            "Throttle and guest speed",
            "Newly dirty and sent",
        ]
        title, below = texts(figure)
        outcome = describe_outcome(summary.status, summary.verdict, summary.total_time_s)
        assert title.lower().startswith(outcome.lower())
        assert (summary.reason[1:50] in below) == (summary.verdict != "converged")
        end_s = rates.get_xlim()[1] * unit_in(rates.get_xlabel())
        assert end_s == pytest.approx(max(summary.total_time_s, 1e-3))
        assert [panel.get_xlim() for panel in figure.axes] == [rates.get_xlim()] * 3


@every_run
def test_the_first_panel_shows_what_remains_and_when_syncs_were(name: str) -> None:
    result = RUNS[name]()
    with figure_of(draw_run, result) as figure:
        panel, time_unit = figure.axes[0], unit_in(figure.axes[2].get_xlabel())
        times, remaining = line(panel)
        assert times * time_unit == pytest.approx([s.time_s for s in result.samples])
        assert remaining * unit_in(panel.get_ylabel()) == pytest.approx(
            [s.remaining_bytes for s in result.samples]
        )
        assert panel.get_ylim()[1] > remaining.max()
        legend = legend_texts(panel)
        for kind, fallback in (("sync", False), ("fallback sync", True)):
            times_s = [s.time_s for s in result.syncs if (s.kind == "fallback") == fallback]
            label = f"{kind} ({len(times_s)})"
            assert (label in legend) == bool(times_s)
            if times_s:
                assert line(panel, label)[0] * time_unit == pytest.approx(times_s)


def test_the_switchover_threshold_is_a_line_or_in_the_title() -> None:
    base = RUNS["converged"]()
    for threshold, is_line in ((2**28, True), (2**20, False)):
        syncs = [replace(sync, threshold_bytes=threshold) for sync in base.syncs]
        with figure_of(draw_run, replace(base, syncs=syncs)) as figure:
            panel = figure.axes[0]
            assert ("switchover threshold" in legend_texts(panel)) == is_line
            assert ("1 MiB" in panel.get_title("left")) != is_line
            if is_line:
                _, drawn = line(panel, "switchover threshold")
                assert drawn * unit_in(panel.get_ylabel()) == pytest.approx(threshold)


@every_run
def test_every_other_pass_is_shaded_and_wide_passes_are_numbered(name: str) -> None:
    result = RUNS[name]()
    total_s = max(result.summary.total_time_s, 1e-3)
    passes = list(pairwise(pass_borders(result)))
    with figure_of(draw_run, result) as figure:
        first, _, last = figure.axes
        time_unit = unit_in(last.get_xlabel())
        expected = [
            (start_s, end_s - start_s)
            for start_s, end_s in passes[1::2]
            if end_s - start_s > NARROWEST_PASS * total_s
        ]
        for panel in (first, last):
            found = [(p.get_x() * time_unit, p.get_width() * time_unit) for p in panel.patches]
            assert np.array(found) == pytest.approx(np.array(expected))
        numbered = [
            f"pass {number}"
            for number, (start_s, end_s) in enumerate(passes, start=1)
            if end_s - start_s > LABELLED_PASS * total_s
        ]
        assert texts(first) == numbered


@every_run
def test_the_second_panel_shows_throttle_and_guest_speed(name: str) -> None:
    result = RUNS[name]()
    with figure_of(draw_run, result) as figure:
        panel, time_unit = figure.axes[1], unit_in(figure.axes[2].get_xlabel())
        assert panel.get_ylabel() == "%"
        times, throttle = line(panel, "throttle")
        times_s = [s.time_s for s in result.samples]
        assert times * time_unit == pytest.approx(times_s)
        assert throttle.tolist() == [s.cpu_throttle_percentage for s in result.samples]
        assert lines(panel)["throttle"][0].get_drawstyle() == "steps-post"
        speeds = [patch for patch in panel.patches if patch.get_label() == "guest speed"]
        assert len(speeds) == (len(result.samples) > 1)
        for speed in speeds:  # The area below the guest's speed is its run time.
            values, edges, _ = speed.get_data()
            run_s = (values / 100 * np.diff(edges) * time_unit).sum()
            run_times = [s.guest_run_s for s in result.samples]
            assert run_s == pytest.approx(np.interp(edges[-1] * time_unit, times_s, run_times))
            assert edges[-1] * time_unit == pytest.approx(max(result.summary.total_time_s, 1e-3))
            assert legend_texts(panel) == ["throttle", "guest speed"]


def test_pauses_are_shaded() -> None:
    result = fake(link_rate=1e8, write_rate=1.5e8)
    changes = ((2.0, False), (3.5, True), (5.0, False))
    events = [
        Event(time_s=time_s, event="vm_state_notify", arguments={"running": running})
        for time_s, running in changes
    ]
    stop_s = result.summary.total_time_s - 0.1205
    with figure_of(draw_run, replace(result, events=events)) as figure:
        panel, unit = figure.axes[1], unit_in(figure.axes[2].get_xlabel())
        spans = [(p.get_x() * unit, p.get_width() * unit) for p in panel.patches[:-1]]
        expected = [(2.0, 1.5), (5.0, stop_s - 5.0)]
        assert np.array(spans) == pytest.approx(np.array(expected))
        assert "paused" in legend_texts(panel)


@every_run
def test_the_third_panel_shows_the_rates_of_closed_periods(name: str) -> None:
    result = RUNS[name]()
    closed = [sync for sync in result.syncs if sync.period_ms]
    with figure_of(draw_run, result, trigger_percent=40) as figure:
        panel, time_unit = figure.axes[2], unit_in(figure.axes[2].get_xlabel())
        if not closed:
            assert not panel.lines
            assert len(texts(panel)) == 1
            return
        share = "40 % of sent (trigger threshold)"
        assert legend_texts(panel) == ["sent", "newly dirty", share]
        rate_unit = unit_in(panel.get_ylabel())
        columns = {"sent": "bytes_xfer_period", "newly dirty": "bytes_dirty_period"}
        for label, column in columns.items():
            times, rates = line(panel, label)
            assert times[1::2] * time_unit == pytest.approx([sync.time_s for sync in closed])
            expected = [1e3 * getattr(sync, column) / sync.period_ms for sync in closed]
            assert rates[::2] * rate_unit == pytest.approx(expected)
            assert rates[1::2].tolist() == rates[::2].tolist()
        assert line(panel, share)[1] == pytest.approx(0.4 * line(panel, "sent")[1])
        log_scale = panel.get_yscale() == "log"
        assert log_scale == (name == "outruns_the_link")
        assert ("log scale" in panel.get_ylabel()) == log_scale


def test_without_a_trigger_there_is_no_line_of_it() -> None:
    with figure_of(draw_run, RUNS["converged"]()) as figure:
        assert legend_texts(figure.axes[2]) == ["sent", "newly dirty"]


def test_a_picture_is_saved_only_if_all_was_drawn(tmp_path: Path) -> None:
    with picture(tmp_path / "plot.png") as figure:
        draw_run(figure, RUNS["converged"]())
    assert png_size(tmp_path / "plot.png") == (1200, 900)
    with pytest.raises(ZeroDivisionError), picture(tmp_path / "half.png"):
        _ = 1 / 0
    assert not (tmp_path / "half.png").exists()


def write_two(folder: Path) -> list[tuple[Path, Result]]:
    made = {"link_rate": 1e8, "write_rate": 1.5e8}
    found = [(folder / "0", fake(**made, fallback_s=1e18)), (folder / "1", fake(**made))]
    for path, result in found:
        write_run(result, path, plot=False)
    return found


def test_two_versions_in_one_picture(tmp_path: Path) -> None:
    written = write_two(tmp_path)
    runs, skipped = read_runs([path for path, _ in written])
    assert [run.name for run in runs] == ["QEMU 9.1", "QEMU 9.2"]
    with figure_of(draw_comparison, runs, skipped) as figure:
        assert [panel.get_title("left") for panel in figure.axes] == [
            RUN_FIELDS["remaining_bytes"].label,
            "Throttle",
            "CPU time lost per vCPU",
        ]
        remaining, throttle, lost = figure.axes
        time_unit = unit_in(lost.get_xlabel())
        legend = legend_texts(figure)
        assert [label.split(":")[0] for label in legend] == ["QEMU 9.1", "QEMU 9.2"]
        for (_, result), label in zip(written, legend, strict=True):
            summary, columns = result.summary, timeline(result)
            assert describe_outcome("ok", "converged", summary.total_time_s) in label
            for panel in figure.axes:
                assert line(panel, label)[0] * time_unit == pytest.approx(columns["time_s"])
            assert line(remaining, label)[1] * unit_in(remaining.get_ylabel()) == pytest.approx(
                columns["remaining_bytes"]
            )
            assert line(throttle, label)[1].tolist() == columns["cpu_throttle_percentage"].tolist()
            (step,) = lines(throttle)[label]
            assert step.get_drawstyle() == "steps-post"
            stop_s = summary.total_time_s - (summary.downtime_ms or 0.0) / 1e3
            expected = np.minimum(columns["time_s"], stop_s) - columns["guest_run_s"]
            assert line(lost, label)[1] * unit_in(lost.get_ylabel()) == pytest.approx(
                np.maximum(expected, 0.0)
            )
        for panel in figure.axes:  # A dot at the end of each line.
            ends = [(float(dot.get_xdata()[0]), dot.get_marker()) for dot in lines(panel)[""]]
            assert ends == [
                (pytest.approx(result.summary.total_time_s / time_unit), "o")
                for _, result in written
            ]
        assert "sooner" in texts(figure)[1]
    write_comparison([path for path, _ in written], tmp_path / "new" / "compare.png")
    assert png_size(tmp_path / "new" / "compare.png") == (1200, 900)


def test_failed_and_missing_runs_are_named_not_drawn(tmp_path: Path) -> None:
    write_run(fake(), tmp_path / "good", plot=False)
    write_run(fake(), tmp_path / "torn", plot=False)
    (tmp_path / "torn" / "timeline.npz").write_bytes(b"PK\x03\x04 torn")
    write_failure(MemoryError("too large"), tmp_path / "failed")
    folders = [tmp_path / name for name in ("good", "torn", "failed", "missing")]
    runs, skipped = read_runs(folders)
    assert [run.name for run in runs] == ["QEMU 9.2"]
    assert [name for name, _ in skipped] == ["torn", "failed", "missing"]
    assert skipped[1][1] == "MemoryError: too large"
    with figure_of(draw_comparison, runs, skipped) as figure:
        assert len(legend_texts(figure)) == 1
        assert texts(figure)[1].count("not drawn") == 3


def test_runs_of_one_version_are_called_by_their_folders(tmp_path: Path) -> None:
    folders = [tmp_path / f"run_{index}" for index in range(8)]
    for folder in folders:
        write_run(fake(), folder, plot=False)
    runs, skipped = read_runs(folders)
    assert [run.name for run in runs] == [folder.name for folder in folders]
    with figure_of(draw_comparison, runs, skipped) as figure:
        looks: list[Any] = [
            (found.get_color(), found.get_linestyle())
            for label in legend_texts(figure)
            for found in lines(figure.axes[0])[label]
        ]
        assert len({*looks}) == len(folders)


def test_nothing_to_draw_is_one_line(tmp_path: Path) -> None:
    write_failure(MemoryError("too large"), tmp_path / "failed")
    with pytest.raises(RunsError) as caught:
        write_comparison([tmp_path / "failed"], tmp_path / "compare.png")
    assert caught.value.code == "nothing_to_draw"
    assert caught.value.data == {"skipped": "failed: MemoryError: too large"}
    assert not (tmp_path / "compare.png").exists()
