"""Does the seed decide where a guest stands when its migration starts, and can a user fix it?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpusim import Config, LinkConfig, SequentialConfig, VmConfig, WriterConfig, simulate
from gpusim.config.scenario import resolve
from gpusim.config.schema import TrackingConfig, WorkloadConfig
from gpusim.engine.records import Result
from gpusim.guest.pattern import Sequential

BURSTS = {"on_time": 3.0, "off_time": 2.0}
GUESTS = {
    "sequential": SequentialConfig(working_set="64MiB", page_writes_per_s=2e3, threads=1),
    "bursts": WriterConfig(working_set="64MiB", page_writes_per_s=5e3, **BURSTS),
    "drift": WriterConfig(
        working_set="32MiB", page_writes_per_s=5e3, drift_period=3.0, drift_step="16MiB"
    ),
}
FIXED = {
    "sequential": {"first_write": 7},
    "bursts": {"on_off_start_percent": 0},
    "drift": {"drift_start_percent": 50},
}


def config(workload: WorkloadConfig, seed: int) -> Config:
    return Config(
        vm=VmConfig("256MiB"),
        workload=workload,
        link=LinkConfig("100Mbit/s"),
        tracking=TrackingConfig(mode="kvm_legacy"),
        seed=seed,
    )


def found(result: Result) -> list[int]:
    return [sync.newly_dirty_pages for sync in result.syncs]


@pytest.mark.parametrize("name", GUESTS)
def test_three_seeds_are_three_runs(name: str) -> None:
    runs = [found(simulate(config(GUESTS[name], seed))) for seed in (1, 2, 3, 1)]
    assert runs[0] == runs[3]
    assert len({tuple(run) for run in runs[:3]}) == 3


@pytest.mark.parametrize("name", GUESTS)
def test_a_fixed_phase_does_not_depend_on_the_seed(name: str) -> None:
    guest = replace(GUESTS[name], **FIXED[name])
    one, two = (resolve(config(guest, seed)).writers[0] for seed in (1, 2))
    times = np.arange(0, 20 * 10**9, 10**8)
    assert (one.pattern, one.drift) == (two.pattern, two.drift)
    if one.windows is not None:
        assert np.array_equal(one.windows.active_ns(times), two.windows.active_ns(times))


def test_the_position_is_drawn_evenly_over_a_threads_share() -> None:
    """The mean and the spread of 400 seeds are those of an even distribution."""
    positions = []
    for seed in range(400):
        pattern = resolve(config(replace(GUESTS["sequential"], threads=4), seed)).writers[0].pattern
        assert isinstance(pattern, Sequential)
        positions.append(pattern.first_write)
    share = 64 * 256 // 4
    assert min(positions) >= 0
    assert max(positions) < share
    assert np.mean(positions) == pytest.approx(share / 2, rel=5 / (3 * 400) ** 0.5)
    assert np.std(positions) == pytest.approx(share / 12**0.5, rel=0.15)
