"""Which periods are high, and which steps do they take?"""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpusim.qemu.sync import Period
from gpusim.qemu.throttle import EarlyThrottleRule, ThrottleRule, next_percent
from tests.qemu.parameters import parameters

DOUBLE_IS_EXACT = 2**53
TAILSLOW = parameters(cpu_throttle_tailslow=True)


def period(dirty: int, xfer: int, *, rate: int = 0) -> Period:
    return Period(
        length_ms=2000,
        dirty_bytes=dirty,
        xfer_bytes=xfer,
        dirty_pages_rate=rate,
        clean_bytes=10**6,
        ram_bytes=10**6,
    )


HIGH, LOW = period(51, 100), period(50, 100)


def after(rule: ThrottleRule, *periods: Period) -> list[bool]:
    return [rule.on_period(p) for p in periods]


def test_dirty_must_exceed_its_share_of_the_transferred() -> None:
    rule = ThrottleRule(parameters())
    after(rule, LOW)
    assert rule.dirty_rate_high_cnt == 0
    after(rule, HIGH)
    assert rule.dirty_rate_high_cnt == 1


@pytest.mark.parametrize(
    ("percent", "xfer", "dirty", "high"),
    [
        (50, 3, 1, False),  # trunc(1.5) = 1
        (50, 3, 2, True),
        (50, 1, 1, True),  # trunc(0.5) = 0
        (33, 10, 3, False),
        (33, 10, 4, True),
        (1, 99, 1, True),  # trunc(0.99) = 0
        (100, 7, 7, False),
    ],
)
def test_the_threshold_is_truncated(percent: int, xfer: int, dirty: int, high: bool) -> None:
    rule = ThrottleRule(parameters(throttle_trigger_threshold=percent))
    rule.on_period(period(dirty, xfer))
    assert rule.dirty_rate_high_cnt == high


def test_the_threshold_is_exact_where_a_double_would_not_be() -> None:
    xfer = 2 * DOUBLE_IS_EXACT + 6
    rule = ThrottleRule(parameters())
    rule.on_period(period(xfer // 2, xfer))
    assert rule.dirty_rate_high_cnt == 0
    rule.on_period(period(xfer // 2 + 1, xfer))
    assert rule.dirty_rate_high_cnt == 1


def test_edge_case_06_two_high_periods_need_not_be_in_a_row() -> None:
    rule = ThrottleRule(parameters())
    assert after(rule, HIGH, LOW, LOW, LOW, HIGH) == [False, False, False, False, True]
    assert (rule.percent, rule.dirty_rate_high_cnt) == (20, 0)


def test_edge_case_26_a_stalled_link_is_a_high_period() -> None:
    rule = ThrottleRule(parameters())
    assert after(rule, period(1, 0), period(1, 0)) == [False, True]
    assert rule.percent == 20


def test_an_idle_guest_on_a_stalled_link_is_not_high() -> None:
    rule = ThrottleRule(parameters())
    assert after(rule, *[period(0, 0)] * 4) == [False] * 4
    assert rule.dirty_rate_high_cnt == 0


def test_the_default_steps() -> None:
    rule = ThrottleRule(parameters())
    ladder = []
    for _ in range(11):
        assert after(rule, HIGH, HIGH) == [False, True]
        ladder.append(rule.percent)
    assert ladder == [20, 30, 40, 50, 60, 70, 80, 90, 99, 99, 99]


@pytest.mark.parametrize(
    ("changes", "ladder"),
    [
        ({"cpu_throttle_increment": 30}, [20, 50, 80, 99, 99]),
        ({"cpu_throttle_initial": 99}, [99, 99]),
        ({"cpu_throttle_initial": 1, "cpu_throttle_increment": 99}, [1, 99]),
        ({"max_cpu_throttle": 40}, [20, 30, 40, 40]),
        ({"max_cpu_throttle": 35}, [20, 30, 35, 35]),
        ({"max_cpu_throttle": 20}, [20, 20]),
    ],
)
def test_steps_of_other_parameters(changes: dict[str, int], ladder: list[int]) -> None:
    rule = ThrottleRule(parameters(**changes))
    seen = []
    for _ in ladder:
        after(rule, HIGH, HIGH)
        seen.append(rule.percent)
    assert seen == ladder


@pytest.mark.parametrize(
    ("now", "dirty", "threshold", "then"),
    [
        (50, 400, 300, 60),  # ideal trunc(37.5) = 37, min(13, 10)
        (50, 310, 300, 52),  # ideal trunc(48.39) = 48
        (50, 1000, 999, 51),  # ideal trunc(49.95) = 49
        (0, 1000, 999, 20),  # the first step is the initial throttle
        (90, 10, 0, 99),  # ideal 0, min(10, 10), capped
        (98, 100, 99, 99),  # ideal trunc(1.98) = 1
        (20, 10**15, 10**15 - 1, 21),
    ],
)
def test_tailslow_vectors(now: int, dirty: int, threshold: int, then: int) -> None:
    assert next_percent(now, dirty, threshold, TAILSLOW) == then


def test_tailslow_reaches_the_rule_with_the_periods_own_figures() -> None:
    rule = ThrottleRule(TAILSLOW)
    after(rule, HIGH, HIGH)
    assert rule.percent == 20
    after(rule, HIGH, period(310, 600))
    assert rule.percent == 23  # cpu_now 80, ideal trunc(77.42)


@settings(deadline=None)
@given(
    st.integers(1, 98),
    st.integers(1, DOUBLE_IS_EXACT),
    st.integers(0, DOUBLE_IS_EXACT),
    st.integers(1, 99),
)
def test_a_tailslow_step_is_at_least_1_and_at_most_the_increment(
    now: int, dirty: int, threshold: int, increment: int
) -> None:
    assume(threshold < dirty)
    then = next_percent(
        now,
        dirty,
        threshold,
        parameters(cpu_throttle_tailslow=True, cpu_throttle_increment=increment),
    )
    assert now + 1 <= then <= min(99, now + increment)


@settings(deadline=None)
@given(st.integers(1, 98), st.integers(DOUBLE_IS_EXACT // 2, DOUBLE_IS_EXACT))
def test_a_tailslow_step_is_1_when_dirty_is_just_above_the_threshold(now: int, dirty: int) -> None:
    assert next_percent(now, dirty, dirty - 1, TAILSLOW) == now + 1


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=60),
    st.integers(1, 99),
    st.integers(1, 99),
    st.integers(1, 99),
    st.booleans(),
)
def test_the_throttle_never_falls_and_stays_in_its_bounds(
    periods: list[tuple[int, int]], initial: int, increment: int, top: int, tailslow: bool
) -> None:
    assume(initial <= top)
    rule = ThrottleRule(
        parameters(
            cpu_throttle_initial=initial,
            cpu_throttle_increment=increment,
            max_cpu_throttle=top,
            cpu_throttle_tailslow=tailslow,
        )
    )
    high = 0
    for dirty, xfer in periods:
        before, is_high = rule.percent, dirty > xfer // 2
        high += is_high
        triggers = rule.on_period(period(dirty, xfer))
        assert triggers == (is_high and high % 2 == 0)
        assert rule.percent >= before
        assert (rule.percent == before) or triggers
        assert rule.percent == 0 or initial <= rule.percent <= top
        assert rule.exhausted == (rule.percent >= top)


def test_without_auto_converge_nothing_is_triggered_but_high_periods_count() -> None:
    """migration_trigger_throttle counts before it checks the capability."""
    rule = ThrottleRule(parameters(auto_converge=False))
    assert rule.exhausted
    assert after(rule, HIGH) == [False]
    assert rule.dirty_rate_high_cnt == 1
    assert after(rule, HIGH) == [False]
    assert (rule.percent, rule.dirty_rate_high_cnt) == (0, 0)


def test_it_is_exhausted_at_the_maximum_only() -> None:
    rule = ThrottleRule(parameters(max_cpu_throttle=30))
    seen = []
    for _ in range(3):
        seen.append(rule.exhausted)
        after(rule, HIGH, HIGH)
    assert (seen, rule.exhausted) == ([False, False, True], True)


def test_qemu_2_6_steps_at_every_third_high_period() -> None:
    rule = EarlyThrottleRule(parameters())
    high, low = period(51, 100, rate=9), period(50, 100, rate=9)
    assert after(rule, low, high, high, low, high) == [False, False, False, False, True]
    assert (rule.percent, rule.dirty_rate_high_cnt) == (20, 0)
    ladder = [rule.percent for _ in range(27) if rule.on_period(high)]
    assert ladder == [30, 40, 50, 60, 70, 80, 90, 99, 99]


def test_qemu_2_6_never_counts_the_first_period_nor_one_after_a_quiet_period() -> None:
    rule = EarlyThrottleRule(parameters())
    high, quiet = period(51, 100, rate=9), period(0, 100, rate=0)
    after(rule, high)
    assert rule.dirty_rate_high_cnt == 0
    after(rule, high, quiet, high, high)
    assert rule.dirty_rate_high_cnt == 2
