"""Do vCPUs run as long as in a loop that kicks them one by one and hands the big lock from one to the next?

The loop is written from QEMU's cpu_throttle_timer_tick and cpu_throttle_thread. It knows no mean vCPU.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpusim import VmConfig, WriterConfig, simulate
from gpusim.guest.run_time import TIMESLICE_NS, TickCost, slice_ns
from gpusim.units import NS_PER_US
from tests.engine.scenarios import config

TICKS = 300


def run_share(vcpus: int, kick_us: float, turn_us: float, percent: int) -> float:
    """Return the share of time in which the vCPUs run, tick by tick."""
    period_ns, sleep_ns = slice_ns(percent)
    awake_ns = np.zeros(vcpus)  # when each wakes, and clears its flag
    run_ns, tick_ns = 0.0, 0.0
    for _ in range(TICKS):
        asked_ns = tick_ns
        queue = []
        for vcpu in range(vcpus):
            if awake_ns[vcpu] <= asked_ns:
                asked_ns += kick_us * NS_PER_US
                run_ns += asked_ns - awake_ns[vcpu]
                queue.append(vcpu)
        tick_ns = asked_ns + period_ns
        for vcpu in queue:
            asked_ns += turn_us * NS_PER_US
            awake_ns[vcpu] = asked_ns + sleep_ns
    run_ns += np.maximum(0, tick_ns - awake_ns).sum()
    return run_ns / vcpus / tick_ns


@pytest.mark.parametrize("percent", [20, 50, 90, 99])
@pytest.mark.parametrize(
    ("vcpus", "kick_us", "turn_us"),
    [
        (4, 3.5, 3.7),
        (512, 3.5, 3.7),
        (512, 2, 12),
        (512, 5, 35),
        (512, 4.6, 54),
        (96, 2, 135),
        (96, 6, 1),
    ],
)
def test_the_mean_vcpu_runs_as_long_as_vcpus_that_queue(
    vcpus: int, kick_us: float, turn_us: float, percent: int
) -> None:
    cost = TickCost(vcpus=vcpus, kick_ns=kick_us * NS_PER_US, turn_ns=turn_us * NS_PER_US)
    period_ns, sleep_ns = cost.slice_ns(percent)
    expected = run_share(vcpus, kick_us, turn_us, percent)
    assert (period_ns - sleep_ns) / period_ns == pytest.approx(expected, rel=0.06)


# What studies/big_lock_turns.c measured on two cores, 2026-11-29: vCPUs, throttle, time of a kick and
# of a turn in us, and the share of time in which the vCPUs ran in percent.
MEASURED = [
    (96, 90, 3.76, 3.58, 9.84),
    (512, 90, 3.13, 3.41, 9.42),
    (512, 20, 3.86, 3.86, 70.64),
    (512, 50, 4.78, 35.67, 32.18),
    (512, 99, 4.64, 36.99, 20.83),
    (512, 99, 4.90, 54.35, 28.31),
    (256, 99, 4.75, 90.75, 24.68),
]


@pytest.mark.parametrize(("vcpus", "percent", "kick_us", "turn_us", "ran_percent"), MEASURED)
def test_the_mean_vcpu_runs_as_long_as_was_measured(
    vcpus: int, percent: int, kick_us: float, turn_us: float, ran_percent: float
) -> None:
    cost = TickCost(vcpus=vcpus, kick_ns=kick_us * NS_PER_US, turn_ns=turn_us * NS_PER_US)
    period_ns, sleep_ns = cost.slice_ns(percent)
    assert 100 * (1 - sleep_ns / period_ns) == pytest.approx(ran_percent, rel=0.12)


@pytest.mark.parametrize("percent", [1, 20, 99])
def test_without_a_cost_slices_are_those_of_qemu(percent: int) -> None:
    assert TickCost(vcpus=512).slice_ns(percent) == slice_ns(percent)


def test_kicks_alone_make_the_period_longer_and_the_slice_too() -> None:
    """A vCPU writes until its own kick, and the next tick is armed after all kicks."""
    period_ns, sleep_ns = TickCost(vcpus=100, kick_ns=1000).slice_ns(90)
    assert period_ns == slice_ns(90)[0] + 100_000
    assert period_ns - sleep_ns == pytest.approx(TIMESLICE_NS + 50_500, abs=2)


def test_the_keys_change_what_the_guest_loses() -> None:
    throttled = {
        "throttle_trigger_threshold": 1,
        "cpu_throttle_initial": 99,
        "max_cpu_throttle": 99,
        "downtime_limit": 1,
        "limit_s": 60,
    }
    guest = WriterConfig(working_set="1GiB", page_writes_per_s=2e5)
    lost_s = []
    for kick_us, turn_us in ((0.0, 0.0), (0.0, 10.0), (5.0, 50.0)):
        base = config("4GiB", guest, bandwidth="100MB/s", max_bandwidth=0, **throttled)
        base.vm = VmConfig(
            memory="4GiB",
            vcpus=512,
            timer_latency_us=0,
            kick_us_per_vcpu=kick_us,
            big_lock_us_per_vcpu=turn_us,
        )
        summary = simulate(base).summary
        assert summary.max_throttle_percent == 99
        assert summary.verdict == "time_limit"
        lost_s.append(summary.guest_cpu_lost_s)
    assert lost_s[2] < 0.8 * lost_s[0] < lost_s[0] < lost_s[1]
