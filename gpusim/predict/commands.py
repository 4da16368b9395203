"""The settings of a migration in the words of the tools that people set them in.

Owns names, units, rounding and what a tool cannot set. It decides nothing: values are a config's, times a
prediction's. Sources, beside QEMU's own: libvirt's docs/manpages/virsh.rst (0151db88c2); OpenStack Nova's
nova/conf/libvirt.py (009ffe4127) and nova/virt/libvirt/migration.py (060445aa2f); KubeVirt's
pkg/virt-config/virt-config.go (00182f1eea), pkg/virt-launcher/virtwrap/live-migration-source.go (007bfea9ff)
and staging/src/kubevirt.io/api/migrations/v1alpha1/types.go.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gpusim.config.migration import parse_parameters
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config, MigrationConfig
from gpusim.qemu.versions import VERSIONS

MIB, GIB, GB = 2**20, 2**30, 10**9
LEAST_RAM = 2**27  # sizes of RAM are multiples of it, and video memory and ROMs together are less
NOVAS_LEAST_GIB = (
    2  # live_migration_completion_timeout and _downtime_delay: of a smaller VM as well
)
NOVAS_LEAST_STEPS, NOVAS_LEAST_DELAY_S, NOVAS_LEAST_DOWNTIME_MS = 3, 3, 100
# "Should usually be larger than downtime delay * downtime steps" (live_migration_completion_timeout's help).
NOVAS_LEAST_TIMEOUT = NOVAS_LEAST_DELAY_S * NOVAS_LEAST_STEPS + 1
KUBEVIRTS_CHANNELS = 8  # pkg/virt-handler/migration-source.go:configureParallelMigrationThreads
THROTTLE = (  # as QEMU and as our config name them
    ("throttle-trigger-threshold", "throttle_trigger_threshold"),
    ("cpu-throttle-initial", "cpu_throttle_initial"),
    ("cpu-throttle-increment", "cpu_throttle_increment"),
    ("cpu-throttle-tailslow", "cpu_throttle_tailslow"),
    ("max-cpu-throttle", "max_cpu_throttle"),
)


@dataclass(frozen=True, kw_only=True)
class Words:
    """What to write for one tool.

    Attributes:
        lines: to be typed, or put into a file, as they are; DOMAIN and DESTURI are the user's.
        notes: what is rounded, what the tool cannot set, what else it touches.
    """

    lines: tuple[str, ...]
    notes: tuple[str, ...]


def in_words(
    config: Config,
    memory_bytes: int,
    total_high_s: float | None,
) -> dict[str, Words]:
    """The settings of a config, tool by tool.

    Args:
        memory_bytes: of the VM; timeouts are said a GiB.
        total_high_s: what nineteen in twenty migrations take at most, from which timeouts are rounded up;
            None: they do not converge, so no timeout is right.
    """
    limit_ms = config.migration.downtime_limit
    return {
        "QEMU, QMP": _qmp(config.migration, limit_ms),
        "QEMU, HMP": _hmp(config.migration, limit_ms),
        "libvirt": _libvirt(config.migration, limit_ms, total_high_s),
        "OpenStack Nova": _nova(config, limit_ms, memory_bytes, total_high_s),
        "KubeVirt": _kubevirt(config.migration, limit_ms, memory_bytes, total_high_s),
    }


def _capabilities(migration: MigrationConfig) -> dict[str, bool]:
    found = {"auto-converge": migration.auto_converge}
    if VERSIONS[migration.version].has_multifd:
        found["multifd"] = migration.multifd_channels > 0
    return found


def _parameters(migration: MigrationConfig, limit_ms: int) -> dict[str, int | bool]:
    """Under QEMU's names: bytes a second, ms and percent; those that its version has.

    Source: qapi/migration.json:MigrationParameters.
    """
    numbers, lacks = parse_parameters(migration), VERSIONS[migration.version].lacks
    found: dict[str, int | bool] = {
        "max-bandwidth": numbers.max_bandwidth,
        "downtime-limit": limit_ms,
    }
    if "avail_switchover_bandwidth" not in lacks:
        found["avail-switchover-bandwidth"] = numbers.avail_switchover_bandwidth
    if migration.auto_converge:
        found |= {name: getattr(migration, key) for name, key in THROTTLE if key not in lacks}
    if migration.multifd_channels:
        found["multifd-channels"] = migration.multifd_channels
    return found


def _qmp(migration: MigrationConfig, limit_ms: int) -> Words:
    """On the source; multifd on the destination as well."""
    capabilities = [
        {"capability": name, "state": state} for name, state in _capabilities(migration).items()
    ]
    commands = (
        ("migrate-set-capabilities", {"capabilities": capabilities}),
        ("migrate-set-parameters", _parameters(migration, limit_ms)),
    )
    lines = [json.dumps({"execute": name, "arguments": said}) for name, said in commands]
    return Words(lines=tuple(lines), notes=tuple(_notes_of_qemu(migration)))


def _hmp(migration: MigrationConfig, limit_ms: int) -> Words:
    """The same; bandwidths need their unit there, since a bare number counts MiB/s.

    Source: migration/migration-hmp-cmds.c:hmp_migrate_set_parameter.
    """
    lines = [
        f"migrate_set_capability {name} {_on(state)}"
        for name, state in _capabilities(migration).items()
    ]
    for name, value in _parameters(migration, limit_ms).items():
        unit = "B" if name.endswith("bandwidth") else ""
        said = _on(value) if isinstance(value, bool) else f"{value}{unit}"
        lines.append(f"migrate_set_parameter {name} {said}")
    return Words(lines=tuple(lines), notes=tuple(_notes_of_qemu(migration)))


def _on(state: bool) -> str:
    return "on" if state else "off"


def _notes_of_qemu(migration: MigrationConfig) -> Iterator[str]:
    if migration.multifd_channels:
        yield "multifd and multifd-channels have to be set on the destination too"
    if "max_cpu_throttle" in VERSIONS[migration.version].lacks:
        yield (
            "QEMU 2.6 calls them x-cpu-throttle-initial and x-cpu-throttle-increment, and has "
            "migrate_set_speed and migrate_set_downtime (seconds) for the other two"
        )
    interval = migration.fallback_sync_interval
    if interval is not None:
        yield f"no parameter sets the fallback sync's interval ({interval} here)"


def _libvirt(migration: MigrationConfig, limit_ms: int, total_high_s: float | None) -> Words:
    """Source: virsh.rst, migrate and migrate-setmaxdowntime; bandwidths are whole MiB/s."""
    numbers = parse_parameters(migration)
    options, notes = ["--live"], []
    if migration.auto_converge:
        options += ["--auto-converge", f"--auto-converge-initial {migration.cpu_throttle_initial}"]
        options += [f"--auto-converge-increment {migration.cpu_throttle_increment}"]
    if numbers.max_bandwidth:
        options.append(f"--bandwidth {_mib(numbers.max_bandwidth)}")
        notes += _rounded(numbers.max_bandwidth)
    if migration.multifd_channels:
        options += ["--parallel", f"--parallel-connections {migration.multifd_channels}"]
    if numbers.avail_switchover_bandwidth:
        switchover = _mib(numbers.avail_switchover_bandwidth)
        options.append(f"--available-switchover-bandwidth {switchover}")
        notes.append("--available-switchover-bandwidth: since libvirt 11.1")
    lines = [
        f"virsh migrate-setmaxdowntime DOMAIN {limit_ms}",
        f"virsh migrate {' '.join(options)} DOMAIN DESTURI",
    ]
    if numbers.max_bandwidth:
        notes.append(
            f"while it runs: virsh migrate-setspeed DOMAIN {_mib(numbers.max_bandwidth)} (MiB/s)"
        )
    if total_high_s is not None:
        notes.append(
            f"with --timeout {math.ceil(total_high_s)} --timeout-suspend a migration that takes longer than "
            "nineteen in twenty is ended by suspending the VM"
        )
    settable = ("cpu_throttle_initial", "cpu_throttle_increment")
    notes += _left_out(migration, "virsh", settable, "virsh qemu-monitor-command does, unsupported")
    return Words(lines=tuple(lines), notes=tuple(notes))


def _nova(config: Config, limit_ms: int, memory_bytes: int, total_high_s: float | None) -> Words:
    """nova.conf of the source's compute service.

    Source: nova/conf/libvirt.py; live_migration_parallel_connections is new in 33.0.0 (2026.1).
    """
    migration, numbers = config.migration, parse_parameters(config.migration)
    gib = max(NOVAS_LEAST_GIB, _ram(memory_bytes) / GIB)
    downtime_ms, step = _novas_downtime(config, limit_ms, gib)
    delay_s = int(NOVAS_LEAST_DELAY_S * gib)
    lines = [
        "[libvirt]",
        f"live_migration_permit_auto_converge = {str(migration.auto_converge).lower()}",
        f"live_migration_bandwidth = {_mib(numbers.max_bandwidth)}",
        f"live_migration_downtime = {downtime_ms}",
        f"live_migration_downtime_steps = {NOVAS_LEAST_STEPS}",
        f"live_migration_downtime_delay = {NOVAS_LEAST_DELAY_S}",
    ]
    notes = [
        f"Nova raises the limit step by step: {limit_ms} ms are allowed after {step * delay_s} s, and "
        f"{downtime_ms} ms after {NOVAS_LEAST_STEPS * delay_s} s, if it is not over by then",
        *_rounded(numbers.max_bandwidth),
    ]
    if total_high_s is not None:
        timeout = max(NOVAS_LEAST_TIMEOUT, math.ceil(total_high_s / gib))
        lines += [
            f"live_migration_completion_timeout = {timeout}",
            "live_migration_timeout_action = abort",
        ]
        notes.append(
            f"completion_timeout is seconds a GiB, rounded up and longer than all of Nova's steps: "
            f"{int(timeout * gib)} s for this VM. It counts for every VM of the host, so leave a higher one as it "
            "is (default 800)"
        )
    if migration.multifd_channels > 1:
        lines.append(f"live_migration_parallel_connections = {migration.multifd_channels}")
        notes.append("live_migration_parallel_connections: since Nova 33 (2026.1)")
    if migration.auto_converge:
        notes.append("auto-converge is only used where post-copy is not permitted or not available")
    notes += _left_out(migration, "Nova", ())
    return Words(lines=tuple(lines), notes=tuple(notes))


def _ram(memory_bytes: int) -> int:
    """What a flavour or a VM's spec calls its memory: no video memory, no ROM."""
    return memory_bytes // LEAST_RAM * LEAST_RAM or memory_bytes


def _novas_downtime(config: Config, limit_ms: int, gib: float) -> tuple[int, int]:
    """live_migration_downtime such that the limit is reached before the first pass ends, and by which step.

    Of a large VM a single one of Nova's steps takes longer than the whole migration, so that it is the first
    limit that counts: then it has to be the one that is needed. Nova goes on raising it.
    """
    step = NOVAS_LEAST_STEPS
    while step and int(NOVAS_LEAST_DELAY_S * gib) * step > _first_pass_s(config):
        step -= 1
    downtime_ms = max(NOVAS_LEAST_DOWNTIME_MS, limit_ms)
    while _novas_step_ms(downtime_ms, step) < limit_ms:
        downtime_ms += 1
    while step and _novas_step_ms(downtime_ms, step - 1) >= limit_ms:
        step -= 1  # 100 ms are more than was asked for
    return downtime_ms, step


def _novas_step_ms(downtime_ms: int, step: int) -> int:
    """Source: nova/virt/libvirt/migration.py:downtime_steps."""
    base = downtime_ms / NOVAS_LEAST_STEPS
    return int(base + (downtime_ms - base) / NOVAS_LEAST_STEPS * step)


def _first_pass_s(config: Config) -> float:
    """How long what is not zero takes at least: before that no limit is asked for."""
    scenario = resolve(config)
    zero_pages = int((scenario.zero_last - scenario.zero_first).sum())
    limit, link = scenario.parameters.max_bandwidth or math.inf, scenario.link
    normal_bytes = (scenario.layout.pages - zero_pages) * scenario.page_bytes
    return normal_bytes / min(link.bandwidth, link.threads_bandwidth, limit)


def _kubevirt(
    migration: MigrationConfig, limit_ms: int, memory_bytes: int, total_high_s: float | None
) -> Words:
    """A MigrationPolicy; the same keys in spec.configuration.migrations count for the whole cluster.

    Its timeout counts GB of 10^9 bytes, rounded up, whatever its name says (getVMIMigrationDataSize); said
    for GiB it is never too short.
    """
    numbers = parse_parameters(migration)
    lines = [
        "apiVersion: migrations.kubevirt.io/v1alpha1",
        "kind: MigrationPolicy",
        "metadata: {name: predicted}",
        "spec:",
        "  selectors: {virtualMachineInstanceSelector: {migration: predicted}}",
        f"  allowAutoConverge: {str(migration.auto_converge).lower()}",
        f"  bandwidthPerMigration: {_mib(numbers.max_bandwidth)}Mi",
    ]
    notes = [
        "of VMs that bear the label migration: predicted",
        *_rounded(numbers.max_bandwidth),
    ]
    if total_high_s is not None:
        timeout = max(1, math.ceil(total_high_s / (_ram(memory_bytes) / GIB)))
        lines.append(f"  completionTimeoutPerGiB: {timeout}")
        notes.append(
            "completionTimeoutPerGiB is rounded up (default 150): "
            f"{timeout * math.ceil(_ram(memory_bytes) / GB)} s for this VM, as KubeVirt counts GB of 10^9 bytes"
        )
    notes.append(
        "progressTimeout (150 s) is set in spec.configuration.migrations alone; policy=kubevirt_stall simulates it"
    )
    if limit_ms != MigrationConfig().downtime_limit:
        notes.append(
            f"{limit_ms} ms of downtime: maxDowntimeMs, in releases that have the feature gate "
            "MigrationStallDetection; in others QEMU's 300 ms count"
        )
    if migration.multifd_channels != KUBEVIRTS_CHANNELS:
        notes.append(
            f"KubeVirt sends over {KUBEVIRTS_CHANNELS} multifd channels, and over none where the VM's CPU is "
            f"limited; {migration.multifd_channels} were simulated"
        )
    notes += _left_out(migration, "KubeVirt", ())
    return Words(lines=tuple(lines), notes=tuple(notes))


def _left_out(
    migration: MigrationConfig, tool: str, settable: Iterable[str], way_out: str = ""
) -> Iterator[str]:
    """What a tool cannot set, where that makes a difference."""
    if not migration.auto_converge:
        return
    defaults, lacks = MigrationConfig(), VERSIONS[migration.version].lacks
    differ = [
        f"{name} ({_value(getattr(migration, key))} here, QEMU's default {_value(getattr(defaults, key))})"
        for name, key in THROTTLE
        if key not in (*settable, *lacks) and getattr(migration, key) != getattr(defaults, key)
    ]
    if differ:
        yield f"{tool} cannot set {', '.join(differ)}" + (f"; {way_out}" if way_out else "")


def _value(value: Any) -> str:
    return _on(value) if isinstance(value, bool) else str(value)


def _mib(bytes_per_s: int) -> int:
    """Whole MiB/s, no more than what is asked for; 0 is no limit, and so never what a limit becomes."""
    return max(1, bytes_per_s // MIB) if bytes_per_s else 0


def _rounded(bytes_per_s: int) -> list[str]:
    if not bytes_per_s % MIB:
        return []
    return [f"{bytes_per_s / MIB:.2f} MiB/s of bandwidth are rounded to {_mib(bytes_per_s)}"]
