"""Three ways to end a migration, for the same guests: precopy, precopy then post-copy, post-copy at once.

Owns which settings each way has, for which guests it is simulated, and which way is recommended. A few
of the simulated guests are enough, because the ranges of what nobody measured are wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from gpusim.config.schema import Config, PolicyConfig
from gpusim.engine.records import Summary
from gpusim.explore.bounds import Bounds, value_of
from gpusim.explore.changes import postcopy_obstacle, postcopy_start, with_postcopy
from gpusim.explore.run_pool import RunPool
from gpusim.policies.own_managers import POST_COPY, Permission, required_settings
from gpusim.predict.bands import Band, band
from gpusim.predict.host_costs import Range
from gpusim.predict.manager_plan import known_manager
from gpusim.predict.postcopy_costs import drawn
from gpusim.predict.strata import Strata

if TYPE_CHECKING:
    from gpusim.predict.prediction import Member, Prediction

Name: TypeAlias = Literal["precopy", "then_postcopy", "postcopy_at_once"]

RANKS = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the members by their total time
AT_ONCE = "0s"
FIRST_QEMU = (2, 6)  # the first with the capability postcopy-ram, qapi/migration.json
QUANTITIES: Mapping[str, Callable[[Summary], float | None]] = {
    "total_time_s": lambda one: one.total_time_s,
    "downtime_ms": lambda one: one.downtime_ms,
    "blackout_ms": lambda one: value_of(one, "downtime_ms"),
    "guest_cpu_lost_s": lambda one: one.guest_cpu_lost_s,
    "recovery_s": lambda one: one.postcopy_recovery_s,
    "at_risk_s": lambda one: one.postcopy_time_s,
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to end the migration.

    Attributes:
        name: which way.
        tool: the manager that switches at its own time. Empty: after the first pass, or as set.
        settings: the overrides of gpusim, as a user types them. Empty: as it is set.
        config: of the median guest.
        guests, converging, keeping, cut: how many guests were simulated, how many of them converge,
            how many converge within the user's bounds, and for how many the run was cut as too long,
            which shows nothing.
        bands: quantity of QUANTITIES -> lowest, median and highest value over the guests that
            converge. A quantity that no guest has is missing. `blackout_ms` is how long the guest
            stands still. `recovery_s` is the time from its start at the target until it runs at 90 %
            of its speed. `at_risk_s` is the time in which both hosts hold a part of the guest.
    """

    name: Name
    tool: str
    settings: str
    config: Config
    guests: int
    converging: int
    keeping: int
    cut: int
    bands: Mapping[str, Band]


@dataclass(frozen=True, kw_only=True)
class PostcopyComparison:
    """The ways for the same guests.

    Attributes:
        obstacle: why post-copy is not possible: vfio, manager, multifd or version. Empty: it is.
        ways: in the order of `Name`. Empty if there is an obstacle.
        recommended: the way that keeps the bounds for all guests, if precopy does not. None: precopy
            is enough, or no way is.
        drawn: keys of `postcopy` that nobody stated, and their ranges.
    """

    obstacle: str
    ways: tuple[Way, ...] = ()
    recommended: Way | None = None
    drawn: Mapping[str, Range]


@dataclass(frozen=True, kw_only=True)
class WaysToCompare:
    """What is simulated for a comparison.

    Attributes:
        obstacle: see `PostcopyComparison`.
        guests: of a prediction.
        configs: way -> a config for each guest. Empty if there is an obstacle.
        drawn: see `PostcopyComparison`.
    """

    obstacle: str
    guests: Sequence[Member]
    configs: Mapping[Name, Sequence[Config]]
    drawn: Mapping[str, Range]

    def runs(self) -> Iterator[Config]:
        """Yield the configs that are not simulated yet. A member's own config is."""
        for configs in self.configs.values():
            for config, guest in zip(configs, self.guests, strict=True):
                if config != guest.config:
                    yield config


def ways_to_compare(prediction: Prediction, costs: Mapping[str, Range], seed: int) -> WaysToCompare:
    """Return each way's configs for a few guests of a prediction.

    Args:
        prediction: has the guests.
        costs: of post-copy, which are drawn.
        seed: of the draws.
    """
    guests = _guests(prediction.members)
    then_postcopy = [_then_postcopy(one.config) for one in guests]
    is_old = prediction.profile.qemu is not None and prediction.profile.qemu < FIRST_QEMU
    obstacle = "version" if is_old else postcopy_obstacle(then_postcopy[0])
    if obstacle:
        return WaysToCompare(obstacle=obstacle, guests=guests, configs={}, drawn={})

    def with_costs(configs: Sequence[Config]) -> list[Config]:
        return [
            drawn(one, costs, Strata(seed=seed, place=n, count=len(configs)).uniform)
            for n, one in enumerate(configs)
        ]

    configs: dict[Name, Sequence[Config]] = {
        "precopy": [_precopy(one.config) for one in guests],
        "then_postcopy": with_costs(then_postcopy),
        "postcopy_at_once": with_costs([_at_once(one.config) for one in guests]),
    }
    return WaysToCompare(obstacle="", guests=guests, configs=configs, drawn=costs)


def compare_ways(ways: WaysToCompare, bounds: Bounds, pool: RunPool) -> PostcopyComparison:
    """Simulate each way for its guests.

    Args:
        ways: what to simulate.
        bounds: of the user.
        pool: where the runs are simulated.
    """
    if ways.obstacle:
        return PostcopyComparison(obstacle=ways.obstacle, drawn={})
    outcomes = iter(pool.run_all(list(ways.runs())))
    found = []
    for name, configs in ways.configs.items():
        summaries = [
            guest.summary if config == guest.config else next(outcomes)
            for config, guest in zip(configs, ways.guests, strict=True)
        ]
        found.append(_way(name, ways.guests, configs, summaries, bounds))
    return PostcopyComparison(
        obstacle="", ways=tuple(found), recommended=_recommended(found), drawn=ways.drawn
    )


def _guests(members: Sequence[Member]) -> list[Member]:
    """Return members that lie evenly between the quickest and the slowest, in that order."""
    ranked = sorted(members, key=lambda one: (not one.converges, one.summary.total_time_s))
    places = sorted({round((len(ranked) - 1) * rank) for rank in RANKS})
    return [ranked[place] for place in places]


def _way(
    name: Name,
    guests: Sequence[Member],
    configs: Sequence[Config],
    summaries: Sequence[Summary | None],
    bounds: Bounds,
) -> Way:
    known = [one for one in summaries if one is not None]
    converging = [one for one in known if one.verdict == "converged"]
    bands = {}
    for quantity, value in QUANTITIES.items():
        values = [found for one in converging if (found := value(one)) is not None]
        if values:
            bands[quantity] = band([float(one) for one in values])
    original = guests[0].config
    return Way(
        name=name,
        tool=_tool(original) if name == "then_postcopy" else "",
        settings=_settings(name, original),
        config=configs[len(configs) // 2],
        guests=len(configs),
        converging=len(converging),
        keeping=sum(not bounds.excess(one) for one in converging),
        cut=sum(one is None or one.status != "ok" for one in summaries),
        bands=bands,
    )


def _recommended(ways: Sequence[Way]) -> Way | None:
    """Return the first way that keeps the bounds for all guests, if precopy does not.

    A run of precopy that was cut might keep them. A way that fails for a guest is not worth its risk.
    """
    precopy, *others = ways
    if precopy.keeping + precopy.cut == precopy.guests:
        return None
    return next((one for one in others if one.keeping == one.guests), None)


def _precopy(config: Config) -> Config:
    """Return a config with auto-converge that never switches to post-copy."""
    migration = replace(
        config.migration,
        auto_converge=True,
        postcopy_ram=False,
        postcopy_preempt=False,
        start_postcopy="never",
        manager=_manager_of_precopy(config),
    )
    return config if migration == config.migration else replace(config, migration=migration)


def _at_once(config: Config) -> Config:
    """Return a config that switches at once, with as many channels as `_then_postcopy` has."""
    channels = _then_postcopy(config).migration.multifd_channels
    plain = replace(
        config.migration, manager=_manager_of_precopy(config), multifd_channels=channels
    )
    return with_postcopy(replace(config, migration=plain), AT_ONCE)


def _then_postcopy(config: Config) -> Config:
    """Return a config that switches at the time that is set, at its manager's, or after one pass."""
    migration = config.migration
    if migration.start_postcopy != "never" or _switches(config):
        return config
    permission, policy = _permission(config), migration.manager
    if permission is None or policy is None:
        return with_postcopy(config, postcopy_start(config))
    own = replace(policy, args={**policy.args, **permission.args})
    return replace(config, migration=replace(migration, manager=own, **permission.settings))


def _permission(config: Config) -> Permission | None:
    """Return how the manager of a config switches to post-copy. None: it never does."""
    manager = known_manager(config.migration)
    return None if manager is None else POST_COPY.get(type(manager))


def _switches(config: Config) -> bool:
    """Return whether the manager of a config switches to post-copy."""
    manager = known_manager(config.migration)
    return manager is not None and bool(required_settings(manager))


def _tool(config: Config) -> str:
    """Return the manager that switches at its own time, or ""."""
    permission, is_set = _permission(config), config.migration.start_postcopy != "never"
    return "" if permission is None or is_set else permission.tool


def _settings(name: Name, config: Config) -> str:
    """Return the overrides that make a way of a config. Empty: the config has it already."""
    if name == "precopy":
        return "" if _precopy(config) is config else "migration.auto_converge=true"
    if name == "then_postcopy" and _then_postcopy(config) == config:
        return ""
    permission = _permission(config)
    if name == "then_postcopy" and permission is not None:
        return f"policy={permission.preset}"
    start = postcopy_start(config) if name == "then_postcopy" else AT_ONCE
    permit = [] if config.migration.postcopy_ram else ["migration.postcopy_ram=true"]
    channels = _at_once(config).migration.multifd_channels
    if channels != config.migration.multifd_channels:
        permit.append(f"migration.multifd_channels={channels}")
    return " ".join([*permit, f"migration.start_postcopy={start}"])


def _manager_of_precopy(config: Config) -> PolicyConfig | None:
    """Return the manager of a config, unless it switches to post-copy."""
    return None if _switches(config) else config.migration.manager
