"""The keys of `migration` as numbers and rules, and the attempts that change some of them.

Owns which values QEMU accepts, whose rules decide (the version's or the user's) and how several
attempts follow from one config.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from gpusim.config.checks import (
    check_choice,
    check_whole,
    parse_duration_ns,
    parse_rate,
    parse_value,
    reject,
    reject_key,
)
from gpusim.config.plugins import KINDS, make_factory, policies_of
from gpusim.config.schema import AttemptConfig, Config, MigrationConfig, PolicyConfig
from gpusim.config.types import changed
from gpusim.policies.own_managers import POST_COPY, find_manager, required_settings
from gpusim.policies.user_rule import UserManager
from gpusim.qemu.parameters import MOST_DOWNTIME_LIMIT_MS, MOST_MULTIFD_CHANNELS, Parameters
from gpusim.qemu.versions import VERSIONS, Version, find_version
from gpusim.sender.link import Multifd
from gpusim.units import LONGEST_NS, MOST_COUNT, NS_PER_MS, parse_ns

PERCENT = " percent"


@dataclass(frozen=True, kw_only=True)
class StartPostcopy:
    """When a migration switches to post-copy by itself. All None: never.

    Attributes:
        at_ns: the time.
        after_passes: the number of counted syncs after the first one.
        at_throttle_percent: the throttle.
    """

    at_ns: int | None = None
    after_passes: int | None = None
    at_throttle_percent: int | None = None


def parse_parameters(migration: MigrationConfig) -> Parameters:
    """Return QEMU's migration parameters as numbers.

    Raises:
        ConfigError: QEMU or the chosen version refuses a value.
    """
    check_choice("migration.version", migration.version, VERSIONS, find_version(migration.version))
    version = VERSIONS[migration.version]
    _check_throttle(migration)
    _check_capabilities(migration, version)
    check_whole(
        "migration.downtime_limit", migration.downtime_limit, 0, MOST_DOWNTIME_LIMIT_MS, " ms"
    )
    max_bandwidth = parse_rate(
        "migration.max_bandwidth", migration.max_bandwidth, zero_allowed=True
    )
    postcopy = parse_rate(
        "migration.max_postcopy_bandwidth", migration.max_postcopy_bandwidth, zero_allowed=True
    )
    key = "migration.avail_switchover_bandwidth"
    switchover = parse_rate(key, migration.avail_switchover_bandwidth, zero_allowed=True)
    if math.isinf(switchover):
        hint = "must be finite. Set 0 to use the measured bandwidth"
        reject(key, migration.avail_switchover_bandwidth, hint, "out_of_range")
    for name in version.lacks:
        value, default = getattr(migration, name), getattr(MigrationConfig(), name)
        if value != default:
            hint = f"{migration.version} has no such parameter. Set it to {default}"
            reject(f"migration.{name}", value, hint, "not_supported")
    return Parameters(
        auto_converge=migration.auto_converge,
        max_bandwidth=0 if math.isinf(max_bandwidth) else int(max_bandwidth),
        downtime_limit_ms=migration.downtime_limit,
        avail_switchover_bandwidth=int(switchover),
        throttle_trigger_threshold=migration.throttle_trigger_threshold,
        cpu_throttle_initial=migration.cpu_throttle_initial,
        cpu_throttle_increment=migration.cpu_throttle_increment,
        cpu_throttle_tailslow=migration.cpu_throttle_tailslow,
        max_cpu_throttle=migration.max_cpu_throttle,
        fallback_sync_interval_ns=_parse_interval(migration, version),
        max_postcopy_bandwidth=0 if math.isinf(postcopy) else int(postcopy),
    )


def _check_throttle(migration: MigrationConfig) -> None:
    """Source: migration/options.c:migrate_params_check."""
    threshold = migration.throttle_trigger_threshold
    check_whole("migration.throttle_trigger_threshold", threshold, 1, 100, PERCENT)
    for name in ("cpu_throttle_initial", "cpu_throttle_increment", "max_cpu_throttle"):
        check_whole(f"migration.{name}", getattr(migration, name), 1, 99, PERCENT)
    if migration.cpu_throttle_initial > migration.max_cpu_throttle:
        initial = f"cpu_throttle_initial = {migration.cpu_throttle_initial}"
        allowed = f"must lie between {initial} and 99 percent"
        reject("migration.max_cpu_throttle", migration.max_cpu_throttle, allowed, "contradiction")


def _check_capabilities(migration: MigrationConfig, version: Version) -> None:
    """Refuse capabilities that QEMU, or the version, refuses together.

    Source: migration/options.c:migrate_caps_check.
    """
    key = "migration.postcopy_ram"
    if migration.postcopy_preempt and not migration.postcopy_ram:
        hint = f"needs the capability postcopy-ram. Set {key}=true"
        reject("migration.postcopy_preempt", True, hint, "contradiction")
    if migration.postcopy_preempt and not version.has_preempt:
        hint = f"{migration.version} has no such capability (since QEMU 7.1). Set it to false"
        reject("migration.postcopy_preempt", True, hint, "not_supported")
    if (
        migration.postcopy_ram
        and migration.multifd_channels
        and not version.has_multifd_with_postcopy
    ):
        hint = f"{migration.version} refuses it with multifd (since QEMU 10.1)"
        reject(key, True, f"{hint}. Set migration.multifd_channels=0", "contradiction")


def parse_start_postcopy(migration: MigrationConfig, vm_bytes: int) -> StartPostcopy:
    """Return when the migration switches to post-copy by itself.

    Args:
        migration: its keys.
        vm_bytes: RAM.

    Raises:
        ConfigError: the value has no such form, or post-copy is not permitted.
    """
    key, value = "migration.start_postcopy", migration.start_postcopy
    if value == "never":
        return StartPostcopy()
    if not migration.postcopy_ram:
        hint = "needs the capability postcopy-ram. Set migration.postcopy_ram=true"
        reject(key, value, hint, "contradiction")
    text = str(value)
    if found := re.fullmatch(r"(\d+)(?:pass|passes)", text):
        return StartPostcopy(after_passes=_start_count(key, value, int(found[1]), MOST_COUNT))
    if found := re.fullmatch(r"throttle_(\d+)", text):
        return StartPostcopy(at_throttle_percent=_start_count(key, value, int(found[1]), 99))
    if text.endswith("_per_gib"):
        per_gib_ns = _start_ns(key, value, text.removesuffix("_per_gib"))
        at_ns = round(per_gib_ns * vm_bytes / 2**30)
    else:
        at_ns = _start_ns(key, value, value)
    if not 0 <= at_ns <= LONGEST_NS:
        reject(key, value, "must lie between 0 and 1e8 seconds", "out_of_range")
    return StartPostcopy(at_ns=at_ns)


def _start_count(key: str, value: object, count: int, most: int) -> int:
    if not 1 <= count <= most:
        reject(key, value, f"its number must lie between 1 and {most}", "out_of_range")
    return count


def _start_ns(key: str, value: object, text: int | float | str) -> int:
    try:
        return parse_ns(text)
    except (ValueError, TypeError, OverflowError):
        allowed = "must be never, a time such as 60s, 2passes, 150s_per_gib or throttle_50"
        reject(key, value, allowed, "wrong_format")


def _parse_interval(migration: MigrationConfig, version: Version) -> int | None:
    """Return the fallback sync interval in ns. None switches the fallback sync off."""
    key, interval = "migration.fallback_sync_interval", migration.fallback_sync_interval
    if interval is None:
        return version.fallback_sync_interval_ns
    if interval == "never":
        return None
    if version.fallback_sync_interval_ns is None:
        hint = (
            f"{migration.version} has no fallback sync (since QEMU 9.2). "
            "Remove it or set migration=qemu_9_2"
        )
        reject(key, interval, hint, "not_supported")
    interval_ns = parse_duration_ns(key, interval)
    if interval_ns < NS_PER_MS:
        allowed = "must be at least 1ms, the resolution of QEMU's timer"
        reject(key, interval, allowed, "out_of_range")
    return interval_ns


def make_rules(
    migration: MigrationConfig, parameters: Parameters
) -> tuple[Version, Callable[[], UserManager] | None]:
    """Return the rules that decide, and what makes the user's manager, if there is one.

    The rules are the version's. A user's rule replaces the version's rule of the same kind.

    Raises:
        ConfigError: a user's class cannot be used, or this migration never asks it.
    """
    version, policies = VERSIONS[migration.version], policies_of(migration)
    unused = [name for name in policies if name in ("throttle_rule", "sync_timer_rule")]
    if unused and not migration.auto_converge:
        hint = "is never asked without auto-converge. Set migration.auto_converge=true"
        reject(f"migration.{unused[0]}.target", policies[unused[0]].target, hint, "not_used")
    interval_ns = parameters.fallback_sync_interval_ns
    if "sync_timer_rule" in policies and interval_ns is None:
        hint = (
            f"there is no timer: {migration.version} has none, or fallback_sync_interval is never. "
            "Set migration=qemu_9_2"
        )
        target = policies["sync_timer_rule"].target
        reject("migration.sync_timer_rule.target", target, hint, "not_used")
    if "bandwidth_rule" in policies and parameters.avail_switchover_bandwidth:
        hint = "is never asked. Set migration.avail_switchover_bandwidth=0"
        target = policies["bandwidth_rule"].target
        reject("migration.bandwidth_rule.target", target, hint, "not_used")
    given = {"throttle_rule": (parameters,), "sync_timer_rule": (interval_ns, None)}
    factories = {
        name: make_factory(name, policy, *given.get(name, ())) for name, policy in policies.items()
    }
    _check_required_settings(migration)
    switchover = version.switchover
    if migration.postcopy_ram:
        switchover = version.switchover_if_postcopy or switchover
    version = replace(
        version,
        throttle=factories.get("throttle_rule", version.throttle),
        sync_timer=factories.get("sync_timer_rule", version.sync_timer),
        switchover=factories.get("switchover_rule", switchover),
        bandwidth=factories.get("bandwidth_rule", version.bandwidth),
        foresees_ticks="sync_timer_rule" not in factories,
    )
    return version, factories.get("manager")


def _check_required_settings(migration: MigrationConfig) -> None:
    """Refuse settings that differ from what gpusim's own manager sets. Its arguments are right."""
    policy = migration.manager
    manager = None if policy is None else find_manager(policy.target, policy.args)
    if manager is None:
        return
    for name, value in required_settings(manager).items():
        if getattr(migration, name) != value:
            tool, argument, preset, *_ = POST_COPY[type(manager)]
            verb = "sets" if value else "never uses"
            hint = f"{tool} with {argument} {verb} it. "
            hint += f"Set migration.{name}={str(value).lower()}, or use policy={preset}"
            reject(f"migration.{name}", getattr(migration, name), hint, "contradiction")


def parse_multifd(migration: MigrationConfig, queue_ns: float, page_bytes: int) -> Multifd | None:
    """Return the multifd channels, or None if one thread sends everything.

    Args:
        migration: has the number of channels.
        queue_ns: the migration thread's time for each page.
        page_bytes: size of a guest page.

    Raises:
        ConfigError: the number is out of range, or the QEMU version has no multifd.
    """
    key, channels = "migration.multifd_channels", migration.multifd_channels
    check_whole(key, channels, 0, MOST_MULTIFD_CHANNELS)
    if not channels:
        return None
    version = VERSIONS[migration.version]
    if not version.has_multifd:
        hint = f"{migration.version} has no multifd (since QEMU 4.0). Set it to 0"
        reject(key, channels, hint, "not_supported")
    return Multifd(
        channels=channels,
        page_bytes=page_bytes,
        queue_ns=queue_ns,
        find_zero_pages=version.channels_find_zero_pages,
        sync_every_section=version.syncs_channels_every_section,
    )


@dataclass(frozen=True, kw_only=True)
class AttemptPlan:
    """One of several migrations in one QEMU process.

    Attributes:
        config: of this attempt alone: no attempts, its own migration keys, schedule and seed.
        after_ns: pause since the end of the attempt before.
        resets_capabilities: auto-converge is switched off when this attempt has ended.
        changed_keys: the keys of `migration` that this attempt sets.
    """

    config: Config
    after_ns: int
    resets_capabilities: bool
    changed_keys: frozenset[str]


def plan_attempts(config: Config) -> list[AttemptPlan]:
    """Return the attempts of a config that has some.

    Raises:
        ConfigError: an attempt is not usable.
    """
    if config.schedule:
        hint = "each attempt has its own schedule: attempts=[{schedule: [...]}, ...]"
        reject("schedule", config.schedule, hint, "contradiction")
    return [_plan_attempt(config, n, attempt) for n, attempt in enumerate(config.attempts)]


def _plan_attempt(config: Config, number: int, attempt: AttemptConfig) -> AttemptPlan:
    key = f"attempts[{number}]"
    after_ns = parse_value(f"{key}.after", attempt.after, parse_ns, '"10s" or a number of seconds')
    if not 0 <= after_ns <= LONGEST_NS:
        allowed = "must lie between 0 and 1e8 seconds"
        reject(f"{key}.after", attempt.after, allowed, "out_of_range")
    if after_ns and not number:
        hint = "there is no attempt before the first. Set it to 0"
        reject(f"{key}.after", attempt.after, hint, "not_used")
    if "version" in attempt.migration:
        hint = "one process is one QEMU. Set migration.version for all attempts"
        reject(f"{key}.migration.version", attempt.migration["version"], hint, "contradiction")
    migration = change_migration(f"{key}.migration", config.migration, attempt.migration)
    own = replace(config, migration=migration, schedule=attempt.schedule, attempts=[])
    return AttemptPlan(
        config=replace(own, seed=config.seed + number),
        after_ns=after_ns,
        resets_capabilities=attempt.resets_capabilities,
        changed_keys=frozenset(attempt.migration),
    )


def change_migration(
    key: str, migration: MigrationConfig, keys: Mapping[str, Any]
) -> MigrationConfig:
    """Return a migration's config with some keys changed, and check the types as Hydra does.

    Args:
        key: where the keys stand in the config.
        migration: the config to start from. It is not changed.
        keys: names and values.

    Raises:
        ConfigError: there is no such key, or a value has another type.
    """
    keys = {
        name: _make_policy(f"{key}.{name}", value) if name in KINDS else value
        for name, value in keys.items()
    }
    return changed(migration, keys, key, "migration")


def _make_policy(key: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    names = [field.name for field in fields(PolicyConfig)]
    for name in value:
        if name not in names:
            reject_key(key, str(name), value[name], names, key.rpartition(".")[2])
    return PolicyConfig(**value)
