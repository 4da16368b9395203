"""Does one take of many windows equal those windows, and do many small steps equal one?

The tests compare pages, bytes, bandwidth, threshold, and the times of turns and clears.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.sender.link import Link, Multifd, RecordedLink
from gpusim.sender.sendable_pages import SendablePages
from gpusim.sender.sender import Sender
from tests.sender.fake_pages import FakePages
from tests.sender.senders import (
    MS,
    PAGE,
    S,
    Seen,
    clears_of,
    make_link,
    make_sender,
    real_pages,
    seen,
)

END_NS = 4 * S
MULTIFD = [
    Multifd(
        channels=2, page_bytes=PAGE, queue_ns=190.0, find_zero_pages=old, sync_every_section=old
    )
    for old in (False, True)
]
links = st.builds(
    make_link,
    st.one_of(st.floats(1e4, 1e12), st.sampled_from([1.25e8, 1.25e9, 15e9])),
    zero_page_ns=st.sampled_from([0.0, 300.0, 2048.0, 1e6]),
    page_cost_ns=st.sampled_from([0.0, 500.0, 3e4, 6e7]),
    zero_page_bytes=st.sampled_from([0, 9, 9]),
    wakeup_latency_ns=st.sampled_from([0, 50_000, 3 * MS]),
    multifd=st.sampled_from([None, None, *MULTIFD]),
    clear_ns=st.sampled_from([0.0, 0.0, 1e5, 3e7, 3e8]),
    protect_ns=st.sampled_from([0.0, 13.4, 1e4]),
)
limits = st.one_of(st.just(0), st.integers(10, 10**4), st.integers(10**6, 10**11))
stalls = st.lists(
    st.tuples(st.integers(0, END_NS), st.integers(0, 400 * MS)),
    max_size=4,
    unique_by=lambda s: s[0],
).map(sorted)


@dataclass
class Trace:
    """Everything that a sender does until END_NS: its state at each stop, turns, clears."""

    stops: list[Seen] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    clears: list[tuple[int, int]] = field(default_factory=list)


def trace(
    sender: Sender,
    pages: SendablePages,
    stalls: list[tuple[int, int]],
    *,
    interruptions: list[int] = (),  # type: ignore[assignment]
    redirtied: int = 0,
    max_turns: int = 6,
) -> Trace:
    """Advance from stall to stall, and stop at interruptions. Each turn makes some pages dirty."""
    found, lengths = Trace(), dict(stalls)
    for stop_ns in sorted({*lengths, *interruptions, END_NS}):
        while (advanced := sender.advance(stop_ns, pages)).turn:
            found.clears += clears_of(advanced)
            found.turns.append(advanced.at_ns)
            if len(found.turns) == max_turns or not isinstance(pages, FakePages):
                return found
            pages.dirty(redirtied)
            if not pages.pending:
                return found
            sender.iterate()
        found.clears += clears_of(advanced)
        if stop_ns in lengths:
            found.stops.append(seen(sender, pages))
            sender.stall_until(stop_ns + lengths[stop_ns])
    found.stops.append(seen(sender, pages))
    return found


@settings(deadline=None, max_examples=150)
@given(
    link=links,
    max_bandwidth=limits,
    flushed=st.booleans(),
    runs=st.lists(st.tuples(st.booleans(), st.integers(1, 10**8)), min_size=1, max_size=4),
    stalls=stalls,
    redirtied=st.integers(0, 10**6),
)
def test_a_jump_equals_its_windows(
    *,
    link: Link,
    max_bandwidth: int,
    flushed: bool,
    runs: list[tuple[bool, int]],
    stalls: list[tuple[int, int]],
    redirtied: int,
) -> None:
    traces, takes = [], []
    for shortsighted in (False, True):
        sender = make_sender(link, max_bandwidth, flushed=flushed)
        pages = FakePages(runs, clear_every=10**7, shortsighted=shortsighted)
        traces.append(trace(sender, pages, stalls, redirtied=redirtied))
        takes.append(len(pages.takes))
    assert traces[0] == traces[1]
    assert takes[0] <= takes[1]


def test_that_comparison_is_one_take_against_many() -> None:
    takes = []
    for shortsighted in (False, True):
        sender = make_sender(make_link(), 104_857_600)
        pages = FakePages([(False, 10**6)], clear_every=2**18, shortsighted=shortsighted)
        trace(sender, pages, [])
        takes.append(len(pages.takes))
    assert takes[0] <= 2
    assert takes[1] >= 40


def test_no_jump_passes_over_the_turn_that_the_last_windows_threshold_makes_act() -> None:
    """Zero pages follow normal ones, so that the old threshold is large and the new one small."""
    link, burst = (
        make_link(1.25e9, zero_page_ns=2048),
        15_553,
    )  # pages in 51 ms, checked every 64 pages
    traces = []
    for shortsighted in (False, True):
        sender = make_sender(link, downtime_s=3)
        last_window = int(2 * (burst * 4104 + 18) / (2 * burst * 3.2832e-6) * 3) // 4096
        pages = FakePages(
            [(False, 2 * burst), (True, last_window + 100)], shortsighted=shortsighted
        )
        traces.append(trace(sender, pages, []))
    assert traces[0] == traces[1]
    assert traces[0].turns[0] < 160 * MS  # the second turn of the first window of zero pages


def assert_steps_are_one(
    link: Link,
    max_bandwidth: int,
    runs: list[tuple[bool, int]],
    stalls: list[tuple[int, int]],
    interruptions: list[int],
    redirtied: int,
) -> None:
    """Check that stops on the way change nothing."""
    whole, cut = (
        trace(
            make_sender(link, max_bandwidth),
            FakePages(runs, clear_every=1000),
            stalls,
            interruptions=stops,
            redirtied=redirtied,
        )
        for stops in ([], interruptions)
    )
    assert whole == cut


@settings(deadline=None, max_examples=150)
@given(
    link=links,
    max_bandwidth=limits,
    runs=st.lists(st.tuples(st.booleans(), st.integers(1, 10**6)), min_size=1, max_size=5),
    stalls=stalls,
    interruptions=st.lists(st.integers(0, END_NS), max_size=30),
    redirtied=st.integers(0, 10**5),
)
def test_many_small_steps_equal_one(
    *,
    link: Link,
    max_bandwidth: int,
    runs: list[tuple[bool, int]],
    stalls: list[tuple[int, int]],
    interruptions: list[int],
    redirtied: int,
) -> None:
    assert_steps_are_one(link, max_bandwidth, runs, stalls, interruptions, redirtied)


@settings(deadline=None, max_examples=40)
@given(
    link=links,
    max_bandwidth=limits,
    blocks=st.lists(st.integers(1, 2**19), min_size=1, max_size=3),
    stalls=stalls,
    interruptions=st.lists(st.integers(0, END_NS), max_size=8),
)
def test_many_small_steps_equal_one_over_real_pages(
    *,
    link: Link,
    max_bandwidth: int,
    blocks: list[int],
    stalls: list[tuple[int, int]],
    interruptions: list[int],
) -> None:
    """Without zero pages, because a burst of mixed pages is only exact to a flush."""
    traces = []
    for stops in ([], interruptions):
        pages = real_pages(blocks, lazy=True)
        pages.start()
        found = trace(make_sender(link, max_bandwidth), pages, stalls, interruptions=stops)
        traces.append((found, pages.cursor.guest_page, pages.cursor.wraps))
    assert traces[0] == traces[1]


@settings(deadline=None, max_examples=40)
@given(
    gains=st.lists(st.integers(0, 10**8), min_size=4, max_size=4),
    pages=st.integers(1, 10**5),
    stalls=stalls,
    interruptions=st.lists(st.integers(0, END_NS), max_size=20),
)
def test_many_small_steps_equal_one_on_a_recorded_link(
    gains: list[int], pages: int, stalls: list[tuple[int, int]], interruptions: list[int]
) -> None:
    record = RecordedLink(np.arange(5) * S, np.concatenate([[0.0], np.cumsum(gains)]))
    whole, cut = (
        trace(
            make_sender(make_link(recorded=record)),
            FakePages([(False, pages)], clear_every=1000),
            stalls,
            interruptions=stops,
        )
        for stops in ([], interruptions)
    )
    assert whole == cut
