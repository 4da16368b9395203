"""Search for the first value of each change that converges, many changes side by side.

This module owns which run comes next and how the searches share the time. It does not know what a
change means.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from time import monotonic

from gpusim.config.schema import Config
from gpusim.engine.records import Alternative, Summary
from gpusim.errors import ConfigError
from gpusim.explore.bisection import Bisection
from gpusim.explore.changes import Change
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
        outcomes: step -> summary of the run, for each run that ended.
        is_refused: a value cannot be simulated at all.
        spent_s: wall time of the runs so far. The search with the least comes first.
    """

    change: Change
    config: Config
    bisection: Bisection
    leader: ValueSearch | None = None
    stride_from_leader: int = 1
    outcomes: dict[int, Summary] = field(default_factory=dict)
    is_refused: bool = False
    spent_s: float = 0.0

    @classmethod
    def from_last(cls, change: Change, config: Config) -> ValueSearch:
        """Return a search that tries the largest change first: if that fails, no other helps."""
        last = len(change.values) - 1
        return cls(change=change, config=config, bisection=Bisection(last + 1, start=last))

    @property
    def is_settled(self) -> bool:
        """Return whether the answer is final, except for `Bisection.exceptions`."""
        return self.bisection.is_finished or self.bisection.gave_up

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
            self.is_refused |= isinstance(outcome, ConfigError | RuleError)
            self.bisection.record(step, None)

    def alternative(self) -> Alternative:
        """Return the smallest value that converges, or else the largest value."""
        best, change = self.bisection.best, self.change
        step = len(change.values) - 1 if best is None else best
        outcome, value = self.outcomes.get(step), change.text(change.values[step])
        if outcome is None:
            return Alternative(key=change.key, value=value, outcome="not_tried")
        if best is None:
            return Alternative(key=change.key, value=value, outcome="does_not")
        return Alternative(
            key=change.key,
            value=value,
            outcome="converges",
            smallest=self.bisection.is_finished,
            total_time_s=outcome.total_time_s,
            downtime_ms=outcome.downtime_ms,
            max_throttle_percent=outcome.max_throttle_percent,
            guest_cpu_lost_percent=outcome.guest_cpu_lost_percent,
        )


def run_searches(
    searches: Sequence[ValueSearch], pool: RunPool, until_s: float, longest_run_s: float
) -> None:
    """Try values until every search is over or time is up.

    Args:
        searches: if two have used the same time, then the first comes first.
        pool: where the runs are simulated.
        until_s: a time of `monotonic`. No run starts after that.
        longest_run_s: wall time after which one run is stopped. Its search then gives up.
    """
    idle = list(searches)
    busy: dict[Future[Outcome], tuple[ValueSearch, int, float]] = {}
    while True:
        idle.sort(key=lambda search: (search.is_settled, search.spent_s))  # a stable sort
        for search in list(idle):
            now_s, step = monotonic(), search.next_step()
            if step is None or len(busy) == pool.at_a_time or now_s >= until_s:
                continue
            idle.remove(search)
            config = search.change.config_of(search.config, step)
            future = pool.start(config, min(until_s, now_s + longest_run_s))
            busy[future] = search, step, now_s
        if not busy:
            return
        for future in wait(busy, return_when=FIRST_COMPLETED).done:
            search, step, started_s = busy.pop(future)
            search.spent_s += monotonic() - started_s
            search.record(step, future.result())
            idle.append(search)
