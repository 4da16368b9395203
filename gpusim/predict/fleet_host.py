"""What a fleet's host can do at the least and at the most: seconds per page, syncs, and the throttle.

A prediction draws the costs of the host that nobody stated. Here both ends of each range count, so
that an answer holds for every host between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from gpusim.config.checks import reject
from gpusim.config.link import parse_link
from gpusim.config.override import refusal, split
from gpusim.config.scenario import resolve
from gpusim.config.schema import Config
from gpusim.formats.profile import Profile
from gpusim.guest.run_time import slice_ns
from gpusim.predict.host_config import host_config
from gpusim.predict.host_costs import DOWNTIME_FACTOR
from gpusim.qemu.parameters import Parameters
from gpusim.qemu.rules import ThrottlePolicy
from gpusim.qemu.sync import PERIOD_MS, Period
from gpusim.qemu.versions import Version
from gpusim.sender.link import PS_PER_S, UNITS
from gpusim.text import Message
from gpusim.units import GIB, NS_PER_S

# Windows, wake-ups and the frames of bursts cost a sender a few per cent at the most.
SLOWER, FASTER = 1.05, 0.99  # factors on the seconds per page
LEAST_PAGE_S = 1 / PS_PER_S  # the sender counts picoseconds
TURN_S = 0.05  # a burst: the shortest turn of QEMU's main loop that sends (ram.c:MAX_WAIT)
MOST_PERIODS = 1000
NOT_SIMULATED = ("limit", "backend")  # groups that only a simulation reads
NOT_FOR_A_FLEET: Mapping[str, Callable[[Config], bool]] = {  # key -> whether the config has it
    "schedule": lambda config: bool(config.schedule),
    "policy": lambda config: (
        any(
            getattr(config.migration, f"{kind}_rule") is not None
            for kind in ("throttle", "sync_timer", "switchover", "bandwidth")
        )
        or config.migration.manager is not None
    ),
    "link.changes": lambda config: config.link.changes is not None,
    "link.recorded": lambda config: config.link.recorded is not None,
    "tracking.page_size": lambda config: config.tracking.page_size is not None,
}


@dataclass(frozen=True, kw_only=True)
class ThrottleStep:
    """A throttle percentage that QEMU's rule sets, and after how many high periods at the earliest."""

    percent: int
    periods: int

    @property
    def sleep_s(self) -> float:
        """Return how long the throttle keeps a vCPU asleep."""
        return slice_ns(self.percent)[1] / NS_PER_S if self.percent else 0.0


@dataclass(frozen=True, kw_only=True)
class FleetHost:
    """The host of a fleet, for one link.

    Attributes:
        page_bytes: bytes of a guest page.
        bandwidth: of the link, bytes per second.
        slow_page_s, fast_page_s: the longest and the shortest time of a page that is not zero.
        slow_zero_s, fast_zero_s: the same for a zero page.
        limit_s: QEMU's downtime limit.
        switchover_bytes_per_s: avail-switchover-bandwidth. 0: QEMU measures.
        threshold_percent: the share of the sent bytes above which a period is high.
        steps: of the throttle, rising, after 0 %. Only 0 % without auto-converge.
        syncs_early: a sync may come in the first pass.
        syncs_every_turn: each turn of the main loop syncs.
        fallback_s: time between two fallback syncs. Infinite: there are none.
        sync_s, sync_s_per_gib: time of a sync.
        start_s_per_gib: time to protect all pages before the first sync.
        sync_page_s: time that a sync adds for each dirty page.
        waits_for_vcpus: a sync waits for vCPUs that the throttle put to sleep.
        first_write_s: the longest vCPU time of a first write.
        first_write_lock_s: the part of it in which other vCPUs wait.
        non_ram_s: lowest and highest downtime for all but RAM, by vCPUs: a + b * vcpus.
    """

    page_bytes: int
    bandwidth: float
    slow_page_s: float
    fast_page_s: float
    slow_zero_s: float
    fast_zero_s: float
    limit_s: float
    switchover_bytes_per_s: float
    threshold_percent: int
    steps: tuple[ThrottleStep, ...]
    syncs_early: bool
    syncs_every_turn: bool
    fallback_s: float
    sync_s: float
    sync_s_per_gib: float
    start_s_per_gib: float
    sync_page_s: float
    waits_for_vcpus: bool
    first_write_s: float
    first_write_lock_s: float
    non_ram_s: tuple[tuple[float, float], tuple[float, float]]

    @property
    def fast_bytes_per_s(self) -> float:
        """Return the most guest memory that the sender sends per second."""
        return self.page_bytes / self.fast_page_s

    def slow_bytes_per_s(self, memory_bytes: int) -> float:
        """Return the least guest memory that it sends per second, with the syncs of a timer."""
        sync_s = self.sync_time_s(memory_bytes)
        shares = [1.0 - min(0.9, sync_s / self.fallback_s)]
        if self.syncs_every_turn:
            shares.append(TURN_S / (TURN_S + sync_s))
        return self.page_bytes / self.slow_page_s * min(shares)

    def sync_time_s(self, memory_bytes: int, dirty_bytes: float = 0.0) -> float:
        """Return the longest time of a sync that finds so many dirty bytes."""
        waits_s = self.steps[-1].sleep_s if self.waits_for_vcpus else 0.0
        pages = dirty_bytes / self.page_bytes
        return (
            self.sync_s
            + self.sync_s_per_gib * memory_bytes / GIB
            + pages * self.sync_page_s
            + waits_s
        )

    def non_ram_time_s(self, vcpus: int) -> tuple[float, float]:
        """Return the lowest and the highest downtime for all but RAM."""
        low, high = (fixed + per_vcpu * vcpus for fixed, per_vcpu in self.non_ram_s)
        return low, high


class FleetHosts:
    """The hosts of a fleet: one config, and a link for each VM.

    Args:
        overrides: as gpusim takes them.

    Attributes:
        drawn: the config of a VM without a guest, and the costs of the host that a prediction draws.

    Raises:
        ConfigError: a value cannot be simulated, or no bound is known for what it asks.
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        _check_groups(overrides)
        profile = Profile(source="fleet", memory_bytes=GIB, vcpus=1)
        self.drawn = found = host_config(profile, overrides)
        self._check(found.config, overrides)
        self._config = found.config
        self._costs, self._write_costs = found.costs, found.first_write_costs
        self._small = resolve(self._config)
        self._large = resolve(
            replace(self._config, vm=replace(self._config.vm, memory=1024 * GIB, blocks=None))
        )
        self.of = cache(self._of)

    @property
    def version(self) -> str:
        """Return the name of the QEMU version whose rules decide."""
        return self._config.migration.version

    @property
    def parameters(self) -> Parameters:
        """Return QEMU's migration parameters."""
        return self._small.parameters

    def sender(self) -> Message:
        """Tell how fast the sender is at the least and at the most, on the link of the command."""
        host = self.of(None)
        return Message(
            "fleet_sender",
            {
                "low_bytes_per_s": host.page_bytes / host.slow_page_s,
                "high_bytes_per_s": host.fast_bytes_per_s,
            },
        )

    def _check(self, config: Config, overrides: Sequence[str]) -> None:
        for key, is_there in NOT_FOR_A_FLEET.items():
            if is_there(config):
                typed = [one for one in map(split, overrides) if one.key.startswith(key)]
                hint = "a fleet is judged with QEMU's own rules and one steady link. Remove it, or "
                hint += "predict each VM by itself"
                if typed:
                    raise refusal(typed[-1], hint, "not_used")
                reject(key, "given", hint, "not_used")

    def _of(self, bandwidth: float | None) -> FleetHost:
        """Return the host with a link of so many bytes per second. None: the link of the command."""
        link = (
            self._config.link
            if bandwidth is None
            else replace(
                self._config.link, bandwidth=bandwidth if math.isfinite(bandwidth) else "unlimited"
            )
        )
        config = replace(self._config, link=link)
        slow, fast = self._pages_s(config, high=True), self._pages_s(config, high=False)
        scenario, rules = self._small, self._small.rules
        tracking, large = scenario.tracking, self._large.tracking
        sync_ns = tracking.log_sync_ns + tracking.merge_ns
        per_gib_ns = (large.log_sync_ns + large.merge_ns - sync_ns) / 1023
        interval_ns = scenario.parameters.fallback_sync_interval_ns
        timer_ns = interval_ns if scenario.parameters.auto_converge else None
        write_s = self._highest_write_s(config)
        return FleetHost(
            page_bytes=scenario.page_bytes,
            bandwidth=scenario.link.bandwidth if bandwidth is None else bandwidth,
            slow_page_s=slow[0],
            slow_zero_s=slow[1],
            fast_page_s=fast[0],
            fast_zero_s=fast[1],
            limit_s=scenario.parameters.downtime_limit_ms / 1000,
            switchover_bytes_per_s=scenario.parameters.avail_switchover_bandwidth,
            threshold_percent=scenario.parameters.throttle_trigger_threshold,
            steps=throttle_steps(rules, scenario.parameters),
            syncs_early=_syncs_early(rules, timer_ns),
            syncs_every_turn=_syncs_every_turn(rules),
            fallback_s=timer_ns / NS_PER_S if timer_ns else math.inf,
            sync_s=(sync_ns - per_gib_ns) / NS_PER_S,
            sync_s_per_gib=per_gib_ns / NS_PER_S,
            start_s_per_gib=(large.start_ns - tracking.start_ns) / 1023 / NS_PER_S,
            sync_page_s=tracking.sync_protect_ns / NS_PER_S,
            waits_for_vcpus=tracking.waits_for_vcpus is not None,
            first_write_s=write_s[0],
            first_write_lock_s=write_s[1],
            non_ram_s=self._non_ram_s(config),
        )

    def _pages_s(self, config: Config, *, high: bool) -> tuple[float, float]:
        """Return the seconds of a normal and of a zero page at one end of the costs."""
        link_config = config.link
        if cost := self._costs.get("page_cost_ns"):
            link_config = replace(link_config, page_cost_ns=cost.high if high else cost.low)
        if cost := self._costs.get("zero_page_scan"):
            link_config = replace(link_config, zero_page_scan=cost.low if high else cost.high)
        scenario = self._small
        link = parse_link(link_config, config.vm, config.migration, scenario.tracking)
        seconds = [ps / PS_PER_S for ps in link.page_ps()]
        if limit := scenario.parameters.max_bandwidth:
            seconds = [
                max(one_s, units / UNITS / limit)
                for one_s, units in zip(seconds, link.page_units, strict=True)
            ]
        factor = SLOWER if high else FASTER
        protect_s = max(link.protect_ns, link.first_protect_ns) / NS_PER_S if high else 0.0
        normal_s, zero_s = (factor * max(one_s + protect_s, LEAST_PAGE_S) for one_s in seconds)
        return normal_s, zero_s

    def _highest_write_s(self, config: Config) -> tuple[float, float]:
        tracking = config.tracking
        values = {
            key: self._write_costs[key].high if key in self._write_costs else getattr(tracking, key)
            for key in ("first_write_cost_ns", "first_write_serial_percent")
        }
        cost_s = values["first_write_cost_ns"] / NS_PER_S
        share = values["first_write_serial_percent"] / 100
        if not tracking.eager_page_split:
            cost_s = max(cost_s, tracking.split_write_cost_ns / NS_PER_S)
            share = max(share, tracking.split_write_serial_percent / 100)
        return cost_s, cost_s * share

    def _non_ram_s(self, config: Config) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the downtime beside RAM as a + b * vCPUs, at its lowest and at its highest."""

        def time_s(vcpus: int) -> float:
            vm = replace(config.vm, vcpus=vcpus)
            link = parse_link(config.link, vm, config.migration, self._small.tracking)
            return link.non_ram_downtime_ns / NS_PER_S

        per_vcpu = time_s(2) - time_s(1)
        fixed = time_s(1) - per_vcpu
        is_drawn = "non_ram_downtime_ms" in self._costs
        low, high = DOWNTIME_FACTOR if is_drawn else (1.0, 1.0)
        return (low * fixed, low * per_vcpu), (high * fixed, high * per_vcpu)


def _check_groups(overrides: Sequence[str]) -> None:
    for override in overrides:
        given = split(override)
        if given.key.partition(".")[0] in NOT_SIMULATED:
            raise refusal(given, "nothing is simulated for a fleet. Remove it", "not_used")


def throttle_steps(rules: Version, parameters: Parameters) -> tuple[ThrottleStep, ...]:
    """Return the percentages that a version's throttle goes through, each at its earliest.

    The version's own rule decides, in periods that are far above the threshold.
    """
    steps = [ThrottleStep(percent=0, periods=0)]
    rule: ThrottlePolicy = rules.throttle(parameters)
    sent = 10**9
    period = Period(
        length_ms=PERIOD_MS + 1,
        dirty_bytes=100 * sent,
        xfer_bytes=sent,
        dirty_pages_rate=10**6,
        clean_bytes=sent,
        ram_bytes=sent,
    )
    for number in range(1, MOST_PERIODS):
        if not parameters.auto_converge or rule.percent >= parameters.max_cpu_throttle:
            break
        if rule.on_period(period) and rule.percent > steps[-1].percent:
            steps.append(ThrottleStep(percent=rule.percent, periods=number))
    return tuple(steps)


def _syncs_early(rules: Version, timer_ns: int | None) -> bool:
    if _syncs_every_turn(rules):
        return True
    return timer_ns is not None and rules.sync_timer(timer_ns, None).syncs_from_count < 2


def _syncs_every_turn(rules: Version) -> bool:
    return rules.switchover().wants_sync(2**60, 0)
