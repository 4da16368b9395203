"""How a cell of random writes becomes integers: the only place where a float decides a random bit.

A cell is a run of pages inside one chunk with one expected number of writes a page, `mean`. A page is
written at least once with probability 1 - exp(-mean), independently of the others (Poisson
splitting), so a cell may be drawn by any method with that law. Where most pages are written, those
that are missed are drawn instead. The likelihood that is left is drawn in two ways:

- bit planes: every page at once, with a probability of `threshold` / 256;
- a residual: `count` writes, each on a page of its own choice, for the rest of the probability.

A page stays unmarked with (1 - threshold/256) * exp(-residual) = exp(-mu): nothing is rounded.
The devices see integers only and so agree to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpusim.layout import CHUNK_SHIFT, FloatArray, IntArray, U64Array, Writes

GOLDEN = 0x9E3779B97F4A7C15  # Weyl increment, and
MIX1, MIX2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # finaliser of splitmix64 (Steele et al. 2014)
LN2 = float(np.log(2.0))
PLANES_FROM = 1 / 32  # below it the residual alone is cheaper than eight planes


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Cells as integers, sorted by chunk.

    Attributes:
        first, last: int64 [cells], slots of the first page and behind the last, inside one chunk.
        threshold: int64 [cells], 0 to 255: probability of the planes in 256ths.
        count: int64 [cells], writes of the residual.
        key: uint64 [cells], of the cell's hashes; 0 for what a sequential writer passed.
        inverted: bool [cells], what is drawn are the pages that were not written.
    """

    first: IntArray
    last: IntArray
    threshold: IntArray
    count: IntArray
    key: U64Array
    inverted: NDArray[np.bool_]

    def of_chunks(self, chunks: IntArray) -> tuple[IntArray, IntArray]:
        """The first cell of each chunk, and the one behind its last."""
        cell_chunk = self.first >> CHUNK_SHIFT
        return (
            np.searchsorted(cell_chunk, chunks, side="left"),
            np.searchsorted(cell_chunk, chunks, side="right"),
        )


def certain_cells(first: IntArray, last: IntArray) -> Cells:
    """Cells of which every page was written: slots first <= page < last, int64 [n], by chunk."""
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
    """The finaliser of splitmix64, element by element; `work` is a buffer of the same shape."""
    for shift, factor in ((30, MIX1), (27, MIX2)):
        np.right_shift(z, np.uint64(shift), out=work)
        z ^= work
        z *= np.uint64(factor)
    np.right_shift(z, np.uint64(31), out=work)
    z ^= work


def mix(z: U64Array) -> U64Array:
    """`mix_in_place` of a copy."""
    mixed = z.copy()
    mix_in_place(mixed, np.empty_like(mixed))
    return mixed


def cell_keys(seed: int, look: int, step: int, cells: int) -> U64Array:
    """One key a cell: the hash of seed, look, step (0: merge, 1: clear the log) and cell number."""
    with np.errstate(over="ignore"):
        key = np.zeros(1, np.uint64)
        for part in (seed, look, step):
            key = mix(key + np.uint64(part) + np.uint64(GOLDEN))
        return mix(key + (np.arange(1, cells + 1, dtype=np.uint64)) * np.uint64(GOLDEN))


def integers_of(
    mean: FloatArray, pages: IntArray, seed: int, look: int, step: int
) -> tuple[IntArray, IntArray, NDArray[np.bool_]]:
    """Threshold, residual count and inversion of cells.

    Args:
        mean: float64 [cells], expected writes a page; infinity is a page certainly written.
        pages: int64 [cells].
        seed, look, step: key of the one Philox stream that draws all counts of this step.
    """
    inverted = mean > LN2
    with np.errstate(divide="ignore"):
        mu = np.where(inverted, -np.log1p(-np.exp(-mean)), mean)
    threshold = np.where(mu >= PLANES_FROM, np.floor(-256 * np.expm1(-mu)), 0.0)
    rest = np.maximum(0.0, mu + np.log1p(-threshold / 256))
    random = np.random.Generator(np.random.Philox(key=np.array([seed, 2 * look + step], np.uint64)))
    return threshold.astype(np.int64), random.poisson(pages * rest), inverted


def cells_of(writes: Writes, seed: int, look: int, step: int) -> Cells:
    """Draw the integers of all writes of a look, and sort them by chunk.

    Args:
        seed: of the run.
        look: number of the look.
        step: 0: MERGE or MERGE_LOG, 1: CLEAR_LOG, so that the two of one look are independent.
    """
    threshold, count, inverted = integers_of(
        writes.mean, writes.last - writes.first, seed, look, step
    )
    keys = cell_keys(seed, look, step, len(writes.mean))
    some = writes.mean > 0
    certain = len(writes.certain_first)
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
