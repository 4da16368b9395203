"""How many bytes fit the downtime limit, and when does QEMU stop the VM?"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.qemu.switchover import (
    EveryTurnSwitchoverRule,
    InclusiveSwitchoverRule,
    NextReadySwitchoverRule,
    SwitchoverRule,
    threshold_size,
)
from tests.qemu.parameters import parameters


@pytest.mark.parametrize(
    ("bandwidth", "limit_ms", "size"),
    [
        (105_062_580.0, 300, 31_518_774),
        (1e9, 300, 300_000_000),
        (1e9, 0, 0),
        (0.0, 300, 0),
        (999.0, 1, 0),  # trunc(0.999)
        (1999.0, 1, 1),
        (12.5e9, 2_000_000, 25 * 10**12),
    ],
)
def test_threshold_of_the_measured_bandwidth(bandwidth: float, limit_ms: int, size: int) -> None:
    assert threshold_size(bandwidth, parameters(downtime_limit_ms=limit_ms)) == size


@settings(deadline=None)
@given(st.floats(0, 1e12), st.integers(1, 2**40), st.integers(0, 2_000_000))
def test_a_bandwidth_that_was_set_takes_the_measured_ones_place(
    measured: float, avail: int, limit_ms: int
) -> None:
    chosen = parameters(avail_switchover_bandwidth=avail, downtime_limit_ms=limit_ms)
    assert threshold_size(measured, chosen, in_whole_kilobytes=False) == int(
        avail / 1000 * limit_ms
    )
    assert threshold_size(measured, chosen) == avail // 1000 * limit_ms


def test_qemu_syncs_strictly_below_the_threshold() -> None:
    rule = SwitchoverRule()
    assert [rule.wants_sync(estimate, 100) for estimate in (0, 99, 100, 101)] == [
        True,
        True,
        False,
        False,
    ]


def test_the_vm_stops_strictly_below_the_threshold() -> None:
    """Since 10.1 the comparison includes the threshold."""
    rule = SwitchoverRule()
    assert [rule.ready(pending, 100) for pending in (0, 99, 100, 101)] == [True, True, False, False]


def test_nothing_pending_is_ready_before_any_bandwidth_is_known() -> None:
    rule = SwitchoverRule()
    assert not rule.wants_sync(0, 0)
    assert rule.ready(0, 0)
    assert not rule.ready(1, 0)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200))
def test_a_turn_acts_if_it_syncs_or_completes(estimate: int, threshold: int) -> None:
    rule = SwitchoverRule()
    assert rule.acts(estimate, threshold) == (estimate < threshold or estimate == 0)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_acts_at_an_estimate_acts_at_every_smaller_one(a: int, b: int, threshold: int) -> None:
    """The sender relies on this when it skips turns."""
    rule = SwitchoverRule()
    low, high = sorted((a, b))
    assert rule.acts(low, threshold) or not rule.acts(high, threshold)


def test_qemu_10_1_stops_the_vm_at_the_threshold_but_syncs_strictly_below() -> None:
    rule = InclusiveSwitchoverRule()
    assert [rule.ready(pending, 100) for pending in (0, 99, 100, 101)] == [True, True, True, False]
    assert not rule.wants_sync(100, 100)
    assert rule.acts(100, 100)  # without a sync, because the estimate itself is ready
    assert rule.ready(0, 0)


def test_qemu_11_1_syncs_and_stops_the_vm_at_the_threshold() -> None:
    rule = NextReadySwitchoverRule()
    for method in (rule.wants_sync, rule.ready, rule.acts):
        assert [method(pending, 100) for pending in (0, 99, 100, 101)] == [True, True, True, False]


def test_every_turn_syncs_if_nothing_is_left_for_precopy() -> None:
    rule = EveryTurnSwitchoverRule()
    assert rule.wants_sync(10**12, 0)
    assert rule.acts(10**12, 0)
    assert [rule.ready(pending, 100) for pending in (100, 101)] == [True, False]
