"""Can each tool parse its commands, and do they have the config's values in the tool's units?"""

from __future__ import annotations

import configparser
import itertools
import json
import math
import shlex
from dataclasses import replace
from typing import Any

import pytest
import yaml

from gpusim import Config, LinkConfig, MigrationConfig, TrackingConfig, VmConfig, WriterConfig
from gpusim.predict.commands import HMP, QMP, ToolCommands, tool_commands
from gpusim.text import Message

MIB, GIB = 2**20, 2**30


def made(memory: str = "64GiB", bandwidth: str = "10Gbit/s", **migration: Any) -> Config:
    return Config(
        vm=VmConfig(memory=memory, vcpus=8),
        workload=WriterConfig(working_set_percent=10.0),
        link=LinkConfig(bandwidth=bandwidth),
        migration=MigrationConfig(**migration),
    )


def commands(
    config: Config, gib: float = 64, high_s: float | None = 333.3
) -> dict[str, ToolCommands]:
    return tool_commands(config, round(gib * GIB), high_s)


def note(of: ToolCommands, code: str) -> Message | None:
    return next((one for one in of.notes if one.code == code), None)


def names(of: ToolCommands, code: str) -> list[str]:
    """The settings that a tool cannot set."""
    found = note(of, code)
    return [] if found is None else list(found.data["settings"])


SET = {
    "max_bandwidth": "512MiB/s",
    "downtime_limit": 450,
    "cpu_throttle_initial": 30,
    "cpu_throttle_increment": 15,
    "throttle_trigger_threshold": 40,
    "cpu_throttle_tailslow": True,
    "max_cpu_throttle": 80,
    "multifd_channels": 4,
}
PARAMETERS = {
    "max-bandwidth": 512 * MIB,
    "downtime-limit": 450,
    "avail-switchover-bandwidth": 0,
    "throttle-trigger-threshold": 40,
    "cpu-throttle-initial": 30,
    "cpu-throttle-increment": 15,
    "cpu-throttle-tailslow": True,
    "max-cpu-throttle": 80,
    "multifd-channels": 4,
}


def test_qmp_is_json_in_bytes_ms_and_percent() -> None:
    capabilities, parameters = map(json.loads, commands(made(**SET))[QMP].lines)
    assert capabilities == {
        "execute": "migrate-set-capabilities",
        "arguments": {
            "capabilities": [
                {"capability": "auto-converge", "state": True},
                {"capability": "multifd", "state": True},
            ]
        },
    }
    assert parameters == {"execute": "migrate-set-parameters", "arguments": PARAMETERS}


def test_hmp_has_the_same_values() -> None:
    """HMP takes a bare bandwidth as MiB/s."""
    lines = [shlex.split(line) for line in commands(made(**SET))[HMP].lines]
    assert [one[1:] for one in lines if one[0] == "migrate_set_capability"] == [
        ["auto-converge", "on"],
        ["multifd", "on"],
    ]
    parameters = {one[1]: one[2] for one in lines if one[0] == "migrate_set_parameter"}
    assert parameters.pop("max-bandwidth") == f"{512 * MIB}B"
    assert parameters.pop("avail-switchover-bandwidth") == "0B"
    assert parameters.pop("cpu-throttle-tailslow") == "on"
    assert {name: int(value) for name, value in parameters.items()} == {
        name: value
        for name, value in PARAMETERS.items()
        if not name.endswith(("bandwidth", "tailslow"))
    }


def test_a_version_gets_only_its_parameters() -> None:
    old = made(version="qemu_2_6")
    older = commands(replace(old, tracking=TrackingConfig(mode="kvm_legacy")))[QMP]
    capabilities, parameters = map(json.loads, older.lines)
    assert parameters["arguments"] == {
        "max-bandwidth": 0,
        "downtime-limit": 300,
        "cpu-throttle-initial": 20,
        "cpu-throttle-increment": 10,
    }
    names = [one["capability"] for one in capabilities["arguments"]["capabilities"]]
    assert names == ["auto-converge"]
    assert note(older, "qemu_2_6_names")
    off = json.loads(commands(made(auto_converge=False))[QMP].lines[1])
    assert "cpu-throttle-initial" not in off["arguments"]


def test_virsh_has_mib_and_ms() -> None:
    found = commands(made(**SET))["libvirt"]
    downtime, migrate = map(shlex.split, found.lines)
    assert downtime == ["virsh", "migrate-setmaxdowntime", "DOMAIN", "450"]
    assert migrate[:3] == ["virsh", "migrate", "--live"]
    assert migrate[-2:] == ["DOMAIN", "DESTURI"]
    options = dict(itertools.pairwise(migrate))
    assert int(options["--bandwidth"]) * MIB == 512 * MIB
    assert options["--auto-converge-initial"] == "30"
    assert options["--auto-converge-increment"] == "15"
    assert options["--parallel-connections"] == "4"
    assert {"--auto-converge", "--parallel"} <= set(migrate)
    assert note(found, "virsh_timeout") == Message("virsh_timeout", {"seconds": 334})
    assert names(found, "virsh_cannot_set") == [
        "throttle-trigger-threshold",
        "cpu-throttle-tailslow",
        "max-cpu-throttle",
    ]


def test_a_plain_migration_needs_no_options() -> None:
    found = commands(made(auto_converge=False), high_s=None)["libvirt"]
    assert found.lines[1] == "virsh migrate --live DOMAIN DESTURI"
    assert found.notes == ()


@pytest.mark.parametrize(
    ("rate", "mib"), [("1Gbit/s", 119), ("1Mbit/s", 1), ("0", 0), ("128MiB/s", 128)]
)
def test_a_bandwidth_is_rounded_down_but_never_to_no_limit(rate: str, mib: int) -> None:
    found = commands(made(max_bandwidth=rate))
    assert f"live_migration_bandwidth = {mib}" in found["OpenStack Nova"].lines
    assert f"  bandwidthPerMigration: {mib}Mi" in found["KubeVirt"].lines
    is_rounded = rate in ("1Gbit/s", "1Mbit/s")
    assert (note(found["KubeVirt"], "bandwidth_rounded") is not None) == is_rounded


def test_a_timeout_counts_ram_alone() -> None:
    """A profile's memory includes video memory and ROMs. A flavour's memory does not."""
    for gib in (2 + 17 / 1024, 64 + 17 / 1024):
        plain, more = commands(made(), round(gib)), commands(made(), gib)
        for tool in ("OpenStack Nova", "KubeVirt"):
            assert more[tool] == plain[tool]


def nova_options(found: ToolCommands) -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read_string("\n".join(found.lines))
    return dict(parser["libvirt"])


def nova_steps(options: dict[str, str], gib: float) -> list[tuple[int, int]]:
    """Return (s, ms) of each step, as nova/virt/libvirt/migration.py:downtime_steps does."""
    top, steps = (
        int(options["live_migration_downtime"]),
        int(options["live_migration_downtime_steps"]),
    )
    delay_s = int(int(options["live_migration_downtime_delay"]) * gib)
    base = top / steps
    rise = (top - base) / steps
    return [(delay_s * step, int(base + rise * step)) for step in range(steps + 1)]


@pytest.mark.parametrize("limit_ms", [20, 100, 299, 300, 1100, 30_000])
@pytest.mark.parametrize(
    ("memory", "gib", "bandwidth"),
    [("1TiB", 1024, "10Gbit/s"), ("64GiB", 64, "1Gbit/s"), ("4GiB", 4, "500Mbit/s")],
)
def test_nova_steps_reaches_the_limit_before_it_is_asked_for(
    memory: str, gib: float, bandwidth: str, limit_ms: int
) -> None:
    """The first passes last 879 s, 550 s and 69 s. The steps are 3072 s, 192 s and 12 s apart."""
    config = made(memory, bandwidth, downtime_limit=limit_ms)
    options = nova_options(commands(config, gib)["OpenStack Nova"])
    assert int(options["live_migration_downtime_steps"]) >= 3
    assert int(options["live_migration_downtime_delay"]) >= 3
    assert int(options["live_migration_downtime"]) >= 100
    first_pass_s = gib * GIB / (float(bandwidth[:-6]) * {"G": 1.25e8, "M": 1.25e5}[bandwidth[-6]])
    in_time = [ms for s, ms in nova_steps(options, gib) if s <= first_pass_s]
    assert in_time[-1] >= limit_ms
    # It is the smallest: with 1 ms less at the top, Nova would not reach the limit.
    less = options | {"live_migration_downtime": str(int(options["live_migration_downtime"]) - 1)}
    if int(options["live_migration_downtime"]) > 100:
        assert max(ms for s, ms in nova_steps(less, gib) if s <= first_pass_s) < limit_ms


@pytest.mark.parametrize("high_s", [0.4, 60.0, 333.3, 5000.0, 90_000.0])
@pytest.mark.parametrize("gib", [0.25, 1, 2, 63.75, 1024])
def test_timeouts_are_long_enough_for_19_of_20_migrations(gib: float, high_s: float) -> None:
    """Nova counts at least 2 GiB. KubeVirt counts GB, rounded up (ScaledValue(resource.Giga))."""
    found = commands(made(memory=f"{round(gib * 1024)}MiB"), gib, high_s)
    a_gib = int(nova_options(found["OpenStack Nova"])["live_migration_completion_timeout"])
    assert int(a_gib * max(2, gib)) >= math.floor(high_s)
    longer_than_the_steps = 3 * 3 + 1  # as its help recommends
    assert a_gib >= longer_than_the_steps
    assert a_gib == longer_than_the_steps or (a_gib - 1) * max(2, gib) < high_s
    policy = yaml.safe_load("\n".join(found["KubeVirt"].lines))
    a_gb = policy["spec"]["completionTimeoutPerGiB"]
    assert a_gb * math.ceil(gib * GIB / 1e9) >= high_s
    assert isinstance(a_gb, int)
    assert (a_gb - 1) * gib < high_s


def test_kubevirt_policy() -> None:
    found = commands(made(**SET))["KubeVirt"]
    policy = yaml.safe_load("\n".join(found.lines))
    assert policy["apiVersion"] == "migrations.kubevirt.io/v1alpha1"
    assert policy["kind"] == "MigrationPolicy"
    assert policy["spec"]["allowAutoConverge"] is True
    assert policy["spec"]["bandwidthPerMigration"] == "512Mi"
    assert set(policy["spec"]["selectors"]) == {"virtualMachineInstanceSelector"}
    settings = names(found, "cannot_set")
    assert {"cpu-throttle-initial", "throttle-trigger-threshold"} <= set(settings)
    assert note(found, "kubevirt_progress_timeout")
    assert note(found, "kubevirt_downtime") == Message("kubevirt_downtime", {"limit_ms": 450})
    channels = note(found, "kubevirt_channels")
    assert channels is not None and channels.data == {"used": 8, "simulated": 4}
    plain = commands(made(multifd_channels=8), high_s=None)["KubeVirt"]
    assert "completionTimeoutPerGiB" not in "\n".join(plain.lines)
    assert [one.code for one in plain.notes] == ["kubevirt_label", "kubevirt_progress_timeout"]


def test_nova_options_and_settings_it_does_not_have() -> None:
    found = commands(made(**SET))["OpenStack Nova"]
    options = nova_options(found)
    assert options["live_migration_permit_auto_converge"] == "true"
    assert options["live_migration_parallel_connections"] == "4"
    assert options["live_migration_timeout_action"] == "abort"
    cannot = note(found, "cannot_set")
    assert cannot is not None and cannot.data["tool"] == "Nova"
    assert cannot.data["settings"]["throttle-trigger-threshold"] == ("40", "50")
    off = nova_options(commands(made(auto_converge=False), high_s=None)["OpenStack Nova"])
    assert off["live_migration_permit_auto_converge"] == "false"
    assert "live_migration_completion_timeout" not in off
    assert "live_migration_parallel_connections" not in off


SWITCHING: dict[str, Any] = {"auto_converge": False, "postcopy_ram": True}


def test_post_copy_after_the_first_pass_in_each_tool() -> None:
    """64 GiB take 55 s at 10 Gbit/s: Nova and KubeVirt switch at the first whole second per GiB."""
    found = commands(made(**SWITCHING, start_postcopy="1pass"))
    capabilities, _, start = map(json.loads, found[QMP].lines)
    assert {"capability": "postcopy-ram", "state": True} in capabilities["arguments"][
        "capabilities"
    ]
    assert start == {"execute": "migrate-start-postcopy"}
    assert note(found[QMP], "start_postcopy_after_passes") == Message(
        "start_postcopy_after_passes", {"count": 2}
    )
    assert found[HMP].lines[-1] == "migrate_start_postcopy"
    assert "migrate_set_capability postcopy-ram on" in found[HMP].lines
    assert "--postcopy --postcopy-after-precopy DOMAIN" in found["libvirt"].lines[1]
    options = nova_options(found["OpenStack Nova"])
    assert options["live_migration_permit_post_copy"] == "true"
    assert options["live_migration_permit_auto_converge"] == "false"
    assert options["live_migration_timeout_action"] == "force_complete"
    assert options["live_migration_completion_timeout"] == "1"
    spec = yaml.safe_load("\n".join(found["KubeVirt"].lines))["spec"]
    assert (spec["allowPostCopy"], spec["allowWorkloadDisruption"]) == (True, True)
    assert spec["completionTimeoutPerGiB"] == 1


@pytest.mark.parametrize(
    ("start", "options", "code"),
    [
        ("90s", "--postcopy --timeout 90 --timeout-postcopy DOMAIN", "start_postcopy_after_s"),
        ("2s_per_gib", "--timeout 128 --timeout-postcopy DOMAIN", "start_postcopy_after_s"),
        ("throttle_50", "--postcopy DOMAIN", "start_postcopy_at_throttle"),
        ("never", "--postcopy DOMAIN", "start_postcopy_by_hand"),
    ],
)
def test_a_time_of_the_switch_is_virshs_timeout(start: str, options: str, code: str) -> None:
    found = commands(made(**SWITCHING, start_postcopy=start), high_s=None)
    assert options in found["libvirt"].lines[1]
    by_hand = note(found["libvirt"], "virsh_migrate_postcopy")
    assert (by_hand is not None) == ("timeout" not in options)
    assert note(found[QMP], code) is not None
    has_command = "migrate_start_postcopy" in found[HMP].lines
    assert has_command == (start != "never")
    cannot = note(found["KubeVirt"], "no_time_of_switch")
    assert (cannot is not None) == (start == "throttle_50")


def test_permitted_post_copy_comes_at_the_timeout_that_covers_19_of_20() -> None:
    found = commands(made(**SWITCHING, max_postcopy_bandwidth="100MiB/s"), 64, 640.0)
    options = nova_options(found["OpenStack Nova"])
    assert options["live_migration_timeout_action"] == "force_complete"
    assert options["live_migration_completion_timeout"] == "10"
    assert "--postcopy-bandwidth 100 " in found["libvirt"].lines[1]
    parameters = json.loads(found[QMP].lines[1])["arguments"]
    assert parameters["max-postcopy-bandwidth"] == 100 * MIB
