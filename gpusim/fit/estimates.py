"""The result of a fit: writers, and how far they are from the measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpusim.text import Message

FloatArray = NDArray[np.float64]
KINDS = ("random", "sequential")
LEAST_DRIFT, LEAST_WRITES = 1e-6, 1e-300  # avoid 0 / 0 and log(0)


@dataclass(frozen=True, kw_only=True)
class WriterEstimate:
    """Pages that the guest writes in the same way.

    Attributes:
        kind: random: every page is equally likely to be next. sequential: page by page, in a loop.
        pages: how many pages. Not a whole number.
        page_writes_per_s: writes per second over all pages, in a burst if it works in bursts.
        in_bursts: it pauses between bursts, with all others of its guest that do.
    """

    kind: str
    pages: float
    page_writes_per_s: float
    in_bursts: bool = False

    @property
    def rate(self) -> float:
        """Return the writes per second to each page."""
        return self.page_writes_per_s / self.pages


@dataclass(frozen=True, kw_only=True)
class Bursts:
    """Mean lengths of the bursts of a guest, and of the pauses between them."""

    on_s: float
    off_s: float

    @property
    def duty(self) -> float:
        """Return the share of the time in bursts."""
        return self.on_s / (self.on_s + self.off_s)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Writers that may explain a profile.

    Attributes:
        writers: the writers.
        drift: relative standard deviation of the guest's speed.
        cost: -2 log likelihood, plus a fixed amount for each writer.
    """

    writers: tuple[WriterEstimate, ...]
    drift: float
    cost: float


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
        bursts: of the writers that work in bursts. None: all write steadily.
        candidates: the best writers of each number and choice of kinds. A sampled fit has none.
    """

    writers: tuple[WriterEstimate, ...]
    residuals: FloatArray
    chi_square: float
    drift: float
    warnings: tuple[Message, ...] = ()
    bursts: Bursts | None = None
    candidates: tuple[Candidate, ...] = ()

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


def drifting_share(
    writes: FloatArray, sequential: NDArray[np.bool_] | bool, drift: FloatArray | float
) -> tuple[FloatArray, FloatArray]:
    """Return the mean share of a writer whose speed varies, and its slope with the speed.

    The curve of a sequential writer has a bend where its first round ends. Near it nobody can tell
    whether the round has ended, so mean and slope are averages over the speeds. The curve of a
    random writer bends slowly, and is taken at the mean speed.

    Args:
        writes: writes per page, [...].
        sequential: whether the writer is sequential, [...].
        drift: standard deviation of the logarithm of the speed, [...]. Zero: no average.

    Returns:
        The mean share, and the mean of d share / d log(writes), [...].
    """
    from scipy.special import ndtr

    not_zero = np.maximum(drift, LEAST_DRIFT)
    rounds = np.log(np.maximum(writes, LEAST_WRITES)) / not_zero
    unfinished = writes * ndtr(-rounds - not_zero / 2)
    mean = np.where(sequential, unfinished + ndtr(rounds - not_zero / 2), -np.expm1(-writes))
    slope = np.where(sequential, unfinished, writes * np.exp(-writes))
    return mean, slope
