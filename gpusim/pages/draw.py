"""How a cell of random writes becomes integers.

No other module lets a float decide a random bit. A cell is a run of pages inside one chunk with one
expected number of writes per page, `mean`. A page is written at least once with probability
1 - exp(-mean), independently of the other pages (Poisson splitting). Any method with that law may
draw a cell. If most pages are written, gpusim draws the unwritten pages instead ("inverted"). Two
methods share the probability:

- Bit planes mark every page with probability `threshold` / 256.
- A residual of `count` writes marks one random page per write.

A page stays unmarked with probability (1 - threshold/256) * exp(-residual) = exp(-mu), without
rounding. The devices see only integers and therefore agree to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpusim.layout import CHUNK_SHIFT, FloatArray, IntArray, U64Array, Writes, ZeroShares
from gpusim.stream import Drawn, draw_generator

# Weyl increment and finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
GOLDEN = 0x9E3779B97F4A7C15
MIX1, MIX2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
WORD = 2**64 - 1
LN2 = float(np.log(2.0))
ZERO_DRAW = 2**60  # added to the number of a draw: which written pages are left zero
FEW_RUNS = 8  # of equal means. With more, one call for all of them is faster
PLANES_FROM = 1 / 32  # below this mean the residual alone is cheaper than eight planes


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Cells as integers, sorted by chunk.

    Attributes:
        first, last: int64 [cells], slot of the first page and slot behind the last page. A cell
            lies inside one chunk.
        threshold: int64 [cells], 0 to 255, probability of the bit planes in 1/256.
        count: int64 [cells], writes of the residual.
        key: uint64 [cells], key of the cell's hashes. 0 for pages that were certainly written.
        inverted: bool [cells], the draw marks the pages that were not written.
        mean: float64 [cells], expected writes per page, infinity for pages that were certainly
            written. Then nothing was drawn, and only `first`, `last` and `key` count beside it. None:
            the cells were drawn.
    """

    first: IntArray
    last: IntArray
    threshold: IntArray
    count: IntArray
    key: U64Array
    inverted: NDArray[np.bool_]
    mean: FloatArray | None = None

    def of_chunks(self, chunks: IntArray) -> tuple[IntArray, IntArray]:
        """Return the first cell of each chunk and the cell behind its last, int64 [n] each."""
        cell_chunk = self.first >> CHUNK_SHIFT
        if len(cell_chunk) == len(chunks) and np.array_equal(cell_chunk, chunks):
            low = np.arange(len(chunks))  # one cell per chunk
            return low, low + 1
        return (
            np.searchsorted(cell_chunk, chunks, side="left"),
            np.searchsorted(cell_chunk, chunks, side="right"),
        )

    def chunks(self) -> IntArray:
        """Return the chunks that have a cell, ascending, int64 [n]."""
        cell_chunk = self.first >> CHUNK_SHIFT
        return cell_chunk[_starts_of_runs(cell_chunk)]


def certain_cells(first: IntArray, last: IntArray) -> Cells:
    """Return cells of which every page was written.

    Args:
        first, last: int64 [n], slots first <= page < last, sorted by chunk.
    """
    nothing = np.zeros(len(first), np.int64)
    return Cells(
        first=first,
        last=last,
        threshold=nothing,
        count=nothing,
        key=nothing.astype(np.uint64),
        inverted=np.ones(len(first), np.bool_),
    )


def mix_in_place(z: U64Array, work: U64Array) -> None:
    """Apply the finaliser of splitmix64 to each element. `work` is a buffer of the same shape."""
    for shift, factor in ((30, MIX1), (27, MIX2)):
        np.right_shift(z, np.uint64(shift), out=work)
        z ^= work
        z *= np.uint64(factor)
    np.right_shift(z, np.uint64(31), out=work)
    z ^= work


def cell_keys(seed: int, draw: int, step: int, cells: int) -> U64Array:
    """Return a key for each cell, uint64 [cells].

    Args:
        seed: the run's seed.
        draw: number of the draw.
        step: 0 or 1, see `cells_of`.
        cells: number of cells.
    """
    key = 0
    for part in (seed, draw, step):
        key = _mix_one(key + part + GOLDEN)
    keys = np.arange(1, cells + 1, dtype=np.uint64)
    keys *= np.uint64(GOLDEN)
    keys += np.uint64(key)
    mix_in_place(keys, np.empty_like(keys))
    return keys


def _mix_one(z: int) -> int:
    """Return the finaliser of splitmix64 of an integer modulo 2^64."""
    for shift, factor in ((30, MIX1), (27, MIX2)):
        z &= WORD
        z = (z ^ z >> shift) * factor
    z &= WORD
    return z ^ z >> 31


def integers_of(
    mean: FloatArray, pages: IntArray, seed: int, draw: int, step: int
) -> tuple[IntArray, IntArray, NDArray[np.bool_]]:
    """Return threshold, residual count and inversion of cells: int64, int64 and bool [cells].

    Args:
        mean: float64 [cells], expected writes per page. Infinity: the page is certainly written.
        pages: int64 [cells], pages of each cell.
        seed, draw, step: key of the Philox stream that draws all counts of this step.
    """
    cells, starts = len(mean), np.flatnonzero(_starts_of_runs(mean))
    is_short = 2 * len(starts) <= cells  # neighbours with one mean are computed once
    if is_short:
        mean = mean[starts]
    inverted = mean > LN2
    with np.errstate(divide="ignore"):
        mu = np.where(inverted, -np.log1p(-np.exp(-mean)), mean)
    threshold = np.where(mu >= PLANES_FROM, np.floor(-256 * np.expm1(-mu)), 0.0)
    rest = np.maximum(0.0, mu + np.log1p(-threshold / 256))
    whole = threshold.astype(np.int64)
    if is_short:
        lengths = cells if len(starts) == 1 else np.diff(starts, append=cells)
        whole, rest, inverted = (np.repeat(one, lengths) for one in (whole, rest, inverted))
    random = draw_generator(seed, Drawn.COUNTS, draw, step)
    return whole, _poisson(random, pages * rest), inverted


def _poisson(random: np.random.Generator, mean: FloatArray) -> IntArray:
    """Return `random.poisson(mean)`. Runs of equal means are drawn with one call each.

    numpy draws numbers with one mean faster, and takes the same numbers from the stream.
    """
    starts = np.flatnonzero(_starts_of_runs(mean))
    if not len(mean) or len(starts) > FEW_RUNS:
        return random.poisson(mean)
    ends = [*starts[1:].tolist(), len(mean)]
    runs = zip(mean[starts].tolist(), starts.tolist(), ends, strict=True)
    drawn = [random.poisson(one, last - first) for one, first, last in runs]
    return drawn[0] if len(drawn) == 1 else np.concatenate(drawn)


def _starts_of_runs(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which elements differ from the one before them, bool [n]. The first does."""
    starts = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=starts[1:])
    return starts


def zero_marks(zeroed: ZeroShares) -> Writes:
    """Return writes that mark the pages which a write leaves zero, if they are written.

    Their cells are drawn with the number ZERO_DRAW + draw, so that they share no stream with others.
    """
    nothing = np.zeros(0, np.int64)
    with np.errstate(divide="ignore"):
        mean = -np.log1p(-zeroed.share)  # infinity: every page
    return Writes(
        first=zeroed.first,
        last=zeroed.last,
        mean=mean,
        certain_first=nothing,
        certain_last=nothing,
    )


def draw_groups(writes: Writes, seed: int, draw: int, step: int) -> Writes:
    """Draw which groups of pages are written, and return them as pages that certainly are.

    Args:
        writes: the writes. If `pages_together` is 1, then they are returned as they are.
        seed, draw, step: as of `cells_of`. They are the key of a Philox stream of its own.
    """
    size = writes.pages_together
    if size == 1 or not len(writes.first):
        return writes
    groups = (writes.last - writes.first) // size
    random = draw_generator(seed, Drawn.GROUPS, draw, step).random(int(groups.sum()))
    hit = np.flatnonzero(random < np.repeat(-np.expm1(-writes.mean), groups))
    before = np.cumsum(groups) - groups
    cell = np.searchsorted(before, hit, side="right") - 1
    first = writes.first[cell] + (hit - before[cell]) * size
    # Neighbours inside one chunk become one run.
    starts = np.ones(len(first), np.bool_)
    starts[1:] = (np.diff(first) != size) | (np.diff(first >> CHUNK_SHIFT) != 0)
    ends = np.ones(len(first), np.bool_)
    ends[:-1] = starts[1:]
    nothing = np.zeros(0, np.int64)
    return Writes(
        first=nothing,
        last=nothing,
        mean=np.zeros(0),
        certain_first=np.concatenate([first[starts], writes.certain_first]),
        certain_last=np.concatenate([first[ends] + size, writes.certain_last]),
    )


def cells_of(writes: Writes, seed: int, draw: int, step: int) -> Cells:
    """Draw the integers of all writes of an interval, and sort them by chunk.

    Args:
        writes: the writes.
        seed: the run's seed.
        draw: number of the draw.
        step: 0 for MERGE and MERGE_LOG, 1 for CLEAR_LOG, so that both steps are independent.
    """
    threshold, count, inverted = integers_of(
        writes.mean, writes.last - writes.first, seed, draw, step
    )
    keys = cell_keys(seed, draw, step, len(writes.mean))
    some = writes.mean > 0
    certain = len(writes.certain_first)
    if not certain and some.all():
        return Cells(
            first=writes.first,
            last=writes.last,
            threshold=threshold,
            count=count,
            key=keys,
            inverted=inverted,
        )
    first = np.concatenate([writes.first[some], writes.certain_first])
    order = np.argsort(first >> CHUNK_SHIFT, kind="stable") if certain else slice(None)
    nothing = np.zeros(certain, np.int64)
    return Cells(
        first=first[order],
        last=np.concatenate([writes.last[some], writes.certain_last])[order],
        threshold=np.concatenate([threshold[some], nothing])[order],
        count=np.concatenate([count[some], nothing])[order],
        key=np.concatenate([keys[some], np.zeros(certain, np.uint64)])[order],
        inverted=np.concatenate([inverted[some], np.ones(certain, np.bool_)])[order],
    )


def expected_cells(writes: Writes) -> Cells:
    """Return cells with the expected writes, and draw nothing. They are sorted as by `cells_of`."""
    some, certain = writes.mean > 0, len(writes.certain_first)
    first = np.concatenate([writes.first[some], writes.certain_first])
    order = np.argsort(first >> CHUNK_SHIFT, kind="stable")
    cells = len(first)
    key = np.ones(cells, np.uint64)
    key[cells - certain :] = 0
    mean = np.concatenate([writes.mean[some], np.full(certain, np.inf)])
    nothing: IntArray = np.zeros(cells, np.int64)
    return Cells(
        first=first[order],
        last=np.concatenate([writes.last[some], writes.certain_last])[order],
        threshold=nothing,
        count=nothing,
        key=key[order],
        inverted=np.zeros(cells, np.bool_),
        mean=mean[order],
    )
