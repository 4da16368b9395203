"""Multifd: packets and headers, the cost shared by threads, syncs, the rate limit's lag."""

from __future__ import annotations

import heapq
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.pages.pages import Pages
from gpusim.sender.link import Link, Multifd
from tests.sender.fake_pages import FakePages
from tests.sender.senders import (
    GBIT,
    MS,
    PAGE,
    SECTION_BYTES,
    S,
    make_link,
    make_sender,
    real_pages,
    when_done,
)

HEADER = 1344  # 320 bytes, and 8 bytes for each of 128 pages
PACKET = 128
PAYLOAD = PACKET * PAGE
FLUSH_RECORD = 8
MANY = 10**9


def multifd(
    channels: int,
    *,
    queue_ns: float = 0.0,
    find_zero_pages: bool = True,
    sync_every_section: bool = False,
    page_bytes: int = PAGE,
) -> Multifd:
    return Multifd(
        channels=channels,
        page_bytes=page_bytes,
        queue_ns=queue_ns,
        find_zero_pages=find_zero_pages,
        sync_every_section=sync_every_section,
    )


def link_of(channels: int, bandwidth: float = math.inf, **costs: float) -> Link:
    queue_ns = costs.pop("queue_ns", 0.0)
    return make_link(bandwidth, multifd=multifd(channels, queue_ns=queue_ns), **costs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("page_bytes", "pages", "header"), [(4096, 128, 1344), (65536, 8, 384), (8192, 64, 832)]
)
def test_a_packet_holds_512_kib_and_a_header_that_has_room_for_all_its_pages(
    page_bytes: int, pages: int, header: int
) -> None:
    one = multifd(2, page_bytes=page_bytes)
    assert (one.packet_pages, one.header_bytes) == (pages, header)
    assert one.header_units * pages == header * 128  # the shares have no remainder


@pytest.mark.parametrize("packets", [1, 3, 1000])
def test_bytes_of_packets(packets: int) -> None:
    """A normal page needs header and payload, a zero page only its place in the header."""
    for is_zero, each in ((False, HEADER + PAYLOAD), (True, HEADER)):
        sender = make_sender(link_of(2, 10 * GBIT, zero_page_ns=100.0))
        pages = FakePages([(is_zero, packets * PACKET)])
        sender.drain(pages)
        assert sender.counters.transferred_bytes == packets * each


def test_before_9_0_a_zero_page_is_a_record_on_the_main_channel() -> None:
    link = make_link(
        10 * GBIT, zero_page_ns=2048.0, multifd=multifd(8, queue_ns=190.0, find_zero_pages=False)
    )
    sender = make_sender(link)
    took_ns = sender.drain(FakePages([(True, 10**6)]))
    assert sender.counters.transferred_bytes == 9 * 10**6
    assert took_ns == (2048 + 190) * 10**6  # one thread finds and detects all of them


@pytest.mark.parametrize(
    ("channels", "page_ns"),
    [
        (1, 2580.0),  # one channel is as fast as the migration thread
        (2, 1290.0),
        (4, 645.0),
        (8, (PAGE + 10.5) / 12.5),  # the threads need 322.5 ns, so the link is slower
        (64, (PAGE + 10.5) / 12.5),
    ],
)
def test_channels_share_the_cost_of_a_page_until_the_link_is_full(
    channels: int, page_ns: float
) -> None:
    link = link_of(channels, 100 * GBIT, page_cost_ns=2580.0, queue_ns=190.0)
    took_ns = make_sender(link).drain(FakePages([(False, 10**6)]))
    assert took_ns == pytest.approx(page_ns * 10**6, rel=1e-6)


@pytest.mark.parametrize(("channels", "page_ns"), [(1, 2048.0), (4, 512.0), (64, 190.0)])
def test_channels_share_the_search_for_zero_pages_that_one_thread_hands_out(
    channels: int, page_ns: float
) -> None:
    link = link_of(channels, 100 * GBIT, zero_page_ns=2048.0, queue_ns=190.0)
    assert make_sender(link).drain(FakePages([(True, 10**6)])) == page_ns * 10**6


@settings(deadline=None, max_examples=60)
@given(
    channels=st.integers(1, 16),
    wire_ns=st.floats(50, 4000),
    cost_ns=st.floats(10, 4000),
    queue_ns=st.floats(10, 400),
)
def test_a_naive_loop_over_packets_takes_as_long(
    channels: int, wire_ns: float, cost_ns: float, queue_ns: float
) -> None:
    """One thread fills packets and waits if no channel is idle. All channels share one link."""
    packets = 400
    filled = wire_free = 0.0
    idle_from = [0.0] * channels
    for _ in range(packets):
        filled += PACKET * queue_ns
        given_ns = max(filled, heapq.heappop(idle_from))
        filled = given_ns  # the thread fills the next packet after a channel has taken this one
        wire_free = max(wire_free, given_ns) + PACKET * wire_ns
        heapq.heappush(idle_from, max(given_ns + PACKET * cost_ns, wire_free))
    link = link_of(channels, (PAGE + 10.5) / wire_ns * 1e9, page_cost_ns=cost_ns, queue_ns=queue_ns)
    ours = make_sender(link).drain(FakePages([(False, packets * PACKET)]))
    beginning_and_end_ns = PACKET * (wire_ns + cost_ns + queue_ns)
    assert ours - 1000 <= max(idle_from) <= ours + beginning_and_end_ns


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_the_rate_limit_does_not_see_what_is_in_flight(channels: int) -> None:
    """A window ends when the written packets exceed the budget."""
    budget, packet = 13_421_772, HEADER + PAYLOAD
    queued = written = 0
    while written * packet <= budget:
        queued += 1
        written = max(0, queued - channels)
    sender = make_sender(link_of(channels), 134_217_728)
    sender.advance(100 * MS - 1, FakePages([(False, MANY)]))
    assert sender.counters.normal_pages == queued * PACKET
    assert sender.counters.transferred_bytes == queued * packet + SECTION_BYTES


def test_a_sync_in_a_burst_sees_the_packets_that_have_been_written() -> None:
    sender = make_sender(link_of(2, GBIT))
    sender.advance(40 * MS, FakePages([(False, MANY)]))
    sent = sender.counters.normal_pages
    assert sender.flushed_bytes * 128 == (sent // PACKET - 2) * PACKET * (PAGE * 128 + HEADER)


def dirty_again(pages: Pages, count: int) -> None:
    """Make the first pages of the VM dirty. `count` is a multiple of 64."""
    pages.kernels.dirty[0, : count // 64] = ~np.uint64(0)  # type: ignore[attr-defined]
    pages.counts.normal[0] += count
    pages.counts.total += count


def test_the_channels_sync_when_the_cursor_wraps() -> None:
    """A sync is an empty packet per channel, a record on the main channel, and a packet's time."""
    pages, rest = real_pages([PACKET * 10]), PACKET * 4
    link = link_of(3, 10 * GBIT, queue_ns=190.0)
    sender = make_sender(link)
    pages.take([(PACKET * 6, 1, 1)])  # the cursor stands behind these pages
    dirty_again(pages, rest)
    took_ns = sender.drain(pages)
    sync_bytes = 3 * HEADER + FLUSH_RECORD
    packets = 8  # 4 ahead of the cursor, 4 behind it
    assert sender.counters.transferred_bytes == packets * (HEADER + PAYLOAD) + sync_bytes
    page_ns = (PAGE + 10.5) / 1.25
    assert took_ns == pytest.approx(packets * PACKET * page_ns + PACKET * 190.0, abs=2)
    assert pages.cursor.wraps == 1


@pytest.mark.parametrize("every_ns", [1000, 7000])
def test_stops_before_the_first_page_behind_the_wrap_change_nothing(every_ns: int) -> None:
    """The sync at the end of RAM takes 24 us, and is counted once however often the sender stops."""

    def counters(stops: range) -> tuple[int, int]:
        pages = real_pages([PACKET * 10])
        pages.take([(PACKET * 6, 1, 1)])
        dirty_again(pages, PACKET * 4)
        sender = make_sender(link_of(3, 10 * GBIT, queue_ns=190.0), acts=when_done)
        for at_ns in (*stops, MS * 100):
            done = sender.advance(at_ns, pages)
        assert done.turn
        return done.at_ns, sender.counters.transferred_bytes

    assert counters(range(every_ns, 10 * MS, every_ns)) == counters(range(0))


def test_a_burst_continues_when_the_cursor_wraps() -> None:
    """Pages before and behind the cursor are sent in one burst, which is one section."""
    pages = real_pages([PACKET * 10])
    pages.take([(PACKET * 6, 1, 1)])
    dirty_again(pages, PACKET * 4)
    sender = make_sender(link_of(3, 10 * GBIT), acts=when_done)
    assert sender.advance(S, pages).turn
    sync_bytes = 3 * HEADER + FLUSH_RECORD
    assert sender.counters.transferred_bytes == 8 * (HEADER + PAYLOAD) + sync_bytes + SECTION_BYTES


def test_before_8_1_they_sync_at_the_end_of_every_section() -> None:
    link = make_link(multifd=multifd(2, sync_every_section=True))
    sender = make_sender(link, 104_857_600)
    sender.advance(3 * 100 * MS - 1, FakePages([(False, MANY)]))
    windows, sections = 3, 3
    packets = 10_485_760 // (HEADER + PAYLOAD) + 1 + 2
    expected = windows * packets * (HEADER + PAYLOAD) + sections * (SECTION_BYTES + 2 * HEADER)
    assert sender.counters.transferred_bytes == expected


@pytest.mark.parametrize("pages", [PACKET * 3 + 17, 1])
def test_transferred_bytes_are_whole_and_no_byte_is_lost(pages: int) -> None:
    """A packet that is not full counts by its pages, without the rest of its header."""
    sender = make_sender(link_of(2, 10 * GBIT))
    sender.drain(FakePages([(False, pages)]))
    exact = pages * PAGE + pages * HEADER / PACKET
    assert sender.counters.transferred_bytes == math.floor(exact)


def test_the_migration_thread_alone() -> None:
    one = make_sender(make_link(10 * GBIT, page_cost_ns=2580.0))
    one.advance(S, FakePages([(False, MANY)]))
    assert one.bandwidth == pytest.approx(
        10 * GBIT, rel=1e-4
    )  # the thread is faster than this link
    fast = make_sender(make_link(100 * GBIT, page_cost_ns=2580.0))
    fast.advance(S, FakePages([(False, MANY)]))
    assert fast.bandwidth == pytest.approx(4104 / 2580e-9, rel=1e-4)  # 12.7 Gbit/s
