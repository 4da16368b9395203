"""Does gpusim find and check a class, and refuse it in one line with advice?"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpusim import AttemptConfig, Config, ConfigError, MigrationConfig, PolicyConfig, simulate
from gpusim.config.plugins import source_hash
from gpusim.config.run_hash import run_hash
from gpusim.config.scenario import resolve
from tests.engine.scenarios import config

HERE = "tests.policies.user_rules"


def with_policies(base: Config | None = None, **policies: Any) -> Config:
    """Return a config with policies, each given as a target or as (target, args)."""
    targets = {n: p if isinstance(p, tuple) else (p,) for n, p in policies.items()}
    base = base or config("1GiB")
    made = {name: PolicyConfig(*policy) for name, policy in targets.items()}
    return replace(base, migration=replace(base.migration, **made))


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("my_rules", "wrong_format"),
        ("", "missing"),
        ("my_rules:", "wrong_format"),
        ("my rules:Mine", "wrong_format"),
        ("no_such_module:Mine", "cannot_import"),
        ("tests.policies.no_such:Mine", "cannot_import"),
        (f"{HERE}:Missing", "cannot_import"),
        (f"{HERE}:no_class", "cannot_import"),
        (f"{HERE}:Watcher", "lacks_members"),
        (f"{HERE}:Bare", "lacks_members"),
        ("sys:Mine", "cannot_import"),
    ],
)
def test_a_target_that_is_no_throttle_rule_is_refused(target: str, code: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(with_policies(throttle_rule=target))
    assert (error.value.key, error.value.code) == ("migration.throttle_rule.target", code)
    assert error.value.value == (target or "missing")
    assert "\n" not in str(error.value)


def test_an_error_names_what_there_is_and_what_is_missing() -> None:
    for target, names in [
        ("Missing", ["Fixed", "Stateful"]),
        ("Watcher", ["on_sync", "on_period"]),
        ("Bare", ["parameters", "percent", "dirty_rate_high_cnt", "exhausted"]),
    ]:
        with pytest.raises(ConfigError) as error:
            resolve(with_policies(throttle_rule=f"{HERE}:{target}"))
        assert all(name in error.value.message for name in names)


@pytest.mark.parametrize(
    ("target", "args", "code", "name"),
    [
        ("Fixed", {"precent": 3}, "wrong_arguments", "percent_at_once"),
        ("Fixed", {"parameters": 3}, "wrong_arguments", "takes percent_at_once"),
        ("Refuses", {}, "wrong_arguments", "step"),
        ("Refuses", {"step": 3}, "wrong_arguments", "ValueError: a step of 3 is too small"),
        ("TakesNothing", {}, "wrong_arguments", "parameters"),
        ("Fixed", {3: 3}, "wrong_type", "{step: 5}"),
        ("Fixed", [3], "wrong_type", "{step: 5}"),
    ],
)
def test_arguments_that_the_class_does_not_take_are_refused(
    target: str, args: Any, code: str, name: str
) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(with_policies(throttle_rule=(f"{HERE}:{target}", args)))
    own = next(iter(args)) if args else None  # an error names the wrong argument alone
    key = f".{own}" if own in ("precent", "parameters") else ""
    assert (error.value.key, error.value.code) == (f"migration.throttle_rule.args{key}", code)
    assert name in error.value.message


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("live_migration_downtime", "downtime"),
        ("live_migration_downtime_steps", "downtime_steps"),
        ("live_migration_completion_timeout", "completion_timeout"),
        ("completionTimeout", "completion_timeout"),
        ("liveMigrationDowntimeDelay", "downtime_delay"),
        ("timeout_acton", "timeout_action"),
    ],
)
def test_a_tools_own_name_of_an_option_is_told_the_argument(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(with_policies(manager=("gpusim.policies.nova:Nova", {"downtime": 500, typed: 7})))
    assert (error.value.key, error.value.value) == (f"migration.manager.args.{typed}", 7)
    assert error.value.message.endswith(f"Did you mean {meant}?")


@pytest.mark.parametrize(
    ("policy", "migration"),
    [
        ("throttle_rule", {"auto_converge": False}),
        ("sync_timer_rule", {"auto_converge": False}),
        ("sync_timer_rule", {"version": "qemu_9_1"}),
        ("sync_timer_rule", {"fallback_sync_interval": "never"}),
    ],
)
def test_a_rule_that_would_never_be_called_is_refused(policy: str, migration: Any) -> None:
    target = f"{HERE}:{'Fixed' if policy == 'throttle_rule' else 'Stateful'}"
    with pytest.raises(ConfigError) as error:
        resolve(with_policies(config("1GiB", **migration), **{policy: target}))
    assert (error.value.key, error.value.code) == (f"migration.{policy}.target", "not_used")
    assert error.value.value == target


def test_an_import_error_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torn_rules.py").write_text("class Mine(:\n")
    (tmp_path / "quitting_rules.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "needy_rules.py").write_text("import no_such_thing\n")
    for module, reason in [
        ("torn_rules", "SyntaxError: "),
        ("quitting_rules", "SystemExit: 0"),
        ("needy_rules", "No module named 'no_such_thing'"),
    ]:
        with pytest.raises(ConfigError) as error:
            resolve(with_policies(throttle_rule=f"{module}:Mine"))
        assert error.value.code == "cannot_import"
        assert reason in error.value.message


def test_an_attempt_may_have_a_rule_of_its_own() -> None:
    """Its errors name the attempt."""
    good = {"throttle_rule": {"target": f"{HERE}:Fixed", "args": {"percent_at_once": 7}}}
    changed = replace(config("1GiB"), attempts=[AttemptConfig(migration=good)])
    assert resolve(changed).policies == f"throttle_rule {HERE}:Fixed(percent_at_once=7)"
    assert run_hash(changed) != run_hash(config("1GiB"))
    bad = replace(changed, attempts=[AttemptConfig(migration={"throttle_rule": {"target": "x"}})])
    with pytest.raises(ConfigError, match=r"attempts\[0\].migration.throttle_rule.target = x"):
        resolve(bad)
    assert run_hash(bad)
    assert run_hash(replace(changed, attempts=[AttemptConfig(migration=None)]))  # type: ignore[arg-type]
    place = "attempts[0].migration.throttle_rule"
    wrong_rules = (
        ("x", place, "wrong_type"),
        ({"name": "x"}, f"{place}.name", "unknown_key"),
    )
    for wrong, key, code in wrong_rules:
        bad = replace(changed, attempts=[AttemptConfig(migration={"throttle_rule": wrong})])
        with pytest.raises(ConfigError) as error:
            resolve(bad)
        assert (error.value.key, error.value.code) == (key, code)


def test_a_policy_from_python_is_a_policy_config() -> None:
    wrong = MigrationConfig(manager={"target": "x:Y"})  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as error:
        resolve(replace(config("1GiB"), migration=wrong))
    assert (error.value.key, error.value.code) == ("migration.manager", "wrong_type")


def test_a_schedule_cannot_change_a_rule() -> None:
    entry = {"at": 1, "set": {"throttle_rule": None}}
    with pytest.raises(ConfigError) as error:
        resolve(replace(config(), schedule=[entry]))
    assert error.value.key == "schedule[0].set.throttle_rule"
    assert error.value.code == "unknown_key"


HELPED = """
{imports}
from gpusim.policies import ThrottleRule

class Mine(ThrottleRule):
    high_periods = {count}
"""
WAYS = [("import {}", "{}.COUNT"), ("from {} import COUNT", "COUNT")]


def hash_of(folder: Path, name: str, count: int, way: tuple[str, str]) -> str:
    """Return the hash of a run with a rule that reads a number from a neighbouring module."""
    helper = f"{name}_helper"
    for module in (name, helper):
        sys.modules.pop(module, None)
    (folder / f"{helper}.py").write_text(f"COUNT = {count}\n" + "#" * count)
    imports, value = (text.format(helper) for text in way)
    (folder / f"{name}.py").write_text(HELPED.format(imports=imports, count=value))
    source_hash.cache_clear()
    return run_hash(with_policies(throttle_rule=f"{name}:Mine"))


@pytest.mark.parametrize("way", WAYS)
def test_a_changed_source_is_a_changed_run(
    way: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    first = hash_of(tmp_path, "hashed_rules", 3, way)
    assert hash_of(tmp_path, "hashed_rules", 3, way) == first
    assert hash_of(tmp_path, "hashed_rules", 4, way) != first


def test_a_long_argument_is_cut_for_people() -> None:
    changed = with_policies(manager=(f"{HERE}:UsesUp", {"limits_ms": list(range(5000))}))
    assert resolve(changed).policies.endswith(
        "(limits_ms=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11...)"
    )


def test_an_installed_rule_counts_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    code = "from gpusim.policies import ThrottleRule\nclass Mine(ThrottleRule): pass\n"
    hashes = set()
    for number in range(2):
        sys.modules.pop("installed_rules", None)
        (folder / "installed_rules.py").write_text(code + "#" * number)
        source_hash.cache_clear()
        hashes.add(run_hash(with_policies(throttle_rule="installed_rules:Mine")))
    assert len(hashes) == 2


def test_a_rule_that_uses_up_its_arguments_leaves_the_config_as_it_was() -> None:
    changed = with_policies(manager=(f"{HERE}:UsesUp", {"limits_ms": [400, 500]}))
    before = run_hash(changed)
    first = simulate(changed)
    assert run_hash(changed) == before
    assert simulate(changed).events == first.events


def test_the_class_and_its_arguments_are_in_the_hash() -> None:
    hashes = [
        run_hash(with_policies(throttle_rule=policy))
        for policy in (f"{HERE}:Fixed", (f"{HERE}:Fixed", {"percent_at_once": 7}), f"{HERE}:Raises")
    ]
    assert len({*hashes, run_hash(config("1GiB"))}) == 4
    assert run_hash(with_policies(throttle_rule="no_such_module:Mine"))


def test_the_module_of_the_current_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    code = "from gpusim.policies import ThrottleRule\nclass Mine(ThrottleRule): pass\n"
    (tmp_path / "rules_here.py").write_text(code)
    base = config("1GiB")
    mine = simulate(with_policies(base, throttle_rule="rules_here:Mine"))
    assert mine.syncs == simulate(base).syncs
    assert mine.summary.policies == "throttle_rule rules_here:Mine"


def test_qemus_own_rules_have_the_members_of_the_protocols() -> None:
    own = {
        "throttle_rule": "gpusim.qemu.throttle:EarlyThrottleRule",
        "sync_timer_rule": "gpusim.qemu.sync_timer:SyncTimerRule",
        "switchover_rule": "gpusim.qemu.switchover:SwitchoverRule",
        "bandwidth_rule": "gpusim.qemu.bandwidth:LastWindow",
    }
    assert resolve(with_policies(**own)).policies.count(":") == 4
    assert MigrationConfig().manager is None
