"""Does a draw of a cell have the law of independent Poisson writers?

Every page of a cell is written with probability 1 - exp(-mean), independently of all other pages
and draws. Each claim is a z-test over many fixed seeds, so no result varies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from gpusim.layout import CHUNK_PAGES, IntArray, Writes
from gpusim.pages.draw import cells_of
from gpusim.pages.numpy_kernels import NumpyKernels
from gpusim.pages.primitives import Op, Step
from tests.pages.naive import Bits

Z = 5.0  # standard deviations
SEEDS = 30
MEANS = (0.001, 1 / 64, 0.031, 0.0313, 0.05, 0.36, 0.69, 0.70, 1.0, 5.0, 12.0, 30.0)
PARTITIONS = (1, 2, 300)  # number of cells that share the pages
LAGS = (1, 2, 63, 64, 65, 128, 4096)  # pages
EMPTY = np.zeros(0, np.int64)


def draw_pages(mean: float, borders: IntArray, seed: int, draw: int, step: int) -> Bits:
    """Return the pages that a draw marks in one chunk. All cells have the same mean."""
    writes = Writes(
        first=borders[:-1],
        last=borders[1:],
        mean=np.full(len(borders) - 1, mean),
        certain_first=EMPTY,
        certain_last=EMPTY,
    )
    kernels = NumpyKernels(1, log=False, zero=False, threads=1)
    cells = cells_of(writes, seed, draw, step)
    kernels.paint([Step(Op.MERGE, cells, np.zeros(1, np.int64))])
    return np.unpackbits(kernels.dirty.view(np.uint8), bitorder="little").view(np.bool_)


def random_borders(cells: int, seed: int) -> IntArray:
    random = np.random.Generator(np.random.Philox(seed))
    return np.sort(random.choice(CHUNK_PAGES + 1, cells + 1, replace=False)).astype(np.int64)


def z_of_squares(hits: NDArray[np.int64], trials: NDArray[np.int64] | int, p: float) -> float:
    """Return the z value of the chi-square of independent binomial hits."""
    variance = np.asarray(trials) * p * (1 - p)
    squares = (hits - np.asarray(trials) * p) ** 2 / variance
    spread = 2 + (1 - 6 * p * (1 - p)) / np.broadcast_to(variance, squares.shape)
    return float((squares - 1).sum() / np.sqrt(spread.sum()))


@dataclass
class Observed:
    """Counts over all seeds of one mean and one partition."""

    p: float
    size: list[int] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    page_trials: NDArray[np.int64] = field(default_factory=lambda: np.zeros(CHUNK_PAGES, np.int64))
    page_hits: NDArray[np.int64] = field(default_factory=lambda: np.zeros(CHUNK_PAGES, np.int64))
    edge_trials: int = 0
    edge_hits: int = 0
    pairs: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def pair(self, name: str, x: Bits, y: Bits) -> None:
        """Count how often both are marked."""
        both, n = np.count_nonzero(x & y), len(x)
        ones = np.count_nonzero(x) + np.count_nonzero(y)
        self.pairs.setdefault(name, []).append((n, both - self.p * ones + n * self.p**2))

    def z_of_pairs(self, name: str) -> float:
        """Return the z value of the covariance of both."""
        n, covariance = np.array(self.pairs[name]).sum(axis=0)
        return float(covariance / (np.sqrt(n) * self.p * (1 - self.p)))


@cache
def observed(mean: float, cells: int) -> Observed:
    p = -np.expm1(-mean)
    seen = Observed(p)
    before = None
    for seed in range(SEEDS):
        borders = random_borders(cells, seed)
        low, high = borders[0], borders[-1]
        marks = draw_pages(mean, borders, seed, 3, 0)
        assert not marks[:low].any()
        assert not marks[high:].any()
        inside = marks[low:high]
        seen.size.append(len(inside))
        seen.count.append(np.count_nonzero(inside))
        seen.page_trials[low:high] += 1
        seen.page_hits += marks
        edges = np.concatenate([borders[:-1], borders[1:] - 1])
        seen.edge_trials += len(edges)
        seen.edge_hits += np.count_nonzero(marks[edges])
        for lag in LAGS:
            if lag < len(inside):
                seen.pair(f"lag {lag}", inside[lag:], inside[:-lag])
        if cells != 1 or seed % 2:
            continue
        seen.pair("step", inside, draw_pages(mean, borders, seed, 3, 1)[low:high])
        seen.pair("draw", inside, draw_pages(mean, borders, seed, 4, 0)[low:high])
        seen.pair("seed", inside, draw_pages(mean, borders, seed + 1, 3, 0)[low:high])
        if before is not None:
            a, b = max(low, before[0]), min(high, before[1])
            if a < b:
                seen.pair("far seed", marks[a:b], before[2][a:b])
        before = (low, high, marks)
    return seen


law = pytest.mark.parametrize(
    ("mean", "cells"), [(mean, cells) for mean in MEANS for cells in PARTITIONS]
)


@law
def test_number_of_pages(mean: float, cells: int) -> None:
    """Distinct pages are N (1 - exp(-mean)) for every partition of the N pages into cells."""
    seen = observed(mean, cells)
    pages = sum(seen.size)
    z = (sum(seen.count) - pages * seen.p) / np.sqrt(pages * seen.p * np.exp(-mean))
    assert abs(z) < Z


@law
def test_number_of_pages_varies_as_of_independent_pages(mean: float, cells: int) -> None:
    seen = observed(mean, cells)
    if mean < 30:  # about 1e-6 misses are expected in total, and the test above allows none
        assert abs(z_of_squares(np.array(seen.count), np.array(seen.size), seen.p)) < Z


@law
@pytest.mark.parametrize("group", ["bit of a word", "word of 64", "word"])
def test_every_place_is_equally_likely(mean: float, cells: int, group: str) -> None:
    seen = observed(mean, cells)
    if mean == 30:
        return  # no page is missed
    axis = {"bit of a word": 0, "word of 64": (0, 2), "word": (1, 2)}[group]
    shape = (4096, 64) if group == "bit of a word" else (64, 64, 64)
    trials = seen.page_trials.reshape(shape).sum(axis=axis)
    hits = seen.page_hits.reshape(shape).sum(axis=axis)
    assert abs(z_of_squares(hits[trials > 0], trials[trials > 0], seen.p)) < Z


@pytest.mark.parametrize("mean", MEANS)
def test_first_and_last_page_of_a_cell(mean: float) -> None:
    seen = observed(mean, 300)
    deviation = np.sqrt(seen.edge_trials * seen.p * np.exp(-mean))
    assert abs(seen.edge_hits - seen.edge_trials * seen.p) < Z * max(deviation, 0.2)


@law
@pytest.mark.parametrize("lag", LAGS)
def test_neighbours_are_independent(mean: float, cells: int, lag: int) -> None:
    if mean < 12:  # with larger means, pairs of missed pages are too rare to count
        assert abs(observed(mean, cells).z_of_pairs(f"lag {lag}")) < Z


@pytest.mark.parametrize("mean", [mean for mean in MEANS if mean < 12])
@pytest.mark.parametrize("other", ["step", "draw", "seed", "far seed"])
def test_draws_are_independent(mean: float, other: str) -> None:
    """The steps of a draw, consecutive draws and consecutive seeds are independent."""
    assert abs(observed(mean, 1).z_of_pairs(other)) < Z


@pytest.mark.parametrize("mean", [0.02, 0.3, 2.0])
def test_writers_on_the_same_pages_add_up(mean: float) -> None:
    """Two merged draws of half the mean have the law of one draw, as Poisson processes do."""
    pages = marked = 0
    for seed in range(SEEDS):
        borders = random_borders(1, 1000 + seed)
        both = draw_pages(mean / 2, borders, seed, 1, 0) | draw_pages(mean / 2, borders, seed, 2, 0)
        pages += int(borders[1] - borders[0])
        marked += np.count_nonzero(both)
    p = -np.expm1(-mean)
    assert abs(marked - pages * p) < Z * np.sqrt(pages * p * (1 - p))
