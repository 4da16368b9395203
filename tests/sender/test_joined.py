"""Does a sender that joins bursts stop in time, and close windows at the rate of its link?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpusim.layout import CHUNK_PAGES, Layout
from gpusim.pages.pages import Pages
from gpusim.sender.link import Link
from gpusim.sender.sender import Sender
from tests.sender.senders import GBIT, NONE, PAGE, certain_writes, make_link

LINK = make_link(25 * GBIT, zero_page_ns=3700)
LAYOUT = Layout([3 * CHUNK_PAGES])


def pages_with(zero_pages: int) -> Pages:
    pages = Pages(
        LAYOUT,
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
        page_bytes=PAGE,
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
    pages.sync(certain_writes(LAYOUT, NONE, NONE))
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
    assert pages.pending * PAGE <= sender.threshold_bytes
