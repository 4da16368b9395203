"""The page space: RAM blocks cut into chunks; what was written in it, what was taken from it.

Guest, pages and sender share these words and nothing else. A page has a *slot*, its place in the bitmaps:
blocks lie biggest first, as QEMU keeps them, and each starts on a chunk, so that no chunk holds two
blocks. A chunk is 2^18 pages of one block, QEMU's unit of remote clearing at the default
clear_bmap_shift (migration/ram.c, x-clear-bitmap-shift).
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


class Layout:
    """Where the pages of a VM lie.

    Attributes:
        blocks: pages of each RAM block, biggest first (system/physmem.c:ram_block_add).
        pages: pages of the VM.
        chunks: number of chunks.
        chunk_pages: int64 [chunks], pages in each chunk; CHUNK_PAGES but for the last of a block.
        chunk_first: int64 [chunks], guest page at which each chunk starts.
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
            first, last: int64 [runs], each run is the guest pages first <= page < last.

        Returns:
            slot of each piece's first page, slot behind its last, index of the run it came from.
        """
        keep = np.flatnonzero(last > first)
        first, last = first[keep], last[keep]
        chunk0 = np.searchsorted(self.chunk_first, first, side="right") - 1
        chunk1 = np.searchsorted(self.chunk_first, last - 1, side="right") - 1
        counts = chunk1 - chunk0 + 1
        run = np.repeat(np.arange(len(first)), counts)
        chunk = np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts) + chunk0[run]
        start = self.chunk_first[chunk]
        low = np.maximum(first[run], start) - start
        high = np.minimum(last[run], start + self.chunk_pages[chunk]) - start
        base = chunk << CHUNK_SHIFT
        return base + low, base + high, keep[run]


@dataclass(frozen=True, kw_only=True)
class Writes:
    """What was written in an interval: cells of random writes, and pages certainly written.

    Attributes:
        first, last: int64 [cells], slots of a cell's first page and behind its last; a cell lies
            inside one chunk, and cells are in ascending order and do not overlap.
        mean: float64 [cells], expected writes a page in the interval.
        certain_first, certain_last: int64 [runs], slots of pages that were certainly written (a
            sequential writer passed them); each run lies inside one chunk; any order.
    """

    first: IntArray
    last: IntArray
    mean: FloatArray
    certain_first: IntArray
    certain_last: IntArray


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Pages taken to be sent.

    Attributes:
        normal, zero: how many.
        cleared: int64 [n], chunks whose remote clear was due (lazy tracking), in the order of it.
        normal_before, zero_before: int64 [n], pages taken before each of those clears.
        protected: int64 [n], pages that each of them protected.
        wrapped_after: normal and zero pages taken before the cursor came round to the first page;
            None: it did not.
    """

    normal: int
    zero: int
    cleared: IntArray
    normal_before: IntArray
    zero_before: IntArray
    protected: IntArray
    wrapped_after: tuple[int, int] | None = None
