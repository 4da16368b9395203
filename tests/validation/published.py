"""Measurements that others published, and the migrations that they describe.

What a letter leaves open is named here once for all of its rows: the guest's write rate, and how fast
the sending thread finds zero pages, which is fitted on a row that is not judged. All other costs are
gpusim's own.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import mean
from typing import NamedTuple

from gpusim import (
    Config,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    SequentialConfig,
    Summary,
    TrackingConfig,
    VmConfig,
    simulate,
)
from tests.simulation.scenarios import FREE_EAGER

MIB = 2**20
STRESS_WRITES_PER_S = 3.9e6  # of all 16 threads; not published
ZERO_PAGE_SCAN = {"1.59Gbit/s": 1.093e9, "1.93Gbit/s": 2.753e9}  # so that the 150 MB row fits


class SeriesRow(NamedTuple):
    """A row of the cover letters of 2024-09-16 and 2024-09-30: total times in ms, as measured."""

    link: str
    ramsize_mib: int
    original_ms: list[int]
    with_sync_ms: list[int]

    @property
    def original_s(self) -> float:
        return mean(self.original_ms) / 1000

    @property
    def with_sync_s(self) -> float:
        return mean(self.with_sync_ms) / 1000


V1, V2 = "1.59Gbit/s", "1.93Gbit/s"
SERIES = [
    SeriesRow(V1, 150, [123685, 116249, 107772], [113744, 122623, 112668]),
    SeriesRow(V1, 3000, [404398, 392552, 400113], [239151, 295047, 289936]),
    SeriesRow(V1, 5000, [566357, 607471, 603136], [284605, 272270, 267543]),
    SeriesRow(V2, 150, [57579, 57434], [57728, 60223]),
    SeriesRow(V2, 3000, [291275, 290907], [210912, 203890]),
    SeriesRow(V2, 3500, [338445, 341168], [209099, 206241]),
]


def stress(row: SeriesRow, version: str, page_writes_per_s: float = STRESS_WRITES_PER_S) -> Summary:
    """guestperf's stress: 16 threads, each round and round its share; the rest of 100 GB is zero."""
    share = 100 * row.ramsize_mib * MIB / 100e9
    return simulate(
        Config(
            vm=VmConfig(memory="100GB", vcpus=16, zero_percent=99.9 - share),
            workload=SequentialConfig(
                working_set=f"{row.ramsize_mib}MiB",
                page_writes_per_s=page_writes_per_s,
                threads=16,
            ),
            link=LinkConfig(bandwidth=row.link, zero_page_scan=ZERO_PAGE_SCAN[row.link]),
            migration=MigrationConfig(version=version, downtime_limit=500),
        )
    ).summary


RK4N_WRITES_PER_S = 250_000.0  # not published; one rate for all rows


class Rk4nRow(NamedTuple):
    """A row of rk4n's charts of 2016-08-10, under QEMU 2.6; `total_s` is read off them."""

    workers: int
    initial: int
    increment: int
    downtime_limit_ms: int
    total_s: float


RK4N = [
    Rk4nRow(2, 20, 10, 300, 252.14),
    Rk4nRow(2, 30, 15, 300, 170.71),
    Rk4nRow(2, 50, 20, 300, 121.21),
    Rk4nRow(3, 50, 20, 300, 176.66),
    Rk4nRow(3, 20, 10, 300, 374.01),
    Rk4nRow(3, 20, 10, 1000, 350.12),
    Rk4nRow(3, 20, 10, 5000, 225.36),
]


def rk4n(row: Rk4nRow, page_writes_per_s: float = RK4N_WRITES_PER_S) -> Summary:
    """`stress --vm N --vm-bytes 512M` on the one vCPU of a 2 GB guest that is zero elsewhere."""
    return simulate(
        Config(
            vm=VmConfig(memory="2GiB", vcpus=1, zero_percent=99.9 - 25 * row.workers),
            workload=SequentialConfig(
                working_set=f"{512 * row.workers}MiB",
                page_writes_per_s=page_writes_per_s,
                threads=row.workers,
            ),
            link=LinkConfig(bandwidth=117.5e6),
            migration=MigrationConfig(
                version="qemu_2_6",
                cpu_throttle_initial=row.initial,
                cpu_throttle_increment=row.increment,
                downtime_limit=row.downtime_limit_ms,
            ),
            tracking=TrackingConfig(mode="kvm_legacy"),
        )
    ).summary


LAW_LINK_GB_PER_S = 15.0
LAW_POINTS = [  # D in GB/s, x and y in ms: the law's worked points, and some on its other side
    (2.4, 250, 300),
    (2.6, 250, 300),
    (2.7, 250, 300),
    (7.5, 250, 490),
    (7.5, 250, 510),
    (7.5, 250, 2000),
    (7.5, 10, 11),
    (7.5, 10, 12),
    (7.5, 10, 300),
    (14.0, 10, 300),
    (14.4, 10, 300),
    (14.6, 10, 300),
]


def law_converges(dirty_gb_per_s: float, sync_ms: float, downtime_ms: float) -> bool:
    """The sync-time law: B of link, D dirtied, x of a sync, y of downtime (qemu-devel, Dec 2025)."""
    b, d, x, y = LAW_LINK_GB_PER_S, dirty_gb_per_s, sync_ms, downtime_ms
    if x > 100 - 100 * d / b:
        return y > b * x / (b - d)
    return y > 100 * d * x / ((b - d) * (100 - x))


def with_long_syncs(dirty_gb_per_s: float, sync_ms: float, downtime_ms: int) -> Config:
    """A writer that dirties D bytes a second, each page once a round; syncs of x ms; no throttle."""
    return Config(
        vm=VmConfig(memory="32GiB"),
        workload=SequentialConfig(
            working_set_percent=90.0, page_writes_per_s=dirty_gb_per_s * 1e9 / 4096, threads=1
        ),
        link=LinkConfig(
            bandwidth=LAW_LINK_GB_PER_S * 1e9,
            page_header_bytes=0,
            page_cost_ns=0,
            wakeup_latency_us=0,
        ),
        migration=MigrationConfig(auto_converge=False, downtime_limit=downtime_ms),
        tracking=replace(FREE_EAGER, misaligned_ms=sync_ms),
        limit=LimitConfig(simulated="10min"),
    )
