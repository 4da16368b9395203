"""Do members of an earlier migration's profile have its throttle, its end of the load and its memory?"""

from __future__ import annotations

import math
from typing import Any

import pytest

from gpusim.config.scenario import resolve
from gpusim.config.schema import Config, MixConfig
from gpusim.fit.estimates import WriterEstimate
from gpusim.formats.migration_history import SyncHistory, SyncPeriod
from gpusim.formats.profile import Measurement, Profile
from gpusim.predict import host_costs, prediction_text
from gpusim.predict.document import document
from gpusim.predict.ensemble import LOAD_END, RUN_TO_RUN, draw_guests, member_config, predict
from gpusim.predict.host_config import host_config
from gpusim.predict.strata import Strata
from tests.predict import predictions

pytest.importorskip("scipy")

MIB = 2**20
PAGES, RATE = 10_000, 0.5  # and writes per second to each page
SPANS_S = (20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 2.0, 1.0, 0.5)
THROTTLED_FROM, RUNNING = 5, 0.4
FIT = predictions.fit((WriterEstimate(kind="random", pages=PAGES, page_writes_per_s=PAGES * RATE),))


def periods(busy: float | None) -> tuple[SyncPeriod, ...]:
    """Return eager syncs of a guest that needs `busy` of its vCPUs' time, throttled near the end.

    None: there is no throttle.
    """
    found = []
    for place, seconds in enumerate(SPANS_S):
        running = RUNNING if busy and place >= THROTTLED_FROM else 1.0
        share = -math.expm1(-RATE * seconds * min(1.0, running / (busy or 1.0)))
        pages = round(PAGES * share)
        found.append(SyncPeriod(seconds=seconds, pages=pages, left=0.0, running=running))
    return tuple(found)


def profile(busy: float | None = None, **more: Any) -> Profile:
    history = SyncHistory(periods=periods(busy))
    measurements = tuple(
        Measurement(seconds=one.seconds, dirty_rate=one.pages / 256 / one.seconds)
        for one in history.periods
    )
    known: dict[str, Any] = {
        "source": "a test", "memory_bytes": 256 * MIB, "vcpus": 2, "measurements": measurements,
        "history": history, "zero_sampled": 65_536, "zero_found": 32_768,
        "capabilities": (), "parameters": {"max-bandwidth": 16 * MIB},
    }  # fmt: skip
    return Profile(**(known | more))


@pytest.mark.slow
@pytest.mark.parametrize(("busy", "low", "high"), [(1.0, 0.85, 1.0), (0.3, 0.25, 0.4)])
def test_a_throttle_shows_the_utilisation(busy: float, low: float, high: float) -> None:
    _, guests = draw_guests(profile(busy), 8, 1)
    found = {own.utilisation[0] for own, _ in guests}
    assert low <= min(found) <= max(found) <= high


def members(found: Profile, count: int = 1) -> list[Config]:
    host = host_config(found, ["link=unlimited"])
    return [
        member_config(found, host, FIT, Strata(seed=1, place=n, count=count), n)
        for n in range(count)
    ]


def test_writers_lie_all_over_the_memory_if_the_log_is_cleared_in_chunks() -> None:
    history = SyncHistory(periods=periods(None), chunks=8)
    (config,) = members(profile(history=history))
    assert isinstance(config.workload, MixConfig)
    assert len(config.workload.writers) % 8 == 0
    assert len(resolve(config).writers) == len(config.workload.writers)


def test_the_pages_that_are_not_zero_vary_between_migrations() -> None:
    bytes_zero = {sum(b - a for a, b in one.vm.zero_ranges) for one in members(profile(), 9)}
    shares = [1 - one / 2**28 for one in bytes_zero]
    assert len(shares) == 9
    assert all(0.5 * (1 - 4 * RUN_TO_RUN) < share < 0.5 * (1 + 4 * RUN_TO_RUN) for share in shares)


@pytest.mark.parametrize(
    ("speed", "expected"),
    [(None, host_costs.ZERO_PAGE_SCAN), ((11e9, math.inf), (11e9, 27e9)), ((1e9, 1.2e9),) * 2,
     ((40e9, math.inf), (40e9, 40e9))],
)  # fmt: skip
def test_zero_pages_are_found_as_fast_as_in_the_earlier_migration(
    speed: tuple[float, float] | None, expected: tuple[float, float]
) -> None:
    costs = host_config(profile(zero_page_speed=speed)).costs
    found = costs["zero_page_scan"]
    assert (found.low, found.high) == expected
    codes = {one.code for one in host_costs.assumptions(costs)}
    assert ("zero_page_scan_measured" in codes) == (speed is not None)
    assert ("zero_page_scan_drawn" in codes) == (speed is None)


@pytest.mark.slow
def test_a_migration_that_hovers_ends_with_the_load() -> None:
    """The guest writes 10,000 pages within seconds. Each pass finds too many for 300 ms."""
    found = profile(load_ended_s=60.0)
    host = host_config(found, ["link=unlimited"])
    prediction = predict(found, host, members=3, workers=1)
    assert prediction.ends_with_load
    for one in prediction.members:
        assert 60 * (1 - LOAD_END) <= one.load_ends_s <= 60 * (1 + LOAD_END)
        assert one.load_ends_s < one.summary.total_time_s < one.load_ends_s + 10
        assert resolve(one.config_under_load).writers[0].windows is None
    assert prediction_text.HOVERS in prediction_text.answer(prediction)
    assert document(prediction)["ends_with_load"]
    assert any(one.code == "load_ends" for one in prediction.assumptions)
    fast = predict(found, host_config(found, ["migration.max_bandwidth=0"]), members=2, workers=1)
    assert fast.converges and not fast.ends_with_load


def test_a_load_that_does_not_end_has_no_end() -> None:
    found = predictions.prediction()
    assert not found.ends_with_load
    assert found.median_member.config_under_load == found.median_member.config
    assert prediction_text.HOVERS not in prediction_text.answer(found)
