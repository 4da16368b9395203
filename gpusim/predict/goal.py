"""Throttle settings that serve a goal better than those that are set, looked for by Optuna over the simulator.

Owns what is searched and what counts as better. Every number it gives is of a simulated migration; what
is not found by so many of them may still be there.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from gpusim.config.scenario import resolve
from gpusim.config.schema import Config
from gpusim.engine.records import Summary
from gpusim.errors import require
from gpusim.predict.runs import Workers
from gpusim.qemu.versions import VERSIONS
from gpusim.units import NS_PER_S

if TYPE_CHECKING:
    import optuna

Goal: TypeAlias = Literal["fastest", "least_loss"]

TRIALS = 64  # at most
BATCH = 4  # asked for at once, however many cores there are, so that the answer is the same on all
SEED = 1
HEAVY_WALL_S = 10.0  # for the two runs of the heavy guest, behind the time that the search has
LEAST_GAIN = 0.02  # less is what chance makes: another seed, another phase of the timer
ALIKE = 0.005  # of the value: a change that brings no more is not made
HIGHEST = {
    "cpu_throttle_initial": 99,
    "cpu_throttle_increment": 99,
    "throttle_trigger_threshold": 100,
}
# Where the search begins, behind what is set: QEMU's defaults; all at once; sooner; gently; steeply.
STARTS = (
    (20, 10, 50),
    (99, 99, 50),
    (50, 25, 25),
    (5, 5, 50),
    (5, 50, 90),
    (80, 10, 20),
    (20, 40, 70),
)
LATE, STUCK = 1e12, 1e15  # in place of a value: later than the deadline, and never, which is worse


@dataclass(frozen=True, kw_only=True)
class Better:
    """What serves a goal better than what is set.

    Attributes:
        goal, deadline_s: as they were given.
        now: of the migration as it is set; None: time was up, and nothing is known.
        settings: keys of `migration` to be changed, and their values: only those that make a difference.
            Empty: nothing better was found.
        outcome: of the migration with them.
        gain: share of the total time, or of the guest's loss, that they save; None where `now` does not
            converge, or not by the deadline, or where nothing better was found.
        runs: migrations that were simulated to their end, `now` among them.
        finished: False: time was up before all that was planned had been tried.
        of_heavy: it was looked for with the heavy guest, so that its deadline is kept by nineteen in twenty; else
            with the middle one.
        heavy_now, heavy: of the heavy guest, as it is set and with the settings, where the search was not with it;
            None: nothing was found, or time was up.
    """

    goal: Goal
    deadline_s: float | None
    now: Summary | None
    settings: Mapping[str, int | bool]
    outcome: Summary | None
    gain: float | None
    runs: int
    finished: bool
    of_heavy: bool = False
    heavy_now: Summary | None = None
    heavy: Summary | None = None


def better(
    config: Config,
    goal: Goal,
    deadline_s: float | None = None,
    *,
    wall_s: float,
    heavy: Config | None = None,
    trials: int = TRIALS,
    workers: Workers | None = None,
) -> Better:
    """Look for another initial throttle, increment and trigger threshold.

    Auto-converge is on in all that is tried. The same config gets the same answer, but for what is not
    finished when time is up.

    Args:
        goal: fastest: least total time; least_loss: least vCPU time lost to the throttle.
        deadline_s: total time that has to be kept; None: any.
        wall_s: after which no run is begun, and those under way are stopped.
        heavy: a harder guest. With a deadline it is the one that settings are looked for with; without one, what
            was found for the other is tried on it.
        trials: how many settings to try at most.
        workers: that simulate; None: one a core, for this call alone.

    Raises:
        ConfigError: as `simulate` would.
        ResultsError: Optuna is not installed.
    """
    require("optuna", "predict", "looking for better settings: ")
    of_heavy = heavy is not None and deadline_s is not None
    if of_heavy:
        assert heavy is not None
        config = heavy
    resolve(config)
    until_s = monotonic() + wall_s
    with ExitStack() as stack:
        if workers is None:
            workers = stack.enter_context(Workers())
        (now,) = workers.all([config], until_s)
        search = _Search(config, goal, deadline_s, now)
        if now is not None:
            stack.enter_context(_quiet())
            search.carry_out(workers, until_s, trials)
            search.undo_needless(workers, until_s)
        found = replace(search.answer(trials), of_heavy=of_heavy)
        if heavy is None or of_heavy or found.outcome is None:
            return found
        changed = replace(heavy, migration=replace(heavy.migration, **found.settings))  # type: ignore[arg-type]
        as_set, then = workers.all([heavy, changed], monotonic() + HEAVY_WALL_S)
        return replace(found, heavy_now=as_set, heavy=then)


class _Search:
    """Settings that were tried, and what came of each."""

    def __init__(
        self, config: Config, goal: Goal, deadline_s: float | None, now: Summary | None
    ) -> None:
        self._config, self._goal, self._deadline_s, self._now = config, goal, deadline_s, now
        self._names = [
            name for name in HIGHEST if name not in VERSIONS[config.migration.version].lacks
        ]
        self._set = tuple(getattr(config.migration, name) for name in self._names)
        self._outcomes: dict[tuple[int, ...], Summary] = {}
        if now is not None and config.migration.auto_converge:
            self._outcomes[self._set] = now
        self._tried = 0
        self._chosen: tuple[int, ...] | None = None  # over a best that is no better

    def carry_out(self, workers: Workers, until_s: float, trials: int) -> None:
        """Try a batch after the other, until there were enough or time is up."""
        study = self._study()
        while self._tried < trials and monotonic() < until_s:
            asked = [study.ask() for _ in range(min(BATCH, trials - self._tried))]
            values = [self._suggested(trial) for trial in asked]
            if not self._simulated(values, workers, until_s):
                return
            for trial, one in zip(asked, values, strict=True):
                study.tell(trial, self._value(self._outcomes[one]))
            self._tried += len(asked)

    def _simulated(
        self, values: Sequence[tuple[int, ...]], workers: Workers, until_s: float
    ) -> bool:
        """Whether time sufficed for all that was not known yet."""
        new = [one for one in dict.fromkeys(values) if one not in self._outcomes]
        found = workers.all([self._cut_off(self._with(one)) for one in new], until_s)
        known = {
            one: outcome for one, outcome in zip(new, found, strict=True) if outcome is not None
        }
        self._outcomes |= known
        return len(known) == len(new)

    def undo_needless(self, workers: Workers, until_s: float) -> None:
        """Leave each setting as it is, one after the other, if the best is as good without its change."""
        best, _ = self._best()
        for place, as_set in enumerate(self._set):
            if best is None or best[place] == as_set:
                continue
            simpler = (*best[:place], as_set, *best[place + 1 :])
            if not self._simulated([simpler], workers, until_s):
                return
            value = self._value(self._outcomes[simpler])
            if value <= (1 + ALIKE) * self._value(self._outcomes[best]):
                best = self._chosen = simpler

    def answer(self, trials: int) -> Better:
        """The best there was, if it is better than what is set by more than chance."""
        found, gain = self._best()
        outcome = None if found is None else self._outcomes[found]
        settings: dict[str, int | bool] = {}
        if found is not None:
            changes = zip(self._names, found, self._set, strict=True)
            settings = {name: value for name, value, as_set in changes if value != as_set}
            if not self._config.migration.auto_converge:
                settings = {"auto_converge": True, **settings}
        return Better(
            goal=self._goal,
            deadline_s=self._deadline_s,
            now=self._now,
            settings=settings,
            outcome=outcome,
            gain=gain,
            runs=len({id(one) for one in (self._now, *self._outcomes.values()) if one is not None}),
            finished=self._tried >= trials,
        )

    def _best(self) -> tuple[tuple[int, ...] | None, float | None]:
        if self._now is None or not self._outcomes:
            return None, None
        best = self._chosen or min(self._outcomes, key=lambda one: self._rank(self._outcomes[one]))
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
            given = dict(zip(HIGHEST, start, strict=True))
            study.enqueue_trial(
                {name: min(given[name], self._highest(name)) for name in self._names}
            )
        return study

    def _highest(self, name: str) -> int:
        limit = self._config.migration.max_cpu_throttle
        return limit if name == "cpu_throttle_initial" else HIGHEST[name]

    def _suggested(self, trial: optuna.Trial) -> tuple[int, ...]:
        return tuple(trial.suggest_int(name, 1, self._highest(name)) for name in self._names)

    def _with(self, values: Sequence[int]) -> Config:
        settings: dict[str, Any] = dict(zip(self._names, values, strict=True))
        migration = replace(self._config.migration, auto_converge=True, **settings)
        return replace(self._config, migration=migration)

    def _cut_off(self, config: Config) -> Config:
        """What is not over by the deadline need not be simulated any further."""
        if self._deadline_s is None:
            return config
        limit_s = min(self._deadline_s, resolve(config).simulated_limit_ns / NS_PER_S)
        return replace(config, limit=replace(config.limit, simulated=limit_s))

    def _value(self, outcome: Summary) -> float:
        """What is to be least: seconds, or vCPU seconds."""
        late = self._deadline_s is not None and outcome.total_time_s >= self._deadline_s
        if late:
            return LATE + outcome.remaining_bytes
        if outcome.verdict != "converged":
            return STUCK + outcome.remaining_bytes
        return outcome.total_time_s if self._goal == "fastest" else outcome.guest_cpu_lost_s

    def _rank(self, outcome: Summary) -> tuple[float, float]:
        """Of two that are alike, the faster one."""
        return self._value(outcome), outcome.total_time_s


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's lines, and its warnings of what may change in a later version."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
