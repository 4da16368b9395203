"""The primitives that all CPU backends share: everything but drawing and merging a tile.

numpy_kernels.py and numba_kernels.py draw and merge tiles. If few pages of a chunk are written,
this module sets their bits one by one instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gpusim.layout import CHUNK_PAGES, CHUNK_SHIFT, CHUNK_WORDS, IntArray, U64Array, expand
from gpusim.pages.budget import Budget, fitting
from gpusim.pages.draw import GOLDEN, MIX1, Cells, mix_in_place
from gpusim.pages.primitives import ChunkTaken, Counts, Op, Step

ALL, ONE = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(1)
THREADS_FROM = 64  # with fewer chunks, starting threads costs more than it saves
WRITES_TOGETHER = 1 << 13  # writes set in one call, so that their hashes fit the L2 cache


class HostKernels(ABC):
    """See primitives.Kernels. The bitmaps are numpy arrays.

    Args:
        chunks: number of chunks.
        log, zero: whether the log and the zero bitmap exist.
        threads: threads that share the chunks of a draw.
    """

    few: ClassVar[int]  # up to this many writes per chunk, single bits cost less than a tile

    def __init__(self, chunks: int, *, log: bool, zero: bool, threads: int) -> None:
        shape = (chunks, CHUNK_WORDS)
        self.dirty: U64Array = np.zeros(shape, np.uint64)
        self.log: U64Array | None = np.zeros(shape, np.uint64) if log else None
        self.zero: U64Array | None = np.zeros(shape, np.uint64) if zero else None
        self._threads = threads

    @abstractmethod
    def _paint_tiles(self, op: Op, cells: Cells, chunks: IntArray, mask: Cells | None) -> Counts:
        """Draw and merge whole chunks. See primitives.Step."""

    def fill(self, bitmap: U64Array, first: IntArray, last: IntArray) -> None:
        """Set the pages of runs, see primitives.Kernels."""
        for low, high in zip(first.tolist(), last.tolist(), strict=True):
            chunk = low >> CHUNK_SHIFT
            _set_run(bitmap[chunk], low & (CHUNK_PAGES - 1), high - (chunk << CHUNK_SHIFT))

    def paint(self, steps: Sequence[Step]) -> list[Counts]:
        """Draw and merge the steps of one draw, in order."""
        return [self._paint(*step) for step in steps]

    def clear_chunks(self, first: int, last: int) -> None:
        """Clear the pending pages of chunks first <= chunk < last."""
        self.dirty[first:last] = 0

    def clear_in_chunk(self, chunk: int, page: int, budgets: Sequence[Budget]) -> ChunkTaken:
        """Take pending pages of a chunk, see primitives.Kernels."""
        start = page // 64
        words = self.dirty[chunk, start:]
        behind = words[0] & ~(ALL << np.uint64(page % 64))  # pending pages behind the cursor
        words[0] ^= behind
        zeros = None if self.zero is None else words & self.zero[chunk, start:]
        normal, zero = _running(
            np.bitwise_count(words), None if zeros is None else np.bitwise_count(zeros)
        )
        whole = fitting(normal, zero, budgets)
        taken = (int(normal[whole - 1]), int(zero[whole - 1])) if whole else (0, 0)
        last = int(np.searchsorted(normal + zero, sum(taken))) if any(taken) else 0
        end = (start + last) * 64 + int(words[last]).bit_length() if any(taken) else page
        words[:whole] = 0
        if whole < len(words):  # a budget ends in this word
            word = words[whole : whole + 1]
            normal, zero = _running(
                _bits(word), None if zeros is None else _bits(zeros[whole : whole + 1])
            )
            fit = fitting(normal, zero, [budget.less(*taken) for budget in budgets])
            if fit and normal[fit - 1] + zero[fit - 1]:
                taken = taken[0] + int(normal[fit - 1]), taken[1] + int(zero[fit - 1])
                below = int(word[0]) & ((1 << fit) - 1)
                end = (start + whole) * 64 + below.bit_length()
            word &= ALL << np.uint64(fit)
        is_over = whole < len(words)
        words[0] |= behind
        return ChunkTaken(end, *taken, is_over)

    def read(self, bitmap: U64Array, first: int, last: int) -> U64Array:
        """Return the words of chunks, see primitives.Kernels."""
        return bitmap[first:last]

    def close(self) -> None:
        """Free the arrays."""
        self.dirty, self.log, self.zero = np.zeros((0, CHUNK_WORDS), np.uint64), None, None

    def _paint(self, op: Op, cells: Cells, chunks: IntArray, mask: Cells | None) -> Counts:
        low, high = cells.of_chunks(chunks)
        counts = Counts(*np.zeros((2, len(chunks)), np.int64))
        tiled = np.ones(len(chunks), np.bool_)
        if op is Op.MERGE:
            drawn = (cells.threshold > 0) | cells.inverted
            writes = _sums(cells.count, low, high)
            tiled = (_sums(drawn.astype(np.int64), low, high) > 0) | (writes > self.few)
            some = np.flatnonzero(~tiled)
            for group in split(some, np.cumsum(writes[some]) // WRITES_TOGETHER):
                chosen = expand(low[group], high[group] - low[group])
                counts.new[group], counts.unzeroed[group] = self._set(cells, chosen, chunks[group])
        some = np.flatnonzero(tiled)
        if len(some):
            found = self._paint_tiles(op, cells, chunks[some], mask)
            counts.new[some], counts.unzeroed[some] = found
        return counts

    def _set(self, cells: Cells, chosen: IntArray, chunks: IntArray) -> Counts:
        """Merge the writes of some cells one by one, without a tile. Return counts per chunk."""
        slots = np.sort(writes_of(cells, chosen))
        slots = slots[np.diff(slots, prepend=-1) > 0]
        word, bit = slots >> 6, ONE << (slots & 63).astype(np.uint64)
        dirty = self.dirty.reshape(-1)
        was_dirty = (dirty[word] & bit) != 0
        np.bitwise_or.at(dirty, word, bit)
        low, high = (np.searchsorted(slots, c << CHUNK_SHIFT) for c in (chunks, chunks + 1))
        unzeroed = np.zeros_like(slots)
        if self.zero is not None:
            zero = self.zero.reshape(-1)
            unzeroed = (was_dirty & ((zero[word] & bit) != 0)).astype(np.int64)
            np.bitwise_and.at(zero, word, ~bit)
        return Counts(_sums((~was_dirty).astype(np.int64), low, high), _sums(unzeroed, low, high))

    def _share(self, chunks: int, items: int, work: Callable[[int, int], None]) -> None:
        """Call work(first, last) once per thread, for equal shares of the `items`."""
        if self._threads == 1 or chunks < THREADS_FROM:
            work(0, items)
            return
        borders = [items * i // self._threads for i in range(self._threads + 1)]
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(work, borders[:-1], borders[1:]))  # list() raises errors of the threads


def writes_of(cells: Cells, chosen: IntArray) -> IntArray:
    """Return the slots of the residual writes of some cells, cell by cell, int64."""
    counts = cells.count[chosen]
    hashes = expand(np.ones(len(chosen), np.int64), counts).view(np.uint64)
    hashes *= np.uint64(GOLDEN)
    hashes += np.repeat(cells.key[chosen] ^ np.uint64(MIX1), counts)
    slots = choices(hashes, np.repeat((cells.last[chosen] - cells.first[chosen]), counts))
    slots += np.repeat(cells.first[chosen], counts)
    return slots


def choices(hashes: U64Array, pages: IntArray | int) -> IntArray:
    """Return the page of each residual write, counted from the start of its cell, int64 [n].

    Args:
        hashes: uint64 [n]. The result overwrites them.
        pages: pages of each write's cell.
    """
    mix_in_place(hashes, np.empty_like(hashes))
    hashes >>= np.uint64(18)
    hashes *= np.asarray(pages).astype(np.uint64)
    hashes >>= np.uint64(46)
    return hashes.view(np.int64)  # numpy is slow with unsigned indexes


def split(some: IntArray, group: IntArray) -> list[IntArray]:
    """Cut an array wherever the group number of its elements changes."""
    return np.split(some, np.flatnonzero(np.diff(group)) + 1) if len(some) else []


def _sums(values: IntArray, low: IntArray, high: IntArray) -> IntArray:
    """The sum of values[low:high] for each pair."""
    running = np.concatenate([[0], np.cumsum(values)])
    return np.asarray(running[high] - running[low])


def _running(
    dirty: NDArray[np.uint8], zeros: NDArray[np.uint8] | None
) -> tuple[IntArray, IntArray]:
    """Running totals of normal and of zero pages, from counts of pending and pending zero pages."""
    normal = np.cumsum(dirty, dtype=np.int64)
    if zeros is None or not zeros.any():
        return normal, np.zeros_like(normal)
    zero = np.cumsum(zeros, dtype=np.int64)
    return normal - zero, zero


def _bits(word: U64Array) -> NDArray[np.uint8]:
    """The 64 bits of a word [1], lowest bit first."""
    return np.unpackbits(word.view(np.uint8), bitorder="little")


def _set_run(words: U64Array, first: int, last: int) -> None:
    """Set the bits first <= bit < last of a chunk's words."""
    if first >= last:
        return
    word0, word1 = first // 64, (last - 1) // 64
    head, tail = ALL << np.uint64(first % 64), ALL >> np.uint64(-last % 64)
    if word0 == word1:
        words[word0] |= head & tail
        return
    words[word0] |= head
    words[word0 + 1 : word1] = ALL
    words[word1] |= tail
