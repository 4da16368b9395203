"""What a user may set: plain data classes with their defaults and the sources of those.

No logic lives here: scenario.py checks the values and turns them into numbers, app.py registers the
classes with Hydra, and `gpusim.simulate` takes them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class ConfigError(ValueError):
    """A value that cannot be simulated: `KEY = VALUE: what is allowed, what to do`."""

    def __init__(self, key: str, value: object, message: str) -> None:
        self.key, self.value, self._message = key, value, message
        super().__init__(f"{key} = {value}: {message}")

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, object, str]]:
        """It comes back whole from a worker process."""
        return ConfigError, (self.key, self.value, self._message)


@dataclass
class VmConfig:
    """The virtual machine.

    Attributes:
        memory: RAM, "1TiB"; rounded up to whole pages, as QEMU does.
        page_size: target page in bytes.
        vcpus: number of vCPUs; only the guest's loss is counted with it.
        zero_percent: share of RAM that is zero when the migration starts: the last pages that no
            writer covers. What a writer covers is not zero, it has been running.
        zero_ranges: instead of zero_percent, [[from, until], ...] of guest memory, less what
            writers cover.
        blocks: sizes of the RAM blocks, which add up to memory; null: one block. QEMU keeps them
            biggest first, and `start` and `zero_ranges` count in that order.
    """

    memory: int | float | str = "1TiB"
    page_size: int = 4096
    vcpus: int = 32
    zero_percent: float = 0.0
    zero_ranges: list[Any] | None = None
    blocks: list[Any] | None = None


@dataclass
class WorkloadConfig:
    """What the guest writes. The class itself is the idle guest; the others derive from it."""

    pattern: str = "idle"


@dataclass
class WriterConfig(WorkloadConfig):
    """What all writers have in common.

    Attributes:
        working_set, working_set_percent: pages written, as a size or a share of RAM; one of them.
        start: where a contiguous working set begins in guest memory.
        page_writes_per_s: page writes a second of all its threads together, unthrottled.
        pace: cpu_bound (a throttled vCPU writes less), paced (work arrives at page_writes_per_s and
            what a throttle held up is caught up), recorded (`recorded` says when).
        catch_up_page_writes_per_s: paced only: how fast the guest works while it has a backlog.
        recorded: recorded only: [[seconds, page writes so far], ...], rising; behind the last it is
            CPU-bound at page_writes_per_s.
        windows: [[from, until], ...] in which it is active; null: always.
        throttled: false for device writes, which no vCPU throttle slows.
        granule: null: the working set is contiguous; a size such as 2MiB: it is scattered over the
            whole RAM in pieces of that size.
        vcpus: vCPUs it keeps busy, which its loss is counted by; null: an even share of all.
    """

    pattern: str = "uniform"
    working_set: int | float | str | None = None
    working_set_percent: float | None = None
    start: int | float | str = 0
    page_writes_per_s: float = 1e6
    pace: str = "cpu_bound"
    catch_up_page_writes_per_s: float | None = None
    recorded: list[Any] | None = None
    windows: list[Any] | None = None
    throttled: bool = True
    granule: int | float | str | None = None
    vcpus: float | None = None


@dataclass
class HotColdConfig(WriterConfig):
    """Two bands: hot_writes_percent of the writes go to the first hot_percent of the pages."""

    pattern: str = "hot_cold"
    hot_percent: float = 10.0
    hot_writes_percent: float = 90.0


@dataclass
class ZipfConfig(WriterConfig):
    """Page of rank r is written with weight 1 / r^exponent, in bands that double in size."""

    pattern: str = "zipf"
    exponent: float = 1.0


@dataclass
class SequentialConfig(WriterConfig):
    """`threads` threads, each round and round its own share of the working set, page by page.

    Attributes:
        threads: number of threads; the writes are split evenly between them.
        first_write: writes each thread has done before the migration: where in its share it is.
    """

    pattern: str = "sequential"
    threads: int = 16
    first_write: int = 0


@dataclass
class MixConfig(WorkloadConfig):
    """Several writers at once; one that is active in windows only makes a phase.

    Attributes:
        writers: name -> the keys of one writer, `pattern` among them.
    """

    pattern: str = "mix"
    writers: dict[str, Any] = field(default_factory=dict)


@dataclass
class LinkConfig:
    """The wire and the thread that feeds it.

    Attributes:
        bandwidth: "10Gbit/s", or "unlimited" where max_bandwidth alone shall decide.
        page_header_bytes: wire bytes besides the content of a normal page (qemu-file: 8).
        zero_page_bytes: wire bytes of a zero page (8 of header, 1 of value).
        zero_page_scan: how fast the sending thread finds zero pages to be zero. Default: 97 GB in
            about 48 s, the first pass of the series' v2 letter of 2024-09-30 (an inference).
        page_cost_ns: the sending thread's own time a page, beside which the wire works; no source,
            so 0: the link is never slowed by the thread.
        wakeup_latency_us: how late the sending thread wakes from its sleep to the end of a 100 ms
            window. Default: Linux's timer slack (prctl(2), PR_SET_TIMERSLACK), a lower bound.
        non_ram_downtime_ms: device state and switchover besides RAM; no source, so 0: the downtime
            is that of the RAM alone.
        recorded: [[seconds, bytes on the wire so far], ...]: a recorded pace instead of bandwidth,
            which then only counts for the rest that is sent while the VM is stopped.
        changes: [[at, bandwidth], ...], rising: what the wire gives from then on, counted from the
            migrate command, such as [["2h", "5Gbit/s"]] where a backup starts; null: never changes.
    """

    bandwidth: int | float | str = "10Gbit/s"
    page_header_bytes: int = 8
    zero_page_bytes: int = 9
    zero_page_scan: int | float | str = "2GB/s"
    page_cost_ns: float = 0.0
    wakeup_latency_us: float = 50.0
    non_ram_downtime_ms: float = 0.0
    recorded: list[Any] | None = None
    changes: list[Any] | None = None


@dataclass
class MigrationConfig:
    """QEMU's parameters under QEMU's names, defaults of migration/options.c unless said.

    Attributes:
        version: which QEMU decides; see `gpusim/qemu/versions.py`.
        auto_converge: capability; QEMU's default is off, here it is on.
        max_bandwidth: bytes a second or "1GB/s"; 0: unlimited, so that the link decides. QEMU's own
            default is 128MiB/s.
        downtime_limit: ms.
        avail_switchover_bandwidth: bytes a second, 0: as measured (since QEMU 8.2).
        throttle_trigger_threshold, cpu_throttle_initial, cpu_throttle_increment, max_cpu_throttle:
            percent; QEMU 2.6 has neither the first nor the last.
        cpu_throttle_tailslow: smaller steps near the end (not in QEMU 2.6).
        fallback_sync_interval: null: the version's own (5s since QEMU 9.2, none before); "never"
            switches the timer off. QEMU has no parameter for it. Under seed_v2, which looks every second,
            how old a period's end must be.
    """

    version: str = "qemu_9_2"
    auto_converge: bool = True
    max_bandwidth: int | float | str = 0
    downtime_limit: int = 300
    avail_switchover_bandwidth: int | float | str = 0
    throttle_trigger_threshold: int = 50
    cpu_throttle_initial: int = 20
    cpu_throttle_increment: int = 10
    cpu_throttle_tailslow: bool = False
    max_cpu_throttle: int = 99
    fallback_sync_interval: int | float | str | None = None


@dataclass
class TrackingConfig:
    """How KVM or TCG tracks writes, and what a sync costs.

    Attributes:
        mode: kvm_manual (lazy), kvm_legacy, dirty_ring or tcg (eager).
        initially_set: kvm_manual only: KVM_DIRTY_LOG_INITIALLY_SET, nothing is tracked before a
            chunk's first clear.
        sync_fixed_ms: duration of a sync, besides its share a GiB; no source, so 0.
        sync_ns_per_gib: duration of a sync a GiB of RAM. Default: 7.5 ms for 256 GiB, the aligned
            part after batching (qemu-devel, Dec 2025, "merge fragmented clear_dirty ioctls").
    """

    mode: str = "kvm_manual"
    initially_set: bool = True
    sync_fixed_ms: float = 0.0
    sync_ns_per_gib: float = 29297.0


@dataclass
class BackendConfig:
    """Where the bitmaps live.

    Attributes:
        name: auto (the first of the others that can be used here), cupy, numba or numpy. The result
            does not depend on it.
        threads: over chunks, on a CPU; 0: one a core. The result does not depend on it. One by
            default: one alone comes near the speed of memory (docs/performance.md).
    """

    name: str = "auto"
    threads: int = 1


@dataclass
class LimitConfig:
    """When to stop a run that does not end by itself.

    Attributes:
        simulated: simulated time: verdict time_limit.
        wall: wall-clock time, null: none: status incomplete, no verdict.
        stop_when_stuck: give up as not_converged once the throttle can rise no further and, for 60 s
            and ten passes, the smallest remaining after a sync has fallen by less than 2 %.
    """

    simulated: int | float | str = "24h"
    wall: int | float | str | None = None
    stop_when_stuck: bool = True


@dataclass
class GuestConfig:
    """One VM of an evacuation, or several alike.

    Attributes:
        count: so many of them, called NAME-1, NAME-2, ... if it is not 1.
    """

    vm: VmConfig = field(default_factory=VmConfig)
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    count: int = 1


@dataclass
class EvacuationConfig:
    """A host to be emptied: its guests migrate over one link, which they share evenly.

    Attributes:
        guests: name -> VM; in the order they stand in.
        at_a_time: how many migrate at once, at most; more than there are guests: all of them. 1 is
            OpenStack Nova's default (max_concurrent_live_migrations); KubeVirt's is 2 a node.
        order: as_listed, or by RAM: smallest_first, largest_first, or by the pages that the guest
            dirties in its first second, as QEMU's calc-dirty-rate measures: calmest_first,
            busiest_first. Guests that are equal go as listed.
    """

    guests: dict[str, GuestConfig] = field(default_factory=dict)
    at_a_time: int = 1
    order: str = "as_listed"


@dataclass
class Config:
    """One migration, or the evacuation of a host.

    Attributes:
        evacuation: the guests of a host instead of one VM: `vm` and `workload` are then not read, and
            link, migration, tracking, backend and limit are common to all of them.
        seed: of the drawing of the guest's random writes.
        dry_run: only say what the run would need.
        plot: write the pictures of a run: plot.png, report.html, trace.json.gz, guestperf.json.
        objective: numbers of the summary that a job returns to Hydra, for a sweeper that minimises;
            infinity for a migration that did not converge.
    """

    vm: VmConfig = field(default_factory=VmConfig)
    workload: WorkloadConfig = field(default_factory=lambda: WriterConfig(working_set_percent=10.0))
    link: LinkConfig = field(default_factory=LinkConfig)
    migration: MigrationConfig = field(default_factory=MigrationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    limit: LimitConfig = field(default_factory=LimitConfig)
    evacuation: EvacuationConfig | None = None
    seed: int = 1
    dry_run: bool = False
    plot: bool = True
    objective: list[str] = field(default_factory=lambda: ["total_time_s"])


PATTERNS: dict[str, type[WorkloadConfig]] = {
    "idle": WorkloadConfig,
    "uniform": WriterConfig,
    "hot_cold": HotColdConfig,
    "zipf": ZipfConfig,
    "sequential": SequentialConfig,
    "mix": MixConfig,
}
