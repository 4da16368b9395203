"""The QEMU process, which lives on when a migration fails or is cancelled, and what it then keeps."""

from __future__ import annotations

from dataclasses import dataclass

from gpusim.qemu.rules import SyncTimerPolicy, checked_tick_ns
from gpusim.qemu.sync_timer import SyncTimerState


@dataclass
class Process:
    """Everything that one migration leaves to the next.

    Attributes:
        sync_timer: the fallback timer's static variables; None: no migration has been started.
        sync_timer_left_ns: the timer was left armed and fires so much later; None: it was not.
        dirty_sync_count: of the last migration, until the next begins (migration-stats.h).
        throttle_thread_scheduled: of all vCPUs; left set, no vCPU is ever throttled again: the throttle
            was stopped after a tick had set it and before the vCPUs could clear it
            (cpu-throttle.c:cpu_throttle_thread returns early). Deduced from the source, not reported.
    """

    sync_timer: SyncTimerState | None = None
    sync_timer_left_ns: int | None = None
    dirty_sync_count: int = 0
    throttle_thread_scheduled: bool = False

    def idle(self, rule: SyncTimerPolicy, for_ns: int, auto_converge: bool) -> int | None:
        """No migration runs for a while, but a timer that was left armed ticks on.

        Args:
            rule: of the version.
            for_ns: how long.
            auto_converge: the capability, as set meanwhile.

        Returns:
            When QEMU aborts, ns from now; None: it does not. A tick that syncs without a migration
            meets `assert(ram_state)` in migration/ram.c:migration_bitmap_sync_precopy.
        """
        at_ns, self.sync_timer_left_ns = self.sync_timer_left_ns, None
        while at_ns is not None and at_ns <= for_ns:
            if rule.needs_auto_converge and not auto_converge:
                return None
            if rule.wants_sync(self.dirty_sync_count, at_ns):
                return at_ns
            rule.after_tick(self.dirty_sync_count)
            at_ns += checked_tick_ns(rule)
        if at_ns is not None:
            self.sync_timer_left_ns = at_ns - for_ns
        return None
