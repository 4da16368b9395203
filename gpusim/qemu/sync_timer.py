"""The fallback sync: a timer that forces a sync when none has happened since its last tick."""

from __future__ import annotations

FALLBACK_SYNC_INTERVAL_NS = 5_000_000_000  # CPU_THROTTLE_DIRTY_SYNC_TIMESLICE_MS


class SyncTimerRule:
    """What a tick decides, as merged: the count of the last tick is reset at each start.

    Source: migration/cpu-throttle.c:cpu_throttle_dirty_sync_timer_tick [9.2 to 10.1].
    """

    def __init__(self) -> None:
        self._count_prev = 0

    def wants_sync(self, dirty_sync_count: int) -> bool:
        """Whether this tick forces a sync: never in the first pass, and only if none came since."""
        return dirty_sync_count > 1 and dirty_sync_count == self._count_prev

    def after_tick(self, dirty_sync_count: int) -> None:
        """The tick is over; the count includes the sync it forced."""
        self._count_prev = dirty_sync_count
