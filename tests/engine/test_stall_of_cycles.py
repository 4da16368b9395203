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
