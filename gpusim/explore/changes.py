"""Changes to a config: one key and its values, in order.

This module decides which single changes may help a migration that does not converge, and how far
each goes. It knows configs and scenarios. It runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from gpusim.config.link import parse_link
from gpusim.config.plugins import policies_of
from gpusim.config.scenario import Scenario, resolve
from gpusim.config.schema import Config
from gpusim.policies.cloud_hypervisor import CloudHypervisor
from gpusim.policies.own_managers import OWN_MANAGERS, POST_COPY, OwnManager
from gpusim.qemu.versions import VERSIONS, Version
from gpusim.sender.link import PS_PER_S

LINK_FACTORS = (1.5, 2, 3, 5, 10, 20, 40)
CHANNELS = (2, 4, 8, 16)
DOWNTIME_FACTORS = (2, 5, 10, 20, 50, 100)
LONGEST_DOWNTIME_MS = 30_000  # a guest that pauses for longer was not migrated live
HIGHEST_THROTTLE = 99  # migration/options.c:migrate_params_check


class Setting(NamedTuple):
    """A config key and its value, both as a user types them."""

    key: str
    value: str


def override_text(setting: Setting | None) -> str:
    """Return "KEY=VALUE" as a user types it, or "" if there is no setting."""
    return "" if setting is None else f"{setting.key}={setting.value}"


def set_key(config: Config, key: str, value: Any) -> Config:
    """Return a copy of a config with one key set, such as "link.bandwidth"."""
    group, name = key.split(".")
    return replace(config, **{group: replace(getattr(config, group), **{name: value})})


def value_text(value: object) -> str:
    """Return a value as a user types it on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def rate_text(bytes_per_s: float) -> str:
    """Return a bandwidth as a user types it: "1.5Gbit/s"."""
    gigabits = bytes_per_s * 8 / 1e9
    return f"{gigabits:g}Gbit/s" if gigabits >= 1 else f"{1000 * gigabits:g}Mbit/s"


@dataclass(frozen=True)
class Change:
    """A key and the values to try, from the smallest change to the largest.

    Attributes:
        key: the key of the config. Empty if no key sets the value.
        values: the later a value, the easier the migration converges with it.
        apply: returns a config with a value. None: set `key` to the value.
        text: returns a value as a user types it.
        also: returns the setting that a value needs too, or None.
    """

    key: str
    values: tuple[Any, ...]
    apply: Callable[[Config, Any], Config] | None = None
    text: Callable[[Any], str] = value_text
    also: Callable[[Any], Setting | None] = lambda _: None

    def config_of(self, config: Config, step: int) -> Config:
        """Return the config with the value of a step."""
        value = self.values[step]
        if self.apply is None:
            return set_key(config, self.key, value)
        return self.apply(config, value)


def single_changes(config: Config, scenario: Scenario) -> Iterator[Change]:
    """Yield the changes that may help: free ones first, then those that cost the guest or money.

    A config may still refuse a value. A run with the value shows that.
    """
    if has_throttle(config):
        yield from _auto_converge(config, scenario)
    yield from _link(config, scenario)
    yield from _downtime(config)
    yield from _postcopy(config)
    yield from (Change(f"migration.{name}", (None,)) for name in policies_of(config.migration))


def _auto_converge(config: Config, scenario: Scenario) -> Iterator[Change]:
    if not config.migration.auto_converge:
        yield Change("migration.auto_converge", (True,))
        return  # without auto-converge QEMU has neither a throttle nor a fallback sync
    if scenario.parameters.fallback_sync_interval_ns is None:
        yield with_fallback_sync(scenario)
    if scenario.parameters.max_cpu_throttle < HIGHEST_THROTTLE:
        yield Change("migration.max_cpu_throttle", (HIGHEST_THROTTLE,))


def with_fallback_sync(scenario: Scenario) -> Change:
    """Return the change that adds QEMU's fallback sync: the interval, or a newer version."""
    if VERSIONS[scenario.version].fallback_sync_interval_ns is not None:
        return Change("migration.fallback_sync_interval", (None,))
    first = next(
        name
        for name, rules in VERSIONS.items()
        if rules.fallback_sync_interval_ns and rules.released
    )
    return Change("migration.version", (first,))


def _link(config: Config, scenario: Scenario) -> Iterator[Change]:
    """Raise the limit that binds: threads, link or rate limit. A recorded link has none."""
    bandwidth, limit = scenario.link.bandwidth, scenario.parameters.max_bandwidth
    if scenario.link.recorded is not None:
        return
    if scenario.link.threads_bandwidth < min(bandwidth, limit or bandwidth):
        channels = tuple(n for n in CHANNELS if n > config.migration.multifd_channels)
        change = Change("migration.multifd_channels", channels)
    elif 0 < limit < bandwidth:
        faster = [factor * limit for factor in LINK_FACTORS if factor * limit <= bandwidth]
        change = _faster(scenario, "migration.max_bandwidth", faster)
    else:
        faster = [factor * bandwidth for factor in LINK_FACTORS]
        change = _faster(scenario, "link.bandwidth", faster)
    if change.values:
        yield change


def _faster(scenario: Scenario, key: str, rates: Sequence[float]) -> Change:
    """Return a change of a rate, with as many channels as can send at that rate."""
    threads = rates_of_channels(scenario)
    now = scenario.migration.multifd_channels

    def channels(rate: float) -> int:
        return next((threads[most] for most in threads if most >= rate), max(threads.values()))

    def apply(config: Config, rate: float) -> Config:
        changed = set_key(config, key, rate_text(rate))
        return set_key(changed, "migration.multifd_channels", channels(rate))

    def also(rate: float) -> Setting | None:
        if channels(rate) == now:
            return None
        return Setting("migration.multifd_channels", str(channels(rate)))

    return Change(key, tuple(rates), apply, rate_text, also)


def rates_of_channels(scenario: Scenario) -> dict[float, int]:
    """Return bytes per second that threads can send -> channels, rising from the present."""
    config, now = scenario.config, scenario.migration.multifd_channels
    rates = {scenario.link.threads_bandwidth: now}
    if _can_add_channels(config, VERSIONS[scenario.version]):
        for channels in (count for count in CHANNELS if count > now):
            migration = replace(config.migration, multifd_channels=channels)
            link = parse_link(config.link, config.vm, migration, scenario.tracking)
            if link.threads_bandwidth > max(rates):
                rates[link.threads_bandwidth] = channels
    return rates


def _can_add_channels(config: Config, version: Version) -> bool:
    """Return whether a QEMU version has multifd beside the capabilities of a config."""
    has_postcopy = config.migration.postcopy_ram
    return version.has_multifd and (not has_postcopy or version.has_multifd_with_postcopy)


def postcopy_start(config: Config) -> str:
    """Return when a switch to post-copy makes sense: all of RAM has been sent once.

    QEMU 11.1 counts a sync on every turn while post-copy is permitted, so its count says nothing. It
    gets the time of a pass.
    """
    if VERSIONS[config.migration.version].switchover_if_postcopy is None:
        return "1pass"
    scenario = resolve(config)
    page_s = scenario.link.page_ps()[0] / PS_PER_S
    if limit := scenario.parameters.max_bandwidth:
        page_s = max(page_s, scenario.link.normal_page_bytes / limit)
    return f"{2**30 / scenario.page_bytes * page_s:.2g}s_per_gib"


def with_postcopy(config: Config, start: str) -> Config:
    """Return a config that permits post-copy, and switches to it by itself."""
    permitted = set_key(config, "migration.postcopy_ram", True)
    return set_key(permitted, "migration.start_postcopy", start)


def postcopy_obstacle(config: Config) -> str:
    """Return why a migration cannot switch to post-copy: vfio, manager, multifd, or "" if it can.

    Source: migration/options.c:migrate_caps_check, hw/vfio/migration.c [7.2 to 11.1].
    """
    if config.vm.vfio_devices:
        return "vfio"
    manager = _own_manager(config)
    if manager is not None and manager not in POST_COPY:
        return "manager"
    has_both = VERSIONS[config.migration.version].has_multifd_with_postcopy
    return "multifd" if config.migration.multifd_channels and not has_both else ""


def has_throttle(config: Config) -> bool:
    """Return whether the manager of a config can throttle the guest. Cloud Hypervisor cannot."""
    return _own_manager(config) is not CloudHypervisor


def _own_manager(config: Config) -> type[OwnManager] | None:
    """Return the class of a config's manager. None: there is no manager, or a user's."""
    policy = config.migration.manager
    return None if policy is None else OWN_MANAGERS.get(policy.target)


def _postcopy(config: Config) -> Iterator[Change]:
    """Switch to post-copy, unless the config has a time for that or QEMU cannot.

    A manager of gpusim's own switches at its own time, which no single change moves.
    """
    if _own_manager(config) is not None:
        return
    if config.migration.start_postcopy != "never" or postcopy_obstacle(config):
        return
    permission = Setting("migration.postcopy_ram", "true")
    also = None if config.migration.postcopy_ram else permission
    start = postcopy_start(config)
    yield Change("migration.start_postcopy", (start,), with_postcopy, also=lambda _: also)


def _downtime(config: Config) -> Iterator[Change]:
    least_ms = max(config.migration.downtime_limit, 100)
    longer = [factor * least_ms for factor in DOWNTIME_FACTORS]
    allowed = tuple(ms for ms in longer if ms <= LONGEST_DOWNTIME_MS)
    if allowed:
        yield Change("migration.downtime_limit", allowed)
