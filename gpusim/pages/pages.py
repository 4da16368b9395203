"""Which pages are to be sent, which are zero, and where the sender's cursor is.

The bitmaps live in a kernels object; here, on the host, are the counts a chunk, the cursor and the
chunk flags. A sync never moves the cursor (migration/ram.c:ram_find_and_save_block).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpusim.layout import CHUNK_PAGES, CHUNK_SHIFT, IntArray, Layout, Taken, Writes
from gpusim.pages import backends
from gpusim.pages.budget import FREE, Budget, ClearCost, fitting
from gpusim.pages.draw import cells_of
from gpusim.pages.primitives import Op, Step


class Pages:
    """The dirty bitmap of a VM, as the sender sees it.

    Args:
        layout: of the VM.
        zero_first, zero_last: int64 [runs], guest pages that are zero at the start.
        lazy: KVM's manual protect: pages are tracked anew at their chunk's clear, not at the sync.
        initially_set: lazy only: KVM_DIRTY_LOG_INITIALLY_SET.
        seed: of the drawing.
        backend: where the bitmaps live, one of backends.BACKENDS.
        threads: over chunks, on a CPU.

    Attributes:
        normal, zero: int64 [chunks], pages to be sent with and without content.
        pending: their sum, QEMU's migration_dirty_pages.
        wraps: how often the cursor has come to the end of the VM.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        zero_first: IntArray,
        zero_last: IntArray,
        lazy: bool,
        initially_set: bool,
        seed: int,
        backend: str = "numpy",
        threads: int = 1,
    ) -> None:
        self._layout, self._lazy, self._seed = layout, lazy, seed
        self.kernels = backends.make_kernels(
            backend, layout.chunks, log=lazy, zero=len(zero_first) > 0, threads=threads
        )
        starts = np.arange(layout.chunks) << CHUNK_SHIFT
        self.kernels.fill(self.kernels.dirty, starts, starts + layout.chunk_pages)
        self.normal, self.zero = layout.chunk_pages.copy(), np.zeros(layout.chunks, np.int64)
        if self.kernels.zero is not None:
            first, last, _ = layout.cut(zero_first, zero_last)
            self.kernels.fill(self.kernels.zero, first, last)
            np.add.at(self.zero, first >> CHUNK_SHIFT, last - first)
            self.normal -= self.zero
        if self.kernels.log is not None and initially_set:
            self.kernels.fill(self.kernels.log, starts, starts + layout.chunk_pages)
        self.pending = layout.pages
        self._clear_due = np.zeros(layout.chunks, np.bool_)
        self._protected_from_start = not initially_set
        block_chunks = [-(-block // CHUNK_PAGES) for block in layout.blocks]
        self._block_end: IntArray = np.repeat(np.cumsum(block_chunks), block_chunks)
        self._chunk, self._page = 0, 0
        self._synced_inside: int | None = (
            None  # the chunk that the cursor stood in at the last sync
        )
        self.wraps = 0
        self.looks = 0

    @property
    def at_end(self) -> bool:
        """The cursor stands behind the last page, and comes round next."""
        return self._chunk == self._layout.chunks

    @property
    def cursor_page(self) -> int:
        """The guest page that the sender looks at next; at the end of the VM, the one behind its last."""
        if self._chunk == self._layout.chunks:
            return self._layout.pages
        return int(self._layout.chunk_first[self._chunk]) + self._page

    def start(self) -> None:
        """The first sync: every page is to be sent already; all remote clears become due."""
        self._clear_due[:] = self._lazy

    def sync(self, writes: Writes, before_clear: Writes | None = None) -> int:
        """Bring what the guest has written into the bitmap.

        Args:
            writes: eager: since the last sync. Lazy: since the chunk's clear, or since the last sync
                where the chunk was not cleared.
            before_clear: lazy: from the last sync to the clear, in chunks cleared since.

        Returns:
            pages that were not to be sent and now are: QEMU's new dirty pages.
        """
        self.looks += 1
        if before_clear is not None:
            cleared = np.flatnonzero(~self._clear_due)
            steps = [
                self._step(Op.CLEAR_LOG, before_clear, cleared),
                self._step(Op.MERGE_LOG, writes, cleared),
            ]
        else:
            steps = [self._step(Op.MERGE, writes, np.zeros(0, np.int64))]
        newly_dirty = 0
        for step, counts in zip(steps, self.kernels.paint(steps), strict=True):
            self.normal[step.chunks] += counts.new + counts.unzeroed
            self.zero[step.chunks] -= counts.unzeroed
            newly_dirty += int(counts.new.sum())
        self.pending += newly_dirty
        self._clear_due[:] = self._lazy
        self._synced_inside = self._chunk if self._page else None
        return newly_dirty

    def close(self) -> None:
        """Give the memory of the bitmaps back."""
        self.kernels.close()

    def _step(self, op: Op, writes: Writes, cleared: IntArray) -> Step:
        """Draw the integers of a look, for the chunks that can change: written or cleared."""
        cells = cells_of(writes, self._seed, self.looks, step=int(op is Op.CLEAR_LOG))
        if op is Op.CLEAR_LOG:
            return Step(op, cells, cleared)
        cell_chunk = cells.first >> CHUNK_SHIFT
        written = cell_chunk[np.diff(cell_chunk, prepend=-1) > 0]
        if op is Op.MERGE_LOG:
            return Step(op, cells, np.union1d(written, cleared))
        # Nothing changes where all is to be sent and nothing zero.
        return Step(op, cells, written[self.normal[written] < self._layout.chunk_pages[written]])

    @property
    def _all_ahead(self) -> bool:
        """No page to be sent in the cursor's own chunk lies behind the cursor."""
        return not self._page or self._chunk != self._synced_inside

    def run_ahead(self, *, wraps: bool = True) -> tuple[bool, int]:
        """Whether the pages ahead of the cursor are zero, and how many are certainly all alike.

        Args:
            wraps: count those as well that the cursor finds when it has come round.
        """
        if not self.zero.any():
            ahead = self.normal[self._chunk + (not self._all_ahead) :]
            return False, self.pending if wraps else int(ahead.sum())
        zero, normal = self.zero[self._chunk :], self.normal[self._chunk :]
        if not len(zero) or (zero[0] and normal[0]):
            return False, 0
        is_zero = bool(zero[0])
        other = np.flatnonzero(normal if is_zero else zero)
        end = int(other[0]) if len(other) else len(zero)
        # Of the cursor's own chunk some pages may lie behind the cursor.
        return is_zero, int((zero if is_zero else normal)[1:end].sum())

    def clears_ahead(self, pages: int) -> tuple[IntArray, IntArray] | None:
        """Pages taken before each clear that the next pages meet, and pages that each protects.

        None: not known, as some pages of the cursor's own chunk may lie behind the cursor.
        """
        if not self._all_ahead:
            return None
        order = np.roll(np.arange(self._layout.chunks), -self._chunk)
        waiting = (self.normal + self.zero)[order]
        before = np.cumsum(waiting) - waiting
        due = np.flatnonzero(self._clear_due[order] & (waiting > 0) & (before < pages))
        return before[due], self._protected(waiting[due])

    def _protected(self, waiting: IntArray) -> IntArray:
        """Pages that clears protect in chunks of which so many wait to be sent.

        Those that the last log sync found written; of the cursor's own chunk some more are counted.
        If all were protected at the start, none is left to protect before the first look.
        """
        return waiting if self.looks or not self._protected_from_start else np.zeros_like(waiting)

    def take(
        self,
        budgets: Sequence[tuple[int, int, int]],
        *,
        clear: tuple[int, int] = FREE,
        wraps: bool = True,
    ) -> Taken:
        """Take pages from the cursor on, in QEMU's order, while every budget lasts.

        The cursor wraps once at most: a full circle is enough to find every page. When nothing is
        left, QEMU's search goes round and gives up at the end of the block that it began in.

        Args:
            budgets: each a limit, and what a normal and a zero page cost of it; see budget.Budget.
            clear: what a remote clear costs of the last budget; see budget.ClearCost. One that the
                budget lasts to begin is finished, and its first page is taken with it.
            wraps: if not, the cursor stops behind the last page, unless it stands there.
        """
        taking = _Taking(self, [Budget(*budget) for budget in budgets], ClearCost(*clear))
        start = self._chunk
        taking.inside(start)
        taking.chunks(start + 1, self._layout.chunks)
        if not taking.stopped and self.pending and (wraps or start == self._layout.chunks):
            self._chunk, self._page = 0, 0
            self.wraps += 1
            taking.wrap()
            taking.chunks(0, start)
            taking.inside(start)
        if not self.pending:
            last = taking.last_chunk
            self._chunk, self._page = start if last is None else int(self._block_end[last]), 0
        return taking.result()


class _Taking:
    """One take: goes on until a budget is spent."""

    def __init__(self, pages: Pages, budgets: Sequence[Budget], clear: ClearCost) -> None:
        self._pages, self._budgets, self._clear = pages, budgets, clear
        self._normal = self._zero = 0
        self._held = 0  # the cost of clears so far
        self.stopped = False
        self.last_chunk: int | None = None  # that a page was taken from
        self._clears: list[tuple[IntArray, ...]] = []
        self._wrapped_after: tuple[int, int] | None = None

    def wrap(self) -> None:
        """The cursor comes round: a pass has ended."""
        self._wrapped_after = self._normal, self._zero

    def inside(self, chunk: int) -> None:
        """Take from the cursor to the end of its chunk."""
        pages = self._pages
        if self.stopped or chunk >= pages._layout.chunks:
            return
        if pages.normal[chunk] + pages.zero[chunk]:
            left = self._left()
            if left[-1].limit < 0:  # a clear has overdrawn it
                self.stopped = True
                return
            left[-1], one_page = self._after_clear(chunk, left[-1])
            next_page, normal, zero = pages.kernels.clear_in_chunk(chunk, pages._page, left)
            if normal + zero:
                self._note_chunks(
                    np.array([chunk]), np.array([self._normal]), np.array([self._zero])
                )
            pages.normal[chunk] -= normal
            pages.zero[chunk] -= zero
            self._count(normal, zero)
            if next_page < CHUNK_PAGES:
                pages._page = next_page
                self.stopped = not (one_page and normal + zero)
                self.inside(chunk)
                return
        pages._chunk, pages._page = chunk + 1, 0

    def chunks(self, first: int, last: int) -> None:
        """Take whole chunks while they fit, then the part of one that still does."""
        while not self.stopped and first < last:
            first += self._whole(first, last)
            self._pages._chunk, self._pages._page = first, 0
            if first < last:  # the chunk that does not fit whole
                self.inside(first)
                first += 1

    def _whole(self, first: int, last: int) -> int:
        """Take the chunks from `first` on that fit whole; how many."""
        pages = self._pages
        normal, zero = np.cumsum(pages.normal[first:last]), np.cumsum(pages.zero[first:last])
        held = np.cumsum(self._clear_costs(slice(first, last))) if any(self._clear) else None
        whole = fitting(normal, zero, self._left(), held)
        if not whole:
            return 0
        some = np.flatnonzero(
            pages.normal[first : first + whole] + pages.zero[first : first + whole]
        )
        before_normal = self._normal + np.concatenate([[0], normal])[some]
        before_zero = self._zero + np.concatenate([[0], zero])[some]
        self._note_chunks(first + some, before_normal, before_zero)
        pages.kernels.clear_chunks(first, first + whole)
        self._count(int(normal[whole - 1]), int(zero[whole - 1]))
        pages.normal[first : first + whole] = 0
        pages.zero[first : first + whole] = 0
        return whole

    def _left(self) -> list[Budget]:
        left = [budget.less(self._normal, self._zero) for budget in self._budgets]
        left[-1] = left[-1]._replace(limit=left[-1].limit - self._held)
        return left

    def _clear_costs(self, chunks: slice | IntArray) -> IntArray:
        """What the clears cost that are due in some chunks, if all that waits there is taken."""
        pages = self._pages
        waiting = pages.normal[chunks] + pages.zero[chunks]
        costs = self._clear.of(pages._protected(waiting))
        return np.where(pages._clear_due[chunks] & (waiting > 0), costs, 0)

    def _after_clear(self, chunk: int, budget: Budget) -> tuple[Budget, bool]:
        """What the clear of a chunk leaves of a budget; whether a page goes with it, come what may."""
        cost = int(self._clear_costs(np.array([chunk]))[0])
        if cost and budget.limit - cost < max(budget.normal, budget.zero):
            return Budget(1, 1, 1), True
        return budget._replace(limit=budget.limit - cost), False

    def _count(self, normal: int, zero: int) -> None:
        self._normal += normal
        self._zero += zero
        self._pages.pending -= normal + zero

    def _note_chunks(
        self, chunks: IntArray, normal_before: IntArray, zero_before: IntArray
    ) -> None:
        """Pages of these chunks, in order, are being taken: note the clears that were due."""
        if len(chunks):
            self.last_chunk = int(chunks[-1])
        due = self._pages._clear_due[chunks]
        if due.any():
            chunks = chunks[due]
            pages = self._pages
            protected = pages._protected(pages.normal[chunks] + pages.zero[chunks])
            self._clears.append((chunks, normal_before[due], zero_before[due], protected))
            self._held += int(self._clear.of(protected).sum())
            pages._clear_due[chunks] = False

    def result(self) -> Taken:
        parts = [
            np.concatenate([c[i] for c in self._clears]) if self._clears else np.zeros(0, np.int64)
            for i in range(4)
        ]
        return Taken(
            normal=self._normal,
            zero=self._zero,
            cleared=parts[0],
            normal_before=parts[1],
            zero_before=parts[2],
            protected=parts[3],
            wrapped_after=self._wrapped_after,
        )
