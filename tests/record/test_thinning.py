"""Is a thinned counter as close to the counter as it claims, and small?"""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.record.thinning import MOST_BREAKPOINTS, Point, find_breakpoints, thin_counter

steps = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 100)), min_size=1, max_size=60)


def counter(rows: list[tuple[int, int]]) -> list[Point]:
    """Return points from time steps and the writes in each step."""
    times, totals = np.cumsum(rows, axis=0).T
    return [(float(time), int(total)) for time, total in zip(times, totals, strict=True)]


def farthest(points: list[Point], kept: list[Point]) -> float:
    """Return the largest distance of a point from the lines between `kept`."""
    times, totals = np.array(points).T
    return float(np.abs(np.interp(times, *np.array(kept).T) - totals).max())


@settings(deadline=None)  # a busy machine is no failure
@given(steps, st.integers(1, 50))
def test_no_point_is_missed_by_more_than_it_says(rows: list[tuple[int, int]], within: int) -> None:
    points = counter(rows)
    kept = find_breakpoints(points, within)
    assert set(kept) <= set(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert farthest(points, kept) <= within + 1e-9


def test_a_steady_rate_has_two_breakpoints_and_a_bend_adds_one() -> None:
    steady = [(float(time), 10 * time) for time in range(100)]
    bent = steady + [(float(time), 990 + 2 * (time - 99)) for time in range(100, 200)]
    assert find_breakpoints(steady, 1) == [steady[0], steady[-1]]
    assert len(find_breakpoints(bent, 1)) <= 4


def test_bursts_of_a_paced_guest_stay_visible() -> None:
    """200 s at a throttle of 90 %: 90 ms of sleep, then all writes of that time at once."""
    total, points = 0, []
    for tick in range(100_000):
        total += 3000 if tick % 50 == 49 else 0
        points.append((tick * 0.002, total))
    kept, within = thin_counter(points)
    assert within < 300
    assert len(kept) <= 2 * 2000 + 2


def test_a_restless_counter_is_coarser_instead_of_longer() -> None:
    draw = random.Random(1)
    rows = [(1, draw.randrange(1000)) for _ in range(4 * MOST_BREAKPOINTS)]
    points = counter(rows)
    kept, within = thin_counter(points)
    assert len(kept) <= MOST_BREAKPOINTS
    assert farthest(points, kept) <= within


def test_too_few_points_stay_as_they_are() -> None:
    assert thin_counter([]) == ([], 0.0)
    assert thin_counter([(1.0, 2)]) == ([(1.0, 2)], 0.0)
