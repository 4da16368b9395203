"""One migration for each decision in which gpusim once differed from the naive model of QEMU."""

from __future__ import annotations

from dataclasses import replace

from gpusim import (
    BackendConfig,
    Config,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    MixConfig,
    SequentialConfig,
    TrackingConfig,
    VmConfig,
)
from tests.oracle.model import first_difference, run_gpusim, run_naive
from tests.oracle.scenarios import NEUTRAL_TRACKING, PAGE

PAGES = 2**15
MB = 10**6


def migration(
    *,
    rate: float = 3e3,
    link: LinkConfig | None = None,
    tracking: dict[str, object] | None = None,
    limit_s: float = 40.0,
    **keys: object,
) -> Config:
    """Return a migration of 128 MiB whose writer writes half of it, over a link without costs."""
    free = {"log_sync_ns_per_gib": 0, "merge_ns_per_gib": 0, "misaligned_ms": 0}
    writer = SequentialConfig(
        working_set=PAGES // 2 * PAGE, threads=1, page_writes_per_s=rate, first_write=0
    )
    return Config(
        vm=VmConfig(memory=PAGES * PAGE, vcpus=1, timer_latency_us=0),
        workload=MixConfig(writers={"w": writer}),
        link=link or free_link(),
        migration=MigrationConfig(**keys),  # type: ignore[arg-type]
        tracking=TrackingConfig(
            **{"mode": "kvm_legacy", **free, **NEUTRAL_TRACKING, **(tracking or {})}
        ),
        limit=LimitConfig(simulated=limit_s, stop_when_stuck=False),
        backend=BackendConfig(name="numpy", threads=1),
        plot=False,
    )


def free_link(bandwidth: object = "unlimited", **keys: object) -> LinkConfig:
    costs = {"zero_page_scan": "unlimited", "page_cost_ns": 0, "wakeup_latency_us": 0}
    return LinkConfig(bandwidth=bandwidth, **{**costs, "non_ram_downtime_ms": 0, **keys})  # type: ignore[arg-type]


def assert_same(config: Config) -> None:
    ours, naive = run_gpusim(config), run_naive(config)
    assert first_difference(ours, naive) is None


def test_a_merge_in_the_senders_sleep_does_not_lengthen_its_window() -> None:
    """The sender sleeps for almost the whole of its 100 ms. A merge takes from 50 to 140 ms."""
    costs = {"listeners_ms": 50, "misaligned_ms": 90}
    config = migration(max_bandwidth=5 * MB, tracking=costs, limit_s=90)
    assert_same(config)
    free = replace(config, tracking=replace(config.tracking, listeners_ms=0, misaligned_ms=0))
    plain, with_costs = run_gpusim(free), run_gpusim(config)
    assert with_costs.fallback_syncs >= 5
    window = 5 * MB // 10
    assert plain.sent_bytes - with_costs.sent_bytes < 2 * window  # the exact sync costs one


def test_a_sync_finds_pages_between_the_last_page_sent_and_the_next_dirty_one() -> None:
    """All ranges are whole windows of 96 pages, so a sync comes exactly between two of them.

    The low writer has moved on, and its new pages belong to this pass. QEMU's cursor stays behind the
    last page that it sent, and does not jump to the next dirty page.
    """
    window = 96
    low = SequentialConfig(
        working_set=200 * window * PAGE,
        threads=1,
        page_writes_per_s=2 * window / 5,
        first_write=0,
        throttled=False,
    )
    far = SequentialConfig(
        working_set=71 * window * PAGE,
        start=250 * window * PAGE,
        threads=1,
        page_writes_per_s=3000,
        first_write=0,
    )
    config = migration(
        max_bandwidth=10 * (window - 1) * (PAGE + 8),
        link=free_link(wakeup_latency_us=37),
        limit_s=100,
        downtime_limit=1,
    )
    config.vm.memory = 340 * window * PAGE
    config.workload = MixConfig(writers={"low": low, "far": far})
    assert_same(config)
