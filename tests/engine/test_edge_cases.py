"""Whole runs of the edge cases that a simulator of QEMU's precopy can get wrong.

The numbers are those of docs/explanation/model.md. Tests of single rules have the same numbers.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from gpusim import Config, Result, TrackingConfig, WriterConfig, simulate
from tests.engine.scenarios import FREE_EAGER, FREE_LAZY, FREE_SYNCS, config

SLOW = {"max_bandwidth": 100_000_000}  # passes of ten seconds and more


def slow_run(**changes: object) -> Result:
    return simulate(config(**{**SLOW, **changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize("tracking", [FREE_EAGER, FREE_LAZY], ids=["eager", "lazy"])
def test_edge_case_01_a_pass_ends_before_all_is_sent_and_nothing_is_lost(
    tracking: TrackingConfig,
) -> None:
    run = slow_run(tracking=tracking)
    exact = [sync for sync in run.syncs if sync.kind == "exact"]
    unsent = [sync.remaining_bytes - 4096 * sync.newly_dirty_pages for sync in exact]
    assert all(left < sync.threshold_bytes for left, sync in zip(unsent, exact, strict=True))
    assert sum(left > 0 for left in unsent) > len(exact) / 2
    newly_dirty = sum(sync.newly_dirty_pages for sync in run.syncs)
    assert run.summary.normal_pages == 2**20 + newly_dirty
    assert run.summary.resent_pages == newly_dirty


def test_edge_case_02_fallback_syncs_raise_the_remaining_memory_and_replace_exact_ones() -> None:
    kinds = [sync.kind for sync in slow_run().syncs]
    first = kinds.index("fallback")
    assert kinds[first : first + 5] == ["fallback"] * 5
    assert kinds[-1] == "final"


def test_edge_case_03_few_pages_are_newly_dirty_early_in_a_pass() -> None:
    """After a pass most of the working set is dirty already, so it cannot become newly dirty."""
    run = slow_run()
    exact, forced = run.syncs[1], run.syncs[2]
    assert forced.kind == "fallback"
    since_s = forced.time_s - exact.time_s
    sent_in_between = (forced.transferred_bytes - exact.transferred_bytes) / 4104
    written = 2e5 * since_s
    assert forced.newly_dirty_pages < sent_in_between < written / 4


def test_edge_case_04_a_zero_page_takes_nine_bytes() -> None:
    base = config("4GiB", WriterConfig(working_set="256MiB", page_writes_per_s=1e4))
    run = simulate(replace(base, vm=replace(base.vm, zero_percent=50.0)))
    summary = run.summary
    assert summary.zero_pages == 2**19
    payload = 4104 * summary.normal_pages + 9 * summary.zero_pages
    assert payload < summary.transferred_bytes < payload * 1.001
    assert run.syncs[1].transferred_bytes < 0.51 * summary.vm_bytes


def test_edge_case_07_no_fallback_sync_comes_in_the_first_pass() -> None:
    run = slow_run()
    assert run.summary.first_pass_s == run.syncs[1].time_s > 40
    assert run.syncs[1].kind == "exact"
    assert all(sync.cpu_throttle_percentage == 0 for sync in run.syncs[:3])


def test_edge_case_08_fallback_syncs_keep_the_grid_of_the_migrations_start() -> None:
    syncs = slow_run().syncs
    for before, sync in pairwise(syncs):
        if sync.kind == "fallback":
            assert sync.time_s % 5 == 0
            gap_s = sync.time_s - before.time_s
            assert gap_s == 5 if before.kind == "fallback" else 5 < gap_s <= 10


def test_edge_case_09_the_grid_drifts_by_the_time_of_a_sync() -> None:
    costly = replace(FREE_EAGER, misaligned_ms=40.0)
    times = [sync.time_s for sync in slow_run(tracking=costly).syncs if sync.kind == "fallback"]
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps.count(pytest.approx(5.04)) > len(gaps) / 2


def test_edge_case_12_lazy_tracking_resends_fewer_pages() -> None:
    """A page that is written between the sync and its chunk's clear is reported only once."""
    limits = {"auto_converge": False, "limit_s": 300}
    eager, lazy = slow_run(tracking=FREE_EAGER, **limits), slow_run(tracking=FREE_LAZY, **limits)
    assert lazy.summary.verdict == eager.summary.verdict == "time_limit"
    passes = [sum(sync.kind == "exact" for sync in run.syncs) for run in (eager, lazy)]
    assert passes[1] >= passes[0]
    assert lazy.summary.resent_pages <= eager.summary.resent_pages


def test_edge_case_16_near_the_end_a_turn_syncs_once() -> None:
    run = simulate(config("1GiB", WriterConfig(working_set="256MiB", page_writes_per_s=2e4)))
    exact = [sync.time_s for sync in run.syncs if sync.kind == "exact"]
    gaps = [after - before for before, after in pairwise(exact)]
    assert min(gaps) >= 0.1 - 1e-9
    assert gaps.count(pytest.approx(0.1)) > 0


def test_edge_case_17_more_remains_at_the_stop_than_at_the_decision() -> None:
    """The guest writes while the last exact sync runs, so the downtime exceeds its limit."""
    costly = replace(FREE_EAGER, misaligned_ms=200.0)
    writer = WriterConfig(working_set="256MiB", page_writes_per_s=3e4)
    run = simulate(config("1GiB", writer, tracking=costly, bandwidth="100MB/s", max_bandwidth=0))
    exact, final = run.syncs[-2:]
    assert (exact.kind, final.kind) == ("exact", "final")
    assert final.remaining_bytes > exact.remaining_bytes + 4096 * 1000
    assert run.summary.downtime_ms is not None
    assert run.summary.downtime_ms > 200 + exact.remaining_bytes / 100e3


def test_edge_case_18_a_throttle_set_by_the_final_sync_does_not_count() -> None:
    found = 0
    costly = replace(FREE_EAGER, misaligned_ms=600.0)
    for rate in range(10_000, 60_000, 2_000):
        writer = WriterConfig(working_set="256MiB", page_writes_per_s=rate)
        rules = {"downtime_limit": 300, "throttle_trigger_threshold": 1}
        run = simulate(config("1GiB", writer, tracking=costly, **rules))
        names = [event.event for event in run.events]
        if run.summary.verdict == "converged":
            stop = names.index("migration_completion_vm_stop")
            steps = [e.arguments for e in run.events[:stop] if e.event == "cpu_throttle_set"]
            found += "cpu_throttle_set" in names[stop:]
            assert run.summary.max_throttle_percent == (steps[-1]["percent"] if steps else 0)
    assert found > 0


def test_edge_case_19_the_throttle_never_falls() -> None:
    for run in (slow_run(), slow_run(version="qemu_9_1")):
        percents = [sync.cpu_throttle_percentage for sync in run.syncs]
        assert percents == sorted(percents)
        assert percents[-1] > 20


def test_edge_case_24_a_tool_that_counts_syncs_sees_more_of_them() -> None:
    older, newer = slow_run(version="qemu_9_1"), slow_run()
    per_second = [run.summary.dirty_sync_count / run.summary.total_time_s for run in (older, newer)]
    assert newer.summary.fallback_sync_count > 0 == older.summary.fallback_sync_count
    assert per_second[1] > per_second[0]


def test_edge_case_28_no_timer_fires_while_the_vm_is_stopped() -> None:
    """VIRTUAL_RT stands still in a downtime of twenty seconds with the fallback timer armed."""
    writer = WriterConfig(working_set="1GiB", page_writes_per_s=2e5)
    run = simulate(
        config("4GiB", writer, bandwidth="50MB/s", max_bandwidth=0, downtime_limit=30_000)
    )
    assert run.summary.downtime_ms is not None
    assert run.summary.downtime_ms > 15_000
    names = [event.event for event in run.events]
    assert "cpu_throttle_dirty_sync" not in names[names.index("migration_completion_vm_stop") :]


def test_edge_case_29_device_writes_are_not_slowed() -> None:
    device = WriterConfig(working_set="1GiB", page_writes_per_s=2e5, throttled=False)
    run = slow_run(workload=device, limit_s=200)
    assert run.summary.max_throttle_percent == 99
    assert run.summary.guest_cpu_lost_s == 0
    late = [sync for sync in run.syncs if sync.cpu_throttle_percentage == 99][2:]
    early = [sync for sync in run.syncs if sync.kind == "fallback"][1:3]
    assert late[-1].newly_dirty_pages == pytest.approx(early[-1].newly_dirty_pages, rel=0.2)


def test_a_stalled_migration_is_given_up() -> None:
    stalled: Config = config("1GiB", WriterConfig(working_set="512MiB", page_writes_per_s=1e6),
                             max_bandwidth=50_000_000, max_cpu_throttle=30)  # fmt: skip
    run = simulate(replace(stalled, limit=replace(stalled.limit, stop_when_stuck=True)))
    assert run.summary.verdict == "not_converged"
    assert run.summary.reason_code == "throttle_at_maximum"
    assert run.summary.max_throttle_percent == 30
    assert run.summary.time_at_max_throttle_s >= 60
    assert run.summary.remaining_bytes > 0
    assert run.summary.downtime_ms is None


def test_a_run_that_the_wall_clock_stops_has_no_verdict() -> None:
    run = config()
    result = simulate(replace(run, limit=replace(run.limit, wall="1ns")))
    assert (result.summary.status, result.summary.verdict) == ("incomplete", None)


def test_lost_guest_cpu_is_the_work_that_was_not_done() -> None:
    """A CPU-bound guest loses all sleep. A paced guest that catches up and an idle one do not."""
    bound = slow_run()
    assert bound.summary.guest_cpu_lost_s == pytest.approx(
        bound.summary.total_time_s - bound.samples[-1].guest_run_s, abs=0.5
    )
    paced = slow_run(
        workload=WriterConfig(
            working_set="1GiB", page_writes_per_s=3e4, pace="paced", catch_up_page_writes_per_s=3e6
        ),
        throttle_trigger_threshold=1,
        max_cpu_throttle=50,
    )
    assert paced.summary.max_throttle_percent > 0
    assert paced.summary.guest_cpu_lost_s < 0.02 * (
        paced.summary.total_time_s - paced.samples[-1].guest_run_s
    )


def test_link_costs_slow_the_sender() -> None:
    base = config("1GiB", WriterConfig(working_set="64MiB", page_writes_per_s=100), max_bandwidth=0)
    link = replace(base.link, bandwidth="1GB/s", page_cost_ns=20_000)
    run = simulate(replace(base, link=link))
    assert run.summary.total_time_s == pytest.approx(2**18 * 20e-6, rel=0.01)
    paused = simulate(replace(base, link=replace(link, non_ram_downtime_ms=123.0)))
    assert paused.summary.downtime_ms == pytest.approx((run.summary.downtime_ms or 0) + 123)


@pytest.mark.parametrize("mode", ["kvm_manual", "kvm_legacy", "tcg"])
def test_events_come_in_the_order_of_qemus_trace(mode: str) -> None:
    """The order is setup, active, pairs of sync start and end, low pending, stop, completed."""
    costly = TrackingConfig(mode=mode, misaligned_ms=30.0)
    events = slow_run(tracking=costly).events
    times = [event.time_s for event in events]
    assert times == sorted(times)
    names = [event.event for event in events]
    assert names[:4] == [
        "migrate_set_state",
        "migration_bitmap_sync_start",
        "migration_bitmap_sync_end",
        "migrate_set_state",
    ]
    starts = [name for name in names if name.startswith("migration_bitmap_sync")]
    assert starts == ["migration_bitmap_sync_start", "migration_bitmap_sync_end"] * (
        len(starts) // 2
    )
    tail = ["migration_thread_low_pending", "migration_completion_vm_stop", "migrate_set_state"]
    assert names[-6:-3] == tail
    assert events[-1].arguments == {"new_state": "completed"}


def test_a_migration_whose_guest_will_calm_down_is_not_given_up() -> None:
    busy = WriterConfig(working_set="1GiB", page_writes_per_s=2e6, windows=[["0s", "300s"]])
    run = config(workload=busy, auto_converge=False, bandwidth="1GB/s", max_bandwidth=0)
    result = simulate(replace(run, limit=replace(run.limit, stop_when_stuck=True)))
    assert result.summary.verdict == "converged"
    assert result.summary.total_time_s == pytest.approx(301, abs=2)


@pytest.mark.parametrize("version", ["qemu_9_1", "qemu_9_2"])
def test_the_timeline_has_a_sample_at_the_start_of_zero_pages(version: str) -> None:
    """No timer fires in between: the VM has 8 GiB of data, then 8 GiB of zero pages."""
    writer = WriterConfig(working_set="64MiB", page_writes_per_s=100)
    base = config("16GiB", writer, bandwidth="1Gbit/s", max_bandwidth=0, version=version)
    result = simulate(replace(base, vm=replace(base.vm, zero_ranges=[["8GiB", "16GiB"]])))
    sent_s = 8 * 2**30 * 4104 / 4096 / 1.25e8
    before = [sample for sample in result.samples if sample.time_s <= sent_s][-1]
    assert before.remaining_bytes == pytest.approx(8 * 2**30, rel=0.05)
    assert sent_s - before.time_s < 6


def test_the_wall_clock_limit_holds_in_a_run_without_decisions() -> None:
    """A recorded link ends, and hours of empty windows without a decision follow."""
    run = config(version="qemu_9_1", limit_s=10**7)
    recorded = replace(run.link, recorded=[[0.0, 0.0], [1.0, 1e8]])
    result = simulate(replace(run, link=recorded, limit=replace(run.limit, wall="200ms")))
    assert result.summary.status == "incomplete"


def test_the_final_pages_of_a_recorded_link_take_the_configured_bandwidth() -> None:
    writer = WriterConfig(working_set="256MiB", page_writes_per_s=1e4)
    run = config("1GiB", writer, max_bandwidth=0)
    recorded = replace(run.link, recorded=[[0.0, 0.0], [1000.0, 1e11]], bandwidth="1GB/s")
    result = simulate(replace(run, link=recorded))
    final = result.syncs[-1]
    assert result.summary.downtime_ms == pytest.approx(final.remaining_bytes / 4096 * 4104 / 1e6)


def test_zero_pages_without_cost_do_not_let_normal_pages_exceed_the_limits() -> None:
    writer = WriterConfig(working_set="1GiB", start="3GiB", page_writes_per_s=1e4)
    base = config("4GiB", writer, bandwidth="100MB/s", max_bandwidth=0)
    free = replace(base.link, zero_page_bytes=0)
    vm = replace(base.vm, zero_ranges=[["0B", "2GiB"]])
    times = [
        simulate(replace(base, vm=vm, link=link)).syncs[1].time_s for link in (base.link, free)
    ]
    assert times[1] == pytest.approx(times[0], abs=0.2)


def test_a_page_that_takes_longer_than_the_timer_is_sent() -> None:
    writer = WriterConfig(working_set="64KiB", page_writes_per_s=1)
    base = config("1MiB", writer, bandwidth="1Mbit/s", max_bandwidth=0, downtime_limit=2000,
                  fallback_sync_interval="10ms")  # fmt: skip
    assert simulate(base).summary.verdict == "converged"


def test_a_stopped_guest_does_not_run() -> None:
    """Run time ends when the VM stops, even before a downtime of many seconds."""
    run = simulate(
        config(bandwidth="50MB/s", max_bandwidth=0, downtime_limit=30_000, auto_converge=False)
    )
    summary = run.summary
    assert summary.downtime_ms is not None
    assert summary.downtime_ms > 15_000
    stop_s = summary.total_time_s - summary.downtime_ms / 1000
    assert run.samples[-1].time_s == summary.total_time_s
    assert run.samples[-1].guest_run_s == pytest.approx(stop_s)
    assert any(sample.time_s == pytest.approx(stop_s) for sample in run.samples)


def test_under_tcg_a_sync_waits_for_the_sleeping_vcpu() -> None:
    """At 99 % a vCPU sleeps 990 ms. The sync ends when it wakes, and the sender waits too."""
    writer = WriterConfig(working_set="512MiB", page_writes_per_s=1e6)
    limits = {"cpu_throttle_initial": 99, "limit_s": 60, "max_bandwidth": 100_000_000}
    waits, free = (
        simulate(
            config(
                "1GiB",
                writer,
                tracking=replace(FREE_SYNCS, mode=mode),
                **limits,
            )
        )
        for mode in ("tcg", "kvm_legacy")
    )
    throttled = [sync for sync in waits.syncs if sync.cpu_throttle_percentage == 99][1:]
    assert max(sync.duration_ms for sync in throttled if sync.kind == "exact") > 100
    assert all(sync.duration_ms < 990 for sync in throttled)
    assert waits.summary.transferred_bytes / waits.summary.total_time_s < 0.95e8
    assert all(sync.duration_ms == 0 for sync in free.syncs)
