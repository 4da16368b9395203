"""What would have made it converge: single changes to a config, each simulated over expected shares.

Owns which changes are worth a try and how far they may go. It knows scenarios and dry runs, no rule
of QEMU's and no file; what comes out is data for whoever tells the user.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gpusim.config.plugins import policies_of
from gpusim.config.scenario import Scenario, resolve
from gpusim.config.schema import Config
from gpusim.engine.expected_run import expected_run
from gpusim.engine.records import Alternative, Summary
from gpusim.errors import ConfigError
from gpusim.explore.bisection import Ladder
from gpusim.qemu.versions import VERSIONS
from gpusim.units import NS_PER_S

LOOK_AHEAD_S = 4.0  # wall time for all changes together
LINK_FACTORS = (1.5, 2, 3, 5, 10, 20, 40)
CHANNELS = (2, 4, 8, 16)
DOWNTIME_FACTORS = (2, 5, 10, 20, 50, 100)
LONGEST_DOWNTIME_MS = 30_000  # a guest that stands still for longer has not been migrated live
HIGHEST_THROTTLE = 99  # migration/options.c:migrate_params_check


@dataclass(frozen=True)
class Change:
    """One key, and the values to try, from the smallest change to the largest."""

    key: str
    values: tuple[int | float | str | bool | None, ...]

    def applied(self, config: Config, value: object) -> Config:
        group, name = self.key.split(".")
        return replace(config, **{group: replace(getattr(config, group), **{name: value})})


def alternatives(config: Config, *, look_ahead_s: float = LOOK_AHEAD_S) -> list[Alternative]:
    """Single changes with which a config that does not converge would, or would not either.

    Of a ladder of values the smallest that converges is given, found by halving: what one step
    achieves a larger one is taken to achieve too. Where time is up before the smallest is found, the
    smallest known so far is given, marked as such. Where none converges, the ladder's last value is given.

    Args:
        config: of a run that did not converge.
        look_ahead_s: wall time after which the rest is given as not tried.
    """
    until_s = time.monotonic() + look_ahead_s
    try:
        changes = list(changes_of(config, resolve(config)))
    except ConfigError:  # it was simulated, but memory that was free then is not any more
        return []
    tried = []
    for place, change in enumerate(changes):  # each gets its share of the time that is left
        now_s = time.monotonic()
        share_s = (until_s - now_s) / (len(changes) - place)
        tried.append(_tried(config, change, now_s + share_s))
    return [  # what the others left over is for those that their share was too short for
        _tried(config, change, until_s)
        if first.outcome == "not_tried" or not first.smallest
        else first
        for change, first in zip(changes, tried, strict=True)
    ]


def _tried(config: Config, change: Change, until_s: float) -> Alternative:
    """The smallest value of a ladder that converges."""
    last = len(change.values) - 1
    ladder = Ladder(len(change.values), start=last)  # first the largest: often nothing on it helps
    outcomes: dict[int, Summary] = {}
    while (step := ladder.next()) is not None:
        outcome = _expected(change.applied(config, change.values[step]), until_s)
        if outcome is not None:
            outcomes[step] = outcome
        ladder.tell(step, None if outcome is None else outcome.verdict == "converged")
    if ladder.found is None:
        return alternative(change, last, outcomes.get(last))
    return alternative(change, ladder.found, outcomes[ladder.found], smallest=ladder.finished)


def alternative(
    change: Change, step: int, outcome: Summary | None, *, smallest: bool = True
) -> Alternative:
    """One value of a change, and what came of trying it; None: it was not tried to the end."""
    value = written(change.values[step])
    if outcome is None:
        return Alternative(key=change.key, value=value, outcome="not_tried")
    if outcome.verdict != "converged":
        return Alternative(key=change.key, value=value, outcome="does_not")
    return Alternative(
        key=change.key,
        value=value,
        outcome="converges",
        smallest=smallest,
        total_time_s=outcome.total_time_s,
        downtime_ms=outcome.downtime_ms,
        max_throttle_percent=outcome.max_throttle_percent,
        guest_cpu_lost_percent=outcome.guest_cpu_lost_percent,
    )


def _expected(config: Config, until_s: float) -> Summary | None:
    """What to expect of a config; None if there is no time to see it end."""
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        return None
    try:
        scenario = resolve(config)
    except ConfigError:  # memory that was free a moment ago is not any more
        return None
    summary, _ = expected_run(scenario, round(left_s * NS_PER_S))
    return summary if summary.status == "ok" else None


def changes_of(config: Config, scenario: Scenario) -> Iterator[Change]:
    """What may help: the free ones first, then those that cost the guest or money."""
    for change in (
        *_of_auto_converge(config, scenario),
        *_of_the_link(config, scenario),
        *_of_the_downtime(config),
        *(Change(f"migration.{name}", (None,)) for name in policies_of(config.migration)),
    ):
        allowed = [value for value in change.values if _allowed(change.applied(config, value))]
        if allowed:
            yield replace(change, values=tuple(allowed))


def _allowed(config: Config) -> bool:
    try:
        resolve(config)
    except ConfigError:
        return False
    return True


def _of_auto_converge(config: Config, scenario: Scenario) -> Iterator[Change]:
    if not config.migration.auto_converge:
        yield Change("migration.auto_converge", (True,))
        return  # without it there is neither a throttle nor a fallback sync
    if scenario.parameters.fallback_sync_interval_ns is None:
        if VERSIONS[scenario.version].fallback_sync_interval_ns is None:
            yield Change("migration.version", (first_with_fallback_sync(),))
        else:
            yield Change("migration.fallback_sync_interval", (None,))
    if scenario.parameters.max_cpu_throttle < HIGHEST_THROTTLE:
        yield Change("migration.max_cpu_throttle", (HIGHEST_THROTTLE,))


def first_with_fallback_sync() -> str:
    return next(
        name
        for name, rules in VERSIONS.items()
        if rules.fallback_sync_interval_ns and rules.released
    )


def _of_the_link(config: Config, scenario: Scenario) -> Iterator[Change]:
    """More of whichever of threads, wire and rate limit binds; a recorded wire is as fast as it was."""
    wire, limit = scenario.link.bandwidth, scenario.parameters.max_bandwidth
    if scenario.link.recorded is not None:
        return
    if scenario.link.threads_bandwidth < min(wire, limit or wire):
        now = config.migration.multifd_channels
        yield Change("migration.multifd_channels", tuple(n for n in CHANNELS if n > now))
    elif 0 < limit < wire:
        faster = [factor * limit for factor in LINK_FACTORS if factor * limit <= wire]
        yield Change("migration.max_bandwidth", tuple(rate_text(rate) for rate in faster))
    else:
        yield Change("link.bandwidth", tuple(rate_text(factor * wire) for factor in LINK_FACTORS))


def rate_text(bytes_per_s: float) -> str:
    gigabits = bytes_per_s * 8 / 1e9
    return f"{gigabits:g}Gbit/s" if gigabits >= 1 else f"{1000 * gigabits:g}Mbit/s"


def _of_the_downtime(config: Config) -> Iterator[Change]:
    least_ms = max(config.migration.downtime_limit, 100)
    longer = [factor * least_ms for factor in DOWNTIME_FACTORS]
    yield Change(
        "migration.downtime_limit", tuple(ms for ms in longer if ms <= LONGEST_DOWNTIME_MS)
    )


def written(value: object) -> str:
    """A value as on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
