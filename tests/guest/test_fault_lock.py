"""Do vCPUs that write at once wait for each other, as measured and as a naive queue does?"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from gpusim import Config, TrackingConfig
from gpusim.config.scenario import resolve
from gpusim.guest.faults import Protection
from gpusim.guest.guest import Guest
from gpusim.guest.pace import CpuBound, Paced, Recorded
from gpusim.guest.pattern import Random, Sequential, hot_cold, uniform
from gpusim.guest.placement import contiguous
from gpusim.guest.run_time import RunTime
from gpusim.guest.writer import Writer
from gpusim.layout import Layout
from gpusim.units import NS_PER_S

PAGES = 64_000
LAYOUT = Layout([PAGES])
NOTHING_CLEARED = np.full(LAYOUT.chunks, -1, np.int64)
ENDLESS = 1e11  # page writes per second of a vCPU that does nothing but first writes
HALF = Protection(cost_ns=100_000, serial_ns=50_000)
# Time of a first write in ns by the number of vCPUs, each with its own memory: Jing Zhang, "ARM64:
# Guest performance improvement during dirty logging", v2, 2022-01-18, milliseconds over 2^19 pages.
MS_EXCLUSIVE = {1: 926, 2: 1189, 4: 2503, 8: 5069, 16: 10340, 32: 20351, 64: 40994}
MS_SHARED = {1: 803, 2: 843, 4: 942, 8: 1458, 16: 2853, 32: 5886, 64: 12190}
# David Matlack, "Extend Eager Page Splitting to the shadow MMU", v2, 2022-03-11, ept=Y,
# eager_page_split=N, seconds over 2^18 pages.
S_SPLITTING = {2: 0.3108, 4: 0.4192, 8: 1.0612, 16: 2.8530, 32: 7.0328, 64: 16.5013}


def writer(
    pattern: Random | Sequential, rate: float, vcpus: float, *, start: int = 0, pages: int = PAGES
) -> Writer:
    return Writer(
        name="w",
        pattern=pattern,
        pace=CpuBound(rate),
        placement=contiguous(start, pages),
        windows=None,
        throttled=True,
        vcpus=vcpus,
    )


def run(writers: Sequence[Writer], protection: Protection, until_ns: int) -> Guest:
    guest = Guest(LAYOUT, writers, RunTime(), protection)
    guest.settle(until_ns, NOTHING_CLEARED)
    return guest


def written(writers: Sequence[Writer], guest: Guest, at_ns: int) -> list[float]:
    now = np.array([at_ns])
    return [float(w.writes(now, c)[0]) for w, c in zip(writers, guest.faults.clocks, strict=True)]


def cost_of_a_fault_ns(vcpus: int, protection: Protection) -> float:
    """Return the time of a fault of vCPUs that do nothing but first writes."""
    fast = writer(Sequential(PAGES, vcpus, 0), ENDLESS * vcpus, vcpus)
    alone_ns = protection.split_cost_ns if protection.splits else protection.cost_ns
    until_ns = round(0.5 * PAGES / vcpus * alone_ns)
    guest = run([fast], protection, until_ns)
    return until_ns * vcpus / guest.faults.count


@pytest.mark.parametrize(
    ("table", "unit_ns", "least", "most"),
    [
        (MS_EXCLUSIVE, 1e6 / 2**19, 0.98, 1.08),
        (MS_SHARED, 1e6 / 2**19, 0.85, 1.07),
        # The lock's part grows with the vCPUs that wait, so few vCPUs are too expensive.
        (S_SPLITTING, 1e9 / 2**18, 0.99, 2.5),
    ],
)
def test_one_and_64_vcpus_give_the_numbers_between(
    table: dict[int, float], unit_ns: float, least: float, most: float
) -> None:
    alone_ns, serial_ns = table[min(table)] * unit_ns, table[64] * unit_ns / 64
    protection = Protection(cost_ns=alone_ns, serial_ns=serial_ns)
    for vcpus, measured in table.items():
        ours = cost_of_a_fault_ns(vcpus, protection)
        assert ours == pytest.approx(max(alone_ns, serial_ns * vcpus), rel=1e-3)
        assert least < ours / (measured * unit_ns) < most


@pytest.mark.parametrize(
    ("eager", "measured_s"), [(True, 0.14), (False, 2.94)], ids=["split beforehand", "not split"]
)
def test_96_vcpus_need_what_the_commit_of_eager_page_splitting_measured(
    eager: bool, measured_s: float
) -> None:
    """96 vCPUs wrote 2^18 pages each (Linux a3fe5dbda0a4): 534 ns and 11.2 us per page."""
    scenario = resolve(Config(tracking=TrackingConfig(eager_page_split=eager)))
    protection = replace(scenario.tracking.protection, lazy=False, from_start=True)
    cost_ns, serial_ns = protection.cost_ns, protection.serial_ns
    if not eager:
        cost_ns, serial_ns = protection.split_cost_ns, protection.split_serial_ns
    ours_ns = cost_of_a_fault_ns(96, protection)
    assert ours_ns == pytest.approx(max(cost_ns, serial_ns * 96), rel=1e-3)
    assert ours_ns == pytest.approx(measured_s * 1e9 / 2**18, rel=0.02)


def queue_writes(vcpus: int, rate: float, protection: Protection, until_ns: int) -> int:
    """Return the writes of vCPUs that each write at random, with a lock that is first come, first
    served. A naive queue.
    """
    random = np.random.default_rng(1)
    protected, lock_free_ns, count = np.ones(PAGES, bool), 0.0, 0
    events = [(float(random.exponential(NS_PER_S / rate)), i, False) for i in range(vcpus)]
    heapq.heapify(events)
    while events[0][0] < until_ns:
        now, vcpu, at_lock = heapq.heappop(events)
        if at_lock:
            now = lock_free_ns = max(now, lock_free_ns) + protection.serial_ns
        else:
            count += 1
            page = random.integers(PAGES)
            if protected[page]:
                protected[page] = False
                parallel_ns = protection.cost_ns - protection.serial_ns
                heapq.heappush(events, (now + parallel_ns, vcpu, True))
                continue
        heapq.heappush(events, (now + float(random.exponential(NS_PER_S / rate)), vcpu, False))
    return count


@pytest.mark.parametrize(
    ("vcpus", "most"), [(1, 1.01), (2, 1.06), (3, 1.15), (4, 1.04), (12, 1.01)]
)
def test_a_queue_is_a_little_slower(vcpus: int, most: float) -> None:
    """The law is the bound of a queue: it is too fast where the lock is just busy."""
    rate, until_ns = 20_000.0, NS_PER_S // 3
    queue = queue_writes(vcpus, rate, HALF, until_ns)
    ours = [writer(uniform(PAGES), rate * vcpus, vcpus)]
    found = written(ours, run(ours, HALF, until_ns), until_ns)[0]
    assert 0.99 < found / queue < most


def test_two_halves_of_a_writer_write_as_the_whole() -> None:
    until_ns, pattern = NS_PER_S, hot_cold(PAGES, 8_000, 0.6)
    whole = [writer(pattern, 4e5, 8)]
    halves = [writer(pattern, 2e5, 4)] * 2
    quarters = [writer(pattern, 1e5, 2)] * 4
    one = written(whole, run(whole, HALF, until_ns), until_ns)[0]
    assert one < 0.5 * 4e5  # they wait
    for parts in (halves, quarters):
        found = written(parts, run(parts, HALF, until_ns), until_ns)
        assert found == pytest.approx([one / len(parts)] * len(parts), rel=1e-6)


@pytest.mark.parametrize("until_ms", [1, 300, 30_000])
@pytest.mark.parametrize("reaped", [True, False])
def test_useful_time_faults_and_waits_add_up(until_ms: int, reaped: bool) -> None:
    ours = [
        writer(uniform(40_000), 3e5, 6, pages=40_000),
        writer(Sequential(24_000, 3, 5), 2e5, 4, start=40_000, pages=24_000),
    ]
    until_ns = until_ms * 1_000_000
    guest = run(ours, replace(HALF, reaped=reaped), until_ns)
    now = np.array([until_ns])
    useful_ns = sum(
        w.writing_vcpus * float(c.at(now)[0])
        for w, c in zip(ours, guest.faults.clocks, strict=True)
    )
    assert [w.writing_vcpus for w in ours] == [6, 3]
    assert guest.faults.time_s * NS_PER_S + useful_ns == pytest.approx(9 * until_ns, rel=1e-6)
    assert guest.faults.count * HALF.serial_ns <= until_ns * (1 + 1e-6)


def test_one_vcpu_waits_for_nobody() -> None:
    """Equal to the bit, whatever the lock takes."""
    until_ns = NS_PER_S
    for one in (writer(uniform(PAGES), 1e6, 1), writer(Sequential(PAGES, 1, 3), 1e6, 8)):
        found = [
            written([one], run([one], replace(HALF, serial_ns=serial_ns), until_ns), until_ns)
            for serial_ns in (0.0, HALF.serial_ns, HALF.cost_ns)
        ]
        assert found[0] == found[1] == found[2]


def test_writers_that_do_not_wait() -> None:
    """A paced writer with spare time does all its work. A recorded one has its record."""
    calm = replace(writer(uniform(PAGES), 1.0, 8), pace=Paced(3_000, 8e5))
    guest = run([calm], HALF, NS_PER_S)
    assert written([calm], guest, NS_PER_S) == pytest.approx([3_000])
    assert guest.faults.time_s == pytest.approx(guest.faults.count * HALF.cost_ns / NS_PER_S)
    record = Recorded(np.array([0.0, 9.0]), np.array([0.0, 9e6]), 1e6)
    recorded = replace(calm, pace=record)
    beside = writer(uniform(PAGES), 1e5, 4)
    both = [recorded, beside]
    found = written(both, run(both, HALF, NS_PER_S), NS_PER_S)
    assert found[0] == pytest.approx(1e6)
    assert 0 < found[1] < 1e5
