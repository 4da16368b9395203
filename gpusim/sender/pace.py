"""Costs of a page now, and the bandwidth changes that come later."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from gpusim.layout import IntArray
from gpusim.sender.link import Link
from gpusim.units import PS_PER_NS


class PageCost(NamedTuple):
    """Cost of one page: 1/128 bytes on the link, and picoseconds."""

    units: int
    ps: int


class Pace:
    """Cost of a normal page, of a zero page and of a remote clear.

    The time of a page changes with the link. The size of a page does not.

    Attributes:
        normal, zero: cost of a page of each kind. A recorded link sets the bytes by each time, so
            its pages cost no time here.
        clear_ps: time of a remote clear, and time per page that the clear protects again, and for
            the first time.
        changes: (ps, time of a normal page, time of a zero page) of each later change, ascending.
    """

    def __init__(self, link: Link) -> None:
        normal_units, zero_units = link.page_units
        normal_ps, zero_ps = (0, 0) if link.recorded else link.page_ps()
        self.normal = PageCost(normal_units, normal_ps)
        self.zero = PageCost(zero_units, zero_ps)
        self.clear_ps = link.clear_ps
        self.changes = deque(
            (at_ns * PS_PER_NS, *link.page_ps(bandwidth)) for at_ns, bandwidth in link.changes
        )

    def cost(self, *, is_zero: bool) -> PageCost:
        """Return the cost of a page of one kind."""
        return self.zero if is_zero else self.normal

    def is_due(self, now_ps: int) -> bool:
        """Return whether the link changes at this time or has changed before."""
        return bool(self.changes) and self.changes[0][0] <= now_ps

    def apply_change(self) -> bool:
        """Apply the next change. Return whether pages cost a different time now."""
        _, normal_ps, zero_ps = self.changes.popleft()
        if (normal_ps, zero_ps) == (self.normal.ps, self.zero.ps):
            return False
        self.normal = self.normal._replace(ps=normal_ps)
        self.zero = self.zero._replace(ps=zero_ps)
        return True

    def clears_ps(self, protected: IntArray, first_protected: IntArray) -> IntArray:
        """Return the picoseconds of remote clears, int64 [n].

        Args:
            protected: int64 [n], pages that each clear protects.
            first_protected: int64 [n], those of them that no clear has protected before.
        """
        clear_ps, page_ps, first_ps = self.clear_ps
        return clear_ps + page_ps * protected + (first_ps - page_ps) * first_protected
