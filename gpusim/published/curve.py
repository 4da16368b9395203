"""How many distinct pages a guest dirties in a time: a curve as measured, and the guest that it tells of.

QEMU's calc-dirty-rate samples pages and says how many of them changed after some times. A guest of pools,
each of which writes its pages at random and evenly, dirties sum of W (1 - exp(-r t)) pages in t seconds, for
W pages of which each is written r times a second. `fitted` finds such pools for a curve; it knows nothing
of migrations. `predicted_total_s` is the other way to use a curve: the recursion that was published with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpusim.config.schema import MixConfig
from gpusim.fit.evidence import FASTEST, SLOWEST
from gpusim.fit.writers import non_negative_sizes

FloatArray = NDArray[np.float64]

GRID_POINTS = 400  # neighbours differ by 3 % in rate; what a sampled curve cannot tell apart
REWEIGHTED = 20  # times: the weights are those of the fit itself, and have settled long before


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Distinct pages dirtied, of a sample.

    Attributes:
        pages: of the VM.
        sampled: pages looked at; the whole VM's if they are as many.
        zero: of the sampled, those that are zero and stay so.
        seconds: [n], rising.
        dirty: [n], of the sampled, those dirtied after each time.
    """

    pages: int
    sampled: int
    zero: int
    seconds: FloatArray
    dirty: FloatArray

    @property
    def pages_a_sample(self) -> float:
        """Pages of the VM that one sampled page stands for."""
        return self.pages / self.sampled


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Pages that are written at random, all alike.

    Attributes:
        pages: how many.
        rate_per_s: writes a second to each of them.
    """

    pages: float
    rate_per_s: float

    @property
    def page_writes_per_s(self) -> float:
        """Of the whole pool."""
        return self.pages * self.rate_per_s


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The pools of a curve, hottest first, and how far they are from it.

    The size of a pool whose pages are written less than once in the longest time is not known well; what
    it dirties is.

    Attributes:
        residuals: [n] measured less fitted, in standard deviations of the sampling. Where the times were
            looked at in one sample they hang together: then their squares add up to less than n.
    """

    pools: tuple[Pool, ...]
    residuals: FloatArray

    @property
    def chi_square(self) -> float:
        """Sum of the squared residuals."""
        return float(np.sum(self.residuals**2))


def distinct_pages(pools: Sequence[Pool], seconds: FloatArray) -> FloatArray:
    """Pages that pools dirty in times from 0 on."""
    found = np.zeros_like(seconds, dtype=np.float64)
    for pool in pools:
        found += pool.pages * -np.expm1(-pool.rate_per_s * seconds)
    return found


def fitted(curve: Curve) -> Fit:
    """The pools that fit a curve best, in the least squares of its sampling error.

    Sizes of pools on a fine grid of rates are found by non-negative least squares, which leaves all but
    a few of them empty; neighbours of the grid are one pool. A sample's count is binomial.

    Raises:
        ImportError: scipy is not installed.
    """
    seconds, dirty = curve.seconds, curve.dirty
    rates = np.geomspace(SLOWEST / seconds[-1], FASTEST / seconds[0], GRID_POINTS)
    reached = -np.expm1(-np.outer(seconds, rates))  # share of a pool that is dirty, [n, rates]
    sizes = non_negative_sizes(
        reached,
        dirty,
        lambda expected: _deviations(curve, expected),
        most=curve.sampled - curve.zero,
        reweighted=REWEIGHTED,
    )
    pools = _merged(rates, sizes * curve.pages_a_sample)
    expected = distinct_pages(pools, seconds) / curve.pages_a_sample
    return Fit(pools=pools, residuals=(dirty - expected) / _deviations(curve, expected))


def _deviations(curve: Curve, dirty: FloatArray) -> FloatArray:
    """Standard deviations of counts in a sample, drawn without return; half a page at least."""
    share = dirty / curve.sampled
    left = (curve.pages - curve.sampled) / max(curve.pages - 1, 1)
    variance = curve.sampled * share * (1 - share) * left
    return np.maximum(np.sqrt(np.maximum(variance, 0)), 0.5)


def _merged(rates: FloatArray, pages: FloatArray) -> tuple[Pool, ...]:
    """One pool for each run of neighbours that are not empty, of the same size and writes."""
    filled = np.flatnonzero(pages > 0)
    runs = np.split(filled, np.flatnonzero(np.diff(filled) > 2) + 1) if len(filled) else []
    pools = [
        Pool(
            pages=float(pages[run].sum()),
            rate_per_s=float(pages[run] @ rates[run] / pages[run].sum()),
        )
        for run in runs
    ]
    return tuple(sorted(pools, key=lambda pool: -pool.rate_per_s))


def workload(pools: Sequence[Pool], page_bytes: int = 4096) -> MixConfig:
    """Pools as a guest's writers, one behind the other from page 0 on, hottest first."""
    writers, start = {}, 0
    for number, pool in enumerate(pools, 1):
        pages = max(round(pool.pages), 1)
        writers[f"pool_{number}"] = {
            "pattern": "uniform",
            "start": start * page_bytes,
            "working_set": pages * page_bytes,
            "page_writes_per_s": float(f"{pages * pool.rate_per_s:.6g}"),
        }
        start += pages
    return MixConfig(writers=writers)


def predicted_total_s(
    curve: Curve, bandwidth: float, downtime_s: float, page_bytes: int = 4096, header_bytes: int = 8
) -> float | None:
    """Total time by Gudkov's recursion; None: it does not converge.

    A pass sends what was dirtied while the one before it was sent, read off the curve: linear between its
    points, extrapolated at both ends, at most all pages that are not zero. A pass that takes no longer
    than the downtime is the last. Zero pages are sent once, as headers.

    Source: "migration time prediction using calc-dirty-rate", v2, 2023-04-27 (qemu-devel).
    """
    zero = curve.zero * curve.pages_a_sample
    not_zero = curve.pages - zero
    page = page_bytes + header_bytes
    left, total_s = not_zero * page + zero * header_bytes, 0.0
    while True:
        pass_s = left / bandwidth
        total_s += pass_s
        if pass_s <= downtime_s:
            return total_s
        dirtied = _extrapolated(curve, pass_s) * curve.pages_a_sample
        before, left = left, min(max(dirtied, 0.0), not_zero) * page
        if left >= before:  # what a pass leaves falls or rises for good: the curve never falls
            return None


def _extrapolated(curve: Curve, seconds: float) -> float:
    """Sampled pages dirty after a time, on the line through the two nearest points."""
    after = int(np.clip(np.searchsorted(curve.seconds, seconds), 1, len(curve.seconds) - 1))
    (t0, t1), (d0, d1) = curve.seconds[after - 1 : after + 1], curve.dirty[after - 1 : after + 1]
    return float(d0 + (d1 - d0) * (seconds - t0) / (t1 - t0))
