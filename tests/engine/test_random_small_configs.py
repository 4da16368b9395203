"""Does each random small config end in a result that the audit finds clean, or in ConfigError?

GPUSIM_AUDIT=1 audits every run. One config in ten is cut inside a sync as well, and one in ten runs
on numba too. The output of a test names the config that failed.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from gpusim import BackendConfig, Config, ConfigError, Result, evacuate, simulate
from tests.engine.random_configs import make_config

BLOCK, BLOCKS = 250, 10
WALL = "2s"  # some of the hostile limits never come


def run(config: Config) -> list[Result] | None:
    """Return the results of all migrations of a config, or None if it cannot be simulated."""
    try:
        if config.evacuation is not None:
            return [guest.result for guest in evacuate(config).guests]
        last = simulate(config)
    except ConfigError:
        return None
    return [*(attempt.result for attempt in last.before), last]


def are_whole(results: list[Result]) -> bool:
    """Return whether no limit of the wall clock has cut the runs."""
    return {result.summary.status for result in results} == {"ok"}


def records(results: list[Result]) -> list[Any]:
    return [(r.syncs, r.events, r.samples, r.pass_ends_s) for r in results]


def cut_inside_a_sync(config: Config, results: list[Result]) -> None:
    """Run a config again with a limit inside a sync, and expect the same syncs up to there."""
    syncs = [sync for sync in results[0].syncs if sync.kind != "final" and sync.duration_ms > 0.01]
    if config.attempts or config.evacuation is not None or not syncs:
        return
    sync = syncs[len(syncs) // 2]
    shorter = deepcopy(config)
    shorter.limit.simulated = sync.time_s + sync.duration_ms / 2000
    (cut,) = run(shorter) or [None]
    assert cut is not None
    if not are_whole([cut]):
        return
    assert cut.syncs[:-1] == results[0].syncs[: len(cut.syncs) - 1]


def run_configs(numbers: range) -> None:
    for number in numbers:
        print(f"make_config({number})")
        config = make_config(number)
        if getattr(config.limit, "wall", "") is None:
            config.limit.wall = WALL
        results = run(config)
        if results is None or not are_whole(results):
            continue
        if number % 10 == 1:
            cut_inside_a_sync(config, results)
        if number % 10 == 2:
            on_numba = deepcopy(config)
            on_numba.backend = BackendConfig(name="numba", threads=config.backend.threads)
            others = run(on_numba)
            assert others is not None
            assert records(others) == records(results) or not are_whole(others)


def test_a_few_random_configs() -> None:
    run_configs(range(30))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(BLOCKS))
def test_many_random_configs(block: int) -> None:
    pytest.importorskip("numba", reason="numba is not installed")
    run_configs(range(BLOCK * block, BLOCK * (block + 1)))
