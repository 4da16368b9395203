"""Runs by name, one for each way in which a migration can end or look unusual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from typing import Any

from gpusim import Config, LinkConfig, MigrationConfig
from gpusim.config.compose import composed_config
from gpusim.engine.attempts import simulate
from gpusim.engine.records import Alternative, Result
from tests.results.conftest import FakeMigration

TIB = 2**40


def fake(**fields: Any) -> Result:
    return FakeMigration(**fields).run()


def ended_at_once() -> Result:
    made = fake(vm_bytes=2**24, working_set_bytes=0)
    end = replace(made.samples[0], time_s=0.05, remaining_bytes=0, guest_run_s=0.05)
    summary = replace(made.summary, total_time_s=0.05)
    return Result(summary=summary, syncs=made.syncs[:1], samples=[made.samples[0], end])


def incomplete() -> Result:
    made = fake(vm_bytes=TIB, working_set_bytes=0.25 * TIB, write_rate=3e9, link_rate=1.25e9)
    reason = "the wall-clock limit was reached, " * 20 + "no verdict"
    stopped = {"status": "incomplete", "verdict": None, "downtime_ms": None, "reason": reason}
    return replace(made, summary=replace(made.summary, **stopped))


def outruns_the_link() -> Result:
    """Return a run with thirty times more newly dirty than sent, for a logarithmic axis."""
    made = fake(link_rate=1e8, write_rate=1.5e8)
    syncs = [
        replace(sync, bytes_dirty_period=sync.bytes_dirty_period and 30 * sync.bytes_dirty_period)
        for sync in made.syncs
    ]
    return replace(made, syncs=syncs)


def nothing_sent() -> Result:
    made = fake(link_rate=1e8, write_rate=1.5e8)
    none = {"bytes_dirty_period": 0, "bytes_xfer_period": 0}
    return replace(made, syncs=[replace(sync, **none) for sync in made.syncs])


POSTCOPY = (
    "vm.memory=64MiB",
    "vm.vcpus=4",
    "migration=qemu_10_2",
    "backend.name=numpy",
    "link.bandwidth=100Mbit/s",
    "workload=uniform",
    "workload.working_set_percent=30",
    "workload.page_writes_per_s=20000",
    "limit.simulated=60s",
    "migration.postcopy_ram=true",
    "migration.start_postcopy=throttle_20",
)


@cache
def switched(*overrides: str) -> Result:
    """Return a run of the engine that switches to post-copy after 10 s."""
    return simulate(composed_config([*POSTCOPY, *overrides]))


RUNS: dict[str, Callable[[], Result]] = {
    "converged": lambda: fake(link_rate=1e8, write_rate=1.5e8),
    "never_throttled_no_fallback": lambda: fake(working_set_bytes=0, fallback_s=1e18),
    "not_converged": lambda: fake(write_rate=1e12, working_set_bytes=2.0**29, link_rate=5e7),
    "time_limit": lambda: fake(
        vm_bytes=8 * TIB, working_set_bytes=2.0 * TIB, write_rate=1e12, limit_s=1500.0
    ),
    "a_thousand_passes": lambda: fake(
        fallback_s=1e18, write_rate=1e12, auto_converge=False, max_syncs=1000
    ),
    "ended_at_once": ended_at_once,
    "incomplete": incomplete,
    "outruns_the_link": outruns_the_link,
    "nothing_sent": nothing_sent,
    "one_sample": lambda: replace(ended_at_once(), samples=ended_at_once().samples[:1]),
    "no_time": lambda: replace(
        ended_at_once(), summary=replace(ended_at_once().summary, total_time_s=0.0)
    ),
}


CONFIG: dict[str, Any] = asdict(
    Config(
        link=LinkConfig(bandwidth="1Gbit/s"),
        migration=MigrationConfig(max_bandwidth="64MiB/s", downtime_limit=400),
    )
)
ALTERNATIVES = [
    Alternative(
        key="link.bandwidth",
        value="15Gbit/s",
        outcome="converges",
        total_time_s=1234.0,
        downtime_ms=250.0,
        max_throttle_percent=40,
        guest_cpu_lost_percent=12.5,
    ),
    Alternative(key="migration.downtime_limit", value="30000", outcome="does_not"),
    Alternative(key="migration.version", value="qemu_9_2", outcome="not_tried"),
]
