"""Are the guest's writes those of its writers, each once and on the right page?

The reference is one density per page for random writers, and a loop over writes for sequential
ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.guest.guest import Guest
from gpusim.guest.pace import CpuBound
from gpusim.guest.pattern import Random, Sequential, hot_cold, uniform, zipf
from gpusim.guest.placement import Placement, contiguous, scattered
from gpusim.guest.rounds import Rounds
from gpusim.guest.run_time import RunTime
from gpusim.guest.writer import Writer
from gpusim.layout import CHUNK_PAGES, CHUNK_SHIFT, FloatArray, IntArray, Layout, Writes
from gpusim.units import NS_PER_MS, NS_PER_S
from tests.guest.naive import SLOW_MACHINE, place_stream

FLOAT = 1e-9
BLOCKS = ((300,), (130, 64, 3), (64, 64, 64, 64, 1))
BORDER = CHUNK_PAGES + 60, 50  # pages 2^18 - 1 and 2^18 lie in different chunks of one block


def guest_page(layout: Layout, slots: IntArray) -> IntArray:
    chunk = slots >> CHUNK_SHIFT
    return layout.chunk_first[chunk] + (slots & (CHUNK_PAGES - 1))


def own_to_guest(placement: Placement) -> IntArray:
    """Return the guest page of each page of a working set."""
    pieces = zip(placement.own_first, placement.own_last, placement.guest_first, strict=True)
    return np.concatenate([np.arange(guest, guest + high - low) for low, high, guest in pieces])


def chunk_of(layout: Layout, pages: IntArray) -> IntArray:
    return np.searchsorted(layout.chunk_first, pages, side="right") - 1


def assert_well_formed(writes: Writes) -> None:
    """Check that cells ascend and do not overlap, and that cells and runs stay in a chunk."""
    assert (writes.first < writes.last).all()
    assert (writes.first[1:] >= writes.last[:-1]).all()
    assert (writes.mean >= 0).all()
    assert (writes.certain_first < writes.certain_last).all()
    for first, last in (
        (writes.first, writes.last),
        (writes.certain_first, writes.certain_last),
    ):
        assert np.array_equal(first >> CHUNK_SHIFT, (last - 1) >> CHUNK_SHIFT)


def mean_of_pages(layout: Layout, writes: Writes) -> FloatArray:
    """Return the expected writes of each guest page."""
    mean = np.zeros(layout.pages)
    firsts, lengths = guest_page(layout, writes.first), writes.last - writes.first
    for first, length, value in zip(firsts, lengths, writes.mean, strict=True):
        mean[first : first + length] += value
    return mean


def naive_mean(
    layout: Layout, writers: Sequence[Writer], since: IntArray, until: IntArray, run_time: RunTime
) -> FloatArray:
    """Return the same from each writer's share per page, with one interval per chunk."""
    mean = np.zeros(layout.pages)
    for writer in writers:
        assert isinstance(writer.pattern, Random)
        guest = own_to_guest(writer.placement)
        done = writer.writes(until, run_time) - writer.writes(since, run_time)
        for band in writer.pattern.bands:
            pages = guest[band.first : band.last]  # no page occurs twice
            mean[pages] += done[chunk_of(layout, pages)] * band.share / len(pages)
    return mean


def naive_sequential(
    layout: Layout, writer: Writer, since: IntArray, until: IntArray, run_time: RunTime
) -> set[int]:
    """Return the guest pages that a sequential writer's threads write, write by write."""
    pattern = writer.pattern
    assert isinstance(pattern, Sequential)
    guest = own_to_guest(writer.placement)
    written = set()
    for thread in range(pattern.threads):
        low, high = pattern.share(thread)
        for chunk in set(chunk_of(layout, guest[low:high]).tolist()):
            start, end = (
                pattern.first_write
                + math.floor(
                    float(writer.writes(t[chunk : chunk + 1], run_time)[0]) / pattern.threads
                )
                for t in (since, until)
            )
            for write in range(start, end):
                page = int(guest[low + write % (high - low)])
                if chunk_of(layout, page) == chunk:
                    written.add(page)
    return written


def pages_of_runs(layout: Layout, writes: Writes) -> list[int]:
    pages: list[int] = []
    firsts = guest_page(layout, writes.certain_first)
    for first, slot, last in zip(
        firsts.tolist(), writes.certain_first, writes.certain_last, strict=True
    ):
        pages += range(first, first + int(last - slot))
    return pages


def cpu_bound(pattern: Random | Sequential | Rounds, placement: Placement, rate: float) -> Writer:
    return Writer(
        name="w",
        pattern=pattern,
        pace=CpuBound(rate),
        placement=placement,
        windows=None,
        throttled=True,
        vcpus=1,
    )


@st.composite
def placements(draw: st.DrawFn, layout: Layout) -> tuple[Placement, int]:
    """Return a placement and the pages of its working set."""
    if layout.pages > CHUNK_PAGES:  # only around the borders of chunks and blocks
        start = draw(st.integers(CHUNK_PAGES - 70, CHUNK_PAGES + 20))
        pages = draw(st.integers(2, layout.pages - start))
        return contiguous(start, pages), pages
    granule = draw(st.sampled_from([None, 1, 8, 32]))
    if granule is None:
        start = draw(st.integers(0, layout.pages - 2))
        pages = draw(st.integers(2, layout.pages - start))
        return contiguous(start, pages), pages
    pages = draw(st.integers(2, layout.pages // granule * granule))
    return scattered(layout.pages, pages, granule, place_stream(draw(st.integers(0, 9)))), pages


@st.composite
def random_writers(draw: st.DrawFn, layout: Layout) -> list[Writer]:
    writers = []
    for _ in range(draw(st.integers(1, 3))):
        placement, pages = draw(placements(layout))
        pattern = draw(
            st.one_of(
                st.just(uniform(pages)),
                st.builds(hot_cold, st.just(pages), st.integers(1, pages - 1), st.floats(0, 1)),
                st.builds(zipf, st.just(pages), st.floats(0, 2)),
            )
        )
        random = cpu_bound(pattern, placement, draw(st.integers(0, 10**6)))
        writers.append(replace(random, throttled=draw(st.booleans())))
    return writers


@st.composite
def intervals(draw: st.DrawFn, layout: Layout) -> tuple[IntArray, IntArray]:
    """Return a start and an end for each chunk."""
    time = st.integers(0, 3 * NS_PER_S)
    pairs = [sorted((draw(time), draw(time))) for _ in range(layout.chunks)]
    since, until = np.array(pairs, dtype=np.int64).T
    return since, until


layouts = st.sampled_from([Layout(blocks) for blocks in (*BLOCKS, BORDER)])


def throttled_run_time() -> RunTime:
    run_time = RunTime()
    run_time.throttle(NS_PER_S, 30)
    return run_time


@given(st.data())
@settings(SLOW_MACHINE, max_examples=150)
def test_random_writes_of_each_page(data: st.DataObject) -> None:
    """Overlapping writers add up page by page, with a separate interval for each chunk."""
    layout = data.draw(layouts)
    writers = data.draw(random_writers(layout))
    since, until = data.draw(intervals(layout))
    run_time = throttled_run_time()
    writes = Guest(layout, writers, run_time).writes(since, until)
    assert_well_formed(writes)
    expected = naive_mean(layout, writers, since, until, run_time)
    assert np.allclose(mean_of_pages(layout, writes), expected, rtol=FLOAT, atol=FLOAT)


@given(st.data())
@settings(SLOW_MACHINE, max_examples=100)
def test_no_random_write_is_lost(data: st.DataObject) -> None:
    """The sum of mean times pages is the number of writes, with one interval for all chunks."""
    layout = data.draw(layouts)
    writers = data.draw(random_writers(layout))
    times = np.array(sorted(data.draw(st.tuples(*[st.integers(0, 3 * NS_PER_S)] * 2))))
    run_time = throttled_run_time()
    writes = Guest(layout, writers, run_time).writes(int(times[0]), int(times[1]))
    total = float((writes.mean * (writes.last - writes.first)).sum())
    expected = sum(float(np.diff(w.writes(times, run_time))[0]) for w in writers)
    assert total == pytest.approx(expected, rel=FLOAT, abs=FLOAT)


@given(st.data())
@settings(SLOW_MACHINE, max_examples=250)
def test_sequential_runs_are_the_loop_over_writes(data: st.DataObject) -> None:
    """It covers wraps, threads, granules and chunk borders, with an interval per chunk."""
    layout = data.draw(layouts)
    placement, pages = data.draw(placements(layout))
    threads = data.draw(st.integers(1, min(4, pages)))
    pattern = Sequential(pages, threads, data.draw(st.integers(0, 1000)))
    sequential = cpu_bound(pattern, placement, data.draw(st.integers(0, 400)))
    since, until = data.draw(intervals(layout))
    run_time = throttled_run_time()
    writes = Guest(layout, [sequential], run_time).writes(since, until)
    assert_well_formed(writes)
    found = pages_of_runs(layout, writes)
    assert len(found) == len(set(found)), "a page is in two runs of one interval"
    assert set(found) == naive_sequential(layout, sequential, since, until, run_time)


@given(st.data())
@settings(SLOW_MACHINE, max_examples=80)
def test_one_time_for_all_is_the_same_time_for_each(data: st.DataObject) -> None:
    layout = data.draw(layouts)
    placement, pages = data.draw(placements(layout))
    writers = [
        cpu_bound(Sequential(pages, 2, 0), placement, 150),
        *data.draw(random_writers(layout)),
    ]
    guest = Guest(layout, writers, throttled_run_time())
    since, until = sorted(data.draw(st.tuples(*[st.integers(0, 3 * NS_PER_S)] * 2)))
    each = np.ones(layout.chunks, np.int64)
    one = guest.writes(since, until)
    for other in (
        guest.writes(since * each, until * each),
        guest.writes(since, until * each),
        guest.writes(since * each, until),
    ):
        for name in ("first", "last", "mean"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
        assert sorted(pages_of_runs(layout, one)) == sorted(pages_of_runs(layout, other))


@given(st.data())
@settings(SLOW_MACHINE, max_examples=80)
def test_intervals_in_a_row_add_up_to_the_whole(data: st.DataObject) -> None:
    """Writes do not depend on the times of syncs."""
    layout = data.draw(layouts)
    placement, pages = data.draw(placements(layout))
    sequential = cpu_bound(Sequential(pages, 1, 3), placement, 97)
    guest = Guest(layout, [sequential, *data.draw(random_writers(layout))], throttled_run_time())
    times = sorted(data.draw(st.lists(st.integers(0, 3 * NS_PER_S), min_size=2, max_size=6)))
    parts = [guest.writes(a, b) for a, b in pairwise(times)]
    whole = guest.writes(times[0], times[-1])
    assert sum(part.mean for part in parts) == pytest.approx(whole.mean, rel=FLOAT, abs=FLOAT)
    pieces = [page for part in parts for page in pages_of_runs(layout, part)]
    assert set(pieces) == set(pages_of_runs(layout, whole))


def test_sequential_by_hand() -> None:
    """Two threads over 10 pages, after 2 writes, at 2 writes per second each: 2, 3 and 7, 8."""
    layout = Layout([20])
    sequential = cpu_bound(Sequential(10, 2, 2), contiguous(5, 10), 4.0)
    guest = Guest(layout, [sequential], RunTime())
    pages = lambda a, b: sorted(pages_of_runs(layout, guest.writes(a, b)))  # noqa: E731
    assert pages(0, NS_PER_S) == [7, 8, 12, 13]
    assert pages(NS_PER_S, 2 * NS_PER_S) == [5, 9, 10, 14]  # across the end of both shares
    assert pages(0, 500 * NS_PER_MS) == [7, 12]
    assert pages(0, 499 * NS_PER_MS) == []
    assert pages(0, 3 * NS_PER_S) == list(range(5, 15))


def test_a_block_of_its_own_gets_its_own_cells() -> None:
    layout = Layout([100, 60])
    writes = Guest(layout, [cpu_bound(uniform(160), contiguous(0, 160), 16)], RunTime()).writes(
        0, NS_PER_S
    )
    assert writes.first.tolist() == [0, CHUNK_PAGES]
    assert writes.last.tolist() == [100, CHUNK_PAGES + 60]
    assert writes.mean == pytest.approx([0.1, 0.1])


def test_an_idle_guest_writes_nothing() -> None:
    writes = Guest(Layout([100]), [], RunTime()).writes(0, NS_PER_S)
    assert len(writes.first) == len(writes.last) == len(writes.mean) == 0
    assert len(writes.certain_first) == len(writes.certain_last) == 0


def test_lost_work_is_summed_over_writers_and_their_vcpus() -> None:
    """At 50 % from the start two vCPUs lose half of their time. A device loses none."""
    run_time = RunTime()
    run_time.throttle(0, 50)
    vcpus = replace(cpu_bound(uniform(10), contiguous(0, 10), 5), vcpus=2)
    device = replace(vcpus, throttled=False)
    lost = Guest(Layout([10]), [vcpus, device], run_time).lost_vcpu_s(4 * NS_PER_S)
    assert lost == pytest.approx(4, rel=1e-6)
