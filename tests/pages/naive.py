"""Naive references of the page rules: one boolean per page, every write and every page in order.

The state machine follows the sources of QEMU and KVM (migration/ram.c, accel/kvm/kvm-all.c). It has
no shortcut of the simulator: no draw at a sync and no counts per chunk. Pages are guest pages, and
blocks follow each other, largest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from gpusim.layout import CHUNK_PAGES, CHUNK_WORDS, Layout

Bits = NDArray[np.bool_]
SLOW_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
Budgets = Sequence[tuple[int, int, int]]


def bits_of(words: NDArray[np.uint64], layout: Layout) -> Bits:
    """Return a bitmap as one boolean per guest page. Bits behind a block must be 0."""
    flat = np.unpackbits(words.view(np.uint8), bitorder="little").view(np.bool_)
    by_chunk = flat.reshape(-1, CHUNK_WORDS * 64)
    for chunk, pages in zip(by_chunk, layout.chunk_pages, strict=True):
        assert not chunk[pages:].any(), "a bit behind the end of a block is set"
    return np.concatenate([c[:n] for c, n in zip(by_chunk, layout.chunk_pages, strict=True)])


def chunk_of_page(layout: Layout) -> NDArray[np.int64]:
    """Return the chunk of each guest page."""
    chunks, next_chunk = [], 0
    for block in layout.blocks:
        own = np.arange(block) // CHUNK_PAGES + next_chunk
        chunks.append(own)
        next_chunk = int(own[-1]) + 1
    return np.concatenate(chunks)


def take_page_by_page(
    dirty: Iterable[int], is_zero: Sequence[bool] | Bits, budgets: Budgets
) -> list[int]:
    """Return the pages of an ordered list that are taken until the next exceeds a budget."""
    left = [limit for limit, _, _ in budgets]
    taken = []
    for page in dirty:
        costs = [zero if is_zero[page] else normal for _, normal, zero in budgets]
        if any(cost > rest for cost, rest in zip(costs, left, strict=True)):
            break
        left = [rest - cost for cost, rest in zip(costs, left, strict=True)]
        taken.append(page)
    return taken


@dataclass
class NaiveTaken:
    """The result of `NaivePages.take`. A clear is (chunk, normal before, zero before)."""

    normal: int
    zero: int
    clears: list[tuple[int, int, int]]


@dataclass
class NaivePages:
    """The state machine in arrays. Writes take effect at once.

    A written zero page stays a zero page until the next sync, as in the simulator.
    """

    layout: Layout
    lazy: bool
    initially_set: bool
    zero: Bits
    wraps: int = 0
    cursor: int = 0
    chunk: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        pages = self.layout.pages
        self.dirty = np.ones(pages, np.bool_)
        full_log = self.lazy and self.initially_set
        self.log = np.full(pages, full_log)
        self.tracked = np.full(pages, not full_log)
        self.seen = np.zeros(pages, np.bool_)
        self.written = np.zeros(pages, np.bool_)
        self.clear_due = np.zeros(self.layout.chunks, np.bool_)
        self.chunk = chunk_of_page(self.layout)
        self.block_end = np.repeat(np.cumsum(self.layout.blocks), self.layout.blocks)

    @property
    def pending(self) -> int:
        return int(self.dirty.sum())

    def write(self, pages: Bits) -> None:
        """Let the guest write pages."""
        self.log |= pages & self.tracked
        self.tracked &= ~pages
        self.written |= pages

    def sync(self) -> int:
        """Sync and merge the log of every block. Return the number of newly dirty pages."""
        self.seen = self.log.copy()
        new = int((self.seen & ~self.dirty).sum())
        self.dirty |= self.seen
        if not self.lazy:
            self.log[:] = False
            self.tracked[:] = True
        self.clear_due[:] = self.lazy
        self.zero &= ~self.written
        self.written[:] = False
        return new

    def take(self, budgets: Budgets) -> NaiveTaken:
        """Send dirty pages from the cursor on. Clear each chunk before its first page."""
        order = np.flatnonzero(self.dirty)
        ahead = order[order >= self.cursor]
        circle = np.concatenate([ahead, order[order < self.cursor]])
        taken = take_page_by_page(circle.tolist(), self.zero, budgets)
        clears = []
        pages = np.array(taken, dtype=np.int64)
        zero_before = np.concatenate([[0], np.cumsum(self.zero[pages])])
        chunks, first_index = np.unique(self.chunk[pages], return_index=True)
        for chunk, index in sorted(zip(chunks, first_index, strict=True), key=lambda c: c[1]):
            if self.clear_due[chunk]:
                clears.append(
                    (int(chunk), int(index - zero_before[index]), int(zero_before[index]))
                )
                self._clear(int(chunk))
        self.dirty[pages] = False
        self.wraps += len(taken) > len(ahead)
        if taken:  # if no page is left, move to the end of the last page's block
            is_drained = len(taken) == len(circle)
            self.cursor = int(self.block_end[taken[-1]]) if is_drained else taken[-1] + 1
        zeros = int(zero_before[-1])
        return NaiveTaken(len(taken) - zeros, zeros, clears)

    def _clear(self, chunk: int) -> None:
        """Clear a chunk. Track the pages again that the last sync found written."""
        again = self.seen & (self.chunk == chunk)
        self.log[again] = False
        self.tracked[again] = True
        self.seen[again] = False
        self.clear_due[chunk] = False
