"""The managers that gpusim brings along, by the target that a config names.

A class that extends one of them is another manager, about which gpusim knows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from gpusim.policies.cloud_hypervisor import CloudHypervisor
from gpusim.policies.kubevirt import KubeVirt, KubeVirtStall
from gpusim.policies.names import KUBEVIRT, NOVA, OVIRT
from gpusim.policies.nova import Nova
from gpusim.policies.ovirt import OVirt
from gpusim.policies.proxmox import Proxmox

OwnManager: TypeAlias = Nova | KubeVirt | KubeVirtStall | OVirt | Proxmox | CloudHypervisor

OWN_MANAGERS: Mapping[str, type[OwnManager]] = {
    "gpusim.policies.nova:Nova": Nova,
    "gpusim.policies.kubevirt:KubeVirt": KubeVirt,
    "gpusim.policies.kubevirt:KubeVirtStall": KubeVirtStall,
    "gpusim.policies.ovirt:OVirt": OVirt,
    "gpusim.policies.proxmox:Proxmox": Proxmox,
    "gpusim.policies.cloud_hypervisor:CloudHypervisor": CloudHypervisor,
}


class Permission(NamedTuple):
    """How a manager is permitted to switch to post-copy.

    Attributes:
        tool: its name.
        argument: that permits it, as a user types it.
        preset: that has the argument.
        args: of the class, as the preset has them.
        settings: keys of `migration`, as the preset has them.
    """

    tool: str
    argument: str
    preset: str
    args: Mapping[str, Any]
    settings: Mapping[str, Any]


_KUBEVIRT = {"allow_workload_disruption": True, "allow_post_copy": True}
_ONE_THREAD = {"postcopy_ram": True, "multifd_channels": 0}
# The other managers have no post-copy.
POST_COPY: Mapping[type[OwnManager], Permission] = {
    Nova: Permission(
        NOVA,
        "permit_post_copy=true",
        "nova_post_copy",
        {"timeout_action": "force_complete", "permit_post_copy": True},
        {"postcopy_ram": True, "auto_converge": False},
    ),
    KubeVirt: Permission(
        KUBEVIRT, "allow_post_copy=true", "kubevirt_post_copy", _KUBEVIRT, _ONE_THREAD
    ),
    KubeVirtStall: Permission(
        KUBEVIRT, "allow_post_copy=true", "kubevirt_stall_post_copy", _KUBEVIRT, _ONE_THREAD
    ),
    OVirt: Permission(
        OVIRT,
        "migration_policy=post_copy",
        "ovirt_post_copy",
        {"migration_policy": "post_copy"},
        {"postcopy_ram": True},
    ),
}


def find_manager(target: str, args: Mapping[str, Any]) -> OwnManager | None:
    """Return gpusim's own manager of a config. None: the class is a user's.

    Args:
        target: MODULE:CLASS, as the config has it.
        args: of the class.

    Raises:
        ArgumentError: an argument is out of range.
        TypeError: the class has no such argument.
    """
    kind = OWN_MANAGERS.get(target)
    return None if kind is None else kind(**args)


def required_settings(manager: OwnManager) -> Mapping[str, bool]:
    """Return the keys of `migration` that a manager sets itself, and their values."""
    if isinstance(manager, Proxmox | CloudHypervisor):
        return {}
    return manager.required_settings
