"""Costs of a page: bytes on the link, and time of the link and of the threads that feed it.

Bytes are counted in units of 1/128 byte, because up to 128 pages share the header of a multifd
packet. Time is counted in integer picoseconds, so that a page on a 100 Gbit/s link has an exact
cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from gpusim.layout import FloatArray, IntArray
from gpusim.units import NS_PER_S, PS_PER_NS

# What sets the rate of the sender: the link, a cost of the threads, or QEMU's rate limit.
Bound: TypeAlias = Literal[
    "link", "page_cost", "queue_cost", "zero_page_scan", "remote_clear", "max_bandwidth"
]
PS_PER_S = NS_PER_S * PS_PER_NS
UNITS = 128  # per byte
FLOAT_ERROR = 1e-15  # of a product: 98496000.00000001 ps are 98496000 ps
SECTION_BYTES = 5 + 8 + 5  # section header, end of the RAM section, section footer
FLUSH_NORMAL_PAGES = 32  # 64 iovecs, two per page (qemu-file.c:MAX_IOV_SIZE)
FLUSH_ZERO_PAGES = -(-32768 // 9)  # fill a buffer of 32 KiB (qemu-file.c:IO_BUF_SIZE)
PACKET_PAYLOAD_BYTES = 512 * 1024
PACKET_FIXED_BYTES, PACKET_OFFSET_BYTES = 320, 8  # a packet's header, and one offset per page
OWN_COSTS: tuple[Bound, Bound] = ("page_cost", "zero_page_scan")  # of a normal and of a zero page
FLUSH_RECORD_BYTES = 8  # RAM_SAVE_FLAG_MULTIFD_FLUSH on the main channel


@dataclass(frozen=True)
class RecordedLink:
    """The pace of a recorded link: linear between samples, no byte after the last sample.

    Attributes:
        times_ns: int64 [samples], ascending.
        sent_bytes: float64 [samples], bytes sent by each time.
    """

    times_ns: IntArray
    sent_bytes: FloatArray

    def bytes_by(self, t_ps: int) -> int:
        """Return the bytes that the link sends by a time in picoseconds."""
        return int(np.interp(t_ps / PS_PER_NS, self.times_ns, self.sent_bytes))

    def rate(self, t_ns: int) -> float:
        """Return the bytes per second of the link at a time. 0 after the last sample."""
        sample = int(np.searchsorted(self.times_ns, t_ns, side="right"))
        if not 0 < sample < len(self.times_ns):
            return 0.0
        sent = self.sent_bytes[sample] - self.sent_bytes[sample - 1]
        passed_ns = self.times_ns[sample] - self.times_ns[sample - 1]
        return float(sent / passed_ns * NS_PER_S)


@dataclass(frozen=True, kw_only=True)
class Multifd:
    """Sending threads ("channels") that receive packets of pages from the migration thread.

    A packet that is not full, at the end of a block or of a pass, is counted by its pages.

    Attributes:
        channels: number of sending threads.
        page_bytes: bytes of a guest page.
        queue_ns: time that the migration thread needs to find a page and put it into a packet.
        find_zero_pages: the channels detect zero pages. If not, the migration thread detects zero
            pages and sends each as a record on the main channel.
        sync_every_section: the channels sync after every section, not only when the cursor wraps.

    Source: migration/multifd.h:MultiFDPacket_t, multifd-nocomp.c:multifd_queue_page and
    multifd_ram_flush_and_sync (v10.1.0), multifd.c:multifd_send_sync_main.
    """

    channels: int
    page_bytes: int
    queue_ns: float
    find_zero_pages: bool
    sync_every_section: bool

    @property
    def packet_pages(self) -> int:
        """Pages of a full packet."""
        return PACKET_PAYLOAD_BYTES // self.page_bytes

    @property
    def header_bytes(self) -> int:
        """Bytes of a packet's header, which does not depend on the pages in the packet."""
        return PACKET_FIXED_BYTES + PACKET_OFFSET_BYTES * self.packet_pages

    @property
    def header_units(self) -> int:
        """A page's share of the header, in 1/128 byte."""
        return self.header_bytes * UNITS // self.packet_pages

    @property
    def sync_bytes(self) -> int:
        """Bytes of a sync: one packet without pages on each channel."""
        return self.channels * self.header_bytes


@dataclass(frozen=True, kw_only=True)
class Link:
    """The link and the speed of the sending threads, as the config describes them.

    Attributes:
        bandwidth: bytes per second. Infinite if only max-bandwidth limits the migration.
        normal_page_bytes, zero_page_bytes: bytes of a record on the main channel.
        zero_page_ns: time to detect a zero page.
        page_cost_ns: a thread's time to send a normal page.
        wakeup_latency_ns: delay until the thread wakes after its sleep at the end of a window.
        non_ram_downtime_ns: downtime for everything but RAM.
        recorded: pace of a recorded link, or None.
        changes: (ns, bytes per second), ascending. From each time on the link has that bandwidth.
            Empty for a recorded link.
        multifd: sending threads, or None if the migration thread sends everything.
        host_pages: target pages of a host page that QEMU sends without a break. 1: none.
        clear_ns, protect_ns: time of a remote clear, and time per page that the clear protects.
            The thread sends nothing during a clear.
        first_protect_ns: the same for a page that no clear has protected before.
    """

    bandwidth: float
    normal_page_bytes: int
    zero_page_bytes: int
    zero_page_ns: float
    page_cost_ns: float
    wakeup_latency_ns: int
    non_ram_downtime_ns: int
    recorded: RecordedLink | None
    changes: tuple[tuple[int, float], ...] = ()
    multifd: Multifd | None = None
    host_pages: int = 1
    clear_ns: float = 0.0
    protect_ns: float = 0.0
    first_protect_ns: float = 0.0

    @property
    def page_units(self) -> tuple[int, int]:
        """Size of a normal and of a zero page on the link, in 1/128 byte."""
        normal, zero = self.normal_page_bytes * UNITS, self.zero_page_bytes * UNITS
        if self.multifd is None:
            return normal, zero
        header = self.multifd.header_units
        return (
            self.multifd.page_bytes * UNITS + header,
            header if self.multifd.find_zero_pages else zero,
        )

    def bytes_of_pages(self, normal: int, zero: int) -> float:
        """Return the bytes of pages on the link, without what frames bursts and passes."""
        normal_units, zero_units = self.page_units
        return (normal * normal_units + zero * zero_units) / UNITS

    def page_ps(self, bandwidth: float | None = None) -> tuple[int, int]:
        """Return the picoseconds that a normal and a zero page take.

        The link and the threads work in parallel, so the slower one counts. The link's time is rounded
        up, so that it never carries more than its bandwidth.

        Args:
            bandwidth: bytes per second. None: the link's bandwidth before its first change.
        """
        unit_ps = PS_PER_S / (bandwidth or self.bandwidth) / UNITS
        return tuple(
            max(math.ceil(units * unit_ps * (1 - FLOAT_ERROR)), round(thread_ns * PS_PER_NS))
            for units, thread_ns in zip(self.page_units, self._thread_ns, strict=True)
        )  # type: ignore[return-value]

    @property
    def threads_bandwidth(self) -> float:
        """Bytes per second that the sending threads can feed to a link. It may be infinite."""
        thread_ns = self._thread_ns[0]
        return self.page_units[0] / UNITS * NS_PER_S / thread_ns if thread_ns else math.inf

    def bounds(self, bandwidth: float) -> tuple[Bound, Bound]:
        """Return what sets the time of a normal and of a zero page at a bandwidth.

        Args:
            bandwidth: bytes per second of the link.
        """
        normal, zero = (
            "link"
            if units / UNITS / bandwidth * NS_PER_S >= thread_ns
            else (own if own_ns >= queue_ns else "queue_cost")
            for own, units, thread_ns, (own_ns, queue_ns) in zip(
                OWN_COSTS, self.page_units, self._thread_ns, self._thread_costs_ns, strict=True
            )
        )
        return normal, zero

    @property
    def _thread_ns(self) -> tuple[float, float]:
        """Time of a normal and of a zero page on the slowest thread.

        If the channels do not detect zero pages, then the migration thread reads all of a zero page
        besides finding it. It reads only the first bytes of a page with content.

        Source: migration/ram.c:ram_save_target_page [7.2], ram_save_target_page_legacy [8.2].
        """
        normal, zero = self._thread_costs_ns
        shared = self.multifd is None or self.multifd.find_zero_pages
        return max(normal), max(zero) if shared else sum(zero)

    @property
    def _thread_costs_ns(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Time of a normal and of a zero page to send or detect it, and to find and queue it."""
        if self.multifd is None:
            return (self.page_cost_ns, 0.0), (self.zero_page_ns, 0.0)
        channels, queue_ns = self.multifd.channels, self.multifd.queue_ns
        detectors = channels if self.multifd.find_zero_pages else 1
        return (self.page_cost_ns / channels, queue_ns), (self.zero_page_ns / detectors, queue_ns)

    def flush_pages(self, *, counts_flushed_bytes: bool) -> tuple[int, int]:
        """Return how many normal and how many zero pages one flush adds to the rate limit's bytes.

        Args:
            counts_flushed_bytes: if False, the rate limit counts a page as soon as it is queued.
        """
        normal, zero = (FLUSH_NORMAL_PAGES, FLUSH_ZERO_PAGES) if counts_flushed_bytes else (1, 1)
        if self.multifd is None:
            return normal, zero
        packet = self.multifd.packet_pages
        return packet, packet if self.multifd.find_zero_pages else zero

    @property
    def pages_in_flight(self) -> int:
        """Pages that QEMU has not counted yet: each channel writes one packet."""
        return self.multifd.channels * self.multifd.packet_pages if self.multifd else 0

    @property
    def section_bytes(self) -> int:
        """Bytes that frame a burst."""
        syncs = self.multifd is not None and self.multifd.sync_every_section
        return SECTION_BYTES + (self.multifd.sync_bytes if self.multifd and syncs else 0)

    @property
    def wrap_bytes(self) -> int:
        """Bytes that the threads send when the cursor wraps."""
        if self.multifd is None or self.multifd.sync_every_section:
            return 0
        return self.multifd.sync_bytes + FLUSH_RECORD_BYTES

    @property
    def wrap_ps(self) -> int:
        """Time without a page when the cursor wraps, until the first packet is full."""
        if self.multifd is None:
            return 0
        return round(self.multifd.packet_pages * self.multifd.queue_ns * PS_PER_NS)

    @property
    def clear_ps(self) -> tuple[int, int, int]:
        """Time of a remote clear, and per page that it protects again, and for the first time."""
        return (
            round(self.clear_ns * PS_PER_NS),
            round(self.protect_ns * PS_PER_NS),
            round(self.first_protect_ns * PS_PER_NS),
        )
