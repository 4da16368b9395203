"""The tables of docs/validation.md, computed again: each row must stand there as it comes out.

A row that has changed is printed by the failing assertion, ready to be pasted.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpusim.guest.run_time import RunTime
from gpusim.units import NS_PER_S
from gpusim.validation import first_write
from gpusim.validation.cli import load_recordings, plan, run
from gpusim.validation.quantities import measured, throttles
from gpusim.validation.recording import SHIPPED, Recording
from gpusim.validation.replay import running
from gpusim.validation.report import Case, Mode, cpu_bound_figures, summary, summary_text

README = Path(__file__).parents[2] / "README.md"
DOCUMENT = README.parent / "docs" / "validation.md"


def missing(rows: list[str]) -> str:
    """The rows that the document does not hold."""
    text = DOCUMENT.read_text()
    return "\n".join(row for row in rows if row not in text)


def cases(mode: Mode, seeds: int = 1) -> list[Case]:
    found = [Case(recording=r, measured=measured(r)) for r in load_recordings([SHIPPED])]
    run(found, plan(found, [mode], seeds))
    return found


def test_replay_table() -> None:
    found = cases("replay")
    rows = []
    for case in found:
        real, ours = case.measured, case.runs["replay"][0]
        times = "did not converge" if real.total_time_s is None else f"{real.total_time_s:.2f}"
        again = "did not converge" if ours.total_time_s is None else f"{ours.total_time_s:.2f}"
        error = "-"
        if real.total_time_s is not None and ours.total_time_s is not None:
            error = f"{100 * (ours.total_time_s / real.total_time_s - 1):+.2f} %"
        rows.append(
            f"| {case.recording.case} | {times} | {again} | {error} | {real.max_throttle_percent} "
            f"/ {ours.max_throttle_percent} | {real.dirty_sync_count} / {ours.dirty_sync_count} |"
        )
    figures = summary(found)
    rows += summary_text(figures).splitlines()
    assert not missing(rows), missing(rows)
    replay = figures["replay"]["cpu_bound"]
    median, ninth = (replay[f"{name}_abs_total_time_error_percent"] for name in ("median", "p90"))
    claim = f"within {median:.2f} % of QEMU's, nine in ten within {ninth:.2f} %"
    assert claim in README.read_text().replace("\n", " "), claim


@pytest.mark.slow
def test_prediction_tables() -> None:
    rows = summary_text(summary(cases("predict", seeds=20))).splitlines()
    assert not missing(rows), missing(rows)


SHOWN = (
    "median_abs_total_time_error_percent",
    "p90_abs_total_time_error_percent",
    "within_3_percent_share",
    "max_throttle_equal_share",
)


def predicted_row(name: str, recordings: list[Recording], costs_ns: dict[str, float]) -> str:
    """How well CPU-bound guests are predicted by one seed."""
    found = [Case(recording=r, measured=measured(r)) for r in recordings]
    run(found, plan(found, ["predict"], 1, costs_ns))
    figures = cpu_bound_figures(found, "predict")
    scales = (1, 1, 100, 100)
    shown = (figures[key] * scale for key, scale in zip(SHOWN, scales, strict=True))
    return f"| {name} | {' | '.join(f'{value:.1f} %' for value in shown)} |"


@pytest.mark.slow
def test_first_write_tables() -> None:
    """What fits the counters of one half predicts the other: a cost, or a speed (the control)."""
    recordings = load_recordings([SHIPPED])
    left, right = first_write.halves(recordings)
    rows, speeds = [], []
    for name, half in (("left", left), ("right", right), ("all", left + right)):
        stretches = [first_write.stretch(recording) for recording in half]
        cost_ns = first_write.fit(stretches)
        errors = (100 * first_write.error(stretches, cost) for cost in (0, cost_ns))
        rows.append(
            f"| {name} | {len(half)} | {cost_ns:.0f} ns | {' | '.join(f'{e:.1f} %' for e in errors)} |"
        )
        logs = [math.log(s.writes / s.expected_writes(0)) for s in stretches]
        speeds.append(math.exp(sum(logs) / len(logs)))
    lefts = {recording.case for recording in left}
    slower = [
        replace(r, page_writes_per_s_before=r.page_writes_per_s_before * speeds[r.case in lefts])
        for r in recordings
    ]
    costs_ns = first_write.cross_fitted(recordings)
    rows += [
        predicted_row("nothing", recordings, {}),
        predicted_row("the cost that fits the other half", recordings, costs_ns),
        predicted_row("the speed that fits the other half", slower, {}),
        predicted_row("420 ns", recordings, dict.fromkeys(costs_ns, 420.0)),
    ]
    assert not missing(rows), missing(rows)


def test_awake_speed_table() -> None:
    """Writes a second awake, by the throttle, as a part of those before the first throttle."""
    parts: dict[int, list[float]] = {}
    for recording in load_recordings([SHIPPED]):
        if recording.guest.kind != "cpu_bound":
            continue
        for percent, speed in awake_speeds(recording):
            parts.setdefault(percent, []).append(speed)
    rows = [
        f"| {percent} % | {len(parts[percent])} | {statistics.median(parts[percent]):.2f} |"
        for percent in (20, 30, 40, 50, 60)
    ]
    assert not missing(rows), missing(rows)


def awake_speeds(recording: Recording) -> list[tuple[int, float]]:
    """(percent, speed) of each throttle that lasted two seconds or more."""
    samples = running(recording)
    times_s = [sample.time_s for sample in samples]
    run_time, speeds = RunTime(), []
    steps = [(0.0, 0), *throttles(recording)]
    for (since_s, percent), until_s in zip(
        steps, [*(at_s for at_s, _ in steps[1:]), times_s[-1]], strict=True
    ):
        if percent:
            run_time.throttle(round(since_s * NS_PER_S), percent)
        awake_s = run_time.at_ns(round(until_s * NS_PER_S)) - run_time.at_ns(
            round(since_s * NS_PER_S)
        )
        ends = np.interp([since_s, until_s], times_s, [float(s.writes) for s in samples])
        if until_s - since_s >= 2:
            speeds.append((percent, float(ends[1] - ends[0]) / awake_s))
    return [(p, speed / speeds[0][1]) for p, speed in speeds[1:]] if not speeds[0][0] else []
