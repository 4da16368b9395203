"""Do the rows of published tables agree with the notes of the tables?"""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import pytest

from gpusim.published import tables
from gpusim.published.outcomes import configs, simulate_row
from gpusim.published.tables import Row


def test_each_position_of_a_writer_is_a_run_with_each_seed() -> None:
    row = replace(tables.load("tls_channels").row("TLS, 8 channels"), seeds=2)
    found = [(config.workload.first_write, config.seed) for config in configs(row)]
    assert len(set(found)) == len(found) == 16
    assert {first for first, _ in found} == set(row.first_writes)
    (only,) = configs(replace(row, seeds=1, first_writes=[]))
    assert only.workload.first_write == "auto"


def test_positions_divide_the_round_of_the_writer_evenly() -> None:
    """24 GiB are 6291456 pages, and the thread writes them one after the other."""
    for row in tables.load("tls_channels").rows:
        assert row.first_writes in ([], [n * 6291456 // 8 for n in range(8)])


def error(row: Row, page_writes_per_s: float) -> float:
    """Return the relative error of the total time with a write rate."""
    command = f"{row.run} workload.page_writes_per_s={page_writes_per_s:g}"
    (config,) = configs(replace(row, run=command))
    return simulate_row(config).total_s / row.total_s[0] - 1


@pytest.mark.slow
def test_write_rates_that_hold_the_rows_of_qemu_2_6() -> None:
    """The five rows at 300 ms fit from 245 000 to 285 000. The row at 5000 ms never fits."""
    table = tables.load("rk4n_2016")
    assert "from 245 000 to 285 000" in table.notes
    five = [row for row in table.rows if "limit" not in row.name]
    late = table.row("3 workers, 20/10, limit 5000 ms")
    assert len(five) == 5
    for rate, holds in ((240e3, False), (245e3, True), (285e3, True), (290e3, False)):
        assert all(abs(error(row, rate)) < 0.05 for row in five) == holds, rate
    for rate in (245e3, 285e3):
        assert error(late, rate) > 0.08


@pytest.mark.slow
def test_the_writers_position_decides_a_migration_with_tls() -> None:
    """The notes have the range of each row, and what the rows take without queue_cost_ns."""
    table = tables.load("tls_channels")
    notes = " ".join(table.notes.split())

    def total_times(row: Row) -> list[float]:
        return sorted(simulate_row(config).total_s for config in configs(row))

    plaintext = total_times(table.row("plaintext, 1 channel"))
    assert f"{plaintext[0]:.0f} to {plaintext[-1]:.0f} s without TLS" in notes
    judged = [table.row(f"TLS, {channels} channels") for channels in (4, 6, 8)]
    four, six, eight = map(total_times, judged)
    assert f"{four[0]:.0f} to {four[-1]:.0f} s with 4 channels" in notes
    assert f"{six[0]:.0f} to {six[-1]:.0f} s with 6" in notes
    assert f"{eight[0]:.0f} to {eight[-1]:.0f} s with 8" in notes
    free = [total_times(replace(row, run=f"{row.run} link.queue_cost_ns=0")) for row in judged]
    four_s, six_s, eight_s = (f"{mean(times):.0f}" for times in free)
    assert f"the means are {four_s}, {six_s} and {eight_s} s" in notes
    for row, times in zip(judged, free, strict=True):
        assert 0.98 * times[0] < row.total_s[0] < times[-1]  # near the shortest
    last = table.row("TLS, 1 channel, auto-converge")
    throttles = [simulate_row(config).max_throttle_percent for config in configs(last)]
    assert (throttles.count(70), throttles.count(60)) == (6, 2)
