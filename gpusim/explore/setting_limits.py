"""Limits of the settings of a migration: how far each may go so that the migration converges.

`setting_questions` owns the values of each setting. `value_search` owns which run comes next.
Every reported value was simulated, and so was the next value, which fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from gpusim.config.scenario import Scenario, resolve
from gpusim.config.schema import Config
from gpusim.engine.records import Alternative, Summary
from gpusim.explore.alternatives import without_cut_runs
from gpusim.explore.changes import (
    Change,
    Setting,
    override_text,
    single_changes,
    value_text,
    with_fallback_sync,
)
from gpusim.explore.run_pool import RunPool
from gpusim.explore.setting_questions import Name, Question, questions_of
from gpusim.explore.value_search import ValueSearch, run_searches

KEYS_OF_LIMITS = (  # no alternative repeats them
    "link.bandwidth",
    "migration.max_bandwidth",
    "migration.multifd_channels",
    "migration.downtime_limit",
    "migration.max_cpu_throttle",
)


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
        also: what has to be set with it. More multifd channels if one thread is slower than the
            bandwidth. Auto-converge if it is off. None: nothing.
        outcome: the summary of the run with `found`.
        first_failing: the next tried value, which does not converge. None: no value failed. If
            `finished`, then no value lies between. Values are 5 % apart, or one throttle step.
        finished: False: a value cannot be simulated, so not all values between were tried.
        exceptions: values beyond `first_failing` that converge.
    """

    name: Name
    key: str | None
    now: str
    found: str | None
    value: float | None
    also: Setting | None = field(metadata={"as_json": override_text})
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
        with_it, without_it: summaries of the two runs. None: one cannot be simulated.
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
        now: the summary of the run with all settings as they are. None: a user's rule failed in
            it, and there is no advice.
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
        """Return whether every run that was wanted could be simulated."""
        sync = self.fallback_sync
        return (
            self.now is not None
            and all(limit.finished for limit in self.limits)
            and (sync is None or None not in (sync.with_it, sync.without_it))
            and all(change.outcome != "not_tried" for change in self.alternatives)
        )


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The advice for the median guest and for the 95th-percentile guest.

    Attributes:
        cut: how many runs took more work than a run may, and count as not converging.
    """

    median_guest: GuestAdvice = field(metadata={"json": "typical"})
    p95_guest: GuestAdvice = field(metadata={"json": "heavy"})
    cut: int = 0


def advise(
    median_guest: Config, p95_guest: Config, *, effort: int = 1, pool: RunPool | None = None
) -> Advice:
    """Find the limits of the settings for two guests. The same configs give the same answers.

    Args:
        median_guest, p95_guest: the migrations as they are set now. They may be equal.
        effort: 1 or more: values are 5 % / effort apart.
        pool: where runs are simulated. None: one process per core, for this call alone.

    Raises:
        ConfigError: a config cannot be simulated.
    """
    with ExitStack() as stack:
        pool = pool or stack.enter_context(RunPool())
        guests = [median_guest] if p95_guest == median_guest else [median_guest, p95_guest]
        scenarios = [resolve(guest) for guest in guests]
        runs = list(zip(scenarios, pool.run_all(guests), strict=True))
        plans = [_Plan(scenario, now, effort) for scenario, now in runs]
        for follower, leader in zip(plans[1:], plans, strict=False):
            follower.follow(leader)
        searches = [search for plan in plans for search in plan.searches()]
        run_searches(searches, pool)
        advice = [plan.advice() for plan in plans]
        # Two searches may share a run.
        found = [now for _, now in runs] + [
            outcome for search in searches for outcome in search.outcomes.values()
        ]
        cut = {id(one) for one in found if one is not None and one.status != "ok"}
        return Advice(median_guest=advice[0], p95_guest=advice[-1], cut=len(cut))


class _Plan:
    """All searches for one guest."""

    def __init__(self, scenario: Scenario, now: Summary | None, effort: int) -> None:
        config = scenario.config
        self._now = now
        self._questions: list[tuple[Question, ValueSearch]] = []
        self._sync: ValueSearch | None = None
        self._alternatives: list[ValueSearch] = []
        if now is None:
            return
        questions = questions_of(scenario, now, effort)
        self._questions = [(question, question.search(config, now)) for question in questions]
        change = _toggled_fallback_sync(scenario)
        if change is not None:
            self._sync = ValueSearch.from_last(change, config)
        if now.verdict != "converged":
            self._alternatives = [
                self._sync if self._sync and one == change else ValueSearch.from_last(one, config)
                for one in single_changes(config, scenario)
                if len(one.values) == 1 and one.key not in KEYS_OF_LIMITS
            ]

    def follow(self, leader: _Plan) -> None:
        """Start each search without a guess where the other guest's over the same values ends."""
        leaders = {question.name: search for question, search in leader._questions}
        for question, search in self._questions:
            other = leaders.get(question.name)
            alike = other is not None and other.change.values == question.change.values
            if alike and question.guess is None:
                search.leader = other

    def searches(self) -> Iterator[ValueSearch]:
        """Yield each search once, those with one run first."""
        if self._sync is not None:
            yield self._sync
        yield from (search for search in self._alternatives if search is not self._sync)
        yield from (search for _, search in self._questions)

    def advice(self) -> GuestAdvice:
        """Return the answers."""
        return GuestAdvice(
            now=self._now,
            limits=tuple(_limit(question, search) for question, search in self._questions),
            fallback_sync=self._fallback_sync(),
            alternatives=tuple(
                without_cut_runs(search)
                for search in self._alternatives
                if not search.is_refused or search.has_failed_rule
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


def _limit(question: Question, search: ValueSearch) -> Limit:
    """Return the answer to a question."""
    bisection, change = search.bisection, question.change
    texts = [change.text(value) for value in change.values]
    step, failing = bisection.best, bisection.last_failing
    return Limit(
        name=question.name,
        key=change.key or None,
        now=question.now_text,
        found=None if step is None else texts[step],
        value=None if step is None else change.values[step],
        also=None if step is None else change.also(change.values[step]),
        outcome=None if step is None else search.outcomes[step],
        first_failing=None if failing < 0 else texts[failing],
        finished=bisection.is_finished,
        exceptions=tuple(texts[step] for step in bisection.exceptions),
    )


def _toggled_fallback_sync(scenario: Scenario) -> Change | None:
    """Return the change that removes or adds the fallback sync. None: QEMU never asks for one."""
    if not scenario.migration.auto_converge or scenario.migration.sync_timer_rule is not None:
        return None
    if scenario.parameters.fallback_sync_interval_ns is not None:
        return Change("migration.fallback_sync_interval", ("never",))
    return with_fallback_sync(scenario)
