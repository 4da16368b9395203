"""The tables of docs/validation.md, computed again: each row must stand there as it comes out.

A row that has changed is printed by the failing assertion, ready to be pasted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gpusim import SequentialConfig, WriterConfig
from gpusim.validation.cli import load_recordings, plan, run
from gpusim.validation.quantities import measured
from gpusim.validation.recording import SHIPPED
from gpusim.validation.report import Case, Mode, summary, summary_text
from tests.simulation.test_closed_forms import MIB, SIMGRID, ideal_link, ladder
from tests.simulation.test_closed_forms import throttle_steps as steps_of

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


def test_ladder_table() -> None:
    rows = []
    for link, ramsize_mib, published_s in [
        ("1.59Gbit/s", 3000, 399),
        ("1.59Gbit/s", 5000, 592),
        ("1.93Gbit/s", 3500, 340),
    ]:
        result = ladder(link, ramsize_mib)
        total_s = result.summary.total_time_s
        rows.append(
            f"| {link} | {ramsize_mib} MB | {published_s} | {total_s:.0f} "
            f"({100 * (total_s / published_s - 1):+.0f} %) | {len(steps_of(result))} "
            f"| {result.summary.dirty_sync_count} |"
        )
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
