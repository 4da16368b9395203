"""Which pages of its working set a writer writes: bands of random writes, or sequential threads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EXACT_RANKS = 2**16


@dataclass(frozen=True)
class Band:
    """Pages of a working set, first <= page < last, with a share of the writer's writes.

    Inside a band every page is equally likely to be written next.
    """

    first: int
    last: int
    share: float


@dataclass(frozen=True)
class Random:
    """Independent random writes, spread over bands by their shares."""

    bands: tuple[Band, ...]


@dataclass(frozen=True)
class Sequential:
    """`threads` threads, each round and round its own even share of `pages`, page by page.

    Attributes:
        first_write: writes each thread has done before time 0.
    """

    pages: int
    threads: int
    first_write: int

    def share(self, thread: int) -> tuple[int, int]:
        """The pages of one thread: first, behind the last."""
        return thread * self.pages // self.threads, (thread + 1) * self.pages // self.threads


def uniform(pages: int) -> Random:
    """Every page is equally likely."""
    return Random((Band(0, pages, 1.0),))


def hot_cold(pages: int, hot_pages: int, hot_share: float) -> Random:
    """`hot_share` of the writes go to the first `hot_pages`, the rest to the others."""
    return Random((Band(0, hot_pages, hot_share), Band(hot_pages, pages, 1.0 - hot_share)))


def zipf(pages: int, exponent: float) -> Random:
    """Weight 1 / rank^exponent, in bands of ranks 1, 2-3, 4-7, ..., even inside a band.

    The weights of the first 65536 ranks are added up, those of the others are the integral of the
    density, whose midpoint error there is below 1e-10.
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
            log_ratio = np.log(high / low)  # expm1: exact where the power is nearly 0
            tail = log_ratio if power == 0 else low**power * np.expm1(power * log_ratio) / power
        return float(exact[min(rank, EXACT_RANKS)] + tail)

    weights = np.diff([weight_up_to(edge) for edge in edges])
    shares = weights / weights.sum()
    return Random(
        tuple(Band(a, b, float(s)) for a, b, s in zip(edges[:-1], edges[1:], shares, strict=True))
    )
