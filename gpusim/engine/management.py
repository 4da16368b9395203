"""Management beside QEMU: the actions of a schedule, and a user's manager that polls and orders.

Management talks to QEMU's main loop, which answers only when it has the big lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

from gpusim.config.schedule import Action, parse_orders
from gpusim.engine.big_lock import BigLock
from gpusim.engine.clock import Priority, Timer
from gpusim.engine.recorder import Recorder
from gpusim.engine.records import SyncKind
from gpusim.engine.state import MigrationState
from gpusim.errors import ConfigError
from gpusim.qemu.rules import Shown
from gpusim.text import Message
from gpusim.units import NEVER_NS, NS_PER_MS, NS_PER_S

LEAST_SKIP_NS = 10 * NS_PER_S  # a shorter wait is simulated, such as that of a manager that polls


class Management:
    """The schedule and the manager of one migration.

    Args:
        state: of the migration.
        recorder: records each action.
        lock: QEMU's big lock, which the main loop needs.

    Attributes:
        cancelled_by: why it was cancelled, if it was.
        skipped_ns: time that was not simulated. Management's clock is ahead by it.
    """

    def __init__(self, state: MigrationState, recorder: Recorder, lock: BigLock) -> None:
        self._state, self._recorder, self._lock = state, recorder, lock
        self._start = state.scenario.start_postcopy
        self._is_in_postcopy = False
        self._is_held = False  # by the switch to post-copy
        self._at_sync = deque(a for a in state.scenario.actions if a.at_sync is not None)
        self._waiting: list[Callable[[], None]] = []  # until the main loop is free
        self._timers: list[Timer] = []
        self._done: list[Action] = []
        self.cancelled_by = Message("cancelled_by_schedule")
        self.skipped_ns = 0
        self._manager = state.scenario.manager() if state.scenario.manager else None
        self._poll_timer = self._make_timer(self._poll_in_time)
        self._next_poll_ns = NEVER_NS  # when the manager asked to poll

    @property
    def actions_not_done(self) -> list[Action]:
        """Actions of the schedule that have not been done."""
        return [a for a in self._state.scenario.actions if a not in self._done]

    @property
    def may_still_act(self) -> bool:
        """Whether an action or a poll is still to come."""
        return self.next_ns() < NEVER_NS or bool(self._at_sync or self._waiting)

    @property
    def waits(self) -> bool:
        """Whether the next action or poll is at a later time, and not at a sync."""
        is_later = self._state.clock.now_ns + LEAST_SKIP_NS < self.next_ns() < NEVER_NS
        return is_later and not (self._at_sync or self._waiting)

    def skip_waiting(self, most_ns: int) -> None:
        """Let the next action or poll come now, as if the time up to it had passed.

        Args:
            most_ns: at most this time passes. What is still later stays later.
        """
        gap_ns = min(self.next_ns() - self._state.clock.now_ns, most_ns)
        self.skipped_ns += gap_ns
        for timer in (*self._timers, self._poll_timer):
            if timer.at_ns is not None:
                timer.arm(timer.at_ns - gap_ns)
        if self._next_poll_ns < NEVER_NS:
            self._next_poll_ns -= gap_ns

    def start(self) -> None:
        """Set a timer for each action that the schedule has at a time."""
        for action in self._state.scenario.actions:
            if action.at_ns is not None:
                self._call_at(partial(self._do, action), action.at_ns)
        if self._start.at_ns is not None:
            self._call_at(self._start_postcopy, self._start.at_ns)

    def stop(self) -> None:
        """Do nothing from now on."""
        for timer in (*self._timers, self._poll_timer):
            timer.cancel()

    def next_ns(self) -> int:
        """Return when the next action or poll is due."""
        timers = (*self._timers, self._poll_timer)
        return min((t.at_ns for t in timers if t.at_ns is not None), default=NEVER_NS)

    def do_actions_of_sync(self, end_ns: int) -> None:
        """Do what the schedule has at the sync that ends."""
        count = self._state.accounting.dirty_sync_count
        while self._at_sync and (self._at_sync[0].at_sync or 0) <= count:
            self._call_at(partial(self._do, self._at_sync.popleft()), end_ns)
        start, percent = self._start, self._state.run_time.percent
        if count > (start.after_passes or NEVER_NS) or percent >= (
            start.at_throttle_percent or NEVER_NS
        ):
            self._call_at(self._start_postcopy, end_ns)

    def poll_after_sync(self, kind: SyncKind, end_ns: int) -> None:
        """Let the manager poll at the end of a sync for which QEMU sends MIGRATION_PASS.

        A manager polls at the end of the setup in any case, because the migration is then active.
        """
        if self._manager is None:
            return
        if self._state.accounting.counts(kind):
            self._call_at(partial(self._poll, "sync"), end_ns)
        elif kind == "setup":
            self._call_at(partial(self._poll, "time"), end_ns)

    def go_on_after_tick(self) -> None:
        """Do what waited until the main loop was free again."""
        for call in self._waiting:
            self._call_at(call, self._state.clock.now_ns)
        self._waiting.clear()

    def _call_at(self, call: Callable[[], None], at_ns: int) -> None:
        self._timers = [timer for timer in self._timers if timer.at_ns is not None]
        self._timers.append(self._make_timer(call))
        self._timers[-1].arm(at_ns)

    def _make_timer(self, call: Callable[[], None]) -> Timer:
        call_when_free = partial(self._call_when_free, call)
        return self._state.clock.timer(call_when_free, priority=Priority.MANAGEMENT, freezes=False)

    def _call_when_free(self, call: Callable[[], None]) -> None:
        """Call once the main loop is free."""
        if self._state.is_cancelled:
            return
        free_ns = NEVER_NS if self._is_held else self._lock.free_ns()
        if free_ns == NEVER_NS:
            self._waiting.append(call)
        elif free_ns > self._state.clock.now_ns:
            self._call_at(call, free_ns)
        else:
            call()

    def _do(self, action: Action) -> None:
        """Do one action."""
        clock = self._state.clock
        self._done.append(action)
        self._recorder.sample()
        if action.do == "set":
            self._set_parameters(action)
        elif self._is_in_postcopy:
            self._do_in_postcopy(action)
        elif action.do in ("cancel", "lose-link"):
            self._cancel(action)
        elif action.do == "pause" and clock.vm_runs:
            clock.stop_vm()
            self._recorder.record_event("vm_state_notify", running=0, reason="paused")
        elif action.do == "resume" and not clock.vm_runs:
            clock.start_vm()
            self._recorder.record_event("vm_state_notify", running=1, reason="running")
        elif action.do == "start-postcopy":
            self._start_postcopy()
        self._recorder.sample()

    def _cancel(self, action: Action) -> None:
        self._state.is_cancelled = True
        if action.do == "lose-link":
            self.cancelled_by = Message("link_lost")
            return
        self._recorder.record_event("qmp_enter_migrate_cancel")
        self._recorder.record_event("migrate_set_state", new_state="cancelling")

    def _do_in_postcopy(self, action: Action) -> None:
        """Lose the link or recover. QEMU refuses a cancel, and the VM is not at the source any more.

        Source: migration/migration.c:postcopy_pause, qmp_migrate (resume) [7.2 to 11.1].
        """
        if action.do == "lose-link" and not self._state.link_is_lost:
            self._state.link_is_lost = True
            self._recorder.record_event("migrate_set_state", new_state="postcopy-paused")
        elif action.do == "recover" and self._state.link_is_lost:
            self._recorder.record_event("migrate_set_state", new_state="postcopy-recover")
            self._call_at(self._recover, self._state.clock.now_ns + self._recovery_ns)

    def _recover(self) -> None:
        if self._state.link_is_lost:
            self._recorder.record_event("migrate_set_state", new_state="postcopy-active")
        self._state.link_is_lost = False

    @property
    def _recovery_ns(self) -> int:
        """The time in which the target sends back which pages it has.

        Source: migration/ram.c:ramblock_recv_bitmap_send.
        """
        scenario = self._state.scenario
        return round(scenario.layout.pages / 8 / scenario.link.bandwidth * NS_PER_S)

    def begin_postcopy(self) -> None:
        """Let nobody poll any more. The schedule waits until the switch is over.

        Source: migration/migration.c:postcopy_start, which holds the big lock [7.2 to 11.1].
        """
        self._is_in_postcopy = self._is_held = True
        self._poll_timer.cancel()
        self._at_sync.clear()

    def go_on_in_postcopy(self) -> None:
        """Do what waited until the switch was over, and follow the schedule again."""
        self._is_held = False
        self.go_on_after_tick()

    def _start_postcopy(self) -> None:
        """Source: migration/migration.c:qmp_migrate_start_postcopy, which only sets a flag."""
        if not self._state.starts_postcopy:
            self._recorder.record_event("qmp_enter_migrate_start_postcopy")
        self._state.starts_postcopy = True

    def _set_parameters(self, action: Action) -> None:
        state = self._state
        state.settings = replace(state.settings, **action.settings)
        state.parameters = replace(state.parameters, **action.changes)
        state.throttle.parameters = state.parameters
        if "max_bandwidth" in action.changes:
            state.sender.limit_bandwidth(state.parameters.max_bandwidth)
        self._recorder.record_event("qmp_enter_migrate_set_parameters", **action.settings)

    def _poll_in_time(self) -> None:
        """Poll at the time that the manager asked for, unless an earlier poll changed that time."""
        if self._next_poll_ns <= self._state.clock.now_ns:
            self._poll("time")

    def _poll(self, why: Literal["sync", "time"]) -> None:
        """Show the manager what QEMU shows, and do what it orders."""
        assert self._manager is not None
        state, now_ns = self._state, self._state.clock.now_ns
        orders = self._manager.look(self._show(why))
        try:
            for action in parse_orders(orders, now_ns + self.skipped_ns, state.settings):
                self._do(action)
        except ConfigError as error:
            raise self._manager.refuse_orders(str(error)) from None
        if orders.do == "cancel":
            data = {"manager": self._manager.name, "why": orders.why}
            self.cancelled_by = Message("cancelled_by_manager", data)
        self._poll_timer.cancel()
        self._next_poll_ns = NEVER_NS
        if orders.again_ns is not None and not state.is_cancelled:
            again_ns = orders.again_ns - self.skipped_ns
            self._next_poll_ns = max(again_ns, now_ns + NS_PER_MS)
            self._poll_timer.arm(self._next_poll_ns)

    def _show(self, why: Literal["sync", "time"]) -> Shown:
        """Return what query-migrate shows now."""
        state = self._state
        return Shown(
            why=why,
            time_ns=state.clock.now_ns + self.skipped_ns,
            dirty_sync_count=state.accounting.dirty_sync_count,
            remaining_bytes=state.remaining_bytes,
            total_bytes=state.vm_bytes,
            transferred_bytes=state.sent.transferred_bytes,
            dirty_pages_rate=state.accounting.dirty_pages_rate,
            bandwidth_bytes_per_s=state.sender.bandwidth,
            cpu_throttle_percentage=state.run_time.percent,
            expected_downtime_ms=state.expected_downtime.ms(
                state.parameters, state.switchover_bandwidth, state.accounting
            ),
            downtime_limit_ms=state.parameters.downtime_limit_ms,
            vm_runs=state.clock.vm_runs,
        )
