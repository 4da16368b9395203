"""The dirty syncs of a migration: the writes that each draws, its costs, and the throttle.

Two actors sync. The migration thread does a whole sync at once (`Syncs.run`). The fallback timer
(fallback_timer.py) does one in steps, while the sender goes on.

Source: migration/ram.c:migration_bitmap_sync, ramblock_sync_dirty_bitmap [7.2 to 10.1].
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpusim.engine.big_lock import BigLock
from gpusim.engine.journal import SyncEntry
from gpusim.engine.recorder import Recorder
from gpusim.engine.records import SyncKind, SyncRecord
from gpusim.engine.state import MigrationState
from gpusim.layout import IntArray
from gpusim.qemu.sync import Period, Sync
from gpusim.units import NEVER_NS, NS_PER_MS, NS_PER_S


@dataclass(kw_only=True)
class DirtySync:
    """A sync from its start to its end.

    Attributes:
        start_ns: when it started.
        answered_ns: when the vCPUs answered, if it waits for them first. Else its start.
        waits_for_burst: it has read the log and waits until the sender's burst ends.
        protect_ns: the time it takes to write-protect the pages that were written.
        is_merged: the guest's writes are in the bitmap. Then the next four attributes are set.
        newly_dirty_pages: pages that were clean in the bitmap before.
        merge_ns: when it merged.
        pending_before, sent_pages: dirty pages in the bitmap before, and pages sent since the start.
        pending_pages: dirty pages in the bitmap afterwards.
        cursor_page, pass_number: where the sender was.
        end_ns, period: when it ended, and the period that it closed, if it closed one.
    """

    kind: SyncKind
    start_ns: int
    answered_ns: int
    waits_for_burst: bool = False
    protect_ns: int = 0
    is_merged: bool = False
    newly_dirty_pages: int = 0
    merge_ns: int = 0
    pending_before: int = 0
    sent_pages: int = 0
    pending_pages: int = 0
    cursor_page: int = 0
    pass_number: int = 0
    end_ns: int = 0
    period: Period | None = None


class WriteLog:
    """The guest's writes since the last draw, and the chunks that were cleared since."""

    def __init__(self, state: MigrationState) -> None:
        self._state = state
        self._drawn_to_ns = 0
        self._cleared_at_ns: IntArray = np.full(state.scenario.layout.chunks, -1, np.int64)

    def note_clears(self, clears: list[tuple[IntArray, IntArray]]) -> None:
        """Remember when remote clears protected chunks anew: int64 [n] chunks and int64 [n] ns."""
        for chunks, times_ns in clears:
            self._cleared_at_ns[chunks] = times_ns

    def draw_writes(self) -> int:
        """Draw the writes since the last draw into the bitmap, and return the newly dirty pages."""
        state, since_ns = self._state, self._drawn_to_ns
        guest, pages, vm_ns = state.guest, state.pages, state.clock.vm_ns
        self._drawn_to_ns = now_ns = state.clock.now_ns
        self.settle(now_ns)
        if not state.scenario.tracking.protects_at_read:
            guest.faults.protect()
        if not state.scenario.tracking.lazy:
            return pages.sync(guest.writes(vm_ns(since_ns), vm_ns(now_ns)))
        cleared = self._cleared_at_ns >= 0
        split_ns = np.where(cleared, np.minimum(self._cleared_at_ns, now_ns), since_ns)
        split_ns = state.clock.vm_times_ns(split_ns)
        self._cleared_at_ns[:] = -1
        before, after = guest.writes_around(vm_ns(since_ns), split_ns, vm_ns(now_ns))
        return pages.sync(after, before_clear=before)

    def settle(self, now_ns: int) -> None:
        """Count the guest's first writes up to a time, which needs the times of the clears."""
        clock, faults = self._state.clock, self._state.guest.faults
        faults.advance(clock.vm_ns(now_ns), clock.vm_times_ns(self._cleared_at_ns))

    def protect_pages(self) -> float:
        """Let a sync read the log now, and return how many pages it protects."""
        if not self._state.scenario.tracking.protects_at_read:
            return 0.0
        self.settle(self._state.clock.now_ns)
        return self._state.guest.faults.protect()


class Syncs:
    """Runs the syncs of one migration.

    Args:
        state: of the migration.
        recorder: records each sync.
        after_sync: is called at the end of each sync.

    Attributes:
        writes: what the next sync draws.
        lock: QEMU's big lock.
        unfinished: a sync of the migration thread that the end of the run cuts short.
    """

    def __init__(
        self,
        state: MigrationState,
        recorder: Recorder,
        after_sync: Callable[[DirtySync], None],
    ) -> None:
        self._state, self._recorder, self._after_sync = state, recorder, after_sync
        self.writes = WriteLog(state)
        self.lock = BigLock(state, self.writes.settle)
        self.unfinished: DirtySync | None = None
        self._stalled_to_ns = 0  # the sender's stalls are counted up to here

    def run(self, kind: SyncKind) -> None:
        """Run a whole sync of the migration thread, which holds the big lock and waits for it."""
        scenario, start_ns = self._state.scenario, self._state.clock.now_ns
        sync = self.unfinished = self.begin(kind)
        self.read(sync)
        self.merge(sync)  # raises if the wall-clock limit is reached
        read_ns = self.reads_at_ns(sync) + sync.protect_ns + scenario.tracking.log_sync_ns
        end_ns = self.ends_at_ns(read_ns + scenario.tracking.merge_ns)
        if kind == "final":
            self._state.sender.stall(start_ns, end_ns)  # counts as downtime, not as a stall
        else:
            self.stall_sender(start_ns, end_ns)
        if kind != "final" and end_ns > scenario.simulated_limit_ns:
            self.lock.sync_until_ns = end_ns
        else:
            self.unfinished = None
            self.end(sync, end_ns)

    def cut(self, sync: DirtySync) -> None:
        """Record a sync that the end of the run cuts short. It decides nothing."""
        sync.end_ns = self._state.clock.now_ns
        if not sync.is_merged:
            self._note_pages_before(sync)
            self._note_pages_after(sync)
        self._note_in_journal(sync, is_cut=True)
        self._record(sync)
        self._count_main_loop_stall(sync)

    def begin(self, kind: SyncKind, *, due_ns: int | None = None) -> DirtySync:
        """Start a sync now.

        Args:
            kind: of the sync.
            due_ns: when the fallback timer was due on the VM's clock, if it syncs.
        """
        now_ns = self._state.clock.now_ns
        self._state.accounting.begin(now_ns // NS_PER_MS)
        self._recorder.record_event("migration_bitmap_sync_start")
        self.lock.begin_sync(by_main_loop=kind == "fallback")
        # With a dirty ring, QEMU first waits for all vCPUs, without the lock.
        waits = self._state.scenario.tracking.waits_for_vcpus == "before"
        answered_ns = self.vcpus_answer_ns(now_ns) if waits else now_ns
        if kind != "final":  # the VM is stopped at the final sync
            self._state.run_time.hold(self._state.clock.vm_ns(answered_ns), due_ns=due_ns)
        return DirtySync(kind=kind, start_ns=now_ns, answered_ns=answered_ns)

    def reads_at_ns(self, sync: DirtySync) -> int:
        """Return when a sync begins to read the log.

        A ring holds all writes once the vCPUs answered. KVM's log is free once a chunk is cleared.
        """
        return max(sync.answered_ns, self._state.sender.cleared_ns)

    def ends_at_ns(self, merged_ns: int) -> int:
        """Return when a sync ends that has merged the log. TCG waits for its vCPUs then."""
        waits = self._state.scenario.tracking.waits_for_vcpus == "after"
        return self.vcpus_answer_ns(merged_ns) if waits else merged_ns

    def read(self, sync: DirtySync) -> None:
        """Read the log. Eager tracking protects the pages in it."""
        tracking = self._state.scenario.tracking
        if sync.kind == "setup":  # every page is dirty already
            sync.protect_ns = tracking.start_ns
        else:
            sync.protect_ns = round(self.writes.protect_pages() * tracking.sync_protect_ns)

    def merge(self, sync: DirtySync) -> None:
        """Bring the guest's writes into the bitmap."""
        self._recorder.sample()
        self._note_pages_before(sync)
        if sync.kind != "setup":  # every page is dirty already
            sync.newly_dirty_pages = self.writes.draw_writes()
        sync.is_merged = True
        self._note_pages_after(sync)

    def end(self, sync: DirtySync, end_ns: int) -> None:
        """End a sync: account for it, and let the throttle decide."""
        sync.end_ns = end_ns
        self.lock.end_sync(end_ns)
        self._note_in_journal(sync, is_cut=False)
        accounting = self._state.accounting
        dirty_pages = accounting.num_dirty_pages_period + sync.newly_dirty_pages
        sync.period = accounting.end(
            end_ns // NS_PER_MS,
            sync.newly_dirty_pages,
            self._state.sender.flushed_bytes,
            sync.pending_pages,
            sync.kind,
        )
        self._recorder.record_event(
            "migration_bitmap_sync_end", at_ns=end_ns, dirty_pages=dirty_pages
        )
        self._decide_throttle(sync)
        if sync.kind != "final":
            # TCG gives the lock back while it waits for vCPUs, so these wake before it ends.
            waits = self._state.scenario.tracking.waits_for_vcpus == "after"
            by_main_loop = sync.kind == "fallback" and not waits
            vm_ns = self._state.clock.vm_ns(end_ns)
            self._state.run_time.release(vm_ns, by_main_loop=by_main_loop)
            self.lock.follow_reaper()
        self._record(sync)
        self._recorder.sample()
        if sync.kind != "final":  # the VM is stopped at the final sync
            self._count_main_loop_stall(sync)
        self._after_sync(sync)

    def count_reaper_holds(self, vm_ns: int) -> None:
        """Count how long the reaper of dirty rings held the big lock up to a VM's time."""
        reaper = self._state.guest.faults.reaper
        if reaper is None:
            return
        for held_ns, count in reaper.holds_by(vm_ns):
            self._count_hold(held_ns, count)
        if self._state.journal is not None:
            self._state.journal.reaper_holds.extend(reaper.holds)

    def stall_sender(self, from_ns: int, until_ns: int) -> None:
        """Hold the sender up."""
        if until_ns > from_ns:
            self.count_sender_stall(self._state.sender.stall(from_ns, until_ns), until_ns)

    def count_sender_stall(self, from_ns: int, until_ns: int) -> None:
        """Count a time in which the sender waits, except what was counted already."""
        if until_ns > from_ns:
            counted_to_ns = min(until_ns, self._state.scenario.simulated_limit_ns)
            stall_ns = max(0, counted_to_ns - max(from_ns, self._stalled_to_ns))
            self._recorder.stalls.sender_ns += stall_ns
            self._stalled_to_ns = max(self._stalled_to_ns, counted_to_ns)

    def end_stalls(self) -> None:
        """Count no stall after the end of the run, which is now."""
        later_ns = max(0, self._stalled_to_ns - self._state.clock.now_ns)
        self._recorder.stalls.sender_ns -= later_ns
        self._stalled_to_ns -= later_ns

    def vcpus_answer_ns(self, t_ns: int) -> int:
        """Return when every vCPU has answered a request made at `t_ns`.

        A vCPU that the throttle put to sleep answers when it wakes. A paused one answers at once.
        """
        if not self._state.clock.vm_runs:
            return t_ns
        sleeps_ns = self._state.scenario.tracking.recorded_sleeps_ns
        if sleeps_ns and t_ns < sleeps_ns[-1][1]:
            place = bisect.bisect_right(sleeps_ns, (t_ns, NEVER_NS)) - 1
            return max(t_ns, sleeps_ns[place][1]) if place >= 0 else t_ns
        vm_ns = self._state.clock.vm_ns(t_ns)
        return t_ns + self._state.run_time.wakes_at_ns(vm_ns) - vm_ns

    def _decide_throttle(self, sync: DirtySync) -> None:
        """Raise the throttle if the rule says so.

        A throttle that the final sync sets is traced but has no effect: the VM has stopped.
        """
        state, recorder, throttle = self._state, self._recorder, self._state.throttle
        end_ns, page_bytes = sync.end_ns, state.scenario.page_bytes
        triggered = throttle.on_sync(
            Sync(
                kind=sync.kind,
                time_ns=end_ns,
                dirty_sync_count=state.accounting.dirty_sync_count,
                newly_dirty_bytes=sync.newly_dirty_pages * page_bytes,
                remaining_bytes=sync.pending_pages * page_bytes,
            )
        )
        if sync.period is not None:
            triggered |= throttle.on_period(sync.period)
        if not triggered:
            return
        percent = throttle.percent
        recorder.record_event("migration_throttle", at_ns=end_ns)
        recorder.record_event("cpu_throttle_set", at_ns=end_ns, percent=percent)
        if sync.kind != "final" and percent != state.run_time.percent:
            state.run_time.throttle(state.clock.vm_ns(end_ns), percent)
            recorder.throttle_steps.append((end_ns, percent))

    def _count_main_loop_stall(self, sync: DirtySync) -> None:
        end_ns = min(sync.end_ns, self._state.scenario.simulated_limit_ns)
        self._count_hold(max(0, end_ns - sync.start_ns))

    def _count_hold(self, held_ns: int, count: int = 1) -> None:
        """Count equal holds that kept the big lock from the main loop and from vCPUs.

        Each vCPU needs the big lock at random times. It runs until then, and stands still after.
        """
        scenario, stalls = self._state.scenario, self._recorder.stalls
        stalls.main_loop_ns += count * held_ns
        if count:
            stalls.longest_main_loop_ns = max(stalls.longest_main_loop_ns, held_ns)
        exits_per_s, held_s = scenario.config.vm.big_lock_exits_per_s, held_ns / NS_PER_S
        if exits_per_s:
            runs_s = -math.expm1(-exits_per_s * held_s) / exits_per_s
            stalls.vcpu_s += count * scenario.vcpus * (held_s - runs_s)

    def _note_pages_before(self, sync: DirtySync) -> None:
        sent = self._state.sender.counters
        sync.merge_ns, sync.pending_before = self._state.clock.now_ns, self._state.pages.pending
        sync.sent_pages = sent.normal_pages + sent.zero_pages

    def _note_pages_after(self, sync: DirtySync) -> None:
        pages = self._state.pages
        sync.pending_pages, sync.cursor_page = pages.pending, pages.cursor.guest_page
        sync.pass_number = pages.cursor.wraps + 1

    def _note_in_journal(self, sync: DirtySync, *, is_cut: bool) -> None:
        if self._state.journal is None:
            return
        by_main_loop = sync.kind == "fallback"
        tracking = self._state.scenario.tracking
        mutex_ns = sync.merge_ns, sync.merge_ns + tracking.merge_ns
        if not by_main_loop:  # the migration thread sends nothing while it syncs
            mutex_ns = sync.start_ns, sync.end_ns
        elif not (sync.is_merged and tracking.waits_for_burst):  # it holds no mutex
            mutex_ns = sync.merge_ns, sync.merge_ns
        self._state.journal.syncs.append(
            SyncEntry(
                by_main_loop=by_main_loop,
                is_cut=is_cut,
                start_ns=sync.start_ns,
                end_ns=sync.end_ns,
                mutex_from_ns=mutex_ns[0],
                mutex_until_ns=mutex_ns[1],
                protect_ns=sync.protect_ns,
                pending_before=sync.pending_before,
                newly_dirty=sync.newly_dirty_pages,
                pending_pages=sync.pending_pages,
                sent_pages=sync.sent_pages,
            )
        )

    def _record(self, sync: DirtySync) -> None:
        self._recorder.record_sync(self._make_record(sync), sync.start_ns, sync.sent_pages)

    def _make_record(self, sync: DirtySync) -> SyncRecord:
        state, period = self._state, sync.period
        return SyncRecord(
            dirty_sync_count=state.accounting.dirty_sync_count,
            kind=sync.kind,
            time_s=sync.start_ns / NS_PER_S,
            duration_ms=(sync.end_ns - sync.start_ns) / NS_PER_MS,
            newly_dirty_pages=sync.newly_dirty_pages,
            remaining_bytes=sync.pending_pages * state.scenario.page_bytes,
            transferred_bytes=state.sender.flushed_bytes,
            threshold_bytes=state.sender.threshold_bytes,
            bandwidth_bytes_per_s=state.sender.bandwidth,
            cursor_page=sync.cursor_page,
            pass_number=sync.pass_number,
            cpu_throttle_percentage=state.run_time.percent,
            dirty_rate_high_cnt=state.throttle.dirty_rate_high_cnt,
            period_ms=period.length_ms if period else None,
            bytes_dirty_period=period.dirty_bytes if period else None,
            bytes_xfer_period=period.xfer_bytes if period else None,
            dirty_pages_rate=period.dirty_pages_rate if period else None,
        )
