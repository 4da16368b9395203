"""Do a read of KVM's log and a remote clear wait for each other, as kvm_slots_lock makes them?

In the first pass of a guest without zero pages each chunk begins after 2^18 pages. So the time of each
clear is known, and with it the wait of each clear that meets a sync.
"""

from __future__ import annotations

from typing import Any

import pytest

from gpusim import Result, TrackingConfig, WriterConfig, simulate
from tests.engine.scenarios import config

PAGE_S = 4104 / 1e9  # at 1 GB/s
CHUNK_S = 2**18 * PAGE_S
LOG_S = 1.4
GUEST = WriterConfig(working_set="24GiB", page_writes_per_s=1e3)


def run(mode: str = "kvm_manual", **changes: Any) -> Result:
    costs = {
        "log_sync_ns_per_gib": LOG_S * 1e9 / 24,
        "merge_ns_per_gib": 0.0,
        "waits_for_burst": False,
        "protect_ns_per_page": 0.0,
        "split_ns_per_page": 0.0,
        "first_write_cost_ns": 0.0,
    }
    return simulate(
        config(
            "24GiB",
            GUEST,
            tracking=TrackingConfig(mode=mode, **(costs | changes)),
            bandwidth="1GB/s",
            max_bandwidth=0,
            version="what_if_first_pass",
            limit_s=26,
        )
    )


def fallback_starts_s(found: Result) -> list[float]:
    return [sync.time_s for sync in found.syncs if sync.kind == "fallback"]


def test_a_clear_waits_until_the_log_is_read() -> None:
    found = run()
    ticks_s = fallback_starts_s(found)
    assert len(ticks_s) >= 2
    waits_s = 0.0
    clear_s = LOG_S  # the setup's sync reads the log first, and the sender waits for all of it
    for tick_s in ticks_s:
        while clear_s < tick_s:
            clear_s += CHUNK_S
        if clear_s < tick_s + LOG_S:
            waits_s += tick_s + LOG_S - clear_s
            clear_s = tick_s + LOG_S
    own_s = sum(sync.duration_ms for sync in found.syncs if sync.kind != "fallback") / 1000
    assert waits_s > 0.5
    assert found.summary.sync_stall_s == pytest.approx(own_s + waits_s, abs=2e-3)


@pytest.mark.parametrize("mode", ["kvm_legacy", "dirty_ring", "tcg"])
def test_without_remote_clears_nobody_waits_for_the_read(mode: str) -> None:
    found = run(mode)
    own_s = sum(sync.duration_ms for sync in found.syncs if sync.kind != "fallback") / 1000
    assert fallback_starts_s(found)
    assert found.summary.sync_stall_s == pytest.approx(own_s, abs=1e-6)


def test_logs_of_devices_are_read_without_the_lock() -> None:
    found = run(log_sync_ns_per_gib=0, listeners_ms=1000 * LOG_S)
    own_s = sum(sync.duration_ms for sync in found.syncs if sync.kind != "fallback") / 1000
    assert fallback_starts_s(found)
    assert found.summary.sync_stall_s == pytest.approx(own_s, abs=1e-6)


def test_the_log_is_read_after_the_clear_in_progress() -> None:
    """A clear takes 0.9 s here, so that a tick that comes in it waits for the rest."""
    found = run(log_sync_ns_per_gib=1e6, remote_clear_us=9e5)
    extra_s = [s.duration_ms / 1000 - 0.024 for s in found.syncs if s.kind == "fallback"]
    assert max(extra_s) > 0.05
    assert max(extra_s) <= 0.9 + 1e-6
    assert min(extra_s) >= -1e-9
