"""Which ticks of the fallback timer force a sync?"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.qemu.sync_timer import FALLBACK_SYNC_INTERVAL_NS, SeedV2, SyncTimerRule


def tick(rule: SyncTimerRule, dirty_sync_count: int, period_ns: int = 0) -> int:
    """Run a tick. Return the count after it."""
    dirty_sync_count += rule.wants_sync(dirty_sync_count, period_ns)
    rule.after_tick(dirty_sync_count)
    return dirty_sync_count


def test_the_interval_is_five_seconds() -> None:
    assert FALLBACK_SYNC_INTERVAL_NS == 5 * 10**9


def test_no_tick_of_the_first_pass_forces_a_sync() -> None:
    rule = SyncTimerRule(FALLBACK_SYNC_INTERVAL_NS)
    assert [tick(rule, 0), tick(rule, 0)] == [0, 0]  # before the setup sync
    assert [tick(rule, 1) for _ in range(5)] == [1] * 5


def test_after_a_natural_sync_the_second_tick_forces_one() -> None:
    rule = SyncTimerRule(FALLBACK_SYNC_INTERVAL_NS)
    tick(rule, 1)
    assert [tick(rule, 2), tick(rule, 2)] == [2, 3]


def test_from_then_on_every_tick_forces_one() -> None:
    rule = SyncTimerRule(FALLBACK_SYNC_INTERVAL_NS)
    tick(rule, 2)
    count = 2
    for expected in (3, 4, 5, 6):
        count = tick(rule, count)
        assert count == expected


def test_a_natural_sync_between_any_two_ticks_keeps_it_quiet() -> None:
    rule = SyncTimerRule(FALLBACK_SYNC_INTERVAL_NS)
    assert [tick(rule, count) for count in range(1, 30)] == list(range(1, 30))


def test_a_natural_sync_after_a_forced_one_costs_it_a_tick() -> None:
    rule = SyncTimerRule(FALLBACK_SYNC_INTERVAL_NS)
    tick(rule, 2)
    assert tick(rule, 2) == 3
    assert [tick(rule, 4), tick(rule, 4)] == [4, 5]


def test_wants_sync_changes_no_state() -> None:
    rule = SyncTimerRule(FALLBACK_SYNC_INTERVAL_NS)
    rule.after_tick(2)
    assert [rule.wants_sync(2, 0), rule.wants_sync(2, 0)] == [True, True]
    rule.after_tick(3)
    assert not rule.wants_sync(2, 0)


def test_edge_case_20_a_new_migration_resets_the_count() -> None:
    """In v3 the count of the last tick stayed. In the merged code each start resets it."""
    tick(SyncTimerRule(FALLBACK_SYNC_INTERVAL_NS), 2)
    assert not SyncTimerRule(FALLBACK_SYNC_INTERVAL_NS).wants_sync(2, 0)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=40))
def test_a_tick_forces_a_sync_iff_none_came_since_the_last_tick(natural: list[int]) -> None:
    """The numbers are natural syncs before each tick. The setup's sync is the first."""
    rule, count = SyncTimerRule(FALLBACK_SYNC_INTERVAL_NS), 1
    for number, syncs in enumerate(natural):
        count += syncs
        forced = tick(rule, count) - count
        assert forced == (number > 0 and syncs == 0 and count > 1)
        count += forced


def forced_by_v2(natural_s: list[float], until_s: int) -> list[int]:
    """Return the ticks at which v2 forces a sync. Each natural sync closes a period."""
    rule, count, last_s, forced = SeedV2(FALLBACK_SYNC_INTERVAL_NS), 1, 0.0, []
    for at_s in range(1, until_s):
        came = [s for s in natural_s if at_s - 1 < s <= at_s]
        count, last_s = count + len(came), max([last_s, *came])
        before, count = count, tick(rule, count, round((at_s - last_s) * 1e9))
        if count > before:
            forced.append(at_s)
            last_s = at_s
    return forced


def test_v2_ticks_every_second_and_syncs_if_the_period_is_longer_than_five_seconds() -> None:
    assert SeedV2(FALLBACK_SYNC_INTERVAL_NS).tick_ns == 10**9
    assert forced_by_v2([20.4], 45) == [26, 32, 38, 44]  # a period of six seconds
    assert forced_by_v2([20.0], 30) == [26]  # at 25 s it is exactly five seconds old


def test_v2_spares_the_first_pass_and_short_passes() -> None:
    assert forced_by_v2([], 100) == []
    assert forced_by_v2([i * 4.5 for i in range(1, 20)], 80) == []
