"""Does gpusim run a throttled vCPU as long as QEMU did in the ten recorded runs?

QEMU's fallback syncs held the big lock for a given time. gpusim gets the latency of the recorded
host's timers, and nothing else of these runs.
"""

from __future__ import annotations

from statistics import median

import pytest

from studies.phase_lock import (
    RECORDED_LATENCY_US,
    WITHOUT,
    Cycle,
    fixed_throttle,
    ran_percents,
    read_cycles,
)

TOLERANCE = 0.08  # of the recorded median, for each length of the syncs
QUICK = ((99, 300.0), (98, 282.0), (95, 282.0), (90, 282.0))


def kinds() -> list[tuple[int, float]]:
    return sorted({(cycle.percent, cycle.sync_ms) for cycle in read_cycles()})


def recorded(percent: int, sync_ms: float) -> float:
    cycles = [c for c in read_cycles() if (c.percent, c.sync_ms) == (percent, sync_ms)]
    return median(cycle.ran_percent for cycle in cycles)


def assert_as_recorded(percent: int, sync_ms: float, limit_s: float) -> None:
    config = fixed_throttle(percent, sync_ms, latency_us=RECORDED_LATENCY_US, limit_s=limit_s)
    found = median(ran_percents(config))
    assert found == pytest.approx(recorded(percent, sync_ms), rel=TOLERANCE)


def test_the_ten_runs_are_there() -> None:
    cycles: list[Cycle] = read_cycles()
    assert len({cycle.run for cycle in cycles}) >= 9  # one run has syncs of the migration thread
    assert len(kinds()) == 14


@pytest.mark.parametrize(("percent", "sync_ms"), QUICK)
def test_a_vcpu_runs_as_long_as_in_qemu(percent: int, sync_ms: float) -> None:
    assert_as_recorded(percent, sync_ms, 130)


@pytest.mark.slow
@pytest.mark.parametrize(("percent", "sync_ms"), kinds())
def test_a_vcpu_runs_as_long_as_in_all_recorded_runs(percent: int, sync_ms: float) -> None:
    assert_as_recorded(percent, sync_ms, 400)


def test_without_the_big_lock_the_vcpu_runs_as_the_throttle_says() -> None:
    config = fixed_throttle(99, 300, version=WITHOUT, limit_s=80, latency_us=0)
    assert median(ran_percents(config)) < 1.2  # 6.6 with the main loop
