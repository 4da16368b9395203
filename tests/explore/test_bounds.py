"""A user's bounds: what keeps them, and the first change with which a guest does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpusim import (
    Config,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    VmConfig,
    WriterConfig,
    simulate,
)
from gpusim.config.schema import BackendConfig
from gpusim.engine.records import Summary
from gpusim.explore.bounds import NO_BOUNDS, Bounds
from gpusim.explore.bounds_search import find_change
from gpusim.explore.run_pool import RunPool


def guest(page_writes_per_s: float = 5e4, **migration: Any) -> Config:
    """Return a VM of 1 GiB on 1 Gbit/s, which sends 3e4 pages a second."""
    return Config(
        vm=VmConfig(memory="1GiB", vcpus=2),
        workload=WriterConfig(working_set="512MiB", page_writes_per_s=page_writes_per_s),
        link=LinkConfig(bandwidth="1Gbit/s", non_ram_downtime_ms=20),
        migration=MigrationConfig(**migration),
        limit=LimitConfig(simulated="10min"),
    )


def ran(config: Config) -> Summary:
    return simulate(replace(config, backend=BackendConfig(name="numpy"))).summary


def changed(now: Config, bounds: Bounds, later: Config | None = None) -> Any:
    with RunPool(0) as pool:
        return find_change(now, later or now, bounds, pool=pool)


def test_bounds_are_kept_up_to_their_value() -> None:
    summary = ran(guest(1e3))
    assert summary.verdict == "converged"
    bounds = Bounds(total_time_s=summary.total_time_s, guest_cpu_lost_percent=1.0)
    assert bounds.excess(summary) == 0
    assert bounds.keeps(summary, "total_time_s")
    tight = replace(bounds, total_time_s=summary.total_time_s / 2)
    assert tight.excess(summary) == pytest.approx(1)
    assert not tight.keeps(summary, "total_time_s")
    assert tight.keeps(summary, "guest_cpu_lost_percent")
    assert bool(bounds) and not NO_BOUNDS
    stuck = replace(summary, verdict="not_converged")
    assert bounds.excess(stuck) == float("inf")
    assert not bounds.keeps(stuck, "guest_cpu_lost_percent")


def test_the_downtime_limit_to_set_counts_what_it_leaves_out() -> None:
    """QEMU's limit does not count what follows RAM. 20 ms do, so 80 ms allow 60 at most."""
    found = changed(guest(), Bounds(downtime_ms=80.0))
    key, _, value = found.settings.partition("=")
    assert key == "migration.downtime_limit"
    assert 0 < int(value) <= 60
    assert found.outcome.downtime_ms <= 80
    assert found.for_p95_guest


def test_the_throttle_limit_to_set_for_a_stall() -> None:
    """A throttle of p percent sleeps 10 ms * p / (100 - p): 40 ms are 80 %, and wake-ups come late."""
    now = guest(page_writes_per_s=6e4, cpu_throttle_initial=99)
    assert ran(now).longest_vcpu_stall_ms == pytest.approx(990, rel=1e-3)
    found = changed(now, Bounds(longest_vcpu_stall_ms=40.0))
    assert found.settings == "migration.max_cpu_throttle=79 migration.cpu_throttle_initial=79"
    assert found.outcome.longest_vcpu_stall_ms <= 40


def test_what_is_free_comes_first() -> None:
    found = changed(guest(auto_converge=False), Bounds(total_time_s=300.0))
    assert found.settings == "migration.auto_converge=true"


def test_a_change_for_each_bound_if_none_keeps_all() -> None:
    bounds = Bounds(total_time_s=9.0, longest_vcpu_stall_ms=5.0, downtime_ms=40.0)
    found = changed(guest(page_writes_per_s=2e5), bounds)
    assert found.outcome is None
    assert found.tried > 10
    assert set(found.for_one) <= {name for name, _ in bounds.items()}
    assert "link.bandwidth" in found.for_one["total_time_s"]


def test_the_median_guest_is_asked_if_no_change_is_enough_for_the_other() -> None:
    hard = replace(guest(), vm=VmConfig(memory="1TiB", vcpus=2))
    bounds = Bounds(total_time_s=25.0, guest_cpu_lost_percent=5.0)
    assert ran(guest()).total_time_s > 25
    found = changed(guest(), bounds, hard)
    assert not found.for_p95_guest
    assert found.outcome is not None
    assert bounds.excess(found.outcome) == 0
    assert changed(guest(), bounds, hard).settings == found.settings


def test_the_downtime_of_a_switch_to_post_copy_is_what_the_guest_feels() -> None:
    """The source reports the time until the package is sent. The guest starts later."""
    summary = ran(guest(postcopy_ram=True, start_postcopy="1pass"))
    assert summary.downtime_ms is not None and summary.postcopy_blackout_ms is not None
    most = (summary.downtime_ms + summary.postcopy_blackout_ms) / 2
    assert not Bounds(downtime_ms=most).keeps(summary, "downtime_ms")
    assert Bounds(downtime_ms=summary.postcopy_blackout_ms).keeps(summary, "downtime_ms")
