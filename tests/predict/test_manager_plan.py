"""What a manager will do with a VM, told before anything is simulated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpusim import Config, PolicyConfig
from gpusim.config.compose import composed_config
from gpusim.config.scenario import resolve
from gpusim.explore.changes import postcopy_obstacle, single_changes
from gpusim.policies.cloud_hypervisor import CloudHypervisor
from gpusim.policies.proxmox import Proxmox
from gpusim.predict.commands import tool_commands
from gpusim.predict.host_config import host_config
from gpusim.predict.manager_plan import known_manager, manager_plan
from gpusim.predict.messages import text_of
from gpusim.text import Message
from tests.cli.command import CONF
from tests.formats.profiles import exact_profile, uniform_pages

GIB = 2**30


def plan(*overrides: str, gib: int = 8) -> list[Message]:
    return list(manager_plan(composed_config(overrides).migration, gib * GIB))


def args(**values: Any) -> list[str]:
    return [f"migration.manager.args.{name}={value}" for name, value in values.items()]


def test_nova_for_two_sizes() -> None:
    """75 s and 800 s per GiB."""
    for gib, wait_s, end_s in [(8, 600, 6400), (64, 4800, 51_200)]:
        steps, end = plan("policy=nova", gib=gib)
        assert steps == Message(
            "nova_plan_steps",
            {"first_ms": 50, "wait_s": wait_s, "steps": 10, "last_ms": 500, "last_s": 10 * wait_s},
        )
        assert end == Message("manager_abort", {"tool": "Nova", "timeout_s": end_s})


@pytest.mark.parametrize(
    ("policy", "options", "code"),
    [
        ("nova", {"completion_timeout": 0}, "manager_without_timeout"),
        ("nova", {"timeout_action": "force_complete"}, "manager_pause"),
        ("nova_post_copy", {}, "manager_post_copy"),
        ("kubevirt", {}, "manager_abort"),
        ("kubevirt", {"allow_workload_disruption": True}, "manager_pause"),
        ("kubevirt_stall", {"allow_workload_disruption": True}, "manager_force"),
        ("kubevirt_post_copy", {}, "manager_post_copy"),
        ("kubevirt_stall_post_copy", {}, "manager_post_copy"),
    ],
)
def test_the_last_message_tells_what_happens_at_the_timeout(
    policy: str, options: dict[str, Any], code: str
) -> None:
    *_, end = plan(f"policy={policy}", *args(**options))
    assert end.code == code
    if not policy.startswith("nova"):
        assert end.data["timeout_s"] == 1350  # 150 s for each of 9 GB


@pytest.mark.parametrize(
    ("strategy", "code"), [("cancel", "manager_abort"), ("ignore", "manager_pause")]
)
def test_cloud_hypervisors_timeout_does_not_scale(strategy: str, code: str) -> None:
    options = args(timeout_s=2760, timeout_strategy=strategy)
    limit, end = plan("policy=cloud_hypervisor_upstream", *options, gib=512)
    assert limit == Message("cloud_hypervisor_plan", {"limit_ms": 300})
    assert end == Message(code, {"tool": "Cloud Hypervisor", "timeout_s": 2760})


def test_kubevirts_limits() -> None:
    ramp, _ = plan("policy=kubevirt_ramp")
    data = {"first_ms": 150, "last_ms": 900, "steps": 8, "syncs": 3, "cooldown_s": 10}
    assert ramp == Message("kubevirt_plan_ramp", data)
    stall, _ = plan("policy=kubevirt_stall", *args(max_downtime_ms=200))
    data = {"first_ms": 200, "last_ms": 200, "stall_s": 40}
    assert stall == Message("kubevirt_plan_stall", data)


def test_there_is_no_plan_without_a_manager_of_gpusims() -> None:
    assert plan() == plan("policy=none") == []
    theirs = PolicyConfig("tests.policies.user_rules:Watcher")
    migration = replace(composed_config([]).migration, manager=theirs)
    assert list(manager_plan(migration, GIB)) == []


def test_a_prediction_tells_the_plan_and_skips_waiting() -> None:
    profile = exact_profile(uniform_pages(20_000, 5000), 64 * GIB)
    host = host_config(profile, ["policy=nova"])
    assert [one.code for one in host.assumptions][:2] == ["nova_plan_steps", "manager_abort"]
    assert all(text_of(one) for one in host.assumptions)
    assert host.config.limit.skip_waiting
    own = host_config(profile, ["limit.skip_waiting=false"])
    assert not own.config.limit.skip_waiting


@pytest.mark.parametrize(
    ("overrides", "limit"),
    [
        ([], "24h"),
        (["policy=proxmox"], "24h"),
        (["policy=nova"], f"{86400 + 800 * 1024}s"),
        (["policy=nova", *args(completion_timeout=0)], f"{86400 + 10 * 75 * 1024}s"),
        (["policy=kubevirt"], f"{86400 + 2 * 165_000}s"),
        (["policy=kubevirt_stall"], f"{86400 + 2 * 165_000}s"),
        (["policy=nova", *args(completion_timeout=1_000_000)], "100000000s"),
        (["policy=nova", "limit.simulated=2h"], "2h"),
    ],
)
def test_a_prediction_does_not_end_before_the_manager_acts(
    overrides: list[str], limit: str
) -> None:
    """Nova ends the migration of a VM of 1 TiB after 9.5 days. The limit of 24 h hid that."""
    profile = exact_profile(uniform_pages(20_000, 5000), 1024 * GIB)
    assert host_config(profile, overrides).config.limit.simulated == limit


def test_novas_commands_are_the_simulated_options() -> None:
    config: Config = composed_config(["policy=nova", *args(completion_timeout=20, downtime=700)])
    lines = tool_commands(config, 8 * GIB, 90.0)["OpenStack Nova"].lines
    options = dict(line.split(" = ") for line in lines[1:])
    assert options["live_migration_completion_timeout"] == "20"
    assert options["live_migration_downtime"] == "700"
    assert options["live_migration_timeout_action"] == "abort"
    assert options["live_migration_permit_post_copy"] == "false"


@pytest.mark.parametrize(
    ("overrides", "tool", "line"),
    [
        (["policy=nova"], "OpenStack Nova", "live_migration_downtime = 500"),
        (["policy=kubevirt"], "KubeVirt", "  allowAutoConverge: false"),
        (
            ["policy=proxmox", "migration.max_bandwidth=100MiB/s", *args(migrate_downtime=0.3)],
            "Proxmox VE",
            "qm set VMID --migrate_downtime 0.3 --migrate_speed 100",
        ),
        (
            ["policy=ovirt", *args(migration_policy="suspend_workload")],
            "oVirt",
            "Cluster > Edit > Migration Policy: Suspend workload if needed",
        ),
        (
            ["policy=ovirt", "migration.max_bandwidth=100MB/s"],
            "oVirt",
            "Cluster > Edit > Migration Policy > Migration Bandwidth Limit: Custom, 1600 Mbps"
            " for 2 migrations at once",
        ),
        (
            ["policy=cloud_hypervisor_upstream", *args(timeout_s=600, timeout_strategy="ignore")],
            "Cloud Hypervisor",
            "send-migration: downtime_ms=300, timeout_s=600, timeout_strategy=ignore, connections=1",
        ),
    ],
)
def test_under_a_manager_there_are_its_options_alone(
    overrides: list[str], tool: str, line: str
) -> None:
    found = tool_commands(composed_config(overrides), 8 * GIB, 60.0)
    assert list(found) == [tool]
    assert line in found[tool].lines


@pytest.mark.parametrize("policy", ["proxmox", "ovirt"])
def test_settings_that_a_manager_cannot_set_are_named(policy: str) -> None:
    config = composed_config([f"policy={policy}", "migration.cpu_throttle_initial=99"])
    (commands,) = tool_commands(config, 8 * GIB, None).values()
    (note,) = commands.notes
    assert (note.code, note.data["settings"]) == (
        "cannot_set",
        {"cpu-throttle-initial": ("99", "20")},
    )


@pytest.mark.parametrize("policy", sorted(path.stem for path in (CONF / "policy").glob("*.yaml")))
def test_no_change_is_one_that_the_manager_does_not_have(policy: str) -> None:
    config = composed_config([f"policy={policy}"])
    keys = {change.key for change in single_changes(config, resolve(config))}
    manager = known_manager(config.migration)
    assert ("migration.start_postcopy" in keys) <= (manager is None)
    if isinstance(manager, CloudHypervisor):
        assert "migration.auto_converge" not in keys
    if isinstance(manager, CloudHypervisor | Proxmox):
        assert postcopy_obstacle(config) == "manager"
