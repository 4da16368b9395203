"""Is the published recursion right, and do fitted pools describe the sampled guest?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpusim.config.compose import composed_config
from gpusim.published import tables
from gpusim.published.tables import Row
from tests.published.fitting import (
    Curve,
    Pool,
    build_workload,
    distinct_pages,
    fit_pools,
    predict_total_s,
    read_curve,
)

GUDKOV = tables.load("gudkov")
CURVE = read_curve(GUDKOV)
PAGES = 2**23
TRUE = (Pool(pages=1e5, rate_per_s=2.0), Pool(pages=2e6, rate_per_s=0.02))
SECONDS = np.geomspace(0.125, 60, 22)


def sampled(pools: tuple[Pool, ...], sample: int, seed: int | None = None) -> Curve:
    """Return a curve of known pools. With a seed each point is drawn, otherwise it is expected."""
    share = distinct_pages(pools, SECONDS) / PAGES
    dirty = share * sample
    if seed is not None:
        dirty = np.maximum.accumulate(
            np.random.default_rng(seed).binomial(sample, share).astype(float)
        )
    return Curve(pages=PAGES, sampled=sample, zero=sample // 4, seconds=SECONDS, dirty=dirty)


@pytest.mark.parametrize("row", GUDKOV.rows, ids=lambda row: row.name)
def test_recursion_gives_the_published_cell(row: Row) -> None:
    """The table prints whole seconds, rounded up, and all of them agree."""
    keys = dict(override.split("=") for override in row.overrides)
    unlimited = row.cell[1] == "unlimited"
    total_s = predict_total_s(
        CURVE,
        float(keys["link.bandwidth"]),
        math.inf if unlimited else float(keys["migration.downtime_limit"]) / 1000,
    )
    assert ([] if total_s is None else [math.ceil(total_s)]) == row.total_s


def test_pools_fit_the_published_curve_within_its_sampling_error() -> None:
    fit = fit_pools(CURVE)
    assert len(fit.pools) == 3
    assert np.abs(fit.residuals).max() < 2  # of 22
    assert fit.chi_square < len(CURVE.seconds)
    not_zero = CURVE.pages * (1 - CURVE.zero / CURVE.sampled)
    assert sum(pool.pages for pool in fit.pools) < not_zero


def test_preset_holds_the_fitted_pools() -> None:
    config = composed_config(["experiment=gudkov_10g"])
    assert config.workload.writers == build_workload(fit_pools(CURVE).pools).writers
    assert config.vm.memory == CURVE.pages * 4096


def test_pools_are_found_again() -> None:
    """Without a draw the rates agree within half a step of their grid."""
    fit = fit_pools(sampled(TRUE, PAGES // 512))
    assert np.abs(fit.residuals).max() < 0.1
    for found, true in zip(fit.pools, TRUE, strict=True):
        assert found.pages == pytest.approx(true.pages, rel=0.03)
        assert found.rate_per_s == pytest.approx(true.rate_per_s, rel=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_a_drawn_curve_is_fitted_within_its_error_and_tells_the_truth(seed: int) -> None:
    """Between the points the pools are right within three times the error of a point."""
    fit = fit_pools(sampled(TRUE, 2**14, seed))
    assert fit.chi_square < 2 * len(SECONDS)
    between = np.geomspace(1, 30, 7)
    ours, true = distinct_pages(fit.pools, between), distinct_pages(TRUE, between)
    share = true / PAGES
    deviation = PAGES * np.sqrt(share * (1 - share) / 2**14)
    assert (np.abs(ours - true) < 3 * deviation).all()


def test_no_more_pages_are_written_than_are_not_zero() -> None:
    """A pool of any size fits a straight line."""
    line = np.linspace(100, 1000, 10)
    curve = Curve(pages=8000, sampled=2000, zero=950, seconds=line / 100, dirty=line)
    assert sum(pool.pages for pool in fit_pools(curve).pools) <= 4 * 1050 * 1.001


def test_a_guest_that_writes_nothing_has_no_pools() -> None:
    still = Curve(pages=100, sampled=100, zero=0, seconds=SECONDS, dirty=np.zeros(22))
    fit = fit_pools(still)
    assert fit.pools == ()
    assert fit.chi_square == 0


def test_pools_become_writers_one_behind_the_other() -> None:
    writers = build_workload(TRUE).writers
    assert writers["pool_1"]["page_writes_per_s"] == 2e5
    assert writers["pool_2"]["start"] == writers["pool_1"]["working_set"] == 1e5 * 4096
