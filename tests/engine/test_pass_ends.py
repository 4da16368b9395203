"""Does a pass end exactly when the sender's cursor wraps?"""

from __future__ import annotations

from itertools import pairwise

import pytest

from gpusim import (
    Config,
    LinkConfig,
    TrackingConfig,
    VmConfig,
    WorkloadConfig,
    WriterConfig,
    simulate,
)
from gpusim.config.backend import choose_backend
from gpusim.config.scenario import resolve
from gpusim.engine.migration import Migration
from tests.engine.scenarios import FREE_EAGER, FREE_LAZY, config

PAGES = 2**18  # of 1 GiB
PAGE_BYTES = 4096 + 8
FAST = WriterConfig(working_set="512MiB", page_writes_per_s=1e5)


@pytest.mark.parametrize("tracking", [FREE_EAGER, FREE_LAZY], ids=["eager", "lazy"])
@pytest.mark.parametrize("version", ["qemu_9_1", "qemu_9_2"])
def test_the_first_pass_sends_every_page_once(version: str, tracking: TrackingConfig) -> None:
    """Every page is dirty, so each takes the same time and nothing else takes time."""
    result = simulate(
        config(
            "1GiB",
            FAST,
            bandwidth=50_000_000,
            tracking=tracking,
            version=version,
            max_bandwidth=0,
            fallback_sync_interval=None,
            downtime_limit=10,
        )
    )
    assert result.pass_ends_s[0] == pytest.approx(PAGES * PAGE_BYTES / 50_000_000, abs=1e-6)


def test_a_later_pass_sends_the_written_pages_once() -> None:
    """In the second pass every page of the lower half is dirty, and none of the upper half."""
    made = config(
        "1GiB",
        WriterConfig(working_set="512MiB", page_writes_per_s=1e7),
        bandwidth=50_000_000,
        limit_s=100,
        version="qemu_9_1",
        auto_converge=False,
        max_bandwidth=0,
    )
    ends_s = simulate(made).pass_ends_s
    assert len(ends_s) > 5
    for end_s, next_s in pairwise(ends_s):
        assert next_s - end_s == pytest.approx(PAGES // 2 * PAGE_BYTES / 50_000_000, abs=1e-6)


RUNS: dict[str, Config] = {
    "eager": config(workload=WriterConfig(working_set="2GiB", page_writes_per_s=1e5)),
    "lazy": config(
        workload=WriterConfig(working_set="2GiB", page_writes_per_s=1e5), tracking=FREE_LAZY
    ),
    "a sleep in every window": config(max_bandwidth=50_000_000),
    "no rate limit": config("1GiB", bandwidth="1Gbit/s", max_bandwidth=0),
    "zero pages": Config(
        vm=VmConfig(memory="2GiB", zero_percent=40),
        workload=WriterConfig(working_set="512MiB", start="1GiB", page_writes_per_s=3e4),
        link=LinkConfig(bandwidth="500Mbit/s"),
    ),
    "idle": config(workload=WorkloadConfig()),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_passes_of_syncs_agree_with_the_pass_ends(name: str) -> None:
    """The bitmap counts the pass of a sync, and the sender's clock gives the pass ends."""
    scenario = resolve(RUNS[name])
    migration = Migration(scenario, choose_backend(scenario))
    result = migration.run()
    ends_s = result.pass_ends_s
    assert ends_s == sorted(ends_s)
    assert all(0 < end_s <= result.summary.total_time_s for end_s in ends_s)
    for one, next_ in pairwise(result.syncs):  # a pass may end at the time of a sync
        inside = [end_s for end_s in ends_s if one.time_s < end_s < next_.time_s]
        at_most = [end_s for end_s in ends_s if one.time_s <= end_s <= next_.time_s]
        assert len(inside) <= next_.pass_number - one.pass_number <= len(at_most)
    last = result.syncs[-1]
    behind = sum(end_s > last.time_s for end_s in ends_s)
    assert behind <= len(ends_s) - (last.pass_number - 1) <= behind + 1
    if name != "idle":
        assert len(ends_s) > 1
    assert migration.reason is not None
    if migration.reason.code == "converged":
        assert migration.reason.data["passes"] == len(ends_s) + 1
