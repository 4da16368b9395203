"""The results of a migration as data: syncs, events, samples of the timeline and the summary.

No logic is here. Every name ends with its unit. Times are seconds since the migrate command, unless
a docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from gpusim.config.schedule import Action
    from gpusim.config.schema import Config
    from gpusim.engine.journal import Journal
    from gpusim.sender.tally import Sending

SyncKind: TypeAlias = Literal["setup", "exact", "fallback", "final"]
Verdict: TypeAlias = Literal["converged", "not_converged", "time_limit", "cancelled", "aborted"]
Status: TypeAlias = Literal["ok", "failed", "incomplete"]


@dataclass(frozen=True, kw_only=True)
class SyncRecord:
    """One dirty sync in QEMU's terms, which is a row of syncs.csv.

    A sync closes a period of more than 1000 ms (migration/ram.c:migration_bitmap_sync). If it
    closes none, then the columns of the period are empty.

    Attributes:
        dirty_sync_count: the count that QEMU reports after the sync. Since QEMU 11.1 it is not the
            number of the row, because only exact syncs add to it.
        kind: setup, exact (the sender asked for it), fallback (the timer forced it) or final.
        time_s: its start, in seconds after the migrate command.
        duration_ms: how long it took.
        newly_dirty_pages: pages that were clean in the bitmap before and are dirty now.
        remaining_bytes: memory left to send after the sync.
        transferred_bytes: bytes flushed since the start.
        threshold_bytes: QEMU's threshold_size when the sync ended: what fits the downtime limit.
        bandwidth_bytes_per_s: the last window's bandwidth sample.
        cursor_page: the guest page behind the last one that the sender visited.
        pass_number: the sender's way round the bitmap, from 1.
        cpu_throttle_percentage: the throttle after the sync.
        dirty_rate_high_cnt: QEMU's count of high periods after the sync.
        period_ms: length of the period that the sync closed.
        bytes_dirty_period: bytes dirtied in that period.
        bytes_xfer_period: bytes sent in that period.
        dirty_pages_rate: pages dirtied per second in that period.
    """

    dirty_sync_count: int
    kind: SyncKind
    time_s: float
    duration_ms: float
    newly_dirty_pages: int
    remaining_bytes: int
    transferred_bytes: int
    threshold_bytes: int
    bandwidth_bytes_per_s: float
    cursor_page: int
    pass_number: int
    cpu_throttle_percentage: int
    dirty_rate_high_cnt: int
    period_ms: int | None
    bytes_dirty_period: int | None
    bytes_xfer_period: int | None
    dirty_pages_rate: int | None


@dataclass(frozen=True, kw_only=True)
class Event:
    """One decision, named after QEMU's trace event, which is a line of events.jsonl."""

    time_s: float
    event: str
    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TimelineSample:
    """The state at one moment. Between two samples the bytes change linearly.

    Two samples may have the same time, which are then the state before and after a sync.
    """

    time_s: float
    remaining_bytes: int
    transferred_bytes: int
    cpu_throttle_percentage: int
    dirty_sync_count: int
    bitmap_sync_count: int
    guest_run_s: float  # run time of each vCPU, whose slope is the speed


@dataclass(frozen=True, kw_only=True)
class PostcopySample:
    """The state at the end of a step of post-copy, which is a row of postcopy.csv.

    Attributes:
        time_s: the end of the step, in seconds after the migrate command.
        missing_bytes: memory that has yet to arrive.
        requests: requests since the switch.
        latency_ms: mean time of the step's requests. None: it has none.
        guest_speed_percent: speed of the guest in the step. 100: no page was missing.
    """

    time_s: float
    missing_bytes: int
    requests: int
    latency_ms: float | None
    guest_speed_percent: float


@dataclass(frozen=True, kw_only=True)
class PostcopySummary:
    """What a summary says of post-copy. Everything is None if there was no switch."""

    postcopy_start_s: float | None = None
    postcopy_time_s: float | None = None
    postcopy_blackout_ms: float | None = None
    postcopy_bytes: int | None = None
    postcopy_discarded_runs: int | None = None
    postcopy_requests: int | None = None
    postcopy_latency_ms: float | None = None
    postcopy_vcpu_blocktime_ms: float | None = None
    postcopy_blocktime_ms: float | None = None
    postcopy_stall_vcpu_s: float | None = None
    postcopy_recovery_s: float | None = None
    postcopy_added_pages: int | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The state that an observer of a run gets."""

    time_s: float
    remaining_bytes: int
    total_bytes: int
    cpu_throttle_percentage: int
    bitmap_sync_count: int
    is_first_pass: bool


Observer: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The summary of one migration, as in summary.json. See docs/reference/summary.md."""

    status: Status
    verdict: Verdict | None  # None only if the status is incomplete
    reason: str
    reason_code: str
    total_time_s: float
    downtime_ms: float | None
    first_pass_s: float | None
    dirty_sync_count: int  # as QEMU reports it
    bitmap_sync_count: int
    fallback_sync_count: int
    first_throttle_s: float | None
    max_throttle_percent: int
    time_at_max_throttle_s: float
    longest_vcpu_stall_ms: float
    transferred_bytes: int
    bottleneck: str | None = None  # of the sending rate, see bottleneck.py
    bottleneck_code: str | None = None
    bottleneck_change: str | None = None
    sending_gbit_per_s: float | None = None
    link_gbit_per_s: float | None = None
    normal_pages: int
    zero_pages: int
    resent_pages: int
    remote_clears: int
    remote_clear_s: float
    guest_cpu_lost_s: float
    guest_cpu_lost_percent: float
    write_faults: int  # first writes to a page after QEMU protected it
    guest_fault_s: float  # vCPU seconds of these faults
    guest_big_lock_s: float
    paused_s: float
    skipped_s: float = 0.0  # limit.skip_waiting
    postcopy_start_s: float | None = None  # these are None without a switch to post-copy
    postcopy_time_s: float | None = None
    postcopy_blackout_ms: float | None = None
    postcopy_bytes: int | None = None
    postcopy_discarded_runs: int | None = None
    postcopy_requests: int | None = None
    postcopy_latency_ms: float | None = None
    postcopy_vcpu_blocktime_ms: float | None = None
    postcopy_blocktime_ms: float | None = None
    postcopy_stall_vcpu_s: float | None = None
    postcopy_recovery_s: float | None = None
    postcopy_added_pages: int | None = None
    attempt: int
    sync_stall_s: float
    main_loop_stall_s: float
    longest_main_loop_stall_ms: float
    remaining_bytes: int
    vm_bytes: int
    qemu_version: str
    policies: str = ""  # the user's rules and manager, if any
    tracking: str
    backend: str
    backend_reason: str
    seed: int
    simulated_looks: int
    wall_time_s: float
    bitmap_bytes: int
    process_peak_rss_bytes: int
    gpusim_version: str

    @property
    def simulated_s(self) -> float:
        """The end of the run on the clock of its records, which leaves skipped_s out."""
        return self.total_time_s - self.skipped_s


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One change to the config of a run that did not converge, and its effect.

    Attributes:
        key, value: the change as a user types it: "link.bandwidth", "15Gbit/s".
        also: what is set with it: "migration.multifd_channels=4" for a link that one thread cannot
            fill. Empty: nothing.
        outcome: not_tried if gpusim did not simulate the change to its end.
        smallest: no smaller value converges. False: the next smaller value was not simulated to its
            end.
        total_time_s, downtime_ms, max_throttle_percent, guest_cpu_lost_percent, postcopy_time_s,
            postcopy_blackout_ms: as in Summary. None unless it converges, or without post-copy.
    """

    key: str
    value: str
    outcome: Literal["converges", "does_not", "not_tried"]
    smallest: bool = True
    also: str = ""
    total_time_s: float | None = None
    downtime_ms: float | None = None
    max_throttle_percent: int | None = None
    guest_cpu_lost_percent: float | None = None
    postcopy_time_s: float | None = None
    postcopy_blackout_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An earlier migration in the same QEMU process, with the config of it alone."""

    config: Config
    result: Result


@dataclass(frozen=True, kw_only=True)
class Result:
    """One migration. `syncs` and `events` depend on config and seed alone.

    Attributes:
        pass_ends_s: times at which the sender's cursor wrapped. Pass n ends at the n-th time. The
            last pass ends with the migration.
        before: the attempts before this one.
        actions_not_done: actions of the schedule that had not been done when the migration ended.
        sending: what set the sender's rate, and for how long. None: unknown.
        postcopy: the steps after a switch to post-copy.
        postcopy_latency_counts: requests by latency, in QEMU's buckets of 2^k to 2^(k+1) us.
        journal: kept for the audit only, see journal.py. It is no part of the result.
    """

    summary: Summary
    syncs: list[SyncRecord] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    samples: list[TimelineSample] = field(default_factory=list)
    pass_ends_s: list[float] = field(default_factory=list)
    before: list[Attempt] = field(default_factory=list)
    actions_not_done: list[Action] = field(default_factory=list)
    sending: Sending | None = None
    postcopy: list[PostcopySample] = field(default_factory=list)
    postcopy_latency_counts: list[int] = field(default_factory=list)
    journal: Journal | None = field(default=None, repr=False, compare=False)

    @property
    def knots(self) -> list[TimelineSample]:
        """The former name of `samples`."""
        return self.samples

    @property
    def never_came(self) -> list[str]:
        """The texts of `actions_not_done`, under their former name."""
        return [action.text for action in self.actions_not_done]


@dataclass(frozen=True, kw_only=True)
class EvacuatedGuest:
    """One guest of an evacuation. Times are seconds since the evacuation started.

    Attributes:
        config: repeats this guest's migration alone, with the shares of the link that it had.
        end_s: when its place was free again, because it was out or gpusim gave it up.
        result: of its migration. Times in it are seconds since its own migrate command.
    """

    name: str
    config: Config
    vcpus: int
    start_s: float
    end_s: float
    result: Result


@dataclass(frozen=True, kw_only=True)
class EvacuationSummary:
    """The summary of an evacuation, as in summary.json. See docs/reference/summary.md."""

    kind: str = "evacuation"
    status: Status
    verdict: Verdict | None  # None only if the status is incomplete
    reason: str
    reason_code: str
    total_time_s: float
    downtime_ms: float | None
    dirty_sync_count: int
    bitmap_sync_count: int
    fallback_sync_count: int
    max_throttle_percent: int
    longest_vcpu_stall_ms: float
    transferred_bytes: int
    bottleneck: str | None = None  # of the sending rate, see bottleneck.py
    bottleneck_code: str | None = None
    bottleneck_change: str | None = None
    sending_gbit_per_s: float | None = None
    link_gbit_per_s: float | None = None
    link_used_percent: float | None
    guest_cpu_lost_s: float
    guest_cpu_lost_percent: float
    write_faults: int
    guest_fault_s: float
    vm_bytes: int
    guests: int
    left_behind: list[str]
    at_a_time: int
    order: str
    qemu_version: str
    policies: str = ""
    tracking: str
    backend: str
    backend_reason: str
    seed: int
    simulated_runs: int
    wall_time_s: float
    bitmap_bytes: int
    gpusim_version: str


@dataclass(frozen=True, kw_only=True)
class EvacuationProgress:
    """The state that an observer of an evacuation gets when a guest's migration has ended."""

    time_s: float
    ended: int
    guests: int


@dataclass(frozen=True, kw_only=True)
class Evacuation:
    """One evacuation.

    Attributes:
        guests: those whose migration ended, in the order in which they started.
        link_bandwidth: (seconds, bytes per second): the bandwidth of the link from a time on. It
            may be infinite.
    """

    summary: EvacuationSummary
    guests: list[EvacuatedGuest] = field(default_factory=list)
    link_bandwidth: list[tuple[float, float]] = field(default_factory=list)
