"""The pages of its working set that a writer writes: random in bands, or sequential threads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpusim.layout import CHUNK_PAGES, FloatArray, IntArray, U64Array
from gpusim.stream import Stream, ranks

FEWEST_PARTS = 128  # of a set with so many pages. A larger set has a part per chunk or more
MOST_BANDS = 64
EXACT_RANKS = 2**16  # ranks of a Zipf law whose weights are summed, not integrated


@dataclass(frozen=True)
class Band:
    """Pages of a working set that share a part of the writer's writes.

    Every page of a band is equally likely to be written next.

    Attributes:
        first, last: the pages first <= page < last of the working set.
        share: share of the writer's writes, 0 to 1.
    """

    first: int
    last: int
    share: float


@dataclass(frozen=True)
class Shuffle:
    """Where the ranks of a working set lie, if the hottest pages are not its first ones.

    The set is cut into equal parts. Rank r is dealt to part number r modulo parts, in an order that
    the seed draws. So each part has its share of each band. In a part the bands lie one after the
    other, in an order that the seed draws for each part.

    Attributes:
        row: int64 [parts], the ranks of part i are those that are row[i] modulo parts.
        order: uint64 [parts, MOST_BANDS], the bands of a part lie in the order of these numbers.
    """

    row: IntArray
    order: U64Array


@dataclass(frozen=True)
class Random:
    """Independent random writes, distributed over bands by their shares.

    Attributes:
        bands: the bands, ascending.
        shuffle: where the ranks of the bands lie. None: rank and page are the same.
    """

    bands: tuple[Band, ...]
    shuffle: Shuffle | None = None

    def runs(self) -> tuple[IntArray, IntArray, FloatArray]:
        """Return the runs of pages that are written alike, in the order of their pages.

        Returns:
            First page and page behind the last, int64 [runs]. Share of the writes per page, float64
            [runs].
        """
        density = np.array([band.share / (band.last - band.first) for band in self.bands])
        edges = np.array([0, *(band.last for band in self.bands)])
        if self.shuffle is None:
            return edges[:-1], edges[1:], density
        parts, row = len(self.shuffle.row), self.shuffle.row[:, None]
        pages = np.diff(np.maximum(edges - row + parts - 1, 0) // parts, axis=1)
        order = np.argsort(self.shuffle.order[:, : len(self.bands)], axis=1, kind="stable")
        pages = np.take_along_axis(pages, order, axis=1).ravel()
        last = np.cumsum(pages)
        some = pages > 0
        return (last - pages)[some], last[some], density[order.ravel()][some]


@dataclass(frozen=True)
class Sequential:
    """Threads that each write the pages of an equal share in order, again and again.

    Attributes:
        pages: pages of the working set.
        threads: number of threads.
        first_write: writes that each thread has done before time 0.
    """

    pages: int
    threads: int
    first_write: int

    def share(self, thread: int) -> tuple[int, int]:
        """Return the first page of a thread and the page behind its last."""
        return thread * self.pages // self.threads, (thread + 1) * self.pages // self.threads


def shuffled(pattern: Random, stream: Stream) -> Random:
    """Return a pattern whose heat is not ordered by address."""
    pages = pattern.bands[-1].last
    parts = min(pages, max(FEWEST_PARTS, -(-pages // CHUNK_PAGES)))
    row = ranks(stream.raw(parts))
    order = stream.raw(parts * MOST_BANDS).reshape(parts, MOST_BANDS)
    return Random(pattern.bands, Shuffle(row, order))


def uniform(pages: int) -> Random:
    """Return a pattern in which every page is equally likely."""
    return Random((Band(0, pages, 1.0),))


def hot_cold(pages: int, hot_pages: int, hot_share: float) -> Random:
    """Return a pattern that sends `hot_share` of the writes to the first `hot_pages`."""
    return Random((Band(0, hot_pages, hot_share), Band(hot_pages, pages, 1.0 - hot_share)))


def zipf(pages: int, exponent: float) -> Random:
    """Return a Zipf pattern: weight 1 / rank^exponent, in bands of ranks 1, 2-3, 4-7, ...

    All pages of a band have the same weight. The weights of the first 65536 ranks are summed. The
    other weights are the integral of the density, whose midpoint error is below 1e-10 there.
    """
    edges = [0]
    while edges[-1] < pages:
        edges.append(min(2 * edges[-1] + 1, pages))
    ranks = np.arange(1, min(pages, EXACT_RANKS) + 1, dtype=np.float64)
    exact = np.concatenate([[0.0], np.cumsum(ranks**-exponent)])

    def weight_up_to(rank: int) -> float:
        tail = 0.0
        if rank > EXACT_RANKS:
            low, high = EXACT_RANKS + 0.5, rank + 0.5
            power = 1 - exponent
            log_ratio = np.log(high / low)  # expm1 is exact if the power is nearly 0
            tail = log_ratio if power == 0 else low**power * np.expm1(power * log_ratio) / power
        return float(exact[min(rank, EXACT_RANKS)] + tail)

    weights = np.diff([weight_up_to(edge) for edge in edges])
    shares = weights / weights.sum()
    return Random(
        tuple(Band(a, b, float(s)) for a, b, s in zip(edges[:-1], edges[1:], shares, strict=True))
    )
