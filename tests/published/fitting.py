"""Fits the numbers that gpusim/published/data gives as fitted: pools of pages, and single values.

QEMU's calc-dirty-rate samples pages and counts how many of them changed after some times. If a
guest has pools of pages, and writes each pool evenly at random, it dirties sum of W (1 - exp(-r t))
pages in t seconds. Here W is the size of a pool and r the writes per second to each of its pages.
`fit_pools` finds such pools for a curve. `predict_total_s` is the recursion that was published with
a curve. `fit_value` simulates a row with all candidates for a value that is not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from gpusim.config.schema import MixConfig
from gpusim.explore.workers import map_with_bar
from gpusim.fit.evidence import FASTEST, SLOWEST
from gpusim.fit.writers import non_negative_sizes
from gpusim.published.outcomes import configs, simulate_row
from gpusim.published.tables import FittedValue, Table

FloatArray = NDArray[np.float64]

GRID_POINTS = 400  # neighbours differ by 3 % in rate, which a sampled curve cannot resolve
REWEIGHTED = 20  # times. The weights come from the fit itself, and settle after a few.
WITHIN = 0.05  # share of a row's value that `holds` allows. No table resolves less.


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Distinct dirtied pages of a sample.

    Attributes:
        pages: of the VM.
        sampled: pages in the sample. It may be all pages of the VM.
        zero: sampled pages that are zero and stay zero.
        seconds: [n] float64, rising.
        dirty: [n] float64, sampled pages that were dirtied by each time.
    """

    pages: int
    sampled: int
    zero: int
    seconds: FloatArray
    dirty: FloatArray

    @property
    def pages_a_sample(self) -> float:
        """Return how many pages of the VM one sampled page stands for."""
        return self.pages / self.sampled


def read_curve(table: Table) -> Curve:
    """Return the curve of a table as arrays."""
    assert table.curve is not None
    return Curve(
        pages=table.curve.pages,
        sampled=table.curve.sampled,
        zero=table.curve.zero,
        seconds=np.array(table.curve.milliseconds) / 1000,
        dirty=np.array(table.curve.dirty),
    )


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Pages that the guest writes at random, all with equal probability.

    Attributes:
        pages: size of the pool.
        rate_per_s: writes per second to each of its pages.
    """

    pages: float
    rate_per_s: float

    @property
    def page_writes_per_s(self) -> float:
        """Return the page writes per second of the whole pool."""
        return self.pages * self.rate_per_s


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The pools of a curve, and their distance from it.

    If the pages of a pool are written less than once in the longest time, only its number of
    dirtied pages is known well, not its size.

    Attributes:
        pools: hottest first.
        residuals: [n] measured minus fitted, in standard deviations of the sampling. If all times
            use one sample, the residuals are correlated, and their squares add up to less than n.
    """

    pools: tuple[Pool, ...]
    residuals: FloatArray

    @property
    def chi_square(self) -> float:
        """Return the sum of the squared residuals."""
        return float(np.sum(self.residuals**2))


def distinct_pages(pools: Sequence[Pool], seconds: FloatArray) -> FloatArray:
    """Return the distinct pages that pools dirty in times from 0 on, [n]."""
    found = np.zeros_like(seconds, dtype=np.float64)
    for pool in pools:
        found += pool.pages * -np.expm1(-pool.rate_per_s * seconds)
    return found


def fit_pools(curve: Curve) -> Fit:
    """Fit pools to a curve by least squares, weighted with its sampling error.

    Non-negative least squares gives a pool size for each rate of a fine grid. Most sizes are 0.
    Neighbours on the grid form one pool. The count of a sample is binomial.

    Raises:
        ImportError: scipy is not installed.
    """
    seconds, dirty = curve.seconds, curve.dirty
    rates = np.geomspace(SLOWEST / seconds[-1], FASTEST / seconds[0], GRID_POINTS)
    reached = -np.expm1(-np.outer(seconds, rates))  # dirty share of a pool, [n, rates]
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
    """Return the standard deviations of counts in a sample, at least half a page."""
    share = dirty / curve.sampled
    left = (curve.pages - curve.sampled) / max(curve.pages - 1, 1)
    variance = curve.sampled * share * (1 - share) * left
    return np.maximum(np.sqrt(np.maximum(variance, 0)), 0.5)


def _merged(rates: FloatArray, pages: FloatArray) -> tuple[Pool, ...]:
    """Return one pool for each run of non-empty neighbours, with their total size and writes."""
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


def build_workload(pools: Sequence[Pool], page_bytes: int = 4096) -> MixConfig:
    """Return pools as the writers of a guest, placed from page 0 on in their order."""
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


def predict_total_s(
    curve: Curve, bandwidth: float, downtime_s: float, page_bytes: int = 4096, header_bytes: int = 8
) -> float | None:
    """Return the total time by Gudkov's recursion, or None if it does not converge.

    A pass sends the pages that were dirtied during the pass before. Their number comes from the
    curve: linear between its points, extrapolated at both ends, and at most all pages that are not
    zero. The last pass is the first one that takes at most the downtime. Zero pages are sent once,
    as headers.

    Args:
        curve: the measured curve.
        bandwidth: of the link, bytes per second.
        downtime_s: the downtime limit, seconds.
        page_bytes: size of a page.
        header_bytes: sent per page in addition.

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
        if left >= before:  # the curve never falls, so the rest of the passes never falls again
            return None


def _extrapolated(curve: Curve, seconds: float) -> float:
    """Return the sampled dirty pages after a time, on the line through the two nearest points."""
    after = int(np.clip(np.searchsorted(curve.seconds, seconds), 1, len(curve.seconds) - 1))
    (t0, t1), (d0, d1) = curve.seconds[after - 1 : after + 1], curve.dirty[after - 1 : after + 1]
    return float(d0 + (d1 - d0) * (seconds - t0) / (t1 - t0))


def fit_value(table: Table, value: FittedValue, most_seeds: int) -> tuple[float, list[float]]:
    """Return the best candidate for a row, and the lowest and highest candidates that hold the row.

    A candidate is skipped if a run of the row does not converge with it. A candidate holds the row
    if its mean lies within 5 % of the row, or within the row's repeats if these differ by more.
    """
    row = table.row(value.row)
    row = replace(row, seeds=min(row.seeds, most_seeds))
    candidates = np.arange(value.low, value.high + value.step / 2, value.step)
    published = getattr(row, value.quantity)
    target = mean(published)
    low = min(*published, target * (1 - WITHIN))
    high = max(*published, target * (1 + WITHIN))
    tried = [
        replace(row, run=f"{row.run} {value.key}={candidate:.10g}") for candidate in candidates
    ]
    runs = map_with_bar(simulate_row, [config for one in tried for config in configs(one)])
    misses, holding = {}, []
    for candidate in map(float, candidates):
        own = [next(runs) for _ in range(row.seeds * max(len(row.first_writes), 1))]
        found = [getattr(one, value.quantity) for one in own]
        if not all(one.converged for one in own):
            continue
        misses[candidate] = abs(mean(found) - target)
        if low <= mean(found) <= high:
            holding.append(candidate)
    best = min(misses, key=lambda candidate: misses[candidate])
    return best, [holding[0], holding[-1]] if holding else []
