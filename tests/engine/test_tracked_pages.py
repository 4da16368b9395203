"""Does a write mark the whole page that KVM tracks, and what follows from it?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from gpusim import (
    Config,
    ConfigError,
    LinkConfig,
    MixConfig,
    Result,
    SequentialConfig,
    TrackingConfig,
    VmConfig,
    WorkloadConfig,
    WriterConfig,
    simulate,
)
from gpusim.config.backend import EXPECTED
from gpusim.config.scenario import resolve
from gpusim.engine.attempts import simulate_scenario
from tests.engine.scenarios import FREE_EAGER, config

HUGE = replace(FREE_EAGER, page_size="16MiB")
PAGES = 4096  # of 4 KiB in a huge page
CALM = WriterConfig(working_set="3GiB", page_writes_per_s=400)


def migration(workload: WorkloadConfig, tracking: TrackingConfig, **more: Any) -> Config:
    return config("4GiB", workload, tracking=tracking, **more)


def code_of(tracking: dict[str, Any], **keys: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        resolve(Config(tracking=TrackingConfig(**tracking), **keys))
    assert raised.value.key == "tracking.page_size"
    assert "\n" not in str(raised.value)
    return raised.value.code


def test_a_sync_finds_whole_huge_pages() -> None:
    """The first pass is over, so everything that it finds is newly dirty. 192 huge pages."""
    result = simulate(migration(CALM, HUGE, auto_converge=False, limit_s=60))
    first = next(sync for sync in result.syncs if sync.newly_dirty_pages)
    assert first.newly_dirty_pages % PAGES == 0
    huge, mean = 192, 400 * first.time_s / 192
    share = -math.expm1(-mean)
    found = first.newly_dirty_pages / PAGES
    assert abs(found - huge * share) < 5 * math.sqrt(huge * share * (1 - share)) + 1
    assert 0 < result.summary.write_faults <= huge * len(result.syncs)


def test_huge_pages_turn_the_verdict() -> None:
    """400 page writes per second are 1.6 MB/s in small pages, and up to 6.7 GB/s in huge ones."""
    small = simulate(migration(CALM, FREE_EAGER, auto_converge=False, limit_s=120)).summary
    huge = simulate(migration(CALM, HUGE, auto_converge=False, limit_s=120)).summary
    assert (small.verdict, huge.verdict) == ("converged", "time_limit")
    assert huge.remaining_bytes > 1e9
    assert small.total_time_s < 25


def test_the_tracked_page_may_be_the_target_page() -> None:
    runs = [simulate(migration(CALM, replace(FREE_EAGER, page_size=size))) for size in (None, 4096)]
    assert runs[0].syncs == runs[1].syncs


@pytest.mark.parametrize("workload", [
    CALM,
    SequentialConfig(working_set="2GiB", page_writes_per_s=4e4, threads=3),
    replace(CALM, granule="4MiB", page_writes_per_s=40),
])  # fmt: skip
@pytest.mark.parametrize("size", ["64KiB", "16MiB"])
def test_a_dry_run_takes_nearly_the_same_decisions(workload: WriterConfig, size: str) -> None:
    run = migration(workload, replace(FREE_EAGER, page_size=size), limit_s=90)
    scenario = resolve(run)
    expected = simulate_scenario(scenario, EXPECTED).summary
    drawn = simulate(run).summary
    assert expected.verdict == drawn.verdict
    # A dry run spreads a sequential writer's pages over their chunk.
    error = 0.25 if isinstance(workload, SequentialConfig) else 0.1
    assert expected.total_time_s == pytest.approx(drawn.total_time_s, rel=error)
    assert expected.write_faults == pytest.approx(drawn.write_faults, rel=error)


def test_protecting_costs_once_per_huge_page() -> None:
    def setup_ms(result: Result) -> float:
        return result.syncs[0].duration_ms

    small, huge = (
        simulate(
            migration(CALM, replace(tracking, start_ns_per_page=1000.0, split_ns_per_page=1000.0))
        )
        for tracking in (FREE_EAGER, HUGE)
    )
    assert setup_ms(small) == pytest.approx(2**20 / 1000)
    assert setup_ms(huge) == pytest.approx(256 / 1000)


def test_what_cannot_be_tracked_so_is_refused() -> None:
    legacy = {"mode": "kvm_legacy", "page_size": "16MiB"}
    for mode in ("kvm_manual", "dirty_ring", "tcg"):
        assert code_of({**legacy, "mode": mode}) == "contradiction"
    for size in ("3MiB", "2GiB", 1000, 0):
        assert code_of({**legacy, "page_size": size}) == "out_of_range"
    assert code_of({**legacy, "page_size": "sixteen"}) == "wrong_format"
    assert code_of(legacy, vm=VmConfig(memory="1000MiB")) == "does_not_fit_vm"
    many = {**legacy, "page_size": "8KiB"}
    assert code_of(many, vm=VmConfig(memory="1TiB")) == "out_of_range"
    device = WriterConfig(working_set="1GiB", throttled=False)
    assert code_of(legacy, workload=MixConfig(writers={"nic": device})) == "contradiction"
    assert resolve(Config(tracking=TrackingConfig(**legacy), link=LinkConfig()))
