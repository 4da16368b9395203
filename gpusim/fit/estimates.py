"""What a fit finds: writers, and how far they are from what was measured. Data and closed forms alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
KINDS = ("random", "sequential")


@dataclass(frozen=True, kw_only=True)
class WriterEstimate:
    """Pages that are written alike.

    Attributes:
        kind: random: every page is as likely to be the next; sequential: page by page, round and round.
        pages: how many.
        page_writes_per_s: of all of them together.
    """

    kind: str
    pages: float
    page_writes_per_s: float

    @property
    def rate(self) -> float:
        """Writes a second to each page."""
        return self.page_writes_per_s / self.pages


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Writers whose distinct pages are those measured.

    Attributes:
        writers: hottest first; none: the VM is idle.
        residuals: [n] measured less fitted, in standard deviations of sampling, rounding and drift.
        chi_square: the sum of their squares.
        drift: relative standard deviation of the guest's speed between measurements.
        doubts: what is wrong with the measurements, or not known from them; a line each, for users.
    """

    writers: tuple[WriterEstimate, ...]
    residuals: FloatArray
    chi_square: float
    drift: float
    doubts: tuple[str, ...] = ()

    def distinct_pages(self, seconds: FloatArray) -> FloatArray:
        """Pages that the writers dirty in times from 0 on."""
        return distinct_pages(self.writers, seconds)


def distinct_pages(writers: Sequence[WriterEstimate], seconds: FloatArray) -> FloatArray:
    """Pages that writers dirty in times from 0 on, each counted once.

    Of W pages each written at random r times a second: W (1 - exp(-r t)); of W passed one after the
    other: W min(r t, 1).
    """
    found = np.zeros_like(seconds, dtype=np.float64)
    for writer in writers:
        found += writer.pages * share_reached(writer.rate * seconds, writer.kind == "sequential")
    return found


def share_reached(passes: FloatArray, sequential: NDArray[np.bool_] | bool) -> FloatArray:
    """Share of a writer's pages that it reaches in so many writes to each."""
    share: FloatArray = np.where(sequential, np.minimum(passes, 1.0), -np.expm1(-passes))
    return share


def share_slope(passes: FloatArray, sequential: NDArray[np.bool_] | bool) -> FloatArray:
    """How much more of them a relative change of its speed brings: d share / d log passes."""
    slope: FloatArray = np.where(sequential, passes * (passes < 1), passes * np.exp(-passes))
    return slope
