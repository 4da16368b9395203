"""Do the what-if rules change only what they describe?"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.qemu.sync_timer import FALLBACK_SYNC_INTERVAL_NS
from gpusim.qemu.throttle import ThrottleRule
from gpusim.qemu.what_if import (
    FirstPassSyncTimerRule,
    OverCleanThrottleRule,
    ResponsiveThrottleRule,
)
from tests.qemu.parameters import parameters
from tests.qemu.test_sync_timer import tick
from tests.qemu.test_throttle import HIGH, LOW, after, period


def test_first_pass_is_not_spared() -> None:
    rule = FirstPassSyncTimerRule(FALLBACK_SYNC_INTERVAL_NS)
    assert [tick(rule, 0), tick(rule, 0)] == [0, 0]  # not before the setup's sync
    tick(rule, 1)
    assert [tick(rule, 1), tick(rule, 2)] == [2, 3]


def test_responsive_steps_at_once_when_the_ratio_rises_for_the_second_time() -> None:
    """The ratios are 51, 60 and 60 %. The first has no period before it, the others do not fall."""
    rule = ResponsiveThrottleRule(parameters())
    steps = after(rule, period(51, 100), period(60, 100), period(60, 100), period(59, 100))
    assert steps == [False, True, True, True]
    assert (rule.percent, rule.dirty_rate_high_cnt) == (40, 0)


def test_responsive_compares_whole_percent_and_asks_for_more_than_the_threshold() -> None:
    rule = ResponsiveThrottleRule(parameters())
    same = period(6009, 10000)  # 60 %, the same as 6000 of 10000
    assert after(rule, LOW, LOW, LOW, same, replace(same, dirty_bytes=6000)) == [
        False,
        False,
        False,
        False,
        True,
    ]


def test_responsive_falling_ratios_are_qemus_own_rule() -> None:
    periods = [period(dirty, 100) for dirty in range(99, 51, -1)]
    merged, responsive = ThrottleRule(parameters()), ResponsiveThrottleRule(parameters())
    assert after(responsive, *periods) == after(merged, *periods)


def test_over_clean_scales_by_the_share_that_is_clean() -> None:
    few = replace(
        period(26, 100), clean_bytes=500_000
    )  # half of the RAM is clean, so this counts as 52
    rule = OverCleanThrottleRule(parameters())
    assert after(rule, few, few) == [False, True]
    assert after(ThrottleRule(parameters()), few, few) == [False, False]
    nothing = replace(period(0, 100), clean_bytes=0)
    assert after(rule, nothing, nothing) == [False, False]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=40))
def test_over_clean_is_qemus_own_rule_where_all_is_clean(figures: list[tuple[int, int]]) -> None:
    periods = [period(dirty, xfer) for dirty, xfer in figures]
    merged, over_clean = ThrottleRule(parameters()), OverCleanThrottleRule(parameters())
    assert after(over_clean, *periods) == after(merged, *periods)
    assert HIGH in periods or over_clean.percent == merged.percent
