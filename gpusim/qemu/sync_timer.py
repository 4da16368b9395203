"""The fallback sync: a timer that forces a sync when none has happened for long.

A rule is asked at each tick of its timer and says when the next one is; simulation.py arms the timer.
"""

from __future__ import annotations

FALLBACK_SYNC_INTERVAL_NS = 5_000_000_000  # CPU_THROTTLE_DIRTY_SYNC_TIMESLICE_MS
POLL_INTERVAL_NS = 1_000_000_000  # BG_RAM_SYNC_TIMER_INTERVAL_MS of v2
FIRST_PASS_COUNT = 1  # dirty_sync_count after the setup's sync: the first pass still lasts


class SyncTimerRule:
    """What a tick decides, as merged: the count of the last tick is reset at each start.

    Attributes:
        tick_ns: from the end of a tick to the next one.
        looks_from_count: no tick forces a sync while the dirty_sync_count is smaller.

    Source: migration/cpu-throttle.c:cpu_throttle_dirty_sync_timer_tick [9.2 to 10.1].
    """

    looks_from_count = FIRST_PASS_COUNT + 1

    def __init__(self, interval_ns: int) -> None:
        self.tick_ns = interval_ns
        self._count_prev = 0

    def wants_sync(self, dirty_sync_count: int, period_ns: int) -> bool:
        """Whether this tick forces a sync: never in the first pass, and only if none came since.

        Args:
            period_ns: how long the open period has lasted; here it does not matter.
        """
        return dirty_sync_count >= self.looks_from_count and dirty_sync_count == self._count_prev

    def after_tick(self, dirty_sync_count: int) -> None:
        """The tick is over; the count includes the sync it forced."""
        self._count_prev = dirty_sync_count


class PollingSyncTimerRule(SyncTimerRule):
    """The series' v2: looks every second, and syncs once the last period's end is over 5 s old.

    The first pass is exempt as in the merged code. A sync that closes no period does not make the last
    one any younger; it only keeps the next tick quiet.

    Source: migration/ram.c:bg_ram_dirty_sync_timer_tick, in the mail
    f36590f6...1727630000.git.yong.huang@smartx.com ("PATCH v2 1/3", 2024-09-30).
    """

    def __init__(self, interval_ns: int) -> None:
        super().__init__(POLL_INTERVAL_NS)
        self._interval_ns = interval_ns

    def wants_sync(self, dirty_sync_count: int, period_ns: int) -> bool:
        """Whether this tick forces a sync: no sync since the last tick, and the period is long."""
        return super().wants_sync(dirty_sync_count, period_ns) and period_ns > self._interval_ns
