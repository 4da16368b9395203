"""What a migration leaves behind, as data: syncs, events, the timeline's samples and the summary.

No logic lives here. Every field carries its unit in its name; times are seconds since the migrate
command unless the name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from gpusim.config.schedule import Action
    from gpusim.config.schema import Config

SyncKind: TypeAlias = Literal["setup", "exact", "fallback", "final"]
Verdict: TypeAlias = Literal["converged", "not_converged", "time_limit", "cancelled", "aborted"]
Status: TypeAlias = Literal["ok", "failed", "incomplete"]


@dataclass(frozen=True, kw_only=True)
class SyncRecord:
    """One dirty sync, in QEMU's terms: a row of syncs.csv.

    The fields from period_ms on are those of the period this sync closed, and None where it closed
    none (migration/ram.c:migration_bitmap_sync closes one after more than 1000 ms).
    """

    dirty_sync_count: int
    kind: SyncKind
    time_s: float
    duration_ms: float
    newly_dirty_pages: int
    remaining_bytes: int  # after the sync
    transferred_bytes: int  # flushed since the start
    threshold_bytes: int  # threshold_size when the sync was decided
    bandwidth_bytes_per_s: float  # the last window's sample
    cursor_page: int  # guest page the sender looks at next
    pass_number: int  # the sender's way round the bitmap in which it falls; 1 is the first
    cpu_throttle_percentage: int  # after the sync
    dirty_rate_high_cnt: int  # after the sync
    period_ms: int | None
    bytes_dirty_period: int | None
    bytes_xfer_period: int | None
    dirty_pages_rate: int | None  # pages a second


@dataclass(frozen=True, kw_only=True)
class Event:
    """One decision, named as QEMU's trace event of it: a line of events.jsonl."""

    time_s: float
    event: str
    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TimelineSample:
    """The state at one moment. Between two samples remaining and transferred are straight lines.

    Two samples may share a time: the state before and after a sync.
    """

    time_s: float
    remaining_bytes: int
    transferred_bytes: int
    cpu_throttle_percentage: int
    dirty_sync_count: int
    guest_run_s: float  # vCPU run time so far: its slope is the guest's speed


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What an observer is told as the run goes on."""

    time_s: float
    remaining_bytes: int
    total_bytes: int
    cpu_throttle_percentage: int
    dirty_sync_count: int


Observer: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """summary.json of a run that was computed: see README.md for each field's meaning."""

    status: Status
    verdict: Verdict | None  # None only when status is incomplete
    reason: str
    reason_code: str
    total_time_s: float
    downtime_ms: float | None
    first_pass_s: float | None
    dirty_sync_count: int
    fallback_sync_count: int
    first_throttle_s: float | None
    max_throttle_percent: int
    time_at_max_throttle_s: float
    longest_vcpu_stall_ms: float
    transferred_bytes: int
    normal_pages: int
    zero_pages: int
    resent_pages: int
    remote_clears: int
    remote_clear_s: float
    guest_cpu_lost_s: float
    guest_cpu_lost_percent: float
    write_faults: int  # first writes to a page after it was protected
    guest_fault_s: float  # vCPU seconds of them
    guest_big_lock_s: float
    paused_s: float
    attempt: int
    sync_stall_s: float
    main_loop_stall_s: float
    longest_main_loop_stall_ms: float
    remaining_bytes: int
    vm_bytes: int
    qemu_version: str
    policies: str = ""  # rules and manager that are not the version's
    tracking: str
    backend: str
    backend_reason: str
    seed: int
    simulated_looks: int
    wall_time_s: float
    bitmap_bytes: int
    process_peak_rss_bytes: int
    gpusim_version: str


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One change to the config of a run that did not converge, and what it would lead to.

    Attributes:
        key, value: what to set, as a user writes it: "link.bandwidth", "15Gbit/s".
        outcome: not_tried where the time for looking ahead was up.
        smallest: of its values the smallest that converges; False: time was up before the smaller
            ones had been tried.
        total_time_s, downtime_ms, max_throttle_percent, guest_cpu_lost_percent: as in Summary; None
            unless it converges.
    """

    key: str
    value: str
    outcome: Literal["converges", "does_not", "not_tried"]
    smallest: bool = True
    total_time_s: float | None = None
    downtime_ms: float | None = None
    max_throttle_percent: int | None = None
    guest_cpu_lost_percent: float | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A migration before the last one in the same QEMU process, and the config of it alone."""

    config: Config
    result: Result


@dataclass(frozen=True, kw_only=True)
class Result:
    """A whole migration. `syncs` and `events` are a function of config and seed alone.

    Attributes:
        before: the attempts before this one.
        actions_not_done: actions of the schedule that had not been done when the migration ended.
        pass_ends_s: when the sender had come round the bitmap, each time: pass n ends at the n-th, and
            the last pass at the end of the run.
    """

    summary: Summary
    syncs: list[SyncRecord] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    samples: list[TimelineSample] = field(default_factory=list)
    pass_ends_s: list[float] = field(default_factory=list)
    before: list[Attempt] = field(default_factory=list)
    actions_not_done: list[Action] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class EvacuatedGuest:
    """One guest of an evacuation; times are seconds since the evacuation began.

    Attributes:
        config: of a run that is this guest's migration alone, over the shares of the link it had.
        vcpus: of the VM.
        end_s: when its place was free again: it was out, or given up.
        result: times in it are seconds since its own migrate command.
    """

    name: str
    config: Config
    vcpus: int
    start_s: float
    end_s: float
    result: Result


@dataclass(frozen=True, kw_only=True)
class EvacuationSummary:
    """summary.json of an evacuation: see docs/evacuate.md for each field's meaning."""

    kind: str = "evacuation"
    status: Status
    verdict: Verdict | None  # None only when status is incomplete
    reason: str
    reason_code: str
    total_time_s: float
    downtime_ms: float | None
    dirty_sync_count: int
    fallback_sync_count: int
    max_throttle_percent: int
    longest_vcpu_stall_ms: float
    transferred_bytes: int
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
    """What an observer of an evacuation is told whenever a guest's migration has ended."""

    time_s: float
    ended: int
    guests: int


@dataclass(frozen=True, kw_only=True)
class Evacuation:
    """A whole evacuation.

    Attributes:
        guests: those whose migration ended, in the order they started.
        link_bandwidth: (seconds, bytes a second) from which on the link gave so much; may be infinite.
    """

    summary: EvacuationSummary
    guests: list[EvacuatedGuest] = field(default_factory=list)
    link_bandwidth: list[tuple[float, float]] = field(default_factory=list)
