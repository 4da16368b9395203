"""The QEMU process: the state that stays when a migration fails or is cancelled."""

from __future__ import annotations

from dataclasses import dataclass

from gpusim.qemu.rules import SyncTimer
from gpusim.qemu.sync_timer import SyncTimerState
from gpusim.units import NEVER_NS


@dataclass
class Process:
    """The state that one migration leaves to the next.

    Attributes:
        sync_timer: static variables of the fallback timer. None: no migration has started.
        sync_timer_left_ns: time until the timer fires, if the migration left it armed. None: it is
            not armed.
        dirty_sync_count: count of the last migration, until the next one begins
            (migration-stats.h).
        throttle_thread_scheduled: the flag of the same name of all vCPUs. If it stays set, then no
            vCPU is ever throttled again. The flag stays set if the throttle stops after a tick has
            set it and before the vCPUs clear it. This is deduced from the source and not reported.

    Source: migration/cpu-throttle.c:cpu_throttle_thread and cpu_throttle_timer_tick.
    """

    sync_timer: SyncTimerState | None = None
    sync_timer_left_ns: int | None = None
    dirty_sync_count: int = 0
    throttle_thread_scheduled: bool = False

    def idle(self, rule: SyncTimer, for_ns: int, auto_converge: bool) -> int | None:
        """Let time pass without a migration. A timer that was left armed goes on.

        Args:
            rule: the fallback timer's rule.
            for_ns: how long no migration runs.
            auto_converge: the capability during that time.

        Returns:
            The time from now, in ns, at which QEMU aborts, or None if it does not abort. QEMU
            aborts if a tick syncs without a migration. v2 already aborts when a tick asks for the age
            of the period. So the rule gets a period that is as old as can be.

        Source: migration/ram.c:migration_bitmap_sync_precopy and, in v2,
        bg_ram_dirty_sync_timer_tick, assert(ram_state).
        """
        at_ns, self.sync_timer_left_ns = self.sync_timer_left_ns, None
        while at_ns is not None and at_ns <= for_ns:
            if rule.needs_auto_converge and not auto_converge:
                return None
            if rule.wants_sync(self.dirty_sync_count, NEVER_NS):
                return at_ns
            rule.percent = 0
            rule.after_tick(self.dirty_sync_count)
            at_ns += rule.tick_ns
        if at_ns is not None:
            self.sync_timer_left_ns = at_ns - for_ns
        return None
