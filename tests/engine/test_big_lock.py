"""Does everything that needs QEMU's big lock wait for the thread that empties dirty rings?

The thread holds the lock for about a second and sleeps for a second. Its holds come from the journal of
the run, and who waits for them is computed here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from gpusim import Result, TrackingConfig, WriterConfig, simulate
from gpusim.units import NS_PER_S
from tests.engine.scenarios import FREE_EAGER, config

RING = replace(FREE_EAGER, mode="dirty_ring", protect_ns_per_page=6000)
BASE: dict[str, Any] = {
    "workload": WriterConfig(working_set="1GiB", page_writes_per_s=3e5),
    "throttle_trigger_threshold": 100,
    "bandwidth": "80MB/s",
    "max_bandwidth": 0,
    "downtime_limit": 1,
    "limit_s": 90,
}


def run(
    schedule: Iterable[dict[str, Any]] = (), tracking: TrackingConfig = RING, **changes: Any
) -> Result:
    base = config("4GiB", tracking=tracking, **{**BASE, **changes})
    return simulate(replace(base, schedule=list(schedule)))


def holds_s(found: Result) -> list[tuple[float, float]]:
    """Return when the thread takes the lock and when it gives the lock back."""
    assert found.journal is not None
    firsts_ns = [
        (hold.first_ns + i * hold.every_ns, hold.held_ns)
        for hold in found.journal.reaper_holds
        for i in range(hold.number)
    ]
    return [(from_ns / NS_PER_S, (from_ns + held_ns) / NS_PER_S) for from_ns, held_ns in firsts_ns]


def times_s(found: Result, event: str) -> list[float]:
    return [e.time_s for e in found.events if e.event == event]


@pytest.mark.parametrize(
    ("action", "event"),
    [
        ({"set": {"max_bandwidth": 10**9}}, "qmp_enter_migrate_set_parameters"),
        ({"do": "pause"}, "vm_state_notify"),
        ({"do": "cancel"}, "qmp_enter_migrate_cancel"),
    ],
    ids=["set", "pause", "cancel"],
)
def test_management_waits_until_the_thread_releases_the_lock(
    action: dict[str, Any], event: str
) -> None:
    from_s, until_s = holds_s(run())[3]
    found = run([{"at": (from_s + until_s) / 2, **action}])
    assert until_s - from_s > 0.5
    assert times_s(found, event)[0] == pytest.approx(until_s, abs=1e-6)


def test_management_acts_at_once_while_the_thread_sleeps() -> None:
    (_, from_s), (until_s, _) = list(pairwise(holds_s(run())))[3]
    found = run([{"at": (from_s + until_s) / 2, "set": {"max_bandwidth": 10**9}}])
    event = "qmp_enter_migrate_set_parameters"
    assert times_s(found, event) == pytest.approx([(from_s + until_s) / 2], abs=1e-6)


def test_a_hold_counts_once_although_the_vm_is_paused_in_it() -> None:
    """The VM stops when the hold is over. What comes after the resume waits for no rest of it."""
    from_s, until_s = holds_s(run())[3]
    again_s = until_s + 0.2
    pause = {"at": (from_s + until_s) / 2, "do": "pause"}
    setting = {"at": again_s, "set": {"max_bandwidth": 10**9}}
    found = run([pause, {"at": again_s, "do": "resume"}, setting])
    assert times_s(found, "vm_state_notify") == pytest.approx([until_s, again_s], abs=1e-6)
    assert times_s(found, "qmp_enter_migrate_set_parameters")[0] == pytest.approx(again_s)
    assert found.summary.paused_s == pytest.approx(0.2, abs=1e-6)


def test_a_tick_that_does_not_sync_waits_too() -> None:
    """In the first pass the fallback timer only ticks. Each late tick makes all later ones late."""
    found = run(limit_s=120, fallback_sync_interval="1050ms")
    exact_s = next(sync.time_s for sync in found.syncs if sync.kind == "exact")
    busy = sorted([
        *holds_s(found),
        *((s.time_s, s.time_s + s.duration_ms / 1000) for s in found.syncs if s.kind == "exact"),
    ])  # fmt: skip
    tick_s, late, after_exact = 0.0, 0, 0
    while after_exact < 2:  # the first tick after a sync of the migration thread sees it, and waits
        tick_s = int((tick_s + 1e-9) * 1000) / 1000 + 1.05
        for from_s, until_s in busy:
            if from_s <= tick_s < until_s:
                tick_s, late = until_s, late + 1
        after_exact += tick_s >= exact_s
    first = next(sync for sync in found.syncs if sync.kind == "fallback")
    assert late > 5
    assert first.time_s == pytest.approx(tick_s, abs=1e-6)


def test_the_throttle_waits_until_the_thread_releases_the_lock() -> None:
    """A vCPU that should wake in a hold sleeps on, unless its sleep needs no big lock."""
    throttled = {
        "throttle_trigger_threshold": 1,
        "cpu_throttle_initial": 90,
        "max_cpu_throttle": 90,
        "fallback_sync_interval": "never",
    }
    tracking = replace(RING, protect_ns_per_page=9000)
    stalls_ms = [
        run(tracking=tracking, version=version, **throttled).summary.longest_vcpu_stall_ms
        for version in ("what_if_tick_outside_lock", "qemu_9_2")
    ]
    assert stalls_ms[0] == pytest.approx(90, abs=0.1)
    assert stalls_ms[1] > 200
