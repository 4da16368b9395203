"""How time becomes pages on the wire: bursts, 100 ms windows, the rate limit, the bandwidth sample.

It knows pages only through `take` and what lies ahead, and asks a predicate whether a turn of the
main loop is one at which QEMU does more than send. Time is kept in integer picoseconds, so that a
page on a 100 Gbit/s link has an exact cost. Stretches of equal windows are one take.

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

from gpusim.layout import FloatArray, IntArray, Taken
from gpusim.units import NS_PER_S, PS_PER_NS

PS_PER_S = NS_PER_S * PS_PER_NS
WINDOW_PS = PS_PER_S // 10  # BUFFER_DELAY, 100 ms
WINDOWS_PER_S = 10  # XFER_LIMIT_RATIO
BURST_PS = 51 * PS_PER_S // 1000  # MAX_WAIT: whole milliseconds above 50
BURST_CHECK_PAGES = 64  # the burst looks at the time after page 1, 65, 129, ...
SECTION_BYTES = 5 + 8 + 5  # section header, end of RAM section, footer
FLUSH_NORMAL_PAGES = 32  # 64 iovecs, two a page
FLUSH_ZERO_PAGES = 32768 // 9  # a buffer of 32 KiB
RESTS_AFTER = 64  # bursts
UNLIMITED = 2**61  # of bytes, pages or ps


@dataclass(frozen=True)
class RecordedLink:
    """The pace of a recorded wire: straight lines between samples, constant behind the last.

    Attributes:
        times_ns: int64 [samples]; sent_bytes: float64 [samples], so far.
    """

    times_ns: IntArray
    sent_bytes: FloatArray

    def by(self, t_ps: int) -> int:
        """Bytes sent by a time."""
        return int(np.interp(t_ps / PS_PER_NS, self.times_ns, self.sent_bytes))


@dataclass(frozen=True, kw_only=True)
class Link:
    """The wire and the sending thread's speed, as config.LinkConfig has them.

    Attributes:
        bandwidth: bytes a second, infinite if only max-bandwidth shall bind.
        zero_page_ns: to find a page to be zero.
        changes: (ns, bytes a second), rising: what the wire gives from then on; not if recorded.
        wakeup_latency_ns: how late the thread wakes from its sleep at the end of a window.
    """

    bandwidth: float
    normal_page_bytes: int
    zero_page_bytes: int
    zero_page_ns: float
    page_cost_ns: float
    wakeup_latency_ns: int
    non_ram_downtime_ns: int
    recorded: RecordedLink | None
    changes: tuple[tuple[int, float], ...] = ()

    def page_ps(self, bandwidth: float | None = None) -> tuple[int, int]:
        """Time of a normal and of a zero page; wire and thread work side by side."""
        wire_ps = PS_PER_S / (bandwidth or self.bandwidth)
        normal = max(self.normal_page_bytes * wire_ps, self.page_cost_ns * PS_PER_NS)
        zero_cost = (self.page_cost_ns + self.zero_page_ns) * PS_PER_NS
        return round(normal), round(max(self.zero_page_bytes * wire_ps, zero_cost))


class SendablePages(Protocol):
    """All the sender knows of pages."""

    pending: int

    def run_ahead(self) -> tuple[bool, int]:
        """Whether the pages ahead are zero, and how many are alike."""

    def take(self, budgets: Sequence[tuple[int, int, int]]) -> Taken:
        """Take pages from the cursor on while all budgets last."""


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


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """What every window is like while all pages are alike.

    Attributes:
        pages, bursts, sent_bytes, length_ps: of one window.
    """

    pages: int
    bursts: int
    sent_bytes: int
    length_ps: int

    @property
    def bandwidth(self) -> float:
        """Bytes a second."""
        return self.sent_bytes * PS_PER_S / self.length_ps


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
        transferred_bytes: queued so far.
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
        self._budget_bytes = max_bandwidth // WINDOWS_PER_S
        self._threshold, self._acts = threshold, acts
        # A recorded link tells when bytes went; how long a page takes only counts for the drain.
        self._normal_ps, self._zero_ps = (0, 0) if link.recorded else link.page_ps()
        self._changes = deque(
            (at_ns * PS_PER_NS, link.page_ps(rate)) for at_ns, rate in link.changes
        )
        self._slept_window_ps = WINDOW_PS + link.wakeup_latency_ns * PS_PER_NS
        self._flush = (FLUSH_NORMAL_PAGES, FLUSH_ZERO_PAGES) if counts_flushed_bytes else (1, 1)
        self.bandwidth, self.threshold_bytes = 0.0, 0
        self.normal_pages = self.zero_pages = self.transferred_bytes = 0
        self.pass_ends_ns: list[int] = []
        self._now_ps = self._wake_ps = self._window_start_ps = 0
        self._window_bytes = 0
        self._sleeping = False  # for the rest of the window
        self._checked = False  # the turn at hand has been looked at
        self._burst: tuple[int, int] | None = None  # bytes and ps that are left of it
        self._burst_is_zero = False  # the kind its limits are made for
        self._burst_pages = self._burst_normal_pages = self._burst_ps = 0  # sent of it so far
        self._plans = {is_zero: self._plan(is_zero) for is_zero in (False, True)}

    @property
    def _now_ns(self) -> int:
        return -(-self._now_ps // PS_PER_NS)

    @property
    def flushed_bytes(self) -> int:
        """What migration_transferred_bytes says: a burst's last pages wait for their flush."""
        waiting = self._burst_normal_pages % self._flush[0] if self._burst else 0
        return self.transferred_bytes - waiting * self._link.normal_page_bytes

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
        self._budget_bytes = max_bandwidth // WINDOWS_PER_S
        self._plans = {is_zero: self._plan(is_zero) for is_zero in (False, True)}
        if self._burst is not None and self._link.recorded is None:
            zero_pages = self._burst_pages - self._burst_normal_pages
            sent = (
                self._burst_normal_pages * self._costs(False)[0] + zero_pages * self._costs(True)[0]
            )
            limit = self._burst_limit_bytes(self._burst_is_zero, self._window_bytes - sent)
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
                is_zero, alike = pages.run_ahead()
                if self._jump(is_zero, alike, stop_ps, pages, done):
                    bursts = RESTS_AFTER
                    continue
                self._begin_burst(is_zero, alike)
                bursts += 1
            if not self._send(stop_ps, pages, done):
                if stop_ps == to_ps:
                    break
                self._change_pace()
            elif to_burst_end:
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

    def drain(self, pages: SendablePages) -> int:
        """Send all that is left with no rate limit; how long that takes, ns."""
        start_ps = now_ps = max(self._now_ps, self._wake_ps)
        costs = self._link.page_ps() if self._link.recorded else (self._normal_ps, self._zero_ps)
        for at_ps, later in self._changes:
            if at_ps > now_ps and pages.pending:
                now_ps = self._drain([(at_ps - now_ps, *costs)], pages, now_ps, costs)
                if pages.pending and costs != later:
                    now_ps = at_ps
            costs = later
        now_ps = self._drain([(UNLIMITED, 1, 1)], pages, now_ps, costs)
        return -(-(now_ps - start_ps) // PS_PER_NS)

    def _drain(
        self,
        budgets: Sequence[tuple[int, int, int]],
        pages: SendablePages,
        now_ps: int,
        costs: tuple[int, int],
    ) -> int:
        """Send what some budgets last for; when that is done, ps."""
        taken = pages.take(budgets)
        self._account(taken)
        if taken.wrapped_after is not None:
            normal, zero = taken.wrapped_after
            self.pass_ends_ns.append((now_ps + normal * costs[0] + zero * costs[1]) // PS_PER_NS)
        return now_ps + taken.normal * costs[0] + taken.zero * costs[1]

    def _account(self, taken: Taken) -> int:
        sent = taken.normal * self._link.normal_page_bytes + taken.zero * self._link.zero_page_bytes
        self.normal_pages += taken.normal
        self.zero_pages += taken.zero
        self.transferred_bytes += sent
        return sent

    def _close_window(self) -> None:
        length_ps = self._now_ps - self._window_start_ps
        self._sample(self._window_bytes * PS_PER_S / length_ps)
        self._window_start_ps, self._window_bytes = self._now_ps, 0

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
            self._burst_limit_bytes(self._burst_is_zero, self._window_bytes),
            self._burst_limit_ps(self._burst_is_zero),
        )
        if not alike:  # a burst sends a page, of whichever kind, before it looks at anything
            self._burst = (
                max(self._burst[0], self._link.normal_page_bytes, self._link.zero_page_bytes),
                max(self._burst[1], self._normal_ps, self._zero_ps),
            )
        if self._link.recorded is not None:
            allowed = (
                self._link.recorded.by(self._window_start_ps + self._slept_window_ps)
                - self.transferred_bytes
            )
            self._burst = min(self._burst[0], max(0, allowed)), self._burst[1]

    def _burst_limit_bytes(self, is_zero: bool, window_bytes: int) -> int:
        """Bytes of a burst of pages that are alike, in a window that has sent some bytes.

        It ends with the flush that takes the window over its budget. Where both kinds of pages are
        mixed this holds to within a flush; a kind that costs nothing is held to the other's limit.
        """
        page_bytes = self._costs(is_zero)[0] or self._costs(not is_zero)[0]
        if not (self._budget_bytes and page_bytes):
            return UNLIMITED
        flush = self._flush[is_zero] * page_bytes
        return max(0, (self._budget_bytes - window_bytes) // flush + 1) * flush

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
        """Go on with the burst; False if the time to stop at came first."""
        assert self._burst is not None
        left_bytes, left_ps = self._burst
        start_ps, until_to_ps = self._now_ps, to_ps - self._now_ps
        taken = pages.take([
            (left_bytes, self._link.normal_page_bytes, self._link.zero_page_bytes),
            (min(left_ps, until_to_ps), self._normal_ps, self._zero_ps),
        ])  # fmt: skip
        sent = self._account(taken)
        spent_ps = taken.normal * self._normal_ps + taken.zero * self._zero_ps
        self._note(start_ps, taken, done)
        self._now_ps += spent_ps
        self._window_bytes += sent
        self._burst_pages += taken.normal + taken.zero
        self._burst_normal_pages += taken.normal
        self._burst_ps += spent_ps
        self._burst = left_bytes - sent, left_ps - spent_ps
        full = left_bytes - sent < min(self._link.normal_page_bytes, self._link.zero_page_bytes)
        cut_short = until_to_ps < left_ps and until_to_ps - spent_ps < max(
            self._normal_ps, self._zero_ps
        )
        if pages.pending and cut_short and not full:
            return False
        self._end_burst(drained=not pages.pending)
        return True

    def _end_burst(self, *, drained: bool) -> None:
        self._burst, self._checked = None, False
        self.transferred_bytes += SECTION_BYTES
        self._window_bytes += SECTION_BYTES
        over = self._budget_bytes and self._window_bytes > self._budget_bytes
        if self._now_ps >= self._window_start_ps + WINDOW_PS:
            self._close_window()
        elif over or (self._link.recorded is not None and not drained):
            self._sleeping = True
            self._wake_ps = max(self._wake_ps, self._window_start_ps + self._slept_window_ps)

    def _plan(self, is_zero: bool) -> WindowPlan | None:
        """What a window is like while enough pages of one kind lie ahead; None if it has no end."""
        page_bytes, page_ps = self._costs(is_zero)
        if self._link.recorded is not None or not (page_ps or (self._budget_bytes and page_bytes)):
            return None
        pages = bursts = sent_bytes = length_ps = 0
        limit_ps = self._burst_limit_ps(is_zero)
        while length_ps < WINDOW_PS:
            limit_bytes = self._burst_limit_bytes(is_zero, sent_bytes)
            by_bytes = limit_bytes // page_bytes if page_bytes else UNLIMITED
            burst = min(by_bytes, limit_ps // page_ps if page_ps else UNLIMITED)
            pages += burst
            bursts += 1
            length_ps += burst * page_ps
            sent_bytes += burst * page_bytes + SECTION_BYTES
            if length_ps < WINDOW_PS and 0 < self._budget_bytes < sent_bytes:
                length_ps = self._slept_window_ps
        return WindowPlan(pages=pages, bursts=bursts, sent_bytes=sent_bytes, length_ps=length_ps)

    def _jump(
        self, is_zero: bool, alike: int, to_ps: int, pages: SendablePages, done: Advanced
    ) -> bool:
        """Send many equal windows in one take, well short of the turn that acts; whether it did."""
        plan = self._plans[is_zero]
        if plan is None or self._window_bytes or self._now_ps != self._window_start_ps:
            return False
        threshold_bytes = max(self.threshold_bytes, self._threshold(plan.bandwidth))
        windows = min(
            (to_ps - self._now_ps) // plan.length_ps,
            alike // plan.pages,
            (pages.pending - threshold_bytes // self._page_bytes) // plan.pages - 1,
        )
        if windows < 1:
            return False
        taken = pages.take([(windows * plan.pages, 1, 1)])
        self._account(taken)
        self.transferred_bytes += windows * plan.bursts * SECTION_BYTES
        self._note(self._now_ps, taken, done, plan)
        self._now_ps += windows * plan.length_ps
        self._window_start_ps, self._checked = self._now_ps, False
        self._sample(plan.bandwidth)
        return True

    def _costs(self, is_zero: bool) -> tuple[int, int]:
        """Wire bytes and ps of a page of one kind."""
        if is_zero:
            return self._link.zero_page_bytes, self._zero_ps
        return self._link.normal_page_bytes, self._normal_ps

    def _note(
        self, start_ps: int, taken: Taken, done: Advanced, plan: WindowPlan | None = None
    ) -> None:
        """When the chunks of a take were cleared, and when the cursor came round in it."""
        if len(taken.cleared):  # a chunk is cleared as its first page is sent
            before = taken.normal_before, taken.zero_before
            done.clears.append((taken.cleared, self._times_ns(start_ps, taken, *before, plan)))
        if taken.wrapped_after is not None:
            normal, zero = np.array(taken.wrapped_after, np.int64)[:, None]
            self.pass_ends_ns.append(int(self._times_ns(start_ps, taken, normal, zero, plan)[0]))

    def _times_ns(
        self, start_ps: int, taken: Taken, normal: IntArray, zero: IntArray, plan: WindowPlan | None
    ) -> IntArray:
        """When so many pages of a take have been sent, int64 [n]."""
        windows: IntArray | int = 0
        if plan is not None:  # all of one kind
            windows = (normal + zero) // plan.pages
            normal, zero = (
                np.where(taken.zero, 0, normal % plan.pages),
                np.where(taken.zero, zero % plan.pages, 0),
            )
        # In ps a time of four months would overflow 64 bits: whole ns and the rest apart.
        start_ns, start_rest = divmod(start_ps, PS_PER_NS)
        length_ns, length_rest = divmod(plan.length_ps if plan else 0, PS_PER_NS)
        rest_ps = (
            start_rest + windows * length_rest + normal * self._normal_ps + zero * self._zero_ps
        )
        times_ns: IntArray = start_ns + windows * length_ns - (-rest_ps // PS_PER_NS)
        return times_ns
