"""What a profile says of the host: its QEMU, its parameters and how writes are tracked, as overrides of gpusim's config.

What the user sets comes behind and wins. What a profile cannot tell is gpusim's default, and said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpusim.config.checks import rate_limit
from gpusim.config.schema import Config, VmConfig, WorkloadConfig
from gpusim.errors import ConfigError
from gpusim.formats.profile import Profile
from gpusim.qemu import names
from gpusim.qemu.versions import VERSIONS, nearest
from gpusim.text import Message, version_name

LATEST = "qemu_10_1"
# What no profile decides, or this program alone.
FROM_PROFILE = ("vm", "workload")
NOT_PREDICTED = ("experiment", "sweep", "evacuation", "attempts", "dry_run", "hydra", "plot")
NOT_FOR_ALL = {  # what would be lost, or leave members without a verdict, and what to do
    "seed": "each simulated migration has its own; --seed N draws others",
    "link.wakeup_latency_us": "is drawn for each simulated migration; leave it out",
    "limit.wall": "leaves migrations without a verdict; leave it out, or name fewer --members",
}
SIZE = r"[\d.]+ ?[\w/]*"  # of a parameter that somebody typed
PARAMETERS = {  # QEMU's name -> ours
    "max-bandwidth": "max_bandwidth",
    "downtime-limit": "downtime_limit",
    "avail-switchover-bandwidth": "avail_switchover_bandwidth",
    "throttle-trigger-threshold": "throttle_trigger_threshold",
    "cpu-throttle-initial": "cpu_throttle_initial",
    "cpu-throttle-increment": "cpu_throttle_increment",
    "cpu-throttle-tailslow": "cpu_throttle_tailslow",
    "max-cpu-throttle": "max_cpu_throttle",
}


@dataclass(frozen=True, kw_only=True)
class Host:
    """A config of the host's, whose guest is to be filled in, and how it was taken.

    Attributes:
        assumptions: what the profile does not tell, and how it was taken.
    """

    config: Config
    assumptions: tuple[Message, ...]


def host_of(profile: Profile, overrides: Sequence[str] = ()) -> Host:
    """The host of a profile, with what the user changes about it.

    Args:
        overrides: as gpusim takes them: "link=25gbit", "migration.downtime_limit=500".

    Raises:
        ConfigError: a change that belongs to the profile or cannot be predicted, or a parameter of the profile's
            that is no number.
        HydraException, OmegaConfBaseException: there is no such preset or key.
    """
    from gpusim.config.compose import composed_config  # Hydra; --help can do without

    check(overrides)
    config = composed_config([*_told(profile), *overrides])
    config.vm = VmConfig(
        memory=profile.memory_bytes,
        page_size=profile.page_bytes,
        vcpus=profile.vcpus,
        blocks=sorted(profile.blocks.values(), reverse=True) or None,
    )
    config.workload = WorkloadConfig()
    config.plot = False
    return Host(config=config, assumptions=tuple(_assumptions(profile, overrides, config)))


def check(overrides: Sequence[str]) -> None:
    """Refuse what no profile can be predicted with, before one is measured.

    Raises:
        ConfigError, HydraException, OmegaConfBaseException: as `host_of`.
    """
    from gpusim.config.compose import composed_config

    for override in overrides:
        _allow(override)
    composed_config(overrides)


def _allow(override: str) -> None:
    key, _, value = override.lstrip("+~").partition("=")
    group = re.split("[./@]", key)[0]
    if key in NOT_FOR_ALL:
        raise ConfigError(key, value, NOT_FOR_ALL[key])
    if group in FROM_PROFILE:
        raise ConfigError(
            key, value, "the profile says it; expected keys of link, migration, tracking, ..."
        )
    if group in NOT_PREDICTED:
        raise ConfigError(key, value, "is not predicted from a profile; leave it out")


def _told(profile: Profile) -> list[str]:
    """Overrides for what the profile tells."""
    version = LATEST if profile.qemu is None else nearest(profile.qemu)
    told = [f"migration={version}", "link=10gbit"]
    manual = "kvm_manual" in VERSIONS[version].tracking  # older ones have KVM's legacy way alone
    kvm = "kvm_manual" if manual else "kvm_legacy"
    told.append(f"tracking={'tcg' if profile.accelerator == 'tcg' else kvm}")
    if profile.capabilities is not None:
        on = "auto-converge" in profile.capabilities
        told.append(f"migration.auto_converge={str(on).lower()}")
        if "multifd" in profile.capabilities and VERSIONS[version].has_multifd:
            channels = profile.parameters.get("multifd-channels", 2)
            told.append(f"migration.multifd_channels={channels}")
    lacks = VERSIONS[version].lacks
    for name, key in PARAMETERS.items():
        if name in profile.parameters and key not in lacks:
            value = profile.parameters[name]
            if not (isinstance(value, bool | int | float) or re.fullmatch(SIZE, str(value))):
                raise ConfigError(f"parameters.{name}", value, "must be a number, or a size")
            if name == "max-bandwidth" and isinstance(value, int):
                value = rate_limit(value)
            told.append(f"migration.{key}={str(value).lower()}")
    return told


def _assumptions(profile: Profile, overrides: Sequence[str], config: Config) -> Iterator[Message]:
    keys = {override.lstrip("+~").partition("=")[0] for override in overrides}
    if not any(key.partition(".")[0] == "link" for key in keys):
        yield Message("link_assumed")
    if profile.qemu is None and not keys & {"migration", "migration.version"}:
        yield Message("version_assumed", {"version": version_name(LATEST)})
    if not profile.parameters:
        yield Message("parameters_assumed")
    if profile.capabilities is None and "migration.auto_converge" not in keys:
        yield Message("auto_converge_assumed")
    if profile.accelerator == "kvm" and not any(key.startswith("tracking") for key in keys):
        yield Message("tracking_assumed", {"tracking": config.tracking.mode})
    foreign = _foreign(profile)
    if foreign:
        yield Message("not_simulated", {"features": tuple(foreign)})
    unknown = names.unknown(profile.parameters, names.PARAMETERS)
    unknown += names.unknown(profile.capabilities or (), names.CAPABILITIES)
    if unknown:
        yield Message("unknown_names", {"names": tuple(unknown)})
    if not config.link.non_ram_downtime_ms:
        yield Message("only_ram_downtime")


def _foreign(profile: Profile) -> list[str]:
    """What is on in a VM and not simulated."""
    on = set(profile.capabilities or ())
    found = sorted(on.intersection(names.NOT_SIMULATED))
    if "multifd" in on:
        packed = profile.parameters.get("multifd-compression", "none")
        if packed != "none":
            found.append(f"multifd-compression {packed}")
        if profile.qemu and not VERSIONS[nearest(profile.qemu)].has_multifd:
            found.append("multifd")  # 4.x is simulated as what came before it
    return found
