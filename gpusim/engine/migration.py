"""One migration as a story on one clock: setup, pass, look, throttle, switch over.

Only here do guest, pages, QEMU's rules and the sender meet. Nothing is drawn between two looks, and
the run jumps from event to event: its cost follows decisions, not seconds.
"""

from __future__ import annotations

import bisect
import math
import resource
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from gpusim.config.backend import Backend
from gpusim.config.scenario import Scenario
from gpusim.config.schedule import Action, parse_orders
from gpusim.engine.clock import Clock, Timer
from gpusim.engine.records import (
    Event,
    Observer,
    Progress,
    Result,
    Status,
    Summary,
    SyncKind,
    SyncRecord,
    TimelineSample,
    Verdict,
)
from gpusim.engine.stall import STUCK_NS, STUCK_PASSES, Stuck
from gpusim.errors import ConfigError
from gpusim.guest.guest import Guest
from gpusim.guest.run_time import RunTime, TickedRunTime
from gpusim.layout import IntArray
from gpusim.pages.pages import Pages
from gpusim.qemu.process import Process
from gpusim.qemu.rules import Orders, Shown, checked_tick_ns
from gpusim.qemu.switchover import threshold_size
from gpusim.qemu.sync import Period, Sync, SyncAccounting
from gpusim.sender.link import PS_PER_S
from gpusim.sender.sender import Sender
from gpusim.units import NEVER_NS, NS_PER_MS, NS_PER_S, format_bytes
from gpusim.version import __version__

# Of timers due together the sync comes first, and what management does comes last.
SYNC_TIMER, THROTTLE_TICK, MANAGEMENT = 0, 1, 2
SAMPLE_EVERY_NS = NS_PER_S


@dataclass(frozen=True, kw_only=True)
class _Merged:
    """A sync whose bits are merged and which has still to be accounted for, when it ends."""

    kind: SyncKind
    start_ns: int
    protect_ns: int
    newly_dirty: int
    pending: int
    cursor_page: int
    pass_number: int


class Migration:
    """The state of one run; `simulate` makes it, runs it and gives its memory back.

    The guest, and the throttle with it, live by the VM's own time, which stands still while the VM is
    paused; everything else by the host's.
    """

    def __init__(
        self,
        scenario: Scenario,
        backend: Backend,
        observe: Observer | None,
        ticked: bool,
        process: Process | None = None,
    ) -> None:
        self.scenario, self.backend = scenario, backend
        self.observe, self.ticked = observe, ticked
        self.process = process or Process()
        self.started = time.monotonic_ns()
        rules, parameters = scenario.rules, scenario.parameters
        self.parameters, self.set_to = parameters, scenario.migration
        self.clock = Clock()
        self.run_time = self._ticked_run_time() if ticked else RunTime()
        self.run_time.ignores_throttle = self.process.throttle_thread_scheduled
        self.guest = Guest(
            scenario.layout, scenario.writers, self.run_time, scenario.tracking.protection
        )
        self.pages = Pages(
            scenario.layout,
            zero_first=scenario.zero_first,
            zero_last=scenario.zero_last,
            lazy=scenario.tracking.lazy,
            initially_set=scenario.tracking.initially_set,
            seed=scenario.seed,
            backend=backend.name,
            threads=backend.threads,
        )
        self.accounting = SyncAccounting(scenario.page_bytes, scenario.layout.pages)
        self.throttle = rules.throttle(parameters)
        self.switchover = rules.switchover()
        interval_ns = parameters.fallback_sync_interval_ns or 0  # 0: there is no timer
        self.sync_timer_rule = rules.sync_timer(interval_ns, self.process.sync_timer)
        self.process.sync_timer = self.sync_timer_rule.state
        self.sender = Sender(
            scenario.link,
            max_bandwidth=parameters.max_bandwidth,
            page_bytes=scenario.page_bytes,
            counts_flushed_bytes=rules.counts_flushed_bytes,
            threshold=lambda bandwidth: threshold_size(bandwidth, self.parameters),
            acts=self.switchover.acts,
        )
        self.changes_ns = deque(at_ns for at_ns, _ in scenario.link.changes)
        self.sync_timer: Timer | None = None
        self.bql_free_ns = 0  # a sync holds the big lock until then
        # A tick of the fallback timer that syncs: its log is read, it waits for the mutex, it ends.
        self.tick_from_ns: int | None = None
        self.merge = self.clock.timer(self._merge_tick, priority=SYNC_TIMER, freezes=False)
        self.waits_for_burst = False
        self.tick_merged: _Merged | None = None
        self.tick_end = self.clock.timer(self._end_tick, priority=SYNC_TIMER, freezes=False)
        self.stalled_to_ns = 0  # by syncs
        self.actions = deque(a for a in scenario.actions if a.at_sync is not None)
        self.waiting_deeds: list[Callable[[], None]] = []  # for a tick to end
        self.deed_timers: list[Timer] = []
        self.manager = scenario.manager() if scenario.manager else None
        self.manager_timer = self._deed_timer(self._manage_in_time)
        self.manager_again_ns = NEVER_NS  # when it wants to look next
        self.dirty_pages_rate = 0  # of the last period
        self.cancelled, self.cancelled_why = False, ""
        self.done: list[Action] = []
        self.last_look_ns = 0
        self.stopped_ns = NEVER_NS  # when the VM stopped
        self.cleared_at: IntArray = np.full(scenario.layout.chunks, -1, np.int64)
        self.syncs: list[SyncRecord] = []
        self.events: list[Event] = []
        self.samples: list[TimelineSample] = []
        self.throttle_steps: list[tuple[int, int]] = []  # since when which percent
        self.sync_stall_ns = self.main_loop_stall_ns = self.longest_main_loop_stall_ns = 0
        self.big_lock_s = 0.0  # that vCPUs stood still for it
        self.stuck = Stuck(scenario.layout.pages, scenario.stall_after_ns)

    def run(self) -> Result:
        """The story."""
        self._setup()
        limit_ns = self.scenario.simulated_limit_ns
        while True:
            to_ns = min(
                self._next_look_ns(), self._next_change_ns(), self._next_action_ns(), limit_ns
            )
            advanced = self.sender.advance(to_ns, self.pages, to_burst_end=self.waits_for_burst)
            for chunks, times_ns in advanced.clears:
                self.cleared_at[chunks] = times_ns
            self.clock.run_to(advanced.at_ns)
            if self.waits_for_burst and not self.sender.in_burst:
                self._merge_tick()
            self._sample_if_due()
            ready = advanced.turn and not self.cancelled and self._turn()
            if self.cancelled:
                return self._cancel()
            if ready:
                return self._complete()
            if self.stuck.given_up:
                return self._stop("ok", "not_converged", self._stuck_reason())
            if self.clock.now_ns >= limit_ns:
                return self._stop("ok", "time_limit", self._limit_reason())
            if self._wall_limit_reached():
                return self._stop(
                    "incomplete", None, "the wall-clock limit was reached: no verdict"
                )

    def _setup(self) -> None:
        """Tracking starts, the sync timer is armed, the first sync finds every page dirty."""
        self._event("migrate_set_state", new_state="setup")
        if self.parameters.fallback_sync_interval_ns is not None:
            self.sync_timer = self.clock.timer(
                self._sync_timer_tick, priority=SYNC_TIMER, freezes=True
            )
            if self.process.sync_timer_left_ns is not None:
                self.sync_timer.arm(self.process.sync_timer_left_ns)
            if not self.sync_timer_rule.starts_with_period:
                self._start_sync_timer(0)
        for action in self.scenario.actions:
            if action.at_ns is not None:
                self._schedule(partial(self._act, action), action.at_ns)
        self.pages.start()
        self._sync("setup")
        self._event("migrate_set_state", at_ns=self.bql_free_ns, new_state="active")

    def _turn(self) -> bool:
        """A turn of the main loop at which the estimate is low. True: ready to switch over."""
        page_bytes, threshold_bytes = self.scenario.page_bytes, self.sender.threshold_bytes
        pending = self.pages.pending * page_bytes
        self._wait_for_tick()
        if self.cancelled or self.clock.now_ns >= self.scenario.simulated_limit_ns:
            return False
        if self.switchover.wants_sync(pending, threshold_bytes):
            self._sync("exact")
            pending = self.pages.pending * page_bytes
            self._event("migrate_pending_exact", at_ns=self.bql_free_ns, size=pending)
        self.sender.iterate()
        if not self.switchover.ready(pending, threshold_bytes):
            return False
        at_ns = max(self.clock.now_ns, self.bql_free_ns)
        self._event("migration_thread_low_pending", at_ns=at_ns, pending=pending)
        return True

    def _start_sync_timer(self, now_ns: int) -> None:
        """Start the fallback timer, as its rule has it."""
        if self.sync_timer is None or not self.parameters.auto_converge:
            return
        if self.sync_timer_rule.start():
            self.sync_timer.arm(now_ns + checked_tick_ns(self.sync_timer_rule))

    def _sync_timer_tick(self) -> None:
        """The fallback timer fires in the main loop, and reads the log if it is time for a sync."""
        rule = self.sync_timer_rule
        assert self.sync_timer is not None
        if self.bql_free_ns > self.clock.now_ns:  # the migration thread's sync holds the big lock
            self.sync_timer.arm(self.bql_free_ns)
            return
        if rule.needs_auto_converge and not self.parameters.auto_converge:
            return
        self.tick_from_ns = self.clock.now_ns
        if not self._tick_wants_sync(self.clock.now_ns):
            self._end_tick()
            return
        self._event("cpu_throttle_dirty_sync")
        self._begin_sync()
        self._at_or_now(self.merge, self.clock.now_ns + self.scenario.tracking.log_sync_ns)

    def _merge_tick(self) -> None:
        """The log is read: merge it, once the sender lets go of the bitmap's mutex.

        Only the merging stalls the sender: it goes on while the log is read, and while that waits for
        vCPUs.
        """
        assert self.tick_from_ns is not None
        holds = self.sender.in_burst and not self.cancelled  # a thread that is to end sends no more
        self.waits_for_burst = holds and self.scenario.tracking.waits_for_burst
        if self.waits_for_burst:
            return
        now_ns = self.clock.now_ns
        self.tick_merged = self._merge("fallback", self.tick_from_ns)
        merged_ns = now_ns + self.scenario.tracking.merge_ns
        self._stall_sender(now_ns, merged_ns)
        end_ns = merged_ns + self.tick_merged.protect_ns
        if self.scenario.tracking.waits_for_vcpus:
            end_ns = max(end_ns, self._wakes_at_ns(self.tick_from_ns))
        self._at_or_now(self.tick_end, end_ns)

    def _end_tick(self) -> None:
        """A tick ends: account for the sync it forced, and arm the next one."""
        assert self.sync_timer is not None and self.tick_from_ns is not None
        now_ns = self.clock.now_ns
        if self.tick_merged is not None:
            self.bql_free_ns = now_ns
            self._end_sync(self.tick_merged, now_ns)
        self.tick_from_ns = self.tick_merged = None
        self.sync_timer_rule.after_tick(self.accounting.dirty_sync_count)
        self.sync_timer.arm(self._tick_after(now_ns))
        for deed in self.waiting_deeds:
            self._schedule(deed, now_ns)
        self.waiting_deeds.clear()

    def _at_or_now(self, timer: Timer, at_ns: int) -> None:
        """Arm a timer, or fire it at once if it is due."""
        if at_ns > self.clock.now_ns:
            timer.arm(at_ns)
        else:
            timer.fire()

    def _wait_for_tick(self) -> None:
        """The migration thread wants the big lock, which a tick that syncs holds until it ends."""
        from_ns = self.clock.now_ns
        while self.tick_from_ns is not None:
            if self.waits_for_burst:
                self._merge_tick()
                continue
            step = self.merge if self.merge.at_ns is not None else self.tick_end
            assert step.at_ns is not None
            self.clock.run_to(step.at_ns)
        self._stall_sender(from_ns, self.clock.now_ns)

    def _stall_sender(self, from_ns: int, until_ns: int) -> None:
        """Hold the sender up, which may be held up for a part of that already."""
        if until_ns > from_ns:
            self.sender.stall(from_ns, until_ns)
            counted_to_ns = min(until_ns, self.scenario.simulated_limit_ns)
            self.sync_stall_ns += max(0, counted_to_ns - max(from_ns, self.stalled_to_ns))
            self.stalled_to_ns = max(self.stalled_to_ns, counted_to_ns)

    def _tick_wants_sync(self, at_ns: int) -> bool:
        """Whether a tick then forces a sync, if none comes before."""
        period_ns = self.accounting.period_ms(at_ns // NS_PER_MS) * NS_PER_MS
        return self.sync_timer_rule.wants_sync(self.accounting.dirty_sync_count, period_ns)

    def _next_look_ns(self) -> int:
        """The first time at which a timer may look, unless a turn does before.

        A tick that would not look now will not look later either: a sync before it only changes the
        count. So the sender need not stop for it, and such ticks cost next to nothing.
        """
        if self.ticked:
            next_ns = self.clock.next_ns()
            return NEVER_NS if next_ns is None else next_ns
        if self.tick_from_ns is not None:
            steps_ns = (self.merge.at_ns, self.tick_end.at_ns)
            return min((at_ns for at_ns in steps_ns if at_ns is not None), default=NEVER_NS)
        count, rule = self.accounting.dirty_sync_count, self.sync_timer_rule
        if self.sync_timer is None or self.sync_timer.at_ns is None or not self.clock.vm_runs:
            return NEVER_NS
        if not self.scenario.rules.foresees_ticks:
            return self.sync_timer.at_ns
        if count < rule.syncs_from_count:
            return NEVER_NS
        if self._tick_wants_sync(self.sync_timer.at_ns):
            return self.sync_timer.at_ns
        return self._tick_after(self.sync_timer.at_ns)

    def _next_change_ns(self) -> int:
        """When the wire changes next; the bend it makes is a sample of the timeline."""
        changes = self.changes_ns
        while changes and changes[0] <= self.clock.now_ns:
            changes.popleft()
            self._sample_state()
        return changes[0] if changes else NEVER_NS

    def _tick_after(self, tick_ns: int) -> int:
        """When the sync timer fires after a tick: it is re-armed when the main loop has come to it."""
        woken_ns = max(tick_ns, self.bql_free_ns)
        return (
            woken_ns
            - self.clock.vm_ns(woken_ns) % NS_PER_MS
            + checked_tick_ns(self.sync_timer_rule)
        )

    def _schedule(self, deed: Callable[[], None], at_ns: int) -> None:
        """Do something at a time."""
        self.deed_timers = [timer for timer in self.deed_timers if timer.at_ns is not None]
        self.deed_timers.append(self._deed_timer(deed))
        self.deed_timers[-1].arm(at_ns)

    def _deed_timer(self, deed: Callable[[], None]) -> Timer:
        return self.clock.timer(partial(self._when_free, deed), priority=MANAGEMENT, freezes=False)

    def _next_action_ns(self) -> int:
        timers = (*self.deed_timers, self.manager_timer)
        return min((t.at_ns for t in timers if t.at_ns is not None), default=NEVER_NS)

    def _when_free(self, deed: Callable[[], None]) -> None:
        """Do something of management's once the main loop, which a sync keeps busy, comes to it."""
        if self.cancelled:
            return
        if self.tick_from_ns is not None:
            self.waiting_deeds.append(deed)
        elif self.bql_free_ns > self.clock.now_ns:
            self._schedule(deed, self.bql_free_ns)
        else:
            deed()

    def _act(self, action: Action) -> None:
        """Do what management asks for."""
        self.done.append(action)
        self._sample_state()
        if action.do == "set":
            self.set_to = replace(self.set_to, **action.settings)
            self.parameters = replace(self.parameters, **action.changes)
            self.throttle.parameters = self.parameters
            if "max_bandwidth" in action.changes:
                self.sender.limit_bandwidth(self.parameters.max_bandwidth)
            self._event("qmp_enter_migrate_set_parameters", **action.settings)
        elif action.do == "cancel":
            self.cancelled = True
            self._event("qmp_enter_migrate_cancel")
            self._event("migrate_set_state", new_state="cancelling")
        elif (action.do == "resume") != self.clock.vm_runs:
            (self.clock.start_vm if action.do == "resume" else self.clock.stop_vm)()
            running = int(self.clock.vm_runs)
            self._event(
                "vm_state_notify", running=running, reason="running" if running else "paused"
            )
        self._sample_state()

    def _manage_in_time(self) -> None:
        """The manager's time has come, unless a sync's look that came first has set another."""
        if self.manager_again_ns <= self.clock.now_ns:
            self._manage("time")

    def _manage(self, why: Literal["sync", "time"]) -> None:
        """Let the manager look, and do what it orders."""
        assert self.manager is not None
        now_ns, page_bytes = self.clock.now_ns, self.scenario.page_bytes
        orders = self.manager.look(
            Shown(
                why=why,
                time_ns=now_ns,
                dirty_sync_count=self.accounting.dirty_sync_count,
                remaining_bytes=self.pages.pending * page_bytes,
                total_bytes=self.scenario.layout.pages * page_bytes,
                transferred_bytes=self.sender.counters.transferred_bytes,
                dirty_pages_rate=self.dirty_pages_rate,
                bandwidth_bytes_per_s=self.sender.bandwidth,
                cpu_throttle_percentage=self.run_time.percent,
                downtime_limit_ms=self.parameters.downtime_limit_ms,
                vm_runs=self.clock.vm_runs,
            )
        )
        name = type(self.manager).__name__
        if not isinstance(orders, Orders):
            raise ValueError(f"{name}.look answered {orders!r}: must be Orders")
        try:
            for action in parse_orders(orders, now_ns, self.set_to):
                self._act(action)
        except ConfigError as error:
            raise ValueError(f"{name} ordered {error}") from None
        if orders.do == "cancel":
            self.cancelled_why = f" by {name}: {orders.why}" if orders.why else f" by {name}"
        self.manager_timer.cancel()
        self.manager_again_ns = NEVER_NS
        if orders.again_ns is not None and not self.cancelled:
            if not isinstance(orders.again_ns, int) or orders.again_ns <= now_ns:
                again = f"again_ns = {orders.again_ns!r} at {now_ns} ns"
                raise ValueError(f"{name} ordered {again}: must be a whole number, and later")
            self.manager_again_ns = max(orders.again_ns, now_ns + NS_PER_MS)
            self.manager_timer.arm(self.manager_again_ns)

    def _look(self) -> int:
        """Draw what the guest has written since the last look; pages newly dirty."""
        since_ns, now_ns = self.last_look_ns, self.clock.now_ns
        self.last_look_ns = now_ns
        vm_ns = self.clock.vm_ns
        self._settle(now_ns)
        if not self.scenario.tracking.lazy:
            return self.pages.sync(self.guest.writes(vm_ns(since_ns), vm_ns(now_ns)))
        cleared = self.cleared_at >= 0
        split_ns = np.where(cleared, np.minimum(self.cleared_at, now_ns), since_ns)
        split_ns = self.clock.vm_times_ns(split_ns)
        self.cleared_at[:] = -1
        return self.pages.sync(
            self.guest.writes(split_ns, vm_ns(now_ns)),
            before_clear=self.guest.writes(vm_ns(since_ns), split_ns),
        )

    def _settle(self, now_ns: int) -> None:
        """Let the guest know when its chunks were protected anew, for its first writes to them."""
        self.guest.settle(self.clock.vm_ns(now_ns), self.clock.vm_times_ns(self.cleared_at))

    def _wakes_at_ns(self, t_ns: int) -> int:
        """When every vCPU that the throttle has put to sleep has answered; a paused one does at once."""
        if not self.clock.vm_runs:
            return t_ns
        sleeps_ns = self.scenario.tracking.recorded_sleeps_ns
        if sleeps_ns and t_ns < sleeps_ns[-1][1]:
            place = bisect.bisect_right(sleeps_ns, (t_ns, NEVER_NS)) - 1
            return max(t_ns, sleeps_ns[place][1]) if place >= 0 else t_ns
        vm_ns = self.clock.vm_ns(t_ns)
        return t_ns + self.run_time.wakes_at_ns(vm_ns) - vm_ns

    def _sync(self, kind: SyncKind) -> None:
        """One sync of the migration thread's own, which waits for all of it, under the big lock."""
        scenario, start_ns = self.scenario, self.clock.now_ns
        self._begin_sync()
        merged = self._merge(kind, start_ns)
        end_ns = start_ns + scenario.tracking.log_sync_ns + merged.protect_ns
        end_ns += scenario.tracking.merge_ns
        if scenario.tracking.waits_for_vcpus and kind != "final":
            end_ns = max(end_ns, self._wakes_at_ns(start_ns))
        if kind == "final":
            self.sender.stall(start_ns, end_ns)  # that is downtime
        else:
            self._stall_sender(start_ns, end_ns)
        self.bql_free_ns = end_ns
        self._end_sync(merged, end_ns)

    def _begin_sync(self) -> None:
        self.accounting.begin(self.clock.now_ns // NS_PER_MS)
        self._event("migration_bitmap_sync_start")

    def _merge(self, kind: SyncKind, start_ns: int) -> _Merged:
        """Bring what was written into the bitmap."""
        self._sample_state()
        written = self.guest.faults.count  # each page that was is protected, and faults but once
        newly_dirty = 0 if kind == "setup" else self._look()  # at the setup all is dirty
        written = self.guest.faults.count - written
        protect_ns = round(written * self.scenario.tracking.sync_protect_ns)
        return _Merged(
            protect_ns=self.scenario.tracking.start_ns if kind == "setup" else protect_ns,
            kind=kind,
            start_ns=start_ns,
            newly_dirty=newly_dirty,
            pending=self.pages.pending,
            cursor_page=self.pages.cursor_page,
            pass_number=self.pages.wraps + 1,
        )

    def _end_sync(self, merged: _Merged, end_ns: int) -> None:
        """A sync ends: account for it, and decide about the throttle."""
        accounting, sender = self.accounting, self.sender
        shown = accounting.num_dirty_pages_period + merged.newly_dirty
        period = accounting.end(
            end_ns // NS_PER_MS, merged.newly_dirty, sender.flushed_bytes, merged.pending
        )
        self._event("migration_bitmap_sync_end", at_ns=end_ns, dirty_pages=shown)
        self._decide(merged, period, end_ns)
        self.syncs.append(
            SyncRecord(
                dirty_sync_count=accounting.dirty_sync_count,
                kind=merged.kind,
                time_s=merged.start_ns / NS_PER_S,
                duration_ms=(end_ns - merged.start_ns) / NS_PER_MS,
                newly_dirty_pages=merged.newly_dirty,
                remaining_bytes=merged.pending * self.scenario.page_bytes,
                transferred_bytes=sender.flushed_bytes,
                threshold_bytes=sender.threshold_bytes,
                bandwidth_bytes_per_s=sender.bandwidth,
                cursor_page=merged.cursor_page,
                pass_number=merged.pass_number,
                cpu_throttle_percentage=self.run_time.percent,
                dirty_rate_high_cnt=self.throttle.dirty_rate_high_cnt,
                period_ms=period.length_ms if period else None,
                bytes_dirty_period=period.dirty_bytes if period else None,
                bytes_xfer_period=period.xfer_bytes if period else None,
                dirty_pages_rate=period.dirty_pages_rate if period else None,
            )
        )
        self._sample_state()
        self._note_stall(merged, end_ns)
        due = self.actions if merged.kind != "final" else ()  # then nobody is listened to any more
        while due and (self.actions[0].at_sync or 0) <= accounting.dirty_sync_count:
            self._schedule(partial(self._act, self.actions.popleft()), end_ns)
        if merged.kind in ("exact", "fallback"):
            waits = self._next_action_ns() < NEVER_NS or self.actions or self.waiting_deeds
            exhausted = self.throttle.exhausted and not waits
            self.stuck.after_sync(merged.start_ns, self.pages.wraps, merged.pending, exhausted)
        if self.manager is not None and merged.kind != "final":
            self._schedule(partial(self._manage, "sync"), end_ns)

    def _note_stall(self, merged: _Merged, end_ns: int) -> None:
        """For how long a sync kept the big lock from the main loop, and from vCPUs that need it.

        A vCPU that comes to need it at random times runs until it first does, and then stands still.
        """
        if merged.kind == "final":  # the VM is stopped
            return
        held_ns = max(0, min(end_ns, self.scenario.simulated_limit_ns) - merged.start_ns)
        self.main_loop_stall_ns += held_ns
        self.longest_main_loop_stall_ns = max(self.longest_main_loop_stall_ns, held_ns)
        exits_per_s, held_s = self.scenario.config.vm.big_lock_exits_per_s, held_ns / NS_PER_S
        if exits_per_s:
            runs_s = -math.expm1(-exits_per_s * held_s) / exits_per_s
            self.big_lock_s += self.scenario.vcpus * (held_s - runs_s)

    def _decide(self, merged: _Merged, period: Period | None, at_ns: int) -> None:
        """A sync has ended, and may have closed a period: raise the throttle if the rule says so.

        A version may start its sync timer here. A throttle set by the final sync is traced but does not count: the VM has stopped.
        """
        sync = Sync(
            kind=merged.kind,
            time_ns=at_ns,
            dirty_sync_count=self.accounting.dirty_sync_count,
            newly_dirty_bytes=merged.newly_dirty * self.scenario.page_bytes,
            remaining_bytes=merged.pending * self.scenario.page_bytes,
        )
        triggered = self.throttle.on_sync(sync)
        if period is not None:
            self.dirty_pages_rate = period.dirty_pages_rate
            if self.sync_timer_rule.starts_with_period:
                self._start_sync_timer(at_ns)
            triggered |= self.throttle.on_period(period)
        if not triggered:
            return
        percent = self._throttle_percent()
        self._event("migration_throttle", at_ns=at_ns)
        self._event("cpu_throttle_set", at_ns=at_ns, percent=percent)
        if merged.kind == "final" or percent == self.run_time.percent:
            return
        self.run_time.throttle(self.clock.vm_ns(at_ns), percent)
        self.throttle_steps.append((at_ns, percent))

    def _throttle_percent(self) -> int:
        percent = self.throttle.percent
        if not isinstance(percent, int) or not 1 <= percent <= 99:
            name = type(self.throttle).__name__
            raise ValueError(f"{name}.percent = {percent!r}: must be a whole number from 1 to 99")
        return percent

    def _complete(self) -> Result:
        """Stop the VM, sync for the last time, send the rest, switch over.

        The big lock is held to the end: no timer fires, and nobody is listened to.
        """
        self.clock.run_to(max(self.clock.now_ns, self.bql_free_ns))
        if self.cancelled:  # by what happened while the last exact sync went on
            return self._cancel()
        stop_ns = self.clock.now_ns
        self._stop_sync_timer()
        for timer in (*self.deed_timers, self.manager_timer):
            timer.cancel()
        self.clock.stop_vm()
        self.stopped_ns = stop_ns
        self._event("migration_completion_vm_stop")
        self._event("migrate_set_state", new_state="device")
        self._sync("final")
        clears = self.scenario.rules.clears_in_last_stage
        drained_ns = self.sender.drain(self.pages, clears=clears)
        end_ns = self.bql_free_ns + drained_ns + self.scenario.link.non_ram_downtime_ns
        self.clock.run_to(end_ns)
        self._event("migrate_set_state", new_state="completed")
        downtime_ms = (end_ns - stop_ns) / NS_PER_MS
        limit_ms = self.parameters.downtime_limit_ms
        top, passes = self.run_time.percent, self.pages.wraps + 1
        reason = (
            f"converged after {end_ns / NS_PER_S:.1f} s in {passes} {'pass' if passes == 1 else 'passes'}, "
            f"{f'at a throttle of {top} %' if top else 'with no throttle'}; "
            f"downtime {downtime_ms:.0f} ms of {limit_ms} ms allowed"
        )
        if paused_ns := stop_ns - self.clock.vm_ns(stop_ns):
            reason += f", after a pause of {paused_ns / NS_PER_S:.1f} s"
        return self._result("ok", "converged", reason, stop_ns=stop_ns, downtime_ms=downtime_ms)

    def _cancel(self) -> Result:
        """End as cancelled: the thread notices when it wakes, and until then the main loop goes on.

        The VM runs on at the source, and the process with what it keeps.
        """
        self.clock.run_to(max(self.clock.now_ns, self.sender.awake_ns))
        process, vm_ns = self.process, self.clock.vm_ns(self.clock.now_ns)
        ticks = self.run_time.percent and self.run_time.tick_before(np.array([vm_ns]))[0] == vm_ns
        process.throttle_thread_scheduled |= bool(ticks)
        if not self.sync_timer_rule.stops_under_lock:
            self._stop_sync_timer()
        self._wait_for_tick()
        if self.sync_timer_rule.stops_under_lock:
            self._stop_sync_timer()
        process.dirty_sync_count = self.accounting.dirty_sync_count
        armed_ns = self.sync_timer.at_ns if self.sync_timer else None
        process.sync_timer_left_ns = None if armed_ns is None else armed_ns - self.clock.now_ns
        self._event("migrate_set_state", new_state="cancelled")
        total_s = self.clock.now_ns / NS_PER_S
        reason = f"cancelled after {total_s:.1f} s{self.cancelled_why}"
        return self._stop("ok", "cancelled", reason)

    def _stop(self, status: Status, verdict: Verdict | None, reason: str) -> Result:
        """Give up; what was given up by gpusim and not by management leaves nothing to the process."""
        return self._result(status, verdict, reason, stop_ns=self.clock.now_ns, downtime_ms=None)

    def _stop_sync_timer(self) -> None:
        self.sync_timer_rule.stop()
        if self.sync_timer is not None:
            self.sync_timer.cancel()

    def _result(
        self,
        status: Status,
        verdict: Verdict | None,
        reason: str,
        *,
        stop_ns: int,
        downtime_ms: float | None,
    ) -> Result:
        scenario, sender = self.scenario, self.sender
        self._sample_state()
        total_s = self.clock.now_ns / NS_PER_S
        stop_vm_ns = self.clock.vm_ns(stop_ns)
        steps = self.throttle_steps
        highest = max((percent for _, percent in steps), default=0)
        ends_ns = [*(since_ns for since_ns, _ in steps[1:]), stop_ns] if steps else []
        self._settle(stop_ns)
        lost_s = self.guest.lost_vcpu_s(stop_vm_ns)
        summary = Summary(
            status=status,
            verdict=verdict,
            reason=reason,
            attempt=1,
            total_time_s=total_s,
            downtime_ms=downtime_ms,
            first_pass_s=self.syncs[1].time_s if len(self.syncs) > 1 else None,
            dirty_sync_count=self.accounting.dirty_sync_count,
            fallback_sync_count=sum(sync.kind == "fallback" for sync in self.syncs),
            first_throttle_s=steps[0][0] / NS_PER_S if steps else None,
            max_throttle_percent=highest,
            time_at_max_throttle_s=sum(
                max(0, until_ns - since_ns)
                for (since_ns, percent), until_ns in zip(steps, ends_ns, strict=True)
                if percent == highest
            )
            / NS_PER_S,
            longest_vcpu_stall_ms=self.run_time.longest_sleep_ns(stop_vm_ns) / NS_PER_MS,
            transferred_bytes=sender.counters.transferred_bytes,
            normal_pages=sender.counters.normal_pages,
            zero_pages=sender.counters.zero_pages,
            remote_clears=sender.counters.remote_clears,
            remote_clear_s=sender.counters.remote_clear_ps / PS_PER_S,
            resent_pages=max(
                0, sender.counters.normal_pages + sender.counters.zero_pages - scenario.layout.pages
            ),
            guest_cpu_lost_s=lost_s,
            guest_cpu_lost_percent=100 * lost_s / (scenario.vcpus * total_s) if total_s else 0.0,
            write_faults=round(self.guest.faults.count),
            guest_fault_s=self.guest.faults.time_s,
            guest_big_lock_s=self.big_lock_s,
            paused_s=(stop_ns - stop_vm_ns) / NS_PER_S,
            sync_stall_s=self.sync_stall_ns / NS_PER_S,
            main_loop_stall_s=self.main_loop_stall_ns / NS_PER_S,
            longest_main_loop_stall_ms=self.longest_main_loop_stall_ns / NS_PER_MS,
            remaining_bytes=self.pages.pending * scenario.page_bytes,
            vm_bytes=scenario.layout.pages * scenario.page_bytes,
            qemu_version=scenario.version,
            policies=scenario.policies,
            tracking=scenario.tracking.mode,
            backend=self.backend.name,
            backend_reason=self.backend.reason,
            seed=scenario.seed,
            simulated_looks=self.pages.looks,
            wall_time_s=(time.monotonic_ns() - self.started) / NS_PER_S,
            bitmap_bytes=scenario.bitmap_bytes,
            process_peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            gpusim_version=__version__,
        )
        for at_ns, bandwidth in scenario.link.changes:
            if at_ns <= self.clock.now_ns:
                self._event("link_bandwidth", at_ns=at_ns, bandwidth=bandwidth)
        # A sync's end is noted at its start: bring what happened meanwhile into order.
        events = sorted(self.events, key=lambda event: event.time_s)
        return Result(
            summary=summary,
            syncs=self.syncs,
            events=events,
            samples=self.samples,
            pass_ends_s=[end_ns / NS_PER_S for end_ns in sender.counters.pass_ends_ns],
            never_came=[a.text for a in scenario.actions if a not in self.done],
        )

    def _ticked_run_time(self) -> RunTime:
        return TickedRunTime(
            lambda fire: _VmTimer(self.clock, fire),
            lambda: self.clock.vm_ns(self.clock.now_ns),
        )

    def _event(self, event: str, *, at_ns: int | None = None, **arguments: float | str) -> None:
        now_ns = self.clock.now_ns if at_ns is None else at_ns
        self.events.append(Event(time_s=now_ns / NS_PER_S, event=event, arguments=arguments))

    def _sample_state(self) -> None:
        now_ns = self.clock.now_ns
        self.samples.append(
            TimelineSample(
                time_s=now_ns / NS_PER_S,
                remaining_bytes=self.pages.pending * self.scenario.page_bytes,
                transferred_bytes=self.sender.counters.transferred_bytes,
                cpu_throttle_percentage=self.run_time.percent,
                dirty_sync_count=self.accounting.dirty_sync_count,
                guest_run_s=self.run_time.at_ns(self.clock.vm_ns(min(now_ns, self.stopped_ns)))
                / NS_PER_S,
            )
        )

    def _sample_if_due(self) -> None:
        """Note the state and tell the observer, unless that was done less than a second ago."""
        if (
            self.samples
            and self.clock.now_ns < self.samples[-1].time_s * NS_PER_S + SAMPLE_EVERY_NS
        ):
            return
        self._sample_state()
        if self.observe is not None:
            sample = self.samples[-1]
            self.observe(
                Progress(
                    time_s=sample.time_s,
                    remaining_bytes=sample.remaining_bytes,
                    total_bytes=self.scenario.layout.pages * self.scenario.page_bytes,
                    cpu_throttle_percentage=sample.cpu_throttle_percentage,
                    dirty_sync_count=sample.dirty_sync_count,
                )
            )

    def _wall_limit_reached(self) -> bool:
        limit_ns = self.scenario.wall_limit_ns
        return limit_ns is not None and time.monotonic_ns() - self.started > limit_ns

    def _stuck_reason(self) -> str:
        top = self.run_time.percent
        at = (
            f"the throttle is at its maximum of {top} %" if top else "there is no throttle to raise"
        )
        smallest = self.stuck.smallest * self.scenario.page_bytes
        return (
            f"{at}, and in {STUCK_NS // NS_PER_S} s and {STUCK_PASSES} passes what remains after a sync has not "
            f"come below {format_bytes(smallest)}, while {format_bytes(self.sender.threshold_bytes)} fit the downtime limit"
        )

    def _limit_reason(self) -> str:
        remaining = self.pages.pending * self.scenario.page_bytes
        return (
            f"still migrating after {self.clock.now_ns / NS_PER_S:g} s of simulated time, "
            f"{format_bytes(remaining)} remain at a throttle of {self.run_time.percent} %; raise limit.simulated to go on"
        )


class _VmTimer:
    """A timer of the VM's time: what TickedRunTime needs."""

    def __init__(self, clock: Clock, fire: Callable[[], None]) -> None:
        self._clock = clock
        self._timer = clock.timer(fire, priority=THROTTLE_TICK, freezes=True)

    def arm(self, at_ns: int) -> None:
        now_ns = self._clock.now_ns
        self._timer.arm(now_ns + at_ns - self._clock.vm_ns(now_ns))
