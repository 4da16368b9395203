"""Does a take pay for remote clears as a loop over pages does, and are clears predicted?"""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpusim.layout import Layout, Writes
from gpusim.pages.pages import Pages
from tests.pages.naive import SLOW_MACHINE

BLOCKS = [5, 130, 64, 1, 300, 20]  # each block is a chunk
NONE = np.zeros(0, np.int64)


def lazy_pages(zero: list[tuple[int, int]]) -> Pages:
    first, last = (np.array([run[i] for run in zero], np.int64) for i in (0, 1))
    layout = Layout(BLOCKS)
    pages = Pages(layout, zero_first=first, zero_last=last, lazy=True, initially_set=True, seed=1)
    pages.start()
    return pages


def loop(
    chunk_of: list[int],
    zero: list[bool],
    due: set[int],
    seen: set[int],
    at: int,
    budgets: list[tuple[int, int, int]],
    clear: tuple[int, int, int],
) -> tuple[int, list[tuple[int, int]]]:
    """Return the end of a take from page `at`, and its clears (chunk, protected pages)."""
    left = [limit for limit, _, _ in budgets]
    clears: list[tuple[int, int]] = []
    while at < len(chunk_of):
        costs = [budget[1 + zero[at]] for budget in budgets]
        if left[-1] < 0 or any(x < c for x, c in zip(left[:-1], costs, strict=False)):
            break
        held = 0
        if chunk_of[at] in due:
            is_first = chunk_of[at] not in seen  # the guest has not touched its zero pages
            places = [place for place, one in enumerate(chunk_of) if one == chunk_of[at]]
            protected = sum(not (is_first and zero[place]) for place in places)
            held = clear[0] + clear[1 + is_first] * protected
        if not held and left[-1] < costs[-1]:
            break
        if chunk_of[at] in due:
            due.remove(chunk_of[at])
            seen.add(chunk_of[at])
            clears.append((chunk_of[at], protected))
        left = [x - c for x, c in zip(left, costs, strict=True)]
        left[-1] -= held
        at += 1
    return at, clears


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=1, max_size=8),
    st.sampled_from([(0, 0, 0), (7, 0, 0), (300, 0, 0), (0, 1, 1), (3, 2, 5), (0, 3, 0)]),
    st.sampled_from([(2, 1), (1, 1), (0, 3), (4, 0)]),
    st.sampled_from([[], [(3, 9)], [(100, 420), (500, 519)]]),
)
@example([(8, 10**6), (20, 10**6)], (7, 0, 0), (0, 3), [])  # free pages are taken after a clear
@example([(312, 10**6)], (2, 1, 1), (9, 1), [(1, 420)])
@settings(SLOW_MACHINE, max_examples=250)
def test_a_take_pays_for_clears_as_a_loop_over_pages_does(
    limits: list[tuple[int, int]],
    clear: tuple[int, int, int],
    costs: tuple[int, int],
    zero: list[tuple[int, int]],
) -> None:
    pages = lazy_pages(zero)
    layout = Layout(BLOCKS)
    chunk_of = np.repeat(np.arange(layout.chunks), layout.chunk_pages).tolist()
    is_zero = [any(a <= page < b for a, b in zero) for page in range(layout.pages)]
    due, seen, at = set(chunk_of), set[int](), 0
    for limit, other in limits:
        budgets = [(other, 1, 1), (limit, *costs)]
        end, clears = loop(chunk_of, is_zero, due, seen, at, budgets, clear)
        taken = pages.take(budgets, clear=clear)
        assert taken.normal + taken.zero == end - at
        assert list(zip(taken.cleared.tolist(), taken.protected.tolist(), strict=True)) == clears
        at = end


@given(st.integers(0, 519), st.integers(1, 520))
@settings(SLOW_MACHINE, max_examples=100)
def test_clears_ahead_are_those_of_the_take(cursor: int, ahead: int) -> None:
    pages = lazy_pages([])
    pages.take([(cursor, 1, 1)])
    predicted = pages.clears_ahead(ahead)
    assert predicted is not None
    taken = pages.take([(ahead, 1, 1)])
    assert predicted[0].tolist() == taken.normal_before.tolist()
    assert predicted[1].tolist() == taken.protected.tolist()
    assert predicted[2].tolist() == taken.first_protected.tolist()


def test_a_chunk_is_protected_for_the_first_time_only_once() -> None:
    pages = lazy_pages([])
    first = pages.take([(520, 1, 1)])
    assert first.first_protected.tolist() == first.protected.tolist() == [300, 130, 64, 20, 5, 1]
    pages.kernels.dirty[0, 0] = 3  # two pages are dirty again
    pages.counts.normal[0], pages.counts.total = 2, 2
    pages.sync(*[nothing()] * 2)
    again = pages.take([(520, 1, 1)])
    assert again.protected.tolist() == [2]
    assert again.first_protected.tolist() == [0]


def test_nothing_is_predicted_while_pages_may_lie_behind_the_cursor_in_its_chunk() -> None:
    pages = lazy_pages([])
    pages.take([(10, 1, 1)])
    assert pages.clears_ahead(5) is not None
    assert pages.run_ahead(wraps=False) == (False, 510)
    pages.sync(*[nothing()] * 2)
    assert pages.clears_ahead(5) is None
    assert pages.run_ahead(wraps=False) == (False, 220)  # pages of the later chunks
    pages.take([(290, 1, 1)])
    assert pages.clears_ahead(5) is not None


def test_a_take_that_does_not_wrap_stops_behind_the_last_page() -> None:
    pages = lazy_pages([])
    taken = pages.take([(10**9, 1, 1)], wraps=False)
    assert (taken.normal, pages.pending, pages.at_end) == (520, 0, True)
    pages = lazy_pages([])
    pages.take([(519, 1, 1)])
    pages.kernels.dirty[0, 0] = 3  # two pages at the beginning are dirty again
    pages.counts.normal[0], pages.counts.total = 2, 3
    taken = pages.take([(10**9, 1, 1)], wraps=False)
    assert (taken.normal, pages.pending, pages.at_end, pages.cursor.wraps) == (1, 2, True, 0)
    taken = pages.take([(10**9, 1, 1)], wraps=False)
    assert (taken.normal, pages.pending, pages.cursor.wraps) == (2, 0, 1)
    assert taken.wrapped_after == (0, 0)


def nothing() -> Writes:
    return Writes(first=NONE, last=NONE, mean=np.zeros(0), certain_first=NONE, certain_last=NONE)
