"""The guest that fits a profile: few writers whose distinct pages after t are those measured.

Non-negative least squares over a dictionary of writers on fine grids says how well any mixture can do;
of those that do about as well, the one of fewest writers is taken. `resampled` (redraw.py) tells of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gpusim.fit.doubts import doubts
from gpusim.fit.estimates import Fit, FloatArray, WriterEstimate, distinct_pages
from gpusim.fit.evidence import FASTEST, SLOWEST, Evidence, Mixture, evidence
from gpusim.fit.redraw import resampled
from gpusim.formats.profile import Profile

__all__ = ["Fit", "WriterEstimate", "distinct_pages", "fitted", "non_negative", "resampled"]

GRID_POINTS = 150  # of each kind; neighbours differ by some per cent in rate, and are refined
MOST_WRITERS = 4
# What a writer has to better -2 log likelihood by: 95 % of a chi-square of two, its size and its rate.
WORTH = 6.0
REWEIGHTED = 5  # times: the weights are those of the fit itself
FULL = 1e6  # weight, in standard deviations a page, of "all pages that are not zero are written"
EXCHANGES = 10  # rounds at most; three or four in practice
# Relative standard deviations of a guest's speed that are tried; none is taken to be steadier than the first.
DRIFTS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4)


def fitted(profile: Profile) -> Fit:
    """The writers that fit a profile best.

    Raises:
        ImportError: scipy is not installed.
    """
    seen = evidence(profile)
    # Least squares know no kinks: a sequential writer that is through has no drift. So random ones get a chance.
    grids = [_Grid(seen, kinds) for kinds in ((False,), (False, True))]
    tried = [(*_fewest(seen, grid, drift), drift) for drift in DRIFTS for grid in grids]
    _, writers, drift = min(tried, key=lambda one: one[0])
    fit = seen.fit(writers, drift)
    return replace(fit, doubts=doubts(profile, seen, fit))


def non_negative(
    reached: FloatArray,
    dirty: FloatArray,
    deviations: Callable[[FloatArray], FloatArray],
    most: float,
    reweighted: int = REWEIGHTED,
) -> FloatArray:
    """Sizes of writers, none negative, that explain counts best in least squares.

    Args:
        reached: [n, writers] share of each writer's pages that a count holds.
        dirty: [n] counts.
        deviations: of counts that are expected.
        most: what the sizes may add up to.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        from scipy.optimize import nnls
    except ImportError as error:
        message = "fitting writers needs scipy; pip install 'gpusim[predict]'"
        raise ImportError(message) from error
    expected, full = dirty, 0.0
    for _ in range(reweighted):
        weights = 1 / deviations(expected)
        sides = np.append(dirty * weights, full * most)
        columns = np.vstack([reached * weights[:, None], np.full(reached.shape[1], full)])
        sizes, _ = nnls(columns, sides)
        if sizes.sum() > most:  # then all are written, and no more: one more equation
            full = FULL
        expected = reached @ sizes
    found: FloatArray = sizes
    return found


class _Grid:
    """Writers of some kinds on a fine grid of rates, and what the measurements find of each.

    Args:
        kinds: of them, whether they are sequential.
    """

    def __init__(self, seen: Evidence, kinds: Sequence[bool]) -> None:
        shortest, longest = seen.seconds.min(), seen.seconds.max()
        fastest = [(1 if sequential else FASTEST) / shortest for sequential in kinds]
        self.rates = np.geomspace(SLOWEST / longest, fastest, GRID_POINTS).T.ravel()
        self.sequential = np.repeat(kinds, GRID_POINTS)
        self.reached = seen.reached(self.rates, self.sequential).T

    def writers(self, pages: FloatArray, places: Sequence[int]) -> Mixture:
        """Some of them, of these sizes."""
        chosen = list(places)
        return Mixture(pages=pages, rates=self.rates[chosen], sequential=self.sequential[chosen])


def _fewest(seen: Evidence, grid: _Grid, drift: float) -> tuple[float, Mixture]:
    """The writers of which each is worth it, and their cost: -2 log likelihood and what each has to better."""

    def deviations(dirty: FloatArray) -> FloatArray:
        variance = seen.sampling_variance(dirty) + seen.width**2 / 12 + (drift * dirty) ** 2
        found: FloatArray = np.sqrt(variance)
        return found

    sizes = non_negative(grid.reached, seen.middle, deviations, seen.most)
    weights = 1 / deviations(grid.reached @ sizes)
    any_mixture = -2 * float(seen.log_likelihood(grid.writers(sizes, range(len(sizes))), drift))
    chosen: list[int] = []
    best: tuple[float, Mixture] = (np.inf, grid.writers(np.empty(0), []))
    for count in range(MOST_WRITERS + 1):
        if any_mixture + WORTH * count > best[0]:
            break
        if count:
            chosen = _exchanged(grid.reached, seen.middle, weights, seen.most, chosen)
        writers = _refined(seen, grid, chosen, weights, drift)
        cost = -2 * float(seen.log_likelihood(writers, drift)) + WORTH * count
        if cost < best[0]:
            best = cost, writers
    return best


def _exchanged(
    reached: FloatArray, dirty: FloatArray, weights: FloatArray, most: float, chosen: Sequence[int]
) -> list[int]:
    """One writer of the grid more, and then each in turn exchanged for the best beside the others."""
    columns, sides = reached * weights[:, None], dirty * weights
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
    """The writer of the grid with which, beside others, the least squares are least."""
    held = np.broadcast_to(columns[:, list(others)], (columns.shape[1], len(sides), len(others)))
    tried = np.concatenate([held, columns.T[:, :, None]], axis=2)  # [grid, n, k]
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
    """Sums of squares and sizes of many small problems: [m, n, k], [n]."""
    transposed = columns.swapaxes(1, 2)
    normal = transposed @ columns
    ridge = 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(columns.shape[2])
    sizes = np.linalg.solve(normal + ridge, (transposed @ sides)[:, :, None])
    squares = np.sum(((columns @ sizes)[:, :, 0] - sides) ** 2, axis=1)
    return squares, sizes[:, :, 0]


def _refined(
    seen: Evidence, grid: _Grid, chosen: Sequence[int], weights: FloatArray, drift: float
) -> Mixture:
    """Writers of the grid, moved off it to where the measurements are most likely."""
    from scipy.optimize import minimize

    if not chosen:
        return grid.writers(np.empty(0), [])
    sizes = non_negative(
        grid.reached[:, list(chosen)], seen.middle, lambda _: 1 / weights, seen.most, 2
    )
    sizes = np.maximum(sizes, seen.least / 100)  # a logarithm is taken
    writers = grid.writers(sizes * min(1, 0.999 * seen.most / sizes.sum()), chosen)

    def moved(logs: FloatArray) -> Mixture:
        pages, rates = np.exp(np.clip(logs, -50, 50)).reshape(2, -1)
        return replace(writers, pages=pages, rates=rates)

    def cost(logs: FloatArray) -> float:
        tried = moved(logs)
        if (
            tried.pages.sum() > seen.most
            or (tried.rates < slowest).any()
            or (tried.rates > fastest).any()
        ):
            return np.inf
        return -float(seen.log_likelihood(tried, drift))

    slowest, fastest = grid.rates.min() * 0.999, grid.rates.max() * 1.001
    start = np.log(np.concatenate([writers.pages, writers.rates]))
    simplex = np.vstack([start, start - 0.05 * np.eye(len(start))])
    evaluated = 150 * len(chosen)
    options = {"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-2, "maxfev": evaluated}
    return moved(minimize(cost, start, method="Nelder-Mead", options=options).x)
