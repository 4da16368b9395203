"""Is a guest that rests given the time to rest before its migration counts as stalled?"""

from __future__ import annotations

import pytest

from gpusim.engine.stall import STALL_NS, StallDetector
from gpusim.units import NS_PER_S


@pytest.mark.parametrize(("cycle_s", "stalled_at_s"), [(0, 60), (30, 60), (300, 300)])
def test_a_migration_stalls_after_a_whole_cycle(cycle_s: int, stalled_at_s: int) -> None:
    """Nothing improves, with a sync and a pass each second."""
    detector = StallDetector(1000, 0, cycle_s * NS_PER_S)
    for second in range(400):
        detector.after_sync(second * NS_PER_S, second, 500, throttle_is_final=True)
        if detector.is_stalled:
            break
    assert second == stalled_at_s
    assert STALL_NS == 60 * NS_PER_S


@pytest.mark.parametrize(
    ("passes_per_s", "cycle_s", "stalled_at_s"),
    [(10, 0, 5), (1, 0, 20), (0.2, 0, 60), (10, 30, 30), (1, 300, 300)],
)
def test_an_estimate_with_short_passes_waits_less(
    passes_per_s: float, cycle_s: int, stalled_at_s: int
) -> None:
    detector = StallDetector(1000, 0, cycle_s * NS_PER_S, is_estimate=True)
    for second in range(400):
        passes = round(second * passes_per_s)
        detector.after_sync(second * NS_PER_S, passes, 500, throttle_is_final=True)
        if detector.is_stalled:
            break
    assert second == stalled_at_s
    least_ns, least_passes = detector.over
    assert least_ns <= second * NS_PER_S
    assert least_passes <= passes


def test_an_estimate_that_still_falls_goes_on() -> None:
    detector = StallDetector(10**6, 0, is_estimate=True)
    for second in range(300):
        pending = round(1e6 * 0.998**second)
        detector.after_sync(second * NS_PER_S, second, pending, throttle_is_final=True)
        assert not detector.is_stalled
