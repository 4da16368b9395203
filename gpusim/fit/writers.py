"""The few writers that explain a profile best.

Non-negative least squares over a fine grid of writers shows how well any mixture can explain the
measurements. Among the mixtures that explain them about as well, the one with the fewest writers
wins. `posterior` samples the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from gpusim.fit.estimates import Candidate, Fit, FloatArray
from gpusim.fit.evidence import (
    FASTEST,
    SLOWEST,
    Evidence,
    Mixture,
    estimates_of,
    evidence_of,
    mixture_of,
)
from gpusim.fit.profile_warnings import profile_warnings
from gpusim.formats.profile import Profile

GRID_POINTS = 150  # per kind: neighbours differ by some per cent in rate, and are refined
MOST_WRITERS = 4
# How much a writer has to lower -2 log likelihood: 95 % of a chi-square of two, its size and rate.
WORTH = 6.0
REWEIGHTED = 5  # times: the weights depend on the fit
FULL = 1e6  # weight, in standard deviations per page, of "all pages that are not zero are written"
EXCHANGES = 10  # rounds at most, three or four in practice
# Relative standard deviations of a guest's speed to try. No guest is steadier than the first.
DRIFTS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4)


def fit_writers(profile: Profile) -> Fit:
    """Return the writers that fit a profile best, with warnings about the profile.

    Raises:
        ImportError: scipy is not installed.
    """
    evidence = evidence_of(profile)
    if not profile.measurements:  # an earlier migration whose guest wrote nothing
        return evidence.fit(mixture_of(()), DRIFTS[0])
    found = find_candidates(evidence)
    best = min(found, key=lambda one: one.cost)
    fit = evidence.fit(mixture_of(best.writers), best.drift)
    warnings = profile_warnings(profile, evidence, fit)
    return replace(fit, warnings=warnings, candidates=tuple(found))


def find_candidates(evidence: Evidence, drifts: Sequence[float] = DRIFTS) -> list[Candidate]:
    """Return the best writers of each number, with both kinds and with random writers alone.

    Least squares do not see that a sequential writer that has finished its pages has no drift. So
    random writers are also tried alone.
    """
    best: dict[tuple[int, int], Candidate] = {}
    for place, kinds in enumerate(((False,), (False, True))):
        grid = _Grid(evidence, kinds)
        for drift in drifts:
            for one in _best_of_each_number(evidence, grid, drift):
                key = place, len(one.writers)
                if key not in best or one.cost < best[key].cost:
                    best[key] = one
    return list(best.values())


def non_negative_sizes(
    shares: FloatArray,
    dirty: FloatArray,
    deviations: Callable[[FloatArray], FloatArray],
    most: float,
    reweighted: int = REWEIGHTED,
) -> FloatArray:
    """Return sizes of writers, none negative, that explain counts best in least squares.

    Args:
        shares: float64 [n, writers], the share of each writer's pages in each count.
        dirty: float64 [n], counts in pages.
        deviations: returns the standard deviations of expected counts, [n].
        most: the largest sum of the sizes, in pages.
        reweighted: how often to fit with the deviations of the last fit.

    Returns:
        float64 [writers], in pages.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        from scipy.optimize import nnls
    except ImportError as error:
        message = "scipy is missing, and fitting writers needs it: type pip install -e '.[predict]'"
        raise ImportError(message) from error
    expected, full = dirty, 0.0
    for _ in range(reweighted):
        weights = 1 / deviations(expected)
        sides = np.append(dirty * weights, full * most)
        columns = np.vstack([shares * weights[:, None], np.full(shares.shape[1], full)])
        solution, _ = nnls(columns, sides)
        if solution.sum() > most:  # then one more equation: all pages are written, and no more
            full = FULL
        expected = shares @ solution
    sizes: FloatArray = solution
    return sizes


class _Grid:
    """Writers of some kinds on a fine grid of rates, and the share that each measurement finds.

    Args:
        evidence: the measurements.
        kinds: whether writers are sequential, for each kind.
    """

    def __init__(self, evidence: Evidence, kinds: Sequence[bool]) -> None:
        shortest, longest = evidence.seconds.min(), evidence.seconds.max()
        fastest = [(1 if sequential else FASTEST) / shortest for sequential in kinds]
        self.rates = np.geomspace(SLOWEST / longest, fastest, GRID_POINTS).T.ravel()
        self.sequential = np.repeat(kinds, GRID_POINTS)
        self.shares = evidence.share_found(self.rates, self.sequential).T

    def writers(self, pages: FloatArray, places: Sequence[int]) -> Mixture:
        chosen = list(places)
        return Mixture(pages=pages, rates=self.rates[chosen], sequential=self.sequential[chosen])


def _best_of_each_number(evidence: Evidence, grid: _Grid, drift: float) -> Iterator[Candidate]:
    """Yield the best writers of each number, while one more may be worth it."""

    def deviations(dirty: FloatArray) -> FloatArray:
        variance = evidence.sampling_variance(dirty) + evidence.width**2 / 12
        variance = variance + (drift**2 + np.square(evidence.timing)) * dirty**2
        deviation: FloatArray = np.sqrt(variance)
        return deviation

    sizes = non_negative_sizes(grid.shares, evidence.middle, deviations, evidence.most)
    weights = 1 / deviations(grid.shares @ sizes)
    all_writers = grid.writers(sizes, range(len(sizes)))
    least_cost = -2 * float(evidence.log_likelihood(all_writers, drift))
    chosen: list[int] = []
    best_cost = np.inf
    for count in range(MOST_WRITERS + 1):
        if least_cost + WORTH * count > best_cost:
            break
        if count:
            chosen = _with_one_more(grid.shares, evidence.middle, weights, evidence.most, chosen)
        writers = _refined(evidence, grid, chosen, weights, drift)
        cost = -2 * float(evidence.log_likelihood(writers, drift)) + WORTH * count
        best_cost = min(best_cost, cost)
        yield Candidate(writers=estimates_of(writers), drift=drift, cost=cost)


def _with_one_more(
    shares: FloatArray, dirty: FloatArray, weights: FloatArray, most: float, chosen: Sequence[int]
) -> list[int]:
    """Add a writer of the grid, then exchange each in turn for the best beside the others."""
    columns, sides = shares * weights[:, None], dirty * weights
    chosen = [*chosen, _best_beside(columns, sides, most, chosen)]
    for _ in range(EXCHANGES if len(chosen) > 1 else 0):
        before = list(chosen)
        for place in range(len(chosen)):
            others = chosen[:place] + chosen[place + 1 :]
            chosen[place] = _best_beside(columns, sides, most, others)
        if chosen == before:
            break
    return chosen


def _best_beside(columns: FloatArray, sides: FloatArray, most: float, others: Sequence[int]) -> int:
    """Return the writer of the grid that gives the least squares beside the others."""
    fixed = np.broadcast_to(columns[:, list(others)], (columns.shape[1], len(sides), len(others)))
    tried = np.concatenate([fixed, columns.T[:, :, None]], axis=2)  # [grid, n, k]
    squares, sizes = _least_squares(tried, sides)
    over = sizes.sum(axis=1) > most
    if over.any():
        full = np.full((int(over.sum()), 1, tried.shape[2]), FULL)
        squares[over], sizes[over] = _least_squares(
            np.concatenate([tried[over], full], axis=1), np.append(sides, FULL * most)
        )
    squares[(sizes < 0).any(axis=1)] = np.inf
    squares[list(others)] = np.inf
    return int(np.argmin(squares))


def _least_squares(columns: FloatArray, sides: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Solve m small problems, [m, n, k] and [n]. Returns sums of squares [m] and sizes [m, k]."""
    transposed = columns.swapaxes(1, 2)
    normal = transposed @ columns
    ridge = 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(columns.shape[2])
    sizes = np.linalg.solve(normal + ridge, (transposed @ sides)[:, :, None])
    squares = np.sum(((columns @ sizes)[:, :, 0] - sides) ** 2, axis=1)
    return squares, sizes[:, :, 0]


def _refined(
    evidence: Evidence, grid: _Grid, chosen: Sequence[int], weights: FloatArray, drift: float
) -> Mixture:
    """Move writers off the grid, to where the measurements are most likely."""
    from scipy.optimize import minimize

    if not chosen:
        return grid.writers(np.empty(0), [])
    sizes = non_negative_sizes(
        grid.shares[:, list(chosen)], evidence.middle, lambda _: 1 / weights, evidence.most, 2
    )
    sizes = np.maximum(sizes, evidence.pages_per_sample / 100)  # their logarithms are needed
    writers = grid.writers(sizes * min(1, 0.999 * evidence.most / sizes.sum()), chosen)

    def writers_at(logs: FloatArray) -> Mixture:
        pages, rates = np.exp(np.clip(logs, -50, 50)).reshape(2, -1)
        return replace(writers, pages=pages, rates=rates)

    def cost(logs: FloatArray) -> float:
        tried = writers_at(logs)
        if (
            tried.pages.sum() > evidence.most
            or (tried.rates < slowest).any()
            or (tried.rates > fastest).any()
        ):
            return np.inf
        return -float(evidence.log_likelihood(tried, drift))

    slowest, fastest = grid.rates.min() * 0.999, grid.rates.max() * 1.001
    start = np.log(np.concatenate([writers.pages, writers.rates]))
    simplex = np.vstack([start, start - 0.05 * np.eye(len(start))])
    evaluated = 150 * len(chosen)
    options = {"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-2, "maxfev": evaluated}
    return writers_at(minimize(cost, start, method="Nelder-Mead", options=options).x)
