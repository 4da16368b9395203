"""Does a window of 100 ms have QEMU's pages, bytes, bandwidth and turns?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.layout import Writes
from gpusim.sender.link import RecordedLink
from tests.sender.fake_pages import FakePages
from tests.sender.senders import (
    GBIT,
    MS,
    NONE,
    NORMAL_BYTES,
    PAGE,
    SECTION_BYTES,
    ZERO_BYTES,
    S,
    make_link,
    make_sender,
    real_pages,
    seen,
    when_done,
)

LAW = 0.01  # Tolerance. The published law of a sync's cost knows no bursts.
MANY = 10**9
WINDOWS = [  # max-bandwidth, pages per window if counted when flushed, and when queued
    (104_857_600, 2560, 2556),
    (62_914_560, 1536, 1534),
    (52_428_800, 1280, 1278),
    (41_943_040, 1024, 1023),
    (31_457_280, 768, 767),
]


@pytest.mark.parametrize(("max_bandwidth", "flushed_pages", "queued_pages"), WINDOWS)
@pytest.mark.parametrize("windows", [1, 7])
def test_pages_of_a_window_are_those_of_a_real_qemu(
    max_bandwidth: int, flushed_pages: int, queued_pages: int, windows: int
) -> None:
    for flushed, expected in ((True, flushed_pages), (False, queued_pages)):
        for pages in (FakePages([(False, 40_000)]), real_pages([40_000])):
            sender = make_sender(make_link(), max_bandwidth, flushed=flushed)
            sender.advance(windows * 100 * MS - 1, pages)
            assert sender.counters.normal_pages == windows * expected
            assert sender.counters.transferred_bytes == windows * (
                expected * NORMAL_BYTES + SECTION_BYTES
            )


@pytest.mark.parametrize(
    ("flushed", "window_bytes", "mbps", "pages_per_s"),
    [(True, 10_506_258, 840.50064, 25_600), (False, 10_489_842, 839.18736, 25_560)],
)
def test_figures_of_100_mib_a_second_are_those_of_a_real_qemu(
    flushed: bool, window_bytes: int, mbps: float, pages_per_s: int
) -> None:
    sender, pages = (
        make_sender(make_link(), 104_857_600, flushed=flushed),
        FakePages([(False, MANY)]),
    )
    sender.advance(10 * 100 * MS - 1, pages)
    assert sender.counters.transferred_bytes == 10 * window_bytes
    assert sender.bandwidth * 8 / 1e6 == mbps
    assert sender.counters.normal_pages == pages_per_s
    assert sender.threshold_bytes == int(sender.bandwidth * 0.3)


def test_a_wakeup_that_is_late_lengthens_the_window_and_sends_no_more() -> None:
    late = make_sender(make_link(wakeup_latency_ns=50_000), 104_857_600)
    late.advance(S, FakePages([(False, MANY)]))
    assert late.counters.normal_pages == 10 * 2560
    assert late.bandwidth == pytest.approx(10_506_258 / 0.10005)


def test_the_threshold_is_zero_until_the_first_window_has_closed() -> None:
    sender, pages = make_sender(make_link(), 104_857_600), FakePages([(False, 2600)])
    assert not sender.advance(100 * MS - 1, pages).turn
    assert (sender.bandwidth, sender.threshold_bytes, pages.pending) == (0.0, 0, 40)
    advanced = sender.advance(100 * MS, pages)
    assert (advanced.turn, advanced.at_ns) == (True, 100 * MS)
    assert sender.threshold_bytes > 40 * PAGE


def test_nothing_pending_is_a_turn_at_once_even_with_no_threshold() -> None:
    sender = make_sender(make_link(), 104_857_600)
    advanced = sender.advance(S, FakePages([]))
    assert (advanced.turn, advanced.at_ns) == (True, 0)


@pytest.mark.parametrize("bandwidth", [GBIT, 10 * GBIT, 100 * GBIT])
def test_on_a_slow_link_a_burst_ends_at_the_first_check_after_50_ms_and_a_window_is_two(
    bandwidth: float,
) -> None:
    """ram_save_iterate reads the clock after pages 1, 65, 129, ..., in whole milliseconds."""
    page_s = NORMAL_BYTES / bandwidth
    burst = next(n for n in range(1, MANY, 64) if n * page_s * 1000 >= 51)
    turns: list[int] = []

    def note(estimate: int, _threshold: int) -> bool:
        turns.append(estimate // PAGE)
        return False

    sender, pages = (
        make_sender(make_link(bandwidth), acts=note),
        FakePages([(False, MANY)], shortsighted=True),
    )
    sender.advance(350 * MS, pages)
    assert turns[:5] == [MANY - n * burst for n in range(5)]
    assert sender.bandwidth == pytest.approx(
        bandwidth, rel=1e-4
    )  # the tolerance covers sections and rounding to picoseconds
    window_s = 2 * burst * page_s
    assert 0.1 <= window_s < 0.1 + 2 * (0.001 + 64 * page_s)


def test_a_slow_link_ends_every_burst_with_the_first_page() -> None:
    """At 1000 bytes per second a page takes 4.1 s and is a whole window."""
    sender = make_sender(make_link(1000.0))
    sender.advance(12 * S, FakePages([(False, 10)]))
    assert sender.counters.normal_pages == 2
    assert sender.bandwidth == pytest.approx((NORMAL_BYTES + SECTION_BYTES) / 4.104)


def test_a_link_a_little_faster_than_max_bandwidth_leaves_the_rest_of_the_window_asleep() -> None:
    """Two bursts, each with a flush at its end: 1601 pages in 51 ms, then 30 flushes of 32."""
    sender, pages = make_sender(make_link(GBIT), 104_857_600), FakePages([(False, MANY)])
    sender.advance(S - 1, pages)
    assert sender.counters.normal_pages == 10 * 2561
    sender.advance(S, pages)
    assert sender.bandwidth == 10 * (2561 * NORMAL_BYTES + 2 * SECTION_BYTES)


@pytest.mark.parametrize(
    ("page_cost_ns", "bandwidth", "page_ns"), [(10_000, 10 * GBIT, 10_000), (0, GBIT, 32_832)]
)
def test_link_and_thread_work_in_parallel(
    page_cost_ns: int, bandwidth: float, page_ns: int
) -> None:
    sender = make_sender(make_link(bandwidth, page_cost_ns=page_cost_ns))
    sender.advance(S, FakePages([(False, MANY)]))
    assert sender.counters.normal_pages == S // page_ns


def test_zero_pages_go_at_the_speed_of_the_scan_and_take_nine_bytes() -> None:
    sender = make_sender(make_link(10 * GBIT, zero_page_ns=2048))
    sender.advance(100 * S, FakePages([(True, MANY)]))
    assert sender.counters.zero_pages == 100 * S // 2048
    assert sender.counters.normal_pages == 0
    bursts = (
        sender.counters.transferred_bytes - ZERO_BYTES * sender.counters.zero_pages
    ) // SECTION_BYTES
    assert bursts == 100 * S // (24_961 * 2048)  # the first check after 50 ms


def test_max_bandwidth_binds_zero_pages_by_their_flushes() -> None:
    """The 3641st zero page fills a buffer of 32 KiB (qemu-file.c:add_buf_to_iovec)."""
    sender = make_sender(make_link(), 1_000_000)
    sender.advance(S - 1, FakePages([(True, MANY)]))
    assert sender.counters.zero_pages == 10 * 4 * 3641  # the fourth flush exceeds 100,000 bytes


def test_edge_case_15_the_threshold_follows_the_last_window() -> None:
    """A burst of zero pages makes the bandwidth tiny, and a stall makes it small."""
    sender = make_sender(make_link(10 * GBIT, zero_page_ns=2048), acts=when_done)
    pages = FakePages([(False, MANY)])
    sender.advance(S, pages)
    normal = sender.threshold_bytes
    sender.stall_until(int(1.9 * S))
    sender.advance(2 * S, pages)
    assert sender.threshold_bytes < 0.2 * normal
    sender.advance(3 * S, pages)
    assert sender.threshold_bytes == normal
    sender.advance(4 * S, FakePages([(True, MANY)]))
    assert sender.threshold_bytes == pytest.approx(normal * (9 / 2048) / (1.25), rel=0.01)


def test_edge_case_16_turns_come_once_a_burst_and_once_a_budget() -> None:
    """If the estimate stays low, every turn acts, and a burst lies between two turns."""
    for link, max_bandwidth, gap_ms in ((make_link(10 * GBIT), 0, 51.1), (make_link(), 10**8, 100)):
        sender = make_sender(link, max_bandwidth, downtime_s=1e7)
        pages, times = FakePages([(False, MANY)]), []
        for _ in range(8):
            advanced = sender.advance(100 * S, pages)
            assert advanced.turn
            times.append(advanced.at_ns)
            sender.iterate()
        gaps = np.diff(times) / MS
        assert gaps.max() - gaps.min() <= 1e-5  # the time of a turn is rounded up to whole ns
        assert gaps[0] == pytest.approx(gap_ms, rel=0.01)


@pytest.mark.parametrize(
    ("sync_ms", "sending_ms"), [(250, 51), (73, 51), (55, 51), (40, 102), (12, 102)]
)
@pytest.mark.parametrize("bandwidth", [10 * GBIT, 15e9])
def test_a_sync_in_a_window_lowers_its_bandwidth_by_the_published_law(
    sync_ms: int, sending_ms: int, bandwidth: float
) -> None:
    """B * t / (x + t) for x ms of sync and t ms of sending (qemu-devel, December 2025)."""
    sender = make_sender(make_link(bandwidth), acts=when_done)
    pages = FakePages([(False, MANY)])
    sender.advance(0, pages)
    sender.stall_until(sync_ms * MS)
    sender.advance((sync_ms + sending_ms + 1) * MS, pages)
    law = bandwidth * sending_ms / (sync_ms + sending_ms)
    assert sender.bandwidth == pytest.approx(law, rel=LAW)


def test_a_stall_in_the_sleep_does_not_lengthen_its_window() -> None:
    """The thread sleeps from 300 to 400 ms, closes its window, and only then waits for the mutex."""
    sender, pages = make_sender(make_link(), 104_857_600), FakePages([(False, MANY)])
    sender.advance(340 * MS, pages)
    sender.stall_until(450 * MS)
    sender.advance(440 * MS, pages)
    assert sender.bandwidth == 105_062_580
    assert sender.counters.normal_pages == 4 * 2560
    sender.advance(450 * MS, pages)
    assert sender.counters.normal_pages == 5 * 2560
    sender.advance(500 * MS, pages)
    assert sender.counters.normal_pages == 6 * 2560


def test_a_stall_beyond_the_sleep_lengthens_the_next_window_and_no_other() -> None:
    sender, pages = make_sender(make_link(), 104_857_600), FakePages([(False, MANY)])
    sender.advance(340 * MS, pages)
    sender.stall_until(550 * MS)
    sender.advance(550 * MS, pages)
    assert sender.bandwidth == pytest.approx(10_506_258 / 0.15)
    sender.advance(650 * MS, pages)
    assert sender.bandwidth == 105_062_580
    assert sender.counters.normal_pages == 7 * 2560


def test_a_stall_at_the_start_of_a_window_is_part_of_it() -> None:
    sender, pages = make_sender(make_link(), 104_857_600), FakePages([(False, MANY)])
    sender.stall_until(50 * MS)
    sender.advance(920 * MS, pages)
    assert sender.counters.normal_pages == 10 * 2560


def test_a_shorter_stall_does_not_end_a_longer_one() -> None:
    sender, pages = make_sender(make_link(), 104_857_600), FakePages([(False, MANY)])
    sender.stall_until(500 * MS)
    sender.stall_until(450 * MS)
    sender.advance(500 * MS - 1, pages)
    assert sender.counters.normal_pages == 0


def test_a_stall_that_ends_in_the_sleep_changes_nothing() -> None:
    stalled, free = (make_sender(make_link(), 104_857_600) for _ in range(2))
    pages, others = FakePages([(False, MANY)]), FakePages([(False, MANY)])
    stalled.advance(340 * MS, pages)
    stalled.stall_until(390 * MS)
    stalled.advance(S, pages)
    free.advance(S, others)
    assert seen(stalled, pages) == seen(free, others)


@settings(deadline=None, max_examples=50)
@given(
    st.floats(1e6, 1e11),
    st.sampled_from([0, 10**7, 10**9]),
    st.lists(st.tuples(st.booleans(), st.integers(1, 10**5)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 200)), max_size=6),
)
def test_no_page_goes_after_the_time_to_stop_at_nor_faster_than_the_link(
    bandwidth: float,
    max_bandwidth: int,
    runs: list[tuple[bool, int]],
    steps: list[tuple[int, int]],
) -> None:
    link = make_link(bandwidth, zero_page_ns=500)
    sender, pages = make_sender(link, max_bandwidth, acts=when_done), FakePages(runs)
    normal_ps, zero_ps = link.page_ps()
    now_ms = stalled_ms = 0
    for advance_ms, stall_ms in steps:
        now_ms += advance_ms
        advanced = sender.advance(now_ms * MS, pages)
        assert advanced.turn or advanced.at_ns == now_ms * MS
        busy_ps = sender.counters.normal_pages * normal_ps + sender.counters.zero_pages * zero_ps
        assert busy_ps <= (now_ms - stalled_ms) * 10**9
        sender.stall_until((now_ms + stall_ms) * MS)
        sender.advance((now_ms + stall_ms) * MS - 1, pages)
        assert (
            busy_ps
            == sender.counters.normal_pages * normal_ps + sender.counters.zero_pages * zero_ps
            or not stall_ms
        )
        now_ms, stalled_ms = now_ms + stall_ms, stalled_ms + stall_ms


def test_drain_has_no_rate_limit_and_takes_the_links_time() -> None:
    sender, pages = make_sender(make_link(GBIT), 1_000_000), FakePages([(False, 1000), (True, 500)])
    duration_ns = sender.drain(pages)
    assert duration_ns == 1000 * 32_832 + 500 * 72
    assert seen(sender, pages)[:3] == (1000, 500, 1000 * NORMAL_BYTES + 500 * ZERO_BYTES)
    assert pages.pending == 0


def test_drain_of_nothing_takes_no_time() -> None:
    assert make_sender(make_link(GBIT)).drain(FakePages([])) == 0


def test_the_last_pages_of_a_burst_wait_for_their_flush() -> None:
    """migration_transferred_bytes counts 32 normal pages at a time. A burst's end flushes all."""
    sender, pages = make_sender(make_link(GBIT)), FakePages([(False, MANY)])
    page_ns = 32_832
    for sent, flushed in ((1, 0), (31, 0), (32, 32), (63, 32), (64, 64)):
        sender.advance(sent * page_ns, pages)
        assert (sender.counters.normal_pages, sender.flushed_bytes) == (
            sent,
            flushed * NORMAL_BYTES,
        )
    sender.advance(51 * MS + 64 * page_ns, pages)
    assert sender.counters.normal_pages > 1553 >= 51 * MS // page_ns
    assert sender.flushed_bytes >= 1553 * NORMAL_BYTES


def test_bytes_counted_as_queued_wait_for_no_flush() -> None:
    sender = make_sender(make_link(GBIT), flushed=False)
    sender.advance(5 * 32_832, FakePages([(False, MANY)]))
    assert sender.flushed_bytes == sender.counters.transferred_bytes == 5 * NORMAL_BYTES


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 3 * 10**7), min_size=2, max_size=12),
    st.integers(0, 100_000),
    st.sampled_from([0, 10**8]),
    st.sampled_from([0, 50_000]),
)
def test_a_recorded_link_is_never_exceeded_and_is_used_to_a_page(
    gains: list[int], many: int, max_bandwidth: int, wakeup_latency_ns: int
) -> None:
    times = np.arange(len(gains) + 1) * (2 * S // 10)
    record = RecordedLink(times, np.concatenate([[0.0], np.cumsum(gains)]))
    link = make_link(recorded=record, wakeup_latency_ns=wakeup_latency_ns)
    sender, pages = make_sender(link, max_bandwidth, acts=when_done), FakePages([(False, many)])
    window_ns = 100 * MS + wakeup_latency_ns
    for window in range(2 * len(gains)):
        sender.advance((window + 1) * window_ns - 1, pages)
        allowed = record.bytes_by((window + 1) * window_ns * 1000)
        assert sender.counters.normal_pages * NORMAL_BYTES <= allowed
        if pages.pending and not max_bandwidth:
            sections = (window + 1) * SECTION_BYTES
            assert sender.counters.transferred_bytes + sections + NORMAL_BYTES > allowed


def test_a_record_that_has_ended_sends_nothing_more() -> None:
    record = RecordedLink(np.array([0, S]), np.array([0.0, 50 * NORMAL_BYTES]))
    sender, pages = make_sender(make_link(recorded=record)), FakePages([(False, 100)])
    sender.advance(100 * S, pages)
    assert sender.counters.normal_pages in (49, 50)


@settings(deadline=None, max_examples=50)
@given(
    st.floats(1e7, 1e11),
    st.sampled_from([0, 3 * 10**7, 10**9]),
    st.lists(st.tuples(st.booleans(), st.integers(1, 10**6)), max_size=4),
)
def test_bytes_are_those_of_the_pages_and_of_whole_sections(
    bandwidth: float, max_bandwidth: int, runs: list[tuple[bool, int]]
) -> None:
    sender, pages = (
        make_sender(make_link(bandwidth, zero_page_ns=800), max_bandwidth, acts=when_done),
        FakePages(runs),
    )
    total = pages.pending
    sender.advance(3 * S, pages)
    payload = sender.counters.normal_pages * NORMAL_BYTES + sender.counters.zero_pages * ZERO_BYTES
    sections, rest = divmod(sender.counters.transferred_bytes - payload, SECTION_BYTES)
    assert rest == 0
    assert sections >= 0
    assert sender.counters.normal_pages + sender.counters.zero_pages + pages.pending == total


def test_edge_case_13_the_first_send_after_a_sync_clears_the_cursors_own_chunk_again() -> None:
    """The cursor stands in the middle of the chunk.

    Source: migration/ram.c:migration_clear_memory_region_dirty_bitmap.
    """
    sender, pages = make_sender(make_link(GBIT), acts=when_done), real_pages([2**18 + 5], lazy=True)
    pages.start()
    page_ns = 32_832
    first = sender.advance(1000 * page_ns, pages)
    assert [(c.tolist(), t.tolist()) for c, t in first.clears] == [([0], [0])]
    empty = {"first": NONE, "last": NONE, "certain_first": NONE, "certain_last": NONE}
    writes = Writes(mean=np.zeros(0), **empty)
    pages.sync(writes, before_clear=writes)
    sender.stall_until(1000 * page_ns + 7 * MS)
    again = sender.advance(2000 * page_ns, pages)
    assert [(c.tolist(), t.tolist()) for c, t in again.clears] == [([0], [1000 * page_ns + 7 * MS])]
