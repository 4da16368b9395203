"""Does the rate of dirty pages tell when a period ended?"""

from __future__ import annotations

import pytest

from gpusim.formats.period_ends import PeriodEnd, middle_s, narrow, place_between

START = PeriodEnd(earliest_s=0.0, latest_s=0.0, fewest_pages=0, most_pages=0)


def end(earliest_s: float, latest_s: float, fewest: int, most: int, rate: int) -> PeriodEnd:
    return PeriodEnd(
        earliest_s=earliest_s,
        latest_s=latest_s,
        fewest_pages=fewest,
        most_pages=most,
        dirty_pages_rate=rate,
    )


def test_a_period_lasts_as_long_as_its_pages_at_its_rate() -> None:
    found = narrow([START, end(14.66, 14.87, 70186, 70186, 4741)])
    assert middle_s(found[1]) == pytest.approx(70186 / 4741.5, abs=0.002)


def test_a_later_period_tells_about_an_earlier_one() -> None:
    """The first period has an unknown share of the pages, the second and third have all."""
    first = end(1.5, 2.5, 1000, 30000, 10_000)
    second = end(4.0, 4.2, 50_000, 50_000, 10_000)
    third = end(6.15, 6.25, 70_000, 70_000, 10_000)
    found = narrow([START, first, second, third])
    assert found[1].latest_s < first.latest_s
    assert found[2].earliest_s > second.earliest_s
    for before, after in zip((first, second, third), found[1:], strict=True):
        assert before.earliest_s <= after.earliest_s <= after.latest_s <= before.latest_s


def test_an_impossible_length_tells_nothing() -> None:
    wrong = end(14.66, 14.87, 70186, 70186, 9000)
    assert narrow([START, wrong]) == [START, wrong]
    assert narrow([START, end(1.0, 1.2, 0, 0, 0)])[1].latest_s == 1.2
    assert narrow([]) == []


def test_known_times_replace_the_nearest() -> None:
    assert place_between(1.0, 2.0, 2, []) == [1.25, 1.75]
    assert place_between(1.0, 2.0, 2, [1.9]) == [1.25, 1.9]
    assert place_between(1.0, 2.0, 1, [1.001]) == [1.001]
