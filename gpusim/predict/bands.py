"""Bands: the 5th, 50th and 95th percentile of a quantity over simulated migrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

LOW, MIDDLE, HIGH = 5, 50, 95  # percent of the members below the edges of a band


@dataclass(frozen=True, kw_only=True)
class Band:
    """The 5th, 50th and 95th percentile of a quantity over members."""

    low: float
    middle: float
    high: float

    @property
    def relative_width(self) -> float:
        """Return the width as a share of the middle."""
        return (self.high - self.low) / self.middle

    def widened(self, share: float) -> Band:
        """Return a band whose edges lie a share of their values further out."""
        return replace(self, low=self.low * (1 - share), high=self.high * (1 + share))

    def holds(self, value: float) -> bool:
        """Return whether a value lies in the band."""
        return self.low <= value <= self.high


def band(values: Sequence[float]) -> Band:
    """Return the band that contains nine of ten further values.

    Uses Weibull's percentiles: of n sorted values, the one of rank p (n + 1) has on average a share
    p of all migrations below it. NumPy's default rank, 1 + p (n - 1), would contain 85 of 100 for
    n = 32. For integers, such as a throttle percentage, each edge is the nearest value.

    Args:
        values: one or more.
    """
    edges = [float(np.percentile(values, p, method="weibull")) for p in (LOW, MIDDLE, HIGH)]
    if all(isinstance(value, int) for value in values):
        edges = [float(min(values, key=lambda value: abs(value - edge))) for edge in edges]
    return Band(low=edges[0], middle=edges[1], high=edges[2])
