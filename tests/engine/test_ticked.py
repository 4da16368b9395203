"""Do the closed form of the throttle's slices and the tick-by-tick mode give the same run?

In the tick-by-tick mode every slice is a timer on the clock, beside the timer of the fallback sync.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim import Config, TrackingConfig, WriterConfig, simulate
from tests.engine.scenarios import config
from tests.engine.ticked import simulate_ticked

PACES = st.sampled_from([
    {"pace": "cpu_bound", "page_writes_per_s": 2e4},
    {"pace": "cpu_bound", "page_writes_per_s": 3e5},
    {"pace": "cpu_bound", "page_writes_per_s": 1e5, "windows": [["2s", "9s"], ["11s", "90s"]]},
    {"pace": "paced", "page_writes_per_s": 2e4, "catch_up_page_writes_per_s": 2e6},
    {"pace": "paced", "page_writes_per_s": 3e4, "catch_up_page_writes_per_s": 6e4,
     "windows": [["0s", "17s"], ["20s", "70s"]]},
    {"pace": "cpu_bound", "page_writes_per_s": 5e4, "throttled": False},
])  # fmt: skip
TRACKING = st.sampled_from([
    TrackingConfig(mode="kvm_manual", log_sync_ns_per_gib=0, merge_ns_per_gib=0),
    TrackingConfig(mode="kvm_legacy", log_sync_ns_per_gib=1e6, merge_ns_per_gib=2e6),
    TrackingConfig(mode="kvm_legacy", listeners_ms=120, misaligned_ms=30),
    TrackingConfig(mode="tcg", log_sync_ns_per_gib=0, merge_ns_per_gib=0),
    TrackingConfig(mode="kvm_manual", remote_clear_us=3e3, protect_ns_per_page=200),
    TrackingConfig(mode="kvm_manual", first_write_cost_ns=4000),
    TrackingConfig(mode="tcg", first_write_cost_ns=20_000),
    TrackingConfig(mode="dirty_ring", first_write_cost_ns=20_000),
    TrackingConfig(mode="dirty_ring", protect_ns_per_page=9000),
])  # fmt: skip
SCHEDULES = st.sampled_from([
    [],
    [{"at": 7.001, "do": "pause"}, {"at": 9.5, "do": "resume"}, {"at_sync": 9, "do": "pause"},
     {"at": 31, "do": "resume"}],
    [{"at_sync": 4, "set": {"max_bandwidth": 45_000_000, "cpu_throttle_increment": 30}},
     {"at": 22.22, "do": "cancel"}],
])  # fmt: skip


@st.composite
def migrations(draw: st.DrawFn) -> Config:
    """Draw short migrations whose throttle rises in many ways."""
    initial = draw(st.integers(1, 99))
    base = config(
        "1GiB",
        WriterConfig(working_set="256MiB", **draw(PACES)),
        tracking=draw(TRACKING),
        limit_s=60,
        seed=draw(st.integers(0, 99)),
        max_bandwidth=draw(st.sampled_from([30_000_000, 60_000_000])),
        downtime_limit=draw(st.sampled_from([20, 300])),
        throttle_trigger_threshold=draw(st.sampled_from([1, 20, 50])),
        cpu_throttle_initial=initial,
        cpu_throttle_increment=draw(st.integers(1, 40)),
        max_cpu_throttle=draw(st.integers(initial, 99)),
        cpu_throttle_tailslow=draw(st.booleans()),
        fallback_sync_interval=draw(st.sampled_from(["700ms", "1050ms", "5s"])),
        version=draw(
            st.sampled_from(["qemu_9_2", "qemu_10_1", "seed_v2", "seed_v3", "what_if_first_pass"])
        ),
    )
    # Behind a hold without length a late tick is where it was, which the ticks one by one forget. A
    # sync without costs has none, and so has the reaper of dirty rings while nobody writes.
    reaps_nothing = base.tracking.mode == "dirty_ring" and base.workload.windows is not None
    has_costs = base.tracking.log_sync_ns_per_gib > 0 and not reaps_nothing
    latency_us = draw(st.sampled_from([0, 50, 3000])) if has_costs else 0
    base = replace(base, schedule=draw(SCHEDULES), vm=replace(base.vm, timer_latency_us=latency_us))
    return replace(base, link=replace(base.link, wakeup_latency_us=draw(st.sampled_from([0, 50]))))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(migrations())
def test_ticks_and_the_closed_form_give_the_same_run(config: Config) -> None:
    closed, ticked = simulate(config), simulate_ticked(config)
    assert ticked.events == closed.events
    assert ticked.syncs == closed.syncs
    assert ticked.summary.longest_vcpu_stall_ms == closed.summary.longest_vcpu_stall_ms
    assert ticked.summary.guest_cpu_lost_s == closed.summary.guest_cpu_lost_s
    assert ticked.summary.write_faults == closed.summary.write_faults
    assert ticked.samples[-1] == closed.samples[-1]  # the ticked run has more samples in between


@pytest.mark.parametrize(("version", "seed", "initial"), [("seed_v3", 29, 15), ("qemu_9_2", 0, 1)])
def test_a_sync_that_begins_as_another_ends_finds_the_same_vcpus(
    version: str, seed: int, initial: int
) -> None:
    """An overdue tick comes with the end of the first sync, and finds the vCPUs asleep."""
    base = config(
        "1GiB",
        WriterConfig(working_set="256MiB", page_writes_per_s=2e4),
        tracking=TrackingConfig(mode="kvm_legacy", listeners_ms=120, misaligned_ms=30),
        limit_s=60,
        seed=seed,
        max_bandwidth=60_000_000,
        downtime_limit=20,
        throttle_trigger_threshold=1,
        cpu_throttle_initial=initial,
        cpu_throttle_increment=15,
        max_cpu_throttle=82,
        fallback_sync_interval="700ms",
        version=version,
    )
    closed, ticked = simulate(base), simulate_ticked(base)
    assert ticked.syncs == closed.syncs
    assert ticked.summary.longest_vcpu_stall_ms == closed.summary.longest_vcpu_stall_ms


def test_a_throttled_run_has_thousands_of_ticks_and_few_draws() -> None:
    """The cost of the closed form follows the draws, because a slice is no event."""
    run = simulate(config("1GiB", WriterConfig(working_set="256MiB", page_writes_per_s=1e5),
                          max_bandwidth=30_000_000, limit_s=200, max_cpu_throttle=20))  # fmt: skip
    slices = run.summary.time_at_max_throttle_s / 12.5e-3
    assert slices > 10_000
    assert run.summary.simulated_looks < 100
