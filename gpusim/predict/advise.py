"""How far the settings of a migration may go: each answer found by halving over the simulator.

Owns the questions and how they share the time; a ladder of values is ladder.py's, a run is runs.py's.
What comes out is data. It knows configs alone, no profile, and no rule of thumb: every value it names
was simulated, and so was the next one that does not do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Literal, TypeAlias

from gpusim.config.checks import LONGEST_COUNT, duration_ns
from gpusim.config.plugins import policies_of
from gpusim.config.scenario import Scenario, resolve
from gpusim.config.schema import Config, MixConfig, WorkloadConfig, WriterConfig
from gpusim.engine.records import Alternative, Summary
from gpusim.explore.alternatives import (
    CHANNELS,
    HIGHEST_THROTTLE,
    LONGEST_DOWNTIME_MS,
    Change,
    alternative,
    changes_of,
    first_with_fallback_sync,
    rate_text,
)
from gpusim.explore.bisection import Ladder
from gpusim.predict.runs import Workers
from gpusim.qemu.versions import VERSIONS
from gpusim.units import NS_PER_S

A_DECADE = 48  # values: 5 % apart
STRIDE = 14  # of them: a factor of two, the first leap
LEAST_LINK, MOST_LINK = 0.25, 40.0  # of the bandwidth as it is
LEAST_RATE, MOST_RATE = 0.1, 10.0  # of the guest's page writes a second
LEAST_DOWNTIME_MS = 10
LONGEST_SHARE = 0.3  # of the wall time, for one run
NEAR = 3  # steps: the first leap from where the other guest's answer was found
ASKED = (  # by these questions, so that no way out has to
    "link.bandwidth",
    "migration.max_bandwidth",
    "migration.multifd_channels",
    "migration.downtime_limit",
    "migration.max_cpu_throttle",
)

Name: TypeAlias = Literal["bandwidth", "dirty_rate", "downtime_limit", "max_cpu_throttle"]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How far one setting may go with all others as they are.

    Attributes:
        name: bandwidth: the smallest that converges; dirty_rate: the largest, as a factor on the page writes
            a second of every writer; downtime_limit: the smallest; max_cpu_throttle: the smallest, 0 being
            no auto-converge at all.
        key: what to set; None: nothing that anybody sets.
        now: as it is, as a user writes it.
        found: the last value that converges; None: none that was tried does.
        value: the same as a number: bit/s, factor, ms or percent.
        also: what has to be set with it: more multifd channels, where a thread would hold up the link, or
            auto-converge, where it is off.
        outcome: of the migration with it.
        too_hard: the next value that was tried, which does not converge; None: there is none. Where
            `finished`, it is the next of the ladder, whose values are 5 % apart (of the throttle: a step).
        finished: False: time was up before the values between had been tried.
        exceptions: values beyond `too_hard` that converge all the same.
    """

    name: Name
    key: str | None
    now: str
    found: str | None
    value: float | None
    also: str
    outcome: Summary | None
    too_hard: str | None
    finished: bool
    exceptions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FallbackSync:
    """What QEMU's 5 s fallback sync (since 9.2) brings this guest.

    Attributes:
        there: whether it is there now; if not, `key` brings it, and if it is, `key` takes it away.
        key, value: the change between the two.
        with_it, without_it: None: time was up.
    """

    there: bool
    key: str
    value: str
    with_it: Summary | None
    without_it: Summary | None


@dataclass(frozen=True, kw_only=True)
class GuestAdvice:
    """Of one guest.

    Attributes:
        now: as it is set; None: time was up, and there is no advice.
        limits: in the order of Name; without those that do not apply, as a dirty rate of an idle guest.
        fallback_sync: None: without auto-converge, or under a sync timer of the user's own.
        ways_out: of a guest that does not converge: other changes, as a report has them; the limits say
            what bandwidth, dirty rate, downtime limit and throttle would do.
    """

    now: Summary | None
    limits: tuple[Limit, ...] = ()
    fallback_sync: FallbackSync | None = None
    ways_out: tuple[Alternative, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether time sufficed for everything."""
        sync = self.fallback_sync
        return (
            self.now is not None
            and all(limit.finished for limit in self.limits)
            and (sync is None or None not in (sync.with_it, sync.without_it))
            and all(change.outcome != "not_tried" for change in self.ways_out)
        )


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Of the middle guest, and of one that nineteen in twenty are no harder than."""

    typical: GuestAdvice
    heavy: GuestAdvice


@dataclass(frozen=True, kw_only=True)
class _Question:
    """A setting and a ladder of its values, the hardest first.

    Attributes:
        now: the place of the value as it is, or one that is as good.
        known: places whose outcome is that of the config as it is.
        stride: see Ladder.
    """

    name: Name
    key: str | None
    now_text: str
    values: tuple[float, ...]
    now: int
    applied: Callable[[Config, float], Config]
    text: Callable[[float], str]
    also: Callable[[float], str] = lambda _: ""
    known: tuple[int, ...] = ()
    stride: int | None = STRIDE


@dataclass(kw_only=True)
class _Search:
    """A ladder being tried.

    Attributes:
        config_of: of each step.
        leader: the same question to the other guest: its answer is where this one begins.
        near: the first leap from there.
        outcomes: of the steps that were tried to their end.
        spent_s: wall time of its runs: who has had least comes first.
    """

    ladder: Ladder
    config_of: Callable[[int], Config]
    leader: _Search | None = None
    near: int = NEAR
    outcomes: dict[int, Summary] = field(default_factory=dict)
    spent_s: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether its answer will not change, but for exceptions."""
        return self.ladder.finished or self.ladder.given_up

    def next(self) -> int | None:
        """The step to try now; None: not now, or never."""
        if self.leader is not None:
            if not self.leader.settled:
                return None
            found, last = self.leader.ladder.found, self.ladder.steps - 1
            self.ladder.begin_at(last if found is None else found, self.near)
            self.leader = None
        return self.ladder.next()

    def tell(self, step: int, found: Summary | None) -> None:
        if found is not None:
            self.outcomes[step] = found
        self.ladder.tell(step, None if found is None else found.verdict == "converged")


def advice(
    typical: Config, heavy: Config, *, wall_s: float, workers: Workers | None = None
) -> Advice:
    """What to set for two guests, and how far one may go.

    The same configs get the same answer, but for what is not finished when time is up.

    Args:
        typical, heavy: migrations as they are set now; may be one and the same.
        wall_s: after which no run is begun, and those under way are stopped.
        workers: that simulate; None: one a core, for this call alone.

    Raises:
        ConfigError: as `simulate` would.
    """
    until_s = monotonic() + wall_s
    with ExitStack() as stack:
        if workers is None:
            workers = stack.enter_context(Workers())
        guests = [typical] if heavy == typical else [typical, heavy]
        plans = [
            _Plan(guest, now)
            for guest, now in zip(guests, workers.all(guests, until_s), strict=True)
        ]
        for follower, leader in zip(plans[1:], plans, strict=False):
            follower.follow(leader)
        searches = [search for plan in plans for search in plan.searches()]
        _carry_out(searches, workers, until_s, LONGEST_SHARE * wall_s)
    found = [plan.advice() for plan in plans]
    return Advice(typical=found[0], heavy=found[-1])


def _carry_out(searches: list[_Search], workers: Workers, until_s: float, longest_s: float) -> None:
    """Try until every ladder is done or time is up; whose runs took least so far is served first."""
    idle = list(searches)
    busy: dict[Future[Summary | None], tuple[_Search, int, float]] = {}
    while True:
        idle.sort(key=lambda one: (one.settled, one.spent_s))  # stable: else as they are asked
        for search in list(idle):
            now_s, step = monotonic(), search.next()
            if step is None or len(busy) == workers.at_a_time or now_s >= until_s:
                continue
            idle.remove(search)
            future = workers.start(search.config_of(step), min(until_s, now_s + longest_s))
            busy[future] = search, step, now_s
        if not busy:
            return
        for future in wait(busy, return_when=FIRST_COMPLETED).done:
            search, step, began_s = busy.pop(future)
            search.spent_s += monotonic() - began_s
            search.tell(step, future.result())
            idle.append(search)


class _Plan:
    """All that is asked of one guest."""

    def __init__(self, config: Config, now: Summary | None) -> None:
        self._now = now
        self._questions: list[tuple[_Question, _Search]] = []
        self._sync: tuple[Change, _Search] | None = None
        self._ways_out: list[tuple[Change, _Search]] = []
        if now is None:
            resolve(config)  # says what is wrong with it, if something is
            return
        scenario = resolve(config)
        self._questions = [(q, _asked(q, config, now)) for q in _questions(config, scenario, now)]
        sync = _other_sync(config, scenario)
        if sync is not None:
            self._sync = sync, _single(sync, config)
        if now.verdict != "converged":
            self._ways_out = [
                (
                    change,
                    self._sync[1] if self._sync and change == sync else _single(change, config),
                )
                for change in changes_of(config, scenario)
                if len(change.values) == 1 and change.key not in ASKED
            ]

    def follow(self, leader: _Plan) -> None:
        """Begin each question where the other guest's answer to the same ladder is found."""
        of_leader = {question.name: (question, search) for question, search in leader._questions}
        for question, search in self._questions:
            other, its_search = of_leader.get(question.name, (None, None))
            if other is not None and other.values == question.values:
                search.leader = its_search

    def searches(self) -> Iterator[_Search]:
        """Each once; what takes one run comes first."""
        single = [] if self._sync is None else [self._sync[1]]
        single += [search for _, search in self._ways_out if search not in single]
        yield from single
        yield from (search for _, search in self._questions)

    def advice(self) -> GuestAdvice:
        """As far as the searches have come."""
        return GuestAdvice(
            now=self._now,
            limits=tuple(_limit(question, search) for question, search in self._questions),
            fallback_sync=self._fallback_sync(),
            ways_out=tuple(
                alternative(change, 0, search.outcomes.get(0)) for change, search in self._ways_out
            ),
        )

    def _fallback_sync(self) -> FallbackSync | None:
        if self._sync is None:
            return None
        change, search = self._sync
        there, other = change.values[0] == "never", search.outcomes.get(0)
        return FallbackSync(
            there=there,
            key=change.key,
            value="null" if change.values[0] is None else str(change.values[0]),
            with_it=self._now if there else other,
            without_it=other if there else self._now,
        )


def _asked(question: _Question, config: Config, now: Summary) -> _Search:
    search = _Search(
        ladder=Ladder(len(question.values), question.now, question.stride),
        config_of=lambda step: question.applied(config, question.values[step]),
        near=1 if question.stride is None else NEAR,
    )
    for step in question.known:
        search.tell(step, now)
    return search


def _single(change: Change, config: Config) -> _Search:
    return _Search(
        ladder=Ladder(1, 0), config_of=lambda step: change.applied(config, change.values[step])
    )


def _limit(question: _Question, search: _Search) -> Limit:
    ladder = search.ladder
    found = None if ladder.found is None else question.values[ladder.found]
    return Limit(
        name=question.name,
        key=question.key,
        now=question.now_text,
        found=None if found is None else question.text(found),
        value=found,
        also="" if found is None else question.also(found),
        outcome=None if ladder.found is None else search.outcomes[ladder.found],
        too_hard=None if ladder.too_hard < 0 else question.text(question.values[ladder.too_hard]),
        finished=ladder.finished,
        exceptions=tuple(question.text(question.values[step]) for step in ladder.exceptions),
    )


def _questions(config: Config, scenario: Scenario, now: Summary) -> Iterator[_Question]:
    yield from _bandwidth(config, scenario)
    yield from _dirty_rate(config)
    yield from _downtime(config)
    yield from _throttle(config, now)


def _ladder(low: float, high: float, now: float) -> list[float]:
    """Values of three figures, 5 % apart, rising; the ends of it, and the value as it is."""
    first, last = (A_DECADE * math.log10(end) for end in (low, high))
    inside = (10 ** (place / A_DECADE) for place in range(math.ceil(first), math.ceil(last)))
    return sorted({float(f"{value:.3g}") for value in (low, *inside, high)} | {now})


def _bandwidth(config: Config, scenario: Scenario) -> Iterator[_Question]:
    """Of the link, or of the limit below it; more threads where one would hold up the rest.

    Where threads are slower than the wire now, the ladder begins at their speed. A wire that was
    recorded or changes has no one bandwidth to ask for.
    """
    link, limit = scenario.link, scenario.parameters.max_bandwidth
    threads = _threads(config, scenario)
    now = min(link.bandwidth, limit or math.inf, link.threads_bandwidth)
    if link.recorded is not None or link.changes or math.isinf(now):
        return
    limited = 0 < limit < min(link.bandwidth, link.threads_bandwidth)
    group, name = ("migration", "max_bandwidth") if limited else ("link", "bandwidth")
    most = min(max(threads), link.bandwidth if limited else MOST_LINK * now)
    bits = _ladder(8 * LEAST_LINK * now, max(8 * most, 8 * now), 8 * now)

    def applied(made: Config, value: float) -> Config:
        changed = Change(f"{group}.{name}", ()).applied(made, value / 8)
        return Change("migration.multifd_channels", ()).applied(changed, channels(value))

    def channels(value: float) -> int:
        return next((threads[rate] for rate in threads if rate >= value / 8), max(threads.values()))

    def also(value: float) -> str:
        need = channels(value)
        more = need > config.migration.multifd_channels
        return f"migration.multifd_channels={need}" if more else ""

    yield _Question(
        name="bandwidth",
        key=f"{group}.{name}",
        now_text=str(getattr(getattr(config, group), name)),
        values=tuple(bits),
        now=bits.index(8 * now),
        known=(bits.index(8 * now),),
        applied=applied,
        text=lambda value: rate_text(value / 8),
        also=also,
    )


def _threads(config: Config, scenario: Scenario) -> dict[float, int]:
    """Bytes a second that threads can send -> channels, rising; those of now are the first."""
    now = config.migration.multifd_channels
    rates = {scenario.link.threads_bandwidth: now}
    if VERSIONS[scenario.version].has_multifd:
        for channels in (count for count in CHANNELS if count > now):
            changed = Change("migration.multifd_channels", ()).applied(config, channels)
            rate = resolve(changed).link.threads_bandwidth
            if rate > max(rates):
                rates[rate] = channels
    return rates


def _dirty_rate(config: Config) -> Iterator[_Question]:
    """All writers faster or slower by a factor; those that were recorded are as fast as they were."""
    writers = _writers(config.workload)
    rates = [float(writer.get("page_writes_per_s", 0)) for writer in writers]
    if any(writer.get("pace") == "recorded" for writer in writers) or not max(rates, default=0):
        return
    limit_s = duration_ns("limit.simulated", config.limit.simulated) / NS_PER_S
    fastest = max(float(writer.get("catch_up_page_writes_per_s") or 0) for writer in writers)
    most = LONGEST_COUNT / limit_s / max(fastest, *rates)
    factors = _ladder(LEAST_RATE, max(1.0, min(MOST_RATE, most)), 1.0)[::-1]
    yield _Question(
        name="dirty_rate",
        key=None,
        now_text="1x",
        values=tuple(factors),
        now=factors.index(1.0),
        known=(factors.index(1.0),),
        applied=lambda made, factor: replace(made, workload=faster(made.workload, factor)),
        text=lambda factor: f"{factor:g}x",
    )


def _writers(workload: WorkloadConfig) -> list[Mapping[str, Any]]:
    """The keys of each writer."""
    if isinstance(workload, MixConfig):
        return [one if isinstance(one, Mapping) else vars(one) for one in workload.writers.values()]
    return [vars(workload)] if isinstance(workload, WriterConfig) else []


def faster(workload: WorkloadConfig, factor: float) -> WorkloadConfig:
    """The same guest, writing so many times as fast."""
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


def _downtime(config: Config) -> Iterator[_Question]:
    now = config.migration.downtime_limit
    least, most = min(LEAST_DOWNTIME_MS, max(1, now)), max(LONGEST_DOWNTIME_MS, now)
    limits = sorted({*(round(ms) for ms in _ladder(least, most, least)), now})
    yield _Question(
        name="downtime_limit",
        key="migration.downtime_limit",
        now_text=str(now),
        values=tuple(map(float, limits)),
        now=limits.index(now),
        known=(limits.index(now),),
        applied=lambda made, ms: Change("migration.downtime_limit", ()).applied(made, round(ms)),
        text=lambda ms: f"{ms:.0f}",
    )


def _throttle(config: Config, now: Summary) -> Iterator[_Question]:
    """The steps that the throttle takes; none at all is auto-converge switched off.

    A run whose throttle did not reach a limit is the run that it is under any lower one that it did not exceed. It
    is not the run without auto-converge, which has no fallback sync either.
    """
    migration = config.migration
    if policies_of(migration):
        return  # what the throttle's limit means there is theirs to say
    limit = migration.max_cpu_throttle if migration.auto_converge else 0
    steps = set(
        range(migration.cpu_throttle_initial, HIGHEST_THROTTLE, migration.cpu_throttle_increment)
    )
    if "max_cpu_throttle" in VERSIONS[migration.version].lacks:
        steps = set()
    reached = {now.max_throttle_percent} if now.verdict == "converged" else set()
    values = sorted({0, HIGHEST_THROTTLE, limit} | steps | reached)
    alike = {one for one in values for least in reached if max(least, 1) <= one <= limit}

    def applied(made: Config, percent: float) -> Config:
        on = replace(made.migration, auto_converge=percent > 0)
        if percent > 0:
            on = replace(on, max_cpu_throttle=round(percent))
        return replace(made, migration=on)

    yield _Question(
        name="max_cpu_throttle",
        key="migration.max_cpu_throttle",
        now_text=str(limit),
        values=tuple(map(float, values)),
        now=values.index(limit),
        known=tuple(values.index(percent) for percent in sorted({limit} | alike)),
        applied=applied,
        text=lambda percent: f"{percent:.0f}",
        also=lambda percent: "migration.auto_converge=true" if percent and not limit else "",
        stride=None,
    )


def _other_sync(config: Config, scenario: Scenario) -> Change | None:
    """The change that takes the fallback sync away or brings it; None: it would never be asked for."""
    if not config.migration.auto_converge or config.migration.sync_timer_rule is not None:
        return None
    if scenario.parameters.fallback_sync_interval_ns is not None:
        return Change("migration.fallback_sync_interval", ("never",))
    if config.migration.fallback_sync_interval == "never" and (
        VERSIONS[scenario.version].fallback_sync_interval_ns is not None
    ):
        return Change("migration.fallback_sync_interval", (None,))
    return Change("migration.version", (first_with_fallback_sync(),))
