"""Which bandwidth QEMU expects for the switchover: QEMU's own estimate, and others.

QEMU takes the last window, see `LastWindow`. The other rules are in no QEMU. Each shows one way to
smooth the estimate, or to leave the time of syncs out of it.
"""

from __future__ import annotations

import math
from collections import deque

from gpusim.qemu.rules import Windows


class LastWindow:
    """QEMU's estimate: the bandwidth of the last window of 100 ms or more.

    Source: migration/migration.c:migration_update_counters [7.2 to 11.1].
    """

    def end_windows(self, windows: Windows) -> float:
        """Return the bandwidth of the window that has ended, in bytes per second."""
        return windows.bandwidth


class WithoutSyncs:
    """The bandwidth of the last window without the time in which a sync held the sender up.

    A window with a sync of x ms measures less than the link's bandwidth B. If x and the sending time
    t take more than 100 ms together, then it measures B t / (x + t). Otherwise it measures
    B (100 - x) / 100. This rule returns B in both cases.

    A window without sending time keeps the estimate.

    Source: qemu-devel, Dec 2025, "merge fragmented clear_dirty ioctls", whose alternative leaves the
    time of a sync out of the bandwidth.
    """

    def __init__(self) -> None:
        self._bandwidth = 0.0

    def end_windows(self, windows: Windows) -> float:
        """Return sent bytes per second of sending."""
        sending_ns = windows.length_ns - windows.sync_ns
        if sending_ns > 0 and windows.sent_bytes:
            self._bandwidth = windows.bandwidth * windows.length_ns / sending_ns
        return self._bandwidth


class MovingAverage:
    """An exponential moving average over the windows.

    A window weighs by its length. The first window counts fully.

    Args:
        time_constant_ms: time after which an old value weighs 1/e.
    """

    def __init__(self, time_constant_ms: float = 1000.0) -> None:
        if not 0 < time_constant_ms < math.inf:
            raise ValueError("time_constant_ms must be above 0")
        self._time_constant_ns = time_constant_ms * 1e6
        self._bandwidth: float | None = None

    def end_windows(self, windows: Windows) -> float:
        """Return the average, with equal windows in one step."""
        before = windows.bandwidth if self._bandwidth is None else self._bandwidth
        kept = math.exp(-windows.count * windows.length_ns / self._time_constant_ns)
        self._bandwidth = windows.bandwidth + (before - windows.bandwidth) * kept
        return self._bandwidth


class MaximumOfWindows:
    """The highest bandwidth of the last windows.

    Args:
        windows: how many windows count.
    """

    def __init__(self, windows: int = 10) -> None:
        if not (isinstance(windows, int) and windows >= 1):
            raise ValueError("windows must be a whole number of 1 or more")
        self._last: deque[float] = deque(maxlen=windows)

    def end_windows(self, windows: Windows) -> float:
        """Return the maximum."""
        count = min(windows.count, self._last.maxlen or 1)
        self._last.extend([windows.bandwidth] * count)
        return max(self._last)
