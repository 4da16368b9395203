"""The settings whose limits `setting_limits` searches, and the values of each, the hardest first.

This module knows configs and scenarios. It runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from gpusim.config.plugins import policies_of
from gpusim.config.scenario import Scenario
from gpusim.config.schema import Config, MixConfig, WorkloadConfig, WriterConfig
from gpusim.engine.records import Summary
from gpusim.explore.bisection import Bisection
from gpusim.explore.changes import (
    HIGHEST_THROTTLE,
    LONGEST_DOWNTIME_MS,
    Change,
    Setting,
    rate_text,
    rates_of_channels,
    set_key,
)
from gpusim.explore.value_search import ValueSearch
from gpusim.qemu.versions import VERSIONS
from gpusim.units import MOST_COUNT, NS_PER_S

VALUES_PER_DECADE = 48  # values are 5 % apart
STRIDE = 14  # values: the first leap is a factor of two
STRIDE_FROM_GUESS = 3  # values: the first leap from a guess or from the answer of the other guest
LEAST_LINK, MOST_LINK = 0.25, 40.0  # times the bandwidth as it is set
SPEED_KEYS = ("page_writes_per_s", "catch_up_page_writes_per_s", "memory_page_writes_per_s")
LEAST_RATE, MOST_RATE = 0.1, 10.0  # times the page writes per second of the guest
LEAST_DOWNTIME_MS = 10

Name: TypeAlias = Literal["bandwidth", "dirty_rate", "downtime_limit", "max_cpu_throttle"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A setting and its values, the hardest first.

    Attributes:
        name: the name of the limit.
        change: the values, as numbers.
        now: the value as it is set, or one with the same outcome. It is one of the values.
        now_text: the value as it is set, as a user types it.
        known: values whose outcome is that of the config as it is.
        guess: where the answer may lie, from the run of the config as it is. None: unknown.
        stride: see `Bisection`.
    """

    name: Name
    change: Change
    now: float
    now_text: str
    known: tuple[float, ...] = ()
    guess: float | None = None
    stride: int | None = STRIDE

    def search(self, config: Config, now: Summary) -> ValueSearch:
        """Return a search that starts at the guess, or at the value as it is set."""
        place, last = self.change.values.index, len(self.change.values) - 1
        start, stride = place(self.now), self.stride
        if self.guess is not None:
            start = next(
                (i for i, value in enumerate(self.change.values) if value >= self.guess), last
            )
            stride = STRIDE_FROM_GUESS
        search = ValueSearch(
            change=self.change,
            config=config,
            bisection=Bisection(last + 1, start, stride, extra=self.stride),
            stride_from_leader=1 if self.stride is None else STRIDE_FROM_GUESS,
        )
        for value in self.known or (self.now,):
            search.record(place(value), now)
        return search


def questions_of(scenario: Scenario, now: Summary, effort: int = 1) -> Iterator[Question]:
    """Yield the questions for a guest, in the order of `Name`.

    Args:
        scenario: the migration with all settings as they are.
        now: the summary of its run.
        effort: 1 or more: values are 5 % / effort apart.
    """
    for question in (
        *_bandwidth(scenario, effort),
        *_dirty_rate(scenario, effort),
        *_downtime(scenario.config, now, effort),
    ):
        yield replace(question, stride=STRIDE * effort)
    yield from _throttle(scenario.config, now)


def _values_between(low: float, high: float, now: float, effort: int) -> list[float]:
    """Return rising values of three digits, 5 % / effort apart, with both ends and the present one."""
    per_decade = VALUES_PER_DECADE * effort
    first, last = (per_decade * math.log10(end) for end in (low, high))
    places = range(math.ceil(first), math.ceil(last))
    inside = (10 ** (place / per_decade) for place in places)
    return sorted({float(f"{value:.3g}") for value in (low, *inside, high)} | {now})


def _bandwidth(scenario: Scenario, effort: int) -> Iterator[Question]:
    """Ask for the bandwidth of the link, or for the rate limit if that binds.

    Adds threads if one thread would be slower than the value. If the threads are slower than the
    link now, then the search starts at their speed. A recorded or changing link has no single
    bandwidth, so there is no question.
    """
    config, link, limit = scenario.config, scenario.link, scenario.parameters.max_bandwidth
    threads = rates_of_channels(scenario)
    now = min(link.bandwidth, limit or math.inf, link.threads_bandwidth)
    if link.recorded is not None or link.changes or math.isinf(now):
        return
    is_limited = 0 < limit < min(link.bandwidth, link.threads_bandwidth)
    group, name = ("migration", "max_bandwidth") if is_limited else ("link", "bandwidth")
    most = min(max(threads), link.bandwidth if is_limited else MOST_LINK * now)

    def channels(bits: float) -> int:
        return next((threads[rate] for rate in threads if rate >= bits / 8), max(threads.values()))

    def apply(made: Config, bits: float) -> Config:
        changed = set_key(made, f"{group}.{name}", bits / 8)
        return set_key(changed, "migration.multifd_channels", channels(bits))

    def also(bits: float) -> Setting | None:
        needs_more = channels(bits) > config.migration.multifd_channels
        return Setting("migration.multifd_channels", str(channels(bits))) if needs_more else None

    values = _values_between(8 * LEAST_LINK * now, max(8 * most, 8 * now), 8 * now, effort)
    yield Question(
        name="bandwidth",
        change=Change(
            f"{group}.{name}", tuple(values), apply, lambda bits: rate_text(bits / 8), also
        ),
        now=8 * now,
        now_text=str(getattr(getattr(config, group), name)),
    )


def _dirty_rate(scenario: Scenario, effort: int) -> Iterator[Question]:
    """Ask for a factor on the speed of all writers. Recorded writers have no speed to change."""
    writers = _writers(scenario.config.workload)
    rates = [float(writer.get("page_writes_per_s", 0)) for writer in writers]
    if any(writer.get("pace") == "recorded" for writer in writers) or not max(rates, default=0):
        return
    limit_s = scenario.simulated_limit_ns / NS_PER_S
    fastest = max(float(writer.get("catch_up_page_writes_per_s") or 0) for writer in writers)
    most = MOST_COUNT / limit_s / max(fastest, *rates)
    factors = _values_between(LEAST_RATE, max(1.0, min(MOST_RATE, most)), 1.0, effort)[::-1]
    yield Question(
        name="dirty_rate",
        change=Change(
            "",
            tuple(factors),
            lambda made, factor: replace(made, workload=faster(made.workload, factor)),
            lambda factor: f"{factor:g}x",
        ),
        now=1.0,
        now_text="1x",
    )


def _writers(workload: WorkloadConfig) -> list[Mapping[str, Any]]:
    if isinstance(workload, MixConfig):
        return [one if isinstance(one, Mapping) else vars(one) for one in workload.writers.values()]
    return [vars(workload)] if isinstance(workload, WriterConfig) else []


def faster(workload: WorkloadConfig, factor: float) -> WorkloadConfig:
    """Return the workload with the speed of every writer multiplied by a factor."""
    if isinstance(workload, MixConfig):
        return replace(
            workload, writers={name: _faster(one, factor) for name, one in workload.writers.items()}
        )
    return _faster(workload, factor) if isinstance(workload, WriterConfig) else workload


def _faster(writer: Any, factor: float) -> Any:
    keys = writer if isinstance(writer, Mapping) else vars(writer)
    changed = {name: factor * keys[name] for name in SPEED_KEYS if keys.get(name) is not None}
    return {**writer, **changed} if isinstance(writer, Mapping) else replace(writer, **changed)


def _downtime(config: Config, now_run: Summary, effort: int) -> Iterator[Question]:
    """Ask for the smallest downtime limit, unless a manager sets it.

    If a migration stalled, then what remained needs about so much downtime at the rate of its sender.
    """
    if config.migration.manager is not None:  # it sets the limit, whatever the limit is
        return
    now, rest_ms = config.migration.downtime_limit, _downtime_of_rest(now_run)
    least, most = min(LEAST_DOWNTIME_MS, max(1, now)), max(LONGEST_DOWNTIME_MS, now)
    limits = sorted({*(round(ms) for ms in _values_between(least, most, least, effort)), now})
    key = "migration.downtime_limit"
    yield Question(
        name="downtime_limit",
        change=Change(
            key,
            tuple(map(float, limits)),
            lambda made, ms: set_key(made, key, round(ms)),
            lambda ms: f"{ms:.0f}",
        ),
        now=float(now),
        now_text=str(now),
        guess=None if rest_ms is None or rest_ms <= now else rest_ms,
    )


def _downtime_of_rest(now: Summary) -> float | None:
    """Return how long what remains takes, in ms. None: the migration did not stall."""
    if now.verdict != "not_converged" or not now.sending_gbit_per_s:
        return None
    return now.remaining_bytes * 8 / (now.sending_gbit_per_s * 1e6)


def _throttle(config: Config, now: Summary) -> Iterator[Question]:
    """Ask for the lowest throttle limit among the steps of the throttle. 0 is no auto-converge.

    A run whose throttle stayed below a limit is the same run under any limit that the throttle did
    not exceed. It is not the run without auto-converge, which has no fallback sync either.
    """
    migration = config.migration
    if policies_of(migration):
        return  # the user's rules decide what the limit means
    limit = migration.max_cpu_throttle if migration.auto_converge else 0
    steps = set(
        range(migration.cpu_throttle_initial, HIGHEST_THROTTLE, migration.cpu_throttle_increment)
    )
    if "max_cpu_throttle" in VERSIONS[migration.version].lacks:
        steps = set()
    reached = {now.max_throttle_percent} if now.verdict == "converged" else set()
    values = sorted({0, HIGHEST_THROTTLE, limit} | steps | reached)
    same_run = {one for one in values for least in reached if max(least, 1) <= one <= limit}

    def apply(made: Config, percent: float) -> Config:
        made = set_key(made, "migration.auto_converge", percent > 0)
        return set_key(made, "migration.max_cpu_throttle", round(percent)) if percent else made

    auto_converge = Setting("migration.auto_converge", "true")
    yield Question(
        name="max_cpu_throttle",
        change=Change(
            "migration.max_cpu_throttle",
            tuple(map(float, values)),
            apply,
            lambda percent: f"{percent:.0f}",
            lambda percent: auto_converge if percent and not limit else None,
        ),
        now=float(limit),
        now_text=str(limit),
        known=tuple(map(float, {limit} | same_run)),
        stride=None,
    )
