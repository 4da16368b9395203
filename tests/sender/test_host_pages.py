"""Does the sender hold the bitmap's mutex for whole host pages, as a loop over QEMU's code does?"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.layout import CHUNK_PAGES, Layout
from gpusim.pages.pages import Pages
from gpusim.sender.link import FLUSH_NORMAL_PAGES
from gpusim.sender.sender import Sender
from tests.pages.naive import SLOW_MACHINE
from tests.sender.senders import (
    GBIT,
    MS,
    NORMAL_BYTES,
    SECTION_BYTES,
    certain_writes,
    make_link,
    make_sender,
    real_pages,
    when_done,
)

PAGE_NS = 50_000
LINK = NORMAL_BYTES * 1e9 / PAGE_NS  # bytes per second
WINDOW_NS, LONGEST_NS = 100 * MS, 51 * MS


class Qemu:
    """ram_save_iterate, ram_save_host_page and migration_rate_limit, page by page."""

    def __init__(self, dirty: list[int], size: int, budget: int) -> None:
        self.dirty, self.size, self.budget = dirty, size, budget
        self.now = self.start = self.flushed = self.queued = 0

    def bursts(self) -> list[tuple[int, int]]:
        """Return when each burst ends, and the pages that are left."""
        ends = []
        while self.dirty:
            self.iterate()
            ends.append((self.now, len(self.dirty)))
            self.flushed, self.queued = self.flushed + self.queued + SECTION_BYTES, 0
            self.rate_limit()
        return ends

    def iterate(self) -> None:
        begun, number = self.now, 0
        while self.dirty and not self.exceeded():
            host = self.dirty[0] // self.size
            while self.dirty and self.dirty[0] // self.size == host:
                self.dirty.pop(0)
                self.send_page()
                self.rate_limit()
            if number % 64 == 0 and self.now - begun >= LONGEST_NS:
                return
            number += 1

    def send_page(self) -> None:
        self.now += PAGE_NS
        self.queued += NORMAL_BYTES
        if self.queued == FLUSH_NORMAL_PAGES * NORMAL_BYTES:
            self.flushed, self.queued = self.flushed + self.queued, 0

    def exceeded(self) -> bool:
        return bool(self.budget) and self.flushed > self.budget

    def rate_limit(self) -> None:
        if self.now >= self.start + WINDOW_NS:
            self.start, self.flushed = self.now, 0
        if self.exceeded():
            self.now = self.start + WINDOW_NS


def make_pages(dirty: list[int], pages: int) -> Pages:
    made = real_pages([pages])
    made.start()
    made.take([(pages, 1, 1)])
    made.sync(certain_writes(Layout([pages]), np.array(dirty), np.array(dirty) + 1))
    made.cursor.move(0)
    return made


def bursts_of(sender: Sender, pages: Pages) -> list[tuple[int, int]]:
    """Return when each burst ends, and the pages that are left."""
    ends = []
    while pages.pending or sender.in_burst:
        done = Sender.advance(sender, 10**13, pages, to_burst_end=1)
        if done.bursts:
            ends.append((done.at_ns, pages.pending))
    return ends


def lengths_s(bursts: list[tuple[int, int]]) -> list[float]:
    ends = [0, *(end for end, _ in bursts)]
    return [(b - a) / 1e9 for a, b in pairwise(ends)]


@st.composite
def bitmaps(draw: st.DrawFn) -> list[int]:
    """Runs and single pages of 20 000, at most 6000 in all."""
    runs = draw(st.lists(st.tuples(st.integers(0, 19_000), st.integers(1, 1000)), max_size=4))
    pages = {page for first, length in runs for page in range(first, first + length)}
    every = draw(st.sampled_from([0, 7, 64, 700]))
    pages |= set(range(0, 14_000 if every > 7 else 7000, every)) if every else {0}
    return sorted(pages)


@given(bitmaps(), st.sampled_from([8, 64, 512, 4096]))
@settings(SLOW_MACHINE, max_examples=60)
def test_bursts_end_where_qemus_do(dirty: list[int], size: int) -> None:
    pages = make_pages(dirty, 20_000)
    sender = make_sender(make_link(LINK, host_pages=size), acts=when_done)
    assert bursts_of(sender, pages) == Qemu(list(dirty), size, 0).bursts()


@given(bitmaps(), st.sampled_from([8, 512, 4096]), st.integers(1, 40))
@settings(SLOW_MACHINE, max_examples=60)
def test_the_thread_sleeps_inside_a_burst(dirty: list[int], size: int, flushes: int) -> None:
    """QEMU closes a window one page after the sleep, so each window takes a page longer."""
    budget = flushes * FLUSH_NORMAL_PAGES * NORMAL_BYTES - 1000
    pages = make_pages(dirty, 20_000)
    sender = make_sender(make_link(LINK, host_pages=size), budget * 10, acts=when_done)
    ours, qemu = bursts_of(sender, pages), Qemu(list(dirty), size, budget).bursts()
    assert [left for _, left in ours] == [left for _, left in qemu]
    windows = np.array([end // WINDOW_NS + 1 for end, _ in qemu])
    late_ns = np.array([end for end, _ in qemu]) - [end for end, _ in ours]
    assert (late_ns >= 0).all()
    assert (late_ns <= windows * PAGE_NS).all()


@pytest.mark.parametrize(
    ("gbit", "expected_s", "is_limited"),
    [(100, 0.0861, False), (1, 8.61, False), (10, 0.861, True), (1, 8.61, True)],
)
def test_a_page_of_1_gib_holds_the_mutex_while_it_is_sent(
    gbit: int, expected_s: float, is_limited: bool
) -> None:
    """86 ms at 100 Gbit/s and 8.6 s at 1 Gbit/s, whether the link or max-bandwidth limits."""
    made = real_pages([3 * CHUNK_PAGES])
    made.start()
    link = make_link(400 * GBIT if is_limited else gbit * GBIT, host_pages=CHUNK_PAGES)
    limit = int(gbit * GBIT) if is_limited else 0
    sender = make_sender(link, limit, acts=when_done)
    lasts_s = lengths_s(bursts_of(sender, made))
    assert len(lasts_s) == 3
    assert lasts_s[1:] == pytest.approx([expected_s] * 2, rel=0.01, abs=0.2 * is_limited)
    assert sender.in_burst is False


def test_a_sparse_bitmap_holds_the_mutex_for_64_host_pages_more() -> None:
    """The clock is read after host pages 1, 65, 129, ... With 10 % dirty at 100 Gbit/s 0.56 s."""
    layout = Layout([130 * 4096])
    dirty = [4096 * host + page for host in range(130) for page in range(410)]
    pages = make_pages(dirty, layout.pages)
    sender = make_sender(make_link(LINK, host_pages=4096), acts=when_done)
    found = lengths_s(bursts_of(sender, pages))
    assert found == [pytest.approx(65 * 410 * PAGE_NS / 1e9)] * 2


def test_windows_close_inside_a_burst() -> None:
    """A burst of 861 ms has a bandwidth sample each 100 ms."""
    made = real_pages([2 * CHUNK_PAGES])
    made.start()
    sender = make_sender(make_link(10 * GBIT, host_pages=CHUNK_PAGES), acts=when_done)
    sender.advance(450 * MS, made)
    assert sender.in_burst
    assert sender.bandwidth == pytest.approx(10 * GBIT)
    assert sender.counters.normal_pages == pytest.approx(0.45 * 10 * GBIT / NORMAL_BYTES, abs=2)


def test_a_stop_right_behind_the_end_of_ram_returns() -> None:
    """The time is up between the last page of RAM and the first, which is pending again."""
    pages = real_pages([1024])
    sender = make_sender(make_link(LINK, host_pages=512))
    sender.advance(700 * PAGE_NS, pages)
    pages.sync(certain_writes(Layout([1024]), np.array([0]), np.array([100])))
    sender.advance(1024 * PAGE_NS + PAGE_NS // 2, pages)
    assert (pages.pending, pages.at_end) == (100, True)


@pytest.mark.parametrize("backend", ["numpy", "expected"])
def test_pages_of_host_pages(backend: str) -> None:
    full = real_pages([2 * CHUNK_PAGES], backend=backend)
    assert full.host_page_ends(512, 1).tolist() == [512]
    assert len(full.host_page_ends(512, 600)) == 600
    assert full.host_page_ends(CHUNK_PAGES, 9).tolist() == [CHUNK_PAGES, 2 * CHUNK_PAGES]
    full.take([(100, 1, 1)])
    assert full.host_page_ends(512, 2).tolist() == [412, 924]
    full.take([(2 * CHUNK_PAGES, 1, 1)])
    assert full.host_page_ends(512, 3).tolist() == []
