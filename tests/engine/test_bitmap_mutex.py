"""Does a fallback sync wait for the bitmap's mutex as a thread does that loses it now and then?

The sender frees the mutex between two bursts. If the sync gets it each time with chance p, then it
waits for a geometric number of bursts, and 1 / p on average.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gpusim import Result, TrackingConfig, WriterConfig, simulate
from gpusim.config.scenario import resolve
from tests.engine.scenarios import config

PAGE_MS = 4096 / 2e5  # at 200 MB/s
BURST_MS = (64 * int(51 / PAGE_MS / 64 + 1) + 1) * PAGE_MS  # QEMU reads the clock every 64 pages
GUEST = WriterConfig(working_set="2GiB", page_writes_per_s=4e5)


def run(win_percent: float | None, log_ms: float = 0, **changes: Any) -> Result:
    tracking = TrackingConfig(
        mode="kvm_legacy",
        log_sync_ns_per_gib=log_ms * 1e6 / 4,
        merge_ns_per_gib=0,
        protect_ns_per_page=0,
        first_write_cost_ns=0,
        mutex_win_percent=win_percent,
    )
    settings = {
        "workload": GUEST,
        "bandwidth": "200MB/s",
        "max_bandwidth": 0,
        "fallback_sync_interval": "1s",
        "cpu_throttle_initial": 1,
        "max_cpu_throttle": 1,
        "limit_s": 400,
    }
    return simulate(config("4GiB", tracking=tracking, **{**settings, **changes}))


def waits_ms(found: Result) -> list[float]:
    return [sync.duration_ms for sync in found.syncs if sync.kind == "fallback"]


@pytest.mark.parametrize("percent", [100, 60, 25])
def test_the_number_of_bursts_is_geometric(percent: float) -> None:
    lasting = waits_ms(run(percent))
    bursts = np.ceil(np.array(lasting) / BURST_MS)
    chance, count = percent / 100, len(lasting)
    assert count > 150
    sigma = np.sqrt(1 - chance) / chance / np.sqrt(count)
    assert bursts.mean() == pytest.approx(1 / chance, abs=4 * sigma + 1e-9)
    first = (bursts == 1).mean()
    assert first == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / count) + 1e-9)


def test_a_sender_that_sleeps_leaves_the_mutex_to_the_sync() -> None:
    """At 85 % of the link's rate each window has two bursts of 85 ms together, and then a sleep."""
    lasting = waits_ms(run(0.1, log_ms=30, max_bandwidth=170_000_000, limit_s=100))
    assert len(lasting) > 20
    assert 30 + BURST_MS < max(lasting) < 30 + 90


def test_the_migration_thread_that_waits_for_the_big_lock_holds_no_mutex() -> None:
    """It gets no further than the turn that wants to sync, so the fallback sync merges then."""
    found = run(0.1, limit_s=120)
    pairs = [
        (before.time_s + before.duration_ms / 1000, after.time_s)
        for before, after in pairwise(found.syncs)
        if (before.kind, after.kind) == ("fallback", "exact")
    ]
    assert any(after_s == pytest.approx(end_s, abs=1e-9) for end_s, after_s in pairs)
    assert max(waits_ms(found)) > 20 * BURST_MS


def test_the_seed_decides_who_gets_the_mutex() -> None:
    one, same, other = (run(50, seed=seed, limit_s=60) for seed in (1, 1, 2))
    assert waits_ms(one) == waits_ms(same)
    assert waits_ms(one) != waits_ms(other)


def test_the_chance_depends_on_the_sending_mode() -> None:
    chances = [
        resolve(config("4GiB", tracking=TrackingConfig(), multifd_channels=channels)).tracking
        for channels in (0, 4)
    ]
    assert [tracking.mutex_wins for tracking in chances] == pytest.approx([0.972, 0.077])
