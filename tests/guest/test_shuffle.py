"""Is shuffled heat the same heat in other places?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusim.guest.guest import Guest
from gpusim.guest.pattern import Random, hot_cold, shuffled, zipf
from gpusim.guest.placement import contiguous, scattered
from gpusim.guest.run_time import RunTime
from gpusim.layout import CHUNK_PAGES, FloatArray, Layout
from gpusim.stream import Purpose, Stream
from gpusim.units import NS_PER_S
from tests.guest.naive import SLOW_MACHINE, place_stream
from tests.guest.test_writes import assert_well_formed, cpu_bound, mean_of_pages

PATTERNS = st.one_of(
    st.builds(zipf, st.integers(1, 5000), st.floats(0, 3)),
    st.integers(2, 5000).flatmap(
        lambda pages: st.builds(
            hot_cold, st.just(pages), st.integers(1, pages - 1), st.floats(0, 1)
        )
    ),
)


def mixed(pattern: Random, seed: int = 1) -> Random:
    return shuffled(pattern, Stream(seed, 0, Purpose.HEAT))


def per_page(pattern: Random) -> FloatArray:
    """Return each page's share of the writes."""
    first, last, density = pattern.runs()
    assert np.array_equal(first[1:], last[:-1])
    assert first[0] == 0
    return np.repeat(density, last - first)


@given(PATTERNS, st.integers(0, 99))
@SLOW_MACHINE
def test_every_band_keeps_its_pages(pattern: Random, seed: int) -> None:
    assert np.array_equal(np.sort(per_page(mixed(pattern, seed))), np.sort(per_page(pattern)))


@pytest.mark.parametrize("writes", [1e3, 1e5, 1e7])
def test_as_many_pages_are_written_as_without(writes: float) -> None:
    pattern = zipf(100_000, 1.0)
    expected, found = (
        float(-np.expm1(-writes * per_page(p)).sum()) for p in (pattern, mixed(pattern))
    )
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "pattern", [zipf(2**18, 1.0), zipf(2**18, 0.5), hot_cold(2**18, 2**15, 0.9)]
)
def test_heat_does_not_depend_on_the_address(pattern: Random) -> None:
    """Each of 32 regions is as hot as the others, but for the few hottest pages."""
    heat = per_page(mixed(pattern))
    hottest = np.sort(heat)[-1024]
    regions = np.minimum(heat, hottest).reshape(32, -1).mean(axis=1)
    assert regions == pytest.approx(np.full(32, regions.mean()), rel=0.05)
    # A region's own heat is not ordered by address either.
    clipped = np.minimum(heat, hottest)
    assert abs(np.corrcoef(clipped, np.arange(len(heat)))[0, 1]) < 0.05


def test_the_seed_decides_where_the_heat_is() -> None:
    one, same, other = (per_page(mixed(zipf(10_000, 1.0), seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("granule", [None, 8])
def test_a_guest_writes_each_page_by_its_heat(granule: int | None) -> None:
    layout, pages = Layout((CHUNK_PAGES + 60, 5000)), 4000
    placement = contiguous(CHUNK_PAGES - 1000, pages)
    if granule is not None:
        placement = scattered(layout.pages, pages, granule, place_stream(1))
    pattern = mixed(zipf(pages, 1.0))
    writes = Guest(layout, [cpu_bound(pattern, placement, 1e5)], RunTime()).writes(0, NS_PER_S)
    assert_well_formed(writes)
    expected, heat = np.zeros(layout.pages), per_page(pattern)
    own_first, own_last, guest = placement.locate(0, pages)
    for low, high, start in zip(own_first, own_last, guest, strict=True):
        expected[start : start + high - low] = 1e5 * heat[low:high]
    assert np.allclose(mean_of_pages(layout, writes), expected, rtol=1e-9, atol=0)
