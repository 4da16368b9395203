"""Does a sender that joins bursts stop in time, and close windows at the rate of its link?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpusim.layout import CHUNK_PAGES, Layout, Writes
from gpusim.pages.pages import Pages
from gpusim.sender.link import Link
from gpusim.sender.sender import Sender

NOTHING = np.zeros(0, np.int64)
NO_WRITES = Writes(
    first=NOTHING, last=NOTHING, mean=np.zeros(0), certain_first=NOTHING, certain_last=NOTHING
)
LINK = Link(
    bandwidth=25e9 / 8,
    normal_page_bytes=4104,
    zero_page_bytes=9,
    zero_page_ns=3700.0,
    page_cost_ns=0.0,
    wakeup_latency_ns=0,
    non_ram_downtime_ns=0,
    recorded=None,
)


def pages_with(zero_pages: int, chunks: int = 3) -> Pages:
    pages = Pages(
        Layout([chunks * CHUNK_PAGES]),
        zero_first=np.array([0]),
        zero_last=np.array([zero_pages]),
        lazy=False,
        initially_set=False,
        seed=1,
        draws_counts=False,
        backend="expected",
    )
    pages.start()
    return pages


def sender_of(link: Link) -> Sender:
    return Sender(
        link,
        max_bandwidth=0,
        page_bytes=4096,
        counts_flushed_bytes=False,
        threshold=lambda bandwidth: int(0.3 * bandwidth),
        acts=lambda pending, threshold: pending <= threshold,
        joins_bursts=True,
    )


@pytest.mark.parametrize("rest_ns", [300, 1500, 2300, 3699])
def test_a_page_that_does_not_fit_ends_no_burst(rest_ns: int) -> None:
    """The rest is enough for a normal page and too short for the zero page that comes next."""
    pages, sender = pages_with(zero_pages=CHUNK_PAGES), sender_of(LINK)
    sender.advance(10_000_000, pages)
    pages.sync(NO_WRITES)
    for at_ns in (200_000_000, 200_000_000 + rest_ns, 300_000_000, 300_000_000 + rest_ns):
        done = sender.advance(at_ns, pages)
        assert done.at_ns == at_ns
        assert done.bursts < 10


@pytest.mark.parametrize("zero_pages", [CHUNK_PAGES // 2, CHUNK_PAGES, 2 * CHUNK_PAGES])
def test_no_window_closes_faster_than_the_link(zero_pages: int) -> None:
    pages = pages_with(zero_pages)
    sender = sender_of(replace(LINK, zero_page_ns=250.0))
    at_ns = 0
    while not sender.advance(at_ns, pages).turn:
        assert sender.bandwidth <= LINK.bandwidth * 1.001
        at_ns += 37_000_000
    assert pages.pending * 4096 <= sender.threshold_bytes
