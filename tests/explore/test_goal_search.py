"""The goal search finds known optima, repeats its answers, and reports no gain within chance."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gpusim import (
    BackendConfig,
    Config,
    ConfigError,
    LimitConfig,
    LinkConfig,
    MigrationConfig,
    TrackingConfig,
    VmConfig,
    WriterConfig,
    simulate,
)
from gpusim.engine.records import Summary
from gpusim.errors import ResultsError
from gpusim.explore import run_pool
from gpusim.explore.bounds import Bounds
from gpusim.explore.goal_check import check_goal
from gpusim.explore.goal_search import TRIALS, BetterSettings, search_goal
from gpusim.explore.run_pool import RunPool

pytest.importorskip("optuna", reason="the extra predict is not installed")


def guest(**migration: Any) -> Config:
    """Return a VM of 2 GiB on 1 Gbit/s. It writes three times as fast as the link sends."""
    return Config(
        vm=VmConfig(memory="2GiB", vcpus=2),
        workload=WriterConfig(working_set="1GiB", page_writes_per_s=1e5),
        link=LinkConfig(bandwidth="1Gbit/s"),
        migration=MigrationConfig(**migration),
        limit=LimitConfig(simulated="30min"),
    )


def ran(made: Config) -> Summary:
    return simulate(replace(made, backend=BackendConfig(name="numpy"))).summary


def within(deadline_s: float, **bounds: float) -> Bounds:
    return Bounds(total_time_s=deadline_s, **bounds)


LIKE = ran(guest(cpu_throttle_initial=99))
Law = Callable[[MigrationConfig], tuple[float, float, bool]]  # total s, lost s, converges


def replace_runs(monkeypatch: pytest.MonkeyPatch, law: Law) -> list[MigrationConfig]:
    """Replace runs by a law."""
    tried = list[MigrationConfig]()

    def outcome(config: Config, most_steps: int, small_bytes: float) -> Summary:
        tried.append(config.migration)
        total_s, lost_s, converges = law(config.migration)
        limit_s = (
            float(config.limit.simulated) if not isinstance(config.limit.simulated, str) else 1e9
        )
        return replace(
            LIKE,
            verdict="converged" if converges and total_s < limit_s else "time_limit",
            total_time_s=min(total_s, limit_s),
            guest_cpu_lost_s=lost_s,
        )

    monkeypatch.setattr(run_pool, "outcome", outcome)
    return tried


def searched(made: Config, *goal: Any, **more: Any) -> BetterSettings:
    with RunPool(0) as pool:
        return search_goal(made, *goal, pool=pool, **more)


def bowl(migration: MigrationConfig) -> tuple[float, float, bool]:
    """Return 100 s and 10 vCPU seconds at (35, 25, 70), and more elsewhere."""
    far = (
        ((migration.cpu_throttle_initial - 35) / 50) ** 2
        + ((migration.cpu_throttle_increment - 25) / 50) ** 2
        + ((migration.throttle_trigger_threshold - 70) / 50) ** 2
    )
    return 100 * (1 + far), 10 * (1 + far), True


def test_the_minimum_of_a_bowl_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = replace_runs(monkeypatch, bowl)
    found = searched(guest(), "fastest")
    assert found.finished
    assert found.runs == len(tried)
    assert found.runs <= TRIALS + 4
    assert found.outcome is not None
    assert found.outcome.total_time_s < 104  # with the present settings: 134.2
    assert found.now is not None
    assert found.gain == pytest.approx(1 - found.outcome.total_time_s / found.now.total_time_s)
    assert tried[0] == MigrationConfig()


def test_the_answer_is_always_the_same_for_any_number_of_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replace_runs(monkeypatch, bowl)
    first, again = searched(guest(), "least_loss"), searched(guest(), "least_loss")
    assert first == again
    with RunPool(0) as pool:
        pool.at_a_time = 16
        assert search_goal(guest(), "least_loss", pool=pool) == first


def test_the_settings_are_tried_on_the_p95_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best settings of the median guest make the 95th-percentile guest fail."""

    def law(migration: MigrationConfig) -> tuple[float, float, bool]:
        total_s, lost_s, _ = bowl(migration)
        return total_s, lost_s, migration.downtime_limit != 77 or migration == hard.migration

    hard = guest(downtime_limit=77)
    replace_runs(monkeypatch, law)
    found = searched(guest(), "fastest", p95_guest=hard)
    assert found.p95_now is not None
    assert found.p95_outcome is not None
    assert (found.p95_now.verdict, found.p95_outcome.verdict) == ("converged", "time_limit")
    assert searched(guest(), "fastest").p95_outcome is None


def test_the_p95_guest_keeps_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes 1.5 times as long, so fewer settings are in time."""

    def law(migration: MigrationConfig) -> tuple[float, float, bool]:
        longer = 1.5 if migration.downtime_limit == 77 else 1.0
        return longer * (200 - migration.cpu_throttle_initial), migration.cpu_throttle_initial, True

    replace_runs(monkeypatch, law)
    hard = guest(downtime_limit=77)
    found = searched(guest(), "least_loss", within(210.0), p95_guest=hard)
    assert found.for_p95_guest
    assert found.outcome is not None
    assert 60 <= found.settings["cpu_throttle_initial"] < 75  # 1.5 (200 - 60) s are 210 s
    assert not searched(guest(), "least_loss", within(210.0)).for_p95_guest


def test_a_setting_without_effect_is_not_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replace_runs(monkeypatch, lambda m: (200 - m.cpu_throttle_initial, 10.0, True))
    assert searched(guest(), "fastest").settings == {"cpu_throttle_initial": 99}


def test_a_gain_within_chance_is_no_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_runs(monkeypatch, lambda m: (100 - 0.015 * m.cpu_throttle_initial, 10.0, True))
    found = searched(guest(), "fastest")
    assert (found.settings, found.outcome, found.gain) == ({}, None, None)
    assert found.now is not None
    assert found.runs > 20


def test_a_deadline_is_kept_at_any_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lower throttle is slower: 300 s at 1 %, 104 s at 99 %. 150 s need 76 %."""

    def law(m: MigrationConfig) -> tuple[float, float, bool]:
        return 302 - 2 * m.cpu_throttle_initial, 1.0 * m.cpu_throttle_initial, True

    replace_runs(monkeypatch, law)
    found = searched(guest(), "least_loss", within(150.0))
    assert set(found.settings) == {"cpu_throttle_initial"}
    assert 76 < found.settings["cpu_throttle_initial"] < 84
    assert found.gain is None  # the present settings are late, so there is no gain to report
    assert found.now is not None
    assert found.now.total_time_s == 262
    assert searched(guest(), "least_loss", within(90.0)).settings == {}
    gentle = searched(guest(), "least_loss")
    assert gentle.settings["cpu_throttle_initial"] < 6
    assert gentle.gain is not None
    assert gentle.gain > 0.7


def test_other_bounds_are_kept_at_any_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gain that breaks a bound is none."""
    replace_runs(monkeypatch, lambda m: (200 - m.cpu_throttle_initial, 10.0, True))
    stall_ms = LIKE.longest_vcpu_stall_ms
    bounds = Bounds(longest_vcpu_stall_ms=stall_ms / 2)
    assert searched(guest(), "fastest", bounds).settings == {}
    bounds = Bounds(longest_vcpu_stall_ms=stall_ms)
    assert searched(guest(), "fastest", bounds).settings == {"cpu_throttle_initial": 99}


def test_a_guest_that_does_not_converge_with_the_present_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replace_runs(
        monkeypatch, lambda m: (100.0, 10.0, m.auto_converge and m.cpu_throttle_initial > 60)
    )
    found = searched(guest(), "fastest")
    assert found.settings["cpu_throttle_initial"] > 60
    assert found.gain is None
    off = searched(guest(auto_converge=False), "fastest")
    assert off.settings["auto_converge"] is True
    replace_runs(monkeypatch, lambda m: (100.0, 10.0, False))
    assert searched(guest(), "fastest").settings == {}


def test_the_bounds_are_those_of_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """The initial throttle stays below the limit, and QEMU 2.6 has no threshold."""
    tried = replace_runs(monkeypatch, bowl)
    searched(guest(max_cpu_throttle=60), "fastest")
    assert max(one.cpu_throttle_initial for one in tried) == 60
    tried.clear()
    old = replace(guest(version="qemu_2_6"), tracking=TrackingConfig(mode="kvm_legacy"))
    assert "throttle_trigger_threshold" not in searched(old, "fastest").settings
    assert {one.throttle_trigger_threshold for one in tried} == {50}


def test_optuna_prints_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    replace_runs(monkeypatch, bowl)
    with caplog.at_level(logging.DEBUG):
        searched(guest(), "fastest", trials=8)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


def test_without_optuna_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpusim.errors.is_installed", lambda package: package != "optuna")
    with pytest.raises(ResultsError, match=r"optuna is missing: .* pip install -e '\.\[predict\]'"):
        searched(guest(), "fastest")


def test_a_wrong_config_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^migration\.downtime_limit = -1: "):
        searched(guest(downtime_limit=-1), "fastest")


def test_settings_that_suit_one_guest_by_chance_are_not_proposed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The searched guest gains with a high first throttle. The other two get slower with it."""

    def law(m: MigrationConfig) -> tuple[float, float, bool]:
        other = -2.0 if m.downtime_limit == 77 else 1.0
        return 300 - other * m.cpu_throttle_initial, 10.0, True

    replace_runs(monkeypatch, law)
    others = [guest(), guest(downtime_limit=77), guest(downtime_limit=77)]
    with RunPool(0) as pool:
        members = [(one, run) for one in others if (run := pool.run_all([one])[0]) is not None]
    found = searched(guest(), "fastest", members=members)
    assert found.rejected and found.check is not None
    assert (found.settings, found.outcome, found.gain) == ({}, None, None)
    assert found.check.value is not None and found.check.value_now is not None
    assert found.check.value > found.check.value_now
    alike = searched(guest(), "fastest", members=members[:1])
    assert alike.settings == {"cpu_throttle_initial": 99} and not alike.rejected


def test_the_next_best_settings_are_tried_if_the_best_do_not_help_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The best settings keep the present threshold, with which they slow the other guest down."""

    def law(m: MigrationConfig) -> tuple[float, float, bool]:
        steep = m.cpu_throttle_initial == m.cpu_throttle_increment == 99
        if steep and (m.downtime_limit, m.throttle_trigger_threshold) == (77, 30):
            return 600.0, 10.0, True
        return 300.0 - m.cpu_throttle_initial - m.cpu_throttle_increment, 10.0, True

    replace_runs(monkeypatch, law)
    other = guest(downtime_limit=77, throttle_trigger_threshold=30)
    with RunPool(0) as pool:
        (now,) = pool.run_all([other])
    assert now is not None
    found = searched(guest(throttle_trigger_threshold=30), "fastest", members=[(other, now)])
    assert (found.settings["cpu_throttle_initial"], found.settings["cpu_throttle_increment"]) == (
        99,
        99,
    )
    assert "throttle_trigger_threshold" in found.settings and not found.rejected


def test_means_are_over_the_migrations_that_converge_with_both_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def law(m: MigrationConfig) -> tuple[float, float, bool]:
        is_lost = m.downtime_limit == 77 and m.cpu_throttle_initial == 99
        return 300.0 - m.cpu_throttle_initial, 10.0, not is_lost

    replace_runs(monkeypatch, law)
    both = [guest(), guest(downtime_limit=77)]
    with RunPool(0) as pool:
        members = [(one, run) for one in both if (run := pool.run_all([one])[0]) is not None]
        found = check_goal(
            members, {"cpu_throttle_initial": 99}, "total_time_s", within(1000.0), pool
        )
    assert (found.keeping_now, found.keeping) == (2, 1)
    assert (found.value_now, found.value) == (280.0, 201.0)
    assert not found.helps(0.0)


def test_settings_keep_the_bounds_in_as_many_migrations_as_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A low throttle loses less. One of two guests is late with a throttle below 15 %."""

    def law(m: MigrationConfig) -> tuple[float, float, bool]:
        is_late = m.downtime_limit == 77 and m.cpu_throttle_initial < 15
        return 500.0 if is_late else 100.0, 1.0 * m.cpu_throttle_initial, True

    replace_runs(monkeypatch, law)
    both = [guest(), guest(downtime_limit=77)]
    with RunPool(0) as pool:
        members = [(one, run) for one in both if (run := pool.run_all([one])[0]) is not None]
    found = searched(guest(), "least_loss", within(200.0), members=members)
    assert found.settings.get("cpu_throttle_initial", 20) >= 15
    assert searched(guest(), "least_loss", within(200.0)).settings["cpu_throttle_initial"] < 15
    if found.check is not None and found.settings:
        assert found.check.keeping == found.check.keeping_now == 2


@pytest.mark.slow
def test_no_point_of_a_grid_is_much_better() -> None:
    """With real runs, the results are as good as the best of 75 settings."""
    values = itertools.product((1, 20, 50, 75, 99), (5, 10, 30, 50, 99), (20, 50, 80))
    keys = ("cpu_throttle_initial", "cpu_throttle_increment", "throttle_trigger_threshold")
    grid = [ran(guest(**dict(zip(keys, one, strict=True)))) for one in values]
    for goal, key in (("fastest", "total_time_s"), ("least_loss", "guest_cpu_lost_s")):
        found = searched(guest(), goal)
        assert found.outcome is not None
        real = ran(guest(**found.settings))
        assert real.total_time_s == found.outcome.total_time_s
        assert getattr(real, key) < 1.03 * min(getattr(one, key) for one in grid), goal


def test_post_copy_is_named_if_no_throttle_keeps_the_deadline() -> None:
    """One pass of 2 GiB takes 17.3 s, and post-copy sends at most 1 GiB again."""
    with RunPool(0) as pool:
        found = search_goal(guest(), "fastest", within(30.0), trials=1, pool=pool)
        kept = search_goal(guest(), "fastest", within(600.0), trials=1, pool=pool)
    assert found.outcome is None and found.postcopy is not None
    assert found.postcopy.reason_code == "postcopy"
    assert found.postcopy.total_time_s < 30
    assert kept.postcopy is None
