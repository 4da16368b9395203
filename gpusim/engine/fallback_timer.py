"""The fallback sync's timer on the clock, and the sync that a tick forces, step by step.

The rule (gpusim.qemu.sync_timer) says if a tick syncs. The tick runs in the main loop. It starts
the sync, reads the log, and merges it when the sender's burst has ended.

Source: migration/cpu-throttle.c:cpu_throttle_dirty_sync_timer_tick [9.2 to 10.1].
"""

from __future__ import annotations

from collections.abc import Callable

from gpusim.engine.clock import Priority
from gpusim.engine.recorder import Recorder
from gpusim.engine.state import MigrationState
from gpusim.engine.syncs import DirtySync, Syncs
from gpusim.stream import Purpose, Stream
from gpusim.units import NEVER_NS, NS_PER_MS


class FallbackTimer:
    """The fallback timer of one migration.

    Args:
        state: of the migration.
        recorder: records the decision to sync.
        syncs: does the parts of a sync.
        after_tick: is called when a tick has ended.

    Attributes:
        rule: if a tick syncs, and when the next tick comes.
        sync: the fallback sync in progress. The main loop is busy with it.
        bursts_to_wait: the sync gets the bitmap's mutex when so many bursts have ended, or when the
            sender sleeps after one. 0: no sync waits for it.
    """

    def __init__(
        self,
        state: MigrationState,
        recorder: Recorder,
        syncs: Syncs,
        after_tick: Callable[[], None],
    ) -> None:
        self._state, self._recorder, self._syncs = state, recorder, syncs
        self._after_tick = after_tick
        interval_ns = state.parameters.fallback_sync_interval_ns
        self.rule = state.scenario.rules.sync_timer(interval_ns or 0, state.process.sync_timer)
        state.process.sync_timer = self.rule.state
        self._exists = interval_ns is not None
        self._has_stopped = False  # with it the throttle: cpu_throttle_stop
        self._late_ns = 0  # how late the next tick comes
        self._timer = state.clock.timer(self._tick, priority=Priority.SYNC_TIMER, freezes=True)
        self.sync: DirtySync | None = None
        self.bursts_to_wait = 0
        self._mutex = Stream(state.scenario.seed, 0, Purpose.MUTEX_WINS)
        self._step: Callable[[], None] = self._read
        self._next_step = state.clock.timer(
            self._run_step, priority=Priority.SYNC_TIMER, freezes=False
        )

    def start(self) -> None:
        """Start with the migration. A timer that an earlier migration left armed goes on."""
        if not self._exists:
            return
        left_ns = self._state.process.sync_timer_left_ns
        if left_ns is not None:
            self._timer.arm(left_ns)
        if not (self.rule.starts_with_period or self.rule.starts_after_setup):
            self._arm_first_tick(0)

    def after_setup(self, now_ns: int) -> None:
        """Start after the setup's sync, if the rule says so."""
        if self._exists and self.rule.starts_after_setup:
            self._arm_first_tick(now_ns)

    def after_period(self, now_ns: int) -> None:
        """Start at the first closed period, if the rule says so."""
        if self._exists and self.rule.starts_with_period:
            self._arm_first_tick(now_ns)

    def stop(self) -> None:
        """Disarm the timer."""
        self._has_stopped = True
        self.rule.stop()
        self._timer.cancel()

    def cancel(self) -> None:
        """Stop because the migration is cancelled, and leave a timer that is still armed behind.

        Some versions stop without the big lock, so a tick in progress arms the timer again.
        """
        if not self.rule.stops_under_lock:
            self.stop()
        self.wait_until_idle()
        if self.rule.stops_under_lock:
            self.stop()
        self._leave_timer()

    def fail(self) -> None:
        """Stop because the migration fails, and leave a timer that is still armed behind.

        The run has ended, so the sync of a tick in progress has been cut short. The tick ends all
        the same, and without the big lock at the stop it arms the timer again.
        """
        self.stop()
        if self.sync is not None and not self.rule.stops_under_lock:
            self._arm_after_tick()
        self._leave_timer()

    def _leave_timer(self) -> None:
        at_ns = self._timer.at_ns
        left_ns = None if at_ns is None else at_ns - self._state.clock.now_ns
        self._state.process.sync_timer_left_ns = left_ns

    def next_sync_ns(self) -> int:
        """Return the first time at which the timer may sync or go on with a sync.

        A tick that would not sync now will not sync later either: a sync before the tick only
        changes the count. So the sender need not stop for such a tick. With a user's rule, or if the
        thread that empties dirty rings may delay the tick, the sender stops.
        """
        tick_ns = self._timer.at_ns
        if self.sync is not None:
            return NEVER_NS if self._next_step.at_ns is None else self._next_step.at_ns
        if tick_ns is None or not self._state.clock.vm_runs:
            return NEVER_NS
        if not self._foresees_ticks:
            return tick_ns
        if self._state.accounting.dirty_sync_count < self.rule.syncs_from_count:
            return NEVER_NS
        return tick_ns if self._wants_sync(tick_ns) else self._tick_after_ns(tick_ns)

    @property
    def _foresees_ticks(self) -> bool:
        state = self._state
        return state.scenario.rules.foresees_ticks and state.guest.faults.reaper is None

    @property
    def waits_for_burst(self) -> bool:
        """Whether a sync waits until the sender's burst ends."""
        return self.sync is not None and self.sync.waits_for_burst

    def go_on_after_bursts(self, bursts: int) -> None:
        """Merge the log that waits for the sender's burst, if so many bursts that ended suffice."""
        self.bursts_to_wait = max(0, self.bursts_to_wait - bursts)
        sender = self._state.sender
        if not sender.in_burst and (sender.sleeps or not self.bursts_to_wait):
            self._merge()

    def wait_until_idle(self, limit_ns: int = NEVER_NS) -> None:
        """Let the migration thread wait for the big lock until a sync in progress has ended.

        Args:
            limit_ns: wait no longer, because the run ends then.
        """
        clock = self._state.clock
        from_ns = clock.now_ns
        while True:
            if self.waits_for_burst:
                self._merge()
                continue
            at_ns = self._syncs.lock.free_ns() if self.sync is None else self._next_step.at_ns
            assert at_ns is not None
            if self.sync is None and at_ns <= clock.now_ns:
                break
            if at_ns > limit_ns:
                clock.run_to(max(from_ns, limit_ns))
                break
            clock.run_to(at_ns)
        self._syncs.stall_sender(from_ns, clock.now_ns)

    def _arm_first_tick(self, now_ns: int) -> None:
        if self._state.parameters.auto_converge and self.rule.start():
            self._arm_late(self._tick_after_ns(now_ns))

    def _tick(self) -> None:
        """Start a sync if it is time for one."""
        now_ns = self._state.clock.now_ns
        free_ns = self._syncs.lock.free_ns()
        if free_ns > now_ns:
            self._late_ns += free_ns - now_ns
            self._timer.arm(free_ns)
            return
        if self.rule.needs_auto_converge and not self._state.parameters.auto_converge:
            return
        if not self._wants_sync(now_ns):
            self._end_tick()
            return
        self._recorder.record_event("cpu_throttle_dirty_sync")
        due_ns = self._state.clock.vm_ns(now_ns) - self._late_ns
        self.sync = self._syncs.begin("fallback", due_ns=due_ns)
        self._run_step_at(self._syncs.reads_at_ns(self.sync), self._read)

    def _run_step_at(self, at_ns: int, step: Callable[[], None]) -> None:
        """Run the next step of the sync at a time, or at once if it is due."""
        self._step = step
        if at_ns > self._state.clock.now_ns:
            self._next_step.arm(at_ns)
        else:
            step()

    def _run_step(self) -> None:
        self._step()

    def _read(self) -> None:
        """Read the log. The sender goes on, up to a remote clear."""
        assert self.sync is not None
        self._syncs.read(self.sync)
        now_ns, tracking = self._state.clock.now_ns, self._state.scenario.tracking
        self._state.sender.hold_slots(now_ns, now_ns + tracking.slots_lock_ns)
        self._run_step_at(now_ns + self.sync.protect_ns + tracking.log_sync_ns, self._merge)

    def _merge(self) -> None:
        """Merge the log that was read, unless the sender holds the bitmap's mutex.

        Only the merge stalls the sender. It sends while the log is read and while vCPUs answer.
        """
        state, sync = self._state, self.sync
        assert sync is not None
        # A thread that is to end sends no more, so a cancelled migration holds no mutex.
        in_burst = state.sender.in_burst and not state.is_cancelled
        sync.waits_for_burst = in_burst and state.scenario.tracking.waits_for_burst
        if sync.waits_for_burst:
            wins = state.scenario.tracking.mutex_wins
            self.bursts_to_wait = self._mutex.geometric(wins)
            return
        self.bursts_to_wait = 0
        now_ns = state.clock.now_ns
        self._syncs.merge(sync)
        merged_ns = now_ns + state.scenario.tracking.merge_ns
        self._syncs.stall_sender(now_ns, merged_ns)
        self._run_step_at(self._syncs.ends_at_ns(merged_ns), self._end_sync)

    def _end_sync(self) -> None:
        assert self.sync is not None
        self._syncs.end(self.sync, self._state.clock.now_ns)
        self.sync = None
        self._end_tick()

    def _end_tick(self) -> None:
        self._arm_after_tick()
        self._after_tick()

    def _arm_after_tick(self) -> None:
        self.rule.percent = 0 if self._has_stopped else self._state.run_time.percent
        self.rule.after_tick(self._state.accounting.dirty_sync_count)
        self._arm_late(self._tick_after_ns(self._state.clock.now_ns))

    def _arm_late(self, due_ns: int) -> None:
        """Arm the timer for a tick that is due at a time, and comes as late as the main loop."""
        self._late_ns = self._state.sync_timer_latency.draw_ns()
        self._timer.arm(due_ns + self._late_ns)

    def _wants_sync(self, at_ns: int) -> bool:
        """Return whether a tick at a time syncs, if no other sync comes before."""
        accounting = self._state.accounting
        period_ns = accounting.period_ms(at_ns // NS_PER_MS) * NS_PER_MS
        return self.rule.wants_sync(accounting.dirty_sync_count, period_ns)

    def _tick_after_ns(self, tick_ns: int) -> int:
        """Return when the tick after one at `tick_ns` is due.

        The main loop re-arms the timer once a sync lets it, from the whole millisecond.
        """
        woken_ns = max(tick_ns, self._syncs.lock.sync_until_ns)
        since_ms_ns = self._state.clock.vm_ns(woken_ns) % NS_PER_MS
        return woken_ns - since_ms_ns + self.rule.tick_ns
