"""One take: pages from the cursor on, in QEMU's order, while all budgets last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gpusim.layout import IntArray, Taken
from gpusim.pages.budget import Budget, ClearCost, fitting
from gpusim.pages.chunks import PendingPages, RemoteClears
from gpusim.pages.cursor import Cursor
from gpusim.pages.primitives import Kernels


class Take:
    """A take in progress. It moves the cursor, clears bits and counts pages.

    Args:
        pending, clears, cursor, kernels: the state of the pages.
        budgets: the budgets of the take.
        clear_cost: the cost of remote clears, which the last budget pays.

    Attributes:
        is_over: a budget is used up, and a pending page was not taken.
        last_chunk: the last chunk of which a page was taken, or None.
    """

    def __init__(
        self,
        pending: PendingPages,
        clears: RemoteClears,
        cursor: Cursor,
        kernels: Kernels,
        *,
        budgets: Sequence[Budget],
        clear_cost: ClearCost,
    ) -> None:
        self._pending, self._clears, self._cursor, self._kernels = pending, clears, cursor, kernels
        self._budgets, self._clear_cost = budgets, clear_cost
        self._normal = self._zero = 0
        self._paid_clears = 0
        self.is_over = False
        self.last_chunk: int | None = None
        self._cleared: list[tuple[IntArray, ...]] = []
        self._wraps_after: tuple[int, int] | None = None

    def wrap(self) -> None:
        """Search on from the first page of the VM. If a page is taken there, then a pass ends."""
        self._wraps_after = self._normal, self._zero

    def take_chunks(self, first: int, last: int) -> None:
        """Take whole chunks while they fit the budgets, then the part of a chunk that fits."""
        while not self.is_over and first < last:
            first += self._take_whole_chunks(first, last)
            if first < last:
                self.take_inside(first)
                first += 1

    def take_inside(self, chunk: int, page: int = 0) -> None:
        """Take pages of a chunk from a page on."""
        while not self.is_over and self._pending.normal[chunk] + self._pending.zero[chunk]:
            left = self._left()
            if left[-1].limit < 0:  # a clear cost more than the budget had
                self.is_over = True
                return
            left[-1], is_one_page = self._after_clear(chunk, left[-1])
            taken = self._kernels.clear_in_chunk(chunk, page, left)
            pages = taken.normal + taken.zero
            if pages:
                self.last_chunk = chunk
                if self._clears.due[chunk]:
                    self._note_clears(
                        np.array([chunk]), np.array([self._normal]), np.array([self._zero])
                    )
                page = taken.behind
                self._cursor.move(chunk, page)
            self._pending.normal[chunk] -= taken.normal
            self._pending.zero[chunk] -= taken.zero
            self._count(taken.normal, taken.zero)
            if not taken.is_over:
                return
            self.is_over = not (is_one_page and pages)

    def result(self) -> Taken:
        """Return what was taken."""
        if self._wraps_after == (self._normal, self._zero):  # nothing was found behind the wrap
            self._wraps_after = None
        self._cursor.wraps += self._wraps_after is not None
        columns: Iterable[IntArray] = (np.zeros(0, np.int64),) * 5
        if len(self._cleared) == 1:
            columns = self._cleared[0]
        elif self._cleared:
            columns = map(np.concatenate, zip(*self._cleared, strict=True))
        cleared, normal_before, zero_before, protected, first_protected = columns
        return Taken(
            normal=self._normal,
            zero=self._zero,
            cleared=cleared,
            normal_before=normal_before,
            zero_before=zero_before,
            protected=protected,
            first_protected=first_protected,
            wrapped_after=self._wraps_after,
        )

    def _take_whole_chunks(self, first: int, last: int) -> int:
        """Take the chunks from `first` on that fit the budgets as a whole. Return how many.

        If the take may end with them, then the last one with pages is left to `take_inside`, which
        knows the last page.
        """
        pending = self._pending
        normal, zero = pending.normal[first:last].cumsum(), pending.zero[first:last].cumsum()
        costs = None
        if any(self._clear_cost):
            costs = np.cumsum(self._clear_costs(slice(first, last)))
        whole = fitting(normal, zero, self._left(), costs)
        if not whole:
            return 0
        some = np.flatnonzero(pending.of(slice(first, first + whole)))
        if len(some):
            clears = 0 if costs is None else int(costs[whole - 1])
            if self._may_end(int(normal[whole - 1]), int(zero[whole - 1]), clears):
                whole = int(some[-1])
                if not whole:
                    return 0
                some = some[:-1]
            if len(some):
                self._cursor.move(first + int(some[-1]) + 1)
        normal_before = self._normal + np.concatenate([[0], normal])[some]
        zero_before = self._zero + np.concatenate([[0], zero])[some]
        self._note_chunks(first + some, normal_before, zero_before)
        self._kernels.clear_chunks(first, first + whole)
        self._count(int(normal[whole - 1]), int(zero[whole - 1]))
        pending.normal[first : first + whole] = 0
        pending.zero[first : first + whole] = 0
        return whole

    def _may_end(self, normal: int, zero: int, clears: int) -> bool:
        """Whether the budgets may not last for a page more after these pages and costs of clears."""
        left = [budget.less(normal, zero) for budget in self._left()]
        left[-1] = left[-1]._replace(limit=left[-1].limit - clears)
        return any(budget.limit < max(budget.normal, budget.zero) for budget in left)

    def _left(self) -> list[Budget]:
        left = [budget.less(self._normal, self._zero) for budget in self._budgets]
        left[-1] = left[-1]._replace(limit=left[-1].limit - self._paid_clears)
        return left

    def _clear_costs(self, chunks: slice | IntArray) -> IntArray:
        """The cost of the clears that are due in some chunks if all pending pages are taken."""
        pages = self._pending.of(chunks)
        normal, zero = self._pending.normal[chunks], self._pending.zero[chunks]
        costs = self._clear_cost.of(*self._clears.protected(chunks, normal, zero))
        return np.where(self._clears.due[chunks] & (pages > 0), costs, 0)

    def _after_clear(self, chunk: int, budget: Budget) -> tuple[Budget, bool]:
        """The budget after a chunk's clear, and whether the clear uses it up.

        Then one page is taken all the same, because a clear and the chunk's first page are one
        step.
        """
        if not self._clears.due[chunk]:
            return budget, False
        cost = int(self._clear_costs(np.array([chunk]))[0])
        if cost and budget.limit - cost < max(budget.normal, budget.zero):
            return Budget(1, 1, 1), True
        return budget._replace(limit=budget.limit - cost), False

    def _count(self, normal: int, zero: int) -> None:
        self._normal += normal
        self._zero += zero
        self._pending.total -= normal + zero

    def _note_chunks(
        self, chunks: IntArray, normal_before: IntArray, zero_before: IntArray
    ) -> None:
        """Note the clears that are due in chunks whose pages are taken now, in order."""
        if len(chunks):
            self.last_chunk = int(chunks[-1])
        due = self._clears.due[chunks]
        if due.any():
            self._note_clears(chunks[due], normal_before[due], zero_before[due])

    def _note_clears(
        self, chunks: IntArray, normal_before: IntArray, zero_before: IntArray
    ) -> None:
        """Do the clears of some chunks."""
        pending = self._pending
        protected = self._clears.protected(chunks, pending.normal[chunks], pending.zero[chunks])
        self._cleared.append((chunks, normal_before, zero_before, *protected))
        self._paid_clears += int(self._clear_cost.of(*protected).sum())
        self._clears.clear(chunks)
