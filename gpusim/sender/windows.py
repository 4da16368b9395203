"""Windows of 100 ms: the one under way, many equal ones, and the delay by remote clears.

Source: migration/migration.c:migration_rate_limit and migration_update_counters [7.2 to 10.1].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpusim.layout import IntArray
from gpusim.sender.burst import UNLIMITED, BurstLimits
from gpusim.sender.link import PS_PER_S, UNITS
from gpusim.sender.pace import Pace, PageCost
from gpusim.units import PS_PER_NS

WINDOW_PS = PS_PER_S // 10  # BUFFER_DELAY, 100 ms


@dataclass
class Window:
    """The window under way.

    Attributes:
        start_ps: when it began.
        sent_units: 1/128 bytes that it has sent.
        sync_ps: time in which a sync held the sender up.
    """

    start_ps: int = 0
    sent_units: int = 0
    sync_ps: int = 0

    def bandwidth(self, now_ps: int) -> float:
        """Return the bytes per second of the window if it ends now."""
        return self.sent_units * PS_PER_S / (UNITS * (now_ps - self.start_ps))

    def restart(self, now_ps: int) -> None:
        """Begin the next window."""
        self.start_ps, self.sent_units, self.sync_ps = now_ps, 0, 0


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """One of many equal windows: all their pages are of one kind.

    Attributes:
        pages, bursts, sent_units: pages, bursts and 1/128 bytes of a window.
        busy_ps: time of a window without its sleep.
        last_burst_page, last_burst_ps: pages and time before the last burst of a window.
        slept_ps: length of a window that ends with a sleep.
    """

    pages: int
    bursts: int
    sent_units: int
    busy_ps: int
    last_burst_page: int
    last_burst_ps: int
    slept_ps: int

    @property
    def sleeps(self) -> bool:
        """Whether the window ends with a sleep, if no remote clear uses it up."""
        return self.busy_ps < WINDOW_PS

    @property
    def length_ps(self) -> int:
        """Length of a window without remote clears."""
        return self.slept_ps if self.sleeps else self.busy_ps

    def bandwidth(self, delay_ps: int = 0) -> float:
        """Return the bytes per second of a window that lasts `delay_ps` longer."""
        return self.sent_units * PS_PER_S / (UNITS * (self.length_ps + delay_ps))

    def delay_ps(self, clears_ps: IntArray) -> IntArray:
        """Return how much longer windows last with remote clears, int64 [n] ps.

        Clears use up the sleep of a window first.

        Args:
            clears_ps: int64 [n], time of all clears in each window.
        """
        busy = self.busy_ps + clears_ps
        longer: IntArray = np.where(busy < WINDOW_PS, self.slept_ps, busy) - self.length_ps
        return longer


def plan_window(
    limits: BurstLimits, cost: PageCost, *, is_zero: bool, section_units: int, slept_ps: int
) -> WindowPlan | None:
    """Return the window that repeats while enough pages of one kind lie ahead.

    Args:
        limits: the limits of a burst.
        cost: the cost of a page of that kind.
        is_zero: the kind.
        section_units: 1/128 bytes that frame a burst.
        slept_ps: length of a window that ends with a sleep.

    Returns:
        The plan, or None if the window has no end because pages cost nothing.
    """
    budget, (page_units, page_ps) = limits.budget_units, cost
    if not (page_ps or (budget and page_units)):
        return None
    pages = bursts = sent_units = busy_ps = last_burst_page = last_burst_ps = 0
    limit_ps = limits.ps(is_zero=is_zero)
    while busy_ps < WINDOW_PS and not 0 < budget < sent_units:
        limit_units = limits.units(sent_units, is_zero=is_zero)
        by_units = limit_units // page_units if page_units else UNLIMITED
        burst_pages = min(by_units, limit_ps // page_ps if page_ps else UNLIMITED)
        last_burst_page, last_burst_ps = pages, busy_ps
        pages += burst_pages
        bursts += 1
        busy_ps += burst_pages * page_ps
        sent_units += burst_pages * page_units + section_units
    return WindowPlan(
        pages=pages,
        bursts=bursts,
        sent_units=sent_units,
        busy_ps=busy_ps,
        last_burst_page=last_burst_page,
        last_burst_ps=last_burst_ps,
        slept_ps=slept_ps,
    )


class Delays:
    """How much later the pages of a take are sent because of its remote clears.

    Args:
        before: int64 [n], ascending, pages taken before each clear.
        clears_ps: int64 [n], time of each clear.
        plan: the windows of the take. None: the take is part of one burst.
    """

    def __init__(self, before: IntArray, clears_ps: IntArray, plan: WindowPlan | None) -> None:
        self._before, self._clears_ps, self._plan = before, clears_ps, plan
        self._clears = _running_totals(clears_ps)
        if plan is not None:
            window = before // plan.pages
            starts = np.flatnonzero(np.diff(window, prepend=-1))
            self._window = window[starts]
            self._longer = _running_totals(plan.delay_ps(_sums_between(clears_ps, starts)))
            early = np.where(before % plan.pages < plan.last_burst_page, clears_ps, 0)
            late = plan.last_burst_ps + _sums_between(early, starts) >= WINDOW_PS
            self._fewer_bursts = self._window[late]

    def later(self, wait_ps: int) -> Delays:
        """Return the same delays if the first clear waits so long before it begins."""
        clears_ps = self._clears_ps.copy()
        clears_ps[0] += wait_ps
        return Delays(self._before, clears_ps, self._plan)

    @property
    def total_ps(self) -> int:
        """Time of all clears."""
        return int(self._clears[-1])

    @property
    def last_ps(self) -> int:
        """Time of the last clear."""
        return int(self._clears[-1] - self._clears[-2])

    def at(self, pages: IntArray) -> IntArray:
        """Return the delay after numbers of pages, int64 [n] ps.

        Args:
            pages: int64 [n].
        """
        clears: IntArray = self._clears[np.searchsorted(self._before, pages)]
        if self._plan is None:
            return clears
        window = pages // self._plan.pages
        before = self._clears[np.searchsorted(self._before, window * self._plan.pages)]
        delays: IntArray = self._longer[np.searchsorted(self._window, window)] + clears - before
        return delays

    def of_windows(self, windows: int) -> int:
        """Return how much longer the first windows last together, ps."""
        return int(self._longer[np.searchsorted(self._window, windows)])

    def runs(self, windows: int) -> Iterator[tuple[int, int]]:
        """Yield how many windows in a row are longer by the same ps, for the first windows."""
        done = 0
        for place, delay_ps in zip(self._window, np.diff(self._longer), strict=True):
            if place >= windows:
                break
            if place > done:
                yield int(place) - done, 0
            yield 1, int(delay_ps)
            done = int(place) + 1
        if windows > done:
            yield windows - done, 0

    def windows_within(self, limit_ps: int, windows: int) -> int:
        """Return how many windows end within a time and have as many bursts as the plan.

        Args:
            limit_ps: the time.
            windows: the most windows to return.
        """
        assert self._plan is not None
        length_ps, longer = self._plan.length_ps, self._longer
        ends = (self._window + 1) * length_ps + longer[1:]
        ended = int(np.searchsorted(ends, limit_ps, side="right"))
        windows = min([windows, *self._window[ended : ended + 1], *self._fewer_bursts[:1]])
        return int(min(windows, (limit_ps - int(longer[ended])) // length_ps))

    def times_ns(self, start_ps: int, pace: Pace, normal: IntArray, zero: IntArray) -> IntArray:
        """Return when numbers of pages of the take are sent, int64 [n] ns, rounded up.

        Args:
            start_ps: when the take begins.
            pace: costs of a page.
            normal, zero: int64 [n], pages sent by each time. In a take with a plan one is 0.
        """
        windows: IntArray | int = 0
        window_ps, delay_ps = 0, self.at(normal + zero)
        if self._plan is not None:
            window_ps, window_pages = self._plan.length_ps, self._plan.pages
            windows = (normal + zero) // window_pages
            normal, zero = normal % window_pages, zero % window_pages
        # Four months in ps overflow 64 bits, so add whole ns and the remainders separately.
        start_ns, start_rest = divmod(start_ps, PS_PER_NS)
        window_ns, window_rest = divmod(window_ps, PS_PER_NS)
        rest_ps = (
            start_rest
            + windows * window_rest
            + normal * pace.normal.ps
            + zero * pace.zero.ps
            + delay_ps
        )
        times_ns: IntArray = start_ns + windows * window_ns - (-rest_ps // PS_PER_NS)
        return times_ns


def _running_totals(values: IntArray) -> IntArray:
    """Running totals with a leading 0."""
    totals = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=totals[1:])
    return totals


def _sums_between(values: IntArray, starts: IntArray) -> IntArray:
    """The sum from each start to the next."""
    sums: IntArray = np.diff(_running_totals(values)[np.append(starts, len(values))])
    return sums
