"""Is an estimate what the run over bitmaps finds, and does it take fewer steps?"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from gpusim import (
    Config,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    MixConfig,
    TrackingConfig,
    VmConfig,
    WriterConfig,
    simulate,
)
from gpusim.config.backend import EXPECTED
from gpusim.config.scenario import resolve
from gpusim.engine.migration import Migration
from gpusim.engine.records import Result
from gpusim.explore.estimate import SMALL_BYTES, estimate
from gpusim.sender.sender import Sender

WORKLOAD = MixConfig(
    writers={
        "hot": {"pattern": "uniform", "working_set": "2GiB", "page_writes_per_s": 2e5, "vcpus": 3},
        "log": {
            "pattern": "sequential",
            "working_set": "8GiB",
            "start": "8GiB",
            "page_writes_per_s": 6e4,
            "vcpus": 2,
        },
    }
)
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "old": {"migration": {"version": "qemu_8_2"}},
    "eager": {"tracking": {"mode": "kvm_legacy"}},
    "multifd": {"migration": {"multifd_channels": 4}, "link": {"bandwidth": "20Gbit/s"}},
    "rate_limit": {"migration": {"max_bandwidth": 900_000_000}},
    "no_convergence": {"migration": {"auto_converge": False}},
    "link_changes": {"link": {"changes": [["20s", "3Gbit/s"], ["50s", "8Gbit/s"]]}},
    "zero_ranges": {"vm": {"zero_ranges": [["20GiB", "24GiB"]], "zero_percent": 0}},
    "clears_cost": {"tracking": {"remote_clear_us": 2_000.0}},
}


def config(name: str) -> Config:
    parts = CASES[name]
    return Config(
        vm=VmConfig(**{"memory": "32GiB", "vcpus": 8, "zero_percent": 30, **parts.get("vm", {})}),
        workload=WORKLOAD,
        link=LinkConfig(**{"bandwidth": "8Gbit/s", **parts.get("link", {})}),
        migration=MigrationConfig(
            **{
                "version": "qemu_9_2",
                "auto_converge": True,
                "max_bandwidth": 0,
                **parts.get("migration", {}),
            }
        ),
        tracking=TrackingConfig(**{"first_write_cost_ns": 1200, **parts.get("tracking", {})}),
        limit=LimitConfig(simulated="600s"),
    )


def takes_of(monkeypatch: pytest.MonkeyPatch, run: Any) -> tuple[Result, int]:
    """Return a run, and how many takes its sender took."""
    takes = 0
    take = Sender._take

    def counted(*args: Any) -> Any:
        nonlocal takes
        takes += 1
        return take(*args)

    with monkeypatch.context() as patched:
        patched.setattr(Sender, "_take", counted)
        return run(), takes


@pytest.mark.parametrize("name", CASES)
def test_an_estimate_is_the_run_in_fewer_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = config(name)
    quick, few = takes_of(monkeypatch, lambda: estimate(own))
    exact, many = takes_of(monkeypatch, lambda: simulate(own))
    found, wanted = quick.summary, exact.summary
    assert found.verdict == wanted.verdict
    # In 40 s chance decides whether a pass more is needed. The first pass has no such step.
    assert found.total_time_s == pytest.approx(wanted.total_time_s, rel=0.08)
    assert found.first_pass_s == pytest.approx(wanted.first_pass_s, rel=0.01)
    assert found.transferred_bytes == pytest.approx(wanted.transferred_bytes, rel=0.08)
    assert abs(found.max_throttle_percent - wanted.max_throttle_percent) <= 10
    if name not in ("rate_limit", "zero_ranges"):  # the exact run sends equal windows there
        assert few < many / 2


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"rate_limit"}))  # takes long in small steps
def test_larger_steps_change_little(name: str) -> None:
    """Without chance: both runs expect the numbers of pages."""
    scenario = resolve(config(name))
    runs = []
    for is_estimate in (False, True):
        with closing(Migration(scenario, EXPECTED, is_estimate=is_estimate)) as migration:
            runs.append(migration.run().summary)
    wanted, found = runs
    assert found.verdict == wanted.verdict
    assert found.total_time_s == pytest.approx(wanted.total_time_s, rel=0.02)
    assert found.first_pass_s == pytest.approx(wanted.first_pass_s, rel=0.003)


def test_a_small_vm_is_simulated_over_bitmaps() -> None:
    own = replace(
        config("plain"),
        vm=VmConfig(memory=SMALL_BYTES, vcpus=8),
        workload=WriterConfig(working_set="1GiB"),
    )
    quick, exact = (
        replace(one.summary, wall_time_s=0.0, process_peak_rss_bytes=0)
        for one in (estimate(own), simulate(own))
    )
    assert quick == exact


def test_work_ends_an_estimate() -> None:
    own = config("plain")
    found = estimate(own, most_steps=50).summary
    assert (found.status, found.reason_code) == ("incomplete", "wall_limit")
