"""QEMU's big lock: who holds it, and when a thread that asks now gets it.

Syncs and the thread that empties dirty rings hold the lock. The main loop needs it for timers and
management, the migration thread for a sync and for the switchover. All of them ask here. The
throttle does not ask here. Its ticks and the wake-ups of vCPUs wait for the same holders in
guest/run_time.py.

Source: util/main-loop.c:os_host_main_loop_wait, migration/migration.c:migration_completion,
accel/kvm/kvm-all.c:kvm_dirty_ring_reaper_thread [7.2 to 11.1].
"""

from __future__ import annotations

from collections.abc import Callable

from gpusim.engine.clock import Priority
from gpusim.engine.state import MigrationState
from gpusim.units import NEVER_NS


class BigLock:
    """The big lock of one QEMU.

    Args:
        state: of the migration.
        settle: brings the guest's first writes, and with them the dirty rings, up to a time.

    Attributes:
        sync_until_ns: the end of the last sync that held the lock.
    """

    def __init__(self, state: MigrationState, settle: Callable[[int], None]) -> None:
        self._state, self._settle = state, settle
        self.sync_until_ns = 0
        self._main_loop_syncs = False  # a fallback sync, whose end nobody knows
        self._reap_timer = state.clock.timer(self._reap, priority=Priority.REAPER, freezes=True)

    def free_ns(self) -> int:
        """Return when a thread that asks now gets the lock. NEVER_NS: when a fallback sync ends."""
        now_ns, reaper = self._state.clock.now_ns, self._state.guest.faults.reaper
        if self._main_loop_syncs:
            return NEVER_NS
        if reaper is None or self.sync_until_ns > now_ns:
            return max(now_ns, self.sync_until_ns)
        self._settle(now_ns)
        return max(now_ns, now_ns + reaper.held_until_ns - self._state.clock.vm_ns(now_ns))

    def begin_sync(self, *, by_main_loop: bool) -> None:
        """Let a sync of the main loop or of the migration thread take the lock, which is free.

        The sync empties the rings, too.
        """
        self._main_loop_syncs = by_main_loop
        self._reap_timer.cancel()
        if (reaper := self._state.guest.faults.reaper) is not None:
            reaper.begin_sync()

    def end_sync(self, end_ns: int) -> None:
        """Let a sync release the lock at a time."""
        self.sync_until_ns, self._main_loop_syncs = end_ns, False
        if (reaper := self._state.guest.faults.reaper) is not None:
            reaper.end_sync(self._state.clock.vm_ns(end_ns))

    def follow_reaper(self) -> None:
        """Stop at the next reap if the throttle is on, because a reap delays its ticks.

        Without a throttle nobody needs to know before somebody asks for the lock.
        """
        clock, reaper = self._state.clock, self._state.guest.faults.reaper
        if reaper is not None and self._state.run_time.percent:
            self._reap_timer.arm(clock.now_ns + reaper.wakes_ns - clock.vm_ns(clock.now_ns))

    def _reap(self) -> None:
        self._settle(self._state.clock.now_ns)
        self.follow_reaper()
