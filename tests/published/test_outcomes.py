"""Do the rows of published tables agree with the notes of the tables?"""

from __future__ import annotations

from dataclasses import replace

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
    assert only.workload.first_write == 0


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
    """The five rows at 300 ms fit from 240 000 to 285 000. The row at 5000 ms never fits."""
    table = tables.load("rk4n_2016")
    assert "from 240 000 to 285 000" in table.notes
    five = [row for row in table.rows if "limit" not in row.name]
    late = table.row("3 workers, 20/10, limit 5000 ms")
    assert len(five) == 5
    for rate, holds in ((235e3, False), (240e3, True), (285e3, True), (290e3, False)):
        assert all(abs(error(row, rate)) < 0.05 for row in five) == holds, rate
    for rate in (240e3, 285e3):
        assert error(late, rate) > 0.08
