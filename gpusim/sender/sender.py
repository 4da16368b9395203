"""The migration thread: how time becomes pages on the link.

The sender sees pages only through `SendablePages`. A predicate tells it at which turns of the main
loop QEMU does more than send. The sender sends many equal windows in one take.

Source: migration/migration.c:migration_thread, migration_rate_limit and
migration_update_counters, ram.c:ram_save_iterate, savevm.c:qemu_savevm_state_iterate [7.2 to 10.1].
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gpusim.layout import CHUNK_PAGES, IntArray, Taken
from gpusim.sender.burst import BURST_CHECK_PAGES, BURST_PS, UNLIMITED, Burst, BurstLimits
from gpusim.sender.counters import Counters
from gpusim.sender.link import UNITS, Link
from gpusim.sender.pace import Pace
from gpusim.sender.sendable_pages import SendablePages
from gpusim.sender.tally import Tally
from gpusim.sender.windows import WINDOW_PS, Delays, Window, WindowPlan, plan_window
from gpusim.units import PS_PER_NS

RETURN_AFTER_BURSTS = 64  # so that a caller can show progress
LAST_CLEAR_PS = UNLIMITED, 0, 0  # a clear that may wait for a lock ends its take
LONGEST_JUMP_PS = 2**62  # 53 days


@dataclass(kw_only=True)
class Advance:
    """The result of `Sender.advance`.

    Attributes:
        at_ns: when the sender stopped.
        turn: the sender stopped before a turn of the main loop that does more than send.
        bursts: number of bursts that ended one by one.
        clears: int64 [n], chunks that were cleared, and int64 [n], the time of each clear in ns.
        lock_waits: (ns, ns) of each remote clear that waited for a sync that read KVM's log.
    """

    at_ns: int = 0
    turn: bool = False
    bursts: int = 0
    clears: list[tuple[IntArray, IntArray]] = field(default_factory=list)
    lock_waits: list[tuple[int, int]] = field(default_factory=list)


class Sender:
    """The migration thread.

    Args:
        link: the link.
        max_bandwidth: bytes per second. 0: unlimited.
        page_bytes: bytes of a guest page.
        counts_flushed_bytes: the rate limit counts bytes when a buffer is flushed, not when they
            are queued.
        threshold: returns the bytes that fit the downtime limit at a bandwidth.
        acts: returns whether a turn does more than send, from the estimate and the threshold in
            bytes. If it is true for one estimate, then it is true for every smaller one.
        end_window: is called at the end of a window with the bytes that it sent. Of equal windows
            only the last one calls it.
        estimate: returns the expected bandwidth at the end of equal windows, from their number, the
            bandwidth, bytes, ns and ns of syncs of each. Its result is at most the larger of the
            result before and that bandwidth. None: the bandwidth of the last window.
        joins_bursts: for estimates. A burst ends as if all its pages were of one kind. Without a rate
            limit, one take is many bursts, whatever their pages.

    Attributes:
        counters: what has been sent so far.
        tally: what set the rate so far.
        bandwidth: bytes per second of the last closed window. 0 before the first window closes.
        expected_bandwidth: bytes per second that are expected for the switchover.
        threshold_bytes: QEMU's threshold_size at the expected bandwidth.
        sends: if a list, then it gets (ps, ps) of each part of a burst and of equal windows.
    """

    def __init__(
        self,
        link: Link,
        *,
        max_bandwidth: int,
        page_bytes: int,
        counts_flushed_bytes: bool,
        threshold: Callable[[float], int],
        acts: Callable[[int, int], bool],
        end_window: Callable[[int], None] = lambda sent_bytes: None,
        estimate: Callable[[int, float, int, int, int], float] | None = None,
        joins_bursts: bool = False,
    ) -> None:
        self._link, self._page_bytes = link, page_bytes
        self._threshold, self._acts, self._end_window = threshold, acts, end_window
        self.counters = Counters()
        self.tally = Tally(link)
        self._estimate, self._joins_bursts = estimate, joins_bursts
        self.bandwidth, self.expected_bandwidth, self.threshold_bytes = 0.0, 0.0, 0
        self.sends: list[tuple[int, int]] | None = None
        self._pace = Pace(link)
        self._limits = BurstLimits(
            link,
            self._pace,
            max_bandwidth=max_bandwidth,
            counts_flushed_bytes=counts_flushed_bytes,
        )
        self._section_units = link.section_bytes * UNITS
        self._slept_window_ps = WINDOW_PS + link.wakeup_latency_ns * PS_PER_NS
        self._wraps = link.multifd is None  # in the middle of a take
        self._now_ps = self._wake_ps = self._held_to_ps = self._stalled_to_ps = 0
        self._synced_to_ps = 0
        self._cleared_ps = self._clear_ps = 0  # end and length of the last remote clear of a burst
        # A sync holds the lock of KVM's slots, which clears need, from and until these times.
        self._slots_held_ps = self._slots_free_ps = 0
        # A normal or a zero page that was counted with the clear before it, and when it is sent, ps.
        self._ahead = 0, 0, 0
        self._window = Window()
        self._next_sync_ps = 0  # time of syncs in this window's sleep that hold up the next window
        self._burst: Burst | None = None
        self._has_wrapped = False  # the last take began at the end of RAM, and no page fitted
        self._sleeping = False  # for the rest of the window
        self._turn_is_over = False  # the caller has acted on the turn before the next burst
        self._plans = self._make_plans()

    @property
    def _now_ns(self) -> int:
        return -(-self._now_ps // PS_PER_NS)

    @property
    def flushed_bytes(self) -> int:
        """QEMU's migration_transferred_bytes: the last pages of a burst wait for a flush."""
        waiting = 0
        if self._burst is not None:
            part = self._burst.normal_pages % self._limits.flush_pages[0]
            waiting = min(self._burst.normal_pages, part + self._link.pages_in_flight)
        return (self.counters.sent_units - waiting * self._pace.normal.units) // UNITS

    @property
    def in_burst(self) -> bool:
        """Whether the thread holds the bitmap's mutex, which it does for a whole burst.

        Source: migration/ram.c:ram_save_iterate [7.2 to 10.1].
        """
        return self._burst is not None

    @property
    def cleared_ns(self) -> int:
        """When the last remote clear ends. It may have begun before a time at which the thread stops."""
        return -(-self._cleared_ps // PS_PER_NS)

    def hold_slots(self, from_ns: int, until_ns: int) -> None:
        """Let remote clears wait between two times, while a sync reads KVM's log.

        Source: accel/kvm/kvm-all.c:kvm_log_sync, kvm_physical_log_clear (kvm_slots_lock) [7.2 to 11.1].
        """
        self._slots_held_ps = from_ns * PS_PER_NS
        self._slots_free_ps = until_ns * PS_PER_NS

    @property
    def sleeps(self) -> bool:
        """Whether the thread sleeps for the rest of its window."""
        return self._sleeping

    @property
    def awake_ns(self) -> int:
        """When the thread runs next: now, unless it sleeps or is stalled."""
        return -(-max(self._now_ps, self._wake_ps, self._held_to_ps) // PS_PER_NS)

    def remote_clear_ps(self, end_ns: int) -> int:
        """Return the time of all remote clears up to the end of the run, which may cut the last."""
        cut_ps = max(0, self._cleared_ps - end_ns * PS_PER_NS)
        return self.counters.remote_clear_ps - min(self._clear_ps, cut_ps)

    def sent_by(self, at_ns: int) -> Counters:
        """Return what the link has carried at a time, which is not before the last stop.

        A remote clear and the page behind it are one step, so the thread may have counted a page that
        the link has yet to carry. `counters` include it.
        """
        normal, zero, sent_ps = self._ahead
        if sent_ps <= at_ns * PS_PER_NS:
            return self.counters
        units = normal * self._pace.normal.units + zero * self._pace.zero.units
        return replace(
            self.counters,
            normal_pages=self.counters.normal_pages - normal,
            zero_pages=self.counters.zero_pages - zero,
            sent_units=self.counters.sent_units - units,
        )

    def limit_bandwidth(self, max_bandwidth: int) -> None:
        """Set max-bandwidth. A thread that sleeps does not wake. A burst first ends its page.

        Args:
            max_bandwidth: bytes per second. 0: unlimited.

        Source: migration/migration.c:migration_rate_set.
        """
        self._limits.set_max_bandwidth(max_bandwidth)
        self._plans = self._make_plans()
        burst = self._burst
        if burst is not None and self._link.recorded is None:
            so_far = burst.sent_units if self._link.host_pages == 1 else 0
            before = self._window.sent_units - so_far
            limit = self._limits.units(before, is_zero=burst.is_zero)
            cost = self._pace.cost(is_zero=burst.is_zero)
            burst.units_left = max(cost.units, limit - so_far)
            burst.least_pages = burst.pages + 1
            burst.see_limits(cost)

    def advance(
        self, to_ns: int, pages: SendablePages, *, to_burst_end: int = 0, to_turn: bool = False
    ) -> Advance:
        """Send until a time, or until a turn at which the main loop does more than send.

        The sender may stop earlier, so that the caller can show progress: after equal windows, if it
        does not join bursts, and after RETURN_AFTER_BURSTS bursts.

        Args:
            to_ns: the time.
            pages: the pages to send.
            to_burst_end: stop when so many bursts have ended, or after one behind which the thread
                sleeps. 0: do not stop for them.
            to_turn: stop before the next burst, as at a turn at which the main loop acts.
        """
        to_ps = to_ns * PS_PER_NS
        done = Advance(at_ns=to_ns)
        bursts = 0
        while self._now_ps <= to_ps:
            if bursts >= RETURN_AFTER_BURSTS and self._now_ns < to_ns:
                done.at_ns = self._now_ns
                break
            if self._waits(self._wake_ps, to_ps):
                break
            if self._sleeping:
                self._sleeping = False
                self._close_window(slept_ps=self._slept_window_ps)
            if self._waits(self._held_to_ps, to_ps):
                break
            while self._pace.is_due(self._now_ps):
                self._change_pace()
            stop_ps = self._stop_ps(to_ps)
            if self._burst is None:
                if not self._turn_is_over and (
                    to_turn or self._acts(pages.pending * self._page_bytes, self.threshold_bytes)
                ):
                    done.at_ns, done.turn = self._now_ns, True
                    break
                ahead = pages.run_ahead(wraps=self._wraps)
                jumps = not (to_burst_end or to_turn) and self._link.host_pages == 1
                if jumps and self._jump(*ahead, stop_ps, pages, done):
                    bursts += 1 if self._joins_bursts else RETURN_AFTER_BURSTS
                    continue
                self._begin_burst(*ahead, mixes=pages.mixes_kinds and not self._joins_bursts)
                bursts += 1
            send = self._send if self._link.host_pages == 1 else self._send_host_pages
            if not send(stop_ps, pages, done):
                if stop_ps == to_ps:
                    break
                self._change_pace()
            elif self._burst is None:
                done.bursts += 1
                if to_burst_end and (done.bursts >= to_burst_end or self._sleeping):
                    done.at_ns = min(self._now_ns, to_ns)
                    break
        return done

    def iterate(self) -> None:
        """Go on after the turn at which `advance` stopped."""
        self._turn_is_over = True

    def _waits(self, until_ps: int, to_ps: int) -> bool:
        """Wait until a time, or to `to_ps`. Return whether `to_ps` comes first."""
        if self._now_ps < until_ps:
            self._now_ps = min(until_ps, to_ps)
        return self._now_ps < until_ps

    def stall(self, from_ns: int, until_ns: int) -> int:
        """Send nothing between two times, because of a sync or a lock.

        The window under way lasts longer, unless the thread sleeps. A sleep ends at the end of its
        window, and the window closes. Only then does the thread wait for the bitmap's mutex.

        Returns:
            When the stall begins: `from_ns`, or the end of the sleep.

        Source: migration/migration.c:migration_thread, migration_rate_limit and
        migration_update_counters, which need no mutex; ram.c:ram_save_iterate [7.2 to 10.1].
        """
        if self._sleeping:
            from_ns = max(from_ns, -(-self._wake_ps // PS_PER_NS))
            until_ns = max(from_ns, until_ns)
        synced_from_ps = max(from_ns * PS_PER_NS, self._synced_to_ps)
        self._synced_to_ps = max(self._synced_to_ps, until_ns * PS_PER_NS)
        sync_ps = max(0, self._synced_to_ps - synced_from_ps)
        if self._sleeping:
            self._next_sync_ps += sync_ps
        else:
            self._window.sync_ps += sync_ps
        if self._burst is None or self._sleeping:
            self._held_to_ps = max(self._held_to_ps, until_ns * PS_PER_NS)
        else:  # the page on the link continues after the stall
            self._now_ps += (until_ns - from_ns) * PS_PER_NS
            if self._cleared_ps > from_ns * PS_PER_NS:
                self._cleared_ps += (until_ns - from_ns) * PS_PER_NS
            normal, zero, sent_ps = self._ahead
            if sent_ps > from_ns * PS_PER_NS:
                self._ahead = normal, zero, sent_ps + (until_ns - from_ns) * PS_PER_NS
            self._stalled_to_ps = until_ns * PS_PER_NS
        return from_ns

    def drain(self, pages: SendablePages, *, clears: bool = True) -> int:
        """Send all pending pages without a rate limit. Return how long that takes, in ns.

        Args:
            pages: the pages to send.
            clears: the thread clears chunks before their first page, as in every pass.
        """
        clears_before = self.counters.remote_clears
        if not clears:
            self._pace.clear_ps = (0, 0, 0)
        start_ps = now_ps = max(self._now_ps, self._wake_ps, self._held_to_ps)
        if self._link.recorded:
            costs_ps = self._link.page_ps()
        else:
            costs_ps = self._pace.normal.ps, self._pace.zero.ps
        for at_ps, *later in self._pace.changes:
            later_ps = later[0], later[1]
            if at_ps > now_ps and pages.pending:
                now_ps = self._drain(pages, now_ps, costs_ps, until_ps=at_ps)
                if pages.pending and costs_ps != later_ps:
                    now_ps = max(now_ps, at_ps)
            costs_ps = later_ps
            self.tally.change_link()
        now_ps = self._drain(pages, now_ps, costs_ps)
        self._note_send(start_ps, now_ps)
        if not clears:
            self.counters.remote_clears = clears_before
        return -(-(now_ps - start_ps) // PS_PER_NS)

    def _drain(
        self,
        pages: SendablePages,
        now_ps: int,
        costs_ps: tuple[int, int],
        until_ps: int | None = None,
    ) -> int:
        """Send until a time. Return when that is done, in ps."""
        normal_ps, zero_ps = costs_ps
        while until_ps is None or now_ps < until_ps:
            least_ps = 0
            if pages.at_end and pages.pending:
                now_ps += self._wrap()
                least_ps = max(normal_ps, zero_ps)  # a wrap and its first page are one step
            if until_ps is None:
                taken, delays = self._take(pages, [(UNLIMITED, 1, 1)], (0, 0, 0))
            else:
                budget = max(least_ps, until_ps - now_ps), normal_ps, zero_ps
                taken, delays = self._take(pages, [budget], self._pace.clear_ps)
            if taken.wrapped_after is not None:
                normal, zero = taken.wrapped_after
                delay_ps = int(delays.at(np.array([normal + zero]))[0])
                ended_ps = now_ps + normal * normal_ps + zero * zero_ps + delay_ps
                self.counters.pass_ends_ns.append(ended_ps // PS_PER_NS)
            now_ps += taken.normal * normal_ps + taken.zero * zero_ps + delays.total_ps
            if not (pages.pending and pages.at_end):
                break
        return now_ps

    def _take(
        self,
        pages: SendablePages,
        budgets: Sequence[tuple[int, int, int]],
        clear_ps: tuple[int, int, int],
        plan: WindowPlan | None = None,
    ) -> tuple[Taken, Delays]:
        """Take pages and count them."""
        starts_at_end = pages.at_end and pages.pending > 0
        taken = pages.take(budgets, clear=clear_ps, wraps=self._wraps)
        self._has_wrapped = starts_at_end and not taken.normal + taken.zero
        clears_ps = self._pace.clears_ps(taken.protected, taken.first_protected)
        time_ps = int(clears_ps.sum())
        counters = self.counters
        counters.normal_pages += taken.normal
        counters.zero_pages += taken.zero
        counters.sent_units += self._page_units(taken)
        counters.remote_clears += len(taken.cleared)
        counters.remote_clear_ps += time_ps
        self.tally.count(taken.normal, taken.zero, time_ps)
        return taken, Delays(taken.normal_before + taken.zero_before, clears_ps, plan)

    def _page_units(self, taken: Taken) -> int:
        return taken.normal * self._pace.normal.units + taken.zero * self._pace.zero.units

    def _wrap(self) -> int:
        """Let the cursor wrap, at which multifd channels sync. Return the time without a page, ps.

        A wrap and its first page are one step. So if no page fitted, then the next take does not
        count the wrap again.

        Source: migration/ram.c:find_dirty_block, multifd-nocomp.c:multifd_ram_flush_and_sync
        (v10.1.0).
        """
        if self._has_wrapped:
            return 0
        units = self._link.wrap_bytes * UNITS
        self.counters.sent_units += units
        self._window.sent_units += units
        if self._burst is not None:
            self._burst.units_left = max(0, self._burst.units_left - units)
        return self._link.wrap_ps

    def _goes_on_at_start(self, pages: SendablePages) -> bool:
        """Whether the last take reached the end of RAM, and the next one wraps.

        If the last take began at the end and took nothing, then its budgets ended it.
        """
        return pages.pending > 0 and pages.at_end and not self._has_wrapped

    def _close_window(self, slept_ps: int | None = None) -> None:
        self.tally.end_windows(slept_ps)
        window, length_ps = self._window, self._now_ps - self._window.start_ps
        bandwidth, sync_ps = window.bandwidth(self._now_ps), min(window.sync_ps, length_ps)
        self._expect(1, bandwidth, window.sent_units, length_ps, sync_ps)
        self._set_bandwidth(bandwidth, window.sent_units)
        window.restart(self._now_ps)
        window.sync_ps, self._next_sync_ps = self._next_sync_ps, 0

    def _expect(
        self, count: int, bandwidth: float, sent_units: int, length_ps: int, sync_ps: int
    ) -> None:
        """Let the rule for the expected bandwidth see equal windows, if there is one."""
        if self._estimate is not None:
            times_ns = length_ps // PS_PER_NS, sync_ps // PS_PER_NS
            sent_bytes = sent_units // UNITS
            self.expected_bandwidth = self._estimate(count, bandwidth, sent_bytes, *times_ns)

    def _set_bandwidth(self, bandwidth: float, sent_units: int) -> None:
        self.bandwidth = bandwidth
        if self._estimate is None:
            self.expected_bandwidth = bandwidth
        self.threshold_bytes = self._threshold(self.expected_bandwidth)
        self._end_window(sent_units // UNITS)

    def _stop_ps(self, to_ps: int) -> int:
        """The next time at which the costs change, but not later than a time."""
        changes = self._pace.changes
        return min(to_ps, changes[0][0]) if changes else to_ps

    def _change_pace(self) -> None:
        """Let the link change. Pages of the burst under way cost the new time, too.

        The page on the link starts again. At most one page is lost, and the link never sends too
        much.
        """
        at_ps = self._pace.changes[0][0]
        self.tally.change_link()
        if not self._pace.apply_change():
            return
        self._plans = self._make_plans()
        burst = self._burst
        if burst is not None:
            burst.spent_ps += max(0, at_ps - self._now_ps)
            self._now_ps = max(self._now_ps, at_ps)
            burst.ps_left = self._limits.ps(
                is_zero=burst.is_zero, pages=burst.pages, spent_ps=burst.spent_ps
            )
            if not burst.pages:
                burst.ps_left = max(burst.ps_left, self._pace.normal.ps, self._pace.zero.ps)
            burst.see_limits(self._pace.cost(is_zero=burst.is_zero))

    def _begin_burst(self, is_zero: bool, alike: int, *, mixes: bool) -> None:
        normal, zero = self._pace.normal, self._pace.zero
        is_zero = is_zero and alike > 0
        units_left = self._limits.units(self._window.sent_units, is_zero=is_zero)
        ps_left = self._limits.ps(is_zero=is_zero)
        if not alike:  # a burst sends one page of either kind before it checks its limits
            units_left = max(units_left, normal.units, zero.units)
            ps_left = max(ps_left, normal.ps, zero.ps)
        allowed = self._allowed_units()
        self._burst = Burst(
            is_zero=is_zero,
            alike=alike if mixes else None,
            units_left=min(units_left, allowed),
            allowed_units=allowed,
            ps_left=ps_left,
            start_ps=self._now_ps,
        )
        self._burst.see_limits(self._pace.cost(is_zero=is_zero))

    def _allowed_units(self) -> int:
        """What a recorded link still sends in the window under way."""
        if self._link.recorded is None:
            return UNLIMITED
        end_ps = self._window.start_ps + self._slept_window_ps
        return max(0, self._link.recorded.bytes_by(end_ps) * UNITS - self.counters.sent_units)

    def _send(self, to_ps: int, pages: SendablePages, done: Advance) -> bool:
        """Continue the burst until a time. Return False if the time came first.

        The burst's limit of 50 ms excludes the time of remote clears.
        """
        burst, normal, zero = self._burst, self._pace.normal, self._pace.zero
        assert burst is not None
        if burst.is_mixed:
            return self._send_mixed(burst, to_ps, pages, done)

        def budgets() -> list[tuple[int, int, int]]:
            in_time = burst.ps_left, normal.ps, zero.ps
            if burst.units_left > UNLIMITED // 2:  # no rate limit
                return [in_time]
            return [(burst.units_left, normal.units, zero.units), in_time]

        left_ps = self._send_pages(
            budgets,
            to_ps,
            to_ps,
            pages,
            done,
        )
        if left_ps < 0:  # inside a clear or the page behind it, so inside the burst, too
            return False
        cost = self._pace.cost(is_zero=burst.is_zero)
        is_full, is_late = burst.units_left < cost.units, burst.ps_left < cost.ps
        is_cut_short = left_ps < min(burst.ps_left, max(normal.ps, zero.ps))
        if pages.pending and is_cut_short and not is_full:
            return False
        if self._goes_on_at_start(pages) and not (is_full or is_late):
            return True
        self._end_burst(is_drained=not pages.pending)
        return True

    def _send_mixed(self, burst: Burst, to_ps: int, pages: SendablePages, done: Advance) -> bool:
        """Continue a burst of both kinds of pages, in their order, see `_send`.

        It takes pages up to the limit, then the page that goes over it. Then it takes pages up to the
        flush that ends the burst, or until the burst reads the clock.
        """
        normal, zero = self._pace.normal, self._pace.zero
        dearest_ps, certainly_over = max(normal.ps, zero.ps), False
        before = 0

        def certain() -> list[tuple[int, int, int]] | None:
            return self._limits.next_budgets(burst, self._window.sent_units, certainly_over)

        def certain_and_allowed() -> list[tuple[int, int, int]]:
            found = certain()  # None: a clear has waited until the burst was over
            return [*([(0, 1, 1)] if found is None else found), *burst.allowed(normal, zero)]

        def one_page() -> list[tuple[int, int, int]]:
            return [(1 + before - burst.pages, 1, 1), *burst.allowed(normal, zero)]

        while pages.pending and certain() is not None:
            before = burst.pages
            left_ps = self._send_pages(certain_and_allowed, to_ps, to_ps, pages, done)
            if left_ps < 0:
                return False
            wraps = self._goes_on_at_start(pages)
            units_fit = self._limits.fits(burst, self._window.sent_units)
            if not wraps and left_ps >= dearest_ps and units_fit and not certainly_over:
                certainly_over = True  # only the 50 ms can have ended the take
                continue
            if burst.pages == before and not wraps:
                left_ps = self._send_pages(one_page, to_ps, to_ps, pages, done)
                if left_ps < 0:
                    return False
                wraps = self._goes_on_at_start(pages)
                if burst.pages == before and left_ps >= dearest_ps and not wraps:
                    break  # a recorded link sends no more in this window
            if burst.pages == before and left_ps < dearest_ps:
                return False
        self._end_burst(is_drained=not pages.pending)
        return True

    def _send_host_pages(self, to_ps: int, pages: SendablePages, done: Advance) -> bool:
        """Continue a burst of whole host pages until a time. Return False if the time came first.

        After each page QEMU closes a window that is over, and sleeps if the window's bytes are sent.
        It keeps the bitmap's mutex meanwhile. It reads the clock after host pages 1, 65, 129, ...

        Source: migration/ram.c:ram_save_host_page and ram_save_iterate [7.2 to 11.1].
        """
        burst, normal, zero = self._burst, self._pace.normal, self._pace.zero
        assert burst is not None
        if burst.is_over or not pages.pending:
            self._end_burst(is_drained=not pages.pending)
            return True
        self._close_window_in_burst(burst)
        if burst.pages >= burst.host_page_ends[-1]:
            number = BURST_CHECK_PAGES if burst.pages else 1
            ahead = pages.host_page_ends(self._link.host_pages, number)
            burst.host_page_ends = burst.pages + ahead
        dearest_ps = max(normal.ps, zero.ps)
        closes_ps = self._window.start_ps + WINDOW_PS + dearest_ps - 1
        before = burst.pages
        left_ps = self._send_pages(
            lambda: [
                (burst.units_left, normal.units, zero.units),
                (int(burst.host_page_ends[-1]) - burst.pages, 1, 1),
            ],
            min(to_ps, closes_ps),
            to_ps,
            pages,
            done,
        )
        if left_ps < 0:
            return False
        is_closed = self._close_window_in_burst(burst)
        wraps = self._goes_on_at_start(pages)
        # The next page is over the budget.
        is_full = burst.pages == before and left_ps >= dearest_ps and not wraps
        is_full |= burst.units_left < min(normal.units, zero.units)
        reads_clock = burst.pages >= burst.host_page_ends[-1] or not pages.pending
        if is_full:
            self._sleeping = True
            self._wake_ps = max(self._wake_ps, self._window.start_ps + self._slept_window_ps)
            burst.is_over = reads_clock or burst.pages in burst.host_page_ends
        elif reads_clock:
            if not pages.pending or self._now_ps >= burst.start_ps + BURST_PS:
                self._end_burst(is_drained=not pages.pending)
        elif not is_closed and not wraps and left_ps < dearest_ps:
            return False
        return True

    def _close_window_in_burst(self, burst: Burst) -> bool:
        """Close a window that is over, and let the next one begin. Return whether it was over."""
        is_over = self._now_ps >= self._window.start_ps + WINDOW_PS
        if is_over:
            self._close_window()
        if is_over or not self._window.sent_units:
            units_left = self._limits.units(0, is_zero=burst.is_zero)
            burst.units_left = min(units_left, self._allowed_units())
        return is_over

    def _send_pages(
        self,
        budgets: Callable[[], list[tuple[int, int, int]]],
        until_ps: int,
        to_ps: int,
        pages: SendablePages,
        done: Advance,
    ) -> int:
        """Send pages of the burst within some budgets and a time.

        Args:
            budgets: returns the budgets at a point of the burst, see budget.Budget.
            until_ps: send no page that ends later.
            to_ps: the time to which the sender advances.
            pages: the pages to send.
            done: notes the clears.

        Returns:
            The time that is left to `to_ps`. Below 0: the thread is inside a clear or the page behind
            it.
        """
        burst, normal, zero = self._burst, self._pace.normal, self._pace.zero
        assert burst is not None
        start_ps = self._now_ps
        if pages.at_end and pages.pending:
            self._now_ps += self._wrap()
        left_ps = max(0, to_ps - self._now_ps)
        stop = max(0, until_ps - self._now_ps), normal.ps, zero.ps
        waits = self._now_ps < self._slots_free_ps
        clear_ps = LAST_CLEAR_PS if waits else self._pace.clear_ps
        taken, delays = self._take(pages, [*budgets(), stop], clear_ps)
        waits &= len(taken.cleared) > 0
        wait_ps = self._wait_for_slots(taken, done) if waits else 0
        if wait_ps:
            delays = delays.later(wait_ps)
        sent_units = self._page_units(taken)
        spent_ps = taken.normal * normal.ps + taken.zero * zero.ps
        self._note_times(taken, done, delays, wait_ps)
        self._now_ps += spent_ps + delays.total_ps
        self._note_send(start_ps, self._now_ps)
        if len(taken.cleared):
            normal_after = taken.normal - int(taken.normal_before[-1])
            zero_after = taken.zero - int(taken.zero_before[-1])
            self._clear_ps = delays.last_ps - wait_ps
            self._cleared_ps = self._now_ps - normal_after * normal.ps - zero_after * zero.ps
            if self._now_ps > to_ps:
                self._ahead = normal_after, zero_after, self._now_ps
        self._window.sent_units += sent_units
        burst.count(taken.normal, taken.zero, sent_units, spent_ps)
        left_ps -= spent_ps + delays.total_ps
        if not waits or left_ps < 0 or not pages.pending:
            return left_ps
        # The clear that ended the take has waited, so the burst goes on behind it.
        burst.spent_ps += wait_ps
        burst.ps_left = self._limits.ps(
            is_zero=burst.is_zero, pages=burst.pages, spent_ps=burst.spent_ps
        )
        return self._send_pages(budgets, until_ps, to_ps, pages, done)

    def _wait_for_slots(self, taken: Taken, done: Advance) -> int:
        """Let the one clear of a take wait for the lock of KVM's slots. Return how long, in ps."""
        sent_ps = self._pace.normal.ps * int(taken.normal_before[0])
        sent_ps += self._pace.zero.ps * int(taken.zero_before[0])
        from_ps = max(self._now_ps + sent_ps, self._slots_held_ps)
        wait_ps = max(0, self._slots_free_ps - from_ps)
        if wait_ps:
            self._window.sync_ps += wait_ps
            done.lock_waits.append((from_ps // PS_PER_NS, self._slots_free_ps // PS_PER_NS))
        return wait_ps

    def _end_burst(self, *, is_drained: bool) -> None:
        self._burst, self._turn_is_over = None, False
        self.counters.sent_units += self._section_units
        self._window.sent_units += self._section_units
        budget = self._limits.budget_units
        is_over = budget and self._window.sent_units > budget
        if self._now_ps >= self._window.start_ps + WINDOW_PS:
            self._close_window()
        elif is_over or (self._link.recorded is not None and not is_drained):
            self._sleeping = True
            self._wake_ps = max(self._wake_ps, self._window.start_ps + self._slept_window_ps)

    def _make_plans(self) -> dict[bool, WindowPlan | None]:
        """The plan of equal windows of normal and of zero pages, by is_zero."""
        if self._link.recorded is not None:
            return {False: None, True: None}
        return {
            is_zero: plan_window(
                self._limits,
                self._pace.cost(is_zero=is_zero),
                is_zero=is_zero,
                section_units=self._section_units,
                slept_ps=self._slept_window_ps,
            )
            for is_zero in (False, True)
        }

    def _jump(
        self, is_zero: bool, alike: int, to_ps: int, pages: SendablePages, done: Advance
    ) -> bool:
        """Send many windows in one take. Return whether there was one to send.

        The jump ends well before the turn that acts.
        """
        is_at_start = self._now_ps == self._window.start_ps and not self._window.sent_units
        if not is_at_start or self._now_ps < self._slots_free_ps:
            return False
        joins = self._joins_bursts and not self._limits.budget_units
        if joins and pages.mixes_kinds and self._send_joined(to_ps, pages, done):
            return True
        return self._send_equal(is_zero, alike, to_ps, pages, done) or (
            joins and self._send_joined(to_ps, pages, done)
        )

    def _send_equal(
        self, is_zero: bool, alike: int, to_ps: int, pages: SendablePages, done: Advance
    ) -> bool:
        """Send many equal windows, see `_jump`."""
        plan = self._plans[is_zero]
        if plan is None:
            return False
        limit_ps = min(to_ps - self._now_ps, LONGEST_JUMP_PS)
        windows = min(limit_ps // plan.length_ps, alike // plan.pages)
        windows = self._windows_without_act(windows, plan.pages, pages.pending, plan.bandwidth())
        if windows >= 1 and any(self._pace.clear_ps):
            windows = self._windows_with_clears(plan, windows, limit_ps, pages)
        if windows < 1:
            return False
        taken, delays = self._take(pages, [(windows * plan.pages, 1, 1)], (0, 0, 0), plan)
        self.counters.sent_units += windows * plan.bursts * self._section_units
        self._note_times(taken, done, delays)
        delay_ps = delays.of_windows(windows)
        elapsed_ps = windows * plan.length_ps + delay_ps
        self.tally.end_windows(elapsed_ps if plan.sleeps else None)
        start_ps, self._now_ps = self._now_ps, self._now_ps + elapsed_ps
        self._note_send(start_ps, self._now_ps)
        self._window.restart(self._now_ps)
        self._turn_is_over = False
        bandwidth = plan.bandwidth(delay_ps - delays.of_windows(windows - 1))
        if self._estimate is not None:
            for count, later_ps in delays.runs(windows):
                longer_ps = plan.length_ps + later_ps
                self._expect(count, plan.bandwidth(later_ps), plan.sent_units, longer_ps, 0)
        self._set_bandwidth(bandwidth, plan.sent_units)
        return True

    def _send_joined(self, to_ps: int, pages: SendablePages, done: Advance) -> bool:
        """Send windows of any pages, see `_jump`.

        Without a rate limit, a window ends with its last burst. The order of the pages decides when.
        So the windows of a take are as long as equal ones of the slower kind, and close with the
        take's mean bandwidth. A take that ends at the end of RAM may leave a window open.
        """
        plans = [plan for plan in self._plans.values() if plan is not None]
        normal, zero = self._pace.normal, self._pace.zero
        if len(plans) < 2 or not (normal.ps and zero.ps) or pages.at_end:
            return False
        clear_ps, page_ps, first_ps = self._pace.clear_ps
        longest_clear_ps = clear_ps + CHUNK_PAGES * max(page_ps, first_ps)
        limit_ps = min(to_ps - self._now_ps, LONGEST_JUMP_PS) - longest_clear_ps
        limit_ps -= max(normal.ps, zero.ps)  # a clear and its first page are one step
        bandwidth = max(plan.bandwidth() for plan in plans)
        window_ps = max(plan.length_ps for plan in plans)
        window_pages = window_ps // min(normal.ps, zero.ps)
        windows = limit_ps // window_ps
        windows = self._windows_without_act(windows, window_pages, pages.pending, bandwidth)
        if windows < 1:
            return False
        budget = windows * window_ps, normal.ps, zero.ps
        taken, delays = self._take(pages, [budget], self._pace.clear_ps)
        spent_ps = taken.normal * normal.ps + taken.zero * zero.ps + delays.total_ps
        if not spent_ps:
            return False
        self._note_times(taken, done, delays)
        start_ps, self._now_ps = self._now_ps, self._now_ps + spent_ps
        self._note_send(start_ps, self._now_ps)
        self._turn_is_over = False
        windows = spent_ps // window_ps
        section_units = windows * plans[0].bursts * self._section_units
        self.counters.sent_units += section_units
        self._window.sent_units = sent_units = self._page_units(taken) + section_units
        if not windows:
            return True
        self.tally.end_windows()
        bandwidth = self._window.bandwidth(self._now_ps)
        self._window.restart(self._now_ps)
        self._expect(windows, bandwidth, sent_units // windows, spent_ps // windows, 0)
        self._set_bandwidth(bandwidth, sent_units // windows)
        return True

    def _windows_without_act(self, windows: int, pages: int, pending: int, bandwidth: float) -> int:
        """Return how many windows a jump may take, so that no turn on the way acts.

        Some turns before the threshold may act, too.

        Args:
            windows: the most windows.
            pages: the most pages of a window.
            pending: pages that are dirty before the first window.
            bandwidth: the highest bandwidth of a window.
        """
        if self._estimate is not None:
            bandwidth = max(bandwidth, self.expected_bandwidth)
        threshold_bytes = max(self.threshold_bytes, self._threshold(bandwidth))
        windows = min(windows, (pending - threshold_bytes // self._page_bytes) // pages - 1)

        def acts_after(count: int) -> bool:
            return self._acts((pending - count * pages) * self._page_bytes, threshold_bytes)

        if windows < 1 or not acts_after(windows):
            return windows
        return bisect.bisect_left(range(windows), True, key=acts_after) - 1

    def _windows_with_clears(
        self, plan: WindowPlan, windows: int, limit_ps: int, pages: SendablePages
    ) -> int:
        """How many windows a jump may take if remote clears make some of them longer."""
        ahead = pages.clears_ahead(windows * plan.pages)
        if ahead is None:
            return 0
        before, *protected = ahead
        delays = Delays(before, self._pace.clears_ps(*protected), plan)
        return delays.windows_within(limit_ps, windows)

    def _note_send(self, from_ps: int, until_ps: int) -> None:
        from_ps = max(from_ps, self._stalled_to_ps)
        if self.sends is not None and until_ps > from_ps:
            self.sends.append((from_ps, until_ps))

    def _note_times(self, taken: Taken, done: Advance, delays: Delays, wait_ps: int = 0) -> None:
        """Note when a take cleared its chunks and when the cursor wrapped.

        Args:
            taken: the take.
            done: gets the clears.
            delays: the delays of its pages.
            wait_ps: how long its one clear waited for a lock before it began.
        """
        if len(taken.cleared):  # a chunk is cleared before its first page
            before = taken.normal_before, taken.zero_before
            start_ps = self._now_ps + wait_ps
            done.clears.append((taken.cleared, delays.times_ns(start_ps, self._pace, *before)))
        if taken.wrapped_after is not None:
            normal, zero = np.array(taken.wrapped_after, np.int64)[:, None]
            times_ns = delays.times_ns(self._now_ps, self._pace, normal, zero)
            self.counters.pass_ends_ns.append(int(times_ns[0]))
