"""Do pages that are tracked as one add up their writes, and fault once?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.guest.faults import Protection
from gpusim.guest.guest import Guest
from gpusim.guest.pace import CpuBound
from gpusim.guest.pattern import Random, Sequential, hot_cold, uniform, zipf
from gpusim.guest.placement import contiguous, scattered
from gpusim.guest.run_time import RunTime
from gpusim.guest.writer import Writer
from gpusim.layout import CHUNK_PAGES, FloatArray, Layout, Writes
from gpusim.units import NS_PER_S
from tests.guest.naive import SLOW_MACHINE, place_stream

LAYOUT = Layout([CHUNK_PAGES + 4096, 8192, 256])
RATE = 1e5
NOTHING_CLEARED = np.full(LAYOUT.chunks, -1, np.int64)


def writer(pattern: Random | Sequential, pages: int, start: int) -> Writer:
    return Writer(
        name="w",
        pattern=pattern,
        pace=CpuBound(RATE),
        placement=contiguous(start, pages),
        windows=None,
        throttled=True,
        vcpus=1,
    )


def per_page(writes: Writes) -> FloatArray:
    """Return the expected writes of each slot, page by page. Infinity: certainly written."""
    mean = np.zeros(LAYOUT.chunks * CHUNK_PAGES)
    for first, last, one in zip(writes.first, writes.last, writes.mean, strict=True):
        mean[first:last] += one
    for first, last in zip(writes.certain_first, writes.certain_last, strict=True):
        mean[first:last] = np.inf
    return mean


PATTERNS = st.sampled_from([
    (uniform(1), 1), (uniform(700), 700), (hot_cold(9000, 13, 0.8), 9000), (zipf(3001, 1.0), 3001),
    (Sequential(5000, 3, 777), 5000), (uniform(CHUNK_PAGES), CHUNK_PAGES),
])  # fmt: skip


@given(st.lists(st.tuples(PATTERNS, st.integers(0, 12_000)), min_size=1, max_size=4),
       st.sampled_from([2, 16, 256]), st.booleans())  # fmt: skip
@settings(SLOW_MACHINE, max_examples=40)
def test_groups_add_up_their_pages(
    places: list[tuple[tuple[Random | Sequential, int], int]], size: int, is_scattered: bool
) -> None:
    writers = [writer(pattern, pages, start) for (pattern, pages), start in places]
    if is_scattered:
        pages = places[0][0][1]
        placed = scattered(LAYOUT.pages // 4, min(pages, 60_000), 8, place_stream(5))
        writers[0] = replace(writers[0], placement=placed)
    until_ns = NS_PER_S // 50
    pages_alone = per_page(Guest(LAYOUT, writers, RunTime()).writes(0, until_ns))
    writes = Guest(LAYOUT, writers, RunTime(), pages_together=size).writes(0, until_ns)
    assert writes.pages_together == size
    for edge in (writes.first, writes.last, writes.certain_first, writes.certain_last):
        assert (edge % size == 0).all()
    expected = np.repeat(pages_alone.reshape(-1, size).sum(axis=1), size)
    np.testing.assert_allclose(per_page(writes), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("cost_ns", [0.0, 20_000.0])
def test_a_group_faults_once(cost_ns: float) -> None:
    """1000 groups of a random writer, and a sequential one that passes half of its groups."""
    size, protection = 16, Protection(cost_ns=cost_ns)
    random = writer(uniform(16_000), 16_000, 0)
    guest = Guest(LAYOUT, [random], RunTime(), protection, pages_together=size)
    guest.settle(NS_PER_S // 20, NOTHING_CLEARED)
    done = float(random.writes(np.array([NS_PER_S // 20]), guest.faults.clocks[0])[0])
    assert guest.faults.count == pytest.approx(1000 * -np.expm1(-done / 1000))
    assert done == pytest.approx((NS_PER_S // 20 - cost_ns * guest.faults.count) * RATE / NS_PER_S)
    ordered = writer(Sequential(16_000, 1, 0), 16_000, 0)
    guest = Guest(LAYOUT, [ordered], RunTime(), pages_together=size)
    guest.settle(8 * NS_PER_S // 100, NOTHING_CLEARED)
    assert guest.faults.count == pytest.approx(500)
