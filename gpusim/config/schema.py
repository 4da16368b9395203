"""The keys that a user may set: plain data classes with defaults and their sources.

No logic lives here. scenario.py checks the values and turns them into numbers. compose.py registers
the classes with Hydra. The docstrings are the source of docs/reference/configuration.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class VmConfig:
    """The virtual machine.

    Attributes:
        memory: RAM, such as "1TiB". It is rounded up to whole pages, as QEMU does.
        page_size: target page in bytes: 4096, 8192, 16384 or 65536.
        vcpus: number of vCPUs. It affects the guest's loss, and the default of
            link.non_ram_downtime_ms.
        vfio_devices: number of VFIO devices. It only affects the default of
            link.non_ram_downtime_ms. gpusim sends no state of a device before the stop.
        big_lock_exits_per_s: how often a vCPU needs QEMU's big lock, per second. The vCPU waits
            while a sync holds the lock (`guest_big_lock_s`). It depends on the guest's devices.
            There is no source, so the default is 0.
        backing: host pages behind the RAM: 4k, thp (transparent huge pages), hugetlb_2m or
            hugetlb_1g. `virsh dumpxml` shows <hugepages> for the last two. KVM splits huge pages
            while it tracks writes, see tracking.eager_page_split. thp counts as huge everywhere. It
            does not matter under TCG.
        timer_latency_us: how late QEMU's main loop wakes for a timer, and a vCPU from the
            throttle's sleep, on average. The seed draws each delay (exponential). An assumption for
            a host without other load: Linux adds no slack, because QEMU sets it to 1 ns
            (util/qemu-timer.c:init_clocks). Under nested virtualisation on a busy host 300 to 600
            were measured (docs/studies/phase-lock.md).
        kick_us_per_vcpu: time in which a tick of the throttle kicks one vCPU, under the big lock.
            Measured on two cores of a virtual machine: 3.5 (docs/explanation/model.md#vcpus-in-turn).
            There is no source for a host with hundreds of cores, so the default is 0.
        big_lock_us_per_vcpu: time in which a vCPU takes the big lock from the one before it, after
            a tick of the throttle. Measured in the same way: 3.7. A wake-up from a deep idle state
            makes it longer. There is no source for a large host, so the default is 0.
        zero_percent: share of RAM that is zero when the migration starts. Pages that a writer covers
            are not zero. The seed draws which of the others are zero. They lie in at most 1024
            places.
        zero_ranges: alternative to zero_percent: [[from, until], ...] of guest memory. Pages that
            writers cover are excluded.
        blocks: sizes of the RAM blocks. They add up to memory. null: one block. QEMU keeps the
            largest block first, and `start` and `zero_ranges` count in this order.
    """

    memory: int | float | str = "1TiB"
    page_size: int = 4096
    vcpus: int = 32
    vfio_devices: int = 0
    big_lock_exits_per_s: float = 0.0
    backing: str = "thp"
    timer_latency_us: float = 50.0
    kick_us_per_vcpu: float = 0.0
    big_lock_us_per_vcpu: float = 0.0
    zero_percent: float = 0.0
    zero_ranges: list[Any] | None = None
    blocks: list[Any] | None = None


@dataclass
class WorkloadConfig:
    """The guest's writes. This class is the idle guest, and the other patterns derive from it.

    Attributes:
        pattern: idle, uniform, hot_cold, zipf, sequential, without_replacement or mix. It follows
            from the preset.
    """

    pattern: str = "idle"


@dataclass
class WriterConfig(WorkloadConfig):
    """One working set in which every page is equally likely to be written.

    Attributes:
        pattern: which pages the writer writes. It follows from the preset.
        working_set, working_set_percent: the pages that are written, as a size or as a share of
            RAM. Set one of the two, and the other to null.
        start: first guest address of a contiguous working set, in bytes or as a size.
        page_writes_per_s: page writes per second of all threads together, without a throttle.
        pace: cpu_bound, paced or recorded. cpu_bound: a throttled vCPU writes less. paced: work
            arrives at page_writes_per_s, and the guest catches up later with work that the throttle
            delayed. recorded: the key `recorded` has the writes.
        catch_up_page_writes_per_s: for paced only: page writes per second while the guest has a
            backlog.
        recorded: for recorded only: [[seconds, page writes so far], ...]. All values rise. After
            the last sample the writer is CPU-bound at page_writes_per_s.
        windows: [[from, until], ...] of simulated time in which the writer is active. null: always.
        on_time, off_time: the writer is active for on_time and idle for off_time, in turn, such as
            "30s". Both are null: always active. Inside `windows`, if they are set.
        on_off_lengths: fixed or exponential. fixed: each time has this length. exponential: the
            lengths are drawn by the seed, with these means.
        on_off_start_percent: position in the cycle of on and off at the start, in percent. An on
            time begins at 0. auto: drawn by the seed, from 0 to 100. gpusim assumes that nobody
            starts a migration by the guest's clock.
        throttled: false for device writes, which no vCPU throttle slows.
        granule: null: the working set is contiguous. A size such as 2MiB: the working set is
            scattered over the whole RAM in pieces of this size, which the seed draws. The
            scattered writers of a mix share no page if they fit beside each other.
        granule_range: the memory over which the pieces are scattered, from `start` on. null: the
            whole RAM.
        drift_period: the working set moves by a step once per so long, such as "1min". null: it stays.
        drift_step, drift_step_percent: how far it moves, as a size or as a share of the range. Set
            one of the two.
        drift_range: the memory in which the working set moves round and round, from `start` on. null:
            the whole RAM. It is rounded down to whole steps.
        drift_start_percent: position in the drift period at the start, in percent. auto: drawn by
            the seed, from 0 to 100.
        vcpus: vCPUs that the writer keeps busy. The guest's loss is counted by them. null: an even
            share of all vCPUs.
        vcpu_groups: [[percent of the vCPUs, percent of the writes], ...]: vCPUs that do not write
            equally fast, such as [[25, 60], [75, 40]]. Both columns add up to 100. null: all vCPUs
            are equally fast. A fast vCPU spends more of its time in first writes than a slow one.
        memory_page_writes_per_s: the most page writes per second that the guest's memory takes, of
            all vCPUs together. Then page_writes_per_s is what the vCPUs would write to a memory
            without a limit. A throttle of p percent slows the writer only from where the vCPUs
            write less than the memory takes. null: the memory is no limit.
        zeroed_percent: share of the writes that leave their page zero, such as memory that the guest
            frees and its kernel clears (init_on_free), or a balloon. QEMU sends such a page as a
            zero page, until it is written again.
        reads_per_s: page reads per second, at the speed of the writes. Only post-copy asks for them,
            because a read of a missing page waits too. null: as many as writes. There is no source
            for a guest that nobody measured.
        read_working_set: the pages that are read, evenly, from `start` on, or from the first page of
            RAM if the writer is scattered. null: the pages that are written, in the same way.
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
    on_time: int | float | str | None = None
    off_time: int | float | str | None = None
    on_off_lengths: str = "fixed"
    on_off_start_percent: int | float | str = "auto"
    throttled: bool = True
    granule: int | float | str | None = None
    granule_range: int | float | str | None = None
    drift_period: int | float | str | None = None
    drift_step: int | float | str | None = None
    drift_step_percent: float | None = None
    drift_range: int | float | str | None = None
    drift_start_percent: int | float | str = "auto"
    vcpus: float | None = None
    vcpu_groups: list[Any] | None = None
    memory_page_writes_per_s: float | None = None
    zeroed_percent: float = 0.0
    reads_per_s: float | None = None
    read_working_set: int | float | str | None = None


@dataclass
class HotColdConfig(WriterConfig):
    """Two bands: hot_writes_percent of the writes go to the first hot_percent of the pages.

    Attributes:
        hot_percent: share of the working set's pages that are hot.
        hot_writes_percent: share of the writes that go to the hot pages.
        heat: by_address or shuffled. by_address: the hot pages are the first ones. shuffled: they
            lie anywhere in the working set, where the seed draws.
    """

    pattern: str = "hot_cold"
    hot_percent: float = 10.0
    hot_writes_percent: float = 90.0
    heat: str = "by_address"


@dataclass
class ZipfConfig(WriterConfig):
    """The page of rank r is written with weight 1 / r^exponent, in bands that double in size.

    Attributes:
        exponent: of the weights, from 0 to 10. 0 is uniform.
        heat: by_address or shuffled. by_address: the page of rank r is page r. shuffled: the ranks
            lie anywhere in the working set, where the seed draws.
    """

    pattern: str = "zipf"
    exponent: float = 1.0
    heat: str = "by_address"


@dataclass
class SequentialConfig(WriterConfig):
    """Each of `threads` threads writes its own share of the working set in order, again and again.

    Attributes:
        threads: number of threads. The writes are split evenly between them.
        first_write: writes of each thread before the migration. They set the position in its share.
            auto: drawn by the seed, evenly over the share, and the same for all threads. gpusim
            assumes that nobody starts a migration by the guest's position, and that all threads are
            equally fast.
    """

    pattern: str = "sequential"
    threads: int = 16
    first_write: int | str = "auto"


@dataclass
class WithoutReplacementConfig(WriterConfig):
    """Every page of the working set is written once per round, in an order that the seed draws.

    Attributes:
        first_write: writes before the migration. They set the position in the round. auto: drawn by
            the seed, evenly over a round.
    """

    pattern: str = "without_replacement"
    first_write: int | str = "auto"


@dataclass
class MixConfig(WorkloadConfig):
    """Several writers at once. A writer with windows makes a phase.

    Attributes:
        writers: name -> the keys of one writer, with its `pattern`.
    """

    pattern: str = "mix"
    writers: dict[str, Any] = field(default_factory=dict)


@dataclass
class LinkConfig:
    """The link, and the threads that send over it.

    Attributes:
        bandwidth: such as "10Gbit/s". "unlimited" if only migration.max_bandwidth limits.
        page_header_bytes: bytes of a normal page on the link besides its content (qemu-file: 8).
        zero_page_bytes: bytes of a zero page on the link (8 of header, 1 of value).
        zero_page_scan: how fast one thread recognises zero pages, bytes per second. Default: 246 ns
            per page of 4 KiB. Source: qemu-devel, 2024-12-24, "Add DSA zero page detection doc"
            (Xeon 8457C), 25.6 million zero pages in 6.30 s. Memory that the guest never touched is
            mapped when it is first read, which may take ten times as long.
        page_cost_ns: a sending thread's own time per normal page, in parallel with the link.
            Default: 12.7 Gbit/s per thread. Source: qemu-devel, 2024-12-24, "Add DSA zero page
            detection doc" (Xeon 8457C). Eight multifd channels ran for 36.27 s. Of these, 3.14 s
            went to 12.8 million zero pages (25.6 million took 6.30 s), and the rest to 12.8 million
            normal pages. One thread without multifd is assumed to be as fast: "we can not utilise
            NIC higher than 10 Gbps without multiFD" (qemu-devel, 2022-05-11).
        queue_cost_ns: for multifd only: the migration thread's time per page of either kind, to
            find it and to put it into a packet. Before QEMU 9.0 this thread also detects zero
            pages, one after the other. Default: 4.86 s for 25.6 million pages, same
            source.
        wakeup_latency_us: how late the sending thread wakes at the end of a 100 ms window. Default:
            Linux's timer slack (prctl(2), PR_SET_TIMERSLACK), a lower bound.
        non_ram_downtime_ms: downtime for all but RAM: to stop the VM, and to save and load the
            state of its devices. Default: auto, which is 20 + 1.7 * vm.vcpus + 54 *
            vm.vfio_devices. Source: four VMs of one thread of qemu-devel
            (`gpusim/config/link.py`).
        recorded: [[seconds, bytes on the link so far], ...]: a recorded rate in place of bandwidth.
            Then bandwidth only counts while the VM is stopped.
        changes: [[at, bandwidth], ...]: the bandwidth from each time on, counted from the migrate
            command. Times rise. Such as [["2h", "5Gbit/s"]] for a backup. null: no change.
    """

    bandwidth: int | float | str = "10Gbit/s"
    page_header_bytes: int = 8
    zero_page_bytes: int = 9
    zero_page_scan: int | float | str = "16.7GB/s"
    page_cost_ns: float = 2580.0
    queue_cost_ns: float = 190.0
    wakeup_latency_us: float = 50.0
    non_ram_downtime_ms: int | float | str = "auto"
    recorded: list[Any] | None = None
    changes: list[Any] | None = None


@dataclass
class PolicyConfig:
    """A user's class that decides in place of one of QEMU's rules, or a manager.

    Attributes:
        target: "module:Class". gpusim looks for the module on Python's path and in the current
            directory.
        args: arguments of the class, besides those that every rule of its kind gets.
    """

    target: str = ""
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class MigrationConfig:
    """QEMU's parameters under QEMU's names.

    Defaults are those of migration/options.c, except as noted.

    Attributes:
        version: the QEMU whose rules decide. See `gpusim/qemu/versions.py`.
        auto_converge: capability. The default is on. QEMU's own default is off.
        max_bandwidth: bytes per second, or such as "1GB/s". 0: unlimited, so the link decides.
            QEMU's own default is 128MiB/s.
        downtime_limit: ms, from 0 to 2000000.
        avail_switchover_bandwidth: bytes per second. 0: as measured (since QEMU 8.2).
        throttle_trigger_threshold: percent, from 1 to 100. A period counts as high if the guest
            dirtied more than this share of the bytes that were sent. QEMU 2.6 lacks it.
        cpu_throttle_initial: percent, from 1 to 99: the first throttle.
        cpu_throttle_increment: percent, from 1 to 99: how much each step adds.
        max_cpu_throttle: percent, from cpu_throttle_initial to 99. QEMU 2.6 lacks it.
        cpu_throttle_tailslow: smaller throttle steps near the end (not in QEMU 2.6).
        fallback_sync_interval: null: the version's own (5s since QEMU 9.2, no fallback sync
            before). "never" switches the timer off. QEMU has no parameter for it. seed_v2 polls
            every second, and for it this is the age of the last period's end at which it syncs.
        postcopy_ram: capability. It permits post-copy, and start_postcopy or an order starts it. QEMU
            11.1 with it syncs on every turn of its main loop, and the other versions decide as
            without. Not with VFIO devices.
        postcopy_preempt: capability. Requested pages get a channel of their own. It needs
            postcopy_ram.
        start_postcopy: when to switch to post-copy. never: only a schedule or a manager does. "60s":
            at this time. 2passes: at the second of QEMU's MIGRATION_PASS events after the first
            sync, which up to QEMU 11.0 a fallback sync sends too. 150s_per_gib: at this time per GiB
            of RAM, as KubeVirt does. throttle_50: when the throttle reaches 50 percent.
        max_postcopy_bandwidth: bytes per second after the switch. 0: unlimited.
        multifd_channels: 0: the capability multifd is off, which is QEMU's default, and one thread
            sends everything. QEMU's default with multifd is 2 channels. At most 255. 8 channels
            fill 100 Gbit/s.
        throttle_rule, sync_timer_rule, switchover_rule, bandwidth_rule: a user's class in place of
            the version's rule. null: the version's.
        manager: a user's class that acts as libvirt or KubeVirt would, on what QEMU shows. null:
            there is no manager.
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
    postcopy_ram: bool = False
    postcopy_preempt: bool = False
    start_postcopy: int | float | str = "never"
    max_postcopy_bandwidth: int | float | str = 0
    multifd_channels: int = 0
    throttle_rule: PolicyConfig | None = None
    sync_timer_rule: PolicyConfig | None = None
    switchover_rule: PolicyConfig | None = None
    bandwidth_rule: PolicyConfig | None = None
    manager: PolicyConfig | None = None


@dataclass
class PostcopyConfig:
    """What post-copy costs on the hosts. QEMU has no parameter for any of it.

    "The runs" are recorded post-copy migrations of a guest with PostgreSQL, 8 GiB and 4 vCPUs (July 2026, LordWicked/live-migration-thesis-code). docs/validation/post-copy.md says how each
    default follows from two runs of each kind, and how well it holds for the others.

    Attributes:
        fault_us: time of a fault without any queue: from the touch of a missing page until the page
            is there. Default: the 2 and 5 % quantiles of the runs, which lie between 30 and 64.
        fault_spread: the spread of single faults, as the standard deviation of the logarithm of
            their times. Default: the runs, from 0.42 to 0.5.
        request_us: time of QEMU's threads for a request, which they answer one after the other.
            Default: a request took 10 us of the source's thread, from 5 to 15.
        socket_buffers: bytes between the source's thread and the target that a requested page waits
            behind if the link is full and postcopy_preempt is off. Default: the most that Linux
            gives a sender and a receiver (4 MiB of net.ipv4.tcp_wmem, 6 MiB of tcp_rmem). If a thread
            is slower than the link, then it is half of a socket's first buffer (208 KiB,
            net.core.wmem_default) and of QEMU's own, 32 pages or 32 KiB of zero pages.
        waits_behind_zeros: requests of a migration without postcopy_preempt that find the buffers full
            of zero pages, besides those while gpusim's background sends zero pages. gpusim knows
            the place of the background on average only. A real one comes among zero pages by
            chance, and each of these times makes a few requests wait. There is no source for
            other guests, so the default is 0. The runs have about 50, and their presets set it.
        discard_us: time to drop a run of pages at the target before the switch. A run is a series of
            dirty pages. Default: downtime against runs, from 1.2 to 2.3.
        resume_ms: time until the guest runs at the target, besides the load of its devices. Default:
            the runs took 260 without pages on the way, and 420 with them. A target that need not
            activate disks may be faster.
        threads: the guest's threads that touch memory at the same time. A fault stops one of them.
            At least vm.vcpus. null: one per vCPU.
        async_page_faults: KVM lets a vCPU run another thread of the guest while a page is missing, as
            guests with Linux do. Without it each fault stops its vCPU.
        blocking_percent: with async_page_faults: share of the faults that stop the vCPU all the
            same. Default: the runs, from 4.5 to 14.5.
        together_percent: share of a vCPU's blocked time in which all vCPUs are blocked. Default: the
            runs, from 19 to 75.
        recovered_percent: the guest counts as recovered at this share of its speed.
    """

    fault_us: float = 45.0
    fault_spread: float = 0.45
    request_us: float = 10.0
    socket_buffers: int | float | str = "10MiB"
    waits_behind_zeros: float = 0.0
    discard_us: float = 1.98
    resume_ms: float = 420.0
    threads: int | None = None
    async_page_faults: bool = True
    blocking_percent: float = 8.0
    together_percent: float = 45.0
    recovered_percent: float = 90.0


@dataclass
class TrackingConfig:
    """How KVM or TCG tracks writes, and what a sync costs.

    A sync first reads the log. It holds the big lock, so the main loop and vCPUs that need the lock
    wait. Then the sync merges the log into the bitmap. It also holds the bitmap's mutex, so the
    sender waits too. The sender waits during its own syncs, which are all except the fallback
    timer's. "The mail" is qemu-devel, Dec 2025, "merge fragmented clear_dirty ioctls". Its guest
    has 64 vCPUs, 256 GiB and many vhost-user devices, and dirties 10 GB/s. gpusim assumes that its
    times grow linearly with RAM.

    Attributes:
        mode: kvm_manual (lazy), kvm_legacy, dirty_ring or tcg (eager).
        initially_set: for kvm_manual only: KVM_DIRTY_LOG_INITIALLY_SET. KVM tracks nothing before a
            chunk's first clear.
        log_sync_ns_per_gib: time to read KVM's log, per GiB of RAM. Default: the mail's 2.5 ms.
        log_sync_us_per_block: time to read KVM's log, per RAM block (one memslot or more). There is
            no source, so the default is 0.
        listeners_ms: time to read the logs of vhost and VFIO devices. 0: there are none. The mail
            has 3 ms.
        merge_ns_per_gib: time to merge aligned blocks, per GiB of RAM. Default: the mail's 5 ms.
        misaligned_ms: time to merge small blocks that are not a multiple of 64 pages. 0: there are
            none. null: the time of the mail's guest, which is 61 ms up to QEMU 10.2. Since 11.0 it is
            1 ms, because QEMU clears the log of a block at once.
        waits_for_burst: a fallback sync waits with its merge until the sender's burst ends, which
            takes up to 51 ms, and longer with vm.backing=hugetlb_1g. If it loses the mutex then, it
            waits for the next burst's end.
        mutex_win_percent: the chance that a fallback sync gets the mutex at a burst's end at which
            the sender goes on at once. pthread's mutex is not fair: the sender frees it for
            microseconds, and a waiting thread needs about as long to wake. A sender that sleeps for
            its rate limit frees it in any case. null: measured in QEMU 11.1.3, which is 97.2 for one
            thread and 7.7 with multifd (docs/explanation/model.md#the-bitmaps-mutex).
        remote_clear_us: for kvm_manual only: time of one KVM_CLEAR_DIRTY_LOG. Each chunk of 2^18
            pages needs one per pass, and the sending thread waits for it. There is no source, so
            the default is 0.
        protect_ns_per_page: time to write-protect a page that KVM maps alone. kvm_manual: the
            chunk's clear does it, and the sending thread waits. kvm_legacy: the sync does it for each
            written page. dirty_ring: a thread of QEMU does it once per second, under the big lock,
            and a sync for what came since. Default: KVM_CLEAR_DIRTY_LOG took 1.79 s for 160 GiB
            (Linux 1e0f42985ffa, in 6.4). It took 3.14 s before, and 1.42 s for 96 GiB in 5.17: 75
            and 57 ns.
        start_ns_per_page: time to write-protect a page when tracking starts, which protects all
            pages unless initially_set. Default: to start tracking 128 GiB (2^25 pages) took 460 ms
            with all pages protected, and 10 ms with none (Linux 3c9bd4006bfc).
        eager_page_split: KVM's module parameter. KVM splits huge pages into 4 KiB pages when it
            protects them first: in a chunk's first clear if initially_set, and else at the start.
            Linux has it since 5.17. Without it a vCPU's first write to a page splits. vm.backing=4k
            has no huge pages.
        split_ns_per_page: time per 4 KiB page to split a huge page and protect it, in place of the
            two above. The chunk's clear does it if initially_set, and else the start. Default:
            to start tracking 96 GiB took 1.55 s in place of 1 ms (Linux a3fe5dbda0a4). First clears of
            96 GiB took 1.67 s: 66.3 ns (kvm list, 2021-12-13, "Eager Page Splitting for the TDP
            MMU", merged as cb00a70bd4b7).
        first_write_cost_ns: vCPU time of the first write to a page after it was protected, besides
            the write itself. This is a write fault, an entry of Intel's page-modification log, or
            TCG's slow path. Default: an upper estimate for KVM with the page-modification log: 58.7
            ms for 2^18 pages (kvm list, 2022-02-03, dirty_log_perf_test). tracking=tcg has 420.
        first_write_serial_percent: share of first_write_cost_ns that one vCPU spends at a time,
            under KVM's mmu_lock. If N vCPUs do nothing but first writes, then each costs N times
            this part, and at least first_write_cost_ns. Default: 2.5 for huge pages that KVM splits
            beforehand. 96 vCPUs took 0.14 s for 2^18 pages each: 534 ns (Linux a3fe5dbda0a4).
            Under shadow paging it is 83. On ARM it is 23, and 69 before Linux 5.18. tracking=tcg
            has 0. The vCPUs that write at once are those of the workload, and at most the threads
            of a sequential writer.
        split_write_cost_ns, split_write_serial_percent: the same for the first write of all to a
            page of a huge page, if KVM did not split it beforehand (eager_page_split=false).
            Default: 311 ms for 2^18 pages and 2 vCPUs (kvm list, 2022-02-03), and 2.94 s for 96
            vCPUs with 2^18 pages each: 11.2 us (Linux a3fe5dbda0a4).
        page_size: for kvm_legacy only: the page that KVM tracks, such as "16MiB". A write marks all
            of it dirty. null: the target page. On POWER with a hash page table KVM cannot split a
            guest's huge pages (Linux arch/powerpc/kvm/book3s_64_mmu_hv.c:
            kvm_test_clear_dirty_npages). On x86 and ARM KVM splits them and tracks host pages
            (Linux arch/x86/kvm/mmu/mmu.c:kvm_mmu_max_mapping_level, Documentation/virt/kvm/
            locking.rst), whatever backs the guest. A first write then costs once per such page.
        recorded_sleeps: for tcg and dirty_ring only, whose syncs wait for every vCPU: [[from,
            until], ...] in seconds, when the vCPUs slept in a recorded migration. null, and after
            the last entry: the throttle's own slices, each one timer period after the other. A real
            timer is a little late.
    """

    mode: str = "kvm_manual"
    initially_set: bool = True
    log_sync_ns_per_gib: float = 9766.0
    log_sync_us_per_block: float = 0.0
    listeners_ms: float = 0.0
    merge_ns_per_gib: float = 19531.0
    misaligned_ms: float | None = 0.0
    waits_for_burst: bool = True
    mutex_win_percent: float | None = None
    remote_clear_us: float = 0.0
    protect_ns_per_page: float = 42.7
    start_ns_per_page: float = 13.4
    eager_page_split: bool = True
    split_ns_per_page: float = 61.6
    first_write_cost_ns: float = 224.0
    first_write_serial_percent: float = 2.5
    split_write_cost_ns: float = 1186.0
    split_write_serial_percent: float = 10.0
    page_size: int | float | str | None = None
    recorded_sleeps: list[Any] | None = None


@dataclass
class BackendConfig:
    """Where the bitmaps live.

    Attributes:
        name: auto, cupy, numba or numpy. auto takes the first of the others that is available. The
            result does not depend on it.
        threads: CPU threads over chunks. 0: one per core. The result does not depend on it. One
            thread comes close to the speed of memory, so the default is 1.
    """

    name: str = "auto"
    threads: int = 1


@dataclass
class LimitConfig:
    """When to stop a run that does not end by itself.

    Attributes:
        simulated: simulated time. The verdict is then time_limit.
        wall: wall-clock time. The status is then incomplete, without a verdict. gpusim reads the
            clock between two events and between two writers, so a run may end one draw, or one
            call of a user's rule, later. The check of the configuration has the same time for
            itself. null: no limit.
        stop_when_stuck: stop with the verdict not_converged if the migration stalls. It stalls if
            the throttle is at its maximum, and the smallest remaining memory after a sync fell by
            less than 2 % over 60 s and ten passes.
        skip_waiting: if the migration stalls, and the schedule or the manager acts only later, then
            do not simulate the time up to that action. total_time_s counts that time. Records after
            it have times that are too early by skipped_s. It needs stop_when_stuck.
    """

    simulated: int | float | str = "24h"
    wall: int | float | str | None = None
    stop_when_stuck: bool = True
    skip_waiting: bool = False


@dataclass
class GuestConfig:
    """One VM of an evacuation, or several of the same kind.

    Attributes:
        vm: the keys of `vm`.
        workload: the keys of `workload`.
        count: number of such VMs. If it is not 1, then they are called NAME-1, NAME-2, ...
    """

    vm: VmConfig = field(default_factory=VmConfig)
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    count: int = 1


@dataclass
class EvacuationConfig:
    """A host to be emptied. Its guests migrate over one link and share it evenly.

    Attributes:
        guests: name -> VM, in the order of the list.
        at_a_time: how many guests migrate at once, at most. 1 is OpenStack Nova's default
            (max_concurrent_live_migrations). KubeVirt's default is 2 per node.
        order: as_listed, smallest_first, largest_first (by RAM), calmest_first or busiest_first.
            The last two sort by the pages that the guest dirties in its first second, as QEMU's
            calc-dirty-rate measures them. Equal guests keep the order of the list.
    """

    guests: dict[str, GuestConfig] = field(default_factory=dict)
    at_a_time: int = 1
    order: str = "as_listed"


@dataclass
class AttemptConfig:
    """One of several migrations of a VM in one QEMU process, each after the other.

    Attributes:
        after: pause between the end of the attempt before and this one.
        migration: keys of `migration` that this attempt changes, such as {auto_converge: false}.
        schedule: as at the top level, in this attempt's own time.
        resets_capabilities: when this attempt has ended, auto-converge is off until the next one
            starts, as with libvirt (qemuMigrationParamsReset).
    """

    after: int | float | str = 0
    migration: dict[str, Any] = field(default_factory=dict)
    schedule: list[Any] = field(default_factory=list)
    resets_capabilities: bool = False


@dataclass
class Config:
    """One migration, or the evacuation of a host.

    Attributes:
        schedule: actions on the migration while it runs, as libvirt, Nova or KubeVirt do them.
            Entries are {at: "60s", do: ACTION} or {at_sync: 5, do: ACTION}. ACTION is pause, resume,
            cancel, start-postcopy, lose-link (which fails the migration, or pauses it in post-copy) or
            recover (which goes on after that). {at: "60s", set: {downtime_limit: 1000}} sets any of QEMU's parameters.
            at_sync is the dirty-sync-count that QEMU reports.
        attempts: several migrations in one QEMU process. Each starts after the one before, until
            one converges. Each has its own schedule, so `schedule` must be empty. Attempt n uses
            the seed `seed` + n - 1. The results are those of the last attempt. Its folder
            `attempts/` has those of the earlier attempts.
        evacuation: the guests of a host in place of one VM. `vm` and `workload` are then not read.
            All guests share link, migration, tracking, backend and limit.
        seed: seed of the guest's random writes.
        dry_run: only print what the run would need.
        plot: also write plot.png, report.html, trace.json.gz and guestperf.json.
        objective: numbers of the summary that a job returns to Hydra, for a sweeper that minimises.
            They are infinite if the migration did not converge.
    """

    vm: VmConfig = field(default_factory=VmConfig)
    workload: WorkloadConfig = field(default_factory=lambda: WriterConfig(working_set_percent=10.0))
    link: LinkConfig = field(default_factory=LinkConfig)
    migration: MigrationConfig = field(default_factory=MigrationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    postcopy: PostcopyConfig = field(default_factory=PostcopyConfig)
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
    "without_replacement": WithoutReplacementConfig,
    "mix": MixConfig,
}
