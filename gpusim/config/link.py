"""The link of a config as numbers: costs of pages, a recorded rate, changes of bandwidth."""

from __future__ import annotations

import numpy as np

from gpusim.config.checks import (
    check_range,
    check_whole,
    parse_pairs,
    parse_rate,
    parse_record,
    parse_value,
    reject,
)
from gpusim.config.migration import parse_multifd
from gpusim.config.schema import LinkConfig, MigrationConfig, VmConfig
from gpusim.config.tracking import Tracking
from gpusim.sender.link import Link, RecordedLink
from gpusim.units import LONGEST_NS, NS_PER_MS, NS_PER_S, NS_PER_US, parse_ns

AUTO = "auto"  # the value of link.non_ram_downtime_ms that asks for default_non_ram_downtime_ms
# To stop a VM took 74 ms with one VFIO device (32 GiB) and 128 ms with two: 54 ms for each, and 20
# ms for the rest. A VM of 12 TB with 384 vCPUs took 268 ms to stop, 270 ms to save its device state
# and 144 ms to load it: 1.7 ms per vCPU. Source: qemu-devel, 2024-07-26, E. Ufimtseva and P. Xu.
BASE_MS, PER_VCPU_MS, PER_VFIO_DEVICE_MS = 20.0, 1.7, 54.0

CHANGES_EXAMPLE = '[["2h", "5Gbit/s"], ...]'


def parse_link(
    config: LinkConfig,
    vm: VmConfig,
    migration: MigrationConfig,
    tracking: Tracking,
    host_pages: int = 1,
) -> Link:
    """Return the link and the sending threads as numbers.

    Args:
        config: the keys of `link`.
        vm: has the page size, and what the downtime beside RAM depends on.
        migration: has the number of multifd channels.
        tracking: has the costs of a remote clear. The sending thread pays them.
        host_pages: target pages of a host page, which QEMU sends without a break. A recorded link
            has its own bursts.

    Raises:
        ConfigError: a value is out of range, or two values contradict each other.
    """
    check_whole("link.page_header_bytes", config.page_header_bytes, 0, 65536)
    check_whole("link.zero_page_bytes", config.zero_page_bytes, 0, 65536)
    check_range("link.page_cost_ns", config.page_cost_ns, 0, 1e9)
    check_range("link.queue_cost_ns", config.queue_cost_ns, 0, 1e9)
    check_range("link.wakeup_latency_us", config.wakeup_latency_us, 0, 1e6)
    page_bytes = vm.page_size
    scan_bytes_per_s = parse_rate("link.zero_page_scan", config.zero_page_scan)
    return Link(
        bandwidth=parse_rate("link.bandwidth", config.bandwidth),
        normal_page_bytes=page_bytes + config.page_header_bytes,
        zero_page_bytes=config.zero_page_bytes,
        zero_page_ns=page_bytes / scan_bytes_per_s * NS_PER_S,
        page_cost_ns=config.page_cost_ns,
        wakeup_latency_ns=round(config.wakeup_latency_us * NS_PER_US),
        non_ram_downtime_ns=round(_non_ram_downtime_ms(config, vm) * NS_PER_MS),
        recorded=_parse_recorded(config),
        changes=_parse_changes(config),
        multifd=parse_multifd(migration, config.queue_cost_ns, page_bytes),
        host_pages=1 if config.recorded is not None else host_pages,
        clear_ns=tracking.clear_ns,
        protect_ns=tracking.protect_ns,
        first_protect_ns=tracking.first_protect_ns,
    )


def default_non_ram_downtime_ms(vm: VmConfig) -> float:
    """Return the downtime for all but RAM that a VM has if nobody stated it, in ms."""
    return BASE_MS + PER_VCPU_MS * vm.vcpus + PER_VFIO_DEVICE_MS * vm.vfio_devices


def _non_ram_downtime_ms(config: LinkConfig, vm: VmConfig) -> float:
    key, value = "link.non_ram_downtime_ms", config.non_ram_downtime_ms
    if value == AUTO:
        return default_non_ram_downtime_ms(vm)
    if isinstance(value, str):
        reject(key, value, f"must be {AUTO} or a number of milliseconds", "not_a_number")
    check_range(key, value, 0, 1e7)
    return value


def _parse_recorded(config: LinkConfig) -> RecordedLink | None:
    if config.recorded is None:
        return None
    key, example = "link.recorded", "[[0, 0], [0.2, 29733329], ...]"
    times_s, sent = parse_record(key, parse_pairs(key, config.recorded, float, float, example))
    if sent[-1] <= sent[0]:
        reject(key, f"[{len(times_s)} pairs]", "must have sent some bytes", "out_of_range")
    return RecordedLink((times_s * NS_PER_S).astype(np.int64), sent)


def _parse_changes(config: LinkConfig) -> tuple[tuple[int, float], ...]:
    """Return (ns, bytes per second) of each change. An entry that changes nothing is left out."""
    if config.changes is None:
        return ()
    key = "link.changes"
    if config.recorded is not None:
        hint = "a recorded link has its own rate. Set link.changes=null"
        reject(key, "[...]", hint, "contradiction")
    if not config.changes:
        allowed = f"must be one or more [at, bandwidth], such as {CHANGES_EXAMPLE}"
        reject(key, config.changes, allowed, "wrong_type")
    last_ns, last_rate = -1, parse_rate("link.bandwidth", config.bandwidth)
    changes: list[tuple[int, float]] = []
    for pair in config.changes:
        if not isinstance(pair, list) or len(pair) != 2:
            allowed = f"must be [at, bandwidth], such as {CHANGES_EXAMPLE}"
            reject(key, pair, allowed, "wrong_format")
        at_ns = parse_value(key, pair[0], parse_ns, '"2h" or a number of seconds')
        rate = parse_rate(key, pair[1])
        if not last_ns < at_ns <= LONGEST_NS:
            reject(key, pair, "times must rise, and be at most 1e8 seconds", "out_of_range")
        if rate != last_rate:
            changes.append((at_ns, rate))
        last_ns, last_rate = at_ns, rate
    return tuple(changes)
