"""Does a sync of dirty rings find about one second of writes, and who waits for the reaper?

The expected figures come from the closed form W (1 - exp(-n / W)) of distinct pages, second by second.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from gpusim import Result, TrackingConfig, WriterConfig, simulate
from gpusim.guest.reaper import first_wake_ns
from gpusim.units import NS_PER_S
from tests.engine.scenarios import FREE_EAGER, config

PAGES, WRITES_PER_S, RESET_NS = 2**18, 3e5, 900
RING = replace(
    FREE_EAGER,
    mode="dirty_ring",
    log_sync_ns_per_gib=5e6,
    merge_ns_per_gib=7e6,
    protect_ns_per_page=RESET_NS,
)
GUEST = WriterConfig(working_set="1GiB", page_writes_per_s=WRITES_PER_S)
NEVER_THROTTLED: dict[str, Any] = {
    "workload": GUEST,
    "throttle_trigger_threshold": 100,
    "bandwidth": "80MB/s",
    "max_bandwidth": 0,
    "downtime_limit": 1,
    "limit_s": 120,
}


def run(tracking: TrackingConfig = RING, **changes: Any) -> Result:
    return simulate(config("4GiB", tracking=tracking, **{**NEVER_THROTTLED, **changes}))


def pages_after(time_s: float) -> float:
    return -PAGES * math.expm1(-WRITES_PER_S * time_s / PAGES)


def second_by_second(found: Result, seed: int) -> tuple[list[float], list[float]]:
    """Return how long each sync protects pages, and each hold of the reaper, in seconds."""
    protects, holds = [], []
    empty_s, wake_s = 0.0, first_wake_ns(seed) / 1e9
    for sync in [*found.syncs, None]:
        while wake_s <= (sync.time_s if sync else found.summary.total_time_s):
            holds.append(RESET_NS / 1e9 * pages_after(wake_s - empty_s))
            empty_s, wake_s = wake_s, wake_s + holds[-1] + 1
        if sync is None:
            break
        if sync.kind != "setup":
            protects.append(RESET_NS / 1e9 * pages_after(sync.time_s - empty_s))
            empty_s = sync.time_s
        wake_s = max(wake_s, sync.time_s + sync.duration_ms / 1000)
    return protects, holds


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_sync_protects_what_was_written_since_the_last_reap(seed: int) -> None:
    """The reaper empties the rings each second, and holds the big lock for that."""
    found = run(seed=seed)
    kinds = [sync.kind for sync in found.syncs]
    assert kinds.count("fallback") > 5
    assert kinds.count("exact") == 1
    assert found.summary.max_throttle_percent == 0
    protects, holds = second_by_second(found, seed)
    parts_s = 4 * (0.005 + 0.007)
    lasting = [sync.duration_ms / 1000 - parts_s for sync in found.syncs[1:]]
    assert lasting == pytest.approx(protects, rel=1e-3, abs=1e-4)
    assert max(protects) < RESET_NS / 1e9 * pages_after(1.25)
    assert len(holds) > 10
    held_s = found.summary.main_loop_stall_s - sum(s.duration_ms for s in found.syncs) / 1000
    assert held_s == pytest.approx(sum(holds), abs=0.2)  # the last one may be cut


def test_without_a_reaper_the_sync_protects_all_that_was_written() -> None:
    legacy = run(replace(RING, mode="kvm_legacy"))
    ring = run()
    assert legacy.syncs[1].duration_ms > 1.3 * ring.syncs[1].duration_ms


def test_a_sync_waits_until_the_reaper_releases_the_lock() -> None:
    """If the reaper holds the lock most of the time, then syncs begin when a hold ends."""
    behind = set[str]()
    for seed in (1, 2, 3):
        result = run(replace(RING, protect_ns_per_page=9000), seed=seed)
        assert result.journal is not None
        ends_s = [
            (hold.first_ns + i * hold.every_ns + hold.held_ns) / NS_PER_S
            for hold in result.journal.reaper_holds
            for i in range(hold.number)
        ]
        behind |= {
            sync.kind
            for sync in result.syncs
            if any(sync.time_s == pytest.approx(end_s, abs=1e-6) for end_s in ends_s)
        }
    assert {"fallback", "exact"} <= behind


@pytest.mark.parametrize("ends", [[], [{"at": 20, "do": "cancel"}]], ids=["converges", "cancel"])
def test_the_reaper_releases_the_lock_although_the_vm_is_paused(ends: list[dict[str, Any]]) -> None:
    """A pause that is ordered inside a hold begins at its end."""
    ring = replace(RING, protect_ns_per_page=9000)
    before = run(ring).journal
    assert before is not None
    hold = before.reaper_holds[2]
    pause = {"at": (hold.first_ns + hold.held_ns / 2) / NS_PER_S, "do": "pause"}
    base = config("4GiB", tracking=ring, **NEVER_THROTTLED)
    found = simulate(replace(base, schedule=[pause, *ends]))
    assert found.summary.verdict == ("cancelled" if ends else "converged")
    assert found.summary.sync_stall_s < 10


def test_a_sync_of_rings_waits_for_vcpus_then_reaps_then_merges() -> None:
    """The wait, the reading and the merging add up. Under TCG vCPUs are waited for at the end."""
    free = replace(RING, protect_ns_per_page=0)
    natural_s = run(free, auto_converge=False).syncs[1].time_s
    sleeps = [[natural_s - 0.1, natural_s + 0.03]]
    ring, tcg = (
        run(replace(free, mode=mode, recorded_sleeps=sleeps), auto_converge=False)
        for mode in ("dirty_ring", "tcg")
    )
    assert ring.syncs[1].duration_ms == pytest.approx(30 + 4 * 12, abs=1e-3)
    assert tcg.syncs[1].duration_ms == pytest.approx(4 * 12, abs=1e-3)
    late = [[natural_s + 0.04, natural_s + 0.9]]
    ring, tcg = (
        run(replace(free, mode=mode, recorded_sleeps=late), auto_converge=False)
        for mode in ("dirty_ring", "tcg")
    )
    assert ring.syncs[1].duration_ms == pytest.approx(4 * 12, abs=1e-3)
    assert tcg.syncs[1].duration_ms == pytest.approx(900, abs=1e-3)


def test_a_fallback_sync_of_rings_waits_first_too() -> None:
    free = replace(RING, protect_ns_per_page=0)
    tick_s = next(sync.time_s for sync in run(free).syncs if sync.kind == "fallback")
    found = run(replace(free, recorded_sleeps=[[tick_s - 0.1, tick_s + 0.6]]))
    sync = next(sync for sync in found.syncs if sync.kind == "fallback")
    assert sync.time_s == tick_s
    assert sync.duration_ms == pytest.approx(600 + 4 * 12, abs=1e-3)


def test_the_seed_draws_the_phase_of_the_reaper() -> None:
    first = {first_wake_ns(seed) for seed in range(100)}
    assert len(first) == 100
    assert 0 < min(first) < 0.1 * NS_PER_S
    assert 0.9 * NS_PER_S < max(first) <= NS_PER_S
    assert run(seed=1).syncs == run(seed=1).syncs
    assert run(seed=1).syncs != run(seed=2).syncs
