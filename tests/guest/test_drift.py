"""Does a working set that moves get the writes of each of its places?

The reference goes through the steps one by one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.guest.drift import Drift
from gpusim.guest.faults import Protection
from gpusim.guest.guest import Guest
from gpusim.guest.pattern import Random, hot_cold, uniform, zipf
from gpusim.guest.placement import Placement, contiguous, scattered
from gpusim.guest.run_time import RunTime
from gpusim.guest.writer import Writer
from gpusim.layout import CHUNK_PAGES, FloatArray, IntArray, Layout
from gpusim.units import NS_PER_MS, NS_PER_S
from tests.guest.naive import SLOW_MACHINE, place_stream
from tests.guest.test_writes import (
    FLOAT,
    assert_well_formed,
    chunk_of,
    cpu_bound,
    mean_of_pages,
    own_to_guest,
    throttled_run_time,
)

MS, S = NS_PER_MS, NS_PER_S
LAYOUTS = (Layout((300,)), Layout((130, 64, 3)), Layout((CHUNK_PAGES + 60, 50)))


def moving(
    pattern: Random,
    placement: Placement,
    drift: Drift,
    rate: float = 1e4,
    *,
    throttled: bool = True,
) -> Writer:
    return replace(cpu_bound(pattern, placement, rate), throttled=throttled, drift=drift)


def drifting(step: int, range_pages: int, *, period_ns: int = S, offset: int = 0) -> Drift:
    return Drift(
        period_ns=period_ns,
        first_step_ns=period_ns,
        step_pages=step,
        places=range_pages // step,
        offset=offset,
    )


def naive_mean(
    layout: Layout, writer: Writer, since: IntArray, until: IntArray, run_time: RunTime
) -> FloatArray:
    """Return the expected writes of each guest page, with one interval per chunk."""
    drift, mean = writer.drift, np.zeros(layout.pages)
    assert drift is not None
    assert isinstance(writer.pattern, Random)
    guest = own_to_guest(writer.placement)
    for step in range(int(until.max()) // drift.period_ns + 3):
        begins = 0 if step == 0 else drift.first_step_ns + (step - 1) * drift.period_ns
        ends = drift.first_step_ns + step * drift.period_ns
        low, high = np.clip(since, begins, ends), np.clip(until, begins, ends)
        done = writer.writes(high, run_time) - writer.writes(low, run_time)
        for band in writer.pattern.bands:
            own = drift.offset + step * drift.step_pages + np.arange(band.first, band.last)
            pages = guest[own % drift.range_pages]
            mean[pages] += done[chunk_of(layout, pages)] * band.share / len(pages)
    return mean


@given(st.data())
@settings(SLOW_MACHINE, max_examples=120)
def test_each_page_gets_the_writes_of_the_steps_that_cover_it(data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from(LAYOUTS))
    step = data.draw(st.integers(1, 60))
    count = data.draw(st.integers(2, min(12, layout.pages // step)))
    drift = Drift(
        period_ns=data.draw(st.integers(50 * MS, 2 * S)),
        first_step_ns=data.draw(st.integers(1, 50 * MS)),
        step_pages=step,
        places=count,
        offset=data.draw(st.integers(0, step * count - 1)),
    )
    pages = data.draw(st.integers(2, step * count)) if step * count > 2 else 2
    pattern = data.draw(st.sampled_from([uniform(pages), hot_cold(pages, 1, 0.7), zipf(pages, 1)]))
    placement = contiguous(layout.pages - step * count, step * count)
    if layout.pages < CHUNK_PAGES and data.draw(st.booleans()):
        placement = scattered(layout.pages, step * count, 1, place_stream(3))
    writers = [moving(pattern, placement, drift)]
    time = st.integers(0, 5 * S)
    ends = [sorted((data.draw(time), data.draw(time))) for _ in range(layout.chunks)]
    since, until = np.array(ends, np.int64).T
    run_time = throttled_run_time()
    expected = naive_mean(layout, writers[0], since, until, run_time)
    if data.draw(st.booleans()):  # a writer that stays, over the same pages
        writers.append(replace(moving(uniform(40), contiguous(3, 40), drift), drift=None))
        done = writers[1].writes(until, run_time) - writers[1].writes(since, run_time)
        expected[3:43] += done[chunk_of(layout, np.arange(3, 43))] / 40
    writes = Guest(layout, writers, run_time).writes(since, until)
    assert_well_formed(writes)
    assert np.allclose(mean_of_pages(layout, writes), expected, rtol=FLOAT, atol=FLOAT)


@pytest.mark.parametrize("steps", [0, 1, 5, 8, 20])
def test_the_union_grows_by_a_step_per_period_until_the_range_is_full(steps: int) -> None:
    layout, pages, step, range_pages = Layout([10_000]), 2000, 1000, 10_000
    writer = moving(uniform(pages), contiguous(0, range_pages), drifting(step, range_pages), 1e9)
    writes = Guest(layout, [writer], RunTime()).writes(0, steps * S + S // 2)
    touched = int((writes.last - writes.first)[writes.mean > 0].sum())
    assert touched == min(range_pages, pages + steps * step)


def test_a_working_set_at_time_0_wraps_round_its_range() -> None:
    drift = drifting(10, 100, offset=95)
    assert moving(uniform(20), contiguous(300, 100), drift).runs() == [(395, 400), (300, 315)]


@pytest.mark.parametrize("lazy", [False, True])
def test_every_first_write_is_a_fault(lazy: bool) -> None:
    """Under a flood of writes, each page that the set covers between two syncs faults once."""
    layout, pages, step = Layout([10_000]), 2000, 1000
    writer = moving(uniform(pages), contiguous(0, 10_000), drifting(step, 10_000), 1e8)
    guest = Guest(layout, [writer], RunTime(), Protection(cost_ns=1.0, lazy=lazy))
    nothing = np.full(layout.chunks, -1)
    guest.settle(3 * S + S // 2, nothing)
    assert guest.faults.count == pytest.approx(pages + 3 * step, rel=1e-6)


def test_a_device_that_moves_never_faults() -> None:
    writer = moving(uniform(2000), contiguous(0, 9000), drifting(1000, 9000), 1e8, throttled=False)
    guest = Guest(Layout([9000]), [writer], RunTime(), Protection(cost_ns=1.0))
    guest.settle(3 * S, np.full(1, -1))
    assert guest.faults.count == 0


def test_many_steps_cost_no_more_than_a_few() -> None:
    """A day of 100 ms steps makes as many cells as a minute."""
    drift = drifting(100, 100_000, period_ns=100 * MS)
    writer = moving(uniform(5000), contiguous(0, 100_000), drift)
    guest = Guest(Layout([100_000]), [writer], RunTime())
    writes = guest.writes(0, 86_400 * S)
    assert len(writes.first) <= 1000
    total = float((writes.mean * (writes.last - writes.first)).sum())
    assert total == pytest.approx(86_400 * 1e4, rel=1e-9)
