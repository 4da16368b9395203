"""The settings of a migration for Proxmox VE, oVirt and Cloud Hypervisor.

Owns the options of these managers, as commands.py owns those of QEMU, libvirt, Nova and KubeVirt. It
decides nothing. Sources: Proxmox VE's qm.conf and QemuMigrate.pm (migrate_downtime in s, migrate_speed
times 2^20 bytes/s), the migration policies of oVirt-engine's 0000_config.sql (00520f66af), the
Administration Guide of Red Hat Virtualization 4.3, section 8.2.4 (a custom bandwidth is for all
migrations of a host at once, two by default) and Cloud Hypervisor's VmSendMigrationData.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpusim.config.migration import parse_parameters
from gpusim.config.schema import MigrationConfig
from gpusim.policies.cloud_hypervisor import CloudHypervisor
from gpusim.policies.ovirt import OVirt
from gpusim.policies.own_managers import OwnManager
from gpusim.policies.proxmox import Proxmox

MB, MIB, MS_PER_S = 10**6, 2**20, 1000
OVIRT_AT_ONCE = 2
OVIRT_POLICIES = {
    "minimal_downtime": "Minimal downtime",
    "suspend_workload": "Suspend workload if needed",
    "post_copy": "Post-copy migration",
}


def manager_lines(migration: MigrationConfig, manager: OwnManager) -> Iterator[str]:
    """Yield what to type for the manager of a config. Nothing for a manager of commands.py."""
    limit = parse_parameters(migration).max_bandwidth
    if isinstance(manager, Proxmox):
        speed = max(1, limit // MIB) if limit else 0
        seconds = manager.first_ms / MS_PER_S
        yield f"qm set VMID --migrate_downtime {seconds:g} --migrate_speed {speed}"
        yield "qm migrate VMID TARGET --online"
    elif isinstance(manager, OVirt):
        bandwidth = "Hypervisor default"
        if limit:
            megabits = max(1, OVIRT_AT_ONCE * 8 * limit // MB)
            bandwidth = f"Custom, {megabits} Mbps for {OVIRT_AT_ONCE} migrations at once"
        yield f"Cluster > Edit > Migration Policy: {OVIRT_POLICIES[manager.migration_policy]}"
        yield f"Cluster > Edit > Migration Policy > Migration Bandwidth Limit: {bandwidth}"
    elif isinstance(manager, CloudHypervisor):
        options = [f"downtime_ms={migration.downtime_limit}", f"timeout_s={manager.timeout_s}"]
        strategy = "cancel" if manager.at_timeout == "abort" else "ignore"
        options += [
            f"timeout_strategy={strategy}",
            f"connections={max(1, migration.multifd_channels)}",
        ]
        yield f"send-migration: {', '.join(options)}"
