"""The fallback sync: a timer that makes sure of a sync where none has happened for a while.

Each class is a version of the idea. What a version keeps in static variables lives on in the QEMU
process, from one migration to the next: `SyncTimerState`.
"""

from __future__ import annotations

from dataclasses import dataclass

FALLBACK_SYNC_INTERVAL_NS = 5_000_000_000  # CPU_THROTTLE_DIRTY_SYNC_TIMESLICE_MS


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
        first_count: `count_prev` when the process starts.
        syncs_from_count: no tick syncs below this dirty_sync_count: 2 leaves out the first pass.
        starts_with_period: started whenever a period closes, not with the migration.
        stops_under_lock: a stop waits for a tick that is under way.
        needs_auto_converge: a tick without the capability ends without arming the next.

    Source: migration/cpu-throttle.c:cpu_throttle_dirty_sync_timer, cpu_throttle_dirty_sync_timer_tick;
    started in migration.c:migration_thread, stopped in migration_iteration_finish [9.2 to 10.1].
    """

    first_count = 0
    syncs_from_count = 2
    starts_with_period = False
    stops_under_lock = True
    needs_auto_converge = False

    def __init__(self, state: SyncTimerState | None = None) -> None:
        self.state = state or SyncTimerState(self.first_count)

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

    def wants_sync(self, dirty_sync_count: int) -> bool:
        """Whether a tick forces a sync: never in the first pass, and only if none came since the last."""
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
