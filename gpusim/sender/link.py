"""What a page costs: bytes on the wire, and time of the wire and of the threads that feed it.

Bytes are counted in 128ths, as a multifd packet shares its header between up to 128 pages; time in
integer picoseconds, so that a page on a 100 Gbit/s link has an exact cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gpusim.layout import FloatArray, IntArray
from gpusim.units import NS_PER_S, PS_PER_NS

PS_PER_S = NS_PER_S * PS_PER_NS
UNITS = 128  # of a byte
SECTION_BYTES = 5 + 8 + 5  # section header, end of RAM section, footer
FLUSH_NORMAL_PAGES = 32  # 64 iovecs, two a page
FLUSH_ZERO_PAGES = 32768 // 9  # a buffer of 32 KiB
PACKET_PAYLOAD_BYTES = 512 * 1024
PACKET_FIXED_BYTES, PACKET_OFFSET_BYTES = 320, 8  # a header, and of each page its offset
FLUSH_RECORD_BYTES = 8  # on the main channel


@dataclass(frozen=True)
class RecordedLink:
    """The pace of a recorded wire: straight lines between samples, constant behind the last.

    Attributes:
        times_ns: int64 [samples]; sent_bytes: float64 [samples], so far.
    """

    times_ns: IntArray
    sent_bytes: FloatArray

    def by(self, t_ps: int) -> int:
        """Bytes sent by a time."""
        return int(np.interp(t_ps / PS_PER_NS, self.times_ns, self.sent_bytes))


@dataclass(frozen=True, kw_only=True)
class Multifd:
    """Several sending threads, which are handed packets of pages by the migration thread.

    A packet that is not full, at the end of a block or of a round, is counted by its pages.

    Attributes:
        page_bytes: of guest memory.
        queue_ns: the migration thread's time to find a page and put it into a packet.
        find_zero_pages: the channels do; if not, the migration thread does, and sends a zero page
            as a record of its own.
        sync_every_section: not only as the cursor comes round.

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
        """Of a packet, however many pages it has."""
        return PACKET_FIXED_BYTES + PACKET_OFFSET_BYTES * self.packet_pages

    @property
    def header_units(self) -> int:
        """A page's share of the header."""
        return self.header_bytes * UNITS // self.packet_pages

    @property
    def sync_bytes(self) -> int:
        """A packet without pages on each channel."""
        return self.channels * self.header_bytes


@dataclass(frozen=True, kw_only=True)
class Link:
    """The wire and the sending threads' speed, as config has them.

    Attributes:
        bandwidth: bytes a second, infinite if only max-bandwidth shall bind.
        normal_page_bytes, zero_page_bytes: of the main channel's records.
        zero_page_ns: to find a page to be zero.
        page_cost_ns: a thread's time to send a normal page.
        changes: (ns, bytes a second), rising: what the wire gives from then on; not if recorded.
        wakeup_latency_ns: how late the thread wakes from its sleep at the end of a window.
        multifd: None: one thread does all.
        clear_ns, protect_ns: of a remote clear, and for each page that it protects; the thread
            sends nothing meanwhile.
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
    clear_ns: float = 0.0
    protect_ns: float = 0.0

    @property
    def page_units(self) -> tuple[int, int]:
        """128ths of a byte on the wire of a normal and of a zero page."""
        normal, zero = self.normal_page_bytes * UNITS, self.zero_page_bytes * UNITS
        if self.multifd is None:
            return normal, zero
        header = self.multifd.header_units
        return (
            self.multifd.page_bytes * UNITS + header,
            header if self.multifd.find_zero_pages else zero,
        )

    def page_ps(self, bandwidth: float | None = None) -> tuple[int, int]:
        """Time of a normal and of a zero page; wire and threads work side by side."""
        unit_ps = PS_PER_S / (bandwidth or self.bandwidth) / UNITS
        return tuple(
            round(max(units * unit_ps, thread_ns * PS_PER_NS))
            for units, thread_ns in zip(self.page_units, self._thread_ns, strict=True)
        )  # type: ignore[return-value]

    @property
    def threads_bandwidth(self) -> float:
        """Bytes a second that the sending threads feed a wire of any speed with; may be infinite."""
        thread_ns = self._thread_ns[0]
        return self.page_units[0] / UNITS * NS_PER_S / thread_ns if thread_ns else math.inf

    @property
    def _thread_ns(self) -> tuple[float, float]:
        """The slowest thread's time of a normal and of a zero page."""
        if self.multifd is None:
            return self.page_cost_ns, self.zero_page_ns
        channels, queue_ns = self.multifd.channels, self.multifd.queue_ns
        finders = channels if self.multifd.find_zero_pages else 1
        return (
            max(self.page_cost_ns / channels, queue_ns),
            max(self.zero_page_ns / finders, queue_ns),
        )

    def flush_pages(self, *, counts_flushed_bytes: bool) -> tuple[int, int]:
        """So many normal or zero pages go at once into the bytes that the rate limit sees."""
        normal, zero = (FLUSH_NORMAL_PAGES, FLUSH_ZERO_PAGES) if counts_flushed_bytes else (1, 1)
        if self.multifd is None:
            return normal, zero
        packet = self.multifd.packet_pages
        return packet, packet if self.multifd.find_zero_pages else zero

    @property
    def pages_in_flight(self) -> int:
        """A packet is counted when it has been written: each channel has one that is not."""
        return self.multifd.channels * self.multifd.packet_pages if self.multifd else 0

    @property
    def section_bytes(self) -> int:
        """Framing of a burst."""
        syncs = self.multifd is not None and self.multifd.sync_every_section
        return SECTION_BYTES + (self.multifd.sync_bytes if self.multifd and syncs else 0)

    @property
    def round_bytes(self) -> int:
        """Sent as the cursor comes round."""
        if self.multifd is None or self.multifd.sync_every_section:
            return 0
        return self.multifd.sync_bytes + FLUSH_RECORD_BYTES

    @property
    def round_ps(self) -> int:
        """The channels run dry as the cursor comes round: until a first packet has been filled."""
        if self.multifd is None:
            return 0
        return round(self.multifd.packet_pages * self.multifd.queue_ns * PS_PER_NS)

    @property
    def clear_ps(self) -> tuple[int, int]:
        """Time of a remote clear, and for each page that it protects."""
        return round(self.clear_ns * PS_PER_NS), round(self.protect_ns * PS_PER_NS)
