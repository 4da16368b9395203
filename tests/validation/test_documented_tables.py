"""The tables of docs/validation.md, computed again: each row must stand there as it comes out.

A row that has changed is printed by the failing assertion, ready to be pasted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gpusim import SequentialConfig, WriterConfig, simulate
from gpusim.validation.cli import load_recordings, plan, run
from gpusim.validation.quantities import measured
from gpusim.validation.recording import SHIPPED
from gpusim.validation.report import Case, Mode, summary, summary_text
from tests.simulation.test_closed_forms import MIB, SIMGRID, ideal_link
from tests.validation.published import (
    LAW_POINTS,
    RK4N,
    SERIES,
    V2,
    law_converges,
    rk4n,
    stress,
    with_long_syncs,
)

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


def test_simgrid_table() -> None:
    rows = []
    for memory, bandwidth, intensity, published_s in SIMGRID:
        times = [ideal_link(memory, bandwidth, intensity, SequentialConfig, ms) for ms in (30, 1)]
        random_s = ideal_link(memory, bandwidth, intensity, WriterConfig)
        shown = " | ".join(f"{t:.3f} ({100 * (t / published_s - 1):+.2f} %)" for t in times)
        rows.append(
            f"| {memory}, {bandwidth // MIB} MiB/s | {intensity} % | {published_s} | {shown} "
            f"| {random_s:.3f} |"
        )
    assert not missing(rows), missing(rows)


def within(simulated_s: float, published_s: float) -> str:
    """Seconds, and their error."""
    return f"{simulated_s:.0f} ({100 * (simulated_s / published_s - 1):+.0f} %)"


def off(simulated_s: float, published_s: float) -> float:
    return abs(simulated_s / published_s - 1)


@pytest.mark.slow
def test_table_of_the_series() -> None:
    rows = []
    for row in SERIES:
        original, merged = (stress(row, name) for name in ("qemu_9_1", "qemu_9_2"))
        letter, with_sync = "v1", "another algorithm"
        assert off(original.total_time_s, row.original_s) < 0.10
        if row.link == V2:
            polling_s = stress(row, "seed_v2").total_time_s
            assert off(polling_s, row.with_sync_s) < 0.15
            letter, with_sync = "v2", within(polling_s, row.with_sync_s)
        rows.append(
            f"| {letter} | {row.ramsize_mib} MB | {row.original_s:.0f} "
            f"| {within(original.total_time_s, row.original_s)} | {original.dirty_sync_count} "
            f"| {row.with_sync_s:.0f} | {with_sync} "
            f"| {within(merged.total_time_s, row.with_sync_s)} | {merged.dirty_sync_count} |"
        )
    assert not missing(rows), missing(rows)


@pytest.mark.slow
def test_range_of_rates_that_the_series_allows() -> None:
    """Every row of originals within 10 %, every one of v2's within 15 %."""

    def all_within(rate: float) -> bool:
        original = (
            off(stress(row, "qemu_9_1", rate).total_time_s, row.original_s) < 0.10 for row in SERIES
        )
        polling = (
            off(stress(row, "seed_v2", rate).total_time_s, row.with_sync_s) < 0.15
            for row in SERIES
            if row.link == V2
        )
        return all(original) and all(polling)

    rates = [rate / 100 for rate in range(360, 405, 5) if all_within(rate * 1e4)]
    claim = f"from {rates[0]:.2f} to {rates[-1]:.2f} million"
    assert claim in DOCUMENT.read_text(), claim


@pytest.mark.slow
def test_table_of_qemu_2_6() -> None:
    rows = []
    for row in RK4N:
        summary = rk4n(row)
        assert row.downtime_limit_ms > 300 or off(summary.total_time_s, row.total_s) < 0.05
        rows.append(
            f"| {row.workers} | {row.initial}/{row.increment} | {row.downtime_limit_ms} "
            f"| {row.total_s} | {summary.total_time_s:.1f} "
            f"({100 * (summary.total_time_s / row.total_s - 1):+.1f} %) | {summary.dirty_sync_count} |"
        )
    assert not missing(rows), missing(rows)


@pytest.mark.slow
def test_range_of_rates_that_qemu_2_6_allows() -> None:
    """The five rows at a downtime limit of 300 ms within 5 %."""
    judged = [row for row in RK4N if row.downtime_limit_ms == 300]
    rates = [
        rate
        for rate in range(200, 310, 5)
        if all(off(rk4n(row, rate * 1e3).total_time_s, row.total_s) < 0.05 for row in judged)
    ]
    assert rates == list(range(rates[0], rates[-1] + 1, 5))
    claim = f"from {rates[0]} 000 to {rates[-1]} 000"
    assert claim in DOCUMENT.read_text(), claim


@pytest.mark.slow
def test_table_of_the_sync_time_law() -> None:
    rows = []
    for dirty, sync_ms, downtime_ms in LAW_POINTS:
        summary = simulate(with_long_syncs(dirty, sync_ms, downtime_ms)).summary
        law = "yes" if law_converges(dirty, sync_ms, downtime_ms) else "no"
        loop = "yes" if summary.verdict == "converged" else "no"
        rows.append(f"| {dirty} | {sync_ms} | {downtime_ms} | {law} | {loop} |")
    assert not missing(rows), missing(rows)


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
