"""Does a run follow a user's rule, and fail if the rule breaks its contract?"""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from gpusim import (
    AttemptConfig,
    Config,
    EvacuationConfig,
    GuestConfig,
    Result,
    TrackingConfig,
    VmConfig,
    WriterConfig,
    evacuate,
    simulate,
    simulate_many,
)
from gpusim.cli.dry_run_text import plan_text
from gpusim.config.scenario import resolve
from gpusim.explore.alternatives import alternatives
from gpusim.explore.dry_run import make_plan
from gpusim.policies.user_rule import UserRule, UserSyncTimer
from gpusim.qemu.process import Process
from gpusim.qemu.rules import RuleError
from gpusim.qemu.sync_timer import SyncTimerRule, SyncTimerState
from gpusim.results.settings import flat_settings
from gpusim.results.sweeps.axes import varying_keys
from gpusim.results.sweeps.config_values import axis_label, value_of
from gpusim.results.sweeps.runs import Run
from tests.engine.scenarios import config, throttle_steps
from tests.engine.ticked import simulate_ticked
from tests.policies.test_plug_ins import HERE, with_policies
from tests.policies.user_rules import Onlooker, Restless, Watcher


def busy(**changes: Any) -> Config:
    """1 GiB at 60 MB/s, a quarter of it always written: a pass of 18 s, then many short ones."""
    writer = WriterConfig(working_set="256MiB", page_writes_per_s=1e5)
    base = {"workload": writer, "limit_s": 60, "max_bandwidth": 60_000_000}
    return config("1GiB", **{**base, **changes})


RULES: dict[str, dict[str, Any]] = {
    "throttle": {"throttle_rule": (f"{HERE}:Fixed", {"percent_at_once": 85})},
    "timer": {"sync_timer_rule": f"{HERE}:Stateful"},
    "switchover": {"switchover_rule": f"{HERE}:Patient", "throttle_rule": f"{HERE}:Fixed"},
    "manager": {"manager": f"{HERE}:Watcher"},
    "cloud_hypervisor": {
        "throttle_rule": "gpusim.policies.cloud_hypervisor:IterationThrottle",
        "switchover_rule": "gpusim.policies.cloud_hypervisor:WholeIterations",
    },
    "all": {
        "throttle_rule": f"{HERE}:Fixed",
        "sync_timer_rule": f"{HERE}:Stateful",
        "switchover_rule": f"{HERE}:Patient",
        "manager": (f"{HERE}:Watcher", {"every_ms": 333}),
    },
}


@pytest.mark.parametrize("tracking", ["kvm_manual", "tcg"])
@pytest.mark.parametrize("name", RULES)
def test_ticks_and_closed_form_give_the_same_run(name: str, tracking: str) -> None:
    costly = TrackingConfig(mode=tracking, listeners_ms=70, misaligned_ms=30)
    base = with_policies(busy(tracking=costly, fallback_sync_interval="1s"), **RULES[name])
    closed, seen = simulate(base), Watcher.seen
    ticked = simulate_ticked(base)
    assert ticked.syncs == closed.syncs
    assert ticked.events == closed.events
    assert ticked.samples[-1] == closed.samples[-1]
    if "manager" in RULES[name]:
        assert seen == Watcher.seen
        assert len(seen) > 20


def test_the_throttle_follows_the_rule() -> None:
    found = simulate(with_policies(busy(), **RULES["throttle"]))
    assert [percent for _, percent in throttle_steps(found)] == [85]
    assert throttle_steps(found)[0][0] == found.syncs[1].time_s


def test_forced_syncs_come_at_every_third_tick() -> None:
    """The rule includes the first pass and counts its own ticks."""
    found = simulate(with_policies(busy(fallback_sync_interval="1s"), **RULES["timer"]))
    forced = [sync.time_s for sync in found.syncs if sync.kind == "fallback"]
    assert forced[:4] == pytest.approx([3, 6, 9, 12], abs=0.2)


def test_a_timer_rule_needs_no_member_beyond_the_contract() -> None:
    rule = f"{HERE}:FromScratch"
    found = simulate(with_policies(busy(fallback_sync_interval="1s"), sync_timer_rule=rule))
    assert found.summary.fallback_sync_count > 3


def test_a_tick_behind_the_reaper_of_dirty_rings_asks_the_rule_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reaper holds the big lock most of the time, so most ticks wait for it."""
    calls: list[str] = []

    def note(name: str) -> None:
        plain = getattr(UserSyncTimer, name)

        def noted(self: UserSyncTimer, *given: Any) -> Any:
            calls.append(name)
            return plain(self, *given)

        monkeypatch.setattr(UserSyncTimer, name, noted)

    note("wants_sync")
    note("after_tick")
    ring = TrackingConfig(mode="dirty_ring", protect_ns_per_page=10_000)
    found = simulate(
        with_policies(busy(tracking=ring, fallback_sync_interval="1s"), **RULES["timer"])
    )
    assert found.summary.fallback_sync_count > 3
    assert all(before != after for before, after in itertools.pairwise(calls))


def test_the_switchover_follows_the_rule() -> None:
    rules = RULES["switchover"]["throttle_rule"]
    calm = busy(workload=WriterConfig(working_set="256MiB", page_writes_per_s=2e3))
    patient = simulate(with_policies(calm, **RULES["switchover"]))
    plain = simulate(with_policies(calm, throttle_rule=rules))
    limit = plain.syncs[-1].threshold_bytes
    assert patient.syncs[-2].remaining_bytes <= limit / 4 * 1.05
    assert plain.syncs[-2].remaining_bytes > limit / 4


def test_a_turn_that_acts_above_the_threshold_is_not_skipped() -> None:
    """The sender sends many equal windows at once, which end before the first turn that acts."""
    base = config("1GiB", bandwidth="50MB/s", max_bandwidth=0)
    found = simulate(with_policies(base, switchover_rule=f"{HERE}:Early"))
    first = found.syncs[1]
    estimate = first.remaining_bytes - first.newly_dirty_pages * 4096
    burst = 50e6 * 0.052
    assert 3 * first.threshold_bytes - burst <= estimate < 3 * first.threshold_bytes


def test_a_manager_in_qemu_11_1_polls_at_the_syncs_that_are_reported() -> None:
    large = WriterConfig(working_set="512MiB", page_writes_per_s=1e5)
    base = busy(version="qemu_11_1", workload=large)
    found = simulate(with_policies(base, manager=f"{HERE}:Onlooker"))
    seen = Onlooker.seen
    exact = [sync for sync in found.syncs if sync.kind == "exact"]
    assert len(found.syncs) > len(exact) + 2  # fallback syncs
    assert (seen[0].why, seen[0].dirty_sync_count) == ("time", 1)  # the migration is active
    assert {poll.why for poll in seen[1:]} == {"sync"}
    assert [poll.time_ns / 1e9 for poll in seen[1:]] == pytest.approx([s.time_s for s in exact])
    assert [poll.dirty_sync_count for poll in seen] == list(range(1, len(seen) + 1))
    for poll, sync in zip(seen[1:], exact, strict=True):
        expected_ms = int(1000 * sync.remaining_bytes / poll.bandwidth_bytes_per_s)
        assert poll.expected_downtime_ms == expected_ms


def test_a_manager_gets_the_values_of_query_migrate() -> None:
    slow = {"fallback_sync_interval": "never", "bandwidth": "60MB/s", "max_bandwidth": 0}
    found = simulate(with_policies(busy(**slow), manager=f"{HERE}:Watcher"))
    first, *others = Watcher.seen
    assert (first.why, first.time_ns, first.dirty_sync_count) == ("sync", 0, 1)
    assert first.remaining_bytes == first.total_bytes == 2**30
    assert [s.why for s in others[:3]] == ["time"] * 3
    assert [s.time_ns for s in others[:3]] == [1_700_000_000 * n for n in (1, 2, 3)]
    assert others[0].downtime_limit_ms == 101
    assert others[0].bandwidth_bytes_per_s == pytest.approx(40e6, rel=0.03)
    # within one page, because bytes on the link include headers
    sent = (first.total_bytes - others[0].remaining_bytes) * 4104 / 4096
    assert others[0].transferred_bytes == pytest.approx(sent, rel=1e-3)
    exact = [sync.time_s for sync in found.syncs if sync.kind == "exact"]
    assert [s.time_ns / 1e9 for s in others if s.why == "sync"] == pytest.approx(exact)
    paused = [s for s in others if not s.vm_runs]
    assert len(paused) == 3  # its orders at the sixth to eighth poll


def test_a_manager_without_a_next_poll_does_not_keep_a_stalled_migration_going() -> None:
    hopeless = busy(auto_converge=False, limit_s=300)
    hopeless = replace(hopeless, limit=replace(hopeless.limit, stop_when_stuck=True))
    alone = simulate(hopeless).summary
    watched = simulate(with_policies(hopeless, manager=f"{HERE}:Onlooker")).summary
    assert alone.verdict == watched.verdict == "not_converged"
    assert alone.total_time_s == watched.total_time_s


def test_a_rules_state_means_nothing_to_another_rule() -> None:
    """One attempt uses a user's timer, the next attempt in the process QEMU's own."""
    assert SyncTimerRule(5 * 10**9, 7).state == SyncTimerRule(5 * 10**9).state
    kept = SyncTimerState(3)
    assert SyncTimerRule(5 * 10**9, kept).state is kept


def test_a_timer_left_armed_with_a_bad_tick_is_refused() -> None:
    """The check also runs between two migrations. Otherwise the timer would tick forever."""
    restless = UserSyncTimer(UserRule("mine:Restless", lambda: Restless(10**9)))
    process = Process(sync_timer_left_ns=10)
    with pytest.raises(RuleError, match="tick_ns = 0"):
        process.idle(restless, 10**12, auto_converge=True)


def test_polls_are_a_millisecond_apart() -> None:
    eager = (f"{HERE}:Onlooker", {"eager": True})
    simulate(with_policies(busy(limit_s=0.1), manager=eager))
    steps = [b - a for a, b in itertools.pairwise([poll.time_ns for poll in Onlooker.seen])]
    assert 90 <= len(steps) <= 110
    assert min(steps) == 1_000_000


def test_a_cancel_names_the_rule_and_the_reason() -> None:
    found = simulate(with_policies(busy(), manager=(f"{HERE}:Quitter", {"at_s": 7.5})))
    assert found.summary.verdict == "cancelled"
    assert found.summary.reason_code == "cancelled_by_manager"
    assert "Quitter" in found.summary.reason
    assert "enough" in found.summary.reason
    assert found.summary.total_time_s == pytest.approx(7.6, abs=0.05)
    assert found.summary.policies == f"manager {HERE}:Quitter(at_s=7.5)"


def test_a_manager_costs_polls_and_not_seconds() -> None:
    """A manager that orders nothing does not stop the sender, so the samples stay the same."""
    idle = (f"{HERE}:Wrong", {"orders": {}})
    base = busy(limit_s=600)
    assert len(simulate(with_policies(base, manager=idle)).samples) == len(simulate(base).samples)


def test_the_responsive_throttle_as_a_class_is_the_version() -> None:
    target = "gpusim.qemu.what_if:ResponsiveThrottleRule"
    writer = WriterConfig(working_set="768MiB", page_writes_per_s=2e4)
    base = {"workload": writer, "fallback_sync_interval": "1500ms"}
    version = simulate(busy(version="what_if_responsive", **base))
    assert simulate(with_policies(busy(**base), throttle_rule=target)).syncs == version.syncs
    assert version.syncs != simulate(busy(**base)).syncs


def test_a_dry_run_names_the_rule() -> None:
    plan = make_plan(with_policies(busy(), manager=(f"{HERE}:Watcher", {"every_ms": 900})))
    assert f"policies     manager {HERE}:Watcher(every_ms=900)\n" in plan_text(plan)


def test_what_would_have_helped_tries_qemus_own_rule() -> None:
    gentle = (f"{HERE}:Fixed", {"percent_at_once": 1})
    calm = busy(limit_s=300, downtime_limit=2000)
    throttled = with_policies(calm, throttle_rule=gentle)
    tried = alternatives(throttled, resolve(throttled))
    own = next(change for change in tried if change.key == "migration.throttle_rule")
    assert (own.value, own.outcome) == ("null", "converges")


@pytest.mark.slow
@pytest.mark.usefixtures("real_processes")
def test_worker_processes_find_the_class() -> None:
    configs = [with_policies(busy(seed=seed), **RULES["throttle"]) for seed in (1, 2)]
    results = list(simulate_many(configs, workers=2))
    assert all(isinstance(result, Result) for result in results)
    assert [r.syncs for r in results] == [simulate(c).syncs for c in configs]


def test_two_attempts_have_a_rule_each() -> None:
    """The first attempt's throttle rule leaves no state to the second."""
    first = {"manager": {"target": f"{HERE}:Quitter", "args": {"at_s": 19}}}
    base = replace(busy(), attempts=[AttemptConfig(migration=first), AttemptConfig()])
    found = simulate(base)
    first_summary = found.before[0].result.summary
    assert first_summary.reason_code == "cancelled_by_manager"
    assert first_summary.total_time_s == pytest.approx(19, abs=1)
    assert found.summary.policies == ""
    assert found.summary.attempt == 2


def test_a_policy_is_its_class_where_runs_are_compared() -> None:
    """A sweep's table has a column for the class and one per argument. Figures show the name."""
    configs = [asdict(busy()), asdict(with_policies(busy(), **RULES["throttle"]))]
    runs = [
        Run(name=str(n), folder=Path(), config=dict(flat_settings(c)), summary={})
        for n, c in enumerate(configs)
    ]
    keys = ["migration.throttle_rule", "migration.throttle_rule.args.percent_at_once"]
    assert varying_keys(runs) == keys
    assert [value_of(run, keys[0]).text for run in runs] == ["none", "Fixed"]
    assert axis_label(keys[0]) == "throttle rule"


def test_a_host_is_emptied_under_a_manager() -> None:
    """A guest that the manager cancels stays on the host, and the evacuation gives the reason."""
    guest = GuestConfig(vm=VmConfig("1GiB"), workload=busy().workload)
    base = with_policies(busy(), manager=(f"{HERE}:Quitter", {"at_s": 7.5}))
    found = evacuate(replace(base, evacuation=EvacuationConfig(guests={"db": guest})))
    assert found.summary.verdict == "cancelled"
    assert found.summary.left_behind == ["db"]
    assert found.summary.reason_code == "guest_left_behind"
    assert found.guests[0].result.summary.reason_code == "cancelled_by_manager"
    assert found.guests[0].result.summary.reason in found.summary.reason
    assert found.summary.policies == f"manager {HERE}:Quitter(at_s=7.5)"
