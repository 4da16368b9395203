"""Search for throttle settings that serve a goal better than the present ones, with Optuna.

This module owns what is searched and what counts as better. Every reported number comes from a
simulated migration. Better settings may exist that no trial found.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from gpusim.config.scenario import resolve
from gpusim.config.schema import Config
from gpusim.engine.records import Summary
from gpusim.errors import require
from gpusim.explore.bounds import NO_BOUNDS, Bounds
from gpusim.explore.changes import postcopy_obstacle, postcopy_start, with_postcopy
from gpusim.explore.goal_check import GoalCheck, check_goal
from gpusim.explore.run_pool import RunPool
from gpusim.qemu.versions import VERSIONS
from gpusim.units import NS_PER_S

if TYPE_CHECKING:
    import optuna

Goal: TypeAlias = Literal["fastest", "least_loss"]

TRIALS = 64  # at most
BATCH = (
    4  # trials asked for at once. It does not depend on the cores, so the answer does not either
)
SEED = 1
LEAST_GAIN = 0.02  # chance makes less: another seed, another phase of the timer
CANDIDATES = 4  # settings that are tried on all members of a prediction, at most
QUANTITIES: Mapping[Goal, str] = {"fastest": "total_time_s", "least_loss": "guest_cpu_lost_s"}
EQUAL = 0.005  # of the value: a change that gains no more is undone
HIGHEST = {
    "cpu_throttle_initial": 99,
    "cpu_throttle_increment": 99,
    "throttle_trigger_threshold": 100,
}
# The first trials after the present settings: QEMU's defaults, all at once, sooner, gentle, steep.
STARTS = (
    (20, 10, 50),
    (99, 99, 50),
    (50, 25, 25),
    (5, 5, 50),
    (5, 50, 90),
    (80, 10, 20),
    (20, 40, 70),
)
LATE, NEVER = 1e12, 1e15  # instead of a value: beyond a bound, or no convergence (worse)


@dataclass(frozen=True, kw_only=True)
class BetterSettings:
    """Settings that serve a goal better than the present ones.

    Attributes:
        goal, bounds: as the caller gave them.
        now: the summary with the present settings. None: a user's rule failed in that run.
        settings: the changed keys of `migration` and their values. Empty: no better settings were
            found.
        outcome: the summary with the better settings.
        gain: the share of the total time, or of the guest's loss, that they save. None: the
            migration does not converge within the bounds now, or nothing was found.
        runs: how many migrations were simulated to their end, including `now`.
        finished: False: a user's rule failed before all trials were run.
        for_p95_guest: the search used the 95th-percentile guest, so 19 of 20 guests keep the
            bounds. Otherwise it used the median guest.
        p95_now, p95_outcome: summaries of the 95th-percentile guest, with the present and the
            better settings, if the search used the median guest. None: nothing was found.
        check: all migrations of the prediction with these settings, or with the last ones that were
            rejected. None: the search knows no other guest, or found nothing.
        rejected: settings that help the one guest were found, and they do not help all of them.
        postcopy: if no throttle keeps the bounds, the summary with post-copy after the first pass.
            None: it was not needed, it is not possible, or it does not keep them either.
    """

    goal: Goal
    bounds: Bounds
    now: Summary | None
    settings: Mapping[str, int | bool]
    outcome: Summary | None
    gain: float | None
    runs: int
    finished: bool
    for_p95_guest: bool = field(default=False, metadata={"json": "of_heavy"})
    p95_now: Summary | None = field(default=None, metadata={"json": "heavy_now"})
    p95_outcome: Summary | None = field(default=None, metadata={"json": "heavy"})
    check: GoalCheck | None = None
    rejected: bool = False
    postcopy: Summary | None = None


def search_goal(
    config: Config,
    goal: Goal,
    bounds: Bounds = NO_BOUNDS,
    *,
    p95_guest: Config | None = None,
    members: Sequence[tuple[Config, Summary]] = (),
    trials: int = TRIALS,
    pool: RunPool | None = None,
) -> BetterSettings:
    """Search for a better initial throttle, throttle increment and trigger threshold.

    All trials have auto-converge on. The same config gives the same answer.

    Args:
        config: the migration of the median guest as it is set now.
        goal: fastest: least total time. least_loss: least vCPU time lost to the throttle.
        bounds: what the user allows. No bound by default.
        p95_guest: the same migration of the 95th-percentile guest. With a bound the search uses
            this guest. Without one the result is tried on it.
        members: all migrations of the prediction, with the present settings. The best settings that
            help them too are the answer. Empty: the one guest decides.
        trials: how many settings to try at most.
        pool: where runs are simulated. None: one process per core, for this call alone.

    Raises:
        ConfigError: the config cannot be simulated.
        ResultsError: Optuna is not installed.
    """
    require("optuna", "predict", "looking for better settings: ")
    for_p95_guest = p95_guest is not None and bool(bounds)
    if p95_guest is not None and for_p95_guest:
        config = p95_guest
    limit_s = resolve(config).simulated_limit_ns / NS_PER_S
    with ExitStack() as stack:
        pool = pool or stack.enter_context(RunPool())
        (now,) = pool.run_all([config])
        search = _Search(config, goal, bounds, now, limit_s)
        if now is not None:
            stack.enter_context(_quiet_optuna())
            search.run_trials(pool, trials)
            search.undo_needless(pool)
        found = search.answer_for_all(members, trials, pool)
        found = replace(found, for_p95_guest=for_p95_guest)
        if found.outcome is None and now is not None and bounds.excess(now):
            found = replace(found, postcopy=_with_postcopy(config, bounds, pool))
        if p95_guest is None or for_p95_guest or found.outcome is None:
            return found
        settings: dict[str, Any] = dict(found.settings)
        changed = replace(p95_guest, migration=replace(p95_guest.migration, **settings))
        p95_now, p95_outcome = pool.run_all([p95_guest, changed])
        return replace(found, p95_now=p95_now, p95_outcome=p95_outcome)


def _with_postcopy(config: Config, bounds: Bounds, pool: RunPool) -> Summary | None:
    """Return the summary with post-copy after the first pass, if it keeps the bounds."""
    if postcopy_obstacle(config):
        return None
    (found,) = pool.run_all([with_postcopy(config, postcopy_start(config))])
    return None if found is None or bounds.excess(found) else found


class _Search:
    """The settings that were tried, and the outcome of each.

    Args:
        limit_s: the limit of the simulated time, as the config sets it.
    """

    def __init__(
        self,
        config: Config,
        goal: Goal,
        bounds: Bounds,
        now: Summary | None,
        limit_s: float,
    ) -> None:
        self._config, self._goal, self._bounds, self._now = config, goal, bounds, now
        self._limit_s = limit_s
        self._names = [
            name for name in HIGHEST if name not in VERSIONS[config.migration.version].lacks
        ]
        self._present = tuple(getattr(config.migration, name) for name in self._names)
        self._outcomes: dict[tuple[int, ...], Summary] = {}
        if now is not None and config.migration.auto_converge:
            self._outcomes[self._present] = now
        self._tried = 0
        self._rejected: set[tuple[int, ...]] = set()
        self._simplified: tuple[int, ...] | None = None  # replaces a best that is no better

    def run_trials(self, pool: RunPool, trials: int) -> None:
        """Run one batch after the other, until all trials are run."""
        study = self._study()
        while self._tried < trials:
            batch = [study.ask() for _ in range(min(BATCH, trials - self._tried))]
            values = [self._suggested(trial) for trial in batch]
            if not self._simulate(values, pool):
                return
            for trial, settings in zip(batch, values, strict=True):
                study.tell(trial, self._value(self._outcomes[settings]))
            self._tried += len(batch)

    def _simulate(self, values: Sequence[tuple[int, ...]], pool: RunPool) -> bool:
        """Simulate the settings that are new. Return whether each could be simulated."""
        new = [one for one in dict.fromkeys(values) if one not in self._outcomes]
        found = pool.run_all([self._config_with(one) for one in new])
        known = {
            one: outcome for one, outcome in zip(new, found, strict=True) if outcome is not None
        }
        self._outcomes |= known
        return len(known) == len(new)

    def undo_needless(self, pool: RunPool) -> None:
        """Undo each change, one after the other, if the best is as good without it."""
        best, _ = self._best()
        for place, present in enumerate(self._present):
            if best is None or best[place] == present:
                continue
            simpler = (*best[:place], present, *best[place + 1 :])
            if not self._simulate([simpler], pool):
                return
            value = self._value(self._outcomes[simpler])
            if value <= (1 + EQUAL) * self._value(self._outcomes[best]):
                best = self._simplified = simpler

    def answer_for_all(
        self, members: Sequence[tuple[Config, Summary]], trials: int, pool: RunPool
    ) -> BetterSettings:
        """Return the best settings that help all members too, of the best few."""
        found = self.answer(trials)
        checks: list[GoalCheck] = []
        while found.settings and members and len(checks) < CANDIDATES:
            check = check_goal(members, found.settings, QUANTITIES[self._goal], self._bounds, pool)
            if check.helps(LEAST_GAIN):
                return replace(found, check=check)
            checks.append(check)
            self._drop_best()
            found = self.answer(trials)
        if not checks:
            return found
        nothing = replace(found, settings={}, outcome=None, gain=None)
        return replace(nothing, check=checks[0], rejected=True)

    def _drop_best(self) -> None:
        """Forget the best settings, so that the next best ones are the answer."""
        best, _ = self._best()
        assert best is not None
        self._simplified = None
        self._rejected.add(best)

    def answer(self, trials: int) -> BetterSettings:
        """Return the best settings, if they gain more than chance makes."""
        best, gain = self._best()
        settings: dict[str, int | bool] = {}
        if best is not None:
            changes = zip(self._names, best, self._present, strict=True)
            settings = {name: value for name, value, present in changes if value != present}
            if not self._config.migration.auto_converge:
                settings = {"auto_converge": True, **settings}
        return BetterSettings(
            goal=self._goal,
            bounds=self._bounds,
            now=self._now,
            settings=settings,
            outcome=None if best is None else self._outcomes[best],
            gain=gain,
            runs=len({id(one) for one in (self._now, *self._outcomes.values()) if one is not None}),
            finished=self._tried >= trials,
        )

    def _best(self) -> tuple[tuple[int, ...] | None, float | None]:
        if self._now is None or not self._outcomes:
            return None, None
        left = [one for one in self._outcomes if one not in self._rejected]
        if not left:
            return None, None
        best = self._simplified or min(left, key=lambda one: self._rank(self._outcomes[one]))
        value, now = self._value(self._outcomes[best]), self._value(self._now)
        if value >= LATE:
            return None, None
        if now >= LATE:
            return best, None
        gain = (now - value) / now if now else 0.0
        return (best, gain) if gain >= LEAST_GAIN else (None, None)

    def _study(self) -> optuna.Study:
        import optuna

        sampler = optuna.samplers.TPESampler(seed=SEED, multivariate=True, constant_liar=True)
        study = optuna.create_study(sampler=sampler)
        migration = self._config.migration
        for start in ([getattr(migration, name) for name in HIGHEST], *STARTS):
            values = dict(zip(HIGHEST, start, strict=True))
            study.enqueue_trial(
                {name: min(values[name], self._highest(name)) for name in self._names}
            )
        return study

    def _highest(self, name: str) -> int:
        limit = self._config.migration.max_cpu_throttle
        return limit if name == "cpu_throttle_initial" else HIGHEST[name]

    def _suggested(self, trial: optuna.Trial) -> tuple[int, ...]:
        return tuple(trial.suggest_int(name, 1, self._highest(name)) for name in self._names)

    def _config_with(self, values: Sequence[int]) -> Config:
        """Return the config with these settings. Its run stops at the deadline."""
        settings: dict[str, Any] = dict(zip(self._names, values, strict=True))
        migration = replace(self._config.migration, auto_converge=True, **settings)
        config = replace(self._config, migration=migration)
        if self._bounds.total_time_s is None:
            return config
        limit_s = min(self._bounds.total_time_s, self._limit_s)
        return replace(config, limit=replace(config.limit, simulated=limit_s))

    def _value(self, outcome: Summary) -> float:
        """Return the value to minimise: seconds, or vCPU seconds."""
        deadline_s = self._bounds.total_time_s
        if deadline_s is not None and outcome.total_time_s >= deadline_s:
            return LATE + outcome.remaining_bytes
        if outcome.verdict == "converged" and self._bounds.excess(outcome) > 0:
            return LATE + self._bounds.excess(outcome)
        if outcome.verdict != "converged":
            return NEVER + outcome.remaining_bytes
        return float(getattr(outcome, QUANTITIES[self._goal]))

    def _rank(self, outcome: Summary) -> tuple[float, float]:
        """Return a sort key that prefers the faster of two equal outcomes."""
        return self._value(outcome), outcome.total_time_s


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Silence Optuna's log lines, and its warnings about experimental arguments."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
