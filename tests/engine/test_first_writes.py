"""Do first writes appear in the result, and does their cost slow the guest?"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from gpusim import (
    Config,
    Result,
    SequentialConfig,
    TrackingConfig,
    WorkloadConfig,
    WriterConfig,
    simulate,
)
from tests.engine.scenarios import FREE_EAGER, FREE_LAZY, config

PAGES = 2**18  # of the working set, 1 GiB
RATE = 2e5
WRITER = WriterConfig(working_set="1GiB", page_writes_per_s=RATE)


def never_done(workload: WorkloadConfig, tracking: TrackingConfig, **changes: Any) -> Config:
    """Return a migration that cannot converge and stops after half a minute."""
    settings = {"auto_converge": False, "max_bandwidth": 90_000_000, "limit_s": 30, **changes}
    return config("2GiB", workload, tracking=tracking, **settings)


def expected(result: Result, cost_s: float = 0.0) -> float:
    """Return the first writes of a uniform guest if every sync protects all pages."""
    edges = [sync.time_s for sync in result.syncs] + [result.summary.total_time_s]
    faults = 0.0
    for since_s, until_s in pairwise(edges):
        low, high = 0.0, RATE * (until_s - since_s)
        for _ in range(100):
            writes = (low + high) / 2
            first = PAGES * -math.expm1(-writes / PAGES)
            late = writes / RATE + cost_s * first > until_s - since_s
            low, high = (low, writes) if late else (writes, high)
        faults += first
    return faults


@pytest.mark.parametrize("cost_ns", [0.0, 2000.0])
def test_eager_faults_are_the_pages_written_between_syncs(cost_ns: float) -> None:
    result = simulate(never_done(WRITER, replace(FREE_EAGER, first_write_cost_ns=cost_ns)))
    assert result.summary.write_faults == pytest.approx(expected(result, cost_ns / 1e9), abs=1)
    assert result.summary.guest_fault_s == pytest.approx(
        result.summary.write_faults * cost_ns / 1e9, rel=1e-6
    )


def test_nothing_is_protected_before_a_chunks_first_clear() -> None:
    """With INITIALLY_SET no page faults before a clear. Without it each page faults once."""
    slow_link = {"max_bandwidth": 1_000_000, "limit_s": 1}  # clears the first chunk only
    second_chunk = replace(WRITER, start="1GiB")
    set_first = simulate(never_done(second_chunk, FREE_LAZY, **slow_link))
    protected = simulate(
        never_done(second_chunk, replace(FREE_LAZY, initially_set=False), **slow_link)
    )
    assert set_first.summary.write_faults == 0
    assert protected.summary.write_faults == pytest.approx(
        PAGES * -math.expm1(-RATE / PAGES), abs=1
    )


def test_faults_slow_a_guest_and_let_it_converge_earlier() -> None:
    """Faults of 10 us take half of its time. Without them the guest needs a throttle."""
    free, slow = (
        simulate(config("2GiB", SequentialConfig(working_set="1GiB", page_writes_per_s=RATE, threads=1),
                        tracking=replace(FREE_EAGER, first_write_cost_ns=cost_ns)))
        for cost_ns in (0.0, 10_000.0)
    )  # fmt: skip
    assert free.summary.max_throttle_percent > 0
    assert slow.summary.max_throttle_percent < free.summary.max_throttle_percent
    assert slow.summary.total_time_s < free.summary.total_time_s
    awake_s = slow.samples[-1].guest_run_s
    assert 0.4 * awake_s < slow.summary.guest_fault_s < 0.7 * awake_s


def test_a_paused_vm_does_not_fault() -> None:
    base = never_done(WRITER, replace(FREE_EAGER, first_write_cost_ns=2000))
    paused = simulate(replace(base, schedule=[{"at": 0.5, "do": "pause"}]))
    running = simulate(replace(base, limit=replace(base.limit, simulated=0.5)))
    assert paused.summary.paused_s > 20
    assert paused.summary.guest_fault_s == pytest.approx(running.summary.guest_fault_s, rel=1e-3)
