"""What people call the managers that gpusim brings along. Every text takes their names from here.

A user's own class keeps the name of the class, even if the class has the name of a manager.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gpusim.text import LONGEST_NAME, join_words, shorten, version_name

NOVA, KUBEVIRT, OVIRT = "Nova", "KubeVirt", "oVirt"
PROXMOX, CLOUD_HYPERVISOR = "Proxmox VE", "Cloud Hypervisor"
TOOLS: Mapping[str, str] = {  # MODULE:CLASS, as a config names it -> the tool
    "gpusim.policies.nova:Nova": NOVA,
    "gpusim.policies.kubevirt:KubeVirt": KUBEVIRT,
    "gpusim.policies.kubevirt:KubeVirtStall": KUBEVIRT,
    "gpusim.policies.ovirt:OVirt": OVIRT,
    "gpusim.policies.proxmox:Proxmox": PROXMOX,
    "gpusim.policies.cloud_hypervisor:CloudHypervisor": CLOUD_HYPERVISOR,
}
VARIANTS: Mapping[str, str] = {  # of a tool with two classes -> what tells them apart in a title
    "gpusim.policies.kubevirt:KubeVirtStall": "KubeVirt (stall detection)",
}
_POLICY = re.compile(r"(?:^|, )([a-z_]+) ([\w.]+:[\w.]+)(?=[,(]|$)")  # kind, target


def rule_name(target: str) -> str:
    """Return what a rule or manager is called: "Cloud Hypervisor", or the class if it is a user's.

    Args:
        target: MODULE:CLASS, as the config has it.
    """
    return TOOLS.get(target, re.split("[:.]", target)[-1])


def title_name(target: str) -> str:
    """Return the same, shortened, and different for two managers of one tool."""
    return VARIANTS.get(target) or shorten(rule_name(target), LONGEST_NAME)


def decider_name(version: str, policies: str = "") -> str:
    """Return the version and the names of the user's rules: "QEMU 9.2 with throttle rule MyThrottle".

    Args:
        version: "qemu_9_2".
        policies: as in summary.json: "throttle_rule my_rules:MyThrottle(step=5), manager m:MyManager".
    """
    name = version_name(shorten(version, LONGEST_NAME))
    found = [
        f"{kind.replace('_', ' ')} {title_name(target)}"
        for kind, target in _POLICY.findall(policies)
    ]
    own = join_words(found) or shorten(policies, LONGEST_NAME)
    return f"{name} with {own}" if own else name
