"""One migration as a story on one clock: setup, pass, look, throttle, switch over.

Only here do guest, pages, QEMU's rules and the sender meet. Nothing is drawn between two looks, and
the run jumps from event to event: its cost follows decisions, not seconds.
"""

from __future__ import annotations

import resource
import time
from collections import deque

import numpy as np

from gpusim.checks import reject
from gpusim.clock import Clock, Timer
from gpusim.config import Config
from gpusim.guest.guest import Guest
from gpusim.guest.run_time import NEVER_NS, RunTime, TickedRunTime
from gpusim.layout import IntArray
from gpusim.pages.pages import Pages
from gpusim.qemu.switchover import threshold_size
from gpusim.qemu.sync import Period, SyncAccounting
from gpusim.qemu.versions import VERSIONS
from gpusim.records import (
    Event,
    Knot,
    Observer,
    Progress,
    Result,
    Status,
    Summary,
    SyncKind,
    SyncRecord,
    Verdict,
)
from gpusim.scenario import Scenario, resolve
from gpusim.sender import Sender
from gpusim.units import NS_PER_MS, NS_PER_S
from gpusim.version import __version__
from gpusim.wire import PS_PER_S

SYNC_TIMER, THROTTLE_TICK = 0, 1  # of timers due together the sync comes first
STUCK_NS, STUCK_PASSES, STUCK_SHARE = 60 * NS_PER_S, 10, 0.98
KNOT_EVERY_NS = NS_PER_S


def simulate(config: Config, *, observe: Observer | None = None, ticked: bool = False) -> Result:
    """Simulate one live migration.

    Args:
        config: what to simulate.
        observe: called with the progress, at most once a simulated second.
        ticked: run every throttle slice as a timer of its own; same result, for tests.

    Returns:
        summary, syncs, events and the knots of the timeline. `syncs` and `events` depend on config
        and seed alone.

    Raises:
        ConfigError: a value that cannot be simulated; before any bitmap is allocated.
        MemoryError: the bitmaps do not fit after all.
    """
    if config.evacuation is not None:
        reject("evacuation", "...", "is not one migration; call gpusim.evacuate, or set it to null")
    migration = Migration(resolve(config), observe, ticked)
    try:
        return migration.run()
    finally:
        migration.pages.close()


class Migration:
    """The state of one run; `simulate` makes it, runs it and gives its memory back."""

    def __init__(self, scenario: Scenario, observe: Observer | None, ticked: bool) -> None:
        self.scenario, self.observe, self.ticked = scenario, observe, ticked
        self.started = time.monotonic_ns()
        version, parameters = VERSIONS[scenario.version], scenario.parameters
        self.clock = Clock()
        self.run_time = self._ticked_run_time() if ticked else RunTime()
        self.guest = Guest(scenario.layout, scenario.writers, self.run_time)
        self.pages = Pages(
            scenario.layout,
            zero_first=scenario.zero_first,
            zero_last=scenario.zero_last,
            lazy=scenario.lazy,
            initially_set=scenario.initially_set,
            seed=scenario.seed,
            backend=scenario.backend,
            threads=scenario.threads,
        )
        self.accounting = SyncAccounting(scenario.page_bytes)
        self.throttle = version.throttle(parameters)
        self.switchover = version.switchover()
        self.sync_timer_rule = version.sync_timer()
        self.sender = Sender(
            scenario.link,
            max_bandwidth=parameters.max_bandwidth,
            page_bytes=scenario.page_bytes,
            counts_flushed_bytes=version.counts_flushed_bytes,
            threshold=lambda bandwidth: threshold_size(bandwidth, parameters),
            acts=self.switchover.acts,
        )
        self.changes_ns = deque(at_ns for at_ns, _ in scenario.link.changes)
        self.sync_timer: Timer | None = None
        self.bql_free_ns = 0  # the main loop waits for a sync that another thread does
        self.last_look_ns = 0
        self.stopped_ns = NEVER_NS  # when the VM stopped
        self.cleared_at: IntArray = np.full(scenario.layout.chunks, -1, np.int64)
        self.syncs: list[SyncRecord] = []
        self.events: list[Event] = []
        self.knots: list[Knot] = []
        self.throttle_since_ns: int | None = None
        self.first_throttle_ns: int | None = None
        self.stuck = _Stuck(scenario.layout.pages, scenario.stuck_from_ns)

    def run(self) -> Result:
        """The story."""
        self._setup()
        limit_ns = self.scenario.simulated_limit_ns
        while True:
            to_ns = min(self._next_look_ns(), self._next_change_ns(), limit_ns)
            advanced = self.sender.advance(to_ns, self.pages)
            for chunks, times_ns in advanced.clears:
                self.cleared_at[chunks] = times_ns
            self.clock.run_to(advanced.at_ns)
            self._knot_if_due()
            if advanced.turn and self._turn():
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
        interval_ns = self.scenario.parameters.fallback_sync_interval_ns
        if self.scenario.parameters.auto_converge and interval_ns is not None:
            self.sync_timer = self.clock.timer(
                self._sync_timer_tick, priority=SYNC_TIMER, freezes=True
            )
            self.sync_timer.arm(interval_ns)
        self.pages.start()
        self._sync("setup")
        self._event("migrate_set_state", at_ns=self.bql_free_ns, new_state="active")

    def _turn(self) -> bool:
        """A turn of the main loop at which the estimate is low. True: ready to switch over."""
        page_bytes, threshold_bytes = self.scenario.page_bytes, self.sender.threshold_bytes
        if self.switchover.wants_sync(self.pages.pending * page_bytes, threshold_bytes):
            self._sync("exact")
            size = self.pages.pending * page_bytes
            self._event("migrate_pending_exact", at_ns=self.bql_free_ns, size=size)
        self.sender.iterate()
        if not self.switchover.ready(self.pages.pending * page_bytes, threshold_bytes):
            return False
        at_ns = max(self.clock.now_ns, self.bql_free_ns)
        pending = self.pages.pending * page_bytes
        self._event("migration_thread_low_pending", at_ns=at_ns, pending=pending)
        return True

    def _sync_timer_tick(self) -> None:
        """The fallback timer fires in the main loop, which may have to wait for the big lock."""
        assert self.sync_timer is not None
        if self.sync_timer_rule.wants_sync(self.accounting.dirty_sync_count):
            self._event("cpu_throttle_dirty_sync")
            self._sync("fallback")
        self.sync_timer_rule.after_tick(self.accounting.dirty_sync_count)
        self.sync_timer.arm(self._tick_after(self.clock.now_ns))

    def _next_look_ns(self) -> int:
        """The first time at which a timer may look, unless a turn does before.

        A tick that would not look now will not look later either: a sync before it only changes the
        count. So the sender need not stop for it, and such ticks cost next to nothing.
        """
        if self.ticked:
            next_ns = self.clock.next_ns()
            return NEVER_NS if next_ns is None else next_ns
        if self.sync_timer is None or self.accounting.dirty_sync_count <= 1:
            return NEVER_NS
        assert self.sync_timer.at_ns is not None
        if self.sync_timer_rule.wants_sync(self.accounting.dirty_sync_count):
            return self.sync_timer.at_ns
        return self._tick_after(self.sync_timer.at_ns)

    def _next_change_ns(self) -> int:
        """When the wire changes next; the bend it makes is a knot of the timeline."""
        changes = self.changes_ns
        while changes and changes[0] <= self.clock.now_ns:
            changes.popleft()
            self._knot()
        return changes[0] if changes else NEVER_NS

    def _tick_after(self, tick_ns: int) -> int:
        """When the sync timer fires after a tick: it is re-armed when the main loop has come to it."""
        interval_ns = self.scenario.parameters.fallback_sync_interval_ns
        assert interval_ns is not None
        return max(tick_ns, self.bql_free_ns) // NS_PER_MS * NS_PER_MS + interval_ns

    def _look(self) -> int:
        """Draw what the guest has written since the last look; pages newly dirty."""
        since_ns, now_ns = self.last_look_ns, self.clock.now_ns
        self.last_look_ns = now_ns
        if not self.scenario.lazy:
            return self.pages.sync(self.guest.strokes(since_ns, now_ns))
        cleared = self.cleared_at >= 0
        split_ns = np.where(cleared, np.minimum(self.cleared_at, now_ns), since_ns)
        self.cleared_at[:] = -1
        return self.pages.sync(
            self.guest.strokes(split_ns, now_ns),
            before_clear=self.guest.strokes(since_ns, split_ns),
        )

    def _sync(self, kind: SyncKind) -> None:
        """One sync: look, account, decide about the throttle, and stall whom it stalls."""
        scenario, accounting, sender = self.scenario, self.accounting, self.sender
        start_ns = self.clock.now_ns
        worked_ns = end_ns = start_ns + scenario.sync_ns
        if scenario.sync_waits_for_vcpus and kind != "final":
            end_ns = max(end_ns, self.run_time.wakes_at_ns(start_ns))
        self._knot()
        accounting.begin(start_ns // NS_PER_MS)
        self._event("migration_bitmap_sync_start")
        newly_dirty = 0 if kind == "setup" else self._look()  # at the setup all is dirty
        # A fallback sync is the main loop's: while that waits for vCPUs the sender goes on.
        sender.stall(start_ns, worked_ns if kind == "fallback" else end_ns)
        self.bql_free_ns = end_ns
        remaining_bytes = self.pages.pending * scenario.page_bytes
        shown = accounting.num_dirty_pages_period + newly_dirty
        period = accounting.end(end_ns // NS_PER_MS, newly_dirty, sender.flushed_bytes)
        self._event("migration_bitmap_sync_end", at_ns=end_ns, dirty_pages=shown)
        if period is not None:
            self._decide(period, end_ns, stopped=kind == "final")
        self.syncs.append(
            SyncRecord(
                dirty_sync_count=accounting.dirty_sync_count,
                kind=kind,
                time_s=start_ns / NS_PER_S,
                duration_ms=(end_ns - start_ns) / NS_PER_MS,
                newly_dirty_pages=newly_dirty,
                remaining_bytes=remaining_bytes,
                transferred_bytes=sender.flushed_bytes,
                threshold_bytes=sender.threshold_bytes,
                bandwidth_bytes_per_s=sender.bandwidth,
                cursor_page=self.pages.cursor_page,
                pass_number=self.pages.wraps + 1,
                cpu_throttle_percentage=self.run_time.percent,
                dirty_rate_high_cnt=self.throttle.dirty_rate_high_cnt,
                period_ms=period.length_ms if period else None,
                bytes_dirty_period=period.dirty_bytes if period else None,
                bytes_xfer_period=period.xfer_bytes if period else None,
                dirty_pages_rate=period.dirty_pages_rate if period else None,
            )
        )
        self._knot()
        if kind in ("exact", "fallback"):
            exhausted = self.throttle.exhausted
            self.stuck.after_sync(start_ns, self.pages.wraps, self.pages.pending, exhausted)

    def _decide(self, period: Period, at_ns: int, *, stopped: bool) -> None:
        """A period has closed: raise the throttle if the rule says so.

        A throttle set by the final sync is traced but does not count: the VM has stopped.
        """
        if not self.throttle.on_period(period):
            return
        self._event("migration_throttle", at_ns=at_ns)
        self._event("cpu_throttle_set", at_ns=at_ns, percent=self.throttle.percent)
        if stopped or self.throttle.percent == self.run_time.percent:
            return
        self.run_time.throttle(at_ns, self.throttle.percent)
        self.throttle_since_ns = at_ns
        if self.first_throttle_ns is None:
            self.first_throttle_ns = at_ns

    def _complete(self) -> Result:
        """Stop the VM, sync for the last time, send the rest, switch over."""
        self.clock.run_to(max(self.clock.now_ns, self.bql_free_ns))
        stop_ns = self.clock.now_ns
        self.clock.stop_vm()
        self.stopped_ns = stop_ns
        self._event("migration_completion_vm_stop")
        self._event("migrate_set_state", new_state="device")
        self._sync("final")
        clears = VERSIONS[self.scenario.version].clears_in_last_stage
        drained_ns = self.sender.drain(self.pages, clears=clears)
        end_ns = (
            stop_ns + self.scenario.sync_ns + drained_ns + self.scenario.link.non_ram_downtime_ns
        )
        self.clock.run_to(end_ns)
        self._event("migrate_set_state", new_state="completed")
        downtime_ms = (end_ns - stop_ns) / NS_PER_MS
        limit_ms = self.scenario.parameters.downtime_limit_ms
        top, passes = self.run_time.percent, self.pages.wraps + 1
        reason = (
            f"converged after {end_ns / NS_PER_S:.1f} s in {passes} {'pass' if passes == 1 else 'passes'}, "
            f"{f'at a throttle of {top} %' if top else 'with no throttle'}; "
            f"downtime {downtime_ms:.0f} ms of {limit_ms} ms allowed"
        )
        return self._result("ok", "converged", reason, stop_ns=stop_ns, downtime_ms=downtime_ms)

    def _stop(self, status: Status, verdict: Verdict | None, reason: str) -> Result:
        """Give up; the VM runs on at the source."""
        return self._result(status, verdict, reason, stop_ns=self.clock.now_ns, downtime_ms=None)

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
        self._knot()
        total_s = self.clock.now_ns / NS_PER_S
        lost_s = self.guest.lost_vcpu_s(stop_ns)
        since_ns = self.throttle_since_ns
        summary = Summary(
            status=status,
            verdict=verdict,
            reason=reason,
            total_time_s=total_s,
            downtime_ms=downtime_ms,
            first_pass_s=self.syncs[1].time_s if len(self.syncs) > 1 else None,
            dirty_sync_count=self.accounting.dirty_sync_count,
            fallback_sync_count=sum(sync.kind == "fallback" for sync in self.syncs),
            first_throttle_s=None
            if self.first_throttle_ns is None
            else self.first_throttle_ns / NS_PER_S,
            max_throttle_percent=self.run_time.percent,
            time_at_max_throttle_s=0.0
            if since_ns is None
            else max(0, stop_ns - since_ns) / NS_PER_S,
            longest_vcpu_stall_ms=self.run_time.longest_sleep_ns(stop_ns) / NS_PER_MS,
            transferred_bytes=sender.transferred_bytes,
            normal_pages=sender.normal_pages,
            zero_pages=sender.zero_pages,
            remote_clears=sender.remote_clears,
            remote_clear_s=sender.remote_clear_ps / PS_PER_S,
            resent_pages=max(0, sender.normal_pages + sender.zero_pages - scenario.layout.pages),
            guest_cpu_lost_s=lost_s,
            guest_cpu_lost_percent=100 * lost_s / (scenario.vcpus * total_s) if total_s else 0.0,
            remaining_bytes=self.pages.pending * scenario.page_bytes,
            vm_bytes=scenario.layout.pages * scenario.page_bytes,
            qemu_version=scenario.version,
            tracking=scenario.tracking,
            backend=scenario.backend,
            backend_reason=scenario.backend_reason,
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
            knots=self.knots,
            pass_ends_s=[end_ns / NS_PER_S for end_ns in sender.pass_ends_ns],
        )

    def _ticked_run_time(self) -> RunTime:
        return TickedRunTime(
            lambda fire: self.clock.timer(fire, priority=THROTTLE_TICK, freezes=True),
            lambda: self.clock.now_ns,
        )

    def _event(self, event: str, *, at_ns: int | None = None, **arguments: float | str) -> None:
        now_ns = self.clock.now_ns if at_ns is None else at_ns
        self.events.append(Event(time_s=now_ns / NS_PER_S, event=event, arguments=arguments))

    def _knot(self) -> None:
        now_ns = self.clock.now_ns
        self.knots.append(
            Knot(
                time_s=now_ns / NS_PER_S,
                remaining_bytes=self.pages.pending * self.scenario.page_bytes,
                transferred_bytes=self.sender.transferred_bytes,
                cpu_throttle_percentage=self.run_time.percent,
                dirty_sync_count=self.accounting.dirty_sync_count,
                guest_run_s=self.run_time.at_ns(min(now_ns, self.stopped_ns)) / NS_PER_S,
            )
        )

    def _knot_if_due(self) -> None:
        """Note the state and tell the observer, unless that was done less than a second ago."""
        if self.knots and self.clock.now_ns < self.knots[-1].time_s * NS_PER_S + KNOT_EVERY_NS:
            return
        self._knot()
        if self.observe is not None:
            knot = self.knots[-1]
            self.observe(
                Progress(
                    time_s=knot.time_s,
                    remaining_bytes=knot.remaining_bytes,
                    total_bytes=self.scenario.layout.pages * self.scenario.page_bytes,
                    cpu_throttle_percentage=knot.cpu_throttle_percentage,
                    dirty_sync_count=knot.dirty_sync_count,
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
            f"{at}, and in {STUCK_NS // NS_PER_S} s and {STUCK_PASSES} passes what remains has not come below "
            f"{smallest / 1e9:.4g} GB, while {self.sender.threshold_bytes / 1e9:.4g} GB fit the downtime limit"
        )

    def _limit_reason(self) -> str:
        remaining = self.pages.pending * self.scenario.page_bytes
        return (
            f"still migrating after {self.clock.now_ns / NS_PER_S:g} s of simulated time, "
            f"{remaining / 1e9:.4g} GB remain at a throttle of {self.run_time.percent} %; raise limit.simulated to go on"
        )


class _Stuck:
    """Whether a migration has stopped getting anywhere.

    Once the throttle cannot rise: over 60 s and ten passes, the smallest remaining after a sync has
    fallen by less than 2 % against the smallest before them. A guest that will change, as its
    windows open and close, is waited for.
    """

    def __init__(self, vm_pages: int, from_ns: int | None) -> None:
        self.given_up = False
        self.smallest = vm_pages
        self._from_ns = from_ns
        self._since: tuple[int, int] | None = None  # ns and passes
        self._smallest_before = vm_pages

    def after_sync(self, now_ns: int, passes: int, pending: int, exhausted: bool) -> None:
        """Look at what remains after a sync."""
        self.smallest = min(self.smallest, pending)
        if not exhausted or self._from_ns is None or now_ns < self._from_ns:
            return
        if self._since is None:
            self._since, self._smallest_before = (now_ns, passes), self.smallest
        elif now_ns - self._since[0] >= STUCK_NS and passes - self._since[1] >= STUCK_PASSES:
            self.given_up = self.smallest > STUCK_SHARE * self._smallest_before
            self._since, self._smallest_before = (now_ns, passes), self.smallest
