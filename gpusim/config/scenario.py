"""A Config made of numbers: every check of what a user set, and what the run will need.

`resolve` raises ConfigError, one line naming the key, before any bitmap is allocated: values out of
range, contradictions, a VM that does not fit memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gpusim.config.checks import (
    LONGEST_NS,
    bytes_per_s,
    duration_ns,
    in_range,
    page_count,
    pairs_of,
    parsed,
    reject,
    rising,
    whole,
)
from gpusim.config.plugins import described, factory, policies_of
from gpusim.config.schedule import Action, actions_of, changed
from gpusim.config.schema import (
    AttemptConfig,
    Config,
    LinkConfig,
    MigrationConfig,
    TrackingConfig,
    VmConfig,
)
from gpusim.config.workload import writers_of
from gpusim.errors import ConfigError
from gpusim.guest.faults import Protection
from gpusim.guest.writer import Writer
from gpusim.layout import CHUNK_PAGES, IntArray, Layout
from gpusim.pages.backends import BACKENDS, BackendError, choose, largest_bytes
from gpusim.qemu.parameters import Parameters
from gpusim.qemu.rules import Manager
from gpusim.qemu.versions import TRACKING_MODES, VERSIONS, Version
from gpusim.sender.link import Link, Multifd, RecordedLink
from gpusim.units import NS_PER_MS, NS_PER_S, NS_PER_US, format_bytes, parse_ns

WAIT_FOR_VCPUS = ("tcg", "dirty_ring")  # trackings whose sync does
HIGHEST_COSTS = {
    "log_sync_ns_per_gib": 1e9,
    "log_sync_us_per_block": 1e6,
    "listeners_ms": 1e6,
    "merge_ns_per_gib": 1e9,
    "misaligned_ms": 1e6,
    "remote_clear_us": 1e6,
    "protect_ns_per_page": 1e4,
    "first_write_cost_ns": 1e9,
}


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A Config made of numbers, checked: all that simulation.py needs.

    Attributes:
        zero_first, zero_last: int64 [runs], guest pages that are zero at the start.
        migration: what parameters are set to, as the config says it.
        version, rules: which QEMU decides, and how: its rules, or a user's in their place.
        manager: makes what stands beside QEMU; None: nothing does.
        policies: for people, which rules and manager are a user's.
        lazy: KVM manual protect.
        initially_set: lazy only.
        protection: what that means for the guest's first writes.
        log_sync_ns, merge_ns: the two parts of a sync: reading the log, and merging it, for which the
            bitmap's mutex is needed.
        start_ns: before the first sync: every page is protected.
        sync_protect_ns: of a sync, for each page that the vCPUs have written since the last.
        sync_waits_for_burst: a fallback sync merges only when the sender's burst has ended.
        sync_waits_for_vcpus: a sync ends when every vCPU has answered, and one that the throttle put
            to sleep answers when it wakes: run_on_cpu in system/physmem.c:tcg_log_global_after_sync
            and in accel/kvm/kvm-all.c:kvm_cpu_synchronize_kick_all (dirty ring).
        recorded_sleeps_ns: their recorded sleeps, (from, until), all rising; empty: the throttle's slices.
        bitmap_bytes: memory of all bitmaps.
        stuck_from_ns: since when the guest has shown all it will do, so that a migration that gets
            nowhere may be given up; None: never give up.
    """

    page_bytes: int
    layout: Layout
    vcpus: int
    zero_first: IntArray
    zero_last: IntArray
    writers: tuple[Writer, ...]
    link: Link
    migration: MigrationConfig
    parameters: Parameters
    version: str
    rules: Version
    manager: Callable[[], Manager] | None
    policies: str
    tracking: str
    lazy: bool
    initially_set: bool
    protection: Protection
    log_sync_ns: int
    merge_ns: int
    start_ns: int
    sync_protect_ns: float
    sync_waits_for_burst: bool
    sync_waits_for_vcpus: bool
    recorded_sleeps_ns: list[tuple[int, int]]
    big_lock_exits_per_s: float
    actions: tuple[Action, ...]
    bitmap_bytes: int
    threads: int
    backend: str
    backend_reason: str
    simulated_limit_ns: int
    wall_limit_ns: int | None
    stuck_from_ns: int | None
    seed: int


def _layout(vm: VmConfig) -> Layout:
    if vm.page_size not in (4096, 8192, 16384, 65536):
        reject("vm.page_size", vm.page_size, "must be 4096, 8192, 16384 or 65536")
    pages = page_count("vm.memory", vm.memory, vm.page_size)
    if pages == 0:
        reject("vm.memory", vm.memory, "must be at least one page")
    if vm.blocks is None:
        return Layout([pages])
    if not isinstance(vm.blocks, list | tuple):
        reject("vm.blocks", vm.blocks, 'must be a list of sizes, such as ["3GiB", "1GiB"]')
    if not vm.blocks:
        reject("vm.blocks", vm.blocks, "must name at least one block, or be null for one block")
    blocks = [page_count("vm.blocks", size, vm.page_size) for size in vm.blocks]
    if min(blocks) == 0:
        reject("vm.blocks", vm.blocks, "every block needs at least one page")
    if sum(blocks) != pages:
        reject(
            "vm.blocks",
            vm.blocks,
            f"the sizes must add up to vm.memory = {vm.memory}, not {format_bytes(sum(blocks) * vm.page_size)}",
        )
    if sum(-(-block // CHUNK_PAGES) for block in blocks) > 2**20:
        reject("vm.blocks", f"{len(blocks)} blocks", "at most 1048576 chunks of 2^18 pages in all")
    return Layout(blocks)


def _zero_pages(
    vm: VmConfig, layout: Layout, writers: tuple[Writer, ...]
) -> tuple[IntArray, IntArray]:
    """Guest pages that are zero at the start, as runs: outside of what writers cover."""
    covered = [run for writer in writers if writer.opens_at_start for run in writer.runs()]
    borders = np.array([(0, 0), *covered, (layout.pages, layout.pages)], dtype=np.int64)
    borders = borders[np.argsort(borders[:, 0], kind="stable")]
    ends = np.maximum.accumulate(borders[:, 1])
    first, last = ends[:-1], borders[1:, 0]  # the gaps between covered runs
    first, last = first[last > first], last[last > first]
    in_range("vm.zero_percent", vm.zero_percent, 0, 100)
    if vm.zero_ranges is None:
        wanted = round(layout.pages * vm.zero_percent / 100)
        free = int((last - first).sum())
        if wanted > free:
            reject(
                "vm.zero_percent",
                vm.zero_percent,
                f"the writers cover {100 - 100 * free / layout.pages:.4g} % of the VM, and what they cover is not zero; at most {100 * free / layout.pages:.4g}",
            )
        behind = np.cumsum((last - first)[::-1])[::-1] - (last - first)  # free pages above each run
        first = np.maximum(first, last - np.maximum(wanted - behind, 0))
    else:
        if vm.zero_percent:
            reject(
                "vm.zero_percent",
                vm.zero_percent,
                "set either zero_percent or zero_ranges; vm.zero_percent=0",
            )
        runs = []
        if not isinstance(vm.zero_ranges, list | tuple):
            reject("vm.zero_ranges", vm.zero_ranges, 'must be a list such as [["1GiB", "2GiB"]]')
        for pair in vm.zero_ranges:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                reject(
                    "vm.zero_ranges",
                    vm.zero_ranges,
                    'must be [[from, until], ...], such as [["1GiB", "2GiB"]]',
                )
            low, high = (page_count("vm.zero_ranges", end, vm.page_size) for end in pair)
            if not low < high <= layout.pages:
                reject("vm.zero_ranges", pair, "must rise and end inside the VM")
            runs.append((low, high))
        if any(a[1] > b[0] for a, b in zip(sorted(runs), sorted(runs)[1:], strict=False)):
            reject("vm.zero_ranges", vm.zero_ranges, "must not overlap")
        pieces = [(np.maximum(first, low), np.minimum(last, high)) for low, high in sorted(runs)]
        first = np.concatenate([piece[0] for piece in pieces]) if pieces else first[:0]
        last = np.concatenate([piece[1] for piece in pieces]) if pieces else last[:0]
    return first[last > first], last[last > first]


def parameters_of(migration: MigrationConfig) -> Parameters:
    if migration.version not in VERSIONS:
        reject("migration.version", migration.version, f"must be one of {', '.join(VERSIONS)}")
    version = VERSIONS[migration.version]
    for name in ("throttle_trigger_threshold", "cpu_throttle_initial", "cpu_throttle_increment"):
        high = 100 if name.endswith("threshold") else 99
        whole(f"migration.{name}", getattr(migration, name), 1, high, " percent")
    whole("migration.max_cpu_throttle", migration.max_cpu_throttle, 1, 99, " percent")
    if not migration.cpu_throttle_initial <= migration.max_cpu_throttle <= 99:
        reject(
            "migration.max_cpu_throttle",
            migration.max_cpu_throttle,
            f"must lie between cpu_throttle_initial = {migration.cpu_throttle_initial} and 99 percent",
        )
    whole("migration.downtime_limit", migration.downtime_limit, 0, 2_000_000, " ms")
    max_bandwidth = bytes_per_s(
        "migration.max_bandwidth", migration.max_bandwidth, zero_allowed=True
    )
    switchover = bytes_per_s(
        "migration.avail_switchover_bandwidth",
        migration.avail_switchover_bandwidth,
        zero_allowed=True,
    )
    if math.isinf(switchover):
        reject(
            "migration.avail_switchover_bandwidth",
            migration.avail_switchover_bandwidth,
            "must be finite; 0 takes the measured bandwidth",
        )
    for name in version.lacks:
        value, only = getattr(migration, name), getattr(MigrationConfig(), name)
        if value != only:
            reject(
                f"migration.{name}",
                value,
                f"{migration.version} has no such parameter; set it to {only}",
            )
    interval = migration.fallback_sync_interval
    if interval is None:
        interval_ns = version.fallback_sync_interval_ns
    elif interval == "never":
        interval_ns = None
    elif version.fallback_sync_interval_ns is None:
        reject(
            "migration.fallback_sync_interval",
            interval,
            f"{migration.version} has no fallback sync (since QEMU 9.2); remove it or use migration=qemu_9_2",
        )
    else:
        interval_ns = duration_ns("migration.fallback_sync_interval", interval)
        if interval_ns < NS_PER_MS:
            reject(
                "migration.fallback_sync_interval",
                interval,
                "at least 1ms, the resolution of QEMU's timer",
            )
    return Parameters(
        auto_converge=migration.auto_converge,
        max_bandwidth=0 if math.isinf(max_bandwidth) else int(max_bandwidth),
        downtime_limit_ms=migration.downtime_limit,
        avail_switchover_bandwidth=int(switchover),
        throttle_trigger_threshold=migration.throttle_trigger_threshold,
        cpu_throttle_initial=migration.cpu_throttle_initial,
        cpu_throttle_increment=migration.cpu_throttle_increment,
        cpu_throttle_tailslow=migration.cpu_throttle_tailslow,
        max_cpu_throttle=migration.max_cpu_throttle,
        fallback_sync_interval_ns=interval_ns,
    )


def _rules(
    migration: MigrationConfig, parameters: Parameters
) -> tuple[Version, Callable[[], Manager] | None]:
    """The version's rules, or a user's in their place; and a user's manager."""
    version, policies = VERSIONS[migration.version], policies_of(migration)
    needs_auto_converge = [n for n in policies if n in ("throttle_rule", "sync_timer_rule")]
    if needs_auto_converge and not migration.auto_converge:
        name = needs_auto_converge[0]
        message = "is never asked without auto-converge; set migration.auto_converge=true"
        reject(f"migration.{name}.target", policies[name].target, message)
    interval_ns = parameters.fallback_sync_interval_ns
    if "sync_timer_rule" in policies and interval_ns is None:
        message = (
            f"there is no timer: {migration.version} has none, or fallback_sync_interval is never; "
            "take migration=qemu_9_2"
        )
        reject("migration.sync_timer_rule.target", policies["sync_timer_rule"].target, message)
    given = {"throttle_rule": (parameters,), "sync_timer_rule": (interval_ns, None)}
    made = {name: factory(name, said, *given.get(name, ())) for name, said in policies.items()}
    version = replace(
        version,
        throttle=made.get("throttle_rule", version.throttle),
        sync_timer=made.get("sync_timer_rule", version.sync_timer),
        switchover=made.get("switchover_rule", version.switchover),
        foresees_ticks="sync_timer_rule" not in made,
    )
    return version, made.get("manager")


def _changes(config: LinkConfig) -> tuple[tuple[int, float], ...]:
    """When the wire changes, ns, and to how many bytes a second; what changes nothing is left out."""
    if config.changes is None:
        return ()
    key, example = "link.changes", '[["2h", "5Gbit/s"], ...]'
    if config.recorded is not None:
        reject(key, "[...]", "a recorded wire has its own pace; set link.changes=null")
    if not isinstance(config.changes, list | tuple) or not config.changes:
        reject(key, config.changes, f"must be one or more [at, bandwidth], such as {example}")
    before_ns, before = -1, bytes_per_s("link.bandwidth", config.bandwidth)
    changes: list[tuple[int, float]] = []
    for pair in config.changes:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            reject(key, pair, f"must be [at, bandwidth], such as {example}")
        at_ns, rate = parsed(key, pair[0], parse_ns, '"2h" or seconds'), bytes_per_s(key, pair[1])
        if not before_ns < at_ns <= LONGEST_NS:
            reject(key, pair, "times must rise, up to 1e8 seconds")
        if rate != before:
            changes.append((at_ns, rate))
        before_ns, before = at_ns, rate
    return tuple(changes)


def _multifd(migration: MigrationConfig, queue_ns: float, page_bytes: int) -> Multifd | None:
    """The sending threads, if there is more than one."""
    key, channels = "migration.multifd_channels", migration.multifd_channels
    whole(key, channels, 0, 255)
    if not channels:
        return None
    version = VERSIONS[migration.version]
    if not version.has_multifd:
        reject(key, channels, f"{migration.version} has no multifd (since QEMU 4.0); set it to 0")
    return Multifd(
        channels=channels,
        page_bytes=page_bytes,
        queue_ns=queue_ns,
        find_zero_pages=version.channels_find_zero_pages,
        sync_every_section=version.syncs_channels_every_section,
    )


def _recorded_sleeps(tracking: TrackingConfig) -> list[tuple[int, int]]:
    """From when until when, ns."""
    key, value = "tracking.recorded_sleeps", tracking.recorded_sleeps
    if value is None:
        return []
    if tracking.mode not in WAIT_FOR_VCPUS:
        waiting = " or ".join(WAIT_FOR_VCPUS)
        reject(key, "[...]", f"only used with tracking.mode={waiting}; remove it")
    pairs = pairs_of(key, value, float, float, "[[150.25, 151.24], ...]")
    times = np.array([0.0, *(time_s for pair in pairs for time_s in pair)])
    if not np.isfinite(times).all() or (np.diff(times) < 0).any() or times[-1] > 1e8:
        message = "needs pairs of seconds from 0 up, all rising: asleep from, until"
        reject(key, f"[{len(pairs)} pairs]", message)
    return [(round(a * NS_PER_S), round(b * NS_PER_S)) for a, b in pairs]


def _link(
    config: LinkConfig, migration: MigrationConfig, tracking: TrackingConfig, page_bytes: int
) -> Link:
    whole("link.page_header_bytes", config.page_header_bytes, 0, 65536)
    whole("link.zero_page_bytes", config.zero_page_bytes, 0, 65536)
    in_range("link.page_cost_ns", config.page_cost_ns, 0, 1e9)
    in_range("link.queue_cost_ns", config.queue_cost_ns, 0, 1e9)
    in_range("link.wakeup_latency_us", config.wakeup_latency_us, 0, 1e6)
    in_range("link.non_ram_downtime_ms", config.non_ram_downtime_ms, 0, 1e7)
    lazy = tracking.mode == "kvm_manual"
    recorded = None
    if config.recorded is not None:
        times, sent = rising(
            "link.recorded",
            pairs_of(
                "link.recorded", config.recorded, float, float, "[[0, 0], [0.2, 29733329], ...]"
            ),
        )
        if sent[-1] <= sent[0]:
            reject("link.recorded", f"[{len(times)} pairs]", "must have sent something")
        recorded = RecordedLink((times * NS_PER_S).astype(np.int64), sent)
    return Link(
        bandwidth=bytes_per_s("link.bandwidth", config.bandwidth),
        normal_page_bytes=page_bytes + config.page_header_bytes,
        zero_page_bytes=config.zero_page_bytes,
        zero_page_ns=page_bytes
        / bytes_per_s("link.zero_page_scan", config.zero_page_scan)
        * NS_PER_S,
        page_cost_ns=config.page_cost_ns,
        wakeup_latency_ns=round(config.wakeup_latency_us * NS_PER_US),
        non_ram_downtime_ns=round(config.non_ram_downtime_ms * NS_PER_MS),
        recorded=recorded,
        changes=_changes(config),
        multifd=_multifd(migration, config.queue_cost_ns, page_bytes),
        clear_ns=tracking.remote_clear_us * NS_PER_US * lazy,
        protect_ns=tracking.protect_ns_per_page * lazy,
    )


def _backend(config: Config, vm_bytes: int, bitmap_bytes: int) -> tuple[str, str]:
    """The backend for bitmaps of this size, and why."""
    name = config.backend.name
    if name not in ("auto", *BACKENDS):
        reject("backend.name", name, f"must be one of auto, {', '.join(BACKENDS)}")
    try:
        return choose(name, bitmap_bytes)
    except BackendError as error:
        if not error.too_big:
            reject("backend.name", name, f"cannot be used here: {error}; or take backend=auto")
        largest = format_bytes(
            largest_bytes("numpy" if name == "auto" else name, vm_bytes, bitmap_bytes)
        )
        way_out = f"the largest VM that fits has {largest}"
        if config.tracking.mode == "kvm_manual":
            way_out += "; tracking=kvm_legacy needs one bitmap fewer"
        reject("vm.memory", config.vm.memory, f"{error}; {way_out}")


def attempts_of(config: Config) -> list[tuple[int, Config]]:
    """The migrations of a config's QEMU process: ns since the one before ended, config of it alone.

    Raises:
        ConfigError: an attempt that cannot be understood.
    """
    if not config.attempts:
        return [(0, config)]
    if config.schedule:
        message = "with attempts each has a schedule of its own: attempts=[{schedule: [...]}, ...]"
        reject("schedule", config.schedule, message)
    found = []
    for number, attempt in enumerate(config.attempts):
        key = f"attempts[{number}]"
        after_ns = parsed(f"{key}.after", attempt.after, parse_ns, '"10s" or seconds')
        if not 0 <= after_ns <= LONGEST_NS or (after_ns and not number):
            allowed = (
                "must lie between 0 and 1e8 seconds" if number else "nothing is before the first"
            )
            reject(f"{key}.after", attempt.after, allowed)
        if "version" in attempt.migration:
            message = "one process is one QEMU; set migration.version for all attempts"
            reject(f"{key}.migration.version", attempt.migration["version"], message)
        migration = changed(f"{key}.migration", config.migration, attempt.migration)
        own = replace(config, migration=migration, schedule=attempt.schedule, attempts=[])
        found.append((after_ns, replace(own, seed=config.seed + number)))
    return found


def _resolve_attempt(number: int, said: AttemptConfig, own: Config) -> Scenario:
    """The scenario of an attempt; an error of what it alone says is told as its own."""
    try:
        return resolve(own)
    except ConfigError as error:
        group, _, name = error.key.partition(".")
        if group.startswith("schedule") or (
            group == "migration" and name.partition(".")[0] in said.migration
        ):
            raise error.moved("", f"attempts[{number}].") from None
        raise


def resolve(config: Config) -> Scenario:
    """Check a Config and turn it into a Scenario; of several attempts all, into that of the last.

    Raises:
        ConfigError: a value out of range, a contradiction, a backend that cannot be used here, or a
            VM whose bitmaps do not fit memory.
    """
    if config.attempts:
        numbered = enumerate(zip(config.attempts, attempts_of(config), strict=True))
        return [_resolve_attempt(n, said, own) for n, (said, (_, own)) in numbered][-1]
    whole("seed", config.seed, 0, 2**63 - 1)
    whole("vm.vcpus", config.vm.vcpus, 1, 65536)
    layout = _layout(config.vm)
    tracking = config.tracking
    if tracking.mode not in TRACKING_MODES:
        reject("tracking.mode", tracking.mode, f"must be one of {', '.join(TRACKING_MODES)}")
    parameters = parameters_of(config.migration)
    rules, manager = _rules(config.migration, parameters)
    known = VERSIONS[config.migration.version].tracking
    if tracking.mode not in known:
        message = (
            f"{config.migration.version} knows {' and '.join(known)} alone; add tracking={known[0]}"
        )
        reject("tracking.mode", tracking.mode, message)
    in_range("vm.big_lock_exits_per_s", config.vm.big_lock_exits_per_s, 0, 1e9)
    for name, highest in HIGHEST_COSTS.items():
        in_range(f"tracking.{name}", getattr(tracking, name), 0, highest)
    whole("backend.threads", config.backend.threads, 0, 1024)
    lazy = tracking.mode == "kvm_manual"
    bitmap_bytes = layout.chunks * (CHUNK_PAGES // 8)
    vm_bytes = layout.pages * config.vm.page_size
    _backend(config, vm_bytes, (1 + lazy) * bitmap_bytes)  # before writers are placed in it
    writers = writers_of(config, layout)
    zero_first, zero_last = _zero_pages(config.vm, layout, writers)
    bitmap_bytes *= 1 + lazy + (len(zero_first) > 0)
    backend, backend_reason = _backend(config, vm_bytes, bitmap_bytes)
    limit = config.limit
    gib = vm_bytes / 2**30
    from_start = not (lazy and tracking.initially_set)
    protects = tracking.mode != "tcg"  # which only has to drop its TLB
    return Scenario(
        page_bytes=config.vm.page_size,
        layout=layout,
        vcpus=config.vm.vcpus,
        zero_first=zero_first,
        zero_last=zero_last,
        writers=writers,
        link=_link(config.link, config.migration, tracking, config.vm.page_size),
        migration=config.migration,
        parameters=parameters,
        version=config.migration.version,
        rules=rules,
        manager=manager,
        policies=described(config.migration),
        tracking=tracking.mode,
        lazy=lazy,
        initially_set=tracking.initially_set,
        protection=Protection(
            cost_ns=tracking.first_write_cost_ns,
            lazy=lazy,
            from_start=from_start,
            reaped=tracking.mode == "dirty_ring",
        ),
        log_sync_ns=round(
            tracking.log_sync_ns_per_gib * gib
            + tracking.log_sync_us_per_block * NS_PER_US * len(layout.blocks)
            + tracking.listeners_ms * NS_PER_MS
        ),
        merge_ns=round(tracking.merge_ns_per_gib * gib + tracking.misaligned_ms * NS_PER_MS),
        start_ns=round(layout.pages * tracking.protect_ns_per_page)
        if protects and from_start
        else 0,
        sync_protect_ns=tracking.protect_ns_per_page if protects and not lazy else 0.0,
        sync_waits_for_burst=tracking.waits_for_burst,
        big_lock_exits_per_s=config.vm.big_lock_exits_per_s,
        actions=actions_of("schedule", config.schedule, config.migration, parameters_of),
        sync_waits_for_vcpus=tracking.mode in WAIT_FOR_VCPUS,
        recorded_sleeps_ns=_recorded_sleeps(tracking),
        bitmap_bytes=bitmap_bytes,
        threads=config.backend.threads or len(os.sched_getaffinity(0)),
        backend=backend,
        backend_reason=backend_reason,
        simulated_limit_ns=duration_ns("limit.simulated", limit.simulated),
        wall_limit_ns=None if limit.wall is None else duration_ns("limit.wall", limit.wall),
        stuck_from_ns=max((w.last_change_ns for w in writers), default=0)
        if limit.stop_when_stuck
        else None,
        seed=config.seed,
    )
