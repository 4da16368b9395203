"""Whatever the bisection and wherever it begins: the first step that is enough, in a few tries."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusim.explore.bisection import Bisection


def bisect(bisection: Bisection, first_enough: int) -> int:
    """Try until nothing is asked for any more; returns the number of tries."""
    tries = 0
    while (step := bisection.next_step()) is not None:
        assert step not in bisection.tried
        bisection.record(step, step >= first_enough)
        tries += 1
    return tries


@given(st.data())
def test_it_finds_the_first_step_that_is_enough(data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, 300))
    start = data.draw(st.integers(0, steps - 1))
    stride = data.draw(st.none() | st.integers(1, 20))
    first_enough = data.draw(st.integers(0, steps))
    bisection = Bisection(steps, start, stride)
    tries = bisect(bisection, first_enough)
    assert bisection.is_finished
    assert bisection.best == (first_enough if first_enough < steps else None)
    assert bisection.last_failing == first_enough - 1
    assert bisection.exceptions == []
    assert tries <= 2 * math.log2(steps) + 4


def test_leaps_are_short_near_where_it_begins() -> None:
    """Three steps beside the start: two tries find the bracket, two more halve it; one looks beyond."""
    assert bisect(Bisection(200, 100, 3), 102) == 4 + 1
    assert bisect(Bisection(200, 100, 3), 101) <= 4 + 1
    assert bisect(Bisection(200, 100), 102) >= 7


def test_one_leap_beyond_is_tried_at_last() -> None:
    """Steps 4 and up are enough, and so is step 1, although 3 is not."""
    bisection = Bisection(10, 6, 2)
    while (step := bisection.next_step()) is not None:
        bisection.record(step, step >= 4 or step == 1)
    assert (bisection.best, bisection.last_failing, bisection.exceptions) == (4, 3, [1])


def test_what_is_enough_below_a_step_that_is_not_is_told() -> None:
    bisection = Bisection(10, 2)
    for step, enough in ((2, True), (6, False), (9, True), (7, True)):
        bisection.record(step, enough)
    assert (bisection.best, bisection.last_failing, bisection.exceptions) == (7, 6, [2])
    assert bisection.is_finished


@pytest.mark.parametrize("enough", [True, False])
def test_a_try_that_does_not_end_ends_the_search_unfinished(enough: bool) -> None:
    bisection = Bisection(10, 5, 2)
    bisection.record(5, enough)
    step = bisection.next_step()
    assert step is not None
    bisection.record(step, None)
    assert bisection.next_step() is None
    assert not bisection.is_finished
    assert bisection.best == (5 if enough else None)
