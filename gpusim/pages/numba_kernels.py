"""The primitives on a CPU, compiled by numba: loops over the words of each chunk.

Memory limits the speed, and many guests write to few places of a chunk. So a chunk has 64 blocks of
words, and a draw leaves out the blocks that it cannot change. Slices and unsigned words let LLVM
vectorise the loops. The compiled code stays beside this file, or in the user's cache folder, for the
next process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import int64, njit, uint64
from numpy.typing import NDArray

from gpusim.layout import IntArray, U64Array
from gpusim.pages.budget import Budget
from gpusim.pages.draw import Cells
from gpusim.pages.host_kernels import HostKernels
from gpusim.pages.kernel_cache import cache_on_disk
from gpusim.pages.primitives import ChunkTaken, Counts, Op

# Copies of constants of draw.py, layout.py and primitives.Op, which a test compares. numba compiles
# them in, and only a change of this file makes its cached code out of date.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX1, MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
CHUNK_SHIFT, CHUNK_WORDS = 18, 4096
CLEAR_LOG, MERGE_LOG, ZERO = 1, 2, 3

ALL, ONE = np.uint64(2**64 - 1), np.uint64(1)
BLOCK_SHIFT, BLOCKS = 6, 64  # words of a block, and blocks of a chunk: one bit each in a word
MOST = 2**63 - 1  # more than the pages of a chunk can cost
HITS = 1024  # writes hashed in one loop, which is vectorised, and set in another, which is not


class NumbaKernels(HostKernels):
    """See primitives.Kernels."""

    few = 64

    def __init__(self, chunks: int, *, log: bool, zero: bool, threads: int) -> None:
        super().__init__(chunks, log=log, zero=zero, threads=threads)
        # The blocks of each chunk in which the log may have a set bit.
        self._log_blocks: U64Array = np.full(chunks, ALL)

    def _paint_tiles(self, op: Op, cells: Cells, chunks: IntArray, mask: Cells | None) -> Counts:
        columns, (low, high) = _columns(cells), cells.of_chunks(chunks)
        mask_columns, mask_low, mask_high = columns, low, low  # no cell
        if mask is not None:
            mask_columns, (mask_low, mask_high) = _columns(mask), mask.of_chunks(chunks)
        none = np.zeros((0, CHUNK_WORDS), np.uint64)
        bitmaps = [none if b is None else b for b in (self.dirty, self.log, self.zero)]
        counts = np.zeros((len(chunks), 2), np.int64)

        def paint_some(start: int, stop: int) -> None:
            some = slice(start, stop)
            ranges = low[some], high[some], mask_low[some], mask_high[some]
            own = chunks[some], *bitmaps, self._log_blocks, counts[some]
            _paint(op, columns, mask_columns, *ranges, *own)

        self._share(len(chunks), len(chunks), paint_some)
        return Counts(counts[:, 0], counts[:, 1])

    def clear_in_chunk(self, chunk: int, page: int, budgets: Sequence[Budget]) -> ChunkTaken:
        """Take pending pages of a chunk, see primitives.Kernels."""
        zero = self.dirty[chunk, :0] if self.zero is None else self.zero[chunk]
        rows = np.array([(min(limit, MOST), *costs) for limit, *costs in budgets], np.int64)
        return ChunkTaken(*_clear_in_chunk(self.dirty[chunk], zero, page, rows))


def _columns(cells: Cells) -> tuple[NDArray[Any], ...]:
    return cells.first, cells.last, cells.threshold, cells.count, cells.key, cells.inverted


@njit(inline="always")
def _mix(z):
    z = (z ^ (z >> uint64(30))) * MIX1
    z = (z ^ (z >> uint64(27))) * MIX2
    return z ^ (z >> uint64(31))


@njit(inline="always")
def _ones(x):
    """Count the set bits of a word. LLVM recognises these lines and emits one instruction."""
    x = x - ((x >> uint64(1)) & uint64(0x5555555555555555))
    x = (x & uint64(0x3333333333333333)) + ((x >> uint64(2)) & uint64(0x3333333333333333))
    x = (x + (x >> uint64(4))) & uint64(0x0F0F0F0F0F0F0F0F)
    return (x * uint64(0x0101010101010101)) >> uint64(56)


@njit(nogil=True)
def _planes(out, key, word0, threshold):
    """Set each bit with probability threshold / 256, from the lowest plane up."""
    out[:] = 0
    for plane in range(8):
        if threshold & ((2 << plane) - 1) == 0:
            continue  # planes below the lowest set bit of the threshold have no effect
        start = key + uint64(plane * CHUNK_WORDS + word0 + 1) * GOLDEN
        if threshold >> plane & 1:
            for i in range(len(out)):
                out[i] |= _mix(start + uint64(i) * GOLDEN)
        else:
            for i in range(len(out)):
                out[i] &= _mix(start + uint64(i) * GOLDEN)


@njit(nogil=True)
def _draw(tile, cell, hits, columns, c, base):
    """Draw cell c into the tile of the chunk that starts at slot `base`. Return its blocks."""
    firsts, lasts, thresholds, counts, keys, inverteds = columns
    first, last, inverted = firsts[c] - base, lasts[c] - base, inverteds[c]
    word0 = first >> 6
    low, high = word0 >> BLOCK_SHIFT, (last - 1) >> (6 + BLOCK_SHIFT)
    blocks = (ALL >> uint64(BLOCKS - 1 - high + low)) << uint64(low)
    through = thresholds[c] > 0 or inverted  # otherwise the writes go straight into the tile
    bits = (cell if through else tile)[word0 : (last + 63) >> 6]
    if thresholds[c]:
        _planes(bits, keys[c], word0, thresholds[c])
    elif through:
        bits[:] = 0
    offset, pages, start = uint64(first & 63), uint64(last - first), (keys[c] ^ MIX1) + GOLDEN
    for done in range(0, counts[c], HITS):
        some = hits[: min(HITS, counts[c] - done)]
        for i in range(len(some)):
            chosen = _mix(start + uint64(done + i) * GOLDEN) >> uint64(18)
            some[i] = (chosen * pages) >> uint64(46)
        for i in range(len(some)):
            page = some[i] + offset
            bits[page >> uint64(6)] |= ONE << (page & uint64(63))
    if not through:
        return blocks
    flip = ALL if inverted else uint64(0)
    for i in range(len(bits)):
        bits[i] ^= flip
    bits[0] &= ALL << offset
    bits[-1] &= ALL >> uint64(-last & 63)
    out = tile[word0 : word0 + len(bits)]
    for i in range(len(bits)):
        out[i] |= bits[i]
    return blocks


@njit(nogil=True)
def _merge(op, tile, dirty, log, zero):
    new, unzeroed = int64(0), int64(0)
    if op == ZERO:
        for w in range(len(tile)):
            unzeroed -= int64(_ones(tile[w] & ~zero[w] & dirty[w]))
            zero[w] |= tile[w]
        return new, unzeroed
    if len(zero):
        for w in range(len(tile)):
            unzeroed += int64(_ones(zero[w] & tile[w] & dirty[w]))
            zero[w] &= ~tile[w]
    if op == CLEAR_LOG:
        for w in range(len(tile)):
            log[w] = tile[w] & ~log[w]
        return new, unzeroed
    if op == MERGE_LOG:
        for w in range(len(tile)):
            log[w] |= tile[w]
            tile[w] = log[w]
        if len(zero):  # a page may be new and zero
            for w in range(len(tile)):
                unzeroed -= int64(_ones(tile[w] & ~dirty[w] & zero[w]))
    for w in range(len(tile)):
        new += int64(_ones(tile[w] & ~dirty[w]))
        dirty[w] |= tile[w]
    return new, unzeroed


@cache_on_disk  # with the code of all that it calls
@njit(nogil=True)
def _paint(
    op,
    columns,
    mask_columns,
    low,
    high,
    mask_low,
    mask_high,
    chunks,
    dirty,
    log,
    zero,
    log_blocks,
    counts,
):
    tile, cell = np.zeros(CHUNK_WORDS, np.uint64), np.zeros(CHUNK_WORDS, np.uint64)
    mask = np.zeros(CHUNK_WORDS, np.uint64)
    hits = np.zeros(HITS, np.uint64)
    for i in range(len(chunks)):
        chunk, blocks = chunks[i], uint64(0)
        for c in range(low[i], high[i]):
            blocks |= _draw(tile, cell, hits, columns, c, chunk << CHUNK_SHIFT)
        if op == ZERO:
            mask[:] = 0
            for c in range(mask_low[i], mask_high[i]):
                _draw(mask, cell, hits, mask_columns, c, chunk << CHUNK_SHIFT)
            for w in range(len(tile)):
                tile[w] &= mask[w]
        if op in (CLEAR_LOG, MERGE_LOG):
            drawn, blocks = blocks, blocks | log_blocks[chunk]
            log_blocks[chunk] = drawn if op == CLEAR_LOG else blocks
        own_log = log[chunk] if len(log) else tile[:0]
        own_zero = zero[chunk] if len(zero) else tile[:0]
        end = 0
        while end < BLOCKS and blocks >> uint64(end):  # the next run of blocks
            while not blocks >> uint64(end) & ONE:
                end += 1
            first = end
            while end < BLOCKS and blocks >> uint64(end) & ONE:
                end += 1
            words = slice(first << BLOCK_SHIFT, end << BLOCK_SHIFT)
            new, unzeroed = _merge(
                op, tile[words], dirty[chunk, words], own_log[words], own_zero[words]
            )
            counts[i, 0] += new
            counts[i, 1] += unzeroed
            tile[words] = 0


@njit(inline="always")
def _fits(left, budgets, normal, zero):
    """Take the cost of some pages from what is left of each budget if all budgets last for them."""
    for b in range(len(left)):
        if normal * budgets[b, 1] + zero * budgets[b, 2] > left[b]:
            return False
    for b in range(len(left)):
        left[b] -= normal * budgets[b, 1] + zero * budgets[b, 2]
    return True


@cache_on_disk
@njit(nogil=True)
def _clear_in_chunk(words, zeros, page, budgets):
    left, taken, behind = budgets[:, 0].copy(), np.zeros(2, np.int64), page
    if left.min() < 0:
        return behind, taken[0], taken[1], True
    for w in range(page >> 6, len(words)):
        kept = uint64(0)
        if w == page >> 6:  # pending pages behind the cursor
            kept = words[w] & ((ONE << uint64(page & 63)) - ONE)
        word = words[w] ^ kept
        if word == 0:
            continue
        zero_bits = word & zeros[w] if len(zeros) else uint64(0)
        zero = int64(_ones(zero_bits))
        normal = int64(_ones(word)) - zero
        if _fits(left, budgets, normal, zero):
            taken[0] += normal
            taken[1] += zero
            words[w] = kept
            behind = (w << 6) + _length(word)
            continue
        while True:  # until a budget ends in this word
            lowest = word & (~word + ONE)
            zero = int64((zero_bits & lowest) != 0)
            if not _fits(left, budgets, 1 - zero, zero):
                break
            taken[zero] += 1
            word ^= lowest
            behind = (w << 6) + int64(_ones(lowest - ONE)) + 1
        words[w] = kept | word
        return behind, taken[0], taken[1], True
    return behind, taken[0], taken[1], False


@njit(inline="always")
def _length(x):
    """Return the place behind the highest set bit of a word that is not 0."""
    for shift in (1, 2, 4, 8, 16, 32):
        x |= x >> uint64(shift)
    return int64(_ones(x))


def compile_kernels() -> None:
    """Compile the kernels, or read their compiled code, and run them on no chunk.

    Raises:
        Exception: numba or LLVM cannot compile here.
    """
    none, bitmaps = np.zeros(0, np.int64), [np.zeros((0, CHUNK_WORDS), np.uint64)] * 3
    columns = none, none, none, none, none.astype(np.uint64), none.astype(np.bool_)
    _paint(
        Op.MERGE,
        columns,
        columns,
        none,
        none,
        none,
        none,
        none,
        *bitmaps,
        none.astype(np.uint64),
        np.zeros((0, 2), np.int64),
    )
    _clear_in_chunk(np.zeros(1, np.uint64), np.zeros(0, np.uint64), 0, np.zeros((1, 3), np.int64))
