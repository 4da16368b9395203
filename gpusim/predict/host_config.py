"""The config of a migration from a profile: QEMU's version and parameters, and the tracking.

The user's overrides replace what the profile says. If the profile does not say it, then gpusim's
default counts and becomes an assumption.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gpusim.config.checks import parse_duration_ns, rate_limit
from gpusim.config.override import refusal, split
from gpusim.config.presets import preset_keys, preset_names
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config, VmConfig, WorkloadConfig
from gpusim.errors import LONGEST_VALUE, ConfigError, one_line
from gpusim.formats.profile import Profile
from gpusim.predict import first_write_costs, host_costs, postcopy_costs
from gpusim.predict.manager_plan import last_action_s, manager_plan
from gpusim.qemu import names
from gpusim.qemu.versions import VERSIONS, Version, nearest
from gpusim.text import Message, version_name
from gpusim.units import LONGEST_NS, NS_PER_S

ASSUMED_VERSION = "qemu_10_1"  # if a profile does not name its QEMU
# Groups that the profile decides, and groups that no prediction uses.
FROM_PROFILE = ("vm", "workload")
ALSO_STATED = ("vm.vfio_devices", "vm.backing")  # keys of these groups that the user may state
NOT_PREDICTED = ("experiment", "sweep", "evacuation", "attempts", "dry_run", "hydra", "plot")
NOT_FOR_ALL = {  # key -> why not, and what to do instead
    "seed": "each simulated migration has its own seed. To draw others, add --seed N",
    "link.wakeup_latency_us": "each simulated migration draws its own. Remove it",
    "limit.wall": "migrations that it stops have no verdict. Remove it, or set fewer --members",
}
SIZE = r"[\d.]+ ?[\w/]*"  # a parameter as a user types it
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
class HostConfig:
    """The config of a migration without a guest.

    Attributes:
        config: VM, link, migration and tracking. The workload is empty.
        costs: the costs of the host that each simulated migration draws, by their keys of `link`.
        first_write_costs: the same for keys of `tracking`.
        postcopy_costs: the same for keys of `postcopy`.
        assumptions: what the profile does not say.
    """

    config: Config
    costs: Mapping[str, host_costs.Range]
    first_write_costs: Mapping[str, host_costs.Range]
    postcopy_costs: Mapping[str, host_costs.Range]
    assumptions: tuple[Message, ...]


def host_config(profile: Profile, overrides: Sequence[str] = ()) -> HostConfig:
    """Return the config of a profile's VM and host.

    Args:
        profile: the profile.
        overrides: as gpusim takes them: "link=25gbit", "migration.downtime_limit=500".

    Raises:
        ConfigError: the profile decides a key, no prediction uses it, there is no such preset or
            key, or a value cannot be simulated.
    """
    from gpusim.config.compose import composed_config  # imports Hydra, which --help does not need

    check_overrides(overrides)
    decided = _decided_by_policy(overrides)
    from_profile = [one for one in _profile_overrides(profile) if _key(one) not in decided]
    config = composed_config([*from_profile, *overrides])
    config.vm = VmConfig(
        memory=profile.memory_bytes,
        page_size=profile.page_bytes,
        vcpus=profile.vcpus,
        vfio_devices=config.vm.vfio_devices,
        backing=config.vm.backing,
        blocks=sorted(profile.blocks.values(), reverse=True) or None,
    )
    config.workload = WorkloadConfig()
    config.plot = False
    stated = {_key(override) for override in overrides}
    if "limit.skip_waiting" not in stated:
        config.limit.skip_waiting = True
    resolve(config)  # refuses every wrong value, before anything is made of one
    last_s = last_action_s(config.migration, profile.memory_bytes)
    if last_s and not stated & {"limit", "limit.simulated"}:  # what it does then is the answer
        limit_s = parse_duration_ns("limit.simulated", config.limit.simulated) // NS_PER_S
        config.limit.simulated = f"{min(limit_s + last_s, LONGEST_NS // NS_PER_S)}s"
    return HostConfig(
        config=config,
        costs=host_costs.ranges(config, stated, profile.zero_page_speed, tls=_uses_tls(profile)),
        first_write_costs=first_write_costs.ranges(config, stated),
        postcopy_costs=postcopy_costs.ranges(config, stated),
        assumptions=tuple(_assumptions(profile, stated | decided, config)),
    )


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise an error for overrides that no prediction can use, before a profile is measured.

    Raises:
        ConfigError: as `host_config`.
    """
    from gpusim.config.compose import composed_config

    for override in overrides:
        given = split(override)
        group = re.split("[./]", given.key)[0]
        if given.key in NOT_FOR_ALL:
            raise refusal(given, NOT_FOR_ALL[given.key], "not_used")
        if group in FROM_PROFILE and given.key not in ALSO_STATED:
            hint = "the profile decides it. Change the profile, or use keys of link, migration, ..."
            raise refusal(given, hint, "not_used")
        if group in NOT_PREDICTED:
            raise refusal(given, "no prediction uses it. Remove it", "not_used")
        if override.startswith("~"):  # the profile's value would be lost, too
            raise refusal(given, f"cannot be removed. Write {given.key}=VALUE", "missing")
    composed_config(overrides)


def _profile_overrides(profile: Profile) -> list[str]:
    version = ASSUMED_VERSION if profile.qemu is None else nearest(profile.qemu)
    # Older versions have only KVM's legacy way.
    kvm = "kvm_manual" if "kvm_manual" in VERSIONS[version].tracking else "kvm_legacy"
    tracking = "tcg" if profile.accelerator == "tcg" else kvm
    overrides = [f"migration={version}", "link=10gbit", f"tracking={tracking}"]
    if profile.backing is not None:
        overrides.append(f"vm.backing={profile.backing}")
    if profile.capabilities is not None:
        auto_converge = "auto-converge" in profile.capabilities
        overrides.append(f"migration.auto_converge={str(auto_converge).lower()}")
        if "multifd" in profile.capabilities and VERSIONS[version].has_multifd:
            channels = profile.parameters.get("multifd-channels", 2)
            if not isinstance(channels, int):  # Hydra would resolve a text such as ${oc.env:HOME}
                hint = "must be a whole number"
                raise ConfigError("parameters.multifd-channels", channels, hint, "not_a_number")
            overrides.append(f"migration.multifd_channels={channels}")
        with_multifd = VERSIONS[version].has_multifd_with_postcopy
        if names.POSTCOPY in profile.capabilities and (
            with_multifd or "multifd" not in profile.capabilities
        ):
            overrides.append("migration.postcopy_ram=true")
    lacks = VERSIONS[version].lacks
    for name, key in PARAMETERS.items():
        if name in profile.parameters and key not in lacks:
            value = profile.parameters[name]
            if not (isinstance(value, bool | int | float) or re.fullmatch(SIZE, str(value))):
                hint = "must be a number, or a size such as 1GiB"
                raise ConfigError(f"parameters.{name}", value, hint, "not_a_number")
            if name == "max-bandwidth" and isinstance(value, int):
                value = rate_limit(value)
            overrides.append(f"migration.{key}={str(value).lower()}")
    return overrides


def _decided_by_policy(overrides: Sequence[str]) -> set[str]:
    """Return the keys of `migration` that a policy sets, whatever the VM has now."""
    values = [one.partition("=")[2] for one in overrides if _key(one) == "policy"]
    names = preset_names("policy")
    chosen = [name for value in values for name in re.split(r"[\[\], ]+", value) if name in names]
    return {f"migration.{key}" for name in chosen for key in preset_keys("policy", name)}


def _key(override: str) -> str:
    return split(override).key


def _assumptions(profile: Profile, keys: set[str], config: Config) -> Iterator[Message]:
    yield from manager_plan(config.migration, profile.memory_bytes)
    if not any(key.partition(".")[0] == "link" for key in keys):
        yield Message("link_assumed")
    if profile.qemu is None and not keys & {"migration", "migration.version"}:
        yield Message("version_assumed", {"version": version_name(ASSUMED_VERSION)})
    if not profile.parameters:
        yield Message("parameters_assumed")
    if profile.capabilities is None and "migration.auto_converge" not in keys:
        yield Message("auto_converge_assumed")
    if profile.accelerator == "kvm" and not any(key.startswith("tracking") for key in keys):
        yield Message("tracking_assumed", {"tracking": config.tracking.mode})
    if _uses_tls(profile) and "link.page_cost_ns" not in keys:
        yield Message("tls_assumed")
    features = _not_simulated(profile, VERSIONS[config.migration.version])
    if features:
        yield Message("not_simulated", {"features": tuple(features)})
    unknown = names.find_unknown(profile.parameters, names.PARAMETERS)
    unknown += names.find_unknown(profile.capabilities or (), names.CAPABILITIES)
    if unknown:
        yield Message("unknown_names", {"names": tuple(unknown)})


def _uses_tls(profile: Profile) -> bool:
    return bool(profile.parameters.get("tls-creds"))


def _not_simulated(profile: Profile, version: Version) -> list[str]:
    """Return the features that the VM uses and gpusim does not simulate."""
    on = set(profile.capabilities or ())
    features = sorted(on.intersection(names.NOT_SIMULATED))
    used = {name: str(profile.parameters.get(name) or "") for name in names.CHOICES}
    if used["zero-page-detection"] == "none":
        features.append("zero-page-detection none")
    if "multifd" in on:
        if used["multifd-compression"] not in ("", "none"):
            features.append(f"multifd-compression {used['multifd-compression']}")
        if used["zero-page-detection"] == "legacy" and version.channels_find_zero_pages:
            features.append("zero-page-detection legacy")
        if profile.qemu and not VERSIONS[nearest(profile.qemu)].has_multifd:
            features.append("multifd")  # gpusim simulates 4.x as an older version
    return [one_line(feature, LONGEST_VALUE) for feature in features]
