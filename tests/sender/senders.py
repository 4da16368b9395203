"""Links, senders, real pages and their observable state, for the tests of the sender."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gpusim.layout import IntArray, Layout, Writes
from gpusim.pages.pages import Pages
from gpusim.qemu.switchover import SwitchoverRule
from gpusim.sender.link import Link, Multifd, RecordedLink
from gpusim.sender.sendable_pages import SendablePages
from gpusim.sender.sender import Advance, Sender

PAGE = 4096
NORMAL_BYTES, ZERO_BYTES = 4104, 9  # qemu-file: a header of 8 bytes, then the page or one byte
SECTION_BYTES = 18
MS, S = 10**6, 10**9
GBIT = 1.25e8
NONE = np.zeros(0, np.int64)


def make_link(
    bandwidth: float = math.inf,
    *,
    zero_page_ns: float = 0.0,
    page_cost_ns: float = 0.0,
    zero_page_bytes: int = ZERO_BYTES,
    wakeup_latency_ns: int = 0,
    recorded: RecordedLink | None = None,
    changes: tuple[tuple[int, float], ...] = (),
    multifd: Multifd | None = None,
    host_pages: int = 1,
    clear_ns: float = 0.0,
    protect_ns: float = 0.0,
    first_protect_ns: float | None = None,
) -> Link:
    """Make a link. Every cost is 0 unless it is given. first_protect_ns is protect_ns."""
    return Link(
        bandwidth=bandwidth,
        normal_page_bytes=NORMAL_BYTES,
        zero_page_bytes=zero_page_bytes,
        zero_page_ns=zero_page_ns,
        page_cost_ns=page_cost_ns,
        wakeup_latency_ns=wakeup_latency_ns,
        non_ram_downtime_ns=0,
        recorded=recorded,
        changes=changes,
        multifd=multifd,
        host_pages=host_pages,
        clear_ns=clear_ns,
        protect_ns=protect_ns,
        first_protect_ns=protect_ns if first_protect_ns is None else first_protect_ns,
    )


def when_done(estimate: int, _threshold: int) -> bool:
    """The smallest rule of a turn: the VM stops when no page is pending."""
    return estimate == 0


class PatientSender(Sender):
    """A sender whose `advance` never returns early, and that stalls from where it stopped last."""

    _at_ns = 0

    def advance(self, to_ns: int, pages: SendablePages) -> Advance:
        whole = Advance()
        while True:
            part = super().advance(to_ns, pages)
            assert part.at_ns <= to_ns
            whole.clears += part.clears
            whole.at_ns = self._at_ns = part.at_ns
            whole.turn = part.turn
            if part.turn or part.at_ns == to_ns:
                return whole

    def stall_until(self, until_ns: int) -> None:
        self.stall(self._at_ns, until_ns)


def make_sender(
    link: Link,
    max_bandwidth: int = 0,
    *,
    flushed: bool = True,
    acts: Callable[[int, int], bool] | None = None,
    downtime_s: float = 0.3,
) -> PatientSender:
    """Make a sender with a downtime limit of 300 ms and QEMU's switchover rule."""
    return PatientSender(
        link,
        max_bandwidth=max_bandwidth,
        page_bytes=PAGE,
        counts_flushed_bytes=flushed,
        threshold=lambda bandwidth: int(bandwidth * downtime_s),
        acts=acts or SwitchoverRule().acts,
    )


def real_pages(
    blocks: list[int],
    *,
    lazy: bool = False,
    initially_set: bool = True,
    backend: str = "numpy",
) -> Pages:
    """Make pages without a zero page. All are dirty, and no pass has started."""
    return Pages(
        Layout(blocks),
        zero_first=NONE,
        zero_last=NONE,
        lazy=lazy,
        initially_set=initially_set,
        seed=1,
        backend=backend,
    )


def certain_writes(layout: Layout, first: IntArray, last: IntArray) -> Writes:
    """Return writes to every guest page of some runs, and to no other page."""
    slot_first, slot_last, _ = layout.cut(first, last)
    return Writes(
        first=NONE,
        last=NONE,
        mean=np.zeros(0),
        certain_first=slot_first,
        certain_last=slot_last,
    )


class Seen(NamedTuple):
    """The observable state of a sender and its pages."""

    normal_pages: int
    zero_pages: int
    transferred_bytes: int
    flushed_bytes: int
    bandwidth: float
    threshold_bytes: int
    pending: int


def seen(sender: Sender, pages: SendablePages) -> Seen:
    return Seen(
        sender.counters.normal_pages,
        sender.counters.zero_pages,
        sender.counters.transferred_bytes,
        sender.flushed_bytes,
        sender.bandwidth,
        sender.threshold_bytes,
        pages.pending,
    )


def clears_of(*advances: Advance) -> list[tuple[int, int]]:
    """Return (chunk, ns) of all clears."""
    return [
        (chunk, at_ns)
        for advance in advances
        for chunks, times in advance.clears
        for chunk, at_ns in zip(chunks.tolist(), times.tolist(), strict=True)
    ]
