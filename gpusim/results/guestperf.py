"""guestperf.json: a run in the format of the reports that QEMU's guestperf-plot reads.

Values that a simulator cannot know are neutral. Features that gpusim does not simulate are off, with
the defaults of the format.

Source: QEMU's tests/migration-stress/guestperf (until 9.2 tests/migration/guestperf): report.py,
hardware.py, scenario.py, progress.py and timings.py for the keys, engine.py for their units.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from gpusim.engine.records import Result, SyncRecord
from gpusim.files import write_text
from gpusim.policies.names import decider_name
from gpusim.results.settings import Settings, setting
from gpusim.results.turning_points import samples_of
from gpusim.units import parse_bytes_per_s, parse_ns

PAGE_BYTES = 4096  # if there is no config
GIB = 2**30  # The stress guest measures how long it takes to write this amount.
UNLIMITED_MIB_PER_S = 125_000  # scenario.py: "effectively unlimited"
MOST_SAMPLES = 1000
ALL_THREADS = 1  # All vCPUs and writers are in phase, so one thread represents all.


def write_guestperf(result: Result, config: Settings | None, path: Path) -> None:
    """Write `guestperf_report` as JSON.

    Raises:
        OSError: the file cannot be written.
    """
    report = guestperf_report(result, config)
    write_text(path, json.dumps(report, separators=(",", ":"), allow_nan=False) + "\n")


def guestperf_report(result: Result, config: Settings | None) -> dict[str, Any]:
    """Return the report as nested dicts and lists. Times are seconds since the migrate command.

    Args:
        result: the migration.
        config: what was simulated. None: unknown, with neutral values.
    """
    times_s, run_s = _run_time(result)
    vcpus = setting(config, "vm.vcpus", 1)
    cpu_ms = [1e3 * seconds for seconds in run_s]
    return {
        "hardware": _hardware(result, vcpus),
        "scenario": _scenario(result, config),
        "progress_history": _progress_history(result, config),
        "guest_timings": _guest_timings(times_s, run_s, config),
        # Assumes that vCPUs never idle. The time of the migration thread is not known.
        "qemu_timings": _timings(times_s, [vcpus * value for value in cpu_ms]),
        "vcpu_timings": _timings(times_s, cpu_ms),
        "binary": f"gpusim {result.summary.gpusim_version}",
        "dst_host": "localhost",
        "kernel": "",  # gpusim boots no guest
        "initrd": "",
        "transport": "tcp",
        "sleep": 0,  # seconds between the start of the guest and the migration
    }


def _hardware(result: Result, vcpus: int) -> dict[str, Any]:
    gib = result.summary.vm_bytes / 2**30
    return {
        "cpus": vcpus,
        "mem": int(gib) if gib == int(gib) else gib,  # GiB
        "src_mem_bind": [],
        "dst_mem_bind": [],
        "src_cpu_bind": [],
        "dst_cpu_bind": [],
        "prealloc_pages": False,
        "huge_pages": False,
        "locked_pages": False,
        "dirty_ring_size": 0,  # not modelled, even with tracking.mode=dirty_ring
    }


def _scenario(result: Result, config: Settings | None) -> dict[str, Any]:
    limit = setting(config, "limit.simulated", 0)
    return {
        "name": f"gpusim, {decider_name(result.summary.qemu_version, result.summary.policies)}",
        "downtime": setting(config, "migration.downtime_limit", 0),  # ms
        "bandwidth": _bandwidth_mib_per_s(config),
        "max_iters": 0,  # gpusim limits no iterations
        "max_time": round(parse_ns(limit) / 1e9),  # s
        "pause": False,
        "pause_iters": 5,
        "post_copy": result.summary.postcopy_start_s is not None,
        "post_copy_iters": _iterations_at_switch(result),
        "auto_converge": bool(setting(config, "migration.auto_converge", False)),
        "auto_converge_step": setting(config, "migration.cpu_throttle_increment", 10),
        "compression_mt": False,
        "compression_mt_threads": 1,
        "compression_xbzrle": False,
        "compression_xbzrle_cache": 10,
        "multifd": False,
        "multifd_channels": 2,
        "dirty_limit": False,
        "x_vcpu_dirty_limit_period": 500,
        "vcpu_dirty_limit": 1,
    }


def _iterations_at_switch(result: Result) -> int:
    """Return the iterations after which post-copy began, or the format's default without a switch."""
    switched_s = result.summary.postcopy_start_s
    if switched_s is None:
        return 5
    return max((s.dirty_sync_count for s in result.syncs if s.time_s < switched_s), default=0)


def _bandwidth_mib_per_s(config: Settings | None) -> int:
    """Return the smaller of max_bandwidth and link bandwidth."""
    limit = parse_bytes_per_s(setting(config, "migration.max_bandwidth", 0)) or math.inf
    rate = min(limit, parse_bytes_per_s(setting(config, "link.bandwidth", "unlimited")))
    return UNLIMITED_MIB_PER_S if math.isinf(rate) else max(round(rate / 2**20), 1)


def _progress_history(result: Result, config: Settings | None) -> list[dict[str, Any]]:
    """Return a record for each sync and one at the end, as guestperf polls dirty-sync-count."""
    summary = result.summary
    history = []
    rate = 0
    for sync in result.syncs:
        rate = rate if sync.dirty_pages_rate is None else sync.dirty_pages_rate
        status = {"setup": "setup", "final": "device"}.get(sync.kind, "active")
        history.append(_progress(result, sync, rate, status, sync.time_s))
    for event in result.events:
        if result.syncs and event.arguments.get("new_state") == "postcopy-active":
            last_sync = result.syncs[-1]
            history.append(_progress(result, last_sync, rate, "postcopy-active", event.time_s))
    if result.syncs:
        # QEMU refuses to cancel post-copy.
        stopped = "cancelled" if summary.postcopy_start_s is None else "postcopy-active"
        status = "completed" if summary.verdict == "converged" else stopped
        last = _progress(result, result.syncs[-1], rate, status, summary.simulated_s)
        last["downtime"] = round(summary.downtime_ms or 0)
        last["ram"] |= {
            "transferred_bytes": summary.transferred_bytes,
            "remaining_bytes": summary.remaining_bytes,
            "duplicate_pages": summary.zero_pages,
            "normal_pages": summary.normal_pages,
            "normal_bytes": summary.normal_pages * setting(config, "vm.page_size", PAGE_BYTES),
        }
        history.append(last)
    return history


def _progress(
    result: Result, sync: SyncRecord, rate: int, status: str, time_s: float
) -> dict[str, Any]:
    bandwidth = sync.bandwidth_bytes_per_s
    return {
        "status": status,
        "ram": {
            "transferred_bytes": sync.transferred_bytes,
            "remaining_bytes": sync.remaining_bytes,
            "total_bytes": result.summary.vm_bytes,
            "duplicate_pages": 0,  # Kinds of pages are known only at the end.
            "skipped_pages": 0,
            "normal_pages": 0,
            "normal_bytes": 0,
            "dirty_rate_pps": rate,
            "transfer_rate_mbs": bandwidth * 8 / 1e6,  # Mbit/s, as query-migrate's mbps
            "iterations": sync.dirty_sync_count,
        },
        "now": time_s,
        "duration": round(1e3 * time_s),  # ms, as are all times below
        "downtime": 0,
        "downtime_expected": round(1e3 * sync.remaining_bytes / bandwidth) if bandwidth else 0,
        "setup_time": 0,
        "throttle_pcent": sync.cpu_throttle_percentage,
        "dirty_limit_throttle_time_per_round": 0,
        "dirty_limit_ring_full_time": 0,
    }


def _run_time(result: Result) -> tuple[list[float], list[float]]:
    """Return times about a second apart, and the run time of a vCPU at each."""
    total_s = result.summary.simulated_s
    count = min(max(math.ceil(total_s), 1), MOST_SAMPLES) + 1
    times_s = np.linspace(0.0, total_s, count)
    samples = samples_of(result)
    run_s = np.interp(times_s, [s.time_s for s in samples], [s.guest_run_s for s in samples])
    return np.round(times_s, 6).tolist(), np.round(run_s, 6).tolist()


def _timings(times_s: list[float], values: list[float]) -> list[dict[str, Any]]:
    return [
        {"tid": ALL_THREADS, "timestamp": time_s, "value": round(value, 3)}
        for time_s, value in zip(times_s, values, strict=True)
    ]


def _guest_timings(
    times_s: list[float], run_s: list[float], config: Settings | None
) -> list[dict[str, Any]]:
    """Return the milliseconds in which the guest writes 1 GiB, page by page, at its current speed.

    A second in which the guest stood still has no record. The value is 0 if the vCPUs alone do not
    set the speed: several writers, paced writers, windows or device writes.
    """
    rate = _cpu_bound_page_writes_per_s(config)
    pages = GIB / setting(config, "vm.page_size", PAGE_BYTES)
    at_full_speed_ms = 1e3 * pages / rate if rate else 0.0
    records = []
    for since_s, until_s, before_s, after_s in zip(
        times_s, times_s[1:], run_s, run_s[1:], strict=False
    ):
        if after_s > before_s:
            slower = (until_s - since_s) / (after_s - before_s)
            value = round(at_full_speed_ms * slower, 3)
            records.append({"tid": ALL_THREADS, "timestamp": until_s, "value": value})
    # guestperf-plot reads the first record of each list, so each list needs one.
    return records or [{"tid": ALL_THREADS, "timestamp": times_s[-1], "value": 0.0}]


def _cpu_bound_page_writes_per_s(config: Settings | None) -> float:
    """Return the rate of a guest with one writer that runs whenever its vCPUs run, else 0."""
    workload = (config or {}).get("workload") or {}
    if workload.get("pace", "cpu_bound") != "cpu_bound" or workload.get("windows"):
        return 0.0
    return float(workload.get("page_writes_per_s", 0.0)) if workload.get("throttled", True) else 0.0
