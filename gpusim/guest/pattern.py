"""The pages of its working set that a writer writes: random in bands, or sequential threads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
class Random:
    """Independent random writes, distributed over bands by their shares."""

    bands: tuple[Band, ...]


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
