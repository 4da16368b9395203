"""Does a link that changes its bandwidth send the integral of its bandwidths?

The references are that integral in floats, and a link that never changes.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.sender.link import Link
from tests.sender.fake_pages import FakePages
from tests.sender.senders import MS, NORMAL_BYTES, S, make_link, make_sender, seen
from tests.sender.test_jump import END_NS, assert_steps_are_one, limits, links, stalls, trace

PACES = st.sampled_from([1.25e7, 1e8, 1.25e8, 7.3e8, 1.25e9, 1.25e10])
changes = st.lists(
    st.tuples(st.integers(0, END_NS), PACES), max_size=5, unique_by=lambda change: change[0]
).map(lambda some: tuple(sorted(some)))


def integral(link: Link, until_ns: int) -> float:
    """The integral of the bandwidths in bytes."""
    steps = [(0, link.bandwidth), *link.changes, (until_ns, 0.0)]
    return sum(
        pace * max(0, min(b[0], until_ns) - a) / S for (a, pace), b in itertools.pairwise(steps)
    )


@settings(deadline=None, max_examples=100)
@given(
    link=links,
    times=st.lists(st.integers(0, END_NS), max_size=5, unique=True).map(sorted),
    max_bandwidth=limits,
    runs=st.lists(st.tuples(st.booleans(), st.integers(1, 10**7)), min_size=1, max_size=4),
    stalls=stalls,
    redirtied=st.integers(0, 10**5),
)
def test_a_change_to_the_same_pace_changes_nothing(
    *,
    link: Link,
    times: list[int],
    max_bandwidth: int,
    runs: list[tuple[bool, int]],
    stalls: list[tuple[int, int]],
    redirtied: int,
) -> None:
    same = replace(link, changes=tuple((at_ns, link.bandwidth) for at_ns in times))
    traces = [
        trace(
            make_sender(one, max_bandwidth),
            FakePages(runs, clear_every=1000),
            stalls,
            redirtied=redirtied,
        )
        for one in (link, same)
    ]
    assert traces[0] == traces[1]


@settings(deadline=None, max_examples=100)
@given(
    first=PACES,
    changes=changes,
    until_ns=st.integers(1, END_NS),
    stops=st.lists(st.integers(0, END_NS), max_size=10),
)
def test_bytes_sent_are_the_integral_of_the_pace(
    first: float, changes: tuple[tuple[int, float], ...], until_ns: int, stops: list[int]
) -> None:
    """Never more. Less by at most one page per change and one on the link, and rounding to ps."""
    link = make_link(first, changes=changes)
    sender = make_sender(link)
    pages = FakePages([(False, 10**9)])
    for stop_ns in (*sorted(stop for stop in stops if stop < until_ns), until_ns):
        sender.advance(stop_ns, pages)
    wanted = integral(link, until_ns) / NORMAL_BYTES
    assert (
        wanted * (1 - 1e-5) - 1 - len(changes)
        <= sender.counters.normal_pages
        <= wanted * (1 + 1e-5) + 1e-6
    )


@settings(deadline=None, max_examples=100)
@given(
    link=links,
    changes=changes,
    max_bandwidth=limits,
    runs=st.lists(st.tuples(st.booleans(), st.integers(1, 10**6)), min_size=1, max_size=5),
    stalls=stalls,
    interruptions=st.lists(st.integers(0, END_NS), max_size=30),
    redirtied=st.integers(0, 10**5),
)
def test_many_small_steps_equal_one_on_a_changing_link(
    *,
    link: Link,
    changes: tuple[tuple[int, float], ...],
    max_bandwidth: int,
    runs: list[tuple[bool, int]],
    stalls: list[tuple[int, int]],
    interruptions: list[int],
    redirtied: int,
) -> None:
    link = replace(link, changes=changes)
    assert_steps_are_one(link, max_bandwidth, runs, stalls, interruptions, redirtied)


@settings(deadline=None, max_examples=100)
@given(
    first=PACES,
    changes=changes,
    max_bandwidth=limits,
    runs=st.lists(st.tuples(st.booleans(), st.integers(1, 10**7)), min_size=1, max_size=4),
    stalls=stalls,
)
def test_a_jump_equals_its_windows_on_a_changing_link(
    *,
    first: float,
    changes: tuple[tuple[int, float], ...],
    max_bandwidth: int,
    runs: list[tuple[bool, int]],
    stalls: list[tuple[int, int]],
) -> None:
    traces, takes = [], []
    for shortsighted in (False, True):
        sender = make_sender(make_link(first, changes=changes), max_bandwidth)
        pages = FakePages(runs, clear_every=10**6, shortsighted=shortsighted)
        traces.append(trace(sender, pages, stalls))
        takes.append(len(pages.takes))
    assert traces[0] == traces[1]
    assert takes[0] <= takes[1]


def test_cost_follows_changes_not_seconds() -> None:
    link = make_link(1.25e9, changes=tuple((at * 100 * S, 1e9 - at) for at in range(1, 5)))
    pages = FakePages([(False, 10**10)])
    make_sender(link).advance(1000 * S, pages)
    assert len(pages.takes) < 50


def test_a_burst_under_way_uses_the_new_pace() -> None:
    """1 Gbit/s, and 1 % of it from 20 ms on: a page takes 3.2832 ms instead of 32.832 us.

    609 pages are sent by then. The burst reads the clock after page 641. This is later than 51 ms
    and than 100 ms, so the burst ends and the window closes.
    """
    sender = make_sender(make_link(1.25e8, changes=((20 * MS, 1.25e6),)))
    pages = FakePages([(False, 10**6)])
    sent_ns = 20 * MS + (641 - 20 * MS // 32_832) * 3_283_200
    sender.advance(sent_ns - 1, pages)
    assert (sender.counters.normal_pages, sender.bandwidth) == (640, 0)
    sender.advance(sent_ns, pages)
    assert sender.counters.normal_pages == 641
    assert sender.bandwidth == pytest.approx((641 * NORMAL_BYTES + 18) * S / sent_ns)


@settings(deadline=None, max_examples=100)
@given(
    first=PACES,
    changes=changes,
    from_ns=st.integers(0, END_NS),
    pages=st.integers(0, 10**6),
)
def test_a_drain_takes_the_integral_of_the_paces(
    first: float, changes: tuple[tuple[int, float], ...], from_ns: int, pages: int
) -> None:
    link = make_link(first, changes=changes)
    left = FakePages([(False, pages)])
    sender = make_sender(link)
    sender.stall(0, from_ns)
    duration_ns = sender.drain(left)
    sent = integral(link, from_ns + duration_ns) - integral(link, from_ns)
    assert left.pending == 0
    assert pages * (1 - 1e-5) - 1 <= sent / NORMAL_BYTES <= pages * (1 + 1e-5) + 1 + len(changes)


def test_a_drain_starts_at_the_pace_of_the_sender() -> None:
    link = make_link(1.25e9, changes=((10 * MS, 1.25e8),))
    sender, pages = make_sender(link), FakePages([(False, 10**6)])
    sender.advance(50 * MS, pages)
    left = seen(sender, pages).pending
    assert sender.drain(pages) == pytest.approx(left * 32_832, abs=1)
