"""The place of a working set in guest memory: in one piece, or scattered in granules.

A placement maps the pages of the working set, numbered from 0, to guest pages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpusim.layout import IntArray, rising
from gpusim.stream import Stream


@dataclass(frozen=True)
class Placement:
    """The pieces of a working set, in the order of its pages.

    Attributes:
        own_first: int64 [pieces], first page of a piece, counted in the working set from 0.
        own_last: int64 [pieces], the page behind the last of a piece.
        guest_first: int64 [pieces], the guest page of own_first.
    """

    own_first: IntArray
    own_last: IntArray
    guest_first: IntArray

    def locate(self, first: int, last: int) -> tuple[IntArray, IntArray, IntArray]:
        """Return the pieces of the working set's pages first <= page < last.

        Returns:
            own_first, own_last and guest_first of these pieces, int64 [n] each.
        """
        low = int(np.searchsorted(self.own_last, first, side="right"))
        high = int(np.searchsorted(self.own_first, last, side="left"))
        own_first = np.maximum(self.own_first[low:high], first)
        own_last = np.minimum(self.own_last[low:high], last)
        return (
            own_first,
            own_last,
            self.guest_first[low:high] + own_first - self.own_first[low:high],
        )

    def part(self, first: int, last: int) -> Placement:
        """Return the placement of the pages first <= page < last alone, numbered from 0."""
        own_first, own_last, guest_first = self.locate(first, last)
        return Placement(own_first - first, own_last - first, guest_first)

    def cut(self, borders: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Cut the whole working set at pages, and return all pieces in order.

        Args:
            borders: int64 [n], pages of the working set, ascending.

        Returns:
            int64 [pieces]: first page in the set, first guest page, and number of pages.
        """
        cuts = rising(np.concatenate([borders, self.own_first]))
        cuts = cuts[cuts < self.own_last[-1]]
        piece = np.searchsorted(self.own_first, cuts, side="right") - 1
        pages = np.diff(np.append(cuts, self.own_last[-1]))
        return cuts, self.guest_first[piece] + cuts - self.own_first[piece], pages


def contiguous(start: int, pages: int) -> Placement:
    """Return a placement in guest pages from `start` on."""
    return Placement(np.array([0]), np.array([pages]), np.array([start]))


def scattered(
    vm_pages: int, pages: int, granule: int, stream: Stream, free: IntArray | None = None
) -> Placement:
    """Return a placement in granules that are drawn evenly from the VM without replacement.

    Args:
        vm_pages, pages, granule: pages of the VM, of the working set and of a granule.
        stream: draws the granules.
        free: int64, ascending, numbers of the granules that nobody has. They are drawn if they
            suffice. None: all granules.
    """
    own_first = np.arange(0, pages, granule, dtype=np.int64)
    if free is not None and len(free) < len(own_first):
        free = None
    random = np.random.Generator(stream.bits)
    count = vm_pages // granule if free is None else len(free)
    drawn = random.choice(count, size=len(own_first), replace=False)
    places = drawn if free is None else free[drawn]
    return Placement(
        own_first, np.minimum(own_first + granule, pages), places.astype(np.int64) * granule
    )
