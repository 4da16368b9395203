"""Do the shares of a pattern add up to 1 and follow its law?"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusim.guest.pattern import EXACT_RANKS, Random, Sequential, hot_cold, uniform, zipf
from tests.guest.naive import SLOW_MACHINE

SUM_ERROR = 1e-12  # rounding of sums
MIDPOINT_ERROR = 1e-10  # error of the integral for ranks above 65536


def assert_partition(pattern: Random, pages: int) -> None:
    """Check that bands cover all pages in order, and that their shares add up to 1."""
    borders = [(band.first, band.last) for band in pattern.bands]
    assert borders[0][0] == 0
    assert borders[-1][1] == pages
    assert all(low < high for low, high in borders)
    assert all(a[1] == b[0] for a, b in pairwise(borders))
    assert math.fsum(band.share for band in pattern.bands) == pytest.approx(1, rel=SUM_ERROR)


@given(st.integers(1, 10**10), st.floats(0, 10))
@SLOW_MACHINE
def test_zipf_is_a_partition(pages: int, exponent: float) -> None:
    assert_partition(zipf(pages, exponent), pages)


@pytest.mark.parametrize("exponent", [0, 0.5, 0.99, 1, 1 + 1e-9, 1 - 1e-13, 1.2, 2, 10])
@pytest.mark.parametrize("pages", [1, 2, 3, 7, 8, 1000, EXACT_RANKS, EXACT_RANKS + 1, 300_000])
def test_zipf_bands_weigh_as_much_as_their_ranks(pages: int, exponent: float) -> None:
    weights = np.arange(1, pages + 1, dtype=np.float64) ** -exponent
    total = math.fsum(weights)
    for band in zipf(pages, exponent).bands:
        expected = math.fsum(weights[band.first : band.last]) / total
        assert band.share == pytest.approx(expected, rel=MIDPOINT_ERROR)


def test_zipf_bands_double() -> None:
    borders = [(band.first, band.last) for band in zipf(20, 1).bands]
    assert borders == [(0, 1), (1, 3), (3, 7), (7, 15), (15, 20)]


def test_zipf_of_exponent_zero_is_uniform() -> None:
    for band in zipf(100_000, 0).bands:
        assert band.share == pytest.approx((band.last - band.first) / 100_000, rel=SUM_ERROR)


@given(st.integers(2, 10**9), st.data())
@SLOW_MACHINE
def test_hot_cold_shares(pages: int, data: st.DataObject) -> None:
    hot, share = data.draw(st.integers(1, pages - 1)), data.draw(st.floats(0, 1))
    pattern = hot_cold(pages, hot, share)
    assert_partition(pattern, pages)
    assert (pattern.bands[0].last, pattern.bands[0].share) == (hot, share)


def test_uniform_is_one_band() -> None:
    assert_partition(uniform(77), 77)
    assert len(uniform(77).bands) == 1


@given(st.integers(1, 2000), st.data())
@SLOW_MACHINE
def test_sequential_shares_cover_and_do_not_overlap(pages: int, data: st.DataObject) -> None:
    threads = data.draw(st.integers(1, min(pages, 64)))
    pattern = Sequential(pages, threads, 0)
    shares = [pattern.share(thread) for thread in range(threads)]
    assert [page for low, high in shares for page in range(low, high)] == list(range(pages))
    sizes = [high - low for low, high in shares]
    assert max(sizes) - min(sizes) <= 1
