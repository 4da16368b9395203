"""The primitives on a CPU, compiled by numba: loops over the words of each chunk.

Slices and unsigned words let LLVM vectorise the loops. The compiled code stays beside this file, or
in the user's cache folder, for the next process.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, njit, uint64
from numpy.typing import NDArray

from gpusim.layout import IntArray
from gpusim.pages.draw import Cells
from gpusim.pages.host_kernels import HostKernels
from gpusim.pages.kernel_cache import cache_on_disk
from gpusim.pages.primitives import Counts, Op

# Copies of constants of draw.py, layout.py and primitives.Op, which a test compares. numba compiles
# them in, and only a change of this file makes its cached code out of date.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX1, MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
CHUNK_SHIFT, CHUNK_WORDS = 18, 4096
CLEAR_LOG, MERGE_LOG, ZERO = 1, 2, 3

ALL, ONE = np.uint64(2**64 - 1), np.uint64(1)
HITS = 1024  # writes hashed in one loop, which is vectorised, and set in another, which is not


class NumbaKernels(HostKernels):
    """See primitives.Kernels."""

    few = 64

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
            _paint(op, columns, mask_columns, *ranges, chunks[some], *bitmaps, counts[some])

        self._share(len(chunks), len(chunks), paint_some)
        return Counts(counts[:, 0], counts[:, 1])


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
    """Draw cell c into the tile of the chunk that starts at slot `base`."""
    firsts, lasts, thresholds, counts, keys, inverteds = columns
    first, last, inverted = firsts[c] - base, lasts[c] - base, inverteds[c]
    word0 = first >> 6
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
        return
    flip = ALL if inverted else uint64(0)
    for i in range(len(bits)):
        bits[i] ^= flip
    bits[0] &= ALL << offset
    bits[-1] &= ALL >> uint64(-last & 63)
    out = tile[word0 : word0 + len(bits)]
    for i in range(len(bits)):
        out[i] |= bits[i]


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
    op, columns, mask_columns, low, high, mask_low, mask_high, chunks, dirty, log, zero, counts
):
    tile, cell = np.zeros(CHUNK_WORDS, np.uint64), np.zeros(CHUNK_WORDS, np.uint64)
    mask = np.zeros(CHUNK_WORDS, np.uint64)
    hits = np.zeros(HITS, np.uint64)
    for i in range(len(chunks)):
        chunk = chunks[i]
        tile[:] = 0
        for c in range(low[i], high[i]):
            _draw(tile, cell, hits, columns, c, chunk << CHUNK_SHIFT)
        if op == ZERO:
            mask[:] = 0
            for c in range(mask_low[i], mask_high[i]):
                _draw(mask, cell, hits, mask_columns, c, chunk << CHUNK_SHIFT)
            for w in range(len(tile)):
                tile[w] &= mask[w]
        own_log = log[chunk] if len(log) else tile[:0]
        own_zero = zero[chunk] if len(zero) else tile[:0]
        counts[i] = _merge(op, tile, dirty[chunk], own_log, own_zero)


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
        np.zeros((0, 2), np.int64),
    )
