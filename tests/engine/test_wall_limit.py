"""Does the wall-clock limit end a run between two writers, and leave a consistent result?

The clock of these tests goes on by one with each question, so no test measures time.
"""

from __future__ import annotations

import itertools
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from gpusim import (
    Config,
    ConfigError,
    LimitConfig,
    MixConfig,
    SequentialConfig,
    TrackingConfig,
    WriterConfig,
)
from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.engine.audit import audit
from gpusim.engine.migration import Migration
from gpusim.engine.records import Result
from gpusim.wall_limit import WallLimit, WallLimitReachedError
from tests.engine.scenarios import config


def clock() -> Any:
    """Return a clock that goes on by one with each question."""
    return itertools.count().__next__


def run(scenario: Any, limit: WallLimit) -> Result:
    with closing(Migration(scenario, choose_backend(scenario), limit=limit)) as migration:
        return migration.run()


def writers(count: int) -> MixConfig:
    return MixConfig(
        writers={
            f"w{n}": WriterConfig(working_set="8MiB", start=f"{8 * n}MiB", page_writes_per_s=2e3)
            for n in range(count)
        }
    )


WORKLOADS: dict[str, Any] = {
    "writers": writers(4),
    "threads": SequentialConfig(working_set="64MiB", page_writes_per_s=2e4, threads=4),
}


@pytest.mark.parametrize("mode", ["kvm_manual", "tcg", "dirty_ring"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_limit_may_end_a_run_anywhere(workload: str, mode: str) -> None:
    """The audit holds wherever the run ends."""
    tracking = TrackingConfig(mode=mode, first_write_cost_ns=2000, listeners_ms=20)
    base = config(
        "256MiB",
        workload=WORKLOADS[workload],
        max_bandwidth=20_000_000,
        limit_s=20,
        tracking=tracking,
        fallback_sync_interval="1s",
    )
    scenario = resolve(base)
    whole = WallLimit(10**9, clock())
    verdict = run(scenario, whole).summary.verdict
    asked = whole._now_ns()
    assert asked > 50
    for limit_ns in {*range(12), *range(12, asked - 1, 1 + asked // 25)}:
        found = run(scenario, WallLimit(limit_ns, clock()))
        assert (found.summary.status, found.summary.reason_code) == ("incomplete", "wall_limit")
        assert found.summary.verdict is None and verdict is not None
        assert not audit(found), limit_ns


def test_a_run_without_a_limit_asks_once() -> None:
    """The start of the limit is the only question."""
    asked = clock()
    run(resolve(config("256MiB", workload=writers(2), limit_s=1)), WallLimit(None, asked))
    assert asked() == 1


def test_a_run_asks_once_for_each_writer() -> None:
    """Many writers cannot make a run late: each question is one writer's work later."""
    few, many = (count_questions(writers(count)) for count in (2, 20))
    assert many > 5 * few


def count_questions(workload: MixConfig) -> int:
    scenario = resolve(config("256MiB", workload=workload, limit_s=1))
    limit = WallLimit(10**9, clock())
    run(scenario, limit)
    return int(limit._now_ns())


def test_checking_a_config_ends_too() -> None:
    base: Config = replace(
        config("256MiB", workload=writers(20)), limit=LimitConfig(simulated=1, wall=5e-9)
    )
    with pytest.raises(ConfigError) as caught:
        resolve(base, now_ns=clock())
    assert (caught.value.key, caught.value.code) == ("limit.wall", "too_slow")
    assert len(resolve(base, now_ns=lambda: 0).writers) == 20


def test_a_limit_is_over_after_its_time() -> None:
    limit = WallLimit(1, clock())
    limit.check()
    with pytest.raises(WallLimitReachedError):
        limit.check()
