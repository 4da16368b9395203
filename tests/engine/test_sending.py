"""Do sending threads and remote clears take the time of their closed forms?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpusim import (
    Config,
    LinkConfig,
    MigrationConfig,
    TrackingConfig,
    VmConfig,
    WorkloadConfig,
    WriterConfig,
    simulate,
)
from gpusim.qemu.versions import VERSIONS
from tests.engine.scenarios import FREE_EAGER, FREE_LAZY, config

GIB_PAGES = 2**18
IDLE = WorkloadConfig()


def idle(bandwidth: str, channels: int, *, zero_percent: float = 0.0, version: str) -> Config:
    return Config(
        vm=VmConfig(memory="8GiB", zero_percent=zero_percent),
        workload=IDLE,
        link=LinkConfig(
            bandwidth=bandwidth,
            zero_page_scan="2GB/s",
            wakeup_latency_us=0.0,
            non_ram_downtime_ms=0,
        ),
        migration=MigrationConfig(
            version=version, multifd_channels=channels, auto_converge=False, downtime_limit=0
        ),
        tracking=FREE_EAGER,
    )


@pytest.mark.parametrize(
    ("bandwidth", "channels", "page_ns"),
    [
        ("10Gbit/s", 0, 4104 / 1.25),  # the link is slower than a thread
        ("100Gbit/s", 0, 2580.0),  # 12.7 Gbit/s
        ("100Gbit/s", 2, 1290.0),
        ("100Gbit/s", 8, 4106.5 / 12.5),  # the link is full
    ],
)
@pytest.mark.parametrize("version", ["qemu_7_2", "qemu_9_2"])
def test_an_idle_guest_takes_as_long_as_its_pages(
    bandwidth: str, channels: int, page_ns: float, version: str
) -> None:
    summary = simulate(idle(bandwidth, channels, version=version)).summary
    assert summary.total_time_s == pytest.approx(8 * GIB_PAGES * page_ns * 1e-9, rel=2e-4)
    page_bytes = 4106.5 if channels else 4104
    assert summary.transferred_bytes == pytest.approx(8 * GIB_PAGES * page_bytes, rel=2e-4)


@pytest.mark.parametrize(
    ("channels", "version", "page_ns"),
    [
        (0, "qemu_9_2", 2048.0),
        (4, "qemu_9_2", 512.0),  # the channels find zero pages
        (4, "qemu_7_2", 2048.0 + 190.0),  # the migration thread does, and finds them
    ],
)
def test_an_empty_vm_takes_as_long_as_the_search_for_zero_pages(
    channels: int, version: str, page_ns: float
) -> None:
    made = idle("100Gbit/s", channels, zero_percent=100.0, version=version)
    summary = simulate(made).summary
    assert summary.zero_pages == 8 * GIB_PAGES
    assert summary.total_time_s == pytest.approx(8 * GIB_PAGES * page_ns * 1e-9, rel=1e-3)


def test_lazy_tracking_clears_each_chunk_once_a_round() -> None:
    tracking = TrackingConfig(
        mode="kvm_manual", log_sync_ns_per_gib=0, merge_ns_per_gib=0, remote_clear_us=500
    )
    lazy = replace(idle("10Gbit/s", 0, version="qemu_9_2"), tracking=tracking)
    summary, plain = (
        simulate(lazy).summary,
        simulate(idle("10Gbit/s", 0, version="qemu_9_2")).summary,
    )
    assert (summary.remote_clears, plain.remote_clears, plain.remote_clear_s) == (8, 0, 0.0)
    assert summary.remote_clear_s == pytest.approx(8 * (500e-6 + 61.6e-9 * GIB_PAGES))
    longer_s = summary.total_time_s - plain.total_time_s
    assert longer_s == pytest.approx(summary.remote_clear_s, rel=1e-6)


def test_pages_protected_at_the_start_cost_the_sender_nothing() -> None:
    """Without INITIALLY_SET the clears of an idle guest have no page to protect."""
    made = idle("10Gbit/s", 0, version="qemu_9_2")
    tracking = TrackingConfig(
        mode="kvm_manual", initially_set=False, log_sync_ns_per_gib=0, merge_ns_per_gib=0
    )
    summary = simulate(replace(made, tracking=tracking)).summary
    assert (summary.remote_clears, summary.remote_clear_s) == (8, 0.0)


@pytest.mark.parametrize("clears", [True, False])
def test_a_version_may_clear_nothing_in_its_last_stage(
    clears: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = replace(VERSIONS["qemu_9_2"], clears_in_last_stage=clears)
    monkeypatch.setitem(VERSIONS, "qemu_9_2", version)
    writer = WriterConfig(working_set="1GiB", page_writes_per_s=1e4)
    made = config("1GiB", writer, bandwidth="10Gbit/s", tracking=FREE_LAZY, downtime_limit=100)
    made = replace(
        made,
        vm=replace(made.vm, blocks=["64MiB"] * 16),
        tracking=replace(FREE_LAZY, remote_clear_us=1e4),
    )
    summary = simulate(made).summary
    last = 16  # chunks with some pages left
    stopped = summary.downtime_ms
    assert stopped is not None
    assert (stopped > last * 10) == clears
    assert summary.remote_clear_s == pytest.approx(summary.remote_clears * 1e-2)
