"""The result of a fit: writers, and how far they are from the measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpusim.text import Message

FloatArray = NDArray[np.float64]
KINDS = ("random", "sequential")


@dataclass(frozen=True, kw_only=True)
class WriterEstimate:
    """Pages that the guest writes in the same way.

    Attributes:
        kind: random: every page is equally likely to be next. sequential: page by page, in a loop.
        pages: how many pages. Not a whole number.
        page_writes_per_s: writes per second over all pages.
    """

    kind: str
    pages: float
    page_writes_per_s: float

    @property
    def rate(self) -> float:
        """Return the writes per second to each page."""
        return self.page_writes_per_s / self.pages


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Writers that dirty as many distinct pages as were measured.

    Attributes:
        writers: the hottest first. Empty: the VM is idle.
        residuals: float64 [n], measured minus fitted, in standard deviations of sampling, rounding
            and drift.
        chi_square: the sum of the squares of `residuals`.
        drift: relative standard deviation of the guest's speed between measurements.
        warnings: what is wrong with the measurements, or what they cannot show.
    """

    writers: tuple[WriterEstimate, ...]
    residuals: FloatArray
    chi_square: float
    drift: float
    warnings: tuple[Message, ...] = ()

    def distinct_pages(self, seconds: FloatArray) -> FloatArray:
        """Return how many pages the writers dirty within times, float64 [n]."""
        return distinct_pages(self.writers, seconds)


def distinct_pages(writers: Sequence[WriterEstimate], seconds: FloatArray) -> FloatArray:
    """Return how many pages writers dirty within times. Each page counts once.

    W pages, each written at random r times per second: W (1 - exp(-r t)). W pages written in
    sequence: W min(r t, 1).

    Args:
        writers: the writers, which share no page.
        seconds: float64 [n], times since any moment.
    """
    total = np.zeros_like(seconds, dtype=np.float64)
    for writer in writers:
        total += writer.pages * share_written(writer.rate * seconds, writer.kind == "sequential")
    return total


def share_written(writes: FloatArray, sequential: NDArray[np.bool_] | bool) -> FloatArray:
    """Return the share of a writer's pages that it has written after `writes` writes per page."""
    share: FloatArray = np.where(sequential, np.minimum(writes, 1.0), -np.expm1(-writes))
    return share


def share_slope(writes: FloatArray, sequential: NDArray[np.bool_] | bool) -> FloatArray:
    """Return d share / d log(writes): how the share changes with the writer's speed."""
    slope: FloatArray = np.where(sequential, writes * (writes < 1), writes * np.exp(-writes))
    return slope
