"""Does a writer without replacement write each page once per round, in an order without a pattern?

The references are a set of pages and a machine that protects and writes page by page.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.guest.faults import Protection
from gpusim.guest.guest import Guest
from gpusim.guest.placement import Placement, contiguous, scattered
from gpusim.guest.rounds import RoundPages, Rounds
from gpusim.guest.run_time import RunTime
from gpusim.guest.writer import Writer
from gpusim.layout import CHUNK_PAGES, Layout
from gpusim.stream import Purpose, Stream
from gpusim.units import NS_PER_S
from tests.guest.naive import SLOW_MACHINE, place_stream
from tests.guest.test_writes import assert_well_formed, cpu_bound, pages_of_runs

RATE = 1000  # page writes per second: one per ms


def pattern(pages: int, first_write: int = 0, seed: int = 1) -> Rounds:
    return Rounds(pages, first_write, Stream(seed, 0, Purpose.ROUNDS))


def writer(rounds: Rounds, placement: Placement) -> Writer:
    return cpu_bound(rounds, placement, RATE)


def written(guest: Guest, layout: Layout, low: int, high: int) -> list[int]:
    """Return the guest pages of the writes from `low` to `high`."""
    late_ns = 100  # so that no write is missing because of rounding
    since_ns, until_ns = (count * NS_PER_S // RATE + late_ns for count in (low, high))
    writes = guest.writes(since_ns, until_ns)
    assert_well_formed(writes)
    return pages_of_runs(layout, writes)


@given(st.data())
@settings(SLOW_MACHINE, max_examples=40)
def test_a_round_writes_every_page_once(data: st.DataObject) -> None:
    """Sets of fewer and of more pages than parts, contiguous and scattered, in small steps."""
    layout = data.draw(st.sampled_from([Layout([5000]), Layout([3000, 2000])]))
    pages = data.draw(st.sampled_from([1, 7, 1000, 1024, 1025, 3333, 4096]))
    placement = contiguous(layout.pages - pages, pages)
    if data.draw(st.booleans()):
        placement = (
            scattered(layout.pages, pages, 8, place_stream(3)) if pages <= 4096 else placement
        )
    first_write = data.draw(st.integers(0, 3 * pages))
    guest = Guest(layout, [writer(pattern(pages, first_write), placement)], RunTime())
    begin = -first_write % pages + pages * data.draw(st.integers(0, 2))
    cuts = data.draw(st.lists(st.integers(0, pages), max_size=4).map(sorted))
    times = [begin, *(begin + cut for cut in cuts), begin + pages]
    found: list[int] = []
    for low, high in pairwise(times):
        part = written(guest, layout, low, high)
        assert len(part) == high - low, "coverage grows by a page per write"
        found += part
    own = {
        page for low, high in writer(pattern(pages), placement).runs() for page in range(low, high)
    }
    assert len(found) == len(own) == pages
    assert set(found) == own


@given(st.integers(1, 3000), st.integers(0, 9000), st.integers(0, 9000))
@settings(SLOW_MACHINE, max_examples=60)
def test_writes_across_rounds_are_the_union_of_their_parts(pages: int, a: int, b: int) -> None:
    layout, (low, high) = Layout([3000]), sorted((a, b))
    guest = Guest(layout, [writer(pattern(pages), contiguous(0, pages))], RunTime())
    borders = [low, *range((low // pages + 1) * pages, high, pages), high]
    if len(borders) < 60:
        parts = [written(guest, layout, *pair) for pair in pairwise(borders)]
        assert set(written(guest, layout, low, high)) == {page for part in parts for page in part}


def test_each_chunk_has_its_own_interval() -> None:
    layout = Layout([2 * CHUNK_PAGES])
    guest = Guest(layout, [writer(pattern(4000), contiguous(CHUNK_PAGES - 2000, 4000))], RunTime())
    ends = np.array([1, 2]) * NS_PER_S
    mixed = guest.writes(np.zeros(2, np.int64), ends)
    assert_well_formed(mixed)
    found = pages_of_runs(layout, mixed)
    one, two = (set(written(guest, layout, 0, count)) for count in (1000, 2000))
    border = CHUNK_PAGES
    assert set(found) == {p for p in one if p < border} | {p for p in two if p >= border}


def test_half_a_round_is_half_of_each_region_and_no_two_rounds_agree() -> None:
    """Of 64 regions each holds half of its pages, and a page's rounds are independent."""
    layout, pages = Layout([2**16]), 2**16
    guest = Guest(layout, [writer(pattern(pages), contiguous(0, pages))], RunTime())
    halves = [written(guest, layout, n * pages, n * pages + pages // 2) for n in range(6)]
    for half in halves:
        share = np.bincount(np.array(half) // 1024, minlength=64) / 1024
        assert share.mean() == pytest.approx(0.5)
        assert share.min() > 0.4
        assert share.max() < 0.6
    for one, two in pairwise(halves):
        # The parts are independent, 1024 of them, each with an overlap of 1/4 +- 1/8 at most.
        both = len(set(one) & set(two)) / pages
        assert both == pytest.approx(0.25, abs=5 * 0.125 / 1024**0.5)


def test_the_seed_draws_the_order() -> None:
    layout = Layout([1000])
    found = [
        written(
            Guest(layout, [writer(pattern(1000, seed=seed), contiguous(0, 1000))], RunTime()),
            layout,
            0,
            300,
        )
        for seed in (1, 1, 2)
    ]
    assert found[0] == found[1]
    assert set(found[0]) != set(found[2])


@pytest.mark.parametrize("lazy", [False, True])
@given(data=st.data())
@settings(SLOW_MACHINE, max_examples=40)
def test_faults_are_the_mean_of_a_machine(lazy: bool, data: st.DataObject) -> None:
    """A machine that writes, syncs and clears page by page faults as often, within its noise."""
    pages, groups = 4000, 2
    half = pages // groups
    steps = data.draw(
        st.lists(st.tuples(st.integers(0, 9000), st.sampled_from(["sync", "clear", "none"])),
                 min_size=1, max_size=6)
    )  # fmt: skip
    tracked = RoundPages(
        pattern(pages),
        np.full(groups, half),
        np.arange(groups),
        0,
        from_start=True,
        lazy=lazy,
        splits=True,
    )
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    order, place = random.permutation(pages), 0
    is_protected, at_sync = np.ones(pages, bool), np.ones(pages, bool)
    is_split = np.zeros(pages, bool)
    for writes, event in steps:
        faults, split_before = 0, int(is_split.sum())
        for _ in range(writes):
            if place == pages:
                order, place = random.permutation(pages), 0
            page = order[place]
            faults += int(is_protected[page])
            is_protected[page], is_split[page] = False, True
            place += 1
        made = np.array([float(writes)])
        expected = tracked.faults(made, 0), tracked.splits(made, 0, 1)
        assert tracked.write(made, 1) == expected
        splits = int(is_split.sum()) - split_before
        assert expected == pytest.approx((faults, splits), abs=6 * pages**0.5)
        if event == "sync":
            if lazy:
                at_sync = is_protected.copy()
                tracked.sync()
            else:
                is_protected[:] = True
                tracked.protect()
        elif event == "clear" and lazy:
            is_protected[:half] |= ~at_sync[:half]
            at_sync[:half] = True
            tracked.clear(np.array([0]))


def test_every_page_faults_once_per_sync_of_a_whole_guest() -> None:
    layout, pages = Layout([4000]), 3000
    guest = Guest(
        layout, [writer(pattern(pages), contiguous(0, pages))], RunTime(), Protection(cost_ns=1.0)
    )
    guest.settle(2 * NS_PER_S, np.full(1, -1))
    assert guest.faults.count == pytest.approx(2000, rel=1e-5)
    guest.settle(12 * NS_PER_S, np.full(1, -1))
    assert guest.faults.count == pytest.approx(2000 + pages, rel=1e-5)
