"""The pages of a VM: which are pending, which are zero, and where the sender continues.

A kernels object holds the bitmaps, on a CPU or a GPU. The counts per chunk, the remote clears and
the cursor live on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpusim.layout import CHUNK_SHIFT, IntArray, Layout, Taken, Writes
from gpusim.pages import backends
from gpusim.pages.budget import FREE, Budget, ClearCost
from gpusim.pages.chunks import PendingPages, RemoteClears
from gpusim.pages.cursor import Cursor
from gpusim.pages.draw import (
    ZERO_DRAW,
    Cells,
    cells_of,
    draw_groups,
    expected_cells,
    zero_marks,
)
from gpusim.pages.host_pages import host_page_ends
from gpusim.pages.primitives import Op, Step
from gpusim.pages.take import Take


class Pages:
    """The dirty bitmap of a VM, as the sender uses it.

    Args:
        layout: the page space of the VM.
        zero_first, zero_last: int64 [runs], runs of guest pages that are zero at the start.
        zeroes: writes may leave pages zero.
        lazy: KVM's manual protect. A chunk's pages are write-protected at its remote clear, not at
            the sync.
        initially_set: KVM_DIRTY_LOG_INITIALLY_SET. It needs `lazy`.
        seed: seed of all draws.
        draws_counts: draw how many pages are written. Otherwise the kernels must be those of
            backends.EXPECTED.
        backend: where the bitmaps live, one of backends.BACKENDS or backends.EXPECTED.
        threads: threads that share the chunks of a draw on a CPU.

    Attributes:
        kernels: the bitmaps.
        counts: pending pages per chunk.
        cursor: where the sender continues.
        draws: number of syncs that have drawn writes.

    Raises:
        MemoryError: the bitmaps do not fit.
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
        zeroes: bool = False,
        draws_counts: bool = True,
        backend: str = "numpy",
        threads: int = 1,
    ) -> None:
        self._layout, self._seed = layout, seed
        self._has_bits, self._draws_counts = backend != backends.EXPECTED, draws_counts
        self.kernels = backends.make_kernels(
            backend, layout.chunks, log=lazy, zero=zeroes or len(zero_first) > 0, threads=threads
        )
        try:
            zero = self._fill(zero_first, zero_last, initially_set=initially_set)
        except BaseException:
            self.kernels.close()
            raise
        self.counts = PendingPages(layout.chunk_pages - zero, zero)
        self._clears = RemoteClears(
            layout.chunks, lazy=lazy, protected_from_start=not initially_set
        )
        self.cursor = Cursor(layout)
        self.draws = 0

    def _fill(self, zero_first: IntArray, zero_last: IntArray, *, initially_set: bool) -> IntArray:
        """Set the pages of each bitmap at the start. Return the zero pages of each chunk."""
        layout, kernels = self._layout, self.kernels
        starts = np.arange(layout.chunks) << CHUNK_SHIFT
        kernels.fill(kernels.dirty, starts, starts + layout.chunk_pages)
        zero = np.zeros(layout.chunks, np.int64)
        if kernels.zero is not None:
            first, last, _ = layout.cut(zero_first, zero_last)
            kernels.fill(kernels.zero, first, last)
            np.add.at(zero, first >> CHUNK_SHIFT, last - first)
        if kernels.log is not None and initially_set:
            kernels.fill(kernels.log, starts, starts + layout.chunk_pages)
        return zero

    @property
    def pending(self) -> int:
        """Number of pending pages, QEMU's migration_dirty_pages."""
        return self.counts.total

    @property
    def at_end(self) -> bool:
        """Whether no pending page lies ahead of the cursor, so that it wraps next."""
        return self.cursor.is_at_end

    def start(self) -> None:
        """Run the first sync: every page is pending already, and all remote clears become due."""
        self._clears.start()

    def sync(self, writes: Writes, before_clear: Writes | None = None) -> int:
        """Draw the guest's writes and merge them into the bitmap.

        Args:
            writes: eager tracking: writes since the last sync. Lazy tracking: writes since the
                chunk's clear, or since the last sync if the chunk was not cleared.
            before_clear: lazy tracking: writes from the last sync to the clear, in chunks that were
                cleared since.

        Returns:
            Number of newly dirty pages: they were not pending before.
        """
        self.draws += 1
        if before_clear is not None:
            cleared = ~self._clears.due
            steps = self._steps(Op.CLEAR_LOG, before_clear, cleared)
            steps += self._steps(Op.MERGE_LOG, writes, cleared)
        else:
            steps = self._steps(Op.MERGE, writes, None)
        newly_dirty = 0
        for step, changed in zip(steps, self.kernels.paint(steps), strict=True):
            chunks = _as_slice(step.chunks)
            if step.op is not Op.CLEAR_LOG:
                self.counts.normal[chunks] += changed.new
                newly_dirty += int(changed.new.sum())
            if self.kernels.zero is not None:
                self.counts.normal[chunks] += changed.unzeroed
                self.counts.zero[chunks] -= changed.unzeroed
        self.counts.total += newly_dirty
        self._clears.sync()
        self.cursor.note_sync()
        return newly_dirty

    @property
    def mixes_kinds(self) -> bool:
        """Whether both normal and zero pages are pending."""
        return bool(self.counts.zero.any() and self.counts.normal.any())

    def run_ahead(self, *, wraps: bool = True) -> tuple[bool, int]:
        """Return whether the next pages are zero pages, and how many are certainly of one kind.

        Args:
            wraps: count the pages behind the cursor as well.
        """
        if self.counts.zero.any():
            cursor = self.cursor
            return self.counts.run_after(cursor.chunk, counts_own=cursor.is_before_all)
        if wraps:
            return False, self.pending
        first = self.cursor.chunk + (not self.cursor.is_before_all)
        return False, int(self.counts.normal[first:].sum())

    def clears_ahead(self, pages: int) -> tuple[IntArray, IntArray, IntArray] | None:
        """Return the remote clears among the next pages.

        Args:
            pages: number of next pages.

        Returns:
            int64 [n] each: pages taken before each clear, pages that the clear protects, and those of
            them that no clear has protected before. None if some pages of the cursor's own chunk may
            lie behind the cursor.
        """
        if not self.cursor.is_before_all:
            return None
        order = np.roll(np.arange(self._layout.chunks), -self.cursor.chunk)
        pending = self.counts.of(order)
        before = np.cumsum(pending) - pending
        due = np.flatnonzero(self._clears.due[order] & (pending > 0) & (before < pages))
        chunks = order[due]
        normal, zero = self.counts.normal[chunks], self.counts.zero[chunks]
        return before[due], *self._clears.protected(chunks, normal, zero)

    def host_page_ends(self, size: int, number: int) -> IntArray:
        """Return the pending pages up to the end of each of the next host pages, int64 [n].

        Args:
            size: target pages of a host page.
            number: of host pages, at most. Host pages without a pending page do not count.
        """
        return host_page_ends(
            self.counts,
            self.cursor,
            self.kernels,
            has_bits=self._has_bits,
            size=size,
            number=number,
        )

    def take(
        self,
        budgets: Sequence[tuple[int, int, int]],
        *,
        clear: tuple[int, int, int] = FREE,
        wraps: bool = True,
    ) -> Taken:
        """Take pages from the cursor on, in QEMU's order, while every budget lasts.

        The cursor wraps at most once, because one full circle finds every page. If no page is left,
        QEMU's search gives up at the end of the block of the last page.

        Args:
            budgets: (limit, cost of a normal page, cost of a zero page), see budget.Budget.
            clear: what a remote clear costs the last budget, see budget.ClearCost. If the budget
                lasts until a clear begins, then the clear and the first page after it are taken.
            wraps: if False, the search stops behind the last page, unless it begins there.

        Source: migration/ram.c:find_dirty_block and ram_find_and_save_block [7.2 to 10.1].
        """
        cursor, chunks = self.cursor, self._layout.chunks
        take = Take(
            self.counts,
            self._clears,
            cursor,
            self.kernels,
            budgets=[Budget(*budget) for budget in budgets],
            clear_cost=ClearCost(*clear),
        )
        start, seen = cursor.chunk, cursor.sees_end
        if start < chunks:
            take.take_inside(start, cursor.page)
            take.take_chunks(start + 1, chunks)
        if not take.is_over and self.pending and (wraps or start == chunks or seen):
            take.wrap()
            take.take_chunks(0, min(start + 1, chunks))
        elif not take.is_over:
            cursor.sees_end = True
        if not self.pending and take.last_chunk is not None:
            cursor.move_to_block_end(take.last_chunk)
        return take.result()

    def count_bits(self) -> int:
        """Count the set bits of the dirty bitmap, which are `pending`."""
        return sum(
            int(np.bitwise_count(self.kernels.read(self.kernels.dirty, chunk, chunk + 1)).sum())
            for chunk in range(self._layout.chunks)
        )

    def close(self) -> None:
        """Free the memory of the bitmaps."""
        self.kernels.close()

    def _steps(self, op: Op, writes: Writes, cleared: NDArray[np.bool_] | None) -> list[Step]:
        """Draw the integers of one merge, for chunks that can change: written or cleared.

        If writes leave pages zero, then a second step makes them zero pages.

        Args:
            op: how the tiles are merged.
            writes: the writes.
            cleared: lazy tracking: bool [chunks], the chunks that were cleared.
        """
        number = int(op is Op.CLEAR_LOG)
        zeroed = writes.zeroed
        if self._has_bits:  # shares of pages are the same whether pages are written together
            writes = draw_groups(writes, self._seed, self.draws, number)
        cells = self._cells(writes, self.draws, number)
        written = cells.chunks()
        if cleared is None:
            # A chunk of which all pages are pending and normal cannot change.
            can_change = (self.counts.normal < self._layout.chunk_pages)[written]
            step = Step(op, cells, written if can_change.all() else written[can_change])
        elif op is Op.CLEAR_LOG:
            step = Step(op, cells, np.flatnonzero(cleared))
        else:
            changes = cleared.copy()
            changes[written] = True
            step = Step(op, cells, np.flatnonzero(changes))
        if zeroed is None:
            return [step]
        if op is Op.CLEAR_LOG:
            assert cleared is not None
            written = written[cleared[written]]
        mask = self._cells(zero_marks(zeroed), ZERO_DRAW + self.draws, number)
        return [step, Step(Op.ZERO, cells, written, mask)]

    def _cells(self, writes: Writes, draw: int, number: int) -> Cells:
        if self._draws_counts:
            return cells_of(writes, self._seed, draw, number)
        return expected_cells(writes)


def _as_slice(chunks: IntArray) -> slice | IntArray:
    """Return ascending chunks as a slice if they are neighbours. A slice is a faster index."""
    if not len(chunks) or chunks[-1] - chunks[0] + 1 != len(chunks):
        return chunks
    return slice(int(chunks[0]), int(chunks[-1]) + 1)
