"""The smallest single change of a setting with which a migration keeps a user's bounds.

Owns which changes are tried, in the order of their use, and for which guest. Every reported number
comes from a simulated migration. The number of runs is bounded by a count, so the same question has
the same answer on a slow machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from gpusim.config.scenario import Scenario, resolve
from gpusim.config.schema import Config
from gpusim.engine.records import Summary
from gpusim.explore.bounds import Bounds
from gpusim.explore.changes import Change, Setting, override_text, set_key, single_changes
from gpusim.explore.run_pool import RunPool
from gpusim.guest.run_time import TIMESLICE_NS
from gpusim.units import NS_PER_MS, NS_PER_S

BATCH = 4  # runs at a time. It does not depend on the cores, so the answer does not either
FREE = ("migration.auto_converge", "migration.multifd_channels")  # cost neither guest nor money
# QEMU's limit is compared with an estimate, and what the guest writes meanwhile comes on top.
SHARES_OF_DOWNTIME = (1.0, 0.8, 0.5)  # of what the bound leaves to RAM
GENTLER = (80, 60, 40, 20)  # percent: values of max_cpu_throttle for a guest that loses too much
QUICKER = (20, 30, 50)  # percent: values of cpu_throttle_increment for one that takes too long


@dataclass(frozen=True, kw_only=True)
class ChangeWithin:
    """The answer of the search.

    Attributes:
        settings: the change, and what has to be set with it. Empty: no change that was tried keeps
            all bounds.
        outcome: the summary of the guest with this change. None: there is no change.
        for_one: for each bound, by its name, the first change with which the 95th-percentile guest
            keeps this bound. Empty if one change keeps all of them.
        for_p95_guest: the 95th-percentile guest keeps the bounds with it. Otherwise only the median
            guest does.
        tried: how many different changes were tried.
    """

    settings: str
    outcome: Summary | None
    for_one: Mapping[str, str]
    for_p95_guest: bool
    tried: int


def find_change(
    median_guest: Config, p95_guest: Config, bounds: Bounds, *, pool: RunPool | None = None
) -> ChangeWithin:
    """Return the first change, in the order of use, with which a guest keeps all bounds.

    The 95th-percentile guest is asked first, and the median guest if no change is enough for it.

    Args:
        median_guest, p95_guest: the migrations as they are set now. They may be equal.
        bounds: at least one.
        pool: where runs are simulated. None: one process per core, for this call alone.

    Raises:
        ConfigError: a config cannot be simulated.
    """
    guests = [p95_guest] if p95_guest == median_guest else [p95_guest, median_guest]
    for_one: dict[str, str] = {}
    tried = 0
    with ExitStack() as stack:
        pool = pool or stack.enter_context(RunPool())
        for guest in guests:
            done = 0
            for settings, outcome in _outcomes(guest, bounds, pool):
                done += 1
                if outcome is None:
                    continue
                if not bounds.excess(outcome):
                    return ChangeWithin(
                        settings=settings,
                        outcome=outcome,
                        for_one={},
                        for_p95_guest=guest is p95_guest,
                        tried=max(tried, done),
                    )
                if guest is p95_guest:
                    kept = [name for name, _ in bounds.items() if bounds.keeps(outcome, name)]
                    for_one = dict.fromkeys(kept, settings) | for_one
            tried = max(tried, done)
    return ChangeWithin(
        settings="", outcome=None, for_one=for_one, for_p95_guest=False, tried=tried
    )


def _outcomes(guest: Config, bounds: Bounds, pool: RunPool) -> Iterator[tuple[str, Summary | None]]:
    """Yield each change with its outcome. None: gpusim refuses the change."""
    changes = list(_changes(guest, bounds).items())
    for start in range(0, len(changes), BATCH):
        batch = changes[start : start + BATCH]
        configs = [_until_deadline(config, bounds) for _, config in batch]
        outcomes = pool.run_all(configs)
        yield from zip([settings for settings, _ in batch], outcomes, strict=True)


def _changes(config: Config, bounds: Bounds) -> dict[str, Config]:
    """Return settings -> config, each once: those that cost nothing first, then the larger ones."""
    scenario = resolve(config)
    singles = list(single_changes(config, scenario))
    first = [one for one in singles if one.key in FREE]
    others = [one for one in singles if one.key not in FREE]
    found: dict[str, Config] = {}
    for change in (*first, *_towards(scenario, bounds), *others):
        for step, value in enumerate(change.values):
            parts = (Setting(change.key, change.text(value)), change.also(value))
            settings = " ".join(override_text(one) for one in parts if one is not None)
            found.setdefault(settings, change.config_of(config, step))
    return found


def _towards(scenario: Scenario, bounds: Bounds) -> Iterator[Change]:
    """Yield the changes that move one bounded quantity, to its bound where that can be computed."""
    migration = scenario.config.migration
    if bounds.downtime_ms is not None:
        left_ms = bounds.downtime_ms - scenario.link.non_ram_downtime_ns / NS_PER_MS
        limits = [int(share * left_ms) for share in SHARES_OF_DOWNTIME]
        limits = [one for one in limits if one > 0 and one != migration.downtime_limit]
        yield Change("migration.downtime_limit", tuple(limits))
    if not migration.auto_converge:
        return
    highest = scenario.parameters.max_cpu_throttle
    stall_ms = bounds.longest_vcpu_stall_ms
    if stall_ms is not None:
        # A throttle of p percent lets a vCPU run for a slice and sleep p / (100 - p) slices.
        percent = int(100 * stall_ms / (stall_ms + TIMESLICE_NS / NS_PER_MS))
        # The next lower one is for a bound without room for a late wake-up.
        lower = tuple(one for one in (percent, percent - 1) if 1 <= one < highest)
        yield _highest_throttle(scenario.config, lower)
    if bounds.guest_cpu_lost_percent is not None:
        gentler = tuple(one for one in GENTLER if one < highest)
        yield _highest_throttle(scenario.config, gentler)
    if bounds.total_time_s is not None:
        quicker = tuple(one for one in QUICKER if one > migration.cpu_throttle_increment)
        yield Change("migration.cpu_throttle_increment", quicker)


def _highest_throttle(config: Config, percents: tuple[int, ...]) -> Change:
    """Return the change of the throttle's limit. The first step must not lie above it."""
    first = config.migration.cpu_throttle_initial

    def apply(config: Config, percent: int) -> Config:
        lower = set_key(config, "migration.cpu_throttle_initial", min(first, percent))
        return set_key(lower, "migration.max_cpu_throttle", percent)

    def also(percent: int) -> Setting | None:
        return Setting("migration.cpu_throttle_initial", str(percent)) if percent < first else None

    return Change("migration.max_cpu_throttle", percents, apply, also=also)


def _until_deadline(config: Config, bounds: Bounds) -> Config:
    """Return a config whose run stops at the deadline."""
    if bounds.total_time_s is None:
        return config
    limit_s = min(bounds.total_time_s * 1.01, resolve(config).simulated_limit_ns / NS_PER_S)
    return replace(config, limit=replace(config.limit, simulated=limit_s))
