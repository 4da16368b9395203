"""Whatever the ladder and wherever it begins: the first step that is enough, in a few tries."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusim.explore.bisection import Ladder


def climbed(ladder: Ladder, first_enough: int) -> int:
    """Try until nothing is asked for any more; returns the number of tries."""
    tries = 0
    while (step := ladder.next()) is not None:
        assert step not in ladder.tried
        ladder.tell(step, step >= first_enough)
        tries += 1
    return tries


@given(st.data())
def test_it_finds_the_first_step_that_is_enough(data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, 300))
    start = data.draw(st.integers(0, steps - 1))
    stride = data.draw(st.none() | st.integers(1, 20))
    first_enough = data.draw(st.integers(0, steps))
    ladder = Ladder(steps, start, stride)
    tries = climbed(ladder, first_enough)
    assert ladder.finished
    assert ladder.found == (first_enough if first_enough < steps else None)
    assert ladder.too_hard == first_enough - 1
    assert ladder.exceptions == []
    assert tries <= 2 * math.log2(steps) + 4


def test_leaps_are_short_near_where_it_begins() -> None:
    """Three steps beside the start: two tries find the bracket, two more halve it; one looks beyond."""
    assert climbed(Ladder(200, 100, 3), 102) == 4 + 1
    assert climbed(Ladder(200, 100, 3), 101) <= 4 + 1
    assert climbed(Ladder(200, 100), 102) >= 7


def test_one_leap_beyond_is_tried_at_last() -> None:
    """Steps 4 and up are enough, and so is step 1, although 3 is not."""
    ladder = Ladder(10, 6, 2)
    while (step := ladder.next()) is not None:
        ladder.tell(step, step >= 4 or step == 1)
    assert (ladder.found, ladder.too_hard, ladder.exceptions) == (4, 3, [1])


def test_what_is_enough_below_a_step_that_is_not_is_told() -> None:
    ladder = Ladder(10, 2)
    for step, enough in ((2, True), (6, False), (9, True), (7, True)):
        ladder.tell(step, enough)
    assert (ladder.found, ladder.too_hard, ladder.exceptions) == (7, 6, [2])
    assert ladder.finished


@pytest.mark.parametrize("enough", [True, False])
def test_a_try_that_does_not_end_ends_the_search_unfinished(enough: bool) -> None:
    ladder = Ladder(10, 5, 2)
    ladder.tell(5, enough)
    step = ladder.next()
    assert step is not None
    ladder.tell(step, None)
    assert ladder.next() is None
    assert not ladder.finished
    assert ladder.found == (5 if enough else None)
