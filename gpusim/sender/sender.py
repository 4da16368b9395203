"""How time becomes pages on the wire: bursts, 100 ms windows, the rate limit, the bandwidth sample.

It knows pages only through `take` and what lies ahead, and asks a predicate whether a turn of the
main loop is one at which QEMU does more than send. What a page costs, wire.py says. Stretches of equal
windows are one take.

Source: migration/migration.c:migration_rate_limit, migration_update_counters, ram.c:ram_save_iterate,
savevm.c:qemu_savevm_state_iterate, qemu-file.c:add_to_iovec.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from gpusim.layout import IntArray, Taken
from gpusim.sender.link import PS_PER_S, UNITS, Link
from gpusim.sender.windows import WINDOW_PS, Delays, WindowPlan
from gpusim.units import PS_PER_NS

WINDOWS_PER_S = 10  # XFER_LIMIT_RATIO
BURST_PS = 51 * PS_PER_S // 1000  # MAX_WAIT: whole milliseconds above 50
BURST_CHECK_PAGES = 64  # the burst looks at the time after page 1, 65, 129, ...
RESTS_AFTER = 64  # bursts
UNLIMITED = 2**61  # of bytes, pages or ps
LONGEST_JUMP_PS = 2**62  # 53 days


class SendablePages(Protocol):
    """All the sender knows of pages."""

    pending: int

    @property
    def at_end(self) -> bool:
        """The cursor comes round next."""

    def run_ahead(self, *, wraps: bool) -> tuple[bool, int]:
        """Whether the pages ahead are zero, and how many are alike."""

    def clears_ahead(self, pages: int) -> tuple[IntArray, IntArray] | None:
        """Pages before each clear in the next pages, and pages it protects; None: not known."""

    def take(
        self, budgets: Sequence[tuple[int, int, int]], *, clear: tuple[int, int], wraps: bool
    ) -> Taken:
        """Take pages from the cursor on while all budgets last; clears cost of the last one."""


@dataclass(kw_only=True)
class Advanced:
    """How far the sender came.

    Attributes:
        at_ns: where it stopped.
        turn: it stopped before a turn of the main loop that does more than send.
        clears: chunks whose remote clear happened, int64 [n], and when, int64 [n] ns.
    """

    at_ns: int = 0
    turn: bool = False
    clears: list[tuple[IntArray, IntArray]] = field(default_factory=list)


class Sender:
    """The migration thread.

    Args:
        link: the wire.
        max_bandwidth: bytes a second; 0: unlimited.
        page_bytes: of guest memory.
        counts_flushed_bytes: the rate limit sees bytes only when a buffer is flushed.
        threshold: bytes that fit the downtime limit at a bandwidth.
        acts: whether a turn does more than send, by estimate and threshold; holds for all estimates
            below one for which it does.

    Attributes:
        bandwidth: the last window's sample, bytes a second; 0 before the first has closed.
        threshold_bytes: threshold_size.
        normal_pages, zero_pages: sent so far.
        remote_clears, remote_clear_ps: how many so far, and how long they took.
        pass_ends_ns: when the cursor came round to the first page, each time so far.
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
    ) -> None:
        self._link, self._page_bytes = link, page_bytes
        self._normal_units, self._zero_units = link.page_units
        self._section_units = link.section_bytes * UNITS
        self._clear_ps, self._wraps = link.clear_ps, link.multifd is None
        self._budget = self._budget_of(max_bandwidth)
        self._threshold, self._acts = threshold, acts
        # A recorded link tells when bytes went; how long a page takes only counts for the drain.
        self._normal_ps, self._zero_ps = (0, 0) if link.recorded else link.page_ps()
        self._changes = deque(
            (at_ns * PS_PER_NS, link.page_ps(rate)) for at_ns, rate in link.changes
        )
        self._slept_window_ps = WINDOW_PS + link.wakeup_latency_ns * PS_PER_NS
        self._flush = link.flush_pages(counts_flushed_bytes=counts_flushed_bytes)
        self.bandwidth, self.threshold_bytes = 0.0, 0
        self.normal_pages = self.zero_pages = self.remote_clears = self.remote_clear_ps = 0
        self._transferred = 0  # 128ths of a byte, as all that is sent
        self.pass_ends_ns: list[int] = []
        self._now_ps = self._wake_ps = self._window_start_ps = 0
        self._window_units = 0
        self._sleeping = False  # for the rest of the window
        self._checked = False  # the turn at hand has been looked at
        self._burst: tuple[int, int] | None = None  # units and ps that are left of it
        self._burst_is_zero = False  # the kind its limits are made for
        self._burst_pages = self._burst_normal_pages = self._burst_ps = 0  # sent of it so far
        self._plans = {is_zero: self._plan(is_zero) for is_zero in (False, True)}

    @property
    def _now_ns(self) -> int:
        return -(-self._now_ps // PS_PER_NS)

    def _budget_of(self, max_bandwidth: int) -> int:
        """128ths of a byte of a window, 0: unlimited; the rate limit does not see what is in flight."""
        budget = max_bandwidth // WINDOWS_PER_S * UNITS
        return budget + self._link.pages_in_flight * self._normal_units if budget else 0

    @property
    def transferred_bytes(self) -> int:
        """Queued so far."""
        return self._transferred // UNITS

    @property
    def flushed_bytes(self) -> int:
        """What migration_transferred_bytes says: a burst's last pages wait for their flush."""
        waiting = 0
        if self._burst:
            part = self._burst_normal_pages % self._flush[0]
            waiting = min(self._burst_normal_pages, part + self._link.pages_in_flight)
        return (self._transferred - waiting * self._normal_units) // UNITS

    @property
    def in_burst(self) -> bool:
        """Whether it holds the bitmap's mutex (ram.c:ram_save_iterate), as it does for a whole burst."""
        return self._burst is not None

    @property
    def notices_ns(self) -> int:
        """When the thread next looks around: at once, unless it sleeps or is held up."""
        return -(-max(self._now_ps, self._wake_ps) // PS_PER_NS)

    def limit_bandwidth(self, max_bandwidth: int) -> None:
        """A new max-bandwidth, 0: unlimited (migration.c:migration_rate_set); it wakes nobody."""
        self._budget = self._budget_of(max_bandwidth)
        self._plans = {is_zero: self._plan(is_zero) for is_zero in (False, True)}
        if self._burst is not None and self._link.recorded is None:
            zero_pages = self._burst_pages - self._burst_normal_pages
            sent = self._burst_normal_pages * self._normal_units + zero_pages * self._zero_units
            limit = self._burst_limit_units(self._burst_is_zero, self._window_units - sent)
            self._burst = max(0, limit - sent), self._burst[1]

    def advance(self, to_ns: int, pages: SendablePages, *, to_burst_end: bool = False) -> Advanced:
        """Send until a time, or until a turn at which the main loop does more than send.

        It may stop earlier, so that whoever watches a long stretch sees it pass: after equal
        windows, and after RESTS_AFTER bursts; and, if asked, where the burst under way ends.
        """
        to_ps = to_ns * PS_PER_NS
        done = Advanced(at_ns=to_ns)
        bursts = 0
        while self._now_ps <= to_ps:
            if bursts >= RESTS_AFTER and self._now_ns < to_ns:
                done.at_ns = self._now_ns
                break
            if self._now_ps < self._wake_ps:
                self._now_ps = min(self._wake_ps, to_ps)
                if self._now_ps < self._wake_ps:
                    break
            if self._sleeping:
                self._sleeping = False
                self._close_window()
            while self._changes and self._changes[0][0] <= self._now_ps:
                self._change_pace()
            stop_ps = min(to_ps, self._changes[0][0]) if self._changes else to_ps
            if self._burst is None:
                if not self._checked and self._acts(
                    pages.pending * self._page_bytes, self.threshold_bytes
                ):
                    done.at_ns, done.turn = self._now_ns, True
                    break
                is_zero, alike = pages.run_ahead(wraps=self._wraps)
                if self._jump(is_zero, alike, stop_ps, pages, done):
                    bursts = RESTS_AFTER
                    continue
                self._begin_burst(is_zero, alike)
                bursts += 1
            if not self._send(stop_ps, pages, done):
                if stop_ps == to_ps:
                    break
                self._change_pace()
            elif to_burst_end and self._burst is None:
                done.at_ns = min(self._now_ns, to_ns)
                break
        return done

    def iterate(self) -> None:
        """The turn at hand has been looked at: go on and send."""
        self._checked = True

    def stall(self, from_ns: int, until_ns: int) -> None:
        """Nothing is sent between two times: a sync or a lock; the window runs long."""
        if self._burst is None:
            self._wake_ps = max(self._wake_ps, until_ns * PS_PER_NS)
        else:  # the page on the wire goes on where it was
            self._now_ps += (until_ns - from_ns) * PS_PER_NS

    def drain(self, pages: SendablePages, *, clears: bool = True) -> int:
        """Send all that is left with no rate limit; how long that takes, ns.

        Args:
            clears: as everywhere, chunks are cleared before their first page.
        """
        so_far = self.remote_clears
        if not clears:
            self._clear_ps = (0, 0)
        start_ps = now_ps = max(self._now_ps, self._wake_ps)
        costs = self._link.page_ps() if self._link.recorded else (self._normal_ps, self._zero_ps)
        for at_ps, later in self._changes:
            if at_ps > now_ps and pages.pending:
                now_ps = self._drain(pages, now_ps, costs, until_ps=at_ps)
                if pages.pending and costs != later:
                    now_ps = max(now_ps, at_ps)
            costs = later
        now_ps = self._drain(pages, now_ps, costs)
        if not clears:
            self.remote_clears = so_far
        return -(-(now_ps - start_ps) // PS_PER_NS)

    def _drain(
        self,
        pages: SendablePages,
        now_ps: int,
        costs: tuple[int, int],
        until_ps: int | None = None,
    ) -> int:
        """Send until a time; when that is done, ps."""
        while True:
            if pages.at_end and pages.pending:
                now_ps += self._come_round()
            if until_ps is None:
                taken = pages.take([(UNLIMITED, 1, 1)], clear=(0, 0), wraps=self._wraps)
            else:
                budget = (max(0, until_ps - now_ps), *costs)
                taken = pages.take([budget], clear=self._clear_ps, wraps=self._wraps)
            self._account(taken)
            delays = self._delays(taken)
            if taken.wrapped_after is not None:
                normal, zero = taken.wrapped_after
                held_ps = int(delays.at(np.array([normal + zero]))[0])
                ended_ps = now_ps + normal * costs[0] + zero * costs[1] + held_ps
                self.pass_ends_ns.append(ended_ps // PS_PER_NS)
            now_ps += taken.normal * costs[0] + taken.zero * costs[1] + delays.total_ps
            if not (pages.pending and pages.at_end):
                return now_ps

    def _account(self, taken: Taken) -> int:
        """Count what was taken; its 128ths of a byte."""
        sent = taken.normal * self._normal_units + taken.zero * self._zero_units
        self.normal_pages += taken.normal
        self.zero_pages += taken.zero
        self._transferred += sent
        self.remote_clears += len(taken.cleared)
        return sent

    def _delays(self, taken: Taken, plan: WindowPlan | None = None) -> Delays:
        """What the remote clears of a take add to it."""
        held_ps = self._held_ps(taken.protected)
        self.remote_clear_ps += int(held_ps.sum())
        return Delays(taken.normal_before + taken.zero_before, held_ps, plan)

    def _held_ps(self, protected: IntArray) -> IntArray:
        """Time of clears that protect so many pages each."""
        clear_ps, page_ps = self._clear_ps
        return clear_ps + page_ps * protected

    def _come_round(self) -> int:
        """The cursor comes round, and the channels sync; how long nothing is sent, ps.

        Source: migration/ram.c:find_dirty_block, multifd-nocomp.c:multifd_ram_flush_and_sync (v10.1.0).
        """
        units = self._link.round_bytes * UNITS
        self._transferred += units
        self._window_units += units
        if self._burst is not None:
            self._burst = max(0, self._burst[0] - units), self._burst[1]
        return self._link.round_ps

    def _close_window(self) -> None:
        length_ps = self._now_ps - self._window_start_ps
        self._sample(self._window_units * PS_PER_S / (UNITS * length_ps))
        self._window_start_ps, self._window_units = self._now_ps, 0

    def _sample(self, bandwidth: float) -> None:
        self.bandwidth = bandwidth
        self.threshold_bytes = self._threshold(bandwidth)

    def _change_pace(self) -> None:
        """The wire changes: pages cost anew, also those of a burst that is under way.

        The page on the wire starts anew: up to a page is lost, and the wire never gives too much.
        """
        at_ps, costs = self._changes.popleft()
        if costs == (self._normal_ps, self._zero_ps):
            return
        self._normal_ps, self._zero_ps = costs
        self._plans = {is_zero: self._plan(is_zero) for is_zero in (False, True)}
        if self._burst is not None:
            self._burst_ps += max(0, at_ps - self._now_ps)
            self._now_ps = max(self._now_ps, at_ps)
            left_ps = self._burst_limit_ps(self._burst_is_zero, self._burst_pages, self._burst_ps)
            self._burst = self._burst[0], left_ps if self._burst_pages else max(left_ps, *costs)

    def _begin_burst(self, is_zero: bool, alike: int) -> None:
        self._burst_is_zero = is_zero and alike > 0
        self._burst_pages = self._burst_normal_pages = self._burst_ps = 0
        self._burst = (
            self._burst_limit_units(self._burst_is_zero, self._window_units),
            self._burst_limit_ps(self._burst_is_zero),
        )
        if not alike:  # a burst sends a page, of whichever kind, before it looks at anything
            self._burst = (
                max(self._burst[0], self._normal_units, self._zero_units),
                max(self._burst[1], self._normal_ps, self._zero_ps),
            )
        if self._link.recorded is not None:
            allowed = (
                self._link.recorded.by(self._window_start_ps + self._slept_window_ps) * UNITS
                - self._transferred
            )
            self._burst = min(self._burst[0], max(0, allowed)), self._burst[1]

    def _burst_limit_units(self, is_zero: bool, window_units: int) -> int:
        """128ths of a byte of a burst of pages that are alike, in a window that has sent some.

        It ends with the flush that takes the window over its budget. Where both kinds of pages are
        mixed this holds to within a flush; a kind that costs nothing is held to the other's limit.
        """
        page_units = self._costs(is_zero)[0] or self._costs(not is_zero)[0]
        if not (self._budget and page_units):
            return UNLIMITED
        flush = self._flush[is_zero] * page_units
        return max(0, (self._budget - window_units) // flush + 1) * flush

    def _burst_limit_ps(self, is_zero: bool, pages: int = 0, spent_ps: int = 0) -> int:
        """How long a burst of pages that are alike goes on, when some are sent and some time is gone.

        It ends with the first look at the time that finds more than 50 ms gone. Where both kinds of
        pages are mixed this holds to within 64 pages; a kind that costs nothing is held to the other's
        limit.
        """
        page_ps = self._costs(is_zero)[1] or self._costs(not is_zero)[1]
        if not page_ps:
            return UNLIMITED
        left_ps = max(0, BURST_PS - spent_ps)
        checks = max(0, math.ceil((left_ps / page_ps + pages - 1) / BURST_CHECK_PAGES))
        return (BURST_CHECK_PAGES * checks + 1 - pages) * page_ps

    def _send(self, to_ps: int, pages: SendablePages, done: Advanced) -> bool:
        """Go on with the burst; False if the time to stop at came first.

        Its 50 ms are those of its pages: what clears take, it does not see.
        """
        if pages.at_end and pages.pending:
            self._now_ps += self._come_round()
        assert self._burst is not None
        left_units, left_ps = self._burst
        until_to_ps = max(0, to_ps - self._now_ps)
        budgets = [
            (left_units, self._normal_units, self._zero_units),
            (left_ps, self._normal_ps, self._zero_ps),
            (until_to_ps, self._normal_ps, self._zero_ps),
        ]
        taken = pages.take(budgets, clear=self._clear_ps, wraps=self._wraps)
        sent = self._account(taken)
        spent_ps = taken.normal * self._normal_ps + taken.zero * self._zero_ps
        delays = self._delays(taken)
        self._note(taken, done, delays)
        self._now_ps += spent_ps + delays.total_ps
        self._window_units += sent
        self._burst_pages += taken.normal + taken.zero
        self._burst_normal_pages += taken.normal
        self._burst_ps += spent_ps
        self._burst = left_units - sent, left_ps - spent_ps
        full = left_units - sent < min(self._normal_units, self._zero_units)
        rest_ps = until_to_ps - spent_ps - delays.total_ps
        cut_short = rest_ps < min(left_ps - spent_ps, max(self._normal_ps, self._zero_ps))
        if pages.pending and cut_short and not full:
            return False
        if pages.pending and pages.at_end:
            return True  # the burst goes on from the first page
        self._end_burst(drained=not pages.pending)
        return True

    def _end_burst(self, *, drained: bool) -> None:
        self._burst, self._checked = None, False
        self._transferred += self._section_units
        self._window_units += self._section_units
        over = self._budget and self._window_units > self._budget
        if self._now_ps >= self._window_start_ps + WINDOW_PS:
            self._close_window()
        elif over or (self._link.recorded is not None and not drained):
            self._sleeping = True
            self._wake_ps = max(self._wake_ps, self._window_start_ps + self._slept_window_ps)

    def _plan(self, is_zero: bool) -> WindowPlan | None:
        """What a window is like while enough pages of one kind lie ahead; None if it has no end."""
        page_units, page_ps = self._costs(is_zero)
        if self._link.recorded is not None or not (page_ps or (self._budget and page_units)):
            return None
        pages = bursts = sent_units = busy_ps = last_burst_page = last_burst_ps = 0
        limit_ps = self._burst_limit_ps(is_zero)
        while busy_ps < WINDOW_PS and not 0 < self._budget < sent_units:
            limit_units = self._burst_limit_units(is_zero, sent_units)
            by_units = limit_units // page_units if page_units else UNLIMITED
            burst = min(by_units, limit_ps // page_ps if page_ps else UNLIMITED)
            last_burst_page, last_burst_ps = pages, busy_ps
            pages += burst
            bursts += 1
            busy_ps += burst * page_ps
            sent_units += burst * page_units + self._section_units
        return WindowPlan(
            pages=pages,
            bursts=bursts,
            sent_units=sent_units,
            busy_ps=busy_ps,
            last_burst_page=last_burst_page,
            last_burst_ps=last_burst_ps,
            slept_ps=self._slept_window_ps,
        )

    def _jump(
        self, is_zero: bool, alike: int, to_ps: int, pages: SendablePages, done: Advanced
    ) -> bool:
        """Send many equal windows in one take, well short of the turn that acts; whether it did."""
        plan = self._plans[is_zero]
        if plan is None or self._window_units or self._now_ps != self._window_start_ps:
            return False
        threshold_bytes = max(self.threshold_bytes, self._threshold(plan.bandwidth()))
        room_ps = min(to_ps - self._now_ps, LONGEST_JUMP_PS)
        windows = min(
            room_ps // plan.length_ps,
            alike // plan.pages,
            (pages.pending - threshold_bytes // self._page_bytes) // plan.pages - 1,
        )
        if windows >= 1 and any(self._clear_ps):
            windows = self._windows_with_clears(plan, windows, room_ps, pages)
        if windows < 1:
            return False
        taken = pages.take([(windows * plan.pages, 1, 1)], clear=(0, 0), wraps=self._wraps)
        self._account(taken)
        self._transferred += windows * plan.bursts * self._section_units
        delays = self._delays(taken, plan)
        self._note(taken, done, delays, plan)
        longer_ps = delays.of_windows(windows)
        self._now_ps += windows * plan.length_ps + longer_ps
        self._window_start_ps, self._checked = self._now_ps, False
        self._sample(plan.bandwidth(longer_ps - delays.of_windows(windows - 1)))
        return True

    def _windows_with_clears(
        self, plan: WindowPlan, windows: int, room_ps: int, pages: SendablePages
    ) -> int:
        """How many windows a jump may take, as remote clears make some of them longer."""
        ahead = pages.clears_ahead(windows * plan.pages)
        if ahead is None:
            return 0
        before, protected = ahead
        return Delays(before, self._held_ps(protected), plan).windows_in(room_ps, windows)

    def _costs(self, is_zero: bool) -> tuple[int, int]:
        """128ths of a byte on the wire and ps of a page of one kind."""
        if is_zero:
            return self._zero_units, self._zero_ps
        return self._normal_units, self._normal_ps

    def _note(
        self, taken: Taken, done: Advanced, delays: Delays, plan: WindowPlan | None = None
    ) -> None:
        """When the chunks of a take were cleared, and when the cursor came round in it."""
        if len(taken.cleared):  # a chunk is cleared as its first page is sent
            before = taken.normal_before, taken.zero_before
            done.clears.append((taken.cleared, self._times_ns(taken, *before, delays, plan)))
        if taken.wrapped_after is not None:
            normal, zero = np.array(taken.wrapped_after, np.int64)[:, None]
            self.pass_ends_ns.append(int(self._times_ns(taken, normal, zero, delays, plan)[0]))

    def _times_ns(
        self,
        taken: Taken,
        normal: IntArray,
        zero: IntArray,
        delays: Delays,
        plan: WindowPlan | None,
    ) -> IntArray:
        """When so many pages of a take that begins now have been sent, int64 [n]."""
        windows: IntArray | int = 0
        delay_ps = delays.at(normal + zero)
        if plan is not None:  # all of one kind
            windows = (normal + zero) // plan.pages
            normal, zero = (
                np.where(taken.zero, 0, normal % plan.pages),
                np.where(taken.zero, zero % plan.pages, 0),
            )
        # In ps a time of four months would overflow 64 bits: whole ns and the rest apart.
        start_ns, start_rest = divmod(self._now_ps, PS_PER_NS)
        length_ns, length_rest = divmod(plan.length_ps if plan else 0, PS_PER_NS)
        rest_ps = (
            start_rest
            + windows * length_rest
            + normal * self._normal_ps
            + zero * self._zero_ps
            + delay_ps
        )
        times_ns: IntArray = start_ns + windows * length_ns - (-rest_ps // PS_PER_NS)
        return times_ns
