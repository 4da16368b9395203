"""Which bandwidth does each rule expect for the switchover?"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.qemu.bandwidth import LastWindow, MaximumOfWindows, MovingAverage, WithoutSyncs
from gpusim.qemu.rules import BandwidthPolicy, Windows

LINK = 15e9  # bytes per second, of the published law
RULES = (LastWindow, WithoutSyncs, MovingAverage, MaximumOfWindows)


def windows(
    bandwidth: float, *, count: int = 1, length_ms: float = 100, sync_ms: float = 0
) -> Windows:
    return Windows(
        count=count,
        bandwidth=bandwidth,
        sent_bytes=int(bandwidth * length_ms / 1000),
        length_ns=round(length_ms * 1e6),
        sync_ns=round(sync_ms * 1e6),
    )


@pytest.mark.parametrize(("sync_ms", "sending_ms"), [(250, 51), (73, 51), (60, 80)])
def test_a_window_beyond_100_ms_measures_the_first_regime_of_the_law(
    sync_ms: float, sending_ms: float
) -> None:
    """B t / (x + t), if x + t > 100. Without the sync it is B."""
    measured = LINK * sending_ms / (sync_ms + sending_ms)
    one = windows(measured, length_ms=sync_ms + sending_ms, sync_ms=sync_ms)
    assert LastWindow().end_windows(one) == measured
    assert WithoutSyncs().end_windows(one) == pytest.approx(LINK)


@pytest.mark.parametrize("sync_ms", [1, 10, 40])
def test_a_window_of_100_ms_measures_the_second_regime_of_the_law(sync_ms: float) -> None:
    """B (100 - x) / 100. Without the sync it is B."""
    measured = LINK * (100 - sync_ms) / 100
    one = windows(measured, sync_ms=sync_ms)
    assert LastWindow().end_windows(one) == measured
    assert WithoutSyncs().end_windows(one) == pytest.approx(LINK)


def test_a_window_of_a_sync_alone_says_nothing_about_the_link() -> None:
    rule = WithoutSyncs()
    rule.end_windows(windows(LINK))
    assert rule.end_windows(windows(0.0, length_ms=300, sync_ms=300)) == pytest.approx(LINK)


def test_an_average_keeps_1_over_e_after_its_time_constant() -> None:
    rule = MovingAverage(time_constant_ms=1000)
    assert rule.end_windows(windows(8e9)) == 8e9
    assert rule.end_windows(windows(0.0, count=10)) == pytest.approx(8e9 / 2.718281828)


def test_a_maximum_forgets_after_its_windows() -> None:
    rule = MaximumOfWindows(windows=3)
    found = [rule.end_windows(windows(b)) for b in (9.0, 5.0, 4.0, 3.0, 2.0)]
    assert found == [9.0, 9.0, 9.0, 5.0, 4.0]


@pytest.mark.parametrize("kind", RULES)
@settings(deadline=None)
@given(steps=st.lists(st.tuples(st.floats(1, 1e10), st.integers(1, 40)), min_size=1, max_size=8))
def test_equal_windows_may_come_in_one_call(kind: type, steps: list[tuple[float, int]]) -> None:
    """The sender also relies on this: no result exceeds both the one before and the window's own."""
    whole: BandwidthPolicy = kind()
    single: BandwidthPolicy = kind()
    before = 0.0
    for bandwidth, count in steps:
        at_once = whole.end_windows(windows(bandwidth, count=count))
        for _ in range(count):
            one_by_one = single.end_windows(windows(bandwidth))
            assert one_by_one <= max(before, bandwidth) * (1 + 1e-9)
            before = one_by_one
        assert at_once == pytest.approx(one_by_one, rel=1e-9)


@pytest.mark.parametrize("make", [lambda: MovingAverage(0), lambda: MaximumOfWindows(0)])
def test_arguments_are_checked(make: object) -> None:
    with pytest.raises(ValueError):
        make()  # type: ignore[operator]
