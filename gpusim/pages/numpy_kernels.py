"""The primitives on a CPU, in numpy.

gpusim draws a chunk into a tile of 4096 words, then merges the tile into the bitmaps. The overhead
of a numpy call equals the work on about 1000 words. So neighbouring chunks with equal cells are
drawn and merged together.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpusim.layout import CHUNK_PAGES, CHUNK_WORDS, IntArray, U64Array, expand
from gpusim.pages.draw import GOLDEN, MIX1, Cells, mix_in_place
from gpusim.pages.host_kernels import ALL, ONE, HostKernels, choices, split, writes_of
from gpusim.pages.primitives import Counts, Op

BIT_BY_BIT = 1024  # up to this many writes of a cell, single bits cost less than a byte map
MANY_CELLS = 8  # with more cells in a chunk, they are drawn in one call
TOGETHER = 8  # chunks drawn together, so that their tiles and hashes fit the L2 cache
WEYL = np.arange(1, 9 * CHUNK_WORDS, dtype=np.uint64) * np.uint64(GOLDEN)


class _Scratch(threading.local):
    """Buffers of one thread: tiles, a cell, hashes, work, and one byte per page of a chunk."""

    def __init__(self) -> None:
        self.tiles, self.cell, self.hash, self.work = np.zeros(
            (4, TOGETHER, CHUNK_WORDS), np.uint64
        )
        self.bytes = np.zeros(CHUNK_PAGES, np.uint8)


class NumpyKernels(HostKernels):
    """See primitives.Kernels."""

    few = 512

    def __init__(self, chunks: int, *, log: bool, zero: bool, threads: int) -> None:
        super().__init__(chunks, log=log, zero=zero, threads=threads)
        self._scratch = _Scratch()

    def _paint_tiles(self, op: Op, cells: Cells, chunks: IntArray, mask: Cells | None) -> Counts:
        low, high = cells.of_chunks(chunks)
        masked = None if mask is None else mask.of_chunks(chunks)
        counts = Counts(*np.zeros((2, len(chunks)), np.int64))
        index = np.arange(len(chunks))
        groups = [
            (int(run[i]), int(run[min(i + TOGETHER, len(run)) - 1]) + 1)
            for run in split(index, chunks - index)  # constant along neighbouring chunks
            for i in range(0, len(run), TOGETHER)
        ]

        def paint_groups(start: int, stop: int) -> None:
            for first, last in groups[start:stop]:
                tiles = self._draw(cells, low[first:last], high[first:last])
                if mask is not None and masked is not None:
                    written, some = tiles.copy(), slice(first, last)
                    tiles = self._draw(mask, masked[0][some], masked[1][some])
                    tiles &= written
                found = self._merge(op, tiles, int(chunks[first]))
                counts.new[first:last], counts.unzeroed[first:last] = found

        self._share(len(chunks), len(groups), paint_groups)
        return counts

    def _draw(self, cells: Cells, low: IntArray, high: IntArray) -> U64Array:
        """Draw the tiles of neighbouring chunks, uint64 [n, 4096].

        The tiles are valid until this thread draws again.
        """
        tiles = self._scratch.tiles[: len(low)]
        tiles.fill(0)
        first, last = int(low[0]), int(high[-1])
        if (high - low == 1).all() and _alike(cells, first, last):
            word0, word1 = _words(cells, first)
            self._draw_alike(cells, first, last, tiles[:, word0:word1])
            return tiles
        for tile, first, last in zip(tiles, low.tolist(), high.tolist(), strict=True):
            alone: Sequence[int] = range(first, last)
            if last - first > MANY_CELLS:
                drawn = _word_aligned(cells, first, last)
                self._draw_together(cells, first + np.flatnonzero(drawn), tile)
                alone = (first + np.flatnonzero(~drawn)).tolist()
            for i in alone:
                word0, word1 = _words(cells, i)
                cell = self._scratch.cell[:1, word0:word1]
                self._draw_alike(cells, i, i + 1, cell)
                tile[word0:word1] |= cell[0]
        return tiles

    def _draw_alike(self, cells: Cells, first: int, last: int, out: U64Array) -> None:
        """Draw cells that differ only in key and count, one per row of `out` [n, words]."""
        begin, threshold = int(cells.first[first]) & (CHUNK_PAGES - 1), int(cells.threshold[first])
        pages, inverted = int(cells.last[first] - cells.first[first]), bool(cells.inverted[first])
        word0 = begin // 64
        if threshold:
            self._planes(out, cells.key[first:last, None], word0, threshold)
            if inverted:
                np.invert(out, out=out)
        else:
            out.fill(ALL if inverted else 0)
        out[:, 0] &= ALL << np.uint64(begin % 64)
        out[:, -1] &= ALL >> np.uint64(-(begin + pages) % 64)
        counts = cells.count[first:last]
        if not counts.any():
            return
        borders = [0, *np.cumsum(counts).tolist()]
        parts = [slice(*pair) for pair in itertools.pairwise(borders)]
        hits = np.empty(borders[-1], np.uint64)
        for part, key, count in zip(parts, cells.key[first:last], counts, strict=True):
            np.add(_weyl(count), key ^ np.uint64(MIX1), out=hits[part])
        pages_hit = choices(hits, pages)
        pages_hit += begin - 64 * word0
        for part, row in zip(parts, out, strict=True):
            self._mark(row, pages_hit[part], inverted)

    def _mark(self, words: U64Array, hit: IntArray, inverted: bool) -> None:
        """Set the bits of pages, or clear the bits if inverted."""
        if len(hit) <= BIT_BY_BIT:
            word, bit = hit >> 6, ONE << (hit & 63).astype(np.uint64)
            if inverted:
                np.bitwise_and.at(words, word, ~bit)
            else:
                np.bitwise_or.at(words, word, bit)
            return
        flags = self._scratch.bytes[: 64 * len(words)]
        flags.fill(0)
        flags[hit] = 1
        marks = np.packbits(flags, bitorder="little").view("<u8")
        if inverted:
            words &= ~marks
        else:
            words |= marks

    def _draw_together(self, cells: Cells, chosen: IntArray, tile: U64Array) -> None:
        """Draw many small cells into an empty tile. The bits equal those of separate draws."""
        if not len(chosen):
            return
        first = cells.first[chosen] & (CHUNK_PAGES - 1)
        words = (cells.last[chosen] - cells.first[chosen]) // 64
        threshold, inverted = cells.threshold[chosen], cells.inverted[chosen]
        word = expand(first // 64, words)
        if threshold.any():
            bits, of_word = np.zeros(len(word), np.uint64), np.repeat(threshold, words)
            keys = np.repeat(cells.key[chosen], words)
            for plane in range(8):
                hashes = WEYL[plane * CHUNK_WORDS + word] + keys
                mix_in_place(hashes, np.empty_like(hashes))
                one = (of_word >> plane & 1).astype(np.uint64) * ALL
                bits = (bits & hashes) | (
                    (bits ^ hashes) & one
                )  # `|` if the plane is set, else `&`
            tile[word] = bits
        tile[word] ^= np.repeat(inverted, words).astype(np.uint64) * ALL
        for of_inverted in (False, True):
            hit = writes_of(cells, chosen[inverted == of_inverted]) & (CHUNK_PAGES - 1)
            self._mark(tile, hit, of_inverted)

    def _planes(self, out: U64Array, keys: U64Array, word0: int, threshold: int) -> None:
        """Set each bit of `out` with probability threshold / 256, from the lowest plane up."""
        rows, words = out.shape
        hashes, work = (
            b.reshape(-1)[: rows * words].reshape(rows, words)
            for b in (self._scratch.hash, self._scratch.work)
        )
        out.fill(0)
        lowest = (threshold & -threshold).bit_length() - 1  # lower planes have no effect
        for plane in range(lowest, 8):
            first = plane * CHUNK_WORDS + word0
            np.add(WEYL[first : first + words], keys, out=hashes)
            mix_in_place(hashes, work)
            (np.bitwise_or if threshold >> plane & 1 else np.bitwise_and)(out, hashes, out=out)

    def _merge(self, op: Op, tiles: U64Array, first: int) -> Counts:
        """Merge tiles, uint64 [n, 4096], into the chunks from `first` on."""
        chunks = slice(first, first + len(tiles))
        dirty, work = self.dirty[chunks], self._scratch.work[: len(tiles)]
        unzeroed = np.zeros(len(tiles), np.int64)
        if op is Op.ZERO:
            assert self.zero is not None
            np.invert(self.zero[chunks], out=work)
            work &= tiles
            self.zero[chunks] |= work
            work &= dirty
            return Counts(unzeroed, -_count(work))
        if self.zero is not None:
            zero = self.zero[chunks]
            np.bitwise_and(zero, tiles, out=work)
            work &= dirty
            unzeroed = _count(work)
            np.invert(tiles, out=work)
            zero &= work
        if op is not Op.MERGE:
            assert self.log is not None
            log = self.log[chunks]
            if op is Op.CLEAR_LOG:
                np.invert(log, out=log)
                log &= tiles
                return Counts(np.zeros(len(tiles), np.int64), unzeroed)
            log |= tiles
            tiles = log
        np.invert(dirty, out=work)
        work &= tiles
        dirty |= tiles
        new = _count(work)
        if op is Op.MERGE_LOG and self.zero is not None:  # a page may be new and zero
            work &= self.zero[chunks]
            unzeroed -= _count(work)
        return Counts(new, unzeroed)


def _weyl(count: int) -> U64Array:
    """The first `count` multiples of the Weyl increment."""
    if count <= len(WEYL):
        return WEYL[:count]
    return np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)


def _words(cells: Cells, i: int) -> tuple[int, int]:
    """The first word of its chunk that a cell touches, and the word behind the last."""
    first = int(cells.first[i]) & (CHUNK_PAGES - 1)
    return first // 64, (first + int(cells.last[i] - cells.first[i]) + 63) // 64


def _alike(cells: Cells, first: int, last: int) -> bool:
    """Whether cells have the same place in their chunks and the same threshold."""
    some, chunk = slice(first, last), CHUNK_PAGES - 1
    begin, end = cells.first[some] & chunk, cells.last[some] & chunk
    columns: list[NDArray[Any]] = [begin, end, cells.threshold[some], cells.inverted[some]]
    return all(bool((column == column[0]).all()) for column in columns)


def _word_aligned(cells: Cells, low: int, high: int) -> NDArray[np.bool_]:
    """Which cells share no word with another cell. Certain cells are excluded."""
    drawn = (cells.threshold[low:high] > 0) | (cells.count[low:high] > 0)
    drawn |= ~cells.inverted[low:high]
    return np.asarray(drawn & ((cells.first[low:high] | cells.last[low:high]) % 64 == 0))


def _count(words: U64Array) -> IntArray:
    """Set bits of each row. 32-bit sums are large enough and faster."""
    counts: NDArray[np.uint32] = np.bitwise_count(words).sum(axis=1, dtype=np.uint32)
    return counts.astype(np.int64)
