"""Does gpusim decide as a naive model of QEMU does, page by page?

The scenarios are random, see scenarios.py. A difference is a fault of one of the models, or a knife
edge: one page more or less decides if a sync comes now or a whole burst later.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.oracle.model import Comparison, compare, first_difference

SIXTY = range(27, 87)  # number 26 alone has thousands of syncs
# One window ends in a burst that has normal, zero and normal pages again. gpusim counts the flushes of
# each kind for itself (BurstLimits.next_budgets), so that burst ends 7 pages later, and all later
# syncs start 3 ms apart.
INEXACT_FLUSH = {375}
MOST_PERCENT = 1.0  # difference of the total time


def disagreements(numbers: Iterable[int]) -> list[str]:
    """Return the scenarios in which a decision differs, or the total time by more than allowed."""
    return [str(c) for c in map(compare, sorted(set(numbers) - INEXACT_FLUSH)) if not agrees(c)]


def agrees(found: Comparison) -> bool:
    same = found.same_verdict and found.same_throttle and found.same_fallbacks
    return same and abs(found.total_percent or 0) <= MOST_PERCENT


@pytest.mark.slow
def test_sixty_random_scenarios_agree() -> None:
    assert disagreements(SIXTY) == []


def test_a_limit_that_is_lowered_inside_a_burst_ends_it_behind_the_page_under_way() -> None:
    found = compare(138)
    assert first_difference(found.gpusim, found.naive) is None


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 400, 80))
def test_four_hundred_random_scenarios_agree(first: int) -> None:
    assert disagreements(set(range(first, first + 80)) - set(SIXTY)) == []
