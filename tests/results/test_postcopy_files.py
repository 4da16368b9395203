"""Do the files, pictures and pages of a run show the phase after a switch to post-copy?"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpusim.cli.run_text import outcome_lines
from gpusim.config.compose import composed_config
from gpusim.engine.records import EvacuatedGuest
from gpusim.results import begin_run, read_summary, whole_run, write_run
from gpusim.results.evacuation_files import _csv
from gpusim.results.guestperf import guestperf_report
from gpusim.results.html.run_page import SIBLINGS, report_page
from gpusim.results.narrative import facts, find_steps, narrate
from gpusim.results.plots.canvas import narrow_png
from gpusim.results.plots.run import draw_run
from gpusim.results.plots.sweep import counted
from gpusim.results.run_files import LATENCY
from gpusim.results.run_files import POSTCOPY as STEPS
from gpusim.results.sweeps.axes import choose_axes
from gpusim.results.sweeps.diff import write_diff
from gpusim.results.sweeps.ensembles import ensembles
from gpusim.results.sweeps.findings import compute_findings
from gpusim.results.sweeps.runs import find_runs
from gpusim.results.sweeps.sentences import describe_finding
from gpusim.results.sweeps.tables import run_columns
from gpusim.results.timeline import timeline
from gpusim.results.trace import trace_events
from gpusim.results.turning_points import (
    lost_links,
    pass_borders,
    resume_s,
    samples_of,
    sending_s,
    stop_s,
)
from tests.results.plots.drawn import figure_of, legend_texts
from tests.results.runs import POSTCOPY, fake, switched


@cache
def settings(*overrides: str) -> dict[str, Any]:
    return asdict(composed_config([*POSTCOPY, *overrides]))


AT_10_S = "migration.start_postcopy=10s"
IDLE = ("workload.page_writes_per_s=0", "workload.reads_per_s=0", "migration.start_postcopy=100ms")
CUT = ("migration.max_postcopy_bandwidth=1Mbit/s", "limit.simulated=20s")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_steps_and_the_latencies_are_files_of_a_run_that_switched(tmp_path: Path) -> None:
    result = switched()
    begin_run(composed_config([*POSTCOPY]), tmp_path)
    write_run(result, tmp_path, plot=False, run_hash="h")
    steps = rows_of(tmp_path / STEPS)
    assert len(steps) == len(result.postcopy) > 10
    missing = [int(row["missing_bytes"]) for row in steps]
    assert missing == sorted(missing, reverse=True) and missing[-1] == 0
    assert int(steps[-1]["requests"]) == result.summary.postcopy_requests
    buckets = rows_of(tmp_path / LATENCY)
    assert [int(row["requests"]) for row in buckets] == result.postcopy_latency_counts
    assert sum(int(row["requests"]) for row in buckets) == result.summary.postcopy_requests
    assert [row["to_us"] for row in buckets[:3]] == ["2", "4", "8"]
    assert (len(buckets), buckets[0]["from_us"], buckets[-1]["to_us"]) == (24, "0", "")
    assert whole_run(tmp_path, "h", plot=False) == read_summary(tmp_path)


@pytest.mark.parametrize("name", [STEPS, LATENCY])
def test_a_run_without_one_of_them_is_not_whole(name: str, tmp_path: Path) -> None:
    begin_run(composed_config([*POSTCOPY]), tmp_path)
    write_run(switched(), tmp_path, plot=False, run_hash="h")
    assert whole_run(tmp_path, "h", plot=False)
    (tmp_path / name).unlink()
    assert whole_run(tmp_path, "h", plot=False) is None


def test_a_run_without_a_switch_has_neither_and_removes_them(tmp_path: Path) -> None:
    write_run(switched(), tmp_path, plot=False)
    write_run(fake(), tmp_path, plot=False, run_hash="h")
    assert not {STEPS, LATENCY} & {path.name for path in tmp_path.iterdir()}
    write_run(switched(), tmp_path, plot=False)
    begin_run(composed_config([]), tmp_path)
    assert not {STEPS, LATENCY} & {path.name for path in tmp_path.iterdir()}


def test_the_guest_runs_again_after_the_blackout_and_loses_what_the_summary_says() -> None:
    result = switched()
    summary, samples = result.summary, samples_of(result)
    stop, resume = stop_s(summary), resume_s(summary)
    assert stop < sending_s(summary) < resume < summary.simulated_s
    times = [sample.time_s for sample in samples]
    assert times == sorted(times)
    ran = np.interp([stop, resume, summary.simulated_s], times, [s.guest_run_s for s in samples])
    assert ran[1] == pytest.approx(ran[0], abs=1e-6)
    lost_s = (summary.simulated_s - resume) - (ran[2] - ran[1])
    assert 4 * lost_s == pytest.approx(summary.postcopy_stall_vcpu_s, rel=1e-3)
    assert {s.cpu_throttle_percentage for s in samples if s.time_s >= stop} == {0}
    assert max(s.cpu_throttle_percentage for s in samples) >= 20 or summary.max_throttle_percent
    columns = timeline(result)
    stands_still = (columns["time_s"] > stop + 0.2) & (columns["time_s"] < resume)
    assert np.all(columns["guest_speed_percent"][stands_still] < 1e-6)
    assert columns["guest_run_s"][-1] == pytest.approx(ran[2]) and ran[2] > ran[1]
    after = columns["remaining_bytes"][columns["time_s"] > sending_s(summary)]
    assert np.all(np.diff(after) <= 0) and after[-1] == 0
    assert pass_borders(result)[-1] == stop


def test_the_trace_has_a_track_of_post_copy_only_after_a_switch() -> None:
    result = switched()
    events = trace_events(result, timeline(result))
    json.dumps(events, allow_nan=False)
    (phase,) = [e for e in events if e["name"] == "post-copy" and e["ph"] == "X"]
    assert phase["ts"] == pytest.approx(1e6 * sending_s(result.summary), abs=1)
    assert phase["args"]["requests"] == result.summary.postcopy_requests
    speeds = [(e["ts"], e["args"]["value"]) for e in events if e["name"] == "guest speed %"]
    assert (round(1e6 * stop_s(result.summary), 3), 0.0) in speeds
    plain = fake()
    names = {e["args"].get("name") for e in trace_events(plain, timeline(plain)) if e["ph"] == "M"}
    assert "post-copy" not in names


def test_guestperf_has_the_state_and_the_scenario_of_post_copy() -> None:
    report = guestperf_report(switched(), settings())
    assert report["scenario"]["post_copy"] is True
    states = [progress["status"] for progress in report["progress_history"]]
    assert states[-3:] == ["device", "postcopy-active", "completed"]
    at_switch = report["scenario"]["post_copy_iters"]
    assert at_switch == report["progress_history"][-3]["ram"]["iterations"] - 1
    cut = guestperf_report(switched(*CUT), settings(*CUT))
    assert cut["progress_history"][-1]["status"] == "postcopy-active"


@pytest.mark.parametrize(
    "overrides",
    [(), IDLE, CUT, pytest.param(("migration.postcopy_preempt=true",), marks=pytest.mark.slow)],
)
def test_the_narrative_tells_the_switch_and_what_followed(overrides: tuple[str, ...]) -> None:
    result = switched(*overrides)
    summary = result.summary
    codes = [step.code for step in find_steps(result, settings(*overrides))]
    assert codes[codes.index("switch") + 1] == "postcopy"
    assert ("no_success" in codes) == (summary.verdict != "converged")
    for config in (settings(*overrides), None):
        text = " ".join(narrate(result, config))
        assert "None" not in text and ";" not in text and "  " not in text
        assert ("asked for no page" in text) == (not summary.postcopy_requests)
        assert ("lost link" in text) == (summary.verdict == "converged")
        assert ("did not run at its usual speed" in text) == (overrides is CUT)
    assert "downtime limit" not in text
    assert ("not recovered" in facts(summary)) == (overrides is CUT)


@pytest.mark.slow
def test_a_lost_link_is_in_the_narrative_the_trace_and_the_picture() -> None:
    schedule = "[{at: 11s, do: lose-link}, {at: 12s, do: recover}, {at: 12.3s, do: lose-link}]"
    result = switched(f"schedule={schedule}", AT_10_S)
    (first_s, found_s), (last_s, end_s) = lost_links(result)
    assert (first_s, last_s, end_s) == (
        11,
        12.3,
        result.summary.simulated_s,
    ) and 12 <= found_s < 12.1
    text = " ".join(narrate(result, None))
    assert "lost at 11 s and recovered at 12 s" in text and "would have" not in text
    slices = [e for e in trace_events(result, timeline(result)) if e["name"] == "link lost"]
    assert [e["ts"] for e in slices] == [11e6, 12.3e6]
    early = switched("schedule=[{at: 10.3s, do: lose-link}, {at: 12s, do: recover}]", AT_10_S)
    tracks: dict[int, list[tuple[float, float]]] = {}
    for event in trace_events(early, timeline(early)):
        if event["ph"] == "X":
            span = (event["ts"], event["ts"] + event["dur"])
            tracks.setdefault(event["tid"], []).append(span)
    for spans in tracks.values():  # a slice lies within another, or beside it
        for (_, end), (other, other_end) in combinations(spans, 2):
            assert other >= end - 0.01 or other_end <= end + 0.01
    with figure_of(draw_run, result) as figure:
        assert "link lost" in legend_texts(figure.axes[0])


@pytest.mark.parametrize(
    "overrides",
    [(), pytest.param(IDLE, marks=pytest.mark.slow), pytest.param(CUT, marks=pytest.mark.slow)],
)
def test_the_picture_has_two_more_panels_and_marks_the_phase(overrides: tuple[str, ...]) -> None:
    result = switched(*overrides)
    with figure_of(draw_run, result) as figure:
        assert len(figure.axes) == 5
        *_, recovery, requests = figure.axes
        assert recovery.get_title("left") == "After the switch"
        count = result.summary.postcopy_requests
        assert (
            len(requests.patches) == 0 if not count else f"{count:,}" in requests.get_title("left")
        )
        assert sum(bar.get_height() for bar in requests.patches) == pytest.approx(
            100 if count else 0
        )
        boxes = [axes.get_tightbbox() for axes in figure.axes]
        assert boxes[2].y0 > max(box.y1 for box in boxes[3:])
        assert not boxes[3].overlaps(boxes[4])
    assert narrow_png(lambda figure: draw_run(figure, result)).startswith(b"\x89PNG")


def test_the_page_shows_post_copy_only_after_a_switch() -> None:
    files = [*SIBLINGS]
    page = report_page(switched(), settings(), None, b"", files)
    for text in ("Migrated with post-copy", "Blackout of the switch", "postcopy-latency.csv"):
        assert text in page
    plain = report_page(fake(), settings(), None, b"", [])
    assert "post-copy" not in plain.partition("All settings")[0].lower()


def test_the_command_prints_the_switch_and_what_the_guest_lost() -> None:
    first, *_, switch, guest = outcome_lines(switched().summary)
    assert first == "verdict: migrated with post-copy"
    assert switch.startswith("switch: after ") and "stood still for" in switch
    assert "recovered in" in guest and "on average" in guest
    assert "no request" in [*outcome_lines(switched(*IDLE).summary)][-1]
    assert "not recovered" in [*outcome_lines(switched(*CUT).summary)][-1]
    assert not [line for line in outcome_lines(fake().summary) if line.startswith("switch")]


def test_a_sweep_has_columns_and_a_finding_of_post_copy_only_if_a_run_switched(
    tmp_path: Path,
) -> None:
    for name, result in (("a", switched()), ("b", fake())):
        begin_run(composed_config([*POSTCOPY, f"seed={ord(name)}"]), tmp_path / name)
        write_run(result, tmp_path / name, plot=False)
    runs = find_runs([tmp_path]).runs
    assert [run.outcome for run in runs] == ["postcopy", "converged"]
    assert all(run.converged for run in runs)

    def shown(runs: Any) -> tuple[bool, bool]:
        groups = ensembles(runs)
        found = compute_findings(runs, groups, choose_axes(runs, None))
        texts = [describe_finding(one) for one in found]
        columns = [column.name for column in run_columns(runs, [])]
        return "postcopy_requests" in columns, any("switched to post-copy" in t for t in texts)

    assert shown(runs) == (True, True)
    assert counted(ensembles(runs)).startswith("2 of 2 runs completed")
    assert counted(ensembles(runs[1:])).startswith("1 of 1 runs converged")
    assert shown(runs[1:]) == (False, False)


@pytest.mark.slow
def test_a_switch_with_nothing_left_to_send_has_empty_files(tmp_path: Path) -> None:
    result = switched()
    summary = replace(result.summary, postcopy_bytes=0, postcopy_requests=0, postcopy_recovery_s=0)
    empty = replace(result, summary=summary, postcopy=[], postcopy_latency_counts=[])
    write_run(empty, tmp_path)
    assert (tmp_path / STEPS).read_text().count("\n") == 1
    assert (tmp_path / LATENCY).read_text().strip() == "from_us,to_us,requests"


@pytest.mark.slow
def test_two_runs_can_be_compared(tmp_path: Path) -> None:
    for name, result in (("a", switched()), ("b", switched("migration.postcopy_preempt=true"))):
        begin_run(composed_config([*POSTCOPY]), tmp_path / name)
        write_run(replace(result), tmp_path / name, plot=False)
    text = write_diff(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert "postcopy_latency_ms" in text
    assert (tmp_path / "out" / "diff.png").is_file()


def test_an_evacuation_has_columns_of_post_copy_only_if_a_guest_switched() -> None:
    config = composed_config([*POSTCOPY])
    guests = [
        EvacuatedGuest(name=n, config=config, vcpus=4, start_s=0, end_s=9, result=result)
        for n, result in (("a", fake()), ("b", switched()))
    ]
    heads = [_csv(one).splitlines()[0] for one in (guests, guests[:1])]
    assert ["postcopy_requests" in head for head in heads] == [True, False]
