"""The simulated parts of one migration, which its loop, syncs, recorder and management share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gpusim.config.backend import Backend
from gpusim.config.scenario import Scenario
from gpusim.engine.clock import Clock
from gpusim.engine.journal import Journal, is_audited
from gpusim.guest.guest import Guest
from gpusim.guest.latency import WakeupLatency
from gpusim.guest.reaper import first_wake_ns
from gpusim.guest.run_time import RunTime
from gpusim.pages.pages import Pages
from gpusim.qemu.process import Process
from gpusim.qemu.rules import Windows
from gpusim.qemu.switchover import switchover_bandwidth, threshold_size
from gpusim.qemu.sync import SyncAccounting
from gpusim.sender.counters import Counters
from gpusim.sender.sender import Sender
from gpusim.stream import Purpose, Stream
from gpusim.units import NEVER_NS
from gpusim.wall_limit import WallLimit, WallLimitReachedError

MakeRunTime = Callable[[Clock, WakeupLatency], RunTime]


class MigrationState:
    """The parts of one migration, made from a checked scenario.

    The guest and its throttle live on the VM's clock, which stands still while the VM is paused.
    Everything else lives on the host's clock.

    Args:
        scenario: what to simulate.
        backend: where the bitmaps live.
        process: the QEMU process, with what earlier migrations left in it.
        make_run_time: makes the vCPUs' run time. Tests pass one that ticks slice by slice.
        limit: the wall-clock limit. None: the scenario's.
        is_estimate: see `Migration`.

    Attributes:
        limit: the wall-clock limit, which starts with the state.
        parameters: the migration parameters that hold now, as numbers.
        settings: the same as the user wrote them. Management may change both during the run.
        is_cancelled: management cancelled the migration, and the thread has yet to notice.
        starts_postcopy: management ordered post-copy, and the thread has yet to notice.
        link_is_lost: in post-copy. Nothing is sent until management recovers it.
        postcopy_pages: pages that post-copy has yet to send. They are not in `pages` any more.
        vm_stopped_ns: when the switchover stopped the VM.
        sync_timer_latency: how late the fallback timer ticks.
        journal: for the audit, or None.
    """

    def __init__(
        self,
        scenario: Scenario,
        backend: Backend,
        process: Process,
        make_run_time: MakeRunTime,
        limit: WallLimit | None = None,
        *,
        is_estimate: bool = False,
    ) -> None:
        self.limit = limit or WallLimit(scenario.wall_limit_ns)
        self.scenario, self.backend, self.process = scenario, backend, process
        self.parameters, self.settings = scenario.parameters, scenario.migration
        self.is_cancelled, self.vm_stopped_ns = False, NEVER_NS
        self.starts_postcopy, self.link_is_lost, self.postcopy_pages = False, False, 0
        self.journal = Journal() if is_audited() else None
        self.clock = Clock()
        self.sync_timer_latency = self._latency(Purpose.SYNC_TIMER_LATENCY)
        self.run_time = make_run_time(self.clock, self._latency(Purpose.THROTTLE_LATENCY))
        self.run_time.ignores_throttle = self.process.throttle_thread_scheduled
        self.run_time.needs_big_lock = scenario.rules.throttle_needs_big_lock
        self.run_time.tick_cost = scenario.tick_cost
        self.guest = self._make_guest(is_estimate=is_estimate)
        self.pages = Pages(
            scenario.layout,
            zero_first=scenario.zero_first,
            zero_last=scenario.zero_last,
            lazy=scenario.tracking.lazy,
            initially_set=scenario.tracking.initially_set,
            seed=scenario.seed,
            zeroes=scenario.zeroes,
            draws_counts=not is_estimate,
            backend=backend.name,
            threads=backend.threads,
        )
        rules = scenario.rules
        self.accounting = SyncAccounting(
            scenario.page_bytes, scenario.layout.pages, counts_every_sync=rules.counts_every_sync
        )
        self.expected_downtime = rules.expected_downtime(self.parameters)
        self.throttle = rules.throttle(self.parameters)
        self.switchover = rules.switchover()
        self._bandwidth = None if rules.bandwidth is None else rules.bandwidth()
        self.sender = Sender(
            scenario.link,
            max_bandwidth=self.parameters.max_bandwidth,
            page_bytes=scenario.page_bytes,
            counts_flushed_bytes=rules.counts_flushed_bytes,
            threshold=self._threshold_bytes,
            acts=self.switchover.acts,
            end_window=self._end_window,
            estimate=None if rules.bandwidth is None else self._estimate_bandwidth,
            joins_bursts=is_estimate,
        )
        if self.journal is not None:
            self.sender.sends = self.journal.sends

    def _latency(self, purpose: Purpose) -> WakeupLatency:
        scenario = self.scenario
        return WakeupLatency(scenario.timer_latency_ns, Stream(scenario.seed, 0, purpose))

    def _make_guest(self, *, is_estimate: bool) -> Guest:
        """Return the guest, or one without writers if the time is over before it is made."""
        scenario, tracking = self.scenario, self.scenario.tracking
        protection = replace(tracking.protection, first_reap_ns=first_wake_ns(scenario.seed))
        try:
            return Guest(
                scenario.layout,
                scenario.writers,
                self.run_time,
                protection,
                self.limit,
                tracking.pages_together,
                joins_clears=is_estimate,
            )
        except WallLimitReachedError:
            return Guest(scenario.layout, (), self.run_time, protection)

    def _threshold_bytes(self, bandwidth: float) -> int:
        in_whole_kilobytes = self.scenario.rules.divides_whole_kilobytes
        return threshold_size(bandwidth, self.parameters, in_whole_kilobytes=in_whole_kilobytes)

    def _estimate_bandwidth(
        self, count: int, bandwidth: float, sent_bytes: int, length_ns: int, sync_ns: int
    ) -> float:
        assert self._bandwidth is not None
        windows = Windows(
            count=count,
            bandwidth=bandwidth,
            sent_bytes=sent_bytes,
            length_ns=length_ns,
            sync_ns=sync_ns,
        )
        return self._bandwidth.end_windows(windows)

    def _end_window(self, sent_bytes: int) -> None:
        self.expected_downtime.end_window(sent_bytes, self.switchover_bandwidth, self.accounting)

    @property
    def switchover_bandwidth(self) -> float:
        """Bytes per second that QEMU expects for the switchover. 0 before the first window ends."""
        return switchover_bandwidth(
            self.sender.expected_bandwidth,
            self.parameters,
            in_whole_kilobytes=self.scenario.rules.divides_whole_kilobytes,
        )

    @property
    def pending_bytes(self) -> int:
        """Guest memory that is dirty in the bitmap."""
        return (self.pages.pending + self.postcopy_pages) * self.scenario.page_bytes

    @property
    def sent(self) -> Counters:
        """What the link has carried up to now."""
        return self.sender.sent_by(self.clock.now_ns)

    @property
    def remaining_bytes(self) -> int:
        """Guest memory that is dirty, with a page that the link has yet to carry."""
        counted, sent = self.sender.counters, self.sent
        ahead = counted.normal_pages + counted.zero_pages - sent.normal_pages - sent.zero_pages
        return self.pending_bytes + ahead * self.scenario.page_bytes

    @property
    def vm_bytes(self) -> int:
        """Guest memory in total."""
        return self.scenario.layout.pages * self.scenario.page_bytes
