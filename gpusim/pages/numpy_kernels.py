"""The bitmaps and their primitives on a CPU, in numpy: fill, paint, clear chunks, clear inside one.

A chunk is drawn into a tile of 4096 words, then the tile is merged into the bitmaps; chunks are
independent, so threads share them out. numpy lets go of the interpreter in each of its loops.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from gpusim.layout import CHUNK_PAGES, CHUNK_SHIFT, CHUNK_WORDS, IntArray, U64Array
from gpusim.pages.budget import Budget, fitting
from gpusim.pages.draw import GOLDEN, MIX1, Cells, mix_in_place

ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
ONE = np.uint64(1)
FEW = 128  # set that many bits one by one rather than through a byte map of the chunk
TOGETHER_FROM = 8  # cells of a chunk above which they are drawn in one go
THREADS_FROM = 64  # chunks below which starting threads costs more than it brings
WEYL = np.arange(1, 9 * CHUNK_WORDS, dtype=np.uint64) * np.uint64(GOLDEN)


class Op(enum.Enum):
    """How a tile is merged. K is the log, B the pages to send, Z the zero pages."""

    MERGE = 0  # eager: new = tile & ~B, B |= tile
    CLEAR_LOG = 1  # lazy, tile written before the chunk's clear: K = tile & ~K
    MERGE_LOG = 2  # lazy, tile written after it: K |= tile, new = K & ~B, B |= K


class _Scratch(threading.local):
    """Buffers of one thread: a tile, a plane, two of work, and a byte a page."""

    def __init__(self) -> None:
        self.tile, self.cell, self.hash, self.work = np.zeros((4, CHUNK_WORDS), np.uint64)
        self.bytes = np.zeros(CHUNK_PAGES, np.uint8)


class NumpyKernels:
    """Bitmaps of `chunks` chunks, one bit a page, page p of a chunk in bit p % 64 of word p // 64.

    Attributes:
        dirty: uint64 [chunks, 4096], B: pages to be sent.
        log: uint64 [chunks, 4096], K: KVM's log, lazy tracking only.
        zero: uint64 [chunks, 4096], Z: zero pages, if there are any.
    """

    def __init__(self, chunks: int, *, log: bool, zero: bool, threads: int) -> None:
        shape = (chunks, CHUNK_WORDS)
        self.dirty: U64Array = np.zeros(shape, np.uint64)
        self.log: U64Array | None = np.zeros(shape, np.uint64) if log else None
        self.zero: U64Array | None = np.zeros(shape, np.uint64) if zero else None
        self._scratch = _Scratch()
        self._threads = threads

    def fill(self, bitmap: U64Array, first: IntArray, last: IntArray) -> None:
        """Set the pages of runs; each run, of slots first <= page < last, lies inside one chunk."""
        for low, high in zip(first.tolist(), last.tolist(), strict=True):
            chunk = low >> CHUNK_SHIFT
            _set_run(bitmap[chunk], low & (CHUNK_PAGES - 1), high - (chunk << CHUNK_SHIFT))

    def paint(self, op: Op, cells: Cells, chunks: IntArray) -> tuple[IntArray, IntArray]:
        """Draw the cells of some chunks and merge them.

        Args:
            op: how.
            cells: sorted by chunk; those of other chunks are passed over.
            chunks: int64 [n], ascending; chunks without a cell get an empty tile.

        Returns:
            int64 [n] pages newly dirty (0 for CLEAR_LOG), int64 [n] pages to send that were zero.
        """
        cell_chunk = cells.first >> CHUNK_SHIFT
        low = np.searchsorted(cell_chunk, chunks, side="left").tolist()
        high = np.searchsorted(cell_chunk, chunks, side="right").tolist()
        numbers = chunks.tolist()
        new, unzeroed = np.zeros((2, len(numbers)), np.int64)

        def paint_some(start: int, stop: int) -> None:
            for i in range(start, stop):
                tile = self._draw(cells, low[i], high[i])
                new[i], unzeroed[i] = self._merge(op, tile, numbers[i])

        parts = self._threads if len(numbers) >= THREADS_FROM else 1
        borders = [len(numbers) * i // parts for i in range(parts + 1)]
        if parts == 1:
            paint_some(0, len(numbers))
        else:
            with ThreadPoolExecutor(parts) as pool:
                list(pool.map(paint_some, borders[:-1], borders[1:]))
        return new, unzeroed

    def clear_chunks(self, first: int, last: int) -> None:
        """Nothing in chunks first <= chunk < last is to be sent any more."""
        self.dirty[first:last] = 0

    def clear_in_chunk(
        self, chunk: int, page: int, budgets: Sequence[Budget]
    ) -> tuple[int, int, int]:
        """Take pages to be sent from `page` on, in order, while every budget lasts.

        Args:
            page: where to begin, below CHUNK_PAGES.
            budgets: of this chunk.

        Returns:
            the page behind the last taken, or CHUNK_PAGES if all were; normal pages; zero pages.
        """
        start = page // 64
        words = self.dirty[chunk, start:]
        kept = words[0] & ((ONE << np.uint64(page % 64)) - ONE)  # behind the cursor
        words[0] &= ~kept
        zeros = None if self.zero is None else words & self.zero[chunk, start:]
        in_words = np.bitwise_count(words).astype(np.int64)
        zero_sum = (
            np.zeros_like(in_words)
            if zeros is None
            else np.cumsum(np.bitwise_count(zeros), dtype=np.int64)
        )
        normal_sum = np.cumsum(in_words) - zero_sum
        whole = fitting(normal_sum, zero_sum, budgets)
        normal_taken = int(normal_sum[whole - 1]) if whole else 0
        zero_taken = int(zero_sum[whole - 1]) if whole else 0
        words[:whole] = 0
        next_page = CHUNK_PAGES
        if whole < len(words):
            word, zero_word = int(words[whole]), 0 if zeros is None else int(zeros[whole])
            while word:
                bit = word & -word
                is_zero = bool(zero_word & bit)
                normal_next, zero_next = normal_taken + (not is_zero), zero_taken + is_zero
                if any(b.less(normal_next, zero_next).limit < 0 for b in budgets):
                    next_page = (start + whole) * 64 + bit.bit_length() - 1
                    break
                word ^= bit
                normal_taken, zero_taken = normal_next, zero_next
            words[whole] = word
        words[0] |= kept
        return next_page, normal_taken, zero_taken

    def _draw(self, cells: Cells, low: int, high: int) -> U64Array:
        """The tile of one chunk: OR of its cells. Valid until this thread draws the next."""
        scratch = self._scratch
        tile = scratch.tile
        tile.fill(0)
        alone: Sequence[int] = range(low, high)
        if high - low > TOGETHER_FROM:
            drawn = _word_aligned(cells, low, high)
            _draw_together(cells, low + np.flatnonzero(drawn), tile)
            alone = (low + np.flatnonzero(~drawn)).tolist()
        for i in alone:
            first = int(cells.first[i]) & (CHUNK_PAGES - 1)
            last = first + int(cells.last[i] - cells.first[i])
            threshold, count = int(cells.threshold[i]), int(cells.count[i])
            inverted = bool(cells.inverted[i])
            if inverted and not threshold and not count:
                _set_run(tile, first, last)
                continue
            word0, word1 = first // 64, (last + 63) // 64
            cell = scratch.cell[word0:word1]
            if threshold:
                self._planes(cell, int(cells.key[i]), word0, threshold)
                if inverted:
                    np.invert(cell, out=cell)
            else:
                cell.fill(ALL if inverted else 0)
            cell[0] &= ALL << np.uint64(first % 64)
            cell[-1] &= ALL >> np.uint64(-last % 64)
            if count:
                marks = self._residual(int(cells.key[i]), first, last, count)
                if inverted:
                    cell &= ~marks
                else:
                    cell |= marks
            tile[word0:word1] |= cell
        return tile

    def _planes(self, out: U64Array, key: int, word0: int, threshold: int) -> None:
        """Each bit of `out` set with probability threshold / 256, from the low plane up."""
        words = len(out)
        hashes, work = self._scratch.hash[:words], self._scratch.work[:words]
        out.fill(0)
        lowest = (threshold & -threshold).bit_length() - 1  # planes below it do nothing
        for plane in range(lowest, 8):
            first = plane * CHUNK_WORDS + word0
            np.add(WEYL[first : first + words], np.uint64(key), out=hashes)
            mix_in_place(hashes, work)
            (np.bitwise_or if threshold >> plane & 1 else np.bitwise_and)(out, hashes, out=out)

    def _residual(self, key: int, first: int, last: int, count: int) -> U64Array:
        """Marks of `count` pages chosen evenly from first <= page < last, as words from first // 64."""
        weyl = (
            WEYL[:count]
            if count <= len(WEYL)
            else np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        )
        word0, word1 = first // 64, (last + 63) // 64
        pages = _hits(weyl, np.uint64(key), np.uint64(last - first)) + (first - 64 * word0)
        if count <= FEW:
            marks = np.zeros(word1 - word0, np.uint64)
            np.bitwise_or.at(marks, pages >> 6, ONE << (pages & 63).astype(np.uint64))
            return marks
        flags = self._scratch.bytes[: 64 * (word1 - word0)]
        flags.fill(0)
        flags[pages] = 1
        return np.packbits(flags, bitorder="little").view("<u8")

    def _merge(self, op: Op, tile: U64Array, chunk: int) -> tuple[int, int]:
        """Merge a tile into one chunk: pages newly dirty, pages to send that were zero."""
        dirty, work = self.dirty[chunk], self._scratch.work
        unzeroed = 0
        if self.zero is not None:
            zero = self.zero[chunk]
            np.bitwise_and(zero, tile, out=work)
            work &= dirty
            unzeroed = _count(work)
            np.invert(tile, out=work)
            zero &= work
        if op is not Op.MERGE:
            assert self.log is not None
            log = self.log[chunk]
            if op is Op.CLEAR_LOG:
                np.invert(log, out=log)
                log &= tile
                return 0, unzeroed
            log |= tile
            tile = log
        np.invert(dirty, out=work)
        work &= tile
        dirty |= tile
        return _count(work), unzeroed


def _word_aligned(cells: Cells, low: int, high: int) -> NDArray[np.bool_]:
    """Which cells share no word with another one, runs of certain pages left out."""
    drawn = (cells.threshold[low:high] > 0) | (cells.count[low:high] > 0)
    drawn |= ~cells.inverted[low:high]
    return np.asarray(drawn & ((cells.first[low:high] | cells.last[low:high]) % 64 == 0))


def _draw_together(cells: Cells, chosen: IntArray, tile: U64Array) -> None:
    """Draw many small cells into an empty tile: the same bits as one by one, in fewer steps."""
    if not len(chosen):
        return
    first = cells.first[chosen] & (CHUNK_PAGES - 1)
    pages = cells.last[chosen] - cells.first[chosen]
    key, threshold = cells.key[chosen], cells.threshold[chosen]
    inverted = cells.inverted[chosen]
    word = _expand(first // 64, pages // 64)
    if threshold.any():
        bits, of_word = np.zeros(len(word), np.uint64), np.repeat(threshold, pages // 64)
        keys = np.repeat(key, pages // 64)
        for plane in range(8):
            hashes = WEYL[plane * CHUNK_WORDS + word] + keys
            mix_in_place(hashes, np.empty_like(hashes))
            one = (of_word >> plane & 1).astype(np.uint64) * ALL
            bits = (bits & hashes) | ((bits ^ hashes) & one)  # one ? bits | hashes : bits & hashes
        tile[word] = bits
    tile[word] ^= np.repeat(inverted, pages // 64).astype(np.uint64) * ALL
    counts = cells.count[chosen]
    for of_inverted in (False, True):
        some = np.flatnonzero((inverted == of_inverted) & (counts > 0))
        if len(some):
            marks = _marks(key[some], first[some], pages[some], counts[some])
            if of_inverted:
                tile &= ~marks
            else:
                tile |= marks


def _marks(key: U64Array, first: IntArray, pages: IntArray, counts: IntArray) -> U64Array:
    """Marks of `counts` pages chosen evenly from each cell, as a tile."""
    weyl = _expand(np.ones(len(counts), np.int64), counts).astype(np.uint64) * np.uint64(GOLDEN)
    cell_pages = np.repeat(pages, counts).astype(np.uint64)
    hit = _hits(weyl, np.repeat(key, counts), cell_pages) + np.repeat(first, counts)
    flags = np.zeros(CHUNK_PAGES, np.uint8)
    flags[hit] = 1
    return np.packbits(flags, bitorder="little").view("<u8")


def _expand(first: IntArray, counts: IntArray) -> IntArray:
    """first[0], first[0] + 1, ... counts[0] of them, then those of the next."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1])) + np.repeat(first - ends + counts, counts)


def _hits(weyl: U64Array, key: U64Array | np.uint64, pages: U64Array | np.uint64) -> IntArray:
    """The residual's choices, one a hash: offsets 0 <= offset < pages in each one's cell."""
    hashes = weyl + (key ^ np.uint64(MIX1))
    mix_in_place(hashes, np.empty_like(hashes))
    hashes >>= np.uint64(18)
    hashes *= pages
    hashes >>= np.uint64(46)
    return hashes.view(np.int64)  # numpy is slow with unsigned indices


def _count(words: U64Array) -> int:
    return int(np.bitwise_count(words).sum(dtype=np.int64))


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
