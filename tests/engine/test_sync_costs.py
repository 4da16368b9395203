"""Does a sync cost the sender, the main loop and vCPUs that need the big lock its time?"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from gpusim import Config, Result, SyncRecord, TrackingConfig, WriterConfig, simulate
from tests.engine.scenarios import FREE_EAGER, config

LOG_MS, MERGE_MS = 70.0, 40.0
BUSY = WriterConfig(working_set="2GiB", page_writes_per_s=4e5)
LINK_BOUND: dict[str, Any] = {"bandwidth": "200MB/s", "max_bandwidth": 0, "limit_s": 60}


def costs(**changes: Any) -> TrackingConfig:
    return replace(FREE_EAGER, **changes)


def run(tracking: TrackingConfig, **changes: Any) -> Result:
    settings = {"workload": BUSY, "tracking": tracking, **LINK_BOUND, **changes}
    return simulate(config("4GiB", **settings))


def of_kind(result: Result, kind: str) -> list[SyncRecord]:
    return [sync for sync in result.syncs if sync.kind == kind]


def test_parts_add_up() -> None:
    """A VM of 4 GiB in three blocks has costs per GiB, per block and fixed ones."""
    tracking = costs(
        log_sync_ns_per_gib=1e6,
        log_sync_us_per_block=2000,
        listeners_ms=10,
        merge_ns_per_gib=3e6,
        misaligned_ms=20,
    )
    base = config("4GiB", BUSY, tracking=tracking, **LINK_BOUND)
    found = simulate(replace(base, vm=replace(base.vm, blocks=["2GiB", "1GiB", "1GiB"])))
    assert {sync.duration_ms for sync in found.syncs} == {4 + 6 + 10 + 12 + 20}


def test_a_sync_of_the_migration_thread_stalls_it_for_its_whole_time() -> None:
    """The first pass takes 40 ms longer if the setup's sync does, whichever part takes them."""
    free_s, log_s, merge_s = (
        run(costs(**part)).syncs[1].time_s
        for part in ({}, {"listeners_ms": 40}, {"misaligned_ms": 40})
    )
    assert log_s == merge_s == pytest.approx(free_s + 0.04, abs=1e-6)


def test_a_fallback_sync_stalls_the_sender_only_while_it_merges() -> None:
    """The read of the log holds the big lock, which the sender does not need."""
    for tracking, stall_s in (
        (costs(listeners_ms=400), 0.0),
        (costs(misaligned_ms=400), 0.4),
    ):
        found = run(tracking)
        forced = of_kind(found, "fallback")
        pairs = [
            (a, b) for a, b in pairwise(forced) if b.dirty_sync_count == a.dirty_sync_count + 1
        ]
        assert len(pairs) > 3
        for before, after in pairs:
            sending_s = after.time_s - before.time_s - stall_s
            sent = after.transferred_bytes - before.transferred_bytes
            assert sent == pytest.approx(sending_s * 2e8, rel=0.01)
        own = len(of_kind(found, "exact")) + 1
        assert found.summary.sync_stall_s == pytest.approx(own * 0.4 + len(forced) * stall_s)


def test_a_fallback_sync_waits_for_the_burst_in_progress() -> None:
    """A burst holds the bitmap's mutex for 51 ms, and up to 64 pages more until it checks."""
    found = run(costs(waits_for_burst=True, mutex_win_percent=100))
    waits_ms = [sync.duration_ms for sync in of_kind(found, "fallback")]
    assert 0 < max(waits_ms) <= 51 + 64 * 4104 / 2e5
    assert len(set(waits_ms)) > 3
    assert found.summary.sync_stall_s == 0


def test_a_fallback_sync_does_not_wait_for_a_sleeping_sender() -> None:
    """With a rate limit and a link without cost the sender sleeps nearly all the time."""
    found = run(costs(waits_for_burst=True), bandwidth="unlimited", max_bandwidth=200_000_000)
    assert {sync.duration_ms for sync in of_kind(found, "fallback")} == {0.0}


def test_pages_sent_while_the_log_is_read_count_as_sent() -> None:
    """The writes are drawn and merged at the merge, which is 2 s after the tick here."""
    found = run(costs(listeners_ms=2000))
    first = of_kind(found, "fallback")[0]
    before, after = (
        sample.remaining_bytes
        for sample in found.samples
        if sample.time_s == pytest.approx(first.time_s + 2, abs=1e-9)
    )
    assert after - before == first.newly_dirty_pages * 4096
    assert first.remaining_bytes == after
    dirtied_since_s = first.time_s + 2 - found.syncs[1].time_s
    assert before < found.syncs[1].remaining_bytes - 0.9 * 2e8 * (dirtied_since_s - 2)


def test_the_migration_thread_waits_until_a_fallback_sync_ends() -> None:
    """A turn that wants to sync needs the big lock, so syncs do not overlap."""
    begun_behind_one = 0
    for rate in (1e5, 1.5e5, 2e5, 2.5e5):
        found = run(costs(listeners_ms=1500, misaligned_ms=200), downtime_limit=4000,
                    workload=replace(BUSY, page_writes_per_s=rate))  # fmt: skip
        for before, after in pairwise(found.syncs):
            end_s = before.time_s + before.duration_ms / 1000
            assert after.time_s >= end_s - 1e-9
            waited = (before.kind, after.kind) == ("fallback", "exact")
            begun_behind_one += waited and after.time_s == pytest.approx(end_s)
    assert begun_behind_one > 0


def test_the_main_loop_stalls_for_the_time_of_the_syncs() -> None:
    found = run(costs(listeners_ms=LOG_MS, misaligned_ms=MERGE_MS, waits_for_burst=True))
    lasting = [sync.duration_ms for sync in found.syncs if sync.kind != "final"]
    assert found.summary.main_loop_stall_s == pytest.approx(sum(lasting) / 1000)
    assert found.summary.longest_main_loop_stall_ms == max(lasting)
    assert min(lasting) == LOG_MS + MERGE_MS


@pytest.mark.parametrize("exits_per_s", [1.0, 1000.0])
def test_vcpus_that_need_the_big_lock_stand_still(exits_per_s: float) -> None:
    """In a hold of h a vCPU runs until its first exit: (1 - exp(-x h)) / x on average."""
    base = config("4GiB", BUSY, tracking=costs(listeners_ms=110), **LINK_BOUND)
    vm = replace(base.vm, vcpus=8, big_lock_exits_per_s=exits_per_s)
    found: Result = simulate(replace(base, vm=vm))
    runs_s = (1 - math.exp(-exits_per_s * 0.11)) / exits_per_s
    held = sum(sync.kind != "final" for sync in found.syncs)
    assert found.summary.guest_big_lock_s == pytest.approx(8 * held * (0.11 - runs_s))


def test_written_pages_are_protected_in_the_sync_or_in_the_chunks_clear() -> None:
    """Eager tracking protects all pages at the start, then the written ones at each sync."""
    costly = costs(protect_ns_per_page=1000, start_ns_per_page=1000, split_ns_per_page=1000)
    eager = run(costly)
    protected = sum(sync.duration_ms for sync in eager.syncs) * 1000
    assert eager.syncs[0].duration_ms == 2**20 / 1000
    since_the_last = eager.summary.total_time_s - eager.syncs[-1].time_s
    written = eager.summary.write_faults
    assert written - since_the_last * 4e5 <= protected - 2**20 <= written
    lazy = run(replace(costly, mode="kvm_manual"))
    assert {sync.duration_ms for sync in lazy.syncs if sync.kind != "fallback"} == {0.0}
    assert lazy.summary.remote_clear_s > 1
    at_start = replace(costly, mode="kvm_manual", initially_set=False)
    assert [sync.duration_ms for sync in run(at_start).syncs[:2]] == [2**20 / 1000, 0.0]
    trapped = run(replace(costly, mode="tcg"), auto_converge=False)
    assert {sync.duration_ms for sync in trapped.syncs} == {0.0}


def test_costs_that_are_set_to_zero_are_zero() -> None:
    summary = run(costs()).summary
    assert (summary.sync_stall_s, summary.main_loop_stall_s, summary.guest_big_lock_s) == (0, 0, 0)


def test_the_default_is_the_aligned_part_of_the_mail() -> None:
    """The default is 2.5 + 5 ms for 256 GiB (qemu-devel, Dec 2025)."""
    defaults: Config = Config()
    per_gib = defaults.tracking.log_sync_ns_per_gib + defaults.tracking.merge_ns_per_gib
    assert per_gib * 256 == pytest.approx(7.5e6, rel=1e-4)


def test_a_sync_waits_for_vcpus_that_slept_in_the_recording() -> None:
    """Under TCG a sync that starts in a recorded sleep ends with it. Others take no time."""
    free = replace(costs(), mode="tcg")
    natural_s = run(free).syncs[1].time_s
    sleeps = [[1.0, 1.5], [natural_s - 0.1, natural_s + 0.4]]
    found = run(replace(free, recorded_sleeps=sleeps), auto_converge=False)
    assert [sync.duration_ms for sync in found.syncs[:2]] == [0, pytest.approx(400, abs=1e-3)]
    assert {sync.duration_ms for sync in found.syncs[2:]} == {0}
