"""Limits of the settings of a migration: how far each may go so that the migration converges.

This module owns the questions. `value_search` owns how runs answer them and share the time. Every
reported value was simulated, and so was the next value, which fails. It knows configs and no
profile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Literal, TypeAlias

from gpusim.config.checks import LONGEST_COUNT, parse_duration_ns
from gpusim.config.plugins import policies_of
from gpusim.config.scenario import Scenario, resolve
from gpusim.config.schema import Config, MixConfig, WorkloadConfig, WriterConfig
from gpusim.engine.records import Alternative, Summary
from gpusim.explore.bisection import Bisection
from gpusim.explore.changes import (
    CHANNELS,
    HIGHEST_THROTTLE,
    LONGEST_DOWNTIME_MS,
    Change,
    rate_text,
    set_key,
    single_changes,
    value_text,
    with_fallback_sync,
)
from gpusim.explore.run_pool import RunPool
from gpusim.explore.value_search import ValueSearch, run_searches
from gpusim.qemu.versions import VERSIONS
from gpusim.units import NS_PER_S

VALUES_PER_DECADE = 48  # values are 5 % apart
STRIDE = 14  # values: the first leap is a factor of two
STRIDE_FROM_LEADER = 3  # values: the first leap from the answer of the other guest
LEAST_LINK, MOST_LINK = 0.25, 40.0  # times the bandwidth as it is set
LEAST_RATE, MOST_RATE = 0.1, 10.0  # times the page writes per second of the guest
LEAST_DOWNTIME_MS = 10
LONGEST_SHARE = 0.3  # of the wall time, for one run
KEYS_OF_LIMITS = (  # no alternative repeats them
    "link.bandwidth",
    "migration.max_bandwidth",
    "migration.multifd_channels",
    "migration.downtime_limit",
    "migration.max_cpu_throttle",
)

Name: TypeAlias = Literal["bandwidth", "dirty_rate", "downtime_limit", "max_cpu_throttle"]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How far one setting may go if all other settings stay as they are.

    Attributes:
        name: bandwidth: the smallest that converges. dirty_rate: the largest, as a factor on the
            page writes per second of every writer. downtime_limit: the smallest. max_cpu_throttle:
            the smallest, where 0 means no auto-converge.
        key: the config key. None: no key sets it.
        now: the value as it is set, as a user types it.
        found: the last value that converges. None: no tried value does.
        value: `found` as a number: bit/s, factor, ms or percent.
        also: the "KEY=VALUE" that has to be set with it. More multifd channels if one thread is
            slower than the bandwidth. Auto-converge if it is off.
        outcome: the summary of the run with `found`.
        first_failing: the next tried value, which does not converge. None: no value failed. If
            `finished`, then no value lies between. Values are 5 % apart, or one throttle step.
        finished: False: time was up before all values between were tried.
        exceptions: values beyond `first_failing` that converge.
    """

    name: Name
    key: str | None
    now: str
    found: str | None
    value: float | None
    also: str
    outcome: Summary | None
    first_failing: str | None = field(metadata={"json": "too_hard"})
    finished: bool
    exceptions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FallbackSync:
    """The effect of QEMU's 5 s fallback sync (since 9.2) on a guest.

    Attributes:
        is_on: whether the config has it. If so, `key` removes it. If not, `key` adds it.
        key, value: the change between the two runs.
        with_it, without_it: summaries of the two runs. None: time was up.
    """

    is_on: bool = field(metadata={"json": "there"})
    key: str
    value: str
    with_it: Summary | None
    without_it: Summary | None


@dataclass(frozen=True, kw_only=True)
class GuestAdvice:
    """The advice for one guest.

    Attributes:
        now: the summary of the run with all settings as they are. None: time was up, and there is
            no advice.
        limits: in the order of `Name`. A limit that does not apply is missing, such as the dirty
            rate of an idle guest.
        fallback_sync: None: auto-converge is off, or the user has a sync timer rule.
        alternatives: for a guest that does not converge: other changes. `limits` covers bandwidth,
            dirty rate, downtime limit and throttle.
    """

    now: Summary | None
    limits: tuple[Limit, ...] = ()
    fallback_sync: FallbackSync | None = None
    alternatives: tuple[Alternative, ...] = field(default=(), metadata={"json": "ways_out"})

    @property
    def is_finished(self) -> bool:
        """Return whether time sufficed for all runs."""
        sync = self.fallback_sync
        return (
            self.now is not None
            and all(limit.finished for limit in self.limits)
            and (sync is None or None not in (sync.with_it, sync.without_it))
            and all(change.outcome != "not_tried" for change in self.alternatives)
        )


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The advice for the median guest and for the 95th-percentile guest."""

    median_guest: GuestAdvice = field(metadata={"json": "typical"})
    p95_guest: GuestAdvice = field(metadata={"json": "heavy"})


@dataclass(frozen=True, kw_only=True)
class Question:
    """A setting and its values, the hardest first.

    Attributes:
        name: the name of the limit.
        change: the values, as numbers.
        now: the value as it is set, or one with the same outcome. It is one of the values.
        now_text: the value as it is set, as a user types it.
        known: values whose outcome is that of the config as it is.
        stride: see `Bisection`.
    """

    name: Name
    change: Change
    now: float
    now_text: str
    known: tuple[float, ...] = ()
    stride: int | None = STRIDE

    def search(self, config: Config, now: Summary) -> ValueSearch:
        """Return a search that starts at the value as it is set."""
        place = self.change.values.index
        search = ValueSearch(
            change=self.change,
            config=config,
            bisection=Bisection(len(self.change.values), place(self.now), self.stride),
            stride_from_leader=1 if self.stride is None else STRIDE_FROM_LEADER,
        )
        for value in self.known or (self.now,):
            search.record(place(value), now)
        return search

    def limit(self, search: ValueSearch) -> Limit:
        """Return the answer as far as the search has come."""
        bisection, change = search.bisection, self.change
        texts = [change.text(value) for value in change.values]
        step, failing = bisection.best, bisection.last_failing
        return Limit(
            name=self.name,
            key=change.key or None,
            now=self.now_text,
            found=None if step is None else texts[step],
            value=None if step is None else change.values[step],
            also="" if step is None else change.also(change.values[step]),
            outcome=None if step is None else search.outcomes[step],
            first_failing=None if failing < 0 else texts[failing],
            finished=bisection.is_finished,
            exceptions=tuple(texts[step] for step in bisection.exceptions),
        )


def advise(
    median_guest: Config, p95_guest: Config, *, wall_s: float, pool: RunPool | None = None
) -> Advice:
    """Find the limits of the settings for two guests.

    The same configs give the same answers, except for answers that are not finished in time.

    Args:
        median_guest, p95_guest: the migrations as they are set now. They may be equal.
        wall_s: wall time. After that no run starts, and running ones are stopped.
        pool: where runs are simulated. None: one process per core, for this call alone.

    Raises:
        ConfigError: a config cannot be simulated.
    """
    until_s = monotonic() + wall_s
    with ExitStack() as stack:
        pool = pool or stack.enter_context(RunPool())
        guests = [median_guest] if p95_guest == median_guest else [median_guest, p95_guest]
        scenarios = [resolve(guest) for guest in guests]
        runs = zip(guests, scenarios, pool.run_all(guests, until_s), strict=True)
        plans = [_Plan(guest, scenario, now) for guest, scenario, now in runs]
        for follower, leader in zip(plans[1:], plans, strict=False):
            follower.follow(leader)
        searches = [search for plan in plans for search in plan.searches()]
        run_searches(searches, pool, until_s, LONGEST_SHARE * wall_s)
    advice = [plan.advice() for plan in plans]
    return Advice(median_guest=advice[0], p95_guest=advice[-1])


class _Plan:
    """All searches for one guest."""

    def __init__(self, config: Config, scenario: Scenario, now: Summary | None) -> None:
        self._now = now
        self._questions: list[tuple[Question, ValueSearch]] = []
        self._sync: ValueSearch | None = None
        self._alternatives: list[ValueSearch] = []
        if now is None:
            return
        questions = _questions(config, scenario, now)
        self._questions = [(question, question.search(config, now)) for question in questions]
        change = _toggled_fallback_sync(config, scenario)
        if change is not None:
            self._sync = ValueSearch.from_last(change, config)
        if now.verdict != "converged":
            self._alternatives = [
                self._sync if self._sync and one == change else ValueSearch.from_last(one, config)
                for one in single_changes(config, scenario)
                if len(one.values) == 1 and one.key not in KEYS_OF_LIMITS
            ]

    def follow(self, leader: _Plan) -> None:
        """Start each search where the other guest's search over the same values ends."""
        leaders = {question.name: search for question, search in leader._questions}
        for question, search in self._questions:
            other = leaders.get(question.name)
            if other is not None and other.change.values == question.change.values:
                search.leader = other

    def searches(self) -> Iterator[ValueSearch]:
        """Yield each search once, those with one run first."""
        if self._sync is not None:
            yield self._sync
        yield from (search for search in self._alternatives if search is not self._sync)
        yield from (search for _, search in self._questions)

    def advice(self) -> GuestAdvice:
        """Return the answers as far as the searches have come."""
        return GuestAdvice(
            now=self._now,
            limits=tuple(question.limit(search) for question, search in self._questions),
            fallback_sync=self._fallback_sync(),
            alternatives=tuple(
                search.alternative() for search in self._alternatives if not search.is_refused
            ),
        )

    def _fallback_sync(self) -> FallbackSync | None:
        if self._sync is None:
            return None
        change, other = self._sync.change, self._sync.outcomes.get(0)
        is_on = change.values[0] == "never"
        return FallbackSync(
            is_on=is_on,
            key=change.key,
            value=value_text(change.values[0]),
            with_it=self._now if is_on else other,
            without_it=other if is_on else self._now,
        )


def _questions(config: Config, scenario: Scenario, now: Summary) -> Iterator[Question]:
    yield from _bandwidth(config, scenario)
    yield from _dirty_rate(config)
    yield from _downtime(config)
    yield from _throttle(config, now)


def _values_between(low: float, high: float, now: float) -> list[float]:
    """Return rising values of three digits, 5 % apart, with both ends and the value as it is set."""
    first, last = (VALUES_PER_DECADE * math.log10(end) for end in (low, high))
    places = range(math.ceil(first), math.ceil(last))
    inside = (10 ** (place / VALUES_PER_DECADE) for place in places)
    return sorted({float(f"{value:.3g}") for value in (low, *inside, high)} | {now})


def _bandwidth(config: Config, scenario: Scenario) -> Iterator[Question]:
    """Ask for the bandwidth of the link, or for the rate limit if that binds.

    Adds threads if one thread would be slower than the value. If the threads are slower than the
    link now, then the search starts at their speed. A recorded or changing link has no single
    bandwidth, so there is no question.
    """
    link, limit = scenario.link, scenario.parameters.max_bandwidth
    threads = _threads(config, scenario)
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

    def also(bits: float) -> str:
        needs_more = channels(bits) > config.migration.multifd_channels
        return f"migration.multifd_channels={channels(bits)}" if needs_more else ""

    values = _values_between(8 * LEAST_LINK * now, max(8 * most, 8 * now), 8 * now)
    yield Question(
        name="bandwidth",
        change=Change(
            f"{group}.{name}", tuple(values), apply, lambda bits: rate_text(bits / 8), also
        ),
        now=8 * now,
        now_text=str(getattr(getattr(config, group), name)),
    )


def _threads(config: Config, scenario: Scenario) -> dict[float, int]:
    """Return bytes per second that the threads can send -> channels, rising from the present ones."""
    now = config.migration.multifd_channels
    rates = {scenario.link.threads_bandwidth: now}
    if VERSIONS[scenario.version].has_multifd:
        for channels in (count for count in CHANNELS if count > now):
            changed = set_key(config, "migration.multifd_channels", channels)
            rate = resolve(changed).link.threads_bandwidth
            if rate > max(rates):
                rates[rate] = channels
    return rates


def _dirty_rate(config: Config) -> Iterator[Question]:
    """Ask for a factor on the speed of all writers. Recorded writers have no speed to change."""
    writers = _writers(config.workload)
    rates = [float(writer.get("page_writes_per_s", 0)) for writer in writers]
    if any(writer.get("pace") == "recorded" for writer in writers) or not max(rates, default=0):
        return
    limit_s = parse_duration_ns("limit.simulated", config.limit.simulated) / NS_PER_S
    fastest = max(float(writer.get("catch_up_page_writes_per_s") or 0) for writer in writers)
    most = LONGEST_COUNT / limit_s / max(fastest, *rates)
    factors = _values_between(LEAST_RATE, max(1.0, min(MOST_RATE, most)), 1.0)[::-1]
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
    changed = {
        name: factor * keys[name]
        for name in ("page_writes_per_s", "catch_up_page_writes_per_s")
        if keys.get(name) is not None
    }
    return {**writer, **changed} if isinstance(writer, Mapping) else replace(writer, **changed)


def _downtime(config: Config) -> Iterator[Question]:
    now = config.migration.downtime_limit
    least, most = min(LEAST_DOWNTIME_MS, max(1, now)), max(LONGEST_DOWNTIME_MS, now)
    limits = sorted({*(round(ms) for ms in _values_between(least, most, least)), now})
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
    )


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

    yield Question(
        name="max_cpu_throttle",
        change=Change(
            "migration.max_cpu_throttle",
            tuple(map(float, values)),
            apply,
            lambda percent: f"{percent:.0f}",
            lambda percent: "migration.auto_converge=true" if percent and not limit else "",
        ),
        now=float(limit),
        now_text=str(limit),
        known=tuple(map(float, {limit} | same_run)),
        stride=None,
    )


def _toggled_fallback_sync(config: Config, scenario: Scenario) -> Change | None:
    """Return the change that removes or adds the fallback sync. None: QEMU never asks for one."""
    if not config.migration.auto_converge or config.migration.sync_timer_rule is not None:
        return None
    if scenario.parameters.fallback_sync_interval_ns is not None:
        return Change("migration.fallback_sync_interval", ("never",))
    return with_fallback_sync(scenario)
