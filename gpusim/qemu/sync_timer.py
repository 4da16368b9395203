"""The fallback sync: a timer that makes sure of a sync where none has happened for a while.

Each class is a version of the idea. What a version keeps in static variables lives on in the QEMU
process, from one migration to the next: `SyncTimerState`.
"""

from __future__ import annotations

from dataclasses import dataclass

FALLBACK_SYNC_INTERVAL_NS = 5_000_000_000  # CPU_THROTTLE_DIRTY_SYNC_TIMESLICE_MS
POLL_INTERVAL_NS = 1_000_000_000  # BG_RAM_SYNC_TIMER_INTERVAL_MS of v2
FIRST_PASS_COUNT = 1  # dirty_sync_count after the setup's sync: the first pass still lasts


@dataclass
class SyncTimerState:
    """The timer's static variables.

    Attributes:
        count_prev: dirty_sync_count as the last tick left it.
        active: started and not stopped; a start is then no start.
    """

    count_prev: int
    active: bool = False


class SyncTimerRule:
    """As merged: started with the migration, its count reset at each start, stopped under the big lock.

    Attributes:
        tick_ns: from the end of a tick to the next one.
        first_count: `count_prev` when the process starts.
        syncs_from_count: no tick syncs below this dirty_sync_count: 2 leaves out the first pass.
        starts_with_period: started whenever a period closes, not with the migration.
        stops_under_lock: a stop waits for a tick that is under way.
        needs_auto_converge: a tick without the capability ends without arming the next.

    Source: migration/cpu-throttle.c:cpu_throttle_dirty_sync_timer, cpu_throttle_dirty_sync_timer_tick;
    started in migration.c:migration_thread, stopped in migration_iteration_finish [9.2 to 10.1].
    """

    first_count = 0
    syncs_from_count = FIRST_PASS_COUNT + 1
    starts_with_period = False
    stops_under_lock = True
    needs_auto_converge = False

    def __init__(self, interval_ns: int, state: object = None) -> None:
        self.tick_ns = interval_ns
        if not isinstance(state, SyncTimerState):  # none, or a rule of another kind's
            state = SyncTimerState(self.first_count)
        self.state = state

    def start(self) -> bool:
        """Whether the timer is to be armed, an interval from now."""
        if self.state.active:
            return False
        self.state.count_prev = 0
        self.state.active = True
        return True

    def stop(self) -> None:
        """The timer is disarmed."""
        self.state.active = False

    def wants_sync(self, dirty_sync_count: int, period_ns: int) -> bool:
        """Whether a tick forces a sync: never in the first pass, and only if none came since the last.

        Args:
            period_ns: how long the open period has lasted; here it does not matter.
        """
        return (
            dirty_sync_count >= self.syncs_from_count and dirty_sync_count == self.state.count_prev
        )

    def after_tick(self, dirty_sync_count: int) -> None:
        """The tick is over; the count includes the sync it forced."""
        self.state.count_prev = dirty_sync_count


class SeedV4(SyncTimerRule):
    """As posted in v4 of the series: the count of the last tick is never reset.

    Source: qemu-devel, 2024-10-17, "migration: Support periodic RAMBlock dirty sync", PATCH v4 5/6.
    """

    def start(self) -> bool:
        starts, self.state.active = not self.state.active, True
        return starts


class SeedV3(SeedV4):
    """As posted in v3: started by the first closed period, with a count of 2 that survives.

    A stop does not wait for a tick under way, which arms the timer again behind it; and a tick without
    the capability leaves it active but not armed, so that it never starts again.

    Source: qemu-devel, 2024-10-16, "migration: Support periodic ramblock dirty sync", PATCH v3 3/4,
    and its review.
    """

    first_count = 2
    starts_with_period = True
    stops_under_lock = False
    needs_auto_converge = True


class SeedV2(SyncTimerRule):
    """As posted in v2: looks every second, and syncs once the last period's end is over 5 s old.

    The first pass is exempt as in the merged code. A sync that closes no period does not make the last
    one any younger; it only keeps the next tick quiet.

    Source: migration/ram.c:bg_ram_dirty_sync_timer_tick, in the mail
    f36590f6...1727630000.git.yong.huang@smartx.com ("PATCH v2 1/3", 2024-09-30).
    """

    def __init__(self, interval_ns: int, state: object = None) -> None:
        super().__init__(POLL_INTERVAL_NS, state)
        self._interval_ns = interval_ns

    def wants_sync(self, dirty_sync_count: int, period_ns: int) -> bool:
        """Whether this tick forces a sync: no sync since the last tick, and the period is long."""
        return super().wants_sync(dirty_sync_count, period_ns) and period_ns > self._interval_ns
