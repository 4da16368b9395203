"""The page space of a VM, and the data that guest, pages and sender exchange.

Every page has a slot, which is its place in the bitmaps. Blocks lie largest first, as QEMU keeps
them. Each block starts on a chunk, so that no chunk holds pages of two blocks. A chunk is 2^18
pages of one block, which is QEMU's unit of remote clears at the default clear_bmap_shift.

Source: migration/ram.c, property x-clear-bitmap-shift [7.2 to 10.1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]
U64Array: TypeAlias = NDArray[np.uint64]

CHUNK_SHIFT = 18
CHUNK_PAGES = 1 << CHUNK_SHIFT
WORD_PAGES = 64
CHUNK_WORDS = CHUNK_PAGES // WORD_PAGES


def rising(values: IntArray) -> IntArray:
    """Return each value once, rising, int64 [n].

    np.unique returns the same. From numpy 2.3 on it hashes first, which takes ten times as long.
    """
    ordered = values.copy()
    ordered.sort()
    is_first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return ordered[is_first]


def among(chunk: IntArray, chunks: IntArray) -> NDArray[np.bool_]:
    """Return which of some chunks are among others, bool [n].

    np.isin returns the same. It sorts, which takes four times as long.
    """
    is_one = np.zeros(1 + max(int(chunk.max(initial=0)), int(chunks.max(initial=0))), np.bool_)
    is_one[chunks] = True
    return is_one[chunk]


def expand(first: IntArray, counts: IntArray) -> IntArray:
    """Return first[0], first[0] + 1, ..., in all counts[0] numbers, then the same for the next."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(first - ends + counts, counts)


class Layout:
    """The RAM blocks and chunks of a VM.

    Args:
        blocks: pages of each RAM block, in any order.

    Attributes:
        blocks: pages of each RAM block, largest first.
        pages: pages of the VM.
        chunks: number of chunks.
        chunk_pages: int64 [chunks], pages of each chunk. Only the last chunk of a block may have
            fewer than CHUNK_PAGES.
        chunk_first: int64 [chunks], first guest page of each chunk.

    Source: system/physmem.c:ram_block_add [7.2 to 10.1].
    """

    def __init__(self, blocks: Sequence[int]) -> None:
        self.blocks = tuple(sorted(blocks, reverse=True))
        self.pages = sum(self.blocks)
        firsts, sizes, start = [], [], 0
        for block in self.blocks:
            offsets = np.arange(0, block, CHUNK_PAGES, dtype=np.int64)
            firsts.append(start + offsets)
            sizes.append(np.minimum(CHUNK_PAGES, block - offsets))
            start += block
        self.chunk_first: IntArray = np.concatenate(firsts)
        self.chunk_pages: IntArray = np.concatenate(sizes)
        self.chunks = len(self.chunk_first)

    def cut(self, first: IntArray, last: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Cut runs of guest pages at chunk borders.

        Args:
            first, last: int64 [runs]. Each run is the guest pages first <= page < last.

        Returns:
            int64 [pieces]: slot of each piece's first page, slot behind its last page, and index of
            its run.
        """
        keep = np.flatnonzero(last > first)
        first, last = first[keep], last[keep]
        chunk0 = np.searchsorted(self.chunk_first, first, side="right") - 1
        chunk1 = np.searchsorted(self.chunk_first, last - 1, side="right") - 1
        counts = chunk1 - chunk0 + 1
        run = np.repeat(np.arange(len(first)), counts)
        chunk = expand(chunk0, counts)
        start = self.chunk_first[chunk]
        low = np.maximum(first[run], start) - start
        high = np.minimum(last[run], start + self.chunk_pages[chunk]) - start
        base = chunk << CHUNK_SHIFT
        return base + low, base + high, keep[run]


def without_overlaps(first: IntArray, last: IntArray) -> tuple[IntArray, IntArray]:
    """Return the same pages as runs that share no page, in ascending order.

    Args:
        first, last: int64 [runs], in any order.
    """
    order = np.argsort(first, kind="stable")
    first, last = first[order], last[order]
    reached = np.maximum.accumulate(np.concatenate([[0], last]))[:-1]
    first = np.maximum(first, reached)
    return first[last > first], last[last > first]


def pieces_of(layout: Layout, borders: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """Return pieces that cover every page once and end at borders and at chunks.

    Args:
        layout: the page space.
        borders: int64 [n], slots in any order.
        size: target pages of a host page. Borders are rounded down to whole host pages.

    Returns:
        int64 [pieces]: the slot of each piece's first page, and the slot behind its last.
    """
    starts = np.arange(layout.chunks, dtype=np.int64) << CHUNK_SHIFT
    ends = starts + layout.chunk_pages
    inside = borders // size * size
    inside = inside[inside < ends[np.minimum(inside >> CHUNK_SHIFT, layout.chunks - 1)]]
    first = np.unique(np.concatenate([starts, inside]))
    last = np.append(first[1:], np.int64(0))
    own_end = ends[first >> CHUNK_SHIFT]
    last = np.where((last > first) & (last < own_end), last, own_end)
    return first, last


def runs_in_pieces(
    first: IntArray, last: IntArray, run_first: IntArray, run_last: IntArray
) -> FloatArray:
    """Return how many pages of each piece lie in runs, float64 [pieces].

    Args:
        first, last: int64 [pieces], ascending.
        run_first, run_last: int64 [runs], in any order. A run lies inside one chunk.
    """
    covered = np.zeros(len(first))
    if not len(run_first):
        return covered
    low = np.searchsorted(first, run_first, side="right") - 1
    high = np.searchsorted(first, run_last - 1, side="right") - 1
    counts = high - low + 1
    run = np.repeat(np.arange(len(low)), counts)
    piece = expand(low, counts)
    overlap = np.minimum(last[piece], run_last[run]) - np.maximum(first[piece], run_first[run])
    np.add.at(covered, piece, np.maximum(0, overlap))
    return covered


@dataclass(frozen=True, kw_only=True)
class ZeroShares:
    """How many of the written pages are left zero.

    Attributes:
        first, last: int64 [cells], as of `Writes`. Pages outside are left with content.
        share: float64 [cells], the probability that a written page is left zero.
    """

    first: IntArray
    last: IntArray
    share: FloatArray


@dataclass(frozen=True, kw_only=True)
class Writes:
    """The writes of an interval: cells of random writes, and pages that were certainly written.

    Attributes:
        first, last: int64 [cells], slot of a cell's first page and slot behind its last page. A
            cell lies inside one chunk. Cells are ascending and do not overlap.
        mean: float64 [cells], expected writes per page in the interval.
        certain_first, certain_last: int64 [runs], slots of pages that a sequential writer passed.
            Each run lies inside one chunk. Runs may come in any order.
        pages_together: pages that are tracked as one. If it is not 1, then cells and runs consist
            of whole groups of so many pages, all pages of a group are written or none, and `mean`
            counts the writes to a group.
        zeroed: which of the written pages are left zero. None: no page is.
    """

    first: IntArray
    last: IntArray
    mean: FloatArray
    certain_first: IntArray
    certain_last: IntArray
    pages_together: int = 1
    zeroed: ZeroShares | None = None


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Pages that the sender has taken to send.

    Attributes:
        normal, zero: number of pages of each kind.
        cleared: int64 [n], chunks whose remote clear was due, in the order of the clears.
        normal_before, zero_before: int64 [n], pages taken before each clear.
        protected: int64 [n], pages that each clear protected.
        first_protected: int64 [n], those of them that no clear has protected before.
        wrapped_after: normal and zero pages taken before the cursor wrapped to the first page. None
            if the cursor did not wrap.
    """

    normal: int
    zero: int
    cleared: IntArray
    normal_before: IntArray
    zero_before: IntArray
    protected: IntArray
    first_protected: IntArray
    wrapped_after: tuple[int, int] | None = None
