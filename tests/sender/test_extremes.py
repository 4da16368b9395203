"""Do the largest and the slowest migrations end without an overflow?"""

from __future__ import annotations

import numpy as np
import pytest

from gpusim.sender.link import RecordedLink
from tests.sender.fake_pages import FakePages
from tests.sender.senders import MS, NORMAL_BYTES, PAGE, S, clears_of, make_link, make_sender, seen

TEN_PB_PAGES = 10**16 // PAGE
LONGEST_S = 10**8  # The longest simulated time. In picoseconds it exceeds 2^63.


@pytest.mark.parametrize("bandwidth", [1000.0, 1e12])
@pytest.mark.parametrize("max_bandwidth", [0, 1000, 10**12])
def test_ten_petabytes(bandwidth: float, max_bandwidth: int) -> None:
    sender = make_sender(make_link(bandwidth), max_bandwidth)
    pages = FakePages([(False, TEN_PB_PAGES)], clear_every=TEN_PB_PAGES // 1000)
    advanced = sender.advance(LONGEST_S * S, pages)
    assert sender.counters.normal_pages + pages.pending == TEN_PB_PAGES
    assert advanced.turn == (sender.threshold_bytes > pages.pending * PAGE)
    times = [at_ns for _, at_ns in clears_of(advanced)]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= advanced.at_ns
    assert len(pages.takes) < 1000
    if bandwidth == 1e12 and max_bandwidth != 1000:
        assert advanced.turn
        assert advanced.at_ns == pytest.approx(TEN_PB_PAGES * NORMAL_BYTES / 1e12 * S, rel=0.01)


def test_clears_after_four_months_are_on_time() -> None:
    """A page takes 4.104 s and is a whole window."""
    sender = make_sender(make_link(1000.0))
    pages = FakePages([(False, 10**8)], clear_every=2**18)
    clears = clears_of(sender.advance(LONGEST_S * S, pages))
    assert clears == [(chunk, chunk * 2**18 * 4104 * MS) for chunk in range(93)]
    pages.dirty(1)
    clears = clears_of(sender.advance(LONGEST_S * S + 10**6 * S, pages))
    assert clears == [(93, 93 * 2**18 * 4104 * MS)]


@pytest.mark.parametrize("max_bandwidth", [1, 9, 10, 99])
def test_a_max_bandwidth_of_a_few_bytes_sends_a_flush_a_window(max_bandwidth: int) -> None:
    """Below 10 the budget of a window is 0, which means unlimited.

    Source: migration-stats.c:migration_rate_set.
    """
    sender, pages = make_sender(make_link(1.25e9), max_bandwidth), FakePages([(False, 10**6)])
    sender.advance(S - 1, pages)
    if max_bandwidth >= 10:
        assert sender.counters.normal_pages == 10 * 32
    else:
        assert sender.counters.normal_pages > 10**5


def test_an_unlimited_link_without_max_bandwidth_sends_all_at_once() -> None:
    sender, pages = make_sender(make_link()), FakePages([(False, TEN_PB_PAGES)])
    advanced = sender.advance(S, pages)
    assert (advanced.turn, advanced.at_ns) == (True, 0)
    assert seen(sender, pages).pending == 0


def test_drain_of_ten_petabytes_on_the_slowest_link() -> None:
    sender = make_sender(make_link(1000.0))
    assert sender.drain(FakePages([(False, TEN_PB_PAGES)])) == TEN_PB_PAGES * 4104 * MS


def test_a_burst_among_mixed_pages_ends_after_51_ms_even_if_normal_pages_cost_no_time() -> None:
    """In a mixed chunk no run is certain. On an unlimited link only zero pages take time."""
    sender = make_sender(make_link(zero_page_ns=20_000), 10**6)
    pages = FakePages([(True, 10**6)])
    pages.run_ahead = lambda **_: (False, 0)  # type: ignore[method-assign]
    sender.advance(103 * MS, pages)
    assert sender.bandwidth > 0  # a window has closed


def test_a_burst_sends_a_page_even_if_that_takes_longer_than_a_burst() -> None:
    """In the cursor's own chunk no run is certain, and here it holds a zero page."""
    sender = make_sender(make_link(1.25e9, zero_page_ns=70 * MS))
    pages = FakePages([(True, 2)])
    pages.run_ahead = lambda **_: (True, 0)  # type: ignore[method-assign]
    advanced = sender.advance(S, pages)
    assert (advanced.turn, sender.counters.zero_pages) == (True, 2)
    assert advanced.at_ns == 2 * 70 * MS


@pytest.mark.parametrize("host_pages", [1, 512])
def test_a_page_that_no_longer_fits_at_the_end_of_memory_waits(host_pages: int) -> None:
    """Zero pages cost nothing here, so one would still fit. The page that is next does not."""
    record = RecordedLink(np.array([0, S]), np.array([0.0, 25 * NORMAL_BYTES]))
    sender = make_sender(make_link(zero_page_bytes=0, recorded=record, host_pages=host_pages))
    pages = FakePages([(False, 25)])
    pages.at_end = True
    pages.host_page_ends = lambda _size, number: np.arange(1, number + 1)  # type: ignore[attr-defined]
    sender.advance(S // 2 - 1, pages)
    assert 10 <= sender.counters.normal_pages <= 13
