"""Which ticks of the fallback timer force a sync?"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.qemu.sync_timer import FALLBACK_SYNC_INTERVAL_NS, SyncTimerRule


def tick(rule: SyncTimerRule, dirty_sync_count: int) -> int:
    """One tick; the count after it."""
    dirty_sync_count += rule.wants_sync(dirty_sync_count)
    rule.after_tick(dirty_sync_count)
    return dirty_sync_count


def test_the_interval_is_five_seconds() -> None:
    assert FALLBACK_SYNC_INTERVAL_NS == 5 * 10**9


def test_no_tick_of_the_first_pass_forces_a_sync() -> None:
    rule = SyncTimerRule()
    assert [tick(rule, 0), tick(rule, 0)] == [0, 0]  # before the setup sync
    assert [tick(rule, 1) for _ in range(5)] == [1] * 5


def test_after_a_natural_sync_the_second_tick_forces_one() -> None:
    rule = SyncTimerRule()
    tick(rule, 1)
    assert [tick(rule, 2), tick(rule, 2)] == [2, 3]


def test_from_then_on_every_tick_forces_one() -> None:
    rule = SyncTimerRule()
    tick(rule, 2)
    count = 2
    for expected in (3, 4, 5, 6):
        count = tick(rule, count)
        assert count == expected


def test_a_natural_sync_between_any_two_ticks_keeps_it_quiet() -> None:
    rule = SyncTimerRule()
    assert [tick(rule, count) for count in range(1, 30)] == list(range(1, 30))


def test_a_natural_sync_after_a_forced_one_costs_it_a_tick() -> None:
    rule = SyncTimerRule()
    tick(rule, 2)
    assert tick(rule, 2) == 3
    assert [tick(rule, 4), tick(rule, 4)] == [4, 5]


def test_asking_decides_nothing_before_the_tick_is_over() -> None:
    rule = SyncTimerRule()
    rule.after_tick(2)
    assert [rule.wants_sync(2), rule.wants_sync(2)] == [True, True]
    rule.after_tick(3)
    assert not rule.wants_sync(2)


def test_edge_case_20_a_new_migration_knows_nothing_of_the_last() -> None:
    """As posted in v3 the count of the last tick survived; as merged each start sets it to 0."""
    tick(SyncTimerRule(), 2)
    assert not SyncTimerRule().wants_sync(2)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=40))
def test_a_tick_forces_a_sync_iff_none_came_since_the_last_tick(natural: list[int]) -> None:
    """Natural syncs before each tick; the setup sync is the first of all."""
    rule, count = SyncTimerRule(), 1
    for number, syncs in enumerate(natural):
        count += syncs
        forced = tick(rule, count) - count
        assert forced == (number > 0 and syncs == 0 and count > 1)
        count += forced
