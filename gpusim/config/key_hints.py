"""What to type in place of a key that does not exist: the key that was probably meant.

`compose_errors.py` uses these texts. This module knows the keys of the config and of the presets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from gpusim.config.presets import preset_groups
from gpusim.config.schema import PATTERNS, Config, WorkloadConfig
from gpusim.qemu.versions import find_version
from gpusim.text import sentences

# What users of other tools call a key, in any group.
NAMES_ELSEWHERE = {
    "cpus": "vm.vcpus",
    "smp": "vm.vcpus",
    "cores": "vm.vcpus",
    "mem": "vm.memory",
    "ram": "vm.memory",
    "size": "vm.memory",
    "speed": "link.bandwidth",
    "rate": "link.bandwidth",
    "network": "link.bandwidth",
    "maxmem": "vm.memory",
    "downtime": "migration.downtime_limit",
    "max_downtime": "migration.downtime_limit",
    "max_speed": "migration.max_bandwidth",
    "bandwidth_limit": "migration.max_bandwidth",
    "bwlimit": "migration.max_bandwidth",
    "multifd": "migration.multifd_channels",
    "channels": "migration.multifd_channels",
    "connections": "migration.multifd_channels",
    "parallel": "migration.multifd_channels",
    "autoconverge": "migration.auto_converge",
    "postcopy": "migration.postcopy_ram=true",
    "capabilities": "migration.postcopy_ram=true",
    "throttle_initial": "migration.cpu_throttle_initial",
    "throttle_increment": "migration.cpu_throttle_increment",
    "max_throttle": "migration.max_cpu_throttle",
    "dirty_rate": "workload.page_writes_per_s",
    "dirtyrate": "workload.page_writes_per_s",
    "writes": "workload.page_writes_per_s",
    "wss": "workload.working_set",
    "deadline": "limit.simulated",
    "timeout": "limit.simulated",
    "max_time": "limit.simulated",
    "time_limit": "limit.simulated",
    "manager": "policy",
    "time": "limit.simulated",
    "page_writes": "workload.page_writes_per_s",
    "workload.rate": "workload.page_writes_per_s",
    "quiet": "gpusim --quiet",
    "json": "gpusim --json",
}
# What users call a preset, in lower case and without punctuation -> our name, by group.
PRESETS_ELSEWHERE = {
    "policy": {
        **dict.fromkeys(("openstack", "openstacknova", "novacompute"), "nova"),
        **dict.fromkeys(("pve", "proxmoxve", "proxmoxvirtualenvironment"), "proxmox"),
        **dict.fromkeys(("rhv", "rhev", "rhevm", "olvm", "vdsm"), "ovirt"),
        **dict.fromkeys(("openshift", "cnv", "harvester", "virtlauncher"), "kubevirt"),
        **dict.fromkeys(("cloudhypervisor", "chv", "ch"), "cloud_hypervisor_upstream"),
    },
    "backend": {**dict.fromkeys(("gpu", "cuda", "nvidia"), "cupy"), "cpu": "numba"},
}
VERSION_KEYS = ("qemu", "version", "qemu_version", "release")


def unknown_key_text(key: str, kind: Any, folders: Sequence[Path], value: object = None) -> str:
    """Return that there is no such key, the key that was probably meant, and the group's keys.

    Args:
        key: that does not exist.
        kind: the data class of its group.
        folders: of the user's, with more presets.
        value: that was set, if it is known.
    """
    group, _, name = key.rpartition(".")
    path = re.sub(r"\[\d*\]", "", key)
    outer = path.rpartition(".")[0]
    hints = [hint.replace(f"{outer}.", f"{group}.") for hint in nearest_keys(path, folders, value)]
    parts = ["no such key", *hints]
    if isinstance(kind, type) and is_dataclass(kind):
        parts.append(f"{group or 'The config'} has {', '.join(names_of(kind))}")
    owners = [f"workload={pattern}" for pattern, one in PATTERNS.items() if name in names_of(one)]
    if kind in PATTERNS.values() and owners:
        parts.append(f"{name} is a key of {' or '.join(owners)}")
    return sentences(*parts)


def package_text(key: str, folders: Sequence[Path]) -> str:
    """Return that a preset's file lacks the line with its package, or nothing if that is not it."""
    group, _, rest = key.partition(".")
    if group not in preset_groups(folders):
        return ""
    if not rest and group not in names_of(Config):
        package = "migration" if group == "policy" else "_global_"
        why = f"its file sets keys of {group}, and the config has no such key"
        return f"{why}. Begin the file with the line # @package {package}"
    if rest == group:
        why = f"its file sets keys of {group} already"
        return f"{why}. Remove {group}: from it, or begin it with the line # @package _global_"
    return ""


def nearest_keys(key: str, folders: Sequence[Path], value: object = None) -> list[str]:
    """Return a hint at the key that was probably meant: a similar one, or the same name elsewhere."""
    guest = re.match(r"evacuation\.guests\.[^.]+\.", key)
    if guest:  # it has keys as the whole config has
        hints = nearest_keys(key[guest.end() :], (), value)
        return [hint.replace(" mean ", f" mean {guest[0]}") for hint in hints]
    group, _, name = key.rpartition(".")
    if name in VERSION_KEYS and group in ("", "migration"):
        return [f"Did you mean migration={find_version(value) or 'qemu_9_2'}?"]
    keys = keys_of(Config) + preset_groups(folders)
    keys = [one for one in keys if one != key and not one.startswith("evacuation.guests.")]
    here = {one.rpartition(".")[2]: one for one in keys if one.rpartition(".")[0] == group}
    same = [one for one in keys if one.rpartition(".")[2] == name]
    every = {one.rpartition(".")[2]: one for one in reversed(keys)}
    close = [here[one] for one in get_close_matches(name, here, 1, 0.7)] if group else []
    plain = name.lower().replace("-", "_")
    elsewhere = NAMES_ELSEWHERE.get(f"{group}.{plain}", NAMES_ELSEWHERE.get(plain))
    close = close or ([elsewhere] if elsewhere else same)
    close = close or [here[one] for one in get_close_matches(name, here, 1, 0.7)]
    close = close or [every[one] for one in get_close_matches(name, every, 1, 0.8)]
    return [f"Did you mean {' or '.join(close[:3])}?"] if close else []


def names_of(kind: Any) -> list[str]:
    """Return the names of a data class's fields."""
    return [field.name for field in fields(kind)]


@cache
def keys_of(kind: Any, prefix: str = "") -> list[str]:
    """Return all keys of a data class. Those of `workload` are the keys of every pattern."""
    found: list[str] = []
    for name, annotation in get_type_hints(kind).items():
        found.append(prefix + name)
        parts: list[Any] = [one for one in (annotation, *get_args(annotation)) if is_dataclass(one)]
        if parts == [WorkloadConfig]:
            parts = list(PATTERNS.values())
        found += [key for part in parts for key in keys_of(part, f"{prefix}{name}.")]
    return list(dict.fromkeys(found))
