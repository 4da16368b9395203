"""Limits of settings, compared with formulas and with runs on both sides of each limit.

The VMs are small, so runs use real bitmaps. Tests about time use a simulated clock.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from gpusim import (
    BackendConfig,
    Config,
    ConfigError,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    MixConfig,
    PolicyConfig,
    SequentialConfig,
    VmConfig,
    WorkloadConfig,
    WriterConfig,
    simulate,
)
from gpusim.config.scenario import resolve
from gpusim.engine.records import Summary
from gpusim.explore import run_pool, setting_limits
from gpusim.explore.changes import set_key
from gpusim.explore.run_pool import RunPool
from gpusim.explore.setting_limits import Advice, GuestAdvice, Limit, advise
from gpusim.explore.setting_questions import faster, questions_of
from gpusim.explore.value_search import run_searches
from gpusim.units import parse_bytes_per_s
from tests.engine.scenarios import FREE_EAGER

WORKING_SET = 16384  # pages
PAGES_A_SECOND = 1.25e8 / 4104  # of 1 Gbit/s


def guest(rate: float, limit_s: float = 40, bandwidth: str = "1Gbit/s", **migration: Any) -> Config:
    """Return a VM of 128 MiB, half of it written at random, on a link of 1 Gbit/s."""
    return Config(
        vm=VmConfig(memory="128MiB", vcpus=2),
        workload=WriterConfig(working_set="64MiB", page_writes_per_s=rate),
        link=LinkConfig(bandwidth=bandwidth, page_cost_ns=0),
        migration=MigrationConfig(**migration),
        tracking=FREE_EAGER,
        limit=LimitConfig(simulated=limit_s),
    )


def advice_for(median: Config, p95: Config | None = None, effort: int = 1) -> Advice:
    with RunPool(0) as pool:
        return advise(median, p95 or median, effort=effort, pool=pool)


def advice_on(monkeypatch: pytest.MonkeyPatch, name: str, made: Config) -> GuestAdvice:
    """Ask one question alone, which is quick."""
    questions = setting_limits.questions_of
    monkeypatch.setattr(
        setting_limits,
        "questions_of",
        lambda *given: (one for one in questions(*given) if one.name == name),
    )
    return advice_for(made).median_guest


def limits_of(guest: GuestAdvice) -> dict[str, Limit]:
    return {limit.name: limit for limit in guest.limits}


@cache
def unthrottled() -> GuestAdvice:
    """Return the advice without auto-converge, at 0.8 page writes per page that the link sends."""
    found = advice_for(guest(0.8 * PAGES_A_SECOND, auto_converge=False, downtime_limit=100))
    return found.median_guest


@cache
def throttled() -> GuestAdvice:
    """Return the advice with a throttle limit of 30 %. The guest does not converge."""
    return advice_for(guest(1e5, limit_s=300, max_cpu_throttle=30)).median_guest


def set_to(made: Config, limit: Limit, text: str) -> Config:
    """Set the value of a limit as a user does."""
    if limit.name == "dirty_rate":
        return replace(made, workload=faster(made.workload, float(text.removesuffix("x"))))
    assert limit.key is not None
    if limit.name == "max_cpu_throttle":
        made = set_key(made, "migration.auto_converge", text != "0")
        if text == "0":
            return made
    return set_key(made, limit.key, text if limit.name == "bandwidth" else int(text))


def ran(made: Config) -> Summary:
    return simulate(replace(made, backend=BackendConfig(name="numpy"))).summary


@pytest.mark.slow  # 10 s
def test_the_limits_of_a_random_guest_match_the_formula() -> None:
    """W pages, r writes per second in total, S sent pages per second, downtime limit D.

    A pass over n dirty pages ends with S D unsent pages, after (n - S D) / S seconds. The number of
    pages dirtied meanwhile is concave in that time. So every pass leaves fewer pages than it found
    if r (1 - S D / W) < S. Then at some point S D pages remain, and the migration completes.
    """
    limits, rate, limit_s = limits_of(unthrottled()), 0.8 * PAGES_A_SECOND, 0.1
    most_rate = PAGES_A_SECOND / (1 - PAGES_A_SECOND * limit_s / WORKING_SET)
    least_sent = rate / (1 + rate * limit_s / WORKING_SET)
    found = limits["dirty_rate"]
    assert found.finished
    assert found.value == pytest.approx(most_rate / rate, rel=0.06)
    found = limits["bandwidth"]
    assert found.finished
    assert found.value == pytest.approx(8 * 4104 * least_sent, rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["unthrottled", "throttled"])
def test_runs_on_both_sides_of_each_limit_differ(which: str) -> None:
    made, found = {
        "unthrottled": (
            guest(0.8 * PAGES_A_SECOND, auto_converge=False, downtime_limit=100),
            unthrottled,
        ),
        "throttled": (guest(1e5, limit_s=300, max_cpu_throttle=30), throttled),
    }[which]
    sides = 0
    for limit in found().limits:
        assert limit.finished
        if limit.found is not None:
            real = ran(set_to(made, limit, limit.found))
            assert real.verdict == "converged", limit
            assert limit.outcome is not None
            assert real.total_time_s == limit.outcome.total_time_s
        if limit.first_failing is not None:
            assert ran(set_to(made, limit, limit.first_failing)).verdict != "converged", limit
            sides += limit.found is not None
    assert sides >= 2


@pytest.mark.slow
def test_the_first_failing_value_is_five_percent_away() -> None:
    limit = limits_of(throttled())["bandwidth"]
    assert limit.first_failing is not None
    hard = 8 * parse_bytes_per_s(limit.first_failing)
    assert limit.value == pytest.approx(1.05 * hard, rel=0.01)


@pytest.mark.slow
def test_a_guest_that_does_not_converge_gets_limits_with_which_it_does() -> None:
    found = throttled()
    assert found.now is not None
    assert found.now.verdict == "not_converged"
    limits = limits_of(found)
    assert (limits["max_cpu_throttle"].now, limits["max_cpu_throttle"].found) == ("30", "40")
    assert limits["dirty_rate"].value is not None
    assert limits["dirty_rate"].value < 1
    assert limits["bandwidth"].value is not None
    assert limits["bandwidth"].value > 1e9
    assert found.is_finished


def test_the_lowest_throttle_limit_is_a_step_of_the_throttle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a downtime limit of 300 ms the link sustains 69,000 writes per second: 30 % of 2e5."""
    made = guest(2e5, limit_s=30, cpu_throttle_increment=25)  # 20, 45, 70, 95
    limit = limits_of(advice_on(monkeypatch, "max_cpu_throttle", made))["max_cpu_throttle"]
    assert (limit.found, limit.first_failing, limit.finished) == ("70", "45", True)
    assert limit.outcome is not None
    assert limit.outcome.max_throttle_percent == 70


def test_auto_converge_is_an_alternative_if_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    made = guest(1.25e5, limit_s=30, auto_converge=False)
    found = advice_on(monkeypatch, "max_cpu_throttle", made)
    assert [(way.key, way.value, way.outcome) for way in found.alternatives] == [
        ("migration.auto_converge", "true", "converges"),
        ("migration.start_postcopy", "1pass", "converges"),
    ]
    limit = limits_of(found)["max_cpu_throttle"]
    assert (limit.now, limit.found, limit.first_failing) == ("0", "50", "40")
    assert limit.also == ("migration.auto_converge", "true")


def test_a_calm_guest_needs_no_throttle() -> None:
    found = advice_for(guest(1e3)).median_guest
    limits = limits_of(found)
    assert limits["max_cpu_throttle"].found == "0"
    assert limits["bandwidth"].first_failing is None
    assert limits["bandwidth"].found == "250Mbit/s"
    assert found.alternatives == ()
    idle = advice_for(replace(guest(0), workload=WorkloadConfig())).median_guest
    assert "dirty_rate" not in limits_of(idle)


def test_a_throttle_limit_of_zero_is_the_run_without_auto_converge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pass of 6 s has a fallback sync, no throttle. Without auto-converge it has neither."""
    found = advice_on(
        monkeypatch,
        "max_cpu_throttle",
        guest(1400, 900, bandwidth="50Mbit/s", throttle_trigger_threshold=100),
    )
    assert found.now is not None
    assert found.now.max_throttle_percent == 0 < found.now.fallback_sync_count
    limit = limits_of(found)["max_cpu_throttle"]
    assert limit.found == "0"
    assert limit.finished
    assert limit.outcome is not None
    assert limit.outcome.fallback_sync_count == 0


def test_the_effect_of_the_fallback_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass over 64 MiB takes 11 s on 50 Mbit/s, so fallback syncs occur within it."""
    slow = guest(1e5, limit_s=900, bandwidth="50Mbit/s")
    there = advice_on(monkeypatch, "", slow).fallback_sync
    assert there is not None
    assert (there.is_on, there.key, there.value) == (
        True,
        "migration.fallback_sync_interval",
        "never",
    )
    assert there.with_it is not None
    assert there.without_it is not None
    assert there.with_it.fallback_sync_count > 0 == there.without_it.fallback_sync_count
    older = replace(slow, migration=replace(slow.migration, version="qemu_9_1"))
    upgrade = advice_for(older).median_guest.fallback_sync
    assert upgrade is not None
    assert (upgrade.is_on, upgrade.key, upgrade.value) == (False, "migration.version", "qemu_9_2")
    assert upgrade.without_it is not None
    assert upgrade.without_it.fallback_sync_count == 0
    assert upgrade.with_it is not None
    assert upgrade.with_it.total_time_s == there.with_it.total_time_s
    assert advice_for(guest(1e3, auto_converge=False)).median_guest.fallback_sync is None


def counted(monkeypatch: pytest.MonkeyPatch, converges: Any) -> list[Config]:
    """Replace runs: `converges` decides the verdict of each.

    Returns:
        the configs of the runs so far.
    """
    tried = list[Config]()

    def outcome(config: Config, most_steps: int, small_bytes: float) -> Summary:
        tried.append(config)
        return replace(LIKE, verdict="converged" if converges(config) else "not_converged")

    monkeypatch.setattr(run_pool, "outcome", outcome)
    return tried


LIKE = ran(guest(1e3))


def bandwidth(config: Config) -> float:
    return parse_bytes_per_s(config.link.bandwidth)


def test_all_values_are_tried_and_each_config_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = counted(monkeypatch, lambda made: bandwidth(made) > 0.7e8)
    found = advice_for(guest(1e3), guest(2e3))
    assert found.median_guest.is_finished
    assert found.p95_guest.is_finished
    assert len(tried) == len({repr(one) for one in tried})


def test_effort_tries_finer_values(monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, lambda made: bandwidth(made) > 0.7e8)
    limit = limits_of(advice_for(guest(1e3), effort=4).median_guest)["bandwidth"]
    assert limit.finished
    assert limit.value == pytest.approx(8 * 0.7e8, rel=0.013)


def test_a_run_with_too_much_work_counts_as_not_converging() -> None:
    made = guest(1e3)
    with RunPool(0, most_steps=3) as pool:
        found = advise(made, made, pool=pool)
    assert found.cut > 0
    assert found.median_guest.now is not None
    assert found.median_guest.now.verdict is None
    assert advice_for(made).cut == 0


def test_the_second_guest_starts_where_the_first_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of the second guest lie two values away, so it needs fewer runs."""

    def converges(made: Config) -> bool:
        assert isinstance(made.workload, WriterConfig)
        return bandwidth(made) > 0.45e8 * (1.1 if made.workload.page_writes_per_s > 1e3 else 1.0)

    tried = counted(monkeypatch, converges)
    found = advice_for(guest(1e3), guest(2e3))
    of_bandwidth = {
        rate: [
            one
            for one in tried
            if bandwidth(one) < 1.25e8 and one.workload.page_writes_per_s == rate  # type: ignore[attr-defined]
        ]
        for rate in (1e3, 2e3)
    }
    assert limits_of(found.median_guest)["bandwidth"].value == pytest.approx(3.65e8)
    assert limits_of(found.p95_guest)["bandwidth"].value == pytest.approx(4.02e8)
    assert len(of_bandwidth[2e3]) < len(of_bandwidth[1e3])


def test_a_value_beyond_the_limit_that_converges_is_an_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Limits up to 160 ms and from 240 ms converge. 240 ms is found, 120 ms is an exception."""

    def converges(made: Config) -> bool:
        return not 160 < made.migration.downtime_limit < 240

    counted(monkeypatch, converges)
    made = guest(1e3, downtime_limit=200)
    limit = limits_of(advice_for(made).median_guest)["downtime_limit"]
    assert limit.value is not None
    assert 240 <= limit.value < 255
    assert limit.finished
    (exception,) = limit.exceptions
    assert 100 < int(exception) < 130


def test_a_bandwidth_beyond_one_thread_needs_more_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One thread sends 12.7 Gbit/s, so 20 Gbit/s need two."""
    counted(monkeypatch, lambda made: bandwidth(made) > 2.5e9 or made.migration.max_bandwidth != 0)
    made = guest(1e3, bandwidth="10Gbit/s")
    made = replace(made, link=LinkConfig(bandwidth="10Gbit/s"))
    limit = limits_of(advice_for(made).median_guest)["bandwidth"]
    assert (limit.key, limit.now) == ("link.bandwidth", "10Gbit/s")
    assert limit.value == pytest.approx(20.5e9, rel=0.05)
    assert limit.also == ("migration.multifd_channels", "2")
    fast = replace(made, link=LinkConfig(bandwidth="100Gbit/s"))
    limit = limits_of(advice_for(fast).median_guest)["bandwidth"]
    assert limit.also is None  # the guest converges with less than one thread can send


def test_the_rate_limit_is_searched_if_it_binds(monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, lambda made: parse_bytes_per_s(made.migration.max_bandwidth) > 1e8)
    made = guest(1e3, max_bandwidth="64MiB/s")
    limit = limits_of(advice_for(made).median_guest)["bandwidth"]
    assert (limit.key, limit.now) == ("migration.max_bandwidth", "64MiB/s")
    assert limit.value is not None
    assert 8e8 < limit.value < 8.5e8
    counted(monkeypatch, lambda made: False)
    limit = limits_of(advice_for(made).median_guest)["bandwidth"]
    assert limit.found is None
    assert limit.first_failing == "1Gbit/s"  # not above the bandwidth of the link


def test_a_recorded_or_changing_link_has_no_smallest_bandwidth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted(monkeypatch, lambda made: True)
    made = guest(1e3)
    for link in ({"recorded": [[0.0, 0.0], [60.0, 6e9]]}, {"changes": [["10s", "2Gbit/s"]]}):
        changed = replace(made, link=replace(made.link, **link))  # type: ignore[arg-type]
        assert "bandwidth" not in limits_of(advice_for(changed).median_guest)


def test_removing_a_users_rule_is_an_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, lambda made: False)
    rule = PolicyConfig(target="gpusim.qemu.what_if:ResponsiveThrottleRule")
    found = advice_for(guest(1e3, throttle_rule=rule)).median_guest
    assert "max_cpu_throttle" not in limits_of(found)
    assert "migration.throttle_rule" in {change.key for change in found.alternatives}


def test_a_wrong_config_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^migration\.downtime_limit = -1: "):
        advice_for(guest(1e3, downtime_limit=-1))


def test_every_kind_of_writer_is_made_faster() -> None:
    mapping = {"pattern": "uniform", "page_writes_per_s": 10.0, "catch_up_page_writes_per_s": 30.0}
    mix = MixConfig(writers={"a": mapping, "b": SequentialConfig(page_writes_per_s=100.0)})
    changed = faster(mix, 2.0)
    assert isinstance(changed, MixConfig)
    assert changed.writers["a"] == {
        **mapping,
        "page_writes_per_s": 20.0,
        "catch_up_page_writes_per_s": 60.0,
    }
    assert changed.writers["b"] == SequentialConfig(page_writes_per_s=200.0)
    assert mix.writers["a"] == mapping
    assert faster(WorkloadConfig(), 2.0) == WorkloadConfig()


def test_the_same_guests_get_the_same_limits() -> None:
    made = guest(2e3, limit_s=20)
    first, again = (
        advice_for(made, guest(3e3, limit_s=20)),
        advice_for(made, guest(3e3, limit_s=20)),
    )
    assert values_of(first) == values_of(again)


def values_of(found: Advice) -> list[Any]:
    return [
        (limit.name, limit.found, limit.first_failing, limit.finished)
        for one in (found.median_guest, found.p95_guest)
        for limit in one.limits
    ]


@pytest.mark.slow  # starts processes
@pytest.mark.usefixtures("real_processes")
def test_two_processes_find_the_same_as_one() -> None:
    made = guest(1e5, limit_s=300, max_cpu_throttle=30)
    with RunPool(2) as pool:
        found = advise(made, made, pool=pool)
    assert [limit.found for limit in found.median_guest.limits] == [
        limit.found for limit in throttled().limits
    ]


@pytest.mark.slow
def test_the_limits_of_a_large_vm_hold_over_bitmaps() -> None:
    """The search uses expected shares for 64 GiB, and a run over bitmaps confirms the limit."""
    made = Config(
        vm=VmConfig(memory="64GiB", vcpus=8),
        workload=WriterConfig(working_set="8GiB", page_writes_per_s=4e5),
        link=LinkConfig(bandwidth="10Gbit/s"),
        migration=MigrationConfig(version="qemu_9_1"),
    )
    found = advice_for(made).median_guest
    limit = limits_of(found)["max_cpu_throttle"]
    assert limit.found is not None
    real = ran(set_to(made, limit, limit.found))
    assert real.verdict == "converged"
    assert limit.outcome is not None
    assert real.total_time_s == pytest.approx(limit.outcome.total_time_s, rel=0.05)
    assert not math.isnan(real.total_time_s)


@pytest.mark.slow
def test_a_change_whose_run_was_cut_is_not_one_that_fails() -> None:
    """Auto-converge helps this guest, which needs more steps than the run may take here."""
    made = guest(9e4, auto_converge=False)
    outcomes = {}
    for most_steps in (100, run_pool.MOST_STEPS):
        with RunPool(0, most_steps=most_steps) as pool:
            found = advise(made, made, pool=pool).p95_guest
        changes = {one.key: one.outcome for one in found.alternatives}
        outcomes[most_steps] = changes["migration.auto_converge"], found.is_finished
    assert outcomes == {100: ("not_tried", False), run_pool.MOST_STEPS: ("converges", True)}


def test_a_process_without_work_starts_a_run_that_is_wanted_later() -> None:
    made, later = guest(16000), guest(8000)
    with RunPool(0) as pool:
        pool.at_a_time = 9  # more than there are searches
        pool.run_when_idle([later])
        assert advise(made, made, pool=pool) == advice_for(made)
        assert pool.start_when_idle() is None


def test_a_stalled_migration_guesses_its_downtime_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What remained takes 4 s at the rate of the sender, and 4.2 s are enough."""
    tried = counted(monkeypatch, lambda made: made.migration.downtime_limit >= 4200)
    made = guest(1e3)
    for rate, guess in ((1.0, 4000.0), (100.0, None), (None, None)):
        tried.clear()
        rest = replace(
            LIKE,
            remaining_bytes=500_000_000,
            sending_gbit_per_s=rate,
            verdict="not_converged",
        )
        (question,) = (
            one for one in questions_of(resolve(made), rest) if one.name == "downtime_limit"
        )
        assert question.guess == guess
        search = question.search(made, rest)
        with RunPool(0) as pool:
            run_searches([search], pool)
        assert question.change.values[search.bisection.best or 0] == pytest.approx(4200, rel=0.05)
        limits = [one.migration.downtime_limit for one in tried]
        assert (limits[0] == pytest.approx(4000, rel=0.05)) == (guess is not None)
        assert len(limits) <= 5 or guess is None
