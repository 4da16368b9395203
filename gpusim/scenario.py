"""A Config made of numbers: every check of what a user set, and what the run will need.

`resolve` raises ConfigError, one line naming the key, before any bitmap is allocated: values out of
range, contradictions, a VM that does not fit memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

from gpusim.config import (
    PATTERNS,
    Config,
    ConfigError,
    HotColdConfig,
    LinkConfig,
    MigrationConfig,
    MixConfig,
    SequentialConfig,
    VmConfig,
    WriterConfig,
    ZipfConfig,
)
from gpusim.guest.pace import CpuBound, Pace, Paced, Recorded
from gpusim.guest.pattern import Random, Sequential, hot_cold, uniform, zipf
from gpusim.guest.placement import Placement, contiguous, scattered
from gpusim.guest.writer import Writer
from gpusim.layout import CHUNK_PAGES, IntArray, Layout
from gpusim.qemu.parameters import Parameters
from gpusim.qemu.versions import VERSIONS
from gpusim.sender import Link, RecordedLink
from gpusim.units import (
    NS_PER_MS,
    NS_PER_S,
    NS_PER_US,
    format_bytes,
    parse_bytes,
    parse_bytes_per_s,
    parse_ns,
)

T = TypeVar("T")
MAX_VM_BYTES = 2**50
MAX_GRANULES = 4_000_000  # about 300 bytes of host memory each
MAX_PLACES = 2**26  # 8 bytes each while the granules are drawn
LONGEST_NS = 10**8 * NS_PER_S  # three years: integer picoseconds stay below 2^63 by far
TRACKING_MODES = ("kvm_manual", "kvm_legacy", "dirty_ring", "tcg")
BACKENDS = ("auto", "numpy")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A Config made of numbers, checked: all that simulation.py needs.

    Attributes:
        zero_first, zero_last: int64 [runs], guest pages that are zero at the start.
        lazy: KVM manual protect.
        initially_set: lazy only.
        sync_ns: duration of one sync.
        sync_waits_for_vcpus: a sync ends when every vCPU has answered, and one that the throttle put
            to sleep answers when it wakes: run_on_cpu in system/physmem.c:tcg_log_global_after_sync
            and in accel/kvm/kvm-all.c:kvm_cpu_synchronize_kick_all (dirty ring).
        bitmap_bytes: memory of all bitmaps.
    """

    page_bytes: int
    layout: Layout
    vcpus: int
    zero_first: IntArray
    zero_last: IntArray
    writers: tuple[Writer, ...]
    link: Link
    parameters: Parameters
    version: str
    tracking: str
    lazy: bool
    initially_set: bool
    sync_ns: int
    sync_waits_for_vcpus: bool
    bitmap_bytes: int
    threads: int
    backend: str
    backend_reason: str
    simulated_limit_ns: int
    wall_limit_ns: int | None
    stop_when_stuck: bool
    seed: int


def _reject(key: str, value: object, message: str) -> NoReturn:
    raise ConfigError(key, value, message)


def _parsed(key: str, value: Any, parse: Callable[[Any], T], example: str) -> T:
    try:
        return parse(value)
    except (ValueError, TypeError, OverflowError) as error:
        _reject(key, value, f"{error}; write it as {example}")


def _in_range(key: str, value: float, low: float, high: float, unit: str = "") -> None:
    if not (isinstance(value, int | float) and low <= value <= high):  # NaN fails too
        _reject(key, value, f"must lie between {low:g} and {high:g}{unit}")


def _size(key: str, value: Any) -> int:
    size = _parsed(key, value, parse_bytes, 'a size such as "4TiB" or "10TB"')
    if size > MAX_VM_BYTES:
        _reject(key, value, f"at most {format_bytes(MAX_VM_BYTES)}")
    return size


def _pages(key: str, value: Any, page_bytes: int) -> int:
    """Pages of a size, rounded up as QEMU aligns RAM (system/physmem.c:qemu_ram_alloc_internal)."""
    return -(-_size(key, value) // page_bytes)


def _rate(key: str, value: Any, *, zero_allowed: bool = False) -> float:
    rate = _parsed(key, value, parse_bytes_per_s, '"10Gbit/s", "1GB/s" or "unlimited"')
    if rate == 0 and not zero_allowed:
        _reject(key, value, 'must be above 0; "unlimited" lifts it')
    if 0 < rate < 1000:
        _reject(key, value, 'at least 1000 bytes a second; a bare number is bytes, try "10Gbit/s"')
    return rate


def _duration(key: str, value: Any) -> int:
    time_ns = _parsed(key, value, parse_ns, '"5s", "20min" or a number of seconds')
    if not 0 < time_ns <= LONGEST_NS:
        _reject(key, value, "must be above 0 and at most 1e8 seconds")
    return time_ns


def _pairs(
    key: str,
    value: Any,
    first: Callable[[Any], float],
    second: Callable[[Any], float],
    example: str,
) -> list[tuple[float, float]]:
    """Pairs [a, b] of a list; both parsed."""
    try:
        return [(first(a), second(b)) for a, b in value]
    except (ValueError, TypeError) as error:
        _reject(key, value, f"{error}; write it as {example}")


def _layout(vm: VmConfig) -> Layout:
    if vm.page_size not in (4096, 8192, 16384, 65536):
        _reject("vm.page_size", vm.page_size, "must be 4096, 8192, 16384 or 65536")
    pages = _pages("vm.memory", vm.memory, vm.page_size)
    if pages == 0:
        _reject("vm.memory", vm.memory, "must be at least one page")
    if vm.blocks is None:
        return Layout([pages])
    if not vm.blocks:
        _reject("vm.blocks", vm.blocks, "must name at least one block, or be null for one block")
    blocks = [_pages("vm.blocks", size, vm.page_size) for size in vm.blocks]
    if min(blocks) == 0:
        _reject("vm.blocks", vm.blocks, "every block needs at least one page")
    if sum(blocks) != pages:
        _reject(
            "vm.blocks",
            vm.blocks,
            f"the sizes must add up to vm.memory = {vm.memory}, not {format_bytes(sum(blocks) * vm.page_size)}",
        )
    if sum(-(-block // CHUNK_PAGES) for block in blocks) > 2**20:
        _reject("vm.blocks", f"{len(blocks)} blocks", "at most 1048576 chunks of 2^18 pages in all")
    return Layout(blocks)


def _pace(key: str, writer: WriterConfig) -> Pace:
    rate = writer.page_writes_per_s
    _in_range(f"{key}.page_writes_per_s", rate, 0, 1e12)
    if writer.pace != "paced" and writer.catch_up_page_writes_per_s is not None:
        _reject(
            f"{key}.catch_up_page_writes_per_s",
            writer.catch_up_page_writes_per_s,
            "only a writer of pace paced catches up; remove it or set pace=paced",
        )
    if writer.pace != "recorded" and writer.recorded is not None:
        _reject(
            f"{key}.recorded",
            "[...]",
            "only used with pace=recorded; remove it or set pace=recorded",
        )
    if writer.pace == "cpu_bound":
        return CpuBound(rate)
    if writer.pace == "paced":
        capacity = writer.catch_up_page_writes_per_s
        if capacity is None:
            _reject(
                f"{key}.catch_up_page_writes_per_s",
                None,
                "a paced writer needs it: page writes a second while it has a backlog",
            )
        _in_range(f"{key}.catch_up_page_writes_per_s", capacity, max(rate, 1e-9), 1e12)
        return Paced(rate, capacity)
    if writer.pace != "recorded":
        _reject(f"{key}.pace", writer.pace, "must be cpu_bound, paced or recorded")
    if writer.windows is not None or not writer.throttled:
        _reject(
            f"{key}.pace",
            "recorded",
            "takes neither windows nor throttled=false: the record says it all",
        )
    pairs = _pairs(f"{key}.recorded", writer.recorded, float, float, "[[0, 0], [0.2, 8768], ...]")
    times, writes = _rising(f"{key}.recorded", pairs)
    return Recorded(times, writes, rate)


def _rising(key: str, pairs: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    times = np.array([pair[0] for pair in pairs])
    values = np.array([pair[1] for pair in pairs])
    fine = len(pairs) >= 2 and np.isfinite(times).all() and np.isfinite(values).all()
    if (
        not fine
        or (np.diff(times) <= 0).any()
        or (np.diff(values) < 0).any()
        or values[0] < 0
        or not 0 <= times[0] <= times[-1] <= 1e8
    ):
        _reject(
            key,
            f"[{len(pairs)} pairs]",
            "needs two or more pairs of finite numbers: seconds from 0 up, rising, and a total that never falls",
        )
    return times, values


def _working_set(
    key: str, config: WriterConfig, layout: Layout, page_bytes: int
) -> tuple[int, int]:
    """First guest page and number of pages of a contiguous working set."""
    if (config.working_set is None) == (config.working_set_percent is None):
        message = "set either working_set or working_set_percent"
        _reject(f"{key}.working_set", config.working_set, message)
    asked: object
    if config.working_set_percent is not None:
        set_key, asked = f"{key}.working_set_percent", config.working_set_percent
        _in_range(set_key, config.working_set_percent, 0, 100, " percent of the VM")
        pages = round(layout.pages * config.working_set_percent / 100)
    else:
        set_key, asked = f"{key}.working_set", config.working_set
        pages = _pages(set_key, asked, page_bytes)
    if pages == 0:
        _reject(
            set_key, asked, "must hold a page or more; for a guest without writes: workload=idle"
        )
    start = _pages(f"{key}.start", config.start, page_bytes)
    beyond = start + pages - layout.pages
    if beyond > 0:
        _reject(
            set_key,
            asked,
            f"the working set ends {format_bytes(beyond * page_bytes)} behind the VM's "
            f"{format_bytes(layout.pages * page_bytes)}; make it smaller, or {key}.start",
        )
    return start, pages


def _placement(
    key: str, config: WriterConfig, layout: Layout, page_bytes: int, seed: int
) -> Placement:
    """Where the working set lies: in one piece, or scattered in granules."""
    start, pages = _working_set(key, config, layout, page_bytes)
    if config.granule is None:
        return contiguous(start, pages)
    granule_key = f"{key}.granule"
    granule = _pages(granule_key, config.granule, page_bytes)
    if start:
        message = f"a scattered working set has none; remove it or {granule_key}"
        _reject(f"{key}.start", config.start, message)
    if granule == 0 or CHUNK_PAGES % granule:
        _reject(granule_key, config.granule, "must be a power of two of pages, at most 2^18 pages")
    granules = -(-pages // granule)
    if granules > layout.pages // granule:
        message = (
            f"{granules} granules do not fit the VM; use a smaller one or a smaller working set"
        )
        _reject(granule_key, config.granule, message)
    if granules > MAX_GRANULES or layout.pages // granule > MAX_PLACES:
        message = (
            f"the VM has {layout.pages // granule} places for {granules} pieces; use a larger one"
        )
        _reject(granule_key, config.granule, message)
    return scattered(layout.pages, pages, granule, seed)


def _windows(key: str, config: WriterConfig) -> tuple[tuple[int, int], ...] | None:
    """When the writer is active, ns."""
    if config.windows is None:
        return None
    example = '[["0s", "60s"], ...]'
    pairs = _pairs(f"{key}.windows", config.windows, parse_ns, parse_ns, example)
    borders = [int(border) for window in pairs for border in window]
    if not borders or sorted(set(borders)) != borders or borders[-1] > LONGEST_NS:
        message = "must be one or more [from, until], rising and apart"
        _reject(f"{key}.windows", config.windows, message)
    return tuple((int(low), int(high)) for low, high in pairs)


def _pattern(key: str, config: WriterConfig, pages: int) -> Random | Sequential:
    """Which pages of its working set the writer writes."""
    if isinstance(config, SequentialConfig):
        _in_range(f"{key}.threads", config.threads, 1, min(pages, 65536))
        _in_range(f"{key}.first_write", config.first_write, 0, 2**53)
        return Sequential(pages, config.threads, config.first_write)
    if isinstance(config, HotColdConfig):
        _in_range(f"{key}.hot_percent", config.hot_percent, 0, 100)
        _in_range(f"{key}.hot_writes_percent", config.hot_writes_percent, 0, 100)
        hot = round(pages * config.hot_percent / 100)
        if not 0 < hot < pages:
            message = "must leave a page hot and one cold; for one band use workload=uniform"
            _reject(f"{key}.hot_percent", config.hot_percent, message)
        return hot_cold(pages, hot, config.hot_writes_percent / 100)
    if isinstance(config, ZipfConfig):
        _in_range(f"{key}.exponent", config.exponent, 0, 10)
        return zipf(pages, config.exponent)
    return uniform(pages)


def _mix(config: MixConfig) -> dict[str, WriterConfig]:
    """The writers of a mix, from plain mappings to data classes."""
    writers = {}
    for name, keys in config.writers.items():
        key = f"workload.writers.{name}"
        if isinstance(keys, WriterConfig):
            writers[name] = keys
            continue
        if not isinstance(keys, Mapping):
            _reject(
                key,
                keys,
                "must hold the keys of one writer, such as {pattern: uniform, working_set: 1GiB}",
            )
        kind = PATTERNS.get(str(keys.get("pattern")))
        if kind is None or not issubclass(kind, WriterConfig):
            _reject(
                f"{key}.pattern",
                keys.get("pattern"),
                "must be uniform, hot_cold, zipf or sequential",
            )
        types = {spec.name: str(spec.type) for spec in fields(kind)}
        for field_name, value in keys.items():
            if field_name not in types:
                _reject(
                    f"{key}.{field_name}",
                    value,
                    f"no such key; a {keys['pattern']} writer has {', '.join(types)}",
                )
            fits = (
                (value is None and "None" in types[field_name])
                or (isinstance(value, bool) and "bool" in types[field_name])
                or (
                    isinstance(value, int | float)
                    and not isinstance(value, bool)
                    and (
                        "float" in types[field_name]
                        or (isinstance(value, int) and "int" in types[field_name])
                    )
                )
                or (isinstance(value, str) and "str" in types[field_name])
                or (isinstance(value, list) and "list" in types[field_name])
            )
            if not fits:
                _reject(f"{key}.{field_name}", value, f"must be of type {types[field_name]}")
        writers[name] = kind(**keys)
    return writers


def _writers(config: Config, layout: Layout) -> tuple[Writer, ...]:
    workload = config.workload
    if isinstance(workload, MixConfig):
        named = {
            f"workload.writers.{name}": (name, writer) for name, writer in _mix(workload).items()
        }
        if not named:
            _reject(
                "workload.writers",
                "{}",
                "a mix needs at least one writer; for a guest that writes nothing use workload=idle",
            )
    elif isinstance(workload, WriterConfig):
        named = {"workload": (workload.pattern, workload)}
    else:
        named = {}
    asked = 0.0
    for key, (_, writer) in named.items():
        if PATTERNS.get(writer.pattern) is not type(writer):
            _reject(
                f"{key}.pattern",
                writer.pattern,
                "follows from the preset and cannot be changed; choose another with workload=",
            )
        if writer.vcpus is not None:
            _in_range(f"{key}.vcpus", writer.vcpus, 0, config.vm.vcpus)
            asked += writer.vcpus
    if asked > config.vm.vcpus:
        _reject(
            "vm.vcpus",
            config.vm.vcpus,
            f"the writers' vcpus add up to {asked:g}; give the VM more or them fewer",
        )
    share = (config.vm.vcpus - asked) / max(
        1, sum(writer.vcpus is None and writer.throttled for _, writer in named.values())
    )
    writers = []
    for key, (name, writer) in named.items():
        placement = _placement(key, writer, layout, config.vm.page_size, config.seed)
        writers.append(
            Writer(
                name=name,
                pattern=_pattern(key, writer, int(placement.own_last[-1])),
                pace=_pace(key, writer),
                placement=placement,
                windows=_windows(key, writer),
                throttled=writer.throttled,
                vcpus=writer.vcpus if writer.vcpus is not None else share * writer.throttled,
            )
        )
    return tuple(writers)


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
    _in_range("vm.zero_percent", vm.zero_percent, 0, 100)
    if vm.zero_ranges is None:
        wanted = round(layout.pages * vm.zero_percent / 100)
        free = int((last - first).sum())
        if wanted > free:
            _reject(
                "vm.zero_percent",
                vm.zero_percent,
                f"the writers cover {100 - 100 * free / layout.pages:.4g} % of the VM, and what they cover is not zero; at most {100 * free / layout.pages:.4g}",
            )
        behind = np.cumsum((last - first)[::-1])[::-1] - (last - first)  # free pages above each run
        first = np.maximum(first, last - np.maximum(wanted - behind, 0))
    else:
        if vm.zero_percent:
            _reject("vm.zero_percent", vm.zero_percent, "set either zero_percent or zero_ranges")
        runs = []
        for pair in vm.zero_ranges:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                _reject(
                    "vm.zero_ranges",
                    vm.zero_ranges,
                    'must be [[from, until], ...], such as [["1GiB", "2GiB"]]',
                )
            low, high = (_pages("vm.zero_ranges", end, vm.page_size) for end in pair)
            if not low < high <= layout.pages:
                _reject("vm.zero_ranges", pair, "must rise and end inside the VM")
            runs.append((low, high))
        if any(a[1] > b[0] for a, b in zip(sorted(runs), sorted(runs)[1:], strict=False)):
            _reject("vm.zero_ranges", vm.zero_ranges, "must not overlap")
        pieces = [(np.maximum(first, low), np.minimum(last, high)) for low, high in sorted(runs)]
        first = np.concatenate([piece[0] for piece in pieces]) if pieces else first[:0]
        last = np.concatenate([piece[1] for piece in pieces]) if pieces else last[:0]
    return first[last > first], last[last > first]


def _parameters(migration: MigrationConfig) -> Parameters:
    if migration.version not in VERSIONS:
        _reject("migration.version", migration.version, f"must be one of {', '.join(VERSIONS)}")
    version = VERSIONS[migration.version]
    for name in ("throttle_trigger_threshold", "cpu_throttle_initial", "cpu_throttle_increment"):
        _in_range(
            f"migration.{name}",
            getattr(migration, name),
            1,
            100 if name.endswith("threshold") else 99,
            " percent",
        )
    if not migration.cpu_throttle_initial <= migration.max_cpu_throttle <= 99:
        _reject(
            "migration.max_cpu_throttle",
            migration.max_cpu_throttle,
            f"must lie between cpu_throttle_initial = {migration.cpu_throttle_initial} and 99 percent",
        )
    _in_range("migration.downtime_limit", migration.downtime_limit, 0, 2_000_000, " ms")
    max_bandwidth = _rate("migration.max_bandwidth", migration.max_bandwidth, zero_allowed=True)
    switchover = _rate(
        "migration.avail_switchover_bandwidth",
        migration.avail_switchover_bandwidth,
        zero_allowed=True,
    )
    if math.isinf(switchover):
        _reject(
            "migration.avail_switchover_bandwidth",
            migration.avail_switchover_bandwidth,
            "must be finite; 0 takes the measured bandwidth",
        )
    if switchover and not version.has_avail_switchover_bandwidth:
        _reject(
            "migration.avail_switchover_bandwidth",
            migration.avail_switchover_bandwidth,
            f"{migration.version} has no such parameter (since QEMU 8.2); set it to 0",
        )
    interval = migration.fallback_sync_interval
    if interval is None:
        interval_ns = version.fallback_sync_interval_ns
    elif interval == "never":
        interval_ns = None
    elif version.fallback_sync_interval_ns is None:
        _reject(
            "migration.fallback_sync_interval",
            interval,
            f"{migration.version} has no fallback sync (since QEMU 9.2); remove it or use migration=qemu_9_2",
        )
    else:
        interval_ns = _duration("migration.fallback_sync_interval", interval)
        if interval_ns < NS_PER_MS:
            _reject(
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


def _link(config: LinkConfig, page_bytes: int) -> Link:
    _in_range("link.page_header_bytes", config.page_header_bytes, 0, 65536)
    _in_range("link.zero_page_bytes", config.zero_page_bytes, 0, 65536)
    _in_range("link.page_cost_ns", config.page_cost_ns, 0, 1e9)
    _in_range("link.wakeup_latency_us", config.wakeup_latency_us, 0, 1e6)
    _in_range("link.non_ram_downtime_ms", config.non_ram_downtime_ms, 0, 1e7)
    recorded = None
    if config.recorded is not None:
        times, sent = _rising(
            "link.recorded",
            _pairs(
                "link.recorded", config.recorded, float, float, "[[0, 0], [0.2, 29733329], ...]"
            ),
        )
        if sent[-1] <= sent[0]:
            _reject("link.recorded", f"[{len(times)} pairs]", "must have sent something")
        recorded = RecordedLink((times * NS_PER_S).astype(np.int64), sent)
    return Link(
        bandwidth=_rate("link.bandwidth", config.bandwidth),
        normal_page_bytes=page_bytes + config.page_header_bytes,
        zero_page_bytes=config.zero_page_bytes,
        zero_page_ns=page_bytes / _rate("link.zero_page_scan", config.zero_page_scan) * NS_PER_S,
        page_cost_ns=config.page_cost_ns,
        wakeup_latency_ns=round(config.wakeup_latency_us * NS_PER_US),
        non_ram_downtime_ns=round(config.non_ram_downtime_ms * NS_PER_MS),
        recorded=recorded,
    )


def available_memory_bytes() -> int:
    """Memory this process may still take: the machine's, or its control group's if that is less."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(rows["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in rows else free
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def resolve(config: Config) -> Scenario:
    """Check a Config and turn it into a Scenario.

    Raises:
        ConfigError: a value out of range, a contradiction, or a VM whose bitmaps do not fit memory.
    """
    _in_range("seed", config.seed, 0, 2**63 - 1)
    _in_range("vm.vcpus", config.vm.vcpus, 1, 65536)
    layout = _layout(config.vm)
    tracking = config.tracking
    if tracking.mode not in TRACKING_MODES:
        _reject("tracking.mode", tracking.mode, f"must be one of {', '.join(TRACKING_MODES)}")
    _in_range("tracking.sync_fixed_ms", tracking.sync_fixed_ms, 0, 1e6)
    _in_range("tracking.sync_ns_per_gib", tracking.sync_ns_per_gib, 0, 1e9)
    if config.backend.name not in BACKENDS:
        _reject(
            "backend.name", config.backend.name, f"this version of gpusim has {', '.join(BACKENDS)}"
        )
    _in_range("backend.threads", config.backend.threads, 0, 1024)
    lazy = tracking.mode == "kvm_manual"
    bitmaps = 1 + lazy + bool(config.vm.zero_percent or config.vm.zero_ranges)
    bitmap_bytes = bitmaps * layout.chunks * (CHUNK_PAGES // 8)
    if bitmap_bytes + 200e6 > available_memory_bytes():
        _reject(
            "vm.memory",
            config.vm.memory,
            f"needs {format_bytes(bitmap_bytes)} of bitmaps, and {format_bytes(available_memory_bytes())} of memory is free; "
            "use a smaller VM, or tracking=kvm_legacy, which needs one bitmap fewer",
        )
    writers = _writers(config, layout)
    zero_first, zero_last = _zero_pages(config.vm, layout, writers)
    limit = config.limit
    return Scenario(
        page_bytes=config.vm.page_size,
        layout=layout,
        vcpus=config.vm.vcpus,
        zero_first=zero_first,
        zero_last=zero_last,
        writers=writers,
        link=_link(config.link, config.vm.page_size),
        parameters=_parameters(config.migration),
        version=config.migration.version,
        tracking=tracking.mode,
        lazy=lazy,
        initially_set=tracking.initially_set,
        sync_ns=round(
            tracking.sync_fixed_ms * NS_PER_MS
            + tracking.sync_ns_per_gib * layout.pages * config.vm.page_size / 2**30
        ),
        sync_waits_for_vcpus=tracking.mode in ("tcg", "dirty_ring"),
        bitmap_bytes=bitmap_bytes,
        threads=config.backend.threads or os.cpu_count() or 1,
        backend="numpy",
        backend_reason="asked for by name"
        if config.backend.name == "numpy"
        else "auto: the only backend of this version",
        simulated_limit_ns=_duration("limit.simulated", limit.simulated),
        wall_limit_ns=None if limit.wall is None else _duration("limit.wall", limit.wall),
        stop_when_stuck=limit.stop_when_stuck,
        seed=config.seed,
    )
