"""What the manager of a config will do with a VM, before anything is simulated: limits and timeouts.

Owns the timetables of gpusim's own managers as messages. A user's manager has no plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gpusim.config.schema import MigrationConfig
from gpusim.policies import names
from gpusim.policies.cloud_hypervisor import CloudHypervisor
from gpusim.policies.kubevirt import KubeVirt, KubeVirtStall
from gpusim.policies.nova import Nova
from gpusim.policies.ovirt import FIRST_MS, OVirt
from gpusim.policies.own_managers import OwnManager, find_manager
from gpusim.policies.proxmox import Proxmox
from gpusim.text import Message

AT_TIMEOUT = {
    "abort": "manager_abort",
    "pause": "manager_pause",
    "force": "manager_force",
    "post_copy": "manager_post_copy",
}


def known_manager(migration: MigrationConfig) -> OwnManager | None:
    """Return the manager of a config that can be simulated, if it is one of gpusim's own."""
    policy = migration.manager
    return None if policy is None else find_manager(policy.target, policy.args)


def manager_plan(migration: MigrationConfig, memory_bytes: int) -> Iterator[Message]:
    """Yield what the manager will do, with its times for a VM.

    Args:
        migration: can be simulated.
        memory_bytes: guest memory that QEMU migrates.
    """
    manager = known_manager(migration)
    if isinstance(manager, Nova):
        yield from _nova(manager, memory_bytes)
    elif isinstance(manager, KubeVirt):
        if manager.limits_ms:
            first_ms, *_, last_ms = manager.limits_ms
            steps = len(manager.limits_ms) - 1
            data = {"first_ms": first_ms, "last_ms": last_ms, "steps": steps, **manager.pace}
            yield Message("kubevirt_plan_ramp", data)
        yield _end(names.KUBEVIRT, manager.at_timeout, manager.timeout_s(memory_bytes))
    elif isinstance(manager, OVirt):
        limits_ms = [item.limit_ms for item in manager.items if item.action == "set"]
        data = {"first_ms": FIRST_MS, "last_ms": limits_ms[-1]}
        switches = any(item.action == "post_copy" for item in manager.items)
        yield Message("ovirt_plan_post_copy" if switches else "ovirt_plan_abort", data)
    elif isinstance(manager, Proxmox):
        yield Message("proxmox_plan_doubles", {"first_ms": manager.first_ms})
        yield _end(names.PROXMOX, "", 0)
    elif isinstance(manager, CloudHypervisor):
        yield Message("cloud_hypervisor_plan", {"limit_ms": migration.downtime_limit})
        yield _end(names.CLOUD_HYPERVISOR, manager.at_timeout, manager.timeout_s)
    elif manager is not None:
        yield Message("kubevirt_plan_stall", manager.limits)
        yield _end(names.KUBEVIRT, manager.at_timeout, manager.timeout_s(memory_bytes))


def last_action_s(migration: MigrationConfig, memory_bytes: int) -> int:
    """Return when the manager of a config acts for the last time on a VM, in s. 0: unknown.

    Args:
        migration: can be simulated.
        memory_bytes: guest memory that QEMU migrates.
    """
    manager = known_manager(migration)
    if isinstance(manager, Nova):
        return max(manager.timeout_s(memory_bytes), manager.steps(memory_bytes)[-1].after_s)
    if isinstance(manager, CloudHypervisor):
        return manager.timeout_s
    if isinstance(manager, KubeVirt | KubeVirtStall):
        return 2 * manager.timeout_s(memory_bytes)  # it may pause the VM, and abort as much later
    return 0


def _nova(manager: Nova, memory_bytes: int) -> Iterator[Message]:
    first, second, *_, last = steps = manager.steps(memory_bytes)
    data: Mapping[str, Any] = {
        "first_ms": first.limit_ms,
        "wait_s": second.after_s,
        "steps": len(steps) - 1,
        "last_ms": last.limit_ms,
        "last_s": last.after_s,
    }
    yield Message("nova_plan_steps", data)
    yield _end(names.NOVA, manager.at_timeout, manager.timeout_s(memory_bytes))


def _end(tool: str, action: str, timeout_s: int) -> Message:
    """Return what happens at the timeout."""
    if not timeout_s:
        return Message("manager_without_timeout", {"tool": tool})
    return Message(AT_TIMEOUT[action], {"tool": tool, "timeout_s": timeout_s})
