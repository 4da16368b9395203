"""Search for the first value of each change that converges, many changes side by side.

This module owns which run comes next. It does not know what a change means.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from gpusim.config.schema import Config
from gpusim.engine.records import Alternative, Summary
from gpusim.explore.bisection import Bisection
from gpusim.explore.changes import Change, override_text
from gpusim.explore.run_pool import Outcome, RunPool
from gpusim.qemu.rules import RuleError


@dataclass(kw_only=True)
class ValueSearch:
    """A bisection over the values of one change.

    Attributes:
        change: the key and its values.
        config: the config without the change.
        bisection: over the values.
        leader: the same search for another guest. This search starts where the leader ends.
        stride_from_leader: length of the first leap from there, in values.
        outcomes: step -> summary of the run, for each run.
        has_failed_rule: a user's rule failed in a run.
    """

    change: Change
    config: Config
    bisection: Bisection
    leader: ValueSearch | None = None
    stride_from_leader: int = 1
    outcomes: dict[int, Summary] = field(default_factory=dict)
    has_failed_rule: bool = False

    @classmethod
    def from_last(cls, change: Change, config: Config) -> ValueSearch:
        """Return a search that tries the largest change first: if that fails, no other helps."""
        last = len(change.values) - 1
        return cls(change=change, config=config, bisection=Bisection(last + 1, start=last))

    @property
    def is_refused(self) -> bool:
        """Return whether a value cannot be simulated at all."""
        return self.bisection.gave_up

    @property
    def is_settled(self) -> bool:
        """Return whether the answer is final, except for `Bisection.exceptions`."""
        return self.bisection.is_finished or self.is_refused

    def next_step(self) -> int | None:
        """Return the step to try now. None: not now, or never."""
        if self.leader is not None:
            if not self.leader.is_settled:
                return None
            best, last = self.leader.bisection.best, self.bisection.steps - 1
            self.bisection.restart_at(last if best is None else best, self.stride_from_leader)
            self.leader = None
        return self.bisection.next_step()

    def record(self, step: int, outcome: Outcome) -> None:
        """Record the outcome of the run of a step."""
        if isinstance(outcome, Summary):
            self.outcomes[step] = outcome
            self.bisection.record(step, outcome.verdict == "converged")
        else:
            self.has_failed_rule |= isinstance(outcome, RuleError)
            self.bisection.record(step, None)

    def alternative(self) -> Alternative:
        """Return the smallest value that converges, or else the largest value."""
        best, change = self.bisection.best, self.change
        step = len(change.values) - 1 if best is None else best
        outcome, value = self.outcomes.get(step), change.text(change.values[step])
        also = override_text(change.also(change.values[step]))
        if outcome is None:
            return Alternative(key=change.key, value=value, also=also, outcome="not_tried")
        if best is None:
            return Alternative(key=change.key, value=value, also=also, outcome="does_not")
        return Alternative(
            key=change.key,
            value=value,
            also=also,
            outcome="converges",
            smallest=self.bisection.is_finished,
            total_time_s=outcome.total_time_s,
            downtime_ms=outcome.downtime_ms,
            max_throttle_percent=outcome.max_throttle_percent,
            guest_cpu_lost_percent=outcome.guest_cpu_lost_percent,
            postcopy_time_s=outcome.postcopy_time_s,
            postcopy_blackout_ms=outcome.postcopy_blackout_ms,
        )


def run_searches(searches: Sequence[ValueSearch], pool: RunPool) -> None:
    """Try values until every search is over.

    The answers depend neither on the number of processes nor on the order in which runs end. A
    process that has nothing to try starts a run of `RunPool.run_when_idle`.

    Args:
        searches: the first comes first, if there are fewer processes than searches.
        pool: where the runs are simulated.
    """
    busy: dict[Future[Outcome], list[tuple[ValueSearch, int]]] = {}
    wanted_later: set[Future[Outcome]] = set()
    while True:
        running = [id(search) for tries in busy.values() for search, _ in tries]
        for search in searches:
            if len(busy) >= pool.at_a_time:
                break
            step = None if id(search) in running else search.next_step()
            if step is not None:
                future = pool.start(search.change.config_of(search.config, step))
                busy.setdefault(future, []).append((search, step))
        if not busy:
            return
        while len(busy) + len(wanted_later) < pool.at_a_time and (later := pool.start_when_idle()):
            wanted_later.add(later)
        done = wait({*busy, *wanted_later}, return_when=FIRST_COMPLETED).done
        wanted_later -= done
        for future in done.intersection(busy):
            for search, step in busy.pop(future):
                search.record(step, future.result())
