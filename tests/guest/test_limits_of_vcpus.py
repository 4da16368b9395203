"""Do memory bandwidth and uneven vCPUs slow the right writes?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpusim import (
    Config,
    SequentialConfig,
    TrackingConfig,
    VmConfig,
    WithoutReplacementConfig,
    WriterConfig,
    simulate,
)
from gpusim.config.scenario import resolve
from gpusim.config.schema import WorkloadConfig
from gpusim.errors import ConfigError
from gpusim.guest.faults import Protection
from gpusim.guest.guest import Guest
from gpusim.guest.pace import CpuBound, Pace, Paced
from gpusim.guest.pattern import Sequential, uniform
from gpusim.guest.placement import contiguous
from gpusim.guest.run_time import RunTime
from gpusim.guest.windows import OnOff, Windows
from gpusim.guest.writer import Writer
from gpusim.layout import Layout
from gpusim.units import NS_PER_S

PAGES, CHUNKS = 10_000, 1
WANTED, TAKEN = 1e6, 4e5  # page writes per second of the vCPUs, and those that the memory takes


def writer(pace: Pace | None = None, windows: Windows | None = None) -> Writer:
    return Writer(
        name="w",
        pattern=uniform(PAGES),
        pace=pace or CpuBound(WANTED),
        placement=contiguous(0, PAGES),
        windows=windows,
        throttled=True,
        vcpus=4,
        memory_rate=TAKEN,
    )


def rate(guest: Guest, one: Writer, from_s: int = 10, until_s: int = 20) -> float:
    """Return the page writes per second between two syncs."""
    done = []
    for at_s in (from_s, until_s):
        guest.settle(at_s * NS_PER_S, np.full(CHUNKS, -1))
        now = np.array([at_s * NS_PER_S])
        done.append(
            float(
                one.writes(now, guest.faults.clocks[0], guest.faults.mark_before(int(now[0]), 0))[0]
            )
        )
    return (done[1] - done[0]) / (until_s - from_s)


@pytest.mark.parametrize("percent", [0, 20, 50, 60, 70, 90, 99])
@pytest.mark.parametrize("cost_ns", [0.0, 1000.0])
def test_a_throttle_slows_it_only_from_where_the_vcpus_want_less(
    percent: int, cost_ns: float
) -> None:
    """The rate is the lower of both. First writes count only where the vCPUs are the limit."""
    run_time, one = RunTime(), writer()
    if percent:
        run_time.throttle(0, percent)
    guest = Guest(Layout([PAGES]), [one], run_time, Protection(cost_ns=cost_ns))
    faults = PAGES / 10  # per second, as each sync comes after 10 s
    busy_share = 1 - percent / 100 - faults * cost_ns * 1e-9 / one.vcpus
    assert rate(guest, one) == pytest.approx(min(TAKEN, WANTED * busy_share), rel=1e-3)


def test_a_limit_that_is_never_reached_changes_nothing() -> None:
    results = []
    for limit in (None, 1e9):
        one = replace(writer(), memory_rate=limit)
        guest = Guest(Layout([PAGES]), [one], RunTime(), Protection(cost_ns=500.0, serial_ns=300.0))
        results.append((rate(guest, one), guest.faults.count))
    assert results[0] == results[1]


def test_the_limit_holds_in_on_times_only() -> None:
    for period_ns in (4 * NS_PER_S, NS_PER_S // 10):  # with and without a stop at each edge
        one = writer(windows=OnOff(period_ns, period_ns, 0.0))
        guest = Guest(Layout([PAGES]), [one], RunTime(), Protection())
        assert rate(guest, one, 8, 16) == pytest.approx(TAKEN / 2, rel=1e-6)


def test_a_paced_writer_catches_up_no_faster_than_the_memory() -> None:
    one = writer(Paced(5e5, 1e6))
    guest = Guest(Layout([PAGES]), [one], RunTime(), Protection())
    assert rate(guest, one) == pytest.approx(TAKEN, rel=1e-6)


def test_a_guest_that_the_memory_limits_loses_no_work_to_a_low_throttle() -> None:
    for percent, lost_share in ((50, 0.0), (80, 0.5)):
        run_time, one = RunTime(), writer()
        run_time.throttle(0, percent)
        guest = Guest(Layout([PAGES]), [one], run_time, Protection())
        guest.settle(10 * NS_PER_S, np.full(CHUNKS, -1))
        lost_s = guest.lost_vcpu_s(10 * NS_PER_S)
        assert lost_s == pytest.approx(10 * one.vcpus * lost_share, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("taken", [4e5, TAKEN, 1e9])
def test_the_idle_time_of_a_paced_writer_is_no_loss(taken: float) -> None:
    one = replace(writer(Paced(2e5, 1e6)), memory_rate=taken)
    guest = Guest(Layout([PAGES]), [one], RunTime(), Protection())
    guest.settle(10 * NS_PER_S, np.full(CHUNKS, -1))
    assert guest.lost_vcpu_s(10 * NS_PER_S) == pytest.approx(0, abs=1e-6)


def resolved(workload: WorkloadConfig) -> tuple[Writer, ...]:
    return resolve(Config(vm=VmConfig("1GiB", vcpus=8), workload=workload)).writers


def test_groups_of_vcpus_share_the_writes_and_the_pages() -> None:
    writers = resolved(
        WriterConfig(
            working_set="64MiB", page_writes_per_s=1e5, vcpu_groups=[[12.5, 40], [87.5, 60]]
        )
    )
    assert [(one.vcpus, one.pace.top_rate) for one in writers] == [(1, 4e4), (7, 6e4)]
    assert writers[0].runs() == writers[1].runs()


def test_a_fast_vcpu_spends_more_of_its_time_in_first_writes() -> None:
    """Each vCPU solves n / rate + cost x its faults = time. A naive loop over time agrees."""
    cost_ns, groups = 20_000.0, [(1.0, 3e4), (3.0, 1e4)]  # vCPUs and writes per second
    writers = [
        replace(writer(CpuBound(rate_)), vcpus=vcpus, memory_rate=None) for vcpus, rate_ in groups
    ]
    guest = Guest(Layout([PAGES]), writers, RunTime(), Protection(cost_ns=cost_ns))
    guest.settle(NS_PER_S, np.full(CHUNKS, -1))
    now = np.array([NS_PER_S])
    found = [float(w.writes(now, c)[0]) for w, c in zip(writers, guest.faults.clocks, strict=True)]
    clean, done, step_s = 1.0, [0.0, 0.0], 1e-4
    for _ in range(round(1 / step_s)):
        rates = [r / (1 + r * cost_ns * 1e-9 * clean / vcpus) for vcpus, r in groups]
        done = [total + one * step_s for total, one in zip(done, rates, strict=True)]
        clean *= np.exp(-sum(rates) * step_s / PAGES)
    assert found == pytest.approx(done, rel=0.02)  # progress is a straight line between two syncs
    assert found[0] / 3e4 < found[1] / 1e4 - 0.05


def test_sequential_threads_are_shared_out_by_the_vcpus() -> None:
    writers = resolved(
        SequentialConfig(working_set="64MiB", threads=8, page_writes_per_s=1e5, first_write=0,
                         vcpu_groups=[[25, 50], [75, 50]])
    )  # fmt: skip
    patterns = [one.pattern for one in writers]
    assert all(isinstance(pattern, Sequential) for pattern in patterns)
    assert [(p.pages, p.threads) for p in patterns] == [(4096, 2), (12288, 6)]  # type: ignore[union-attr]
    assert [one.runs() for one in writers] == [[(0, 4096)], [(4096, 16384)]]


def test_even_groups_are_the_writer_without_groups() -> None:
    base = WriterConfig(working_set="64MiB", page_writes_per_s=1e4)
    found = []
    for workload in (base, replace(base, vcpu_groups=[[50, 50], [50, 50]])):
        config = Config(
            vm=VmConfig("256MiB", vcpus=8),
            workload=workload,
            tracking=TrackingConfig(mode="kvm_legacy"),
        )
        result = simulate(config)
        found.append([sync.newly_dirty_pages for sync in result.syncs])
    assert np.array(found[0]) == pytest.approx(np.array(found[1]), rel=0.01, abs=5)


@pytest.mark.parametrize(
    ("workload", "code"),
    [
        (WriterConfig(working_set="1MiB", vcpu_groups=[[50, 40], [50, 50]]), "contradiction"),
        (WriterConfig(working_set="1MiB", vcpu_groups=[[0, 50], [100, 50]]), "out_of_range"),
        (WriterConfig(working_set="1MiB", vcpu_groups=[]), "out_of_range"),
        (WriterConfig(working_set="1MiB", vcpu_groups=[3]), "wrong_format"),
        (WriterConfig(working_set="1MiB", vcpu_groups=[[9, 100]]), "contradiction"),
        (
            WriterConfig(working_set="1MiB", vcpu_groups=[[100, 100]], throttled=False),
            "contradiction",
        ),
        (WithoutReplacementConfig(working_set="1MiB", vcpu_groups=[[100, 100]]), "contradiction"),
        (
            SequentialConfig(working_set="1MiB", threads=1, vcpu_groups=[[50, 50], [50, 50]]),
            "contradiction",
        ),
        (WriterConfig(working_set="1MiB", memory_page_writes_per_s=0), "out_of_range"),
        (
            WriterConfig(working_set="1MiB", memory_page_writes_per_s=1, throttled=False),
            "contradiction",
        ),
    ],
)
def test_what_contradicts_is_refused(workload: WorkloadConfig, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(workload)
    assert caught.value.code == code
