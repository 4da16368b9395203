"""Does a take equal a loop over pages in QEMU's order while every budget lasts?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.layout import CHUNK_PAGES, IntArray, Layout, Writes
from gpusim.pages.budget import Budget, fitting
from gpusim.pages.pages import Pages
from tests.pages.naive import SLOW_MACHINE, bits_of, take_page_by_page

UNLIMITED = 2**61  # as in the sender
HUGE_PS = 2**40  # per page, about a second of link time
EMPTY = np.zeros(0, np.int64)
BLOCKS = ((200,), (130, 64, 3), (65, 65, 65, 1))

cost = st.one_of(st.integers(0, 5), st.sampled_from([0, 1, 4096, HUGE_PS]))
budget = st.tuples(st.integers(0, 1200), cost, cost).map(
    lambda b: (min(UNLIMITED, b[0] * max(b[1], b[2]) // 3), b[1], b[2])
)
budgets = st.lists(budget, min_size=1, max_size=3)


def runs_of(pages: IntArray) -> tuple[IntArray, IntArray]:
    return pages, pages + 1


def pages_with(blocks: tuple[int, ...], dirty: set[int], zero: set[int], cursor: int) -> Pages:
    """Return pages of which `dirty` are pending, with the cursor at a dirty page."""
    layout = Layout(blocks)
    zero_first, zero_last = runs_of(np.array(sorted(zero), dtype=np.int64))
    pages = Pages(
        layout,
        zero_first=zero_first,
        zero_last=zero_last,
        lazy=False,
        initially_set=False,
        seed=0,
        threads=1,
    )
    if cursor:
        pages.take([(cursor, 1, 1)])
    pages.kernels.dirty[:] = 0
    slots, last, _ = layout.cut(*runs_of(np.array(sorted(dirty), dtype=np.int64)))
    pages.kernels.fill(pages.kernels.dirty, slots, last)
    chunks = slots // CHUNK_PAGES
    are_zero = np.isin(np.array(sorted(dirty), dtype=np.int64), list(zero))
    pages.counts.normal = np.bincount(chunks, ~are_zero, layout.chunks).astype(np.int64)
    pages.counts.zero = np.bincount(chunks, are_zero, layout.chunks).astype(np.int64)
    pages.counts.total = len(dirty)
    pages.cursor.note_sync()
    return pages


def to_send(pages: Pages) -> list[int]:
    """Return the pending guest pages."""
    return np.flatnonzero(bits_of(pages.kernels.dirty, pages._layout)).tolist()


@st.composite
def states(draw: st.DrawFn) -> tuple[Pages, list[int], set[int], int]:
    """Return Pages, the dirty pages in sending order, the zero pages, and how many lie ahead."""
    blocks = draw(st.sampled_from(BLOCKS))
    page = st.integers(0, sum(blocks) - 1)
    dense = st.just(set(range(sum(blocks))))
    dirty = draw(st.one_of(st.sets(page), dense))
    zero = draw(st.one_of(st.sets(page), st.just(set()), dense))
    cursor = draw(page)
    order = sorted(dirty, key=lambda p: (p < cursor, p))
    ahead = sum(p >= cursor for p in dirty)
    return pages_with(blocks, dirty, zero, cursor), order, zero, ahead


def is_zero(zero: set[int], pages: int) -> list[bool]:
    return [page in zero for page in range(pages)]


@given(states(), st.lists(budgets, min_size=1, max_size=3))
@settings(SLOW_MACHINE, max_examples=250)
def test_take_is_the_loop_over_pages(state: tuple, many: list) -> None:
    pages, order, zero, ahead = state
    zeros = is_zero(zero, 300)
    sent = 0
    for limits in many:
        taken = pages.take(limits)
        expected = take_page_by_page(order, zeros, limits)
        assert taken.zero == sum(zeros[page] for page in expected)
        assert taken.normal == len(expected) - taken.zero
        order = order[len(expected) :]
        assert to_send(pages) == sorted(order)
        assert pages.pending == len(order)
        sent += len(expected)
        assert pages.cursor.wraps == (sent > ahead)
        if not order:
            break
        if expected:
            assert pages.cursor.guest_page == expected[-1] + 1


@given(states(), st.data())
@settings(SLOW_MACHINE, max_examples=250)
def test_a_take_may_be_split(state: tuple, data: st.DataObject) -> None:
    """Two takes of the parts of a limit end at the same page as one take."""
    pages, order, zero, _ = state
    total = data.draw(st.integers(0, len(order)))
    part = data.draw(st.integers(0, total))
    first, second = pages.take([(part, 1, 1)]), pages.take([(total - part, 1, 1)])
    zeros = is_zero(zero, 300)
    assert first.zero == sum(zeros[page] for page in order[:part])
    assert second.zero == sum(zeros[page] for page in order[part:total])
    assert first.normal + first.zero == part
    assert second.normal + second.zero == total - part


@given(states())
@settings(SLOW_MACHINE, max_examples=250)
def test_run_ahead_promises_only_what_a_take_finds(state: tuple) -> None:
    pages, order, zero, _ = state
    kind, alike = pages.run_ahead()
    assert alike <= pages.pending
    assert all((page in zero) == kind for page in order[:alike])
    taken = pages.take([(alike, 1, 1)])
    assert (taken.normal, taken.zero) == ((0, alike) if kind else (alike, 0))


def test_run_ahead_counts_all_pages_if_no_page_is_zero() -> None:
    pages = pages_with((200, 100), {1, 2, 250}, set(), 100)
    assert pages.run_ahead() == (False, 3)


def test_run_ahead_counts_the_later_chunks() -> None:
    pages = pages_with((200, 100, 50, 20), set(range(370)), set(range(300)), 5)
    assert pages.run_ahead() == (True, 100)
    pages.take([(295, 1, 1)])
    assert pages.run_ahead() == (False, 70)


@pytest.mark.parametrize("limit", [UNLIMITED, UNLIMITED - 1, 3 * HUGE_PS, 3 * HUGE_PS - 1, 0])
@pytest.mark.parametrize("costs", [(HUGE_PS, HUGE_PS), (HUGE_PS, 0), (0, HUGE_PS), (1, HUGE_PS)])
def test_sums_do_not_overflow(limit: int, costs: tuple[int, int]) -> None:
    """At 2^40 ps per page a chunk costs 2^58, and a VM exceeds 64 bits."""
    blocks = (20 * CHUNK_PAGES, 70)
    layout = Layout(blocks)
    zero_first = np.array([0, 5 * CHUNK_PAGES])
    pages = Pages(
        layout,
        zero_first=zero_first,
        zero_last=zero_first + np.array([2, CHUNK_PAGES + 1]),
        lazy=False,
        initially_set=False,
        seed=0,
        threads=1,
    )
    runs = [(2, True), (5 * CHUNK_PAGES - 2, False), (CHUNK_PAGES + 1, True)]
    runs.append((layout.pages - sum(n for n, _ in runs), False))
    left, normal, zero = limit, 0, 0
    for length, are_zero in runs:
        price = costs[are_zero]
        fit = min(length, left // price) if price else length
        left -= fit * price
        normal, zero = normal + (0 if are_zero else fit), zero + (fit if are_zero else 0)
        if fit < length:
            break
    taken = pages.take([(UNLIMITED, 1, 1), (limit, *costs)])
    assert (taken.normal, taken.zero) == (normal, zero)
    assert pages.pending == layout.pages - normal - zero


counts = st.lists(st.integers(0, 2**20), min_size=1, max_size=9)


@given(counts, st.data())
@SLOW_MACHINE
def test_fitting_is_exact_in_integers(normal: list[int], data: st.DataObject) -> None:
    """The reference is Python's integers of any size."""
    zero = data.draw(st.lists(st.integers(0, 2**20), min_size=len(normal), max_size=len(normal)))
    limits = data.draw(
        st.lists(
            st.tuples(st.integers(0, UNLIMITED), st.integers(0, HUGE_PS), st.integers(0, HUGE_PS)),
            min_size=1,
            max_size=3,
        )
    )
    sums = np.cumsum(normal), np.cumsum(zero)
    expected = 0
    for n, z in zip(*(s.tolist() for s in sums), strict=True):
        if any(n * b[1] + z * b[2] > b[0] for b in limits):
            break
        expected += 1
    assert fitting(*sums, [Budget(*limit) for limit in limits]) == expected


def drained(blocks: tuple[int, ...], dirty: set[int], cursor: int) -> Pages:
    pages = pages_with(blocks, dirty, set(), cursor)
    pages.take([(UNLIMITED, 1, 1)])
    return pages


@pytest.mark.parametrize(
    ("dirty", "cursor", "ends_at", "wraps"),
    [
        ({10}, 5, 100, 0),  # at the end of the block, not of the VM
        ({10}, 10, 100, 0),
        ({10}, 11, 100, 1),
        ({120}, 5, 150, 0),
        ({160}, 5, 170, 0),
        ({160, 20}, 155, 100, 1),
    ],
)
def test_a_search_that_finds_nothing_stops_at_the_end_of_its_block(
    dirty: set[int], cursor: int, ends_at: int, wraps: int
) -> None:
    """After a full circle the search ends in the block of the last page.

    Source: migration/ram.c:find_dirty_block.
    """
    pages = drained((100, 50, 20), dirty, cursor)
    assert (pages.cursor.guest_page, pages.cursor.wraps) == (ends_at, wraps)
    taken = pages.take([(UNLIMITED, 1, 1)])
    assert (taken.normal, pages.cursor.guest_page, pages.cursor.wraps) == (0, ends_at, wraps)


def test_after_that_the_next_block_comes_first() -> None:
    pages = drained((100, 50, 20), {10}, 5)
    first, last, _ = pages._layout.cut(*runs_of(np.array([20, 120])))
    pages.sync(
        Writes(first=EMPTY, last=EMPTY, mean=np.zeros(0), certain_first=first, certain_last=last)
    )
    pages.take([(1, 1, 1)])
    assert to_send(pages) == [20]
    assert pages.cursor.guest_page == 121


def test_the_cursor_inside_a_chunk_of_a_drained_block_goes_to_its_end() -> None:
    """The block has several chunks, and the last page may lie before the start."""
    block = 2 * CHUNK_PAGES + 50
    pages = Pages(
        Layout([block, 10]),
        zero_first=EMPTY,
        zero_last=EMPTY,
        lazy=False,
        initially_set=False,
        seed=0,
        threads=1,
    )
    pages.take([(CHUNK_PAGES + 5, 1, 1)])
    assert pages.cursor.guest_page == CHUNK_PAGES + 5
    first, last, _ = pages._layout.cut(np.array([3]), np.array([4]))
    pages.sync(
        Writes(first=EMPTY, last=EMPTY, mean=np.zeros(0), certain_first=first, certain_last=last)
    )
    pages.take([(UNLIMITED, 1, 1)])
    assert (pages.pending, pages.cursor.guest_page, pages.cursor.wraps) == (0, block, 1)


def test_a_sync_does_not_move_the_cursor() -> None:
    pages = pages_with((200, 50), set(range(250)), set(), 0)
    pages.take([(77, 1, 1)])
    everything = np.array([0, CHUNK_PAGES])
    writes = Writes(
        first=EMPTY,
        last=EMPTY,
        mean=np.zeros(0),
        certain_first=everything,
        certain_last=everything + np.array([200, 50]),
    )
    assert pages.sync(writes) == 77
    assert (pages.cursor.guest_page, pages.cursor.wraps) == (77, 0)
