"""Does state that a migration leaves in the QEMU process change the next migration?

The review of the series found hazards in v3 (qemu-devel, 2024-10-16). The merged code has none.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpusim import (
    AttemptConfig,
    Config,
    MigrationConfig,
    Result,
    TrackingConfig,
    WriterConfig,
    simulate,
)
from tests.engine.scenarios import FREE_EAGER, config

SLOW_SYNC = replace(FREE_EAGER, misaligned_ms=300)
BUSY = WriterConfig(working_set="2GiB", page_writes_per_s=4e5)
LATE = {"at": "100s", "do": "cancel"}  # for attempts whose end does not matter


def attempts(version: str, *found: AttemptConfig, tracking: TrackingConfig = SLOW_SYNC) -> Result:
    """Simulate attempts to migrate a VM whose first pass ends after 21 s."""
    base = config("4GiB", BUSY, version=version, tracking=tracking, limit_s=100)
    return simulate(replace(base, attempts=list(found)))


def fallback_times_s(result: Result) -> list[float]:
    return [sync.time_s for sync in result.syncs if sync.kind == "fallback"]


def cancelled_in_a_tick(version: str) -> dict[str, object]:
    """Return a cancel before the second fallback sync. The thread wakes during that sync."""
    tick_s = fallback_times_s(
        simulate(config("4GiB", BUSY, version=version, tracking=SLOW_SYNC, limit_s=60))
    )[1]
    return {"at": tick_s - 0.02, "do": "cancel"}


def test_v3_starts_its_timer_at_the_first_period_and_the_merged_code_at_the_migration() -> None:
    """v3 syncs 5 s after the first pass. The merged code syncs on the grid of the migration."""
    posted, merged = (
        simulate(config("4GiB", BUSY, version=v, limit_s=60)) for v in ("seed_v3", "qemu_9_2")
    )
    first_pass_s = posted.syncs[1].time_s
    assert first_pass_s == merged.syncs[1].time_s
    # QEMU's timers have milliseconds, so the 5 s start at the whole millisecond.
    assert fallback_times_s(posted)[0] == pytest.approx(first_pass_s + 5, abs=1e-3)
    assert fallback_times_s(merged)[0] == 30.0 > fallback_times_s(posted)[0]


def test_edge_case_20_stale_count_of_v3_fires_at_once_or_late() -> None:
    """A migration cancelled after three syncs leaves 3, so the next waits one tick longer."""
    cancelled = AttemptConfig(schedule=[{"at_sync": 3, "do": "cancel"}])
    second = AttemptConfig(after="30s", schedule=[LATE])
    gaps_s = {}
    for version in ("seed_v3", "seed_v4", "qemu_9_2"):
        found = attempts(version, cancelled, second)
        assert (found.summary.attempt, found.before[0].result.summary.verdict) == (2, "cancelled")
        gaps_s[version] = [
            fallback_times_s(run)[0] - run.syncs[1].time_s
            for run in (found.before[0].result, found)
        ]
    first, again = gaps_s["seed_v3"]
    assert first == pytest.approx(
        5.3, abs=0.01
    )  # the timer starts when the sync of 0.3 s has ended
    assert again == pytest.approx(10.3, abs=0.01)
    assert gaps_s["qemu_9_2"][0] == pytest.approx(gaps_s["qemu_9_2"][1])
    assert gaps_s["seed_v4"][0] == pytest.approx(
        gaps_s["seed_v4"][1]
    )  # its ticks in the first pass correct the count


def test_edge_case_20_a_timer_of_v3_left_active_never_starts_again() -> None:
    """A cancel stops the timer in a tick, whose sync starts it again. The next does not re-arm.

    libvirt switches auto-converge off between migrations, so it never saw the abort.
    """
    for version, runs in (("seed_v3", False), ("qemu_9_2", True)):
        found = attempts(
            version,
            AttemptConfig(schedule=[cancelled_in_a_tick(version)], resets_capabilities=True),
            AttemptConfig(after="10s", schedule=[LATE]),
        )
        assert (found.summary.attempt, found.summary.verdict) == (2, "cancelled")
        assert (found.summary.fallback_sync_count > 0) == runs


def test_edge_case_21_a_zombie_tick_of_v3_aborts_qemu() -> None:
    """v3 stops its timer without the big lock, so a tick in progress arms it for 5 s later."""
    for version, verdict, reason_code in (
        ("seed_v3", "aborted", "aborted_by_leftover_timer"),
        ("qemu_9_2", "cancelled", "cancelled_by_schedule"),
    ):
        base = config("4GiB", BUSY, version=version, tracking=SLOW_SYNC)
        run = simulate(replace(base, schedule=[cancelled_in_a_tick(version)]))
        assert run.summary.verdict == verdict
        assert run.summary.reason_code == reason_code
        assert ("abort" in [event.event for event in run.events]) == (verdict == "aborted")


def test_edge_case_21_a_zombie_tick_of_v3_may_find_the_next_migration() -> None:
    """If the next migration starts within 5 s, QEMU does not abort, and the timer ticks early."""
    found = attempts(
        "seed_v3",
        AttemptConfig(schedule=[cancelled_in_a_tick("seed_v3")]),
        AttemptConfig(after="1s", schedule=[LATE]),
    )
    assert found.summary.attempt == 2
    assert found.before[0].result.summary.verdict == "cancelled"
    gap_s = fallback_times_s(found)[0] - found.syncs[1].time_s
    assert gap_s not in (pytest.approx(5.3, abs=0.02), pytest.approx(10.3, abs=0.02))


def test_edge_case_19_a_throttle_stopped_at_its_tick_leaves_the_vcpus_deaf() -> None:
    """The vCPUs' flag stays set, so no later migration throttles them, although it reports so."""
    link_bound = {"bandwidth": "200MB/s", "max_bandwidth": 0, "limit_s": 100}
    free = FREE_EAGER
    base = config(tracking=free, **link_bound)
    throttled_s = simulate(base).summary.first_throttle_s
    assert throttled_s is not None
    for off_s, deaf in ((0.0, True), (0.001, False)):
        stop = {
            "at": throttled_s + 4 * 0.0125 + off_s,
            "do": "cancel",
        }  # ticks of 20 % come each 12.5 ms
        found = simulate(
            replace(base, attempts=[AttemptConfig(schedule=[stop]), AttemptConfig(schedule=[LATE])])
        )
        assert found.summary.max_throttle_percent > 20
        ran_s = found.samples[-1].guest_run_s
        assert (ran_s == pytest.approx(found.summary.total_time_s)) == deaf
        assert (found.summary.guest_cpu_lost_s == 0) == deaf


def test_edge_case_23_a_migration_cancelled_in_its_first_pass_leaves_no_timer() -> None:
    early = AttemptConfig(schedule=[{"at": "7s", "do": "cancel"}])
    for version in ("seed_v3", "qemu_9_2"):
        found = attempts(version, early, AttemptConfig(after="1s", schedule=[LATE]))
        once = simulate(
            config("4GiB", BUSY, version=version, tracking=SLOW_SYNC, seed=2, limit_s=100)
        )
        assert fallback_times_s(found) == fallback_times_s(once)
        assert found.before[0].result.summary.dirty_sync_count == 1


def test_attempts_end_with_the_first_that_converges_and_equal_runs_alone() -> None:
    """In the merged code a migration does not depend on the one before."""
    base = config("1GiB", limit_s=100)
    calm = replace(base, workload=replace(base.workload, page_writes_per_s=1e3))  # type: ignore[call-arg]
    found = simulate(
        replace(calm, attempts=[AttemptConfig(schedule=[{"at": 2, "do": "cancel"}]), AttemptConfig(), AttemptConfig()])
    )  # fmt: skip
    alone = simulate(replace(calm, seed=2))
    assert (found.summary.attempt, found.summary.verdict, len(found.before)) == (2, "converged", 1)
    assert (found.syncs, found.events) == (alone.syncs, alone.events)


def test_an_attempt_that_gives_up_is_followed_by_the_next() -> None:
    run: Config = config("1GiB", limit_s=5)
    found = simulate(
        replace(run, attempts=[AttemptConfig(), AttemptConfig(migration={"downtime_limit": 2000})])
    )
    assert [a.result.summary.verdict for a in found.before] == ["time_limit"]
    assert isinstance(found.before[0].config.migration, MigrationConfig)


def test_a_timer_of_v2_does_not_start_after_a_migration_that_was_throttled() -> None:
    """The last tick saw a throttle, and the first tick of the next migration sees none (prev_pct)."""
    once = config("4GiB", BUSY, version="seed_v2", tracking=SLOW_SYNC, limit_s=100)
    throttled_s = simulate(once).summary.first_throttle_s
    assert throttled_s is not None
    for cancel_s, syncs in ((throttled_s - 2, True), (throttled_s + 2, False)):
        cancelled = AttemptConfig(schedule=[{"at": cancel_s, "do": "cancel"}])
        found = attempts("seed_v2", cancelled, AttemptConfig(after="30s", schedule=[LATE]))
        assert (found.summary.fallback_sync_count > 0) == syncs


def test_a_timer_of_v2_starts_after_the_setup() -> None:
    """Its tick comes each second from the end of the setup's sync on, which takes 0.3 s."""
    found = simulate(config("4GiB", BUSY, version="seed_v2", tracking=SLOW_SYNC, limit_s=60))
    assert fallback_times_s(found)[0] % 1 == pytest.approx(0.3)


def test_a_zombie_tick_of_v2_aborts_qemu_a_second_later() -> None:
    base = config("4GiB", BUSY, version="seed_v2", tracking=SLOW_SYNC)
    run = simulate(replace(base, schedule=[cancelled_in_a_tick("seed_v2")]))
    assert run.summary.verdict == "aborted"
    assert run.events[-1].time_s == pytest.approx(run.summary.total_time_s + 1, abs=0.01)


@pytest.mark.parametrize(
    ("version", "verdict"), [("seed_v3", "aborted"), ("qemu_9_2", "cancelled")]
)
def test_a_migration_that_fails_in_a_tick_leaves_the_timer_that_a_cancel_leaves(
    version: str, verdict: str
) -> None:
    """The first attempt ends in its fallback sync, and the next one comes too late."""
    first = simulate(config("4GiB", BUSY, version=version, tracking=SLOW_SYNC, limit_s=60))
    ends_s = fallback_times_s(first)[1] + 0.1
    failing = config("4GiB", BUSY, version=version, tracking=SLOW_SYNC, limit_s=ends_s)
    late = {"at": 1, "do": "cancel"}
    found = simulate(
        replace(failing, attempts=[AttemptConfig(), AttemptConfig(after="10s", schedule=[late])])
    )
    assert found.summary.verdict == verdict
    assert found.summary.attempt == (1 if verdict == "aborted" else 2)


def test_a_migration_that_fails_at_a_tick_of_the_throttle_leaves_the_vcpus_deaf() -> None:
    base = config(bandwidth="200MB/s", max_bandwidth=0, limit_s=100)
    throttled_s = simulate(base).summary.first_throttle_s
    assert throttled_s is not None
    for off_s, deaf in ((0.0, True), (0.001, False)):
        ends_s = throttled_s + 4 * 0.0125 + off_s  # ticks of 20 % come each 12.5 ms
        two = [AttemptConfig(), AttemptConfig()]
        failing = replace(base, limit=replace(base.limit, simulated=ends_s), attempts=two)
        found = simulate(failing)
        assert found.summary.verdict == "time_limit"
        assert (found.summary.guest_cpu_lost_s == 0) == deaf
