"""Do places, order, shares and bytes of every evacuation agree, and is each guest a run?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim import (
    Evacuation,
    GuestConfig,
    LimitConfig,
    TrackingConfig,
    evacuate,
    simulate,
)
from gpusim.engine.evacuation_guests import ORDERS
from tests.engine.evacuation.hosts import busy, host, idle

PAGE = 4104

guest = st.one_of(
    st.builds(idle, st.sampled_from(["16MiB", "64MiB", "96MiB"]), st.integers(1, 2)),
    st.builds(busy, st.sampled_from(["32MiB", "64MiB"]), st.sampled_from([1e2, 1e4, 4e4])),
)
guests = st.dictionaries(st.sampled_from("abcde"), guest, min_size=1, max_size=4)
paces = st.sampled_from(
    [None, [[0.5, "40MB/s"]], [["300ms", "200MB/s"], [1, "50MB/s"], [2, "1GB/s"]]]
)


def spans(evacuation: Evacuation) -> Iterator[tuple[float, float]]:
    for one in evacuation.guests:
        yield one.start_s, one.end_s


def pace_by(evacuation: Evacuation, time_s: float) -> float:
    """Return the bytes that the link can send by a time."""
    steps = [*evacuation.link_bandwidth, (time_s, 0.0)]
    return sum(
        pace * max(0.0, min(b[0], time_s) - at) for (at, pace), b in itertools.pairwise(steps)
    )


@settings(deadline=None, max_examples=25)
@given(
    named=guests,
    at_a_time=st.integers(1, 6),
    order=st.sampled_from(sorted(ORDERS)),
    changes=paces,
)
def test_invariants(
    named: dict[str, GuestConfig],
    at_a_time: int,
    order: str,
    changes: list[list[object]] | None,
) -> None:
    result = evacuate(host(named, at_a_time, order, changes=changes))
    count = sum(one.count for one in named.values())
    assert len(result.guests) == result.summary.guests == count
    starts = [start for start, _ in spans(result)]
    assert starts == sorted(starts)
    for at_s in {border for span in spans(result) for border in span}:
        active = sum(start <= at_s < end for start, end in spans(result))
        assert active <= at_a_time
        waiting = sum(start > at_s for start in starts)
        assert not waiting or active == at_a_time  # no place stays free while a guest waits
    assert result.summary.simulated_runs <= count * min(at_a_time, count)
    assert result.summary.total_time_s == max(end for _, end in spans(result))
    assert_shares_fit_the_link(result)
    assert_bytes_fit_the_link(result)


def assert_shares_fit_the_link(result: Evacuation) -> None:
    """Check that the shares add up to the link whenever a guest is active."""
    moments = sorted({border for span in spans(result) for border in span})
    for low, high in itertools.pairwise(moments):
        at_s = (low + high) / 2
        given_ = 0.0
        for one in result.guests:
            if one.start_s <= at_s < one.end_s:
                share = float(one.config.link.bandwidth)
                for change_s, later in one.config.link.changes or []:
                    share = float(later) if change_s <= at_s - one.start_s else share
                given_ += share
        link = next(p for t, p in reversed(result.link_bandwidth) if t <= at_s)
        assert given_ == np.float64(link).item() or abs(given_ - link) < 1e-6 * link


def assert_bytes_fit_the_link(result: Evacuation) -> None:
    """Check that in any interval all guests together send no more than the link can.

    The bytes change linearly between two samples. A sample inside a burst is off by a page.
    """
    times = np.linspace(0, result.summary.total_time_s, 50)
    sent = sum(
        np.interp(
            times,
            [one.start_s + sample.time_s for sample in one.result.samples],
            [sample.transferred_bytes for sample in one.result.samples],
        )
        for one in result.guests
    )
    there = np.array([pace_by(result, time_s) for time_s in times])
    framing = 18 * 20 * np.diff(times) + (2 * PAGE + 18) * len(result.guests)
    fits = np.diff(sent) <= np.diff(there) * (1 + 1e-5) + framing
    for one in result.guests:  # a change during the downtime has no sample
        stop_s = one.end_s - (one.result.summary.downtime_ms or 0) / 1e3
        fits |= (times[1:] >= stop_s) & (times[:-1] <= one.end_s)
    assert fits.all()
    assert sent[-1] <= there[-1] * (1 + 1e-5) + 18 * 20 * (times[-1] + 1) * len(result.guests)


@settings(deadline=None, max_examples=10)
@given(named=guests, at_a_time=st.integers(1, 6), changes=paces)
def test_a_guests_config_alone_gives_its_result(
    named: dict[str, GuestConfig], at_a_time: int, changes: list[list[object]] | None
) -> None:
    """The config.json of guests/NAME repeats that guest's migration."""
    for one in evacuate(host(named, at_a_time, changes=changes)).guests:
        alone = simulate(one.config)
        assert (alone.syncs, alone.events) == (one.result.syncs, one.result.events)


@settings(deadline=None, max_examples=10)
@given(named=guests, at_a_time=st.integers(1, 6))
def test_a_later_guest_does_not_change_earlier_ones(
    named: dict[str, GuestConfig], at_a_time: int
) -> None:
    """One more guest at the end of the list does not change guests that ended before it starts."""
    shorter = evacuate(host(named, at_a_time))
    longer = evacuate(host({**named, "z": idle("96MiB")}, at_a_time))
    last_s = next(one.start_s for one in longer.guests if one.name == "z")
    before = {one.name: one for one in longer.guests}
    for one in shorter.guests:
        if one.end_s < last_s:
            assert before[one.name] == one.__class__(
                **{**vars(one), "result": before[one.name].result}
            )
            assert before[one.name].result.syncs == one.result.syncs


@pytest.mark.parametrize("channels", [0, 255])
@pytest.mark.parametrize("bandwidth", ["10Gbit/s", 1e15, 3e14])
def test_no_link_is_used_more_than_it_can_be(channels: int, bandwidth: float | str) -> None:
    """In QEMU 7.2 a sync of 255 channels adds 343 kB to each burst, even to one of few pages."""
    guests = {name: idle("64KiB", count=2) for name in "ab"}
    crowd = host(guests, at_a_time=3)
    crowd.link = replace(crowd.link, bandwidth=bandwidth)
    crowd.migration = replace(crowd.migration, version="qemu_7_2", multifd_channels=channels)
    summary = evacuate(crowd).summary
    assert summary.link_used_percent is not None
    assert 0 < summary.link_used_percent <= 100


@pytest.mark.parametrize("limit_s", [1e-6, 5e-3, 8e-3, 13e-3])
def test_no_link_has_carried_a_page_that_the_end_of_the_run_cuts(limit_s: float) -> None:
    """Each guest has half of 100 Mbit/s, and the page behind the first clear takes 11 ms."""
    crowd = host({name: idle("1MiB") for name in "ab"}, at_a_time=2)
    crowd.link = replace(crowd.link, bandwidth="100Mbit/s", page_header_bytes=65536)
    crowd.tracking = TrackingConfig(mode="kvm_manual", remote_clear_us=20)
    crowd.limit = LimitConfig(simulated=limit_s)
    evacuation = evacuate(crowd)
    sent = [guest.result.summary.normal_pages for guest in evacuation.guests]
    assert sent == [int(limit_s > 0.011), int(limit_s > 0.011)]
    assert evacuation.summary.link_used_percent is not None
    assert evacuation.summary.link_used_percent <= 100
