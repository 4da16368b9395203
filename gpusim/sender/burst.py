"""A burst: one call of ram_save_iterate, and the limits in bytes and time that end it.

Source: migration/ram.c:ram_save_iterate, migration/migration-stats.c:migration_rate_exceeded,
migration/qemu-file.c:add_to_iovec [7.2 to 10.1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from gpusim.layout import IntArray
from gpusim.sender.link import PS_PER_S, UNITS, Link
from gpusim.sender.pace import Pace, PageCost

WINDOWS_PER_S = 10  # XFER_LIMIT_RATIO
BURST_PS = 51 * PS_PER_S // 1000  # MAX_WAIT: the first whole millisecond above 50
BURST_CHECK_PAGES = 64  # a burst reads the clock after pages 1, 65, 129, ...
UNLIMITED = 2**61  # bytes, pages or ps


@dataclass(kw_only=True)
class Burst:
    """The burst under way.

    Attributes:
        is_zero: the kind of pages that the limits are made for.
        alike: so many pages of this kind come next for certain. None: both kinds never mix.
        is_mixed: the burst may meet both kinds before it ends. Then `BurstLimits.next_budgets` ends
            it, and not the next two attributes.
        units_left: 1/128 bytes that the burst may still send.
        ps_left: picoseconds that the burst may still last.
        allowed_units: 1/128 bytes that a recorded link still sends in this window.
        pages, normal_pages, sent_units, spent_ps: pages, 1/128 bytes and time of the burst so far.
            The time excludes remote clears.
        host_page_ends: of whole host pages: int64 [n], pages of the burst up to the end of each host
            page, until the burst reads the clock.
        is_over: of whole host pages: the burst ends when the thread wakes.
        start_ps: when it began.
        least_pages: the burst sends at least so many pages. The last of them was on the link when
            the rate limit changed.
    """

    is_zero: bool
    alike: int | None
    units_left: int
    ps_left: int
    allowed_units: int
    pages: int = 0
    normal_pages: int = 0
    sent_units: int = 0
    spent_ps: int = 0
    host_page_ends: IntArray = field(default_factory=lambda: np.zeros(1, np.int64))
    is_over: bool = False
    start_ps: int = 0
    is_mixed: bool = False
    least_pages: int = 0

    def see_limits(self, cost: PageCost) -> None:
        """Note whether the burst may meet both kinds before its limits end it.

        Args:
            cost: of a page of its kind.
        """
        if self.alike is not None:
            fits = cost.units * self.alike < self.units_left
            self.is_mixed |= fits and cost.ps * self.alike < self.ps_left

    def allowed(self, normal: PageCost, zero: PageCost) -> list[tuple[int, int, int]]:
        """Return the budget of a recorded link, if there is one."""
        limit = self.allowed_units
        return [(limit, normal.units, zero.units)] if limit < UNLIMITED // 2 else []

    def count(self, normal: int, zero: int, sent_units: int, spent_ps: int) -> None:
        """Count pages that the burst has sent."""
        self.pages += normal + zero
        if self.alike is not None:
            self.alike = max(0, self.alike - normal - zero)
        self.normal_pages += normal
        self.sent_units += sent_units
        self.spent_ps += spent_ps
        self.units_left -= sent_units
        self.allowed_units -= sent_units
        self.ps_left -= spent_ps


class BurstLimits:
    """The limits that end a burst: the rate limit of its window, and 50 ms.

    Args:
        link: the link.
        pace: costs of a page.
        max_bandwidth: bytes per second. 0: unlimited.
        counts_flushed_bytes: the rate limit counts bytes when a buffer is flushed, not when they
            are queued.

    Attributes:
        budget_units: 1/128 bytes per window. 0: unlimited.
        flush_pages: normal and zero pages that one flush adds to the rate limit's bytes.
    """

    def __init__(
        self, link: Link, pace: Pace, *, max_bandwidth: int, counts_flushed_bytes: bool
    ) -> None:
        self._pace, self._in_flight = pace, link.pages_in_flight
        self.flush_pages = link.flush_pages(counts_flushed_bytes=counts_flushed_bytes)
        self.budget_units = 0
        self.set_max_bandwidth(max_bandwidth)

    def set_max_bandwidth(self, max_bandwidth: int) -> None:
        """Set the rate limit. It does not count the pages that are in flight.

        Args:
            max_bandwidth: bytes per second. 0: unlimited.
        """
        budget = max_bandwidth // WINDOWS_PER_S * UNITS
        self.budget_units = budget + self._in_flight * self._pace.normal.units if budget else 0

    def units(self, window_units: int, *, is_zero: bool) -> int:
        """Return how many 1/128 bytes a burst of equal pages sends.

        The burst ends with the flush that takes the window over its budget. A kind of zero size uses
        the limit of the other kind.

        Args:
            window_units: 1/128 bytes that the window has sent before.
            is_zero: the kind of pages.
        """
        cost = self._pace.cost
        page_units = cost(is_zero=is_zero).units or cost(is_zero=not is_zero).units
        if not (self.budget_units and page_units):
            return UNLIMITED
        flush = self.flush_pages[is_zero] * page_units
        return max(0, (self.budget_units - window_units) // flush + 1) * flush

    def ps(self, *, is_zero: bool, pages: int = 0, spent_ps: int = 0) -> int:
        """Return how many picoseconds a burst of equal pages still lasts.

        The burst ends when it reads the clock and more than 50 ms have passed. A kind that takes no
        time uses the limit of the other kind.

        Args:
            is_zero: the kind of pages.
            pages: pages that the burst has sent.
            spent_ps: time that the burst has lasted.
        """
        cost = self._pace.cost
        page_ps = cost(is_zero=is_zero).ps or cost(is_zero=not is_zero).ps
        if not page_ps:
            return UNLIMITED
        left_ps = max(0, BURST_PS - spent_ps)
        checks = max(0, math.ceil((left_ps / page_ps + pages - 1) / BURST_CHECK_PAGES))
        return (BURST_CHECK_PAGES * checks + 1 - pages) * page_ps

    def fits(self, burst: Burst, window_units: int) -> bool:
        """Whether the window's bytes and a recorded link have room for a page of either kind."""
        dearest = max(self._pace.normal.units, self._pace.zero.units)
        has_room = not self.budget_units or self.budget_units - window_units >= dearest
        return has_room and burst.allowed_units >= dearest

    def next_budgets(
        self, burst: Burst, window_units: int, next_is_late: bool = False
    ) -> list[tuple[int, int, int]] | None:
        """Return budgets of pages that the burst sends for certain, whatever their order.

        If the next page does not fit them, then the burst sends this page, and the caller asks again.
        A flush is due after a number of normal pages or of zero pages, see `flush_pages`. If both
        kinds come between two flushes, the result is exact to one flush.

        Args:
            burst: the burst under way.
            window_units: 1/128 bytes that its window has sent.
            next_is_late: the next page is the first that ends after the 50 ms.

        Returns:
            (limit, cost of a normal page, cost of a zero page) of each. None: the burst is over.
        """
        normal, zero = self._pace.normal, self._pace.zero
        if burst.pages < burst.least_pages:
            return [(burst.least_pages - burst.pages, 1, 1)]
        budgets = []
        is_late, to_check = burst.spent_ps >= BURST_PS, -(burst.pages - 1) % BURST_CHECK_PAGES
        if is_late:
            if burst.pages and not to_check:
                return None
            budgets.append((to_check, 1, 1))
        elif next_is_late:
            to_check = BURST_CHECK_PAGES if burst.pages and not to_check else to_check
            budgets.append((to_check, 1, 1))
        elif normal.ps or zero.ps:
            budgets.append((BURST_PS - 1 - burst.spent_ps, normal.ps, zero.ps))
        if not self.budget_units:
            return budgets
        if window_units <= self.budget_units:
            return [*budgets, (self.budget_units - window_units, normal.units, zero.units)]
        zero_pages = burst.pages - burst.normal_pages
        kinds = list(zip(self.flush_pages, (burst.normal_pages, zero_pages), strict=True))
        if not burst.pages or any(pages and pages % flush == 0 for flush, pages in kinds):
            return None
        waiting = [pages % flush for flush, pages in kinds]
        flushed_units = window_units - waiting[0] * normal.units - waiting[1] * zero.units
        if flushed_units > self.budget_units:  # the last flush has already passed a new limit
            return None
        left = [flush - pages % flush - 1 for flush, pages in kinds]
        return [*budgets, (left[0], 1, 0), (left[1], 0, 1)]
