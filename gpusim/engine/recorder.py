"""The records of a migration: syncs, events, samples of the timeline, and the summary at its end.

The recorder reads the state of a migration and never changes it.
"""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpusim.config.backend import EXPECTED
from gpusim.config.schedule import Action
from gpusim.engine.bottleneck import find_bottleneck
from gpusim.engine.reasons import reason_text
from gpusim.engine.records import (
    Event,
    Observer,
    PostcopySample,
    PostcopySummary,
    Progress,
    Result,
    Status,
    Summary,
    SyncRecord,
    TimelineSample,
    Verdict,
)
from gpusim.engine.state import MigrationState
from gpusim.sender.link import PS_PER_S
from gpusim.text import Message
from gpusim.units import NEVER_NS, NS_PER_MS, NS_PER_S
from gpusim.version import __version__

SAMPLE_EVERY_NS = NS_PER_S
OBSERVE_EVERY_NS = 100 * NS_PER_MS  # of the wall clock


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a migration ended.

    Attributes:
        reason: why, as a code and data of `reasons.py`.
        vm_ended_ns: when the VM stopped at the source, or when the run ended.
        downtime_ms: None if there was no switchover.
        skipped_ns: time that passed without being simulated.
        postcopy: post-copy, if there was a switch.
    """

    status: Status
    verdict: Verdict | None
    reason: Message
    vm_ended_ns: int
    downtime_ms: float | None = None
    skipped_ns: int = 0
    postcopy: PostcopySummary = field(default_factory=PostcopySummary)


@dataclass
class SyncStalls:
    """How long syncs held others up, in total.

    Attributes:
        sender_ns: the sender waited.
        main_loop_ns, longest_main_loop_ns: the main loop waited for the big lock.
        vcpu_s: vCPU seconds lost to the big lock.
    """

    sender_ns: int = 0
    main_loop_ns: int = 0
    longest_main_loop_ns: int = 0
    vcpu_s: float = 0.0


class Recorder:
    """Records one migration.

    Args:
        state: of the migration.
        observe: is called with the progress, at most every 0.1 s of the wall clock.

    Attributes:
        throttle_steps: (ns, percent): the throttle's value from a time on.
    """

    def __init__(self, state: MigrationState, observe: Observer | None) -> None:
        self._state, self._observe = state, observe
        self.syncs: list[SyncRecord] = []
        self.events: list[Event] = []
        self.samples: list[TimelineSample] = []
        self.throttle_steps: list[tuple[int, int]] = []
        self.stalls = SyncStalls()
        self._observed_ns: int | None = None
        self._sync_after_pass_ns: int | None = None
        self._link_changes_ns = deque(at_ns for at_ns, _ in state.scenario.link.changes)

    def record_event(
        self, event: str, *, at_ns: int | None = None, **arguments: float | str
    ) -> None:
        """Record a decision now, or at a given time."""
        now_ns = self._state.clock.now_ns if at_ns is None else at_ns
        self.events.append(Event(time_s=now_ns / NS_PER_S, event=event, arguments=arguments))

    def record_sync(self, record: SyncRecord, start_ns: int, sent_pages: int) -> None:
        """Record a sync.

        The first pass ends at the main loop's first sync at which as few pages remain unsent as
        QEMU syncs for. A sync before it comes from a timer, or from a main loop that always syncs.

        Args:
            record: its row.
            start_ns: when it started.
            sent_pages: pages sent before it.
        """
        self.syncs.append(record)
        layout, page_bytes = self._state.scenario.layout, self._state.scenario.page_bytes
        unsent_bytes = (layout.pages - sent_pages) * page_bytes
        if (
            self._sync_after_pass_ns is None
            and record.kind in ("exact", "final")
            and unsent_bytes <= record.threshold_bytes
        ):
            self._sync_after_pass_ns = start_ns

    def sample(self) -> None:
        """Add a sample of the present state to the timeline."""
        state = self._state
        now_ns = state.clock.now_ns
        vm_ns = state.clock.vm_ns(min(now_ns, state.vm_stopped_ns))
        self.samples.append(
            TimelineSample(
                time_s=now_ns / NS_PER_S,
                remaining_bytes=state.remaining_bytes,
                transferred_bytes=state.sent.transferred_bytes,
                cpu_throttle_percentage=state.run_time.percent,
                dirty_sync_count=state.accounting.dirty_sync_count,
                bitmap_sync_count=state.accounting.bitmap_sync_count,
                guest_run_s=state.run_time.at_ns(vm_ns) / NS_PER_S,
            )
        )

    def sample_if_due(self) -> None:
        """Sample the state, unless the last sample is under a simulated second old."""
        now_ns = self._state.clock.now_ns
        if self.samples and now_ns < self.samples[-1].time_s * NS_PER_S + SAMPLE_EVERY_NS:
            return
        self.sample()

    def observe_if_due(self) -> None:
        """Show the observer the progress. The wall clock decides, and no result depends on it."""
        if self._observe is None:
            return
        wall_ns = time.monotonic_ns()
        if self._observed_ns is not None and wall_ns - self._observed_ns < OBSERVE_EVERY_NS:
            return
        self._observed_ns, state = wall_ns, self._state
        self._observe(
            Progress(
                time_s=state.clock.now_ns / NS_PER_S,
                remaining_bytes=state.remaining_bytes,
                total_bytes=state.vm_bytes,
                cpu_throttle_percentage=state.run_time.percent,
                bitmap_sync_count=state.accounting.bitmap_sync_count,
                is_first_pass=self._first_pass_s() is None,
            )
        )

    def next_link_change_ns(self) -> int:
        """Return when the link changes next. The timeline gets a sample at each change."""
        changes = self._link_changes_ns
        while changes and changes[0] <= self._state.clock.now_ns:
            changes.popleft()
            self.sample()
        return changes[0] if changes else NEVER_NS

    def make_result(
        self,
        end: RunEnd,
        actions_not_done: list[Action],
        postcopy: Sequence[PostcopySample] = (),
        latency_counts: Sequence[int] = (),
    ) -> Result:
        """Return everything that was recorded, with a summary."""
        self.sample()
        self._record_link_changes()
        self._end_journal()
        pass_ends_ns = self._state.sender.counters.pass_ends_ns
        now_ns = (
            self._state.clock.now_ns
        )  # the sender may be ahead, inside a step that the end cuts
        return Result(
            summary=self._make_summary(end),
            syncs=self.syncs,
            # An event of a sync's end is recorded at its start, so order events by time.
            events=sorted(self.events, key=lambda event: event.time_s),
            samples=self.samples,
            pass_ends_s=[end_ns / NS_PER_S for end_ns in pass_ends_ns if end_ns <= now_ns],
            actions_not_done=actions_not_done,
            sending=self._state.sender.tally.sending,
            postcopy=list(postcopy),
            postcopy_latency_counts=list(latency_counts),
            journal=self._state.journal,
        )

    def _end_journal(self) -> None:
        journal, pages, sent = self._state.journal, self._state.pages, self._state.sender.counters
        if journal is not None:
            journal.sent_pages = sent.normal_pages + sent.zero_pages
            left, is_dry = self._state.postcopy_pages, self._state.backend is EXPECTED
            journal.pending_pages = pages.pending + left
            journal.bitmap_pages = (pages.pending if is_dry else pages.count_bits()) + left

    def _record_link_changes(self) -> None:
        for at_ns, bandwidth in self._state.scenario.link.changes:
            if at_ns <= self._state.clock.now_ns:
                self.record_event("link_bandwidth", at_ns=at_ns, bandwidth=bandwidth)

    def _make_summary(self, end: RunEnd) -> Summary:
        state, scenario, stalls = self._state, self._state.scenario, self.stalls
        sent = state.sent
        simulated_s = state.clock.now_ns / NS_PER_S
        vm_ns = state.clock.vm_ns(end.vm_ended_ns)
        lost_s = state.guest.lost_vcpu_s(vm_ns) + (end.postcopy.postcopy_stall_vcpu_s or 0.0)
        highest, at_highest_ns = self._highest_throttle(end.vm_ended_ns)
        return Summary(
            status=end.status,
            verdict=end.verdict,
            reason=reason_text(end.reason),
            reason_code=end.reason.code,
            attempt=1,
            total_time_s=(state.clock.now_ns + end.skipped_ns) / NS_PER_S,
            downtime_ms=end.downtime_ms,
            first_pass_s=self._first_pass_s(),
            dirty_sync_count=state.accounting.dirty_sync_count,
            bitmap_sync_count=state.accounting.bitmap_sync_count,
            fallback_sync_count=sum(sync.kind == "fallback" for sync in self.syncs),
            first_throttle_s=self.throttle_steps[0][0] / NS_PER_S if self.throttle_steps else None,
            max_throttle_percent=highest,
            time_at_max_throttle_s=at_highest_ns / NS_PER_S,
            longest_vcpu_stall_ms=state.run_time.longest_sleep_ns(vm_ns) / NS_PER_MS,
            transferred_bytes=sent.transferred_bytes,
            **vars(find_bottleneck(state.sender.tally.sending, scenario)),
            normal_pages=sent.normal_pages,
            zero_pages=sent.zero_pages,
            remote_clears=sent.remote_clears,
            remote_clear_s=state.sender.remote_clear_ps(state.clock.now_ns) / PS_PER_S,
            resent_pages=max(
                0,
                sent.normal_pages
                + sent.zero_pages
                - scenario.layout.pages
                - (end.postcopy.postcopy_added_pages or 0),
            ),
            guest_cpu_lost_s=lost_s,
            guest_cpu_lost_percent=100 * lost_s / (scenario.vcpus * simulated_s)
            if simulated_s
            else 0.0,
            write_faults=round(state.guest.faults.count),
            guest_fault_s=state.guest.faults.time_s,
            guest_big_lock_s=stalls.vcpu_s,
            skipped_s=end.skipped_ns / NS_PER_S,
            paused_s=(end.vm_ended_ns - vm_ns) / NS_PER_S,
            sync_stall_s=stalls.sender_ns / NS_PER_S,
            main_loop_stall_s=stalls.main_loop_ns / NS_PER_S,
            longest_main_loop_stall_ms=stalls.longest_main_loop_ns / NS_PER_MS,
            remaining_bytes=state.remaining_bytes,
            vm_bytes=state.vm_bytes,
            qemu_version=scenario.version,
            policies=scenario.policies,
            tracking=scenario.tracking.mode,
            backend=state.backend.name,
            backend_reason=state.backend.reason,
            seed=scenario.seed,
            simulated_looks=state.pages.draws,
            wall_time_s=(time.monotonic_ns() - state.limit.started_ns) / NS_PER_S,
            bitmap_bytes=scenario.bitmap_bytes,
            process_peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            gpusim_version=__version__,
            **vars(end.postcopy),
        )

    def _first_pass_s(self) -> float | None:
        """Return when the first pass ended: at a sync, or when the cursor wrapped before."""
        ends_ns = self._state.sender.counters.pass_ends_ns[:1]
        if self._sync_after_pass_ns is not None:
            ends_ns = [*ends_ns, self._sync_after_pass_ns]
        if not ends_ns or min(ends_ns) > self._state.clock.now_ns:
            return None
        return min(ends_ns) / NS_PER_S

    def _highest_throttle(self, until_ns: int) -> tuple[int, int]:
        """Return the highest throttle in percent, and for how many ns it was set."""
        steps = self.throttle_steps
        highest = max((percent for _, percent in steps), default=0)
        ends_ns = [*(since_ns for since_ns, _ in steps[1:]), until_ns] if steps else []
        return highest, sum(
            max(0, end_ns - since_ns)
            for (since_ns, percent), end_ns in zip(steps, ends_ns, strict=True)
            if percent == highest
        )
