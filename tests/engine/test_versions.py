"""Do the rules of each QEMU version change a whole migration?"""

from __future__ import annotations

import pytest

from gpusim import Result, WriterConfig, simulate
from tests.engine.scenarios import config, throttle_steps

BUSY = WriterConfig(working_set="1GiB", page_writes_per_s=3e5)
SLOW = {"workload": BUSY, "max_bandwidth": 100_000_000}  # passes of ten seconds


def count_at(result: Result, time_s: float) -> int:
    return next(sync.dirty_sync_count for sync in result.syncs if sync.time_s == time_s)


def test_qemu_2_6_starts_at_the_fifth_sync_and_takes_three_periods_per_step() -> None:
    """The setup's sync and the end of pass 1 do not count. Passes 2, 3 and 4 are high."""
    result = simulate(config("4GiB", version="qemu_2_6", **SLOW))
    steps = throttle_steps(result)
    assert [percent for _, percent in steps[:3]] == [20, 30, 40]
    assert [count_at(result, time_s) for time_s, _ in steps[:3]] == [5, 8, 11]
    assert not any(sync.kind == "fallback" for sync in result.syncs)


def test_v2_syncs_five_to_six_seconds_after_the_last_sync() -> None:
    """The grid of the merged code takes five to ten seconds after an exact sync."""
    result = simulate(config("4GiB", version="seed_v2", downtime_limit=30, **SLOW))
    forced = [
        (before.kind, sync.time_s - before.time_s)
        for before, sync in zip(result.syncs, result.syncs[1:], strict=False)
        if sync.kind == "fallback"
    ]
    assert len(forced) > 4
    assert all(5 < gap_s <= 6.001 for _, gap_s in forced)
    assert {round(gap_s, 6) for kind, gap_s in forced if kind == "fallback"} == {6.0}
    assert result.syncs[1].kind == "exact"  # no fallback sync in the first pass


def test_the_first_pass_has_fallback_syncs_if_it_is_not_exempt() -> None:
    merged = simulate(config("4GiB", **SLOW))
    result = simulate(config("4GiB", version="what_if_first_pass", **SLOW))
    assert merged.syncs[1].kind == "exact"
    assert [sync.time_s for sync in result.syncs[1:4]] == [10.0, 15.0, 20.0]
    assert {sync.pass_number for sync in result.syncs[1:4]} == {1}
    first = result.summary.first_throttle_s
    assert first is not None
    assert merged.summary.first_throttle_s is not None
    assert first < merged.summary.first_throttle_s


@pytest.mark.parametrize("version", ["what_if_responsive", "what_if_over_clean"])
def test_a_rule_with_more_high_periods_throttles_earlier(version: str) -> None:
    writer = WriterConfig(working_set="3GiB", page_writes_per_s=2e4)
    keys = {"workload": writer, "max_bandwidth": 50_000_000}
    merged, other = (
        simulate(config("4GiB", version=name, **keys)) for name in ("qemu_9_2", version)
    )
    assert [time_s for time_s, _ in throttle_steps(other)[:3]] < [
        time_s for time_s, _ in throttle_steps(merged)[:3]
    ]
