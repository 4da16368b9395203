"""Is the bottleneck that a run reports the one that its settings make?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpusim import (
    Config,
    EvacuationConfig,
    GuestConfig,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    Summary,
    TrackingConfig,
    VmConfig,
    WorkloadConfig,
    WriterConfig,
    evacuate,
    simulate,
)
from tests.engine.scenarios import FREE_EAGER, FREE_LAZY

THREAD = 4104 * 8 / 2580  # Gbit/s of one thread: its record of a page every 2580 ns
CHANNELS = 4106.5 * 8 / 2580  # Gbit/s of each multifd channel
ZERO = {"vm": VmConfig(memory="2GiB", zero_percent=100.0)}
SYNCS = replace(FREE_EAGER, log_sync_ns_per_gib=1e8, merge_ns_per_gib=1e8)


def run(
    *,
    link: dict[str, Any] | None = None,
    tracking: TrackingConfig = FREE_EAGER,
    zero_percent: float = 0.0,
    writes: float = 0.0,
    **migration: Any,
) -> Summary:
    """Migrate 1 GiB with a page cost of 2580 ns. Nothing else costs anything unless stated."""
    costs = {"page_cost_ns": 2580.0, "zero_page_scan": "unlimited", "wakeup_latency_us": 0.0}
    writer = WriterConfig(working_set="128MiB", page_writes_per_s=writes)
    return simulate(
        Config(
            vm=VmConfig(memory="1GiB", vcpus=1, zero_percent=zero_percent),
            workload=writer if writes else WorkloadConfig(),
            link=LinkConfig(**{**costs, **(link or {})}),
            migration=MigrationConfig(**{"downtime_limit": 1, **migration}),
            tracking=tracking,
            limit=LimitConfig(simulated=20, stop_when_stuck=False),
        )
    ).summary


def found(summary: Any) -> tuple[str | None, float | None, float | None]:
    rates = summary.sending_gbit_per_s, summary.link_gbit_per_s
    return summary.bottleneck_code, *(None if rate is None else round(rate, 2) for rate in rates)


@pytest.mark.parametrize(
    ("link", "migration", "code", "rate"),
    [
        ({"bandwidth": "10Gbit/s"}, {}, "link", 10.0),
        ({"bandwidth": "25Gbit/s"}, {}, "page_cost", THREAD),
        ({"bandwidth": "13Gbit/s"}, {}, "page_cost", THREAD),
        ({"bandwidth": "25Gbit/s"}, {"multifd_channels": 1}, "page_cost", CHANNELS),
        ({"bandwidth": "25Gbit/s"}, {"multifd_channels": 2}, "link", 25.0),
        ({"bandwidth": "100Gbit/s"}, {"multifd_channels": 3}, "page_cost", 3 * CHANNELS),
        (
            {"bandwidth": "100Gbit/s", "queue_cost_ns": 1000.0},
            {"multifd_channels": 8},
            "queue_cost",
            4106.5 * 8 / 1000,
        ),
        ({"bandwidth": "25Gbit/s"}, {"max_bandwidth": "2Gbit/s"}, "max_bandwidth", 2.0),
        ({"bandwidth": "3Gbit/s"}, {"max_bandwidth": "2.8Gbit/s"}, "max_bandwidth", 2.8),
        ({"bandwidth": "25Gbit/s"}, {"max_bandwidth": "20Gbit/s"}, "page_cost", THREAD),
        ({"bandwidth": "10Gbit/s"}, {"max_bandwidth": "20Gbit/s"}, "link", 10.0),
    ],
)
def test_the_slowest_part_is_the_bottleneck(
    link: dict[str, Any], migration: dict[str, Any], code: str, rate: float
) -> None:
    summary = run(link=link, **migration)
    assert summary.bottleneck_code == code
    assert summary.sending_gbit_per_s == pytest.approx(rate, rel=0.03)
    assert summary.link_gbit_per_s == pytest.approx(float(link["bandwidth"][:-6]))


@pytest.mark.parametrize(("bandwidth", "code"), [("10Gbit/s", "link"), ("25Gbit/s", "page_cost")])
def test_the_time_of_syncs_is_no_sending_time(bandwidth: str, code: str) -> None:
    free, slow = (
        run(link={"bandwidth": bandwidth}, tracking=tracking, writes=2e4)
        for tracking in (FREE_EAGER, SYNCS)
    )
    assert slow.sync_stall_s > 0.5
    assert found(slow) == found(free)
    assert slow.bottleneck_code == code


def test_scanning_for_zero_pages_is_a_bottleneck() -> None:
    link = {"bandwidth": "10Gbit/s", "zero_page_scan": "2GB/s"}
    summary = run(link=link, zero_percent=90.0)
    assert summary.bottleneck_code == "zero_page_scan"
    assert run(link=link, zero_percent=10.0).bottleneck_code == "link"


def test_clearing_the_log_is_a_bottleneck() -> None:
    tracking = replace(FREE_LAZY, remote_clear_us=1e6)
    summary = run(link={"bandwidth": "10Gbit/s"}, tracking=tracking)
    assert (summary.bottleneck_code, summary.bottleneck_change) == ("remote_clear", None)


def test_a_recorded_link_has_no_bottleneck() -> None:
    summary = run(link={"recorded": [[0, 0], [10, 2e9]]})
    assert summary.transferred_bytes
    assert found(summary) == (None, None, None)


def test_an_unlimited_link_has_no_rate() -> None:
    summary = run(link={"bandwidth": "unlimited"})
    assert found(summary) == ("page_cost", round(THREAD, 2), None)
    assert summary.bottleneck_change == "migration.multifd_channels=14"  # 14 * 190 ns > 2580 ns


def test_a_change_of_the_link_changes_the_bottleneck() -> None:
    """0.1 s at 25 Gbit/s send 0.159 GB. The other 0.917 GB take 1.47 s at 5 Gbit/s."""
    summary = run(link={"bandwidth": "25Gbit/s", "changes": [[0.1, "5Gbit/s"]]})
    assert summary.bottleneck_code == "link"
    assert summary.link_gbit_per_s == pytest.approx((0.1 * 25 + 1.47 * 5) / 1.57, rel=0.02)
    summary = run(link={"bandwidth": "5Gbit/s", "changes": [[0.1, "25Gbit/s"]]})
    assert summary.bottleneck_code == "page_cost"


@pytest.mark.parametrize(
    ("link", "zero_percent", "migration"),
    [
        ({"bandwidth": "25Gbit/s"}, 0.0, {}),
        ({"bandwidth": "100Gbit/s"}, 0.0, {"multifd_channels": 2}),
        ({"bandwidth": "25Gbit/s"}, 0.0, {"version": "qemu_2_6", "auto_converge": False}),
        ({"bandwidth": "25Gbit/s"}, 0.0, {"version": "qemu_9_2", "postcopy_ram": True}),
        ({"bandwidth": "25Gbit/s"}, 0.0, {"max_bandwidth": "1Gbit/s", "multifd_channels": 4}),
        ({"bandwidth": "1Gbit/s", "zero_page_scan": "2GB/s"}, 95.0, {}),
    ],
)
def test_the_change_is_enough(
    link: dict[str, Any], zero_percent: float, migration: dict[str, Any]
) -> None:
    before = run(link=link, zero_percent=zero_percent, **migration)
    assert before.bottleneck_change is not None
    changes = dict(one.split("=") for one in before.bottleneck_change.split())
    values = {key.removeprefix("migration."): value for key, value in changes.items()}
    typed = {key: int(value) if value.isdigit() else value for key, value in values.items()}
    after = run(link=link, zero_percent=zero_percent, **{**migration, **typed})
    assert after.bottleneck_code != before.bottleneck_code
    assert after.sending_gbit_per_s > before.sending_gbit_per_s  # type: ignore[operator]


def test_no_change_is_offered_that_does_not_help() -> None:
    scan = {"bandwidth": "25Gbit/s", "zero_page_scan": "2GB/s"}
    earlier = run(link=scan, zero_percent=90.0, version="qemu_7_2")
    assert (earlier.bottleneck_code, earlier.bottleneck_change) == ("zero_page_scan", None)
    slow = run(link={"bandwidth": "400Gbit/s", "page_cost_ns": 1e6}, multifd_channels=255)
    assert (slow.bottleneck_code, slow.bottleneck_change) == ("page_cost", None)
    cheap = run(link={"bandwidth": "unlimited", "page_cost_ns": 100.0})
    assert (cheap.bottleneck_code, cheap.bottleneck_change) == ("page_cost", None)


@pytest.mark.parametrize(
    ("at_a_time", "bandwidth", "code", "rate"),
    [
        (1, "25Gbit/s", "page_cost", THREAD),
        (2, "20Gbit/s", "link", 20.0),
        (2, "100Gbit/s", "page_cost", 2 * THREAD),
        (2, "unlimited", "page_cost", 2 * THREAD),
    ],
)
def test_guests_that_share_a_link(at_a_time: int, bandwidth: str, code: str, rate: float) -> None:
    guest = GuestConfig(vm=VmConfig(memory="512MiB", vcpus=1), workload=WorkloadConfig(), count=4)
    host = Config(
        link=LinkConfig(bandwidth=bandwidth, wakeup_latency_us=0.0, non_ram_downtime_ms=0),
        tracking=FREE_EAGER,
        evacuation=EvacuationConfig(guests={"vm": guest}, at_a_time=at_a_time),
    )
    summary = evacuate(host).summary
    assert summary.bottleneck_code == code
    assert summary.sending_gbit_per_s == pytest.approx(rate, rel=0.02)
    assert (summary.link_gbit_per_s is None) == (bandwidth == "unlimited")
