"""What a user may set: plain data classes with their defaults and the sources of those.

No logic lives here: scenario.py checks the values and turns them into numbers, app.py registers the
classes with Hydra, and `gpusim.simulate` takes them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class VmConfig:
    """The virtual machine.

    Attributes:
        memory: RAM, "1TiB"; rounded up to whole pages, as QEMU does.
        page_size: target page in bytes.
        vcpus: number of vCPUs; only the guest's loss is counted with it.
        big_lock_exits_per_s: how often a vCPU needs QEMU's big lock, so that it stands still while a
            sync holds it: `guest_big_lock_s`. It depends on the guest's devices; no source, so 0.
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
    big_lock_exits_per_s: float = 0.0
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
    """The wire and the threads that feed it.

    Attributes:
        bandwidth: "10Gbit/s", or "unlimited" where max_bandwidth alone shall decide.
        page_header_bytes: wire bytes besides the content of a normal page (qemu-file: 8).
        zero_page_bytes: wire bytes of a zero page (8 of header, 1 of value).
        zero_page_scan: how fast the sending thread finds zero pages to be zero. Default: 97 GB in
            about 48 s, the first pass of the series' v2 letter of 2024-09-30 (an inference).
        page_cost_ns: a sending thread's own time a normal page, beside which the wire works. Default:
            of eight multifd channels that ran for 36.27 s, 3.14 s went to 12.8 million zero pages (25.6
            million took 6.30 s) and the rest to 12.8 million normal ones (qemu-devel, 2024-12-24, "Add
            DSA zero page detection doc", Xeon 8457C): 12.7 Gbit/s a thread. One thread without
            multifd is taken to be as fast; "we can not utilise NIC higher than 10 Gbps without
            multiFD" (qemu-devel, 2022-05-11).
        queue_cost_ns: multifd only: the migration thread's time a page, of either kind, to find it and
            put it into a packet. Default: 4.86 s for 25.6 million pages, same source.
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
    page_cost_ns: float = 2580.0
    queue_cost_ns: float = 190.0
    wakeup_latency_us: float = 50.0
    non_ram_downtime_ms: float = 0.0
    recorded: list[Any] | None = None
    changes: list[Any] | None = None


@dataclass
class PolicyConfig:
    """A class that decides in the place of one of QEMU's rules, or a manager: docs/policies.md.

    Attributes:
        target: "module:Class"; the module is found on Python's path and in the current directory.
        args: what the class is made with, besides what every rule of its kind is told.
    """

    target: str = ""
    args: dict[str, Any] = field(default_factory=dict)


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
        multifd_channels: 0: the capability multifd is off, QEMU's default, and one thread sends all.
            With it QEMU has 2 channels unless told, up to 255; 8 fill 100 Gbit/s.
        throttle_rule, sync_timer_rule, switchover_rule: a class of one's own in the place of the version's
            rule; null: the version's.
        manager: a class that does what libvirt or KubeVirt would, by what QEMU shows; null: nobody does.
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
    multifd_channels: int = 0
    throttle_rule: PolicyConfig | None = None
    sync_timer_rule: PolicyConfig | None = None
    switchover_rule: PolicyConfig | None = None
    manager: PolicyConfig | None = None


@dataclass
class TrackingConfig:
    """How KVM or TCG tracks writes, and what a sync costs.

    A sync first reads the log, under the big lock: the main loop waits, and vCPUs that need it. Then it
    merges into the bitmap, under the bitmap's mutex too, so that the sender waits as well. The sender
    waits for all of a sync that is its own: all but the fallback timer's. Figures called "the mail" are
    of a guest of 64 vCPUs and 256 GiB with many vhost-user devices at 10 GB/s dirtied (qemu-devel, Dec
    2025, "merge fragmented clear_dirty ioctls"), and taken as linear in RAM, which is inferred.

    Attributes:
        mode: kvm_manual (lazy), kvm_legacy, dirty_ring or tcg (eager).
        initially_set: kvm_manual only: KVM_DIRTY_LOG_INITIALLY_SET, nothing is tracked before a
            chunk's first clear.
        log_sync_ns_per_gib: to read KVM's log, a GiB of RAM. Default: the mail's 2.5 ms.
        log_sync_us_per_block: the same, a RAM block (one memslot or more); no source, so 0.
        listeners_ms: to read the logs of vhost and VFIO devices; 0: there are none. The mail's: 3.
        merge_ns_per_gib: to merge aligned blocks, a GiB of RAM. Default: the mail's 5 ms.
        misaligned_ms: to merge small blocks that are not a multiple of 64 pages; 0: there are none.
            The mail's: 61, and 1 once their clears were batched.
        waits_for_burst: a fallback sync waits to merge until the sender's burst, of up to 51 ms, ends.
        remote_clear_us: kvm_manual only: time of one KVM_CLEAR_DIRTY_LOG, one a chunk of 2^18 pages
            and round, in which the sending thread sends nothing; no source, so 0.
        protect_ns_per_page: to write-protect a page. kvm_manual: in the chunk's clear, in which the
            sending thread sends nothing; kvm_legacy, dirty_ring: in the sync, each page that was
            written; all of them at the start, unless initially_set. Default: starting to
            track 128 GiB took 460 ms with all pages protected and 10 ms with none (Linux
            3c9bd4006bfc), 450 ms for 2^25 pages; an inference, an upper estimate.
        first_write_cost_ns: vCPU time of the first write to a page after it was protected (a write
            fault, an entry of Intel's page-modification log, TCG's slow path), besides the write.
            Default: KVM with the page-modification log, at most; 58.7 ms for 2^18 pages (kvm list,
            2022-02-03, dirty_log_perf_test). 420 under tracking=tcg; docs/model.md has others.
        recorded_sleeps: tcg and dirty_ring only, where a sync waits for every vCPU: [[from, until], ...] in
            seconds, when they slept in a recorded migration. null, and behind the last: the throttle's
            own slices, each a timer's period after the one before; a real timer comes a little later.
    """

    mode: str = "kvm_manual"
    initially_set: bool = True
    log_sync_ns_per_gib: float = 9766.0
    log_sync_us_per_block: float = 0.0
    listeners_ms: float = 0.0
    merge_ns_per_gib: float = 19531.0
    misaligned_ms: float = 0.0
    waits_for_burst: bool = True
    remote_clear_us: float = 0.0
    protect_ns_per_page: float = 13.4
    first_write_cost_ns: float = 224.0
    recorded_sleeps: list[Any] | None = None


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
class AttemptConfig:
    """One of several migrations of a VM in one QEMU process, each begun when the one before has ended.

    Attributes:
        after: pause between the end of the one before and this one.
        migration: keys of `migration` that this one has otherwise, such as {auto_converge: false}.
        schedule: as Config has it, by this one's own clock.
        resets_capabilities: when it has ended auto-converge is switched off until the next one begins,
            as libvirt does (qemuMigrationParamsReset).
    """

    after: int | float | str = 0
    migration: dict[str, Any] = field(default_factory=dict)
    schedule: list[Any] = field(default_factory=list)
    resets_capabilities: bool = False


@dataclass
class Config:
    """One migration, or the evacuation of a host.

    Attributes:
        schedule: what is done to the migration while it runs, as libvirt, Nova or KubeVirt do: entries
            {at: "60s", do: ACTION} or {at_sync: 5, do: ACTION}, where ACTION is pause, resume or cancel,
            and {at: "60s", set: {downtime_limit: 1000}} with any of QEMU's parameters. at_sync is done
            when so many syncs have ended.
        attempts: several migrations in one QEMU process, one after the other until one converges, each
            with a schedule of its own; `schedule` must then be empty. Attempt n draws by seed + n - 1.
            The results are the last one's; those before lie in its folder `attempts/`.
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
    schedule: list[Any] = field(default_factory=list)
    attempts: list[AttemptConfig] = field(default_factory=list)
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
