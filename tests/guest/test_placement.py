"""Does every page of a working set have its own guest page, and can the mapping be inverted?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusim.guest.placement import Placement, contiguous, scattered
from gpusim.layout import CHUNK_PAGES, CHUNK_SHIFT, Layout
from tests.guest.naive import SLOW_MACHINE, place_stream

Z = 5


def guest_pages(placement: Placement, first: int, last: int) -> list[int]:
    """Return the guest page of each own page by `locate`, and check the own pages."""
    own, guest = [], []
    for low, high, start in zip(*(a.tolist() for a in placement.locate(first, last)), strict=True):
        own += range(low, high)
        guest += range(start, start + high - low)
    assert own == list(range(first, last))
    return guest


@st.composite
def scattered_sets(draw: st.DrawFn) -> tuple[Placement, int, int, int]:
    """Return a placement, and the pages of VM, working set and granule."""
    granule = 2 ** draw(st.integers(0, 5))
    vm_pages = draw(st.integers(granule, 3000))
    pages = draw(st.integers(1, vm_pages // granule * granule))
    return (
        scattered(vm_pages, pages, granule, place_stream(draw(st.integers(0, 99)))),
        vm_pages,
        pages,
        granule,
    )


@given(scattered_sets())
@SLOW_MACHINE
def test_scattered_granules_are_distinct_and_inside_the_vm(drawn: tuple) -> None:
    placement, vm_pages, pages, granule = drawn
    guest = guest_pages(placement, 0, pages)
    assert len(set(guest)) == pages
    assert min(guest) >= 0
    assert max(guest) < vm_pages
    assert not (placement.guest_first % granule).any()
    assert len(placement.own_first) == -(-pages // granule)


@given(scattered_sets(), st.floats(0, 1), st.floats(0, 1))
@SLOW_MACHINE
def test_locate_of_a_part_is_that_part_of_the_whole(drawn: tuple, a: float, b: float) -> None:
    placement, _, pages, _ = drawn
    first, last = sorted((int(a * pages), int(b * pages)))
    assert guest_pages(placement, first, last) == guest_pages(placement, 0, pages)[first:last]


def test_scattered_depends_on_its_seed_alone() -> None:
    one, same, other = (
        scattered(2**20, 2**12, 16, place_stream(seed)).guest_first for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_every_place_is_equally_likely() -> None:
    """16 of 64 places are used. The test is a chi-square over 4000 seeds."""
    seeds, places, taken = 4000, 64, 16
    hits = np.zeros(places)
    for seed in range(seeds):
        hits[scattered(places * 4, taken * 4, 4, place_stream(seed)).guest_first // 4] += 1
    share = taken / places
    variance = (
        seeds * share * (1 - share) * places / (places - 1)
    )  # the sum of the hits is constant
    square = ((hits - seeds * share) ** 2 / variance).sum()
    assert abs(square - (places - 1)) < Z * np.sqrt(2 * (places - 1))


def test_contiguous_is_one_piece() -> None:
    assert guest_pages(contiguous(100, 50), 0, 50) == list(range(100, 150))
    assert guest_pages(contiguous(100, 50), 7, 9) == [107, 108]


@given(
    st.lists(st.sampled_from([1, 64, 300, CHUNK_PAGES, CHUNK_PAGES + 77]), min_size=1, max_size=5),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=6),
)
@SLOW_MACHINE
def test_cut_keeps_every_page_and_its_order(blocks: list[int], parts: list) -> None:
    """The pieces of a run give the run again. Each piece lies inside one chunk of one block."""
    layout = Layout(blocks)
    runs = [sorted((int(a * layout.pages), int(b * layout.pages))) for a, b in parts]
    first, last = np.array(runs, dtype=np.int64).reshape(-1, 2).T
    slot_first, slot_last, index = layout.cut(first, last)
    chunk = slot_first >> CHUNK_SHIFT
    assert np.array_equal(chunk, (slot_last - 1) >> CHUNK_SHIFT)
    assert (slot_last - (chunk << CHUNK_SHIFT) <= layout.chunk_pages[chunk]).all()
    start = layout.chunk_first[chunk] + (slot_first - (chunk << CHUNK_SHIFT))
    end = start + slot_last - slot_first
    for run, (low, high) in enumerate(runs):
        starts, ends = start[index == run], end[index == run]
        if low == high:
            assert not len(starts)
            continue
        assert (starts[0], ends[-1]) == (low, high)
        assert np.array_equal(starts[1:], ends[:-1])


@pytest.mark.parametrize("block", [1, 63, CHUNK_PAGES - 1, CHUNK_PAGES, CHUNK_PAGES + 1])
def test_blocks_lie_biggest_first_each_on_a_chunk_of_its_own(block: int) -> None:
    layout = Layout([block, 2 * CHUNK_PAGES, 5])
    assert layout.blocks == (2 * CHUNK_PAGES, *sorted((block, 5), reverse=True))
    assert layout.pages == layout.chunk_pages.sum() == block + 2 * CHUNK_PAGES + 5
    assert np.array_equal(layout.chunk_first[1:], np.cumsum(layout.chunk_pages)[:-1])
    starts = np.concatenate([[0], np.cumsum(layout.blocks)[:-1]])
    assert set(starts) <= set(layout.chunk_first)


@given(scattered_sets(), st.integers(1, 99))
@SLOW_MACHINE
def test_two_scattered_sets_share_no_granule_if_both_fit(drawn: tuple, seed: int) -> None:
    first, vm_pages, pages, granule = drawn
    stream = place_stream(seed)
    free = np.setdiff1d(np.arange(vm_pages // granule), first.guest_first // granule)
    second = scattered(vm_pages, pages, granule, stream, free)
    shared = set(first.guest_first.tolist()) & set(second.guest_first.tolist())
    fit = 2 * len(first.own_first) <= vm_pages // granule
    assert fit != bool(shared)
    assert len(set(second.guest_first.tolist())) == len(second.own_first)
