"""The pages that post-copy has yet to send, as numbers of each piece of RAM.

A piece is a run of pages that the guest touches alike. Which of its pages are missing is then chance,
so their number says all. The bitmap is read once, at the switch. After it the cost of post-copy
depends on the number of pieces, and not on the number of pages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpusim.layout import (
    CHUNK_PAGES,
    CHUNK_SHIFT,
    WORD_PAGES,
    FloatArray,
    IntArray,
    Layout,
    U64Array,
)
from gpusim.pages.expected import ExpectedKernels
from gpusim.pages.primitives import Kernels

CHUNKS_READ = 64  # together, 2 MiB of each bitmap
ONE = np.uint64(1)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the bitmap holds at the switch, for each piece.

    Attributes:
        missing: float64 [pieces], host pages with at least one dirty page.
        normal: float64 [pieces], their pages with content. All pages of such a host page are sent.
        zero: float64 [pieces], their zero pages.
        runs: int64 [blocks], runs of dirty host pages in each RAM block.
    """

    missing: FloatArray
    normal: FloatArray
    zero: FloatArray
    runs: IntArray


def find_missing(
    kernels: Kernels, layout: Layout, first: IntArray, last: IntArray, size: int
) -> Found:
    """Count the dirty pages of pieces, in whole host pages.

    Args:
        kernels: the bitmaps.
        layout: the page space.
        first, last: int64 [pieces], slots first <= page < last. They are ascending, cover every page
            once, and consist of whole host pages. None crosses a chunk.
        size: target pages of a host page, a power of two up to CHUNK_PAGES.

    Source: migration/ram.c:postcopy_chunk_hostpages_pass, postcopy_send_discard_bm_ram [7.2 to 11.1].
    """
    if isinstance(kernels, ExpectedKernels):
        return _expected(kernels, layout, first, last, size)
    missing, normal, zero = np.zeros((3, len(first)))
    block_of = _blocks(layout)
    runs = np.zeros(len(layout.blocks), np.int64)
    before = np.zeros(1, np.uint64)  # the last word of the chunks before
    for chunk in range(0, layout.chunks, CHUNKS_READ):
        end = min(layout.chunks, chunk + CHUNKS_READ)
        dirty = _whole_host_pages(kernels.read(kernels.dirty, chunk, end), size)
        rows = dirty.copy()
        rows[:, 1:] = dirty[:, :-1]
        rows[1:, 0], rows[0, 0] = dirty[:-1, -1], before[0]
        is_new = np.diff(block_of[chunk:end], prepend=block_of[chunk - 1] if chunk else -1) > 0
        rows[is_new, 0] = 0
        starts = dirty & ~((dirty << ONE) | (rows >> np.uint64(63)))
        np.add.at(runs, block_of[chunk:end], np.bitwise_count(starts).sum(axis=1, dtype=np.int64))
        before = dirty[-1:, -1]
        low, high = np.searchsorted(first, [chunk << CHUNK_SHIFT, end << CHUNK_SHIFT])
        base = chunk << CHUNK_SHIFT
        borders = first[low:high] - base, last[low:high] - base
        pages = _between(dirty, *borders)
        zero_pages = np.zeros(high - low)
        if kernels.zero is not None:
            zero_pages = _between(dirty & kernels.read(kernels.zero, chunk, end), *borders)
        missing[low:high] = pages / size
        normal[low:high], zero[low:high] = pages - zero_pages, zero_pages
    return Found(missing=missing, normal=normal, zero=zero, runs=runs)


class MissingPages:
    """The host pages that have yet to arrive.

    Args:
        found: what the bitmap holds.
        pages: int64 [pieces], host pages of each piece.
        size: target pages of a host page.

    Attributes:
        missing: float64 [pieces], host pages that are missing.
        normal, zero: float64 [pieces], pages of each kind in a missing host page, on average.
    """

    def __init__(self, found: Found, pages: IntArray, size: int) -> None:
        self.missing = found.missing.copy()
        some = np.maximum(found.missing, 1e-300)
        self.normal, self.zero = found.normal / some, found.zero / some
        self.pages, self.size = np.maximum(pages, 1), size
        self._unpassed = self.pages.astype(np.float64)  # pages that no sequential writer has passed
        self._cursor = 0  # the piece from which the background goes on
        self._jumps = 0.0  # since the cursor moved

    @property
    def total(self) -> float:
        """Host pages that are missing."""
        return float(self.missing.sum())

    def left(self, costs: tuple[float, float]) -> float:
        """Return the cost of all missing pages, of which each normal and each zero page has one."""
        return float((self.missing * self.costs(costs)).sum())

    def costs(self, costs: tuple[float, float]) -> FloatArray:
        """Return the cost of a missing host page of each piece, float64 [pieces]."""
        return self.normal * costs[0] + self.zero * costs[1]

    def passed(self, share: FloatArray) -> FloatArray:
        """Return the missing pages that sequential writers pass, float64 [pieces].

        Args:
            share: float64 [pieces], pages that they pass in each piece.
        """
        return self.missing * np.minimum(1.0, share / np.maximum(self._unpassed, 1e-9))

    def note_passed(self, pages: FloatArray) -> None:
        """Remember which pages sequential writers have passed. None of them is missing any more."""
        left = np.maximum(0.0, self._unpassed - pages)
        self._unpassed = np.where(left < 0.5, self.pages, left)

    def send(self, pages: FloatArray) -> tuple[float, float]:
        """Let pages arrive, float64 [pieces]. Return how many normal and zero pages they have."""
        pages = np.minimum(pages, self.missing)
        self.missing = self.missing - pages
        return float((pages * self.normal).sum()), float((pages * self.zero).sum())

    def send_behind(
        self, starts: FloatArray, budget: float, costs: tuple[float, float]
    ) -> tuple[float, float]:
        """Send pages in order behind places to which the cursor jumped.

        Args:
            starts: float64 [pieces], how many jumps went to each piece. No jump: go on.
            budget: the most that the pages may cost.
            costs: of a normal and of a zero page.

        Returns:
            How many normal and zero pages were sent.
        """
        total = float(starts.sum())
        if not total:
            return self.send_on(budget, costs)
        sent_before = self.send_on(budget * -math.expm1(-total) / total, costs)  # the first jump
        budget *= 1 + math.expm1(-total) / total
        own = self._within_reach(starts, budget / total, costs)
        wanted = budget * starts / total
        turns = np.concatenate([wanted, np.zeros_like(wanted)]) - np.concatenate([own, own])
        sums = np.cumsum(turns)  # what does not fit a piece goes to the next one
        carried = sums - np.minimum(0.0, np.minimum.accumulate(sums))
        before = np.concatenate([[0.0], carried[:-1]])
        spent = np.concatenate([wanted, np.zeros_like(wanted)]) + before - carried
        both = np.minimum(own, spent[: len(own)] + spent[len(own) :])
        self._jumps += total
        if self._jumps >= 1:
            self._jumps = 0.0
            self._cursor = int(np.searchsorted(np.cumsum(starts), total / 2))
        sent = self.send(both / np.maximum(self.costs(costs), 1e-300))
        rest = self.send_on(budget - float(both.sum()), costs)
        return sent_before[0] + sent[0] + rest[0], sent_before[1] + sent[1] + rest[1]

    def _within_reach(
        self, starts: FloatArray, budget: float, costs: tuple[float, float]
    ) -> FloatArray:
        """Return the cost of the pages that some jump gets to, float64 [pieces].

        A jump sends what lies behind one place. If fewer jumps than one come through a piece, then
        most of its pages are behind none.

        Args:
            starts: float64 [pieces], jumps to each piece.
            budget: what the pages behind one jump may cost.
            costs: of a normal and of a zero page.
        """
        own = self.missing * self.costs(costs)
        ends = np.cumsum(own)
        jumps = np.concatenate([[0.0], np.cumsum(starts)])
        first = np.searchsorted(ends, ends - own - budget, side="right")
        through = jumps[1:] - jumps[first] - starts / 2  # in its own piece it gets to a half
        over = np.maximum(0.0, budget - ends)  # of the jumps at the end of RAM
        through += np.where(
            over > 0, jumps[-1] - jumps[np.searchsorted(ends, ends[-1] - over)], 0.0
        )
        reached: FloatArray = own * -np.expm1(-through)
        return reached

    def send_on(self, budget: float, costs: tuple[float, float]) -> tuple[float, float]:
        """Send pages in order from the cursor on, as `send_behind`."""
        own = np.roll(self.missing * self.costs(costs), -self._cursor)
        before = np.cumsum(own) - own
        spent = np.clip(budget - before, 0.0, own)
        reached = int(np.searchsorted(before + own, budget, side="right"))
        turned = np.roll(spent, self._cursor)
        self._cursor = (self._cursor + min(reached, len(own) - 1)) % len(own)
        return self.send(turned / np.maximum(self.costs(costs), 1e-300))


def _blocks(layout: Layout) -> IntArray:
    """The RAM block of each chunk, int64 [chunks]."""
    return np.repeat(
        np.arange(len(layout.blocks)), [-(-block // CHUNK_PAGES) for block in layout.blocks]
    )


def _whole_host_pages(dirty: U64Array, size: int) -> U64Array:
    """Make every host page dirty that has a dirty page, uint64 [chunks, words]."""
    if size == 1:
        return dirty
    if size < WORD_PAGES:
        bits = np.unpackbits(dirty.view(np.uint8), bitorder="little").reshape(-1, size)
        whole = np.repeat(bits.any(axis=1), size)
        return np.packbits(whole, bitorder="little").view(np.uint64).reshape(dirty.shape)
    words: NDArray[np.bool_] = (dirty != 0).reshape(len(dirty), -1, size // WORD_PAGES).any(axis=2)
    ones = np.where(words, ~np.uint64(0), np.uint64(0))
    return np.repeat(ones, size // WORD_PAGES, axis=1)


def _between(words: U64Array, first: IntArray, last: IntArray) -> FloatArray:
    """Count the bits of runs first <= bit < last, float64 [runs]."""
    flat = words.reshape(-1)
    sums = np.concatenate([[0], np.cumsum(np.bitwise_count(flat), dtype=np.int64)])
    flat = np.append(flat, np.uint64(0))

    def below(bits: IntArray) -> IntArray:
        word, bit = bits // WORD_PAGES, (bits % WORD_PAGES).astype(np.uint64)
        part: IntArray = np.bitwise_count(flat[word] & ((ONE << bit) - ONE)).astype(np.int64)
        return sums[word] + part

    return (below(last) - below(first)).astype(np.float64)


def _expected(
    kernels: ExpectedKernels, layout: Layout, first: IntArray, last: IntArray, size: int
) -> Found:
    """The same of a dry run, which knows shares of pieces that are smaller or equal."""
    borders, normal_share, zero_share = kernels.pending_shares(np.concatenate([first, last]))
    own = np.searchsorted(first, borders[:-1], side="right") - 1
    pages = np.diff(borders) * (borders[:-1] < last[own])  # none behind the end of a block
    share = normal_share + zero_share
    of_host_page = 1 - (1 - share) ** size
    missing = pages / size * of_host_page
    zero = missing * size * np.divide(zero_share, share, out=np.zeros_like(share), where=share > 0)
    # A run begins where a dirty page follows a clean one, inside a piece and at its first page.
    before = np.concatenate([[0.0], of_host_page[:-1]])
    before[1:] *= (pages[:-1] > 0) & (np.diff(_blocks(layout)[borders[:-1] >> CHUNK_SHIFT]) == 0)
    starts = np.minimum(1.0, pages) * of_host_page * (1 - before)
    starts += np.maximum(0.0, pages / size - 1) * of_host_page * (1 - of_host_page)
    runs = np.zeros(len(layout.blocks))
    np.add.at(runs, _blocks(layout)[first[own] >> CHUNK_SHIFT], starts)

    def in_pieces(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(own, values, len(first)), np.float64)

    return Found(
        missing=in_pieces(missing),
        normal=in_pieces(missing * size - zero),
        zero=in_pieces(zero),
        runs=np.ceil(runs - 1e-9).astype(np.int64),
    )
