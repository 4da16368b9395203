"""From any start, the bisection finds the first step that is enough within a few tries."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusim.explore.bisection import Bisection


def bisect(bisection: Bisection, first_enough: int) -> int:
    """Try all steps that the bisection asks for, and return how many these were."""
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


def test_leaps_are_short_near_the_start() -> None:
    """Two tries find the interval, two halve it, and one extra try follows."""
    assert bisect(Bisection(200, 100, 3), 102) == 4 + 1
    assert bisect(Bisection(200, 100, 3), 101) <= 4 + 1
    assert bisect(Bisection(200, 100), 102) >= 7


def test_an_extra_step_is_tried_in_the_end() -> None:
    """Step 1 is enough although step 3 is not."""
    bisection = Bisection(10, 6, 2)
    while (step := bisection.next_step()) is not None:
        bisection.record(step, step >= 4 or step == 1)
    assert (bisection.best, bisection.last_failing, bisection.exceptions) == (4, 3, [1])


def test_a_step_before_a_failing_step_is_an_exception() -> None:
    bisection = Bisection(10, 2)
    for step, enough in ((2, True), (6, False), (9, True), (7, True)):
        bisection.record(step, enough)
    assert (bisection.best, bisection.last_failing, bisection.exceptions) == (7, 6, [2])
    assert bisection.is_finished


@pytest.mark.parametrize("enough", [True, False])
def test_the_search_gives_up_if_a_try_does_not_end(enough: bool) -> None:
    bisection = Bisection(10, 5, 2)
    bisection.record(5, enough)
    step = bisection.next_step()
    assert step is not None
    bisection.record(step, None)
    assert bisection.next_step() is None
    assert not bisection.is_finished
    assert bisection.best == (5 if enough else None)
