"""The settings of a migration as commands and files of QEMU, libvirt, OpenStack Nova and KubeVirt.

Owns each tool's names, units and rounding, and notes what it cannot set. It decides nothing.
Sources besides QEMU's: libvirt's docs/manpages/virsh.rst (0151db88c2). OpenStack Nova's
nova/conf/libvirt.py (009ffe4127) and nova/virt/libvirt/migration.py (060445aa2f). KubeVirt's
pkg/virt-config/virt-config.go (00182f1eea), staging/src/kubevirt.io/api/migrations/v1alpha1/types.go
and pkg/virt-launcher/virtwrap/live-migration-source.go (007bfea9ff).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gpusim.config.migration import parse_parameters, parse_start_postcopy
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config, MigrationConfig
from gpusim.policies.kubevirt import KubeVirt, KubeVirtStall
from gpusim.policies.names import KUBEVIRT, NOVA, rule_name
from gpusim.policies.nova import (
    LEAST_DELAY_S,
    LEAST_DOWNTIME_MS,
    LEAST_STEPS,
    Nova,
    data_gib,
    downtime_steps,
)
from gpusim.policies.vm_size import spec_bytes
from gpusim.predict.manager_commands import manager_lines
from gpusim.predict.manager_plan import known_manager
from gpusim.qemu.names import POSTCOPY
from gpusim.qemu.versions import VERSIONS
from gpusim.text import Message
from gpusim.units import GB, GIB, MIB, NS_PER_S, parse_bytes

# Nova: live_migration_completion_timeout "should usually be larger than downtime delay * downtime
# steps". The commands set the smallest steps and delay that Nova accepts.
NOVA_LEAST_TIMEOUT = LEAST_DELAY_S * LEAST_STEPS + 1
KUBEVIRT_CHANNELS = 8  # pkg/virt-handler/migration-source.go:configureParallelMigrationThreads
QMP, HMP, LIBVIRT, OPENSTACK = "QEMU, QMP", "QEMU, HMP", "libvirt", "OpenStack Nova"
THROTTLE = (  # (QEMU's name, config key)
    ("throttle-trigger-threshold", "throttle_trigger_threshold"),
    ("cpu-throttle-initial", "cpu_throttle_initial"),
    ("cpu-throttle-increment", "cpu_throttle_increment"),
    ("cpu-throttle-tailslow", "cpu_throttle_tailslow"),
    ("max-cpu-throttle", "max_cpu_throttle"),
)


@dataclass(frozen=True, kw_only=True)
class ToolCommands:
    """The settings for one tool.

    Attributes:
        lines: to type or to put into a file. The user replaces DOMAIN and DESTURI.
        notes: what the tool rounds, cannot set or changes besides. messages.py has the text.
    """

    lines: tuple[str, ...]
    notes: tuple[Message, ...]


def tool_commands(
    config: Config, memory_bytes: int, total_high_s: float | None
) -> dict[str, ToolCommands]:
    """Return the commands of each tool that set the settings of a config.

    A manager sets QEMU's parameters itself. So under one of gpusim's own managers there are the
    commands of that manager alone.

    Args:
        config: the migration.
        memory_bytes: of the VM. Nova and KubeVirt count timeouts per GiB.
        total_high_s: 95th percentile of the total time in seconds, from which timeouts are rounded
            up. None: set no timeout.
    """
    found = {
        QMP: _qmp(config),
        HMP: _hmp(config),
        LIBVIRT: _libvirt(config, total_high_s),
        OPENSTACK: _nova(config, memory_bytes, total_high_s),
        KUBEVIRT: _kubevirt(config, memory_bytes, total_high_s),
    }
    manager = known_manager(config.migration)
    if manager is None:
        return found
    assert config.migration.manager is not None
    tool = rule_name(config.migration.manager.target)
    heading = OPENSTACK if tool == NOVA else tool
    lines = tuple(manager_lines(config.migration, manager))
    notes = tuple(_not_settable(config.migration, "cannot_set", tool))
    return {heading: found.get(heading) or ToolCommands(lines=lines, notes=notes)}


def _capabilities(migration: MigrationConfig) -> dict[str, bool]:
    found = {"auto-converge": migration.auto_converge}
    if VERSIONS[migration.version].has_multifd:
        found["multifd"] = migration.multifd_channels > 0
    if migration.postcopy_ram:
        found[POSTCOPY] = True
    if migration.postcopy_preempt:
        found["postcopy-preempt"] = True
    return found


def _parameters(migration: MigrationConfig) -> dict[str, int | bool]:
    """Return the parameters of the version, with QEMU's names and units (bytes/s, ms, percent).

    Source: qapi/migration.json:MigrationParameters.
    """
    numbers, lacks = parse_parameters(migration), VERSIONS[migration.version].lacks
    found: dict[str, int | bool] = {
        "max-bandwidth": numbers.max_bandwidth,
        "downtime-limit": migration.downtime_limit,
    }
    if "avail_switchover_bandwidth" not in lacks:
        found["avail-switchover-bandwidth"] = numbers.avail_switchover_bandwidth
    if migration.auto_converge:
        found |= {name: getattr(migration, key) for name, key in THROTTLE if key not in lacks}
    if migration.multifd_channels:
        found["multifd-channels"] = migration.multifd_channels
    if migration.postcopy_ram and numbers.max_postcopy_bandwidth:
        found["max-postcopy-bandwidth"] = numbers.max_postcopy_bandwidth
    return found


def _qmp(config: Config) -> ToolCommands:
    migration = config.migration
    capabilities = [
        {"capability": name, "state": state} for name, state in _capabilities(migration).items()
    ]
    commands = (
        ("migrate-set-capabilities", {"capabilities": capabilities}),
        ("migrate-set-parameters", _parameters(migration)),
    )
    lines = [json.dumps({"execute": name, "arguments": values}) for name, values in commands]
    if migration.start_postcopy != "never":
        lines.append(json.dumps({"execute": "migrate-start-postcopy"}))
    return ToolCommands(lines=tuple(lines), notes=tuple(_notes_on_qemu(config)))


def _hmp(config: Config) -> ToolCommands:
    """Return the commands of the human monitor, which takes a bare bandwidth as MiB/s.

    Source: migration/migration-hmp-cmds.c:hmp_migrate_set_parameter.
    """
    migration = config.migration
    lines = [
        f"migrate_set_capability {name} {_on_off(state)}"
        for name, state in _capabilities(migration).items()
    ]
    for name, value in _parameters(migration).items():
        unit = "B" if name.endswith("bandwidth") else ""
        lines.append(f"migrate_set_parameter {name} {_on_off(value)}{unit}")
    if migration.start_postcopy != "never":
        lines.append("migrate_start_postcopy")
    return ToolCommands(lines=tuple(lines), notes=tuple(_notes_on_qemu(config)))


def _on_off(value: Any) -> str:
    return str(value) if not isinstance(value, bool) else "on" if value else "off"


def _notes_on_qemu(config: Config) -> Iterator[Message]:
    migration = config.migration
    if migration.multifd_channels:
        yield Message("multifd_on_destination")
    if migration.postcopy_ram:
        yield Message("postcopy_on_destination")
        yield _when_to_switch(config)
    if "max_cpu_throttle" in VERSIONS[migration.version].lacks:
        yield Message("qemu_2_6_names")
    if migration.fallback_sync_interval is not None:
        yield Message("fallback_interval_fixed", {"interval": migration.fallback_sync_interval})


def _when_to_switch(config: Config) -> Message:
    """Return when to send migrate-start-postcopy."""
    start = parse_start_postcopy(config.migration, parse_bytes(config.vm.memory))
    if start.at_ns is not None:
        return Message("start_postcopy_after_s", {"after_s": start.at_ns / NS_PER_S})
    if start.after_passes is not None:
        return Message("start_postcopy_after_passes", {"count": start.after_passes + 1})
    if start.at_throttle_percent is not None:
        data = {"throttle_percent": start.at_throttle_percent}
        return Message("start_postcopy_at_throttle", data)
    return Message("start_postcopy_by_hand")


def _switch_s(config: Config) -> float | None:
    """Return about when a migration switches to post-copy, in s. None: the config has no time."""
    start = parse_start_postcopy(config.migration, parse_bytes(config.vm.memory))
    if start.after_passes is not None:
        return start.after_passes * _first_pass_s(config)
    return None if start.at_ns is None else start.at_ns / NS_PER_S


def _libvirt(config: Config, total_high_s: float | None) -> ToolCommands:
    """Source: virsh.rst, migrate and migrate-setmaxdowntime. Bandwidths are whole MiB/s."""
    migration, numbers = config.migration, parse_parameters(config.migration)
    options, notes = ["--live"], []
    if migration.auto_converge:
        options += ["--auto-converge", f"--auto-converge-initial {migration.cpu_throttle_initial}"]
        options += [f"--auto-converge-increment {migration.cpu_throttle_increment}"]
    if numbers.max_bandwidth:
        options.append(f"--bandwidth {_mib(numbers.max_bandwidth)}")
        notes += _rounding(numbers.max_bandwidth)
    if migration.multifd_channels:
        options += ["--parallel", f"--parallel-connections {migration.multifd_channels}"]
    if migration.postcopy_ram:
        own_options, own_notes = _virsh_postcopy(config)
        options += own_options
        notes += own_notes
    if numbers.avail_switchover_bandwidth:
        switchover = _mib(numbers.avail_switchover_bandwidth)
        options.append(f"--available-switchover-bandwidth {switchover}")
        notes.append(Message("switchover_version"))
    if numbers.max_bandwidth:
        notes.append(Message("virsh_setspeed", {"mib": _mib(numbers.max_bandwidth)}))
    if total_high_s is not None and not migration.postcopy_ram:
        notes.append(Message("virsh_timeout", {"seconds": math.ceil(total_high_s)}))
    settable = ("cpu_throttle_initial", "cpu_throttle_increment")
    notes += _not_settable(migration, "virsh_cannot_set", "virsh", settable)
    lines = (
        f"virsh migrate-setmaxdowntime DOMAIN {migration.downtime_limit}",
        f"virsh migrate {' '.join(options)} DOMAIN DESTURI",
    )
    return ToolCommands(lines=lines, notes=tuple(notes))


def _virsh_postcopy(config: Config) -> tuple[list[str], list[Message]]:
    """Return the options of virsh migrate for post-copy. A timeout there is 1 s or more."""
    migration, numbers = config.migration, parse_parameters(config.migration)
    options, notes = ["--postcopy"], []
    if numbers.max_postcopy_bandwidth:
        options.append(f"--postcopy-bandwidth {_mib(numbers.max_postcopy_bandwidth)}")
    if migration.start_postcopy == "1pass":
        options.append("--postcopy-after-precopy")
    elif (switch_s := _switch_s(config)) is not None:
        options.append(f"--timeout {max(1, math.ceil(switch_s))} --timeout-postcopy")
    else:
        notes.append(Message("virsh_migrate_postcopy"))
    if migration.postcopy_preempt:
        notes.append(Message("virsh_cannot_preempt"))
    return options, notes


def _nova(config: Config, memory_bytes: int, total_high_s: float | None) -> ToolCommands:
    """Return nova.conf of the compute service on the source.

    Source: nova/conf/libvirt.py. live_migration_parallel_connections is new in 33.0.0 (2026.1).
    """
    migration, numbers = config.migration, parse_parameters(config.migration)
    lines = [
        "[libvirt]",
        f"live_migration_permit_auto_converge = {str(migration.auto_converge).lower()}",
        f"live_migration_bandwidth = {_mib(numbers.max_bandwidth)}",
    ]
    notes = _rounding(numbers.max_bandwidth)
    if isinstance(known_manager(migration), Nova) and migration.manager is not None:
        options = migration.manager.args  # the simulated ones, with their timeout
        lines += [f"live_migration_{name} = {_nova_value(options[name])}" for name in options]
    else:
        own_lines, own_notes = _nova_options(config, memory_bytes, total_high_s)
        lines += own_lines
        notes += own_notes
    if migration.multifd_channels > 1:
        lines.append(f"live_migration_parallel_connections = {migration.multifd_channels}")
        notes.append(Message("nova_parallel_version"))
    if migration.auto_converge:
        notes.append(Message("nova_auto_converge"))
    notes += _not_settable(migration, "cannot_set", NOVA)
    return ToolCommands(lines=tuple(lines), notes=tuple(notes))


def _nova_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _nova_options(
    config: Config, memory_bytes: int, total_high_s: float | None
) -> tuple[list[str], list[Message]]:
    """Return the options that bring Nova to the config's limit in time, and its timeout."""
    gib, switches = data_gib(memory_bytes), config.migration.postcopy_ram
    downtime_ms, step = _nova_downtime(config, gib)
    delay_s = int(LEAST_DELAY_S * gib)
    lines = [
        f"live_migration_downtime = {downtime_ms}",
        f"live_migration_downtime_steps = {LEAST_STEPS}",
        f"live_migration_downtime_delay = {LEAST_DELAY_S}",
    ]
    rise = {
        "limit_ms": config.migration.downtime_limit,
        "limit_after_seconds": step * delay_s,
        "most_ms": downtime_ms,
        "most_after_seconds": LEAST_STEPS * delay_s,
    }
    notes = [Message("nova_raises_downtime", rise)]
    switch_s = _switch_s(config)
    if switches:
        lines.append("live_migration_permit_post_copy = true")
        notes += _no_time_of_switch(config, NOVA)
    if switch_s is not None:
        timeout = max(1, math.ceil(switch_s / gib))
        lines += [
            f"live_migration_completion_timeout = {timeout}",
            "live_migration_timeout_action = force_complete",
        ]
        notes.append(Message("nova_postcopy", {"seconds": int(timeout * gib)}))
    elif total_high_s is not None:
        timeout = max(NOVA_LEAST_TIMEOUT, math.ceil(total_high_s / gib))
        lines += [
            f"live_migration_completion_timeout = {timeout}",
            f"live_migration_timeout_action = {'force_complete' if switches else 'abort'}",
        ]
        notes.append(Message("nova_timeout", {"seconds": int(timeout * gib)}))
    return lines, notes


def _nova_downtime(config: Config, gib: float) -> tuple[int, int]:
    """Return live_migration_downtime in ms, and the step of Nova that reaches the config's limit.

    Nova must reach the limit before the first pass ends. For a large VM one step takes longer than
    the whole migration. Then the first step has to be the limit, and Nova raises it further.
    """
    limit_ms = config.migration.downtime_limit
    in_time = [
        n
        for n, step in enumerate(downtime_steps(gib, LEAST_DOWNTIME_MS, LEAST_STEPS, LEAST_DELAY_S))
        if step.after_s <= _first_pass_s(config)
    ]

    def limits_ms(downtime_ms: int) -> list[int]:
        steps = downtime_steps(gib, downtime_ms, LEAST_STEPS, LEAST_DELAY_S)
        return [step.limit_ms for step in steps]

    downtime_ms = max(LEAST_DOWNTIME_MS, limit_ms)
    while limits_ms(downtime_ms)[in_time[-1]] < limit_ms:
        downtime_ms += 1
    return downtime_ms, next(n for n, ms in enumerate(limits_ms(downtime_ms)) if ms >= limit_ms)


def _first_pass_s(config: Config) -> float:
    """Return the shortest time to send what is not zero. QEMU needs no downtime limit before."""
    scenario = resolve(config)
    limit, link = scenario.parameters.max_bandwidth or math.inf, scenario.link
    normal_bytes = (scenario.layout.pages - scenario.zero_pages) * scenario.page_bytes
    return normal_bytes / min(link.bandwidth, link.threads_bandwidth, limit)


def _no_time_of_switch(config: Config, tool: str) -> Iterator[Message]:
    """Note that a tool cannot switch when the config does, if it switches at no time."""
    start = config.migration.start_postcopy
    if start != "never" and _switch_s(config) is None:
        yield Message("no_time_of_switch", {"tool": tool, "start": start})


def _kubevirt(config: Config, memory_bytes: int, total_high_s: float | None) -> ToolCommands:
    """Return a MigrationPolicy. spec.configuration.migrations has the same keys for all VMs.

    completionTimeoutPerGiB counts GB of 10^9 bytes, rounded up (getVMIMigrationDataSize). A value
    computed for GiB is never too short.
    """
    migration, numbers = config.migration, parse_parameters(config.migration)
    ram_bytes, switch_s = spec_bytes(memory_bytes), _switch_s(config)
    lines = [
        "apiVersion: migrations.kubevirt.io/v1alpha1",
        "kind: MigrationPolicy",
        "metadata: {name: predicted}",
        "spec:",
        "  selectors: {virtualMachineInstanceSelector: {migration: predicted}}",
        f"  allowAutoConverge: {str(migration.auto_converge).lower()}",
        f"  bandwidthPerMigration: {_mib(numbers.max_bandwidth)}Mi",
    ]
    notes = [Message("kubevirt_label"), *_rounding(numbers.max_bandwidth)]
    if migration.postcopy_ram:
        lines += ["  allowPostCopy: true", "  allowWorkloadDisruption: true"]
        notes += _no_time_of_switch(config, KUBEVIRT)
    manager = known_manager(migration)
    if isinstance(manager, KubeVirt | KubeVirtStall) and migration.postcopy_ram:
        seconds = manager.timeout_s(memory_bytes)  # the simulated one
        lines.append(f"  completionTimeoutPerGiB: {seconds // math.ceil(ram_bytes / GB)}")
        notes.append(Message("kubevirt_postcopy", {"seconds": seconds}))
    elif switch_s is not None:
        timeout = max(1, math.ceil(switch_s / math.ceil(ram_bytes / GB)))
        lines.append(f"  completionTimeoutPerGiB: {timeout}")
        seconds = timeout * math.ceil(ram_bytes / GB)
        notes.append(Message("kubevirt_postcopy", {"seconds": seconds}))
    elif total_high_s is not None:
        timeout = max(1, math.ceil(total_high_s / (ram_bytes / GIB)))
        lines.append(f"  completionTimeoutPerGiB: {timeout}")
        seconds = timeout * math.ceil(ram_bytes / GB)
        notes.append(Message("kubevirt_timeout", {"seconds": seconds}))
    notes.append(Message("kubevirt_progress_timeout"))
    if migration.downtime_limit != MigrationConfig().downtime_limit:
        notes.append(Message("kubevirt_downtime", {"limit_ms": migration.downtime_limit}))
    if migration.multifd_channels != KUBEVIRT_CHANNELS:
        channels = {"used": KUBEVIRT_CHANNELS, "simulated": migration.multifd_channels}
        notes.append(Message("kubevirt_channels", channels))
    notes += _not_settable(migration, "cannot_set", KUBEVIRT)
    return ToolCommands(lines=tuple(lines), notes=tuple(notes))


def _not_settable(
    migration: MigrationConfig, code: str, tool: str, settable: Iterable[str] = ()
) -> Iterator[Message]:
    """Note the throttle settings that a tool cannot set, if they differ from QEMU's defaults."""
    if not migration.auto_converge:
        return
    defaults, lacks = MigrationConfig(), VERSIONS[migration.version].lacks
    settings = {
        name: (_on_off(getattr(migration, key)), _on_off(getattr(defaults, key)))
        for name, key in THROTTLE
        if key not in (*settable, *lacks) and getattr(migration, key) != getattr(defaults, key)
    }
    if settings:
        yield Message(code, {"tool": tool, "settings": settings})


def _mib(bytes_per_s: int) -> int:
    """Return whole MiB/s, rounded down. A limit never becomes 0, which means no limit."""
    return max(1, bytes_per_s // MIB) if bytes_per_s else 0


def _rounding(bytes_per_s: int) -> list[Message]:
    if not bytes_per_s % MIB:
        return []
    rounded = {"mib": bytes_per_s / MIB, "rounded": _mib(bytes_per_s)}
    return [Message("bandwidth_rounded", rounded)]
