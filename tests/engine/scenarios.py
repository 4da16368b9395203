"""Small migrations for the tests of the engine. They have no costs unless a test adds one."""

from __future__ import annotations

from dataclasses import replace

from gpusim import (
    Config,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    Result,
    TrackingConfig,
    VmConfig,
    WorkloadConfig,
    WriterConfig,
)

FREE_LINK = LinkConfig(
    bandwidth="unlimited",
    zero_page_scan="unlimited",
    page_cost_ns=0,
    wakeup_latency_us=0,
    non_ram_downtime_ms=0,
)
FREE_SYNCS = TrackingConfig(
    mode="kvm_legacy",
    log_sync_ns_per_gib=0,
    merge_ns_per_gib=0,
    protect_ns_per_page=0,
    start_ns_per_page=0,
    split_ns_per_page=0,
)
FREE_EAGER = replace(FREE_SYNCS, waits_for_burst=False, first_write_cost_ns=0)
FREE_LAZY = replace(FREE_EAGER, mode="kvm_manual")


def config(
    memory: str = "4GiB",
    workload: WorkloadConfig | None = None,
    *,
    bandwidth: int | str = "unlimited",
    tracking: TrackingConfig = FREE_EAGER,
    limit_s: float = 3600,
    seed: int = 1,
    **migration: object,
) -> Config:
    """Return a migration without costs. By default the guest writes 200,000 pages/s to 1 GiB."""
    return Config(
        vm=VmConfig(memory=memory, vcpus=1, timer_latency_us=0),
        workload=workload or WriterConfig(working_set="1GiB", page_writes_per_s=2e5),
        link=replace(FREE_LINK, bandwidth=bandwidth),
        migration=MigrationConfig(**{"max_bandwidth": 200_000_000, **migration}),  # type: ignore[arg-type]
        tracking=tracking,
        limit=LimitConfig(simulated=limit_s, stop_when_stuck=False),
        seed=seed,
    )


def throttle_steps(result: Result) -> list[tuple[float, int]]:
    """Return (seconds, percent) of each change of the throttle before the VM stopped."""
    steps, last = [], 0
    for sync in result.syncs:
        if sync.cpu_throttle_percentage != last:
            last = sync.cpu_throttle_percentage
            steps.append((sync.time_s, last))
    return steps
