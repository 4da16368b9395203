"""When do remote clears happen, how long do they take, and do steps and jumps change them?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.layout import Layout, Writes
from gpusim.pages.pages import Pages
from gpusim.sender.link import UNITS
from tests.sender.fake_pages import FakePages
from tests.sender.senders import (
    GBIT,
    MS,
    NORMAL_BYTES,
    PAGE,
    S,
    certain_writes,
    clears_of,
    make_link,
    make_sender,
    real_pages,
    seen,
)

CHUNK = 2**18
PAGE_NS = NORMAL_BYTES / 1.25  # at 10 Gbit/s
PROTECT_NS = 13.4


def test_a_chunk_is_cleared_before_its_first_page_and_the_rest_waits() -> None:
    link = make_link(10 * GBIT, clear_ns=20_000, protect_ns=PROTECT_NS)
    sender, pages = make_sender(link), FakePages([(False, 3 * CHUNK)], clear_every=CHUNK)
    advanced = sender.advance(4 * S, pages)
    took_ns = advanced.at_ns + sender.drain(pages)
    held_ns = 20_000 + PROTECT_NS * CHUNK
    expected = [(n, n * (CHUNK * PAGE_NS + held_ns)) for n in range(3)]
    assert clears_of(advanced) == [(n, pytest.approx(at_ns, abs=1)) for n, at_ns in expected]
    assert sender.counters.remote_clears == 3
    assert sender.counters.remote_clear_ps / 1000 == pytest.approx(3 * held_ns)
    assert took_ns == pytest.approx(3 * (CHUNK * PAGE_NS + held_ns), abs=50)


def test_a_window_with_a_clear_is_longer_and_has_less_bandwidth() -> None:
    link = make_link(10 * GBIT, protect_ns=PROTECT_NS)
    sender, pages = make_sender(link), FakePages([(False, 3 * CHUNK)], clear_every=CHUNK)
    sender.advance(106 * MS, pages)
    held_s, busy_s = CHUNK * PROTECT_NS * 1e-9, 0.102  # two bursts of 51 ms
    assert sender.bandwidth == pytest.approx(10 * GBIT * busy_s / (busy_s + held_s), rel=1e-3)
    sender.advance(250 * MS, pages)
    assert sender.bandwidth == pytest.approx(10 * GBIT, rel=1e-3)


def test_under_a_rate_limit_a_clear_takes_time_from_the_sleep() -> None:
    link = make_link(10 * GBIT, protect_ns=PROTECT_NS)
    sender, pages = make_sender(link, 134_217_728), FakePages([(False, CHUNK)], clear_every=CHUNK)
    plain = make_sender(make_link(10 * GBIT), 134_217_728)
    alike = FakePages([(False, CHUNK)])
    sender.advance(S, pages)
    plain.advance(S, alike)
    assert seen(sender, pages) == seen(plain, alike)


def test_a_clear_that_begins_is_finished() -> None:
    """The clear and the first page of its chunk are one step of 3.5 ms."""
    link = make_link(10 * GBIT, protect_ns=PROTECT_NS)
    sender, pages = make_sender(link), FakePages([(False, CHUNK)], clear_every=CHUNK)
    advanced = sender.advance(1 * MS, pages)
    assert clears_of(advanced) == [(0, 0)]
    assert sender.counters.normal_pages == 1
    sender.advance(3 * MS, pages)
    assert sender.counters.normal_pages == 1
    sender.advance(4 * MS, pages)
    assert sender.counters.normal_pages == int((4 * MS - PROTECT_NS * CHUNK) / PAGE_NS)


@pytest.mark.parametrize("pages_left", [1, 10])
def test_a_burst_lasts_until_the_page_behind_a_clear_is_sent(pages_left: int) -> None:
    """The clear takes 1 s and the page 328 ms, so it is the last page of its burst."""
    sender = make_sender(make_link(GBIT / 1e4, clear_ns=S))
    pages = FakePages([(False, pages_left)], clear_every=CHUNK)
    for at_ms in (1, 999, 1001, 1320):
        sender.advance(at_ms * MS, pages)
        assert sender.in_burst
        assert sender.counters.sent_units == NORMAL_BYTES * UNITS  # no end of a section yet


@pytest.mark.parametrize("clears", [True, False])
def test_the_rest_is_sent_with_clears_or_without(clears: bool) -> None:
    link = make_link(10 * GBIT, clear_ns=10_000)
    sender, pages = make_sender(link), FakePages([(False, 1000)], clear_every=100)
    took_ns = sender.drain(pages, clears=clears)
    assert took_ns == pytest.approx(1000 * PAGE_NS + clears * 10 * 10_000, abs=1)
    assert sender.counters.remote_clears == clears * 10


def lazy_pages(blocks: list[int], *, initially_set: bool = True) -> Pages:
    pages = real_pages(blocks, lazy=True, initially_set=initially_set)
    pages.start()
    return pages


def test_what_was_protected_at_the_start_is_not_protected_by_the_first_clear() -> None:
    for initially_set, protected in ((True, 1000), (False, 0)):
        pages = lazy_pages([1000], initially_set=initially_set)
        assert pages.take([(10, 1, 1)]).protected.tolist() == [protected]


def written(layout: Layout, first: int, last: int) -> Writes:
    return certain_writes(layout, np.array([first]), np.array([last]))


@settings(deadline=None, max_examples=80)
@given(
    blocks=st.lists(st.integers(1, 60_000), min_size=1, max_size=12),
    clear_ns=st.sampled_from([0.0, 1e5, 2e7, 2e8]),
    protect_ns=st.sampled_from([0.0, 13.4, 500.0]),
    first_protect_ns=st.sampled_from([0.0, 61.6]),
    bandwidth=st.sampled_from([GBIT / 8, GBIT, 10 * GBIT]),
    max_bandwidth=st.sampled_from([0, 50_000_000]),
    syncs=st.lists(st.tuples(st.integers(1, 2 * S), st.floats(0, 1)), max_size=3),
)
def test_a_jump_over_real_pages_equals_its_windows(
    *,
    blocks: list[int],
    clear_ns: float,
    protect_ns: float,
    first_protect_ns: float,
    bandwidth: float,
    max_bandwidth: int,
    syncs: list[tuple[int, float]],
) -> None:
    """Each block is a chunk. Syncs leave pending pages behind the cursor in its own chunk."""
    traces = []
    for shortsighted in (False, True):
        pages = lazy_pages(blocks)
        if shortsighted:
            pages.run_ahead = lambda **_: (False, 1)  # type: ignore[method-assign]
        link = make_link(
            bandwidth, clear_ns=clear_ns, protect_ns=protect_ns, first_protect_ns=first_protect_ns
        )
        sender, now_ns = make_sender(link, max_bandwidth, downtime_s=0.0), 0
        trace: list[object] = []
        for after_ns, share in [*syncs, (5 * S, 0.0)]:
            now_ns += after_ns
            trace += clears_of(sender.advance(now_ns, pages))
            trace += [seen(sender, pages), pages.cursor.guest_page, pages.cursor.wraps]
            last = int(share * sum(blocks))
            if not pages.pending:
                break
            pages.sync(written(pages._layout, 0, last), written(pages._layout, 0, 0))
        traces.append((trace, sender.counters.remote_clears, sender.counters.remote_clear_ps))
    assert traces[0] == traces[1]


def test_a_jump_excludes_a_window_that_a_clear_ends_early() -> None:
    """A clear of 60 ms in its first burst ends a window early. A clear of 40 ms does not."""
    burst = 15_553  # pages in 51 ms at 10 Gbit/s
    for clear_ms, windows_s in ((60, 0.051 + 0.060), (40, 0.102 + 0.040)):
        traces = []
        for shortsighted in (False, True):
            pages = FakePages(
                [(False, 9 * burst)], clear_every=4 * burst, shortsighted=shortsighted
            )
            sender = make_sender(make_link(10 * GBIT, clear_ns=clear_ms * MS), downtime_s=0.0)
            sender.advance(200 * MS, pages)  # enough for two bursts and the longer clear
            first = seen(sender, pages)
            sender.advance(2 * S, pages)
            traces.append((first, seen(sender, pages)))
        assert traces[0] == traces[1]
        sent_s = windows_s - clear_ms / 1000
        assert traces[0][0].bandwidth == pytest.approx(10 * GBIT * sent_s / windows_s, rel=0.01)


def test_a_jump_passes_over_clears() -> None:
    """A whole pass without a sync is a few takes, although every chunk is cleared."""
    pages = FakePages([(False, 40 * CHUNK)], clear_every=CHUNK)
    sender = make_sender(make_link(10 * GBIT, protect_ns=PROTECT_NS))
    sender.advance(30 * S, pages)
    assert len(pages.takes) < 5
    assert sender.counters.remote_clears == 30 * S // (CHUNK * (PAGE_NS + PROTECT_NS)) + 1
    assert sender.counters.transferred_bytes > 34 * CHUNK * PAGE
