"""How fast pages travel after the switch to post-copy, and how long a request takes.

One thread sends the pages in the background. A requested page goes over the same channel, or over a
channel of its own (postcopy-preempt). This module knows the link and the costs of the hosts, and not
which pages are missing.

Source: migration/ram.c:get_queued_page, ram_save_host_page_urgent; postcopy-ram.c:
postcopy_ram_fault_thread [7.2 to 11.1].
"""

from __future__ import annotations

from dataclasses import replace

from gpusim.engine.state import MigrationState
from gpusim.sender.link import PS_PER_S, UNITS, Link
from gpusim.units import NEVER_NS, NS_PER_S, PS_PER_NS

# A command drops at most so many runs. Source: migration/savevm.c:MAX_DISCARDS_PER_COMMAND.
RUNS_PER_COMMAND = 12
COMMAND_BYTES, RUN_BYTES = 40, 16  # a command's header with a block's name, and each run
# Before QEMU 8.0 a requested page waits until the migration thread's write to the full socket
# returns. Linux wakes it when a third of the send buffer is free again, so it waits for half of that
# time on average. Source: net/core/stream.c:sk_stream_write_space, include/net/sock.h:
# sk_stream_min_wspace, net.ipv4.tcp_wmem.
BLOCKED_BYTES = 4 * 2**20 / 3 / 2
# Without a full link: what a socket holds at first (Linux net.core.wmem_default), and QEMU's stream
# of pages or of headers. Source: migration/qemu-file.c:MAX_IOV_SIZE, IO_BUF_SIZE.
SOCKET_BYTES, STREAM_PAGES, STREAM_BYTES = 212_992, 32, 32_768


class PostcopyPace:
    """The pace of pages and of requests of one migration. It follows the link and the parameters.

    Attributes:
        size: target pages of a host page.
        link: the link with one sending thread, because multifd ends at the switch.
    """

    def __init__(self, state: MigrationState) -> None:
        self._state = state
        self._costs = state.scenario.postcopy
        self._preempt = state.scenario.migration.postcopy_preempt
        self.size = max(1, state.scenario.link.host_pages)
        self.link: Link = replace(state.scenario.link, multifd=None, host_pages=1)

    def discard_ns(self, runs: int) -> int:
        """Return the time in which the target drops runs of dirty pages."""
        commands = -(-runs // RUNS_PER_COMMAND)
        sent_bytes = commands * COMMAND_BYTES + runs * RUN_BYTES
        return round(runs * self._costs.discard_ns + sent_bytes / self._bandwidth() * NS_PER_S)

    def page_ns(self, *, is_limited: bool = True) -> tuple[float, float]:
        """Return the time of a normal and of a zero page.

        Args:
            is_limited: max-postcopy-bandwidth holds, as for the background. Requests do not wait for
                it (migration/ram.c:ram_save_iterate).
        """
        normal_ps, zero_ps = self.link.page_ps(self._bandwidth())
        limit = self._state.parameters.max_postcopy_bandwidth
        if limit and is_limited:
            normal, zero = (units / UNITS for units in self.link.page_units)
            normal_ps = max(normal_ps, round(normal / limit * PS_PER_S))
            zero_ps = max(zero_ps, round(zero / limit * PS_PER_S))
        return normal_ps / PS_PER_NS, zero_ps / PS_PER_NS

    def latencies_ns(self, zero_share: float) -> list[tuple[float, float]]:
        """Return the share and the mean time of requests behind normal pages, and behind zero pages.

        Without a channel of its own a page waits behind the bytes that are on the way. Zero pages
        are small, so many of them are on the way.

        Args:
            zero_share: share of the background's time that goes into zero pages.
        """
        if self._preempt:
            page_ns = waits_ns = self.size * self.page_ns(is_limited=False)[0]
            if self._link_is_full and not self._state.scenario.rules.preempts_by_return_path:
                waits_ns += BLOCKED_BYTES / self._bandwidth() * NS_PER_S
            return [(1.0, self._costs.fault_ns + waits_ns + page_ns)]
        shares = 1 - zero_share, zero_share
        return list(zip(shares, self._shared_channel_ns(), strict=True))

    @property
    def behind_zeros_ns(self) -> float | None:
        """Mean time of a request behind a buffer of zero pages. None: it has its own channel."""
        return None if self._preempt else self._shared_channel_ns()[1]

    def _shared_channel_ns(self) -> tuple[float, float]:
        """Return the mean time of a request behind a buffer of normal pages, and of zero pages."""
        costs = self.page_ns()
        buffers: list[float] = [self._costs.buffer_bytes] * 2
        if not self._link_is_full:
            streams = STREAM_PAGES * self.link.normal_page_bytes, STREAM_BYTES
            buffers = [(SOCKET_BYTES + stream) / 2 for stream in streams]
        alone_ns = self._costs.fault_ns + 1.5 * self.size * costs[0]
        normal_ns, zero_ns = (
            alone_ns + (buffer_bytes * UNITS / units * cost if units else 0.0)
            for buffer_bytes, units, cost in zip(buffers, self.link.page_units, costs, strict=True)
        )
        return normal_ns, zero_ns

    @property
    def service_ns(self) -> float:
        """The time in which a request is answered. Requests are answered one after the other."""
        return self._costs.request_ns + self.size * self.page_ns(is_limited=False)[0]

    @property
    def jumps(self) -> bool:
        """Whether the background goes on behind a requested page.

        Source: migration/ram.c:get_queued_page, ram_page_hint_update (10.1).
        """
        return not self._preempt or self._state.scenario.rules.has_page_hint

    @property
    def has_own_channel(self) -> bool:
        """Whether requested pages take no time of the background's."""
        return self._preempt and not self._link_is_full

    @property
    def has_own_thread(self) -> bool:
        """Whether answers to requests take no time of the background's thread."""
        return self._preempt and self._state.scenario.rules.preempts_by_return_path

    @property
    def next_change_ns(self) -> int:
        """When the bandwidth of the link changes next."""
        now_ns = self._state.clock.now_ns
        changes = [at_ns for at_ns, _ in self.link.changes]
        if self.link.recorded is not None:
            changes = self.link.recorded.times_ns.tolist()
        return min((at_ns for at_ns in changes if at_ns > now_ns), default=NEVER_NS)

    @property
    def _link_is_full(self) -> bool:
        """Whether the link is what limits the background."""
        limit = self._state.parameters.max_postcopy_bandwidth
        rate = self._bandwidth()
        return (not limit or limit >= rate) and self.link.bounds(rate)[0] == "link"

    def _bandwidth(self) -> float:
        """Return the bytes per second of the link at present."""
        now_ns, recorded = self._state.clock.now_ns, self.link.recorded
        if recorded is not None:
            return recorded.rate(now_ns) or self.link.bandwidth
        rates = [rate for at_ns, rate in self.link.changes if at_ns <= now_ns]
        return rates[-1] if rates else self.link.bandwidth
