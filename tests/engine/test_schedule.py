"""Do actions of a schedule change a running migration as QEMU does?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpusim import Config, ConfigError, Result, TrackingConfig, WriterConfig, simulate
from tests.engine.scenarios import FREE_EAGER, FREE_LAZY, FREE_SYNCS, config


def run(schedule: list[Any], memory: str = "4GiB", **changes: Any) -> Result:
    return simulate(replace(config(memory, **{"limit_s": 120, **changes}), schedule=schedule))


def test_edge_case_22_a_paused_vm_converges_with_neither_throttle_nor_forced_syncs() -> None:
    """VIRTUAL_RT stands still and the guest writes nothing, so one more pass is enough."""
    found = run([{"at": "22s", "do": "pause"}])
    assert found.summary.verdict == "converged"
    assert (found.summary.fallback_sync_count, found.summary.max_throttle_percent) == (0, 0)
    assert found.summary.paused_s == pytest.approx(found.summary.total_time_s - 22, abs=0.5)
    assert found.syncs[-1].newly_dirty_pages == 0


@pytest.mark.parametrize("tracking", [config().tracking, FREE_LAZY])
def test_a_pause_delays_the_timers_and_the_guest_by_its_length(tracking: TrackingConfig) -> None:
    """The sender does not matter here, so everything comes later by the length of the pause."""
    writer = WriterConfig(working_set="1GiB", page_writes_per_s=2e5)
    stalled = {"workload": writer, "bandwidth": "10MB/s", "max_bandwidth": 0, "tracking": tracking}
    base = config(
        "256MiB", **{**stalled, "workload": replace(writer, working_set="128MiB")}, limit_s=90
    )
    calm = simulate(base)
    paused = simulate(
        replace(base, schedule=[{"at": 2, "do": "pause"}, {"at": 4.5, "do": "resume"}])
    )
    grid = [[s.time_s for s in r.syncs if s.kind == "fallback"] for r in (calm, paused)]
    assert [time_s % 5 for time_s in grid[1]] == pytest.approx([2.5] * len(grid[1]), abs=2e-3)
    assert [time_s % 5 for time_s in grid[0]] == pytest.approx([0] * len(grid[0]), abs=2e-3)
    assert paused.samples[-1].guest_run_s < paused.summary.total_time_s - 2.5 + 1e-9
    notified = [e.arguments["running"] for e in paused.events if e.event == "vm_state_notify"]
    assert notified == [0, 1]


def test_a_second_pause_and_a_resume_of_a_running_vm_have_no_effect() -> None:
    twice = [
        {"at": at, "do": do}
        for at, do in ((1, "resume"), (2, "pause"), (3, "pause"), (4, "resume"))
    ]
    once = [twice[1], twice[3]]
    assert run(twice).syncs == run(once).syncs


def test_actions_after_the_end_are_not_done() -> None:
    cancel, late, never = {"at": 5, "do": "cancel"}, {"at": 6, "do": "pause"}, {"at_sync": 99}
    found = run([cancel, late, {**never, "do": "resume"}])
    assert [action.do for action in found.actions_not_done] == ["pause", "resume"]
    assert run([cancel]).actions_not_done == []


def test_a_longer_downtime_limit_counts_from_the_next_window_on() -> None:
    """QEMU computes threshold_size when a window closes."""
    found = run([{"at": "25s", "set": {"downtime_limit": 20_000}}])
    assert found.summary.verdict == "converged"
    assert found.summary.total_time_s < run([]).summary.total_time_s
    limits = {s.threshold_bytes // 10**8 for s in found.syncs if s.time_s < 25}
    assert max(limits) == 0  # 300 ms at 200 MB/s are 60 MB
    assert found.syncs[-1].threshold_bytes == pytest.approx(20 * 2e8, rel=0.01)


def test_max_bandwidth_can_change_in_the_middle_of_a_pass() -> None:
    """A VM of 4 GiB takes ten seconds at 100 MB/s and the rest of the first pass at 400 MB/s."""
    found = run([{"at": "10s", "set": {"max_bandwidth": "400MB/s"}}], max_bandwidth=100_000_000)
    sent_bytes = 2**32 * 4104 / 4096
    assert found.syncs[1].time_s == pytest.approx(10 + (sent_bytes - 1e9) / 4e8, abs=0.5)


def test_a_link_bound_burst_ends_when_the_limit_falls_below_what_it_has_sent() -> None:
    found = run([{"at": "10.02s", "set": {"max_bandwidth": 1_000_000}}],
                bandwidth="400MB/s", max_bandwidth=0, limit_s=20)  # fmt: skip
    sent = found.summary.transferred_bytes
    assert sent == pytest.approx(10.02 * 4e8 + 10 * 1e6, rel=0.01)


def test_new_throttle_parameters_hold_for_the_next_step() -> None:
    found = run([{"at_sync": 2, "set": {"cpu_throttle_initial": 70, "cpu_throttle_increment": 25}}])
    steps = [e.arguments["percent"] for e in found.events if e.event == "cpu_throttle_set"]
    assert steps[:2] == [70, 95]


def test_a_lower_maximum_is_reached_from_above() -> None:
    """mig_throttle_guest_down sets the next step or max_cpu_throttle, whichever is lower."""
    lower = {"cpu_throttle_initial": 20, "max_cpu_throttle": 25}
    found = run([{"at": "45s", "set": lower}])
    steps = [e.arguments["percent"] for e in found.events if e.event == "cpu_throttle_set"]
    assert steps[-1] == 25 < max(steps)


def test_a_cancel_is_noticed_when_the_thread_wakes() -> None:
    """With a rate limit it sleeps until its window ends. On a slow link it notices at once."""
    asleep = run([{"at": 10.05, "do": "cancel"}])
    assert 10.05 < asleep.summary.total_time_s <= 10.15
    sending = run([{"at": 10.05, "do": "cancel"}], bandwidth="200MB/s", max_bandwidth=0)
    assert sending.summary.total_time_s == pytest.approx(10.05, abs=1e-6)
    for found in (asleep, sending):
        assert found.summary.verdict == "cancelled"
        states = [e.arguments.get("new_state") for e in found.events]
        assert states[-2:] == ["cancelling", "cancelled"]


def test_the_main_loop_acts_when_a_sync_has_ended() -> None:
    costly = replace(FREE_EAGER, listeners_ms=800)
    found = run([{"at": "0.1s", "do": "cancel"}], tracking=costly)
    cancel = next(e for e in found.events if e.event == "qmp_enter_migrate_cancel")
    assert cancel.time_s == pytest.approx(0.8)


def test_a_migration_is_not_given_up_while_something_is_scheduled() -> None:
    base = config("1GiB", WriterConfig(working_set="512MiB", page_writes_per_s=1e6),
                  max_bandwidth=50_000_000, max_cpu_throttle=30, limit_s=4000)  # fmt: skip
    base = replace(base, limit=replace(base.limit, stop_when_stuck=True))
    given_up_s = simulate(base).summary.total_time_s
    late = [{"at": given_up_s + 100, "do": "pause"}]
    assert simulate(replace(base, schedule=late)).summary.verdict == "converged"


@pytest.mark.parametrize(
    ("schedule", "key"),
    [
        ("soon", "schedule"),
        (["soon"], "schedule[0]"),
        ([{"do": "cancel"}], "schedule[0]"),
        ([{"at": 1, "at_sync": 1, "do": "cancel"}], "schedule[0]"),
        ([{"at": 1}], "schedule[0]"),
        ([{"at": 1, "do": "cancel", "set": {}}], "schedule[0]"),
        ([{"at": 1, "do": "stop"}], "schedule[0].do"),
        ([{"at": -1, "do": "cancel"}], "schedule[0].at"),
        ([{"at": "later", "do": "cancel"}], "schedule[0].at"),
        ([{"at_sync": 0, "do": "cancel"}], "schedule[0].at_sync"),
        ([{"at": 1, "when": 2, "do": "cancel"}], "schedule[0].when"),
        ([{"at": 1, "do": "pause"}, {"at": 2, "set": {}}], "schedule[1].set"),
        ([{"at": 1, "set": {"auto_converge": False}}], "schedule[0].set.auto_converge"),
        ([{"at": 1, "set": {"version": "qemu_9_1"}}], "schedule[0].set.version"),
        ([{"at": 1, "set": {"downtime_limit": "1s"}}], "schedule[0].set.downtime_limit"),
        ([{"at": 1, "set": {"downtime_limit": -1}}], "schedule[0].set.downtime_limit"),
        ([{"at": 1, "set": {"max_cpu_throttle": 10}}], "schedule[0].set.max_cpu_throttle"),
        ([{1: 2, "x": 3}], "schedule[0].1"),
        ([{"at": True, "do": "pause"}], "schedule[0].at"),
    ],
)
def test_an_impossible_entry_is_refused(schedule: Any, key: str) -> None:
    with pytest.raises(ConfigError) as error:
        run(schedule)
    assert error.value.key == key


def test_an_error_of_an_attempt_names_that_attempt() -> None:
    from gpusim import AttemptConfig

    good, bad = AttemptConfig(), AttemptConfig(schedule=[{"at": 1, "do": "nothing"}])
    wrong = [
        ([good, bad], "attempts[1].schedule[0].do"),
        ([AttemptConfig(after=1)], "attempts[0].after"),
        ([good, AttemptConfig(after="soon")], "attempts[1].after"),
        ([good, AttemptConfig(migration={"version": "qemu_9_1"})], "attempts[1].migration.version"),
        ([good, AttemptConfig(migration={"downtime": 3})], "attempts[1].migration.downtime"),
        (
            [good, AttemptConfig(migration={"downtime_limit": 2.5})],
            "attempts[1].migration.downtime_limit",
        ),
    ]
    for attempts, key in wrong:
        with pytest.raises(ConfigError) as error:
            simulate(replace(config(), attempts=attempts))
        assert error.value.key == key
    with pytest.raises(ConfigError) as error:
        simulate(replace(config(), attempts=[good], schedule=[{"at": 1, "do": "pause"}]))
    assert (error.value.key, error.value.code) == ("schedule", "contradiction")


def test_an_evacuation_has_no_schedule() -> None:
    from gpusim import EvacuationConfig, GuestConfig, evacuate

    guests = EvacuationConfig(guests={"a": GuestConfig()})
    with pytest.raises(ConfigError, match="schedule"):
        evacuate(Config(evacuation=guests, schedule=[{"at": 1, "do": "pause"}]))


BUSY_LINK: dict[str, Any] = {
    "memory": "16GiB",
    "workload": WriterConfig(working_set_percent=50.0, page_writes_per_s=2e5),
    "bandwidth": "5Gbit/s",
    "max_bandwidth": 0,
    "tracking": TrackingConfig(),
}


def begun_during_a_tick(**changes: Any) -> float:
    """Return when the first fallback sync of BUSY_LINK starts, which waits for a burst."""
    found = run([], **{**BUSY_LINK, **changes})
    return next(sync.time_s for sync in found.syncs if sync.kind == "fallback")


@pytest.mark.parametrize("late_s", [0, 1e-4, 2e-3, 0.02, 0.05])
@pytest.mark.parametrize(
    "action", [{"do": "cancel"}, {"do": "pause"}, {"set": {"downtime_limit": 301}}]
)
def test_an_action_during_a_tick_waits_for_its_end(action: dict[str, Any], late_s: float) -> None:
    at_s = begun_during_a_tick() + late_s
    found = run([{"at": at_s, **action}], **BUSY_LINK)
    tick = next(sync for sync in found.syncs if sync.kind == "fallback")
    done = next(e for e in found.events if e.event.startswith(("qmp_enter", "vm_state")))
    assert done.time_s == pytest.approx(max(at_s, tick.time_s + tick.duration_ms / 1000), abs=1e-6)
    assert done.time_s >= tick.time_s + tick.duration_ms / 1000 - 1e-9


@pytest.mark.parametrize("late_s", [1e-4, 0.005, 0.0223, 0.04])
def test_a_time_limit_may_fall_into_a_tick(late_s: float) -> None:
    limit_s = begun_during_a_tick() + late_s
    found = run([], **{**BUSY_LINK, "limit_s": limit_s})
    assert found.summary.verdict == "time_limit"
    assert found.summary.total_time_s == pytest.approx(limit_s, abs=1e-6)
    assert found.summary.main_loop_stall_s <= limit_s


def test_no_action_is_done_during_the_downtime() -> None:
    calm = run([], "1GiB", max_bandwidth=0, bandwidth="50MB/s", downtime_limit=2000)
    stop_s = calm.syncs[-1].time_s
    for action in ("resume", "cancel", "pause"):
        late = [{"at": stop_s + 0.2, "do": action}]
        found = run(late, "1GiB", max_bandwidth=0, bandwidth="50MB/s", downtime_limit=2000)
        assert (found.syncs, found.events) == (calm.syncs, calm.events)


def test_a_cancel_at_the_last_exact_sync_has_effect() -> None:
    calm = run([], "1GiB", limit_s=1000)
    last = [sync.dirty_sync_count for sync in calm.syncs if sync.kind == "exact"][-1]
    found = run([{"at_sync": last, "do": "cancel"}], "1GiB", limit_s=1000)
    assert (calm.summary.verdict, found.summary.verdict) == ("converged", "cancelled")
    assert found.events[-1].arguments == {"new_state": "cancelled"}


def test_entries_with_syncs_may_have_any_order() -> None:
    rising = [{"at_sync": 4, "set": {"downtime_limit": 20}}, {"at_sync": 6, "do": "cancel"}]
    found, again = run(rising), run(rising[::-1])
    assert found.summary.verdict == "cancelled"
    assert (found.syncs, found.events) == (again.syncs, again.events)


def test_values_are_checked_in_the_order_of_their_times() -> None:
    lowered = {"at": 30, "set": {"max_cpu_throttle": 40}}
    run([{"at": 60, "set": {"cpu_throttle_initial": 50, "max_cpu_throttle": 60}}, lowered])
    with pytest.raises(ConfigError) as error:
        run([{"at": 60, "set": {"cpu_throttle_initial": 50}}, lowered])
    assert error.value.key == "schedule[0].set.max_cpu_throttle"


def test_setting_a_parameter_to_its_value_has_no_effect() -> None:
    same = [{"at": 7.77, "set": {"throttle_trigger_threshold": 50}}]
    assert run(same).syncs == run([]).syncs


def test_a_second_cancel_has_no_effect() -> None:
    found = run([{"at": 10.01, "do": "cancel"}, {"at": 10.02, "do": "cancel"}])
    assert [e.event for e in found.events].count("qmp_enter_migrate_cancel") == 1


def test_max_throttle_percent_is_the_highest_before_the_maximum_was_lowered() -> None:
    found = run([{"at": "45s", "set": {"max_cpu_throttle": 25}}])
    steps = [e.arguments["percent"] for e in found.events if e.event == "cpu_throttle_set"]
    assert found.summary.max_throttle_percent == max(steps) > steps[-1]
    assert found.summary.time_at_max_throttle_s < found.summary.total_time_s - 45


@pytest.mark.parametrize("mode", ["tcg", "dirty_ring"])
def test_a_sync_does_not_wait_for_a_paused_vcpu(mode: str) -> None:
    """vm_stop wakes the vCPUs that the throttle put to sleep."""
    tracking = replace(FREE_SYNCS, mode=mode)
    found = run([{"at": "60s", "do": "pause"}], "1GiB", tracking=tracking, cpu_throttle_initial=99,
                workload=WriterConfig(working_set="512MiB", page_writes_per_s=1e6),
                max_bandwidth=100_000_000)  # fmt: skip
    assert found.summary.verdict == "converged"
    assert {sync.duration_ms for sync in found.syncs if sync.time_s > 60.1} == {0.0}
