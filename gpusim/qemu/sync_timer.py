"""The fallback sync: a timer that forces a sync if there was none for a while.

Each class is one version of it. A version's static variables stay in the QEMU process from one
migration to the next, see `SyncTimerState`.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpusim.qemu.sync import FIRST_PASS_COUNT

FALLBACK_SYNC_INTERVAL_NS = 5_000_000_000  # CPU_THROTTLE_DIRTY_SYNC_TIMESLICE_MS
POLL_INTERVAL_NS = 1_000_000_000  # BG_RAM_SYNC_TIMER_INTERVAL_MS of v2


@dataclass
class SyncTimerState:
    """The timer's static variables.

    Attributes:
        count_prev: dirty_sync_count at the end of the last tick.
        active: the timer has started and not stopped. Then another start has no effect.
        percent_prev: the throttle at the end of the last tick. Only v2 has this variable.
    """

    count_prev: int
    active: bool = False
    percent_prev: int = 0


class SyncTimerRule:
    """The timer as merged in QEMU 9.2.

    It starts with the migration, each start resets its count, and it stops under the big lock.

    Args:
        interval_ns: time between two ticks.
        state: the static variables that an earlier migration in the same process has left. A state
            of another type counts as None.

    Attributes:
        tick_ns: time from the end of a tick to the next tick.
        state: the static variables.
        first_count: `count_prev` when the process starts.
        syncs_from_count: no tick syncs below this dirty_sync_count. 2 excludes the first pass.
        percent: the throttle, which the engine sets before the end of a tick. 0: none.
        starts_after_setup: the timer starts when the setup's sync has ended, not before it.
        starts_with_period: the timer starts when a period closes, not with the migration.
        stops_under_lock: a stop waits for a tick that is running.
        needs_auto_converge: a tick without auto-converge ends and does not arm the next tick.

    Source: migration/cpu-throttle.c:cpu_throttle_dirty_sync_timer and
    cpu_throttle_dirty_sync_timer_tick, migration.c:migration_thread (start) and
    migration_iteration_finish (stop) [9.2 to 11.1].
    """

    first_count = 0
    syncs_from_count = FIRST_PASS_COUNT + 1
    percent = 0
    starts_after_setup = False
    starts_with_period = False
    stops_under_lock = True
    needs_auto_converge = False

    def __init__(self, interval_ns: int, state: object = None) -> None:
        self.tick_ns = interval_ns
        if not isinstance(state, SyncTimerState):
            state = SyncTimerState(self.first_count)
        self.state = state

    def start(self) -> bool:
        """Start with the migration. Return whether to arm the timer, an interval from now."""
        if self.state.active:
            return False
        self.state.count_prev = 0
        self.state.active = True
        return True

    def stop(self) -> None:
        """Stop after the migration has ended."""
        self.state.active = False

    def wants_sync(self, dirty_sync_count: int, period_ns: int) -> bool:
        """Return whether a tick forces a sync.

        It does so only after the first pass, and only if the count has not changed since the last
        tick. Up to 11.0 any sync changes it. Since 11.1 only an exact sync does, and a tick after a
        fallback sync finds the count that this sync left. Both give the same ticks.

        Args:
            dirty_sync_count: the count that QEMU reports.
            period_ns: length of the open period, which this rule ignores.
        """
        return (
            dirty_sync_count >= self.syncs_from_count and dirty_sync_count == self.state.count_prev
        )

    def after_tick(self, dirty_sync_count: int) -> None:
        """End a tick. Up to 11.0 the count includes the sync that the tick forced."""
        self.state.count_prev = dirty_sync_count


class SeedV4(SyncTimerRule):
    """The timer as posted in v4 of the series: a start does not reset the count of the last tick.

    Source: qemu-devel, 2024-10-17, "migration: Support periodic RAMBlock dirty sync", PATCH v4 5/6.
    """

    def start(self) -> bool:
        starts, self.state.active = not self.state.active, True
        return starts


class SeedV3(SeedV4):
    """The timer as posted in v3: the first closed period starts it, with a count of 2 that stays.

    A stop does not wait for a running tick, and that tick arms the timer again. A tick without
    auto-converge leaves the timer active but not armed, so that it never starts again.

    Source: qemu-devel, 2024-10-16, "migration: Support periodic ramblock dirty sync", PATCH v3 3/4,
    and its review.
    """

    first_count = 2
    starts_with_period = True
    stops_under_lock = False
    needs_auto_converge = True


class SeedV2(SyncTimerRule):
    """The timer as posted in v2: it ticks every second and syncs if the open period is over 5 s
    old.

    It excludes the first pass, as the merged code does. A sync that closes no period only
    suppresses the next tick's sync.

    The timer starts with a tick after the setup. A tick that finds no throttle although the tick
    before found one does not arm the timer. So the timer runs in no migration after one whose last
    tick found a throttle. A stop does not wait for a running tick, and that tick arms the timer
    again.

    Source: migration/ram.c:bg_ram_dirty_sync_timer_tick (prev_pct), migration.c:migration_thread
    (start) and migration_iteration_finish (stop), in the mail
    f36590f6...1727630000.git.yong.huang@smartx.com ("PATCH v2 1/3", 2024-09-30).
    """

    starts_after_setup = True
    stops_under_lock = False

    def __init__(self, interval_ns: int, state: object = None) -> None:
        super().__init__(POLL_INTERVAL_NS, state)
        self._interval_ns = interval_ns

    def start(self) -> bool:
        """Tick once, when no vCPU is throttled yet. Return whether that arms the timer."""
        self.state.count_prev = FIRST_PASS_COUNT
        return self.state.percent_prev == 0

    def wants_sync(self, dirty_sync_count: int, period_ns: int) -> bool:
        """Return whether a tick forces a sync: none since the last tick, and the period is long."""
        return super().wants_sync(dirty_sync_count, period_ns) and period_ns > self._interval_ns

    def after_tick(self, dirty_sync_count: int) -> None:
        """End a tick, and remember the throttle."""
        super().after_tick(dirty_sync_count)
        self.state.percent_prev = self.percent
