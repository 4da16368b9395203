"""The page writes of a writer by a time: CPU-bound, paced or recorded.

Each pace is a pure function of time and of run time. It is no sum over slices, so its value does
not depend on the times of earlier calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from gpusim.guest.run_time import VcpuClock
from gpusim.guest.useful_time import UsefulTime
from gpusim.guest.windows import Mark, Windows
from gpusim.layout import FloatArray, IntArray, rising
from gpusim.units import NS_PER_S


def active_ns(t_ns: IntArray, windows: Windows | None) -> IntArray:
    """Return how many ns of the windows have passed by each time, int64.

    Args:
        t_ns: int64, times of any shape.
        windows: None: one window without an end.
    """
    return t_ns if windows is None else windows.active_ns(t_ns)


class Pace(Protocol):
    """The page writes of a writer by a time."""

    @property
    def top_rate(self) -> float | None:
        """Page writes per second of run time. None: the pace is recorded and ignores run time."""

    @property
    def rate(self) -> float:
        """Page writes per second while it is active, if nothing slows it."""

    def writes(
        self, t_ns: IntArray, run: VcpuClock, windows: Windows | None, mark: Mark | None = None
    ) -> FloatArray:
        """Return the page writes since the migrate command at each time, float64.

        Args:
            t_ns: int64, times of any shape, not before the mark.
            run: the writer's clock.
            windows: when it is active. None: always.
            mark: what it had reached at an earlier time, to start from. None: start from time 0.
        """

    def writes_by(
        self, t_ns: int, run: VcpuClock, windows: Windows | None, mark: Mark | None
    ) -> float:
        """Return `writes` by one time, which takes less time than an array."""

    def mark(
        self, t_ns: int, run: VcpuClock, windows: Windows | None, mark: Mark | None
    ) -> Mark | None:
        """Return what it has reached at a time before which the clock is final.

        None: later values are as quick to find without it.
        """

    def ahead(
        self, until_ns: int, run: UsefulTime, windows: Windows | None, mark: Mark | None
    ) -> Callable[[float], float]:
        """Return the page writes by a time as a function of the useful time then.

        It gives what `writes` does after `run.set_at`, and is quicker to ask many times.

        Args:
            until_ns: the time, after the clock's last breakpoint.
            run, windows, mark: see `writes`.
        """

    def lost_s(self, t_ns: int, run: VcpuClock, windows: Windows | None) -> float:
        """Return the seconds of one vCPU's work that were not done by a time."""

    def scaled(self, share: float) -> Pace:
        """Return the pace of a writer that does a share of the work."""


@dataclass(frozen=True)
class CpuBound:
    """Writes `rate` pages per second of run time in its windows, as fast as its vCPUs run."""

    rate: float

    @property
    def top_rate(self) -> float | None:
        return self.rate

    def scaled(self, share: float) -> CpuBound:
        return CpuBound(self.rate * share)

    def writes(
        self, t_ns: IntArray, run: VcpuClock, windows: Windows | None, mark: Mark | None = None
    ) -> FloatArray:
        return self.rate * (_active_run_ns(t_ns, run, windows, mark) / NS_PER_S)

    def writes_by(
        self, t_ns: int, run: VcpuClock, windows: Windows | None, mark: Mark | None
    ) -> float:
        if windows is None:
            return self.rate * (run.at_ns(t_ns) / NS_PER_S)
        return float(self.writes(np.array([t_ns]), run, windows, mark)[0])

    def mark(
        self, t_ns: int, run: VcpuClock, windows: Windows | None, mark: Mark | None
    ) -> Mark | None:
        """Return its run time in the windows. None: its windows end."""
        if windows is None or not windows.cycle_ns:
            return None
        return Mark(t_ns, windows.active_run_ns(np.array([t_ns]), run, mark)[0].item())

    def ahead(
        self, until_ns: int, run: UsefulTime, windows: Windows | None, mark: Mark | None
    ) -> Callable[[float], float]:
        if windows is None:
            return lambda useful_ns: self.rate * (useful_ns / NS_PER_S)
        return partial(_writes_after, self, until_ns, run, windows, mark)

    def lost_s(self, t_ns: int, run: VcpuClock, windows: Windows | None) -> float:
        t = np.array([t_ns])
        return float((active_ns(t, windows) - _active_run_ns(t, run, windows))[0]) / NS_PER_S


@dataclass(frozen=True)
class Paced:
    """Work arrives at `rate` in its windows. Late work is done at `capacity`.

    In each interval the guest does min(backlog + arrived, capacity x run time) and keeps the rest.
    Let A(t) be the work that has arrived, and C(t) the work that run time allows. Then the work
    done is C(t) + min over s <= t of A(s) - C(s), the reflection of a queue. Because capacity >=
    rate, the minimum lies at the beginning of a sleep or at t. Between two borders it is linear in
    the number of the tick, which gives a closed form.

    Attributes:
        rate, capacity: page writes per second of wall time and of run time.
    """

    rate: float
    capacity: float

    @property
    def top_rate(self) -> float | None:
        return self.capacity

    def scaled(self, share: float) -> Paced:
        return Paced(self.rate * share, self.capacity * share)

    def writes(
        self, t_ns: IntArray, run: VcpuClock, windows: Windows | None, mark: Mark | None = None
    ) -> FloatArray:
        allowed = self._allowed(t_ns, run)
        return allowed + self._least(t_ns, allowed, run, windows, mark)

    def writes_by(
        self, t_ns: int, run: VcpuClock, windows: Windows | None, mark: Mark | None
    ) -> float:
        if windows is None:
            least = self._least_by(t_ns, run, mark)
            return self.capacity * (run.at_ns(t_ns) / NS_PER_S) + least
        return float(self.writes(np.array([t_ns]), run, windows, mark)[0])

    def mark(self, t_ns: int, run: VcpuClock, windows: Windows | None, mark: Mark | None) -> Mark:
        """Return the smallest slack."""
        if windows is None:
            return Mark(t_ns, self._least_by(t_ns, run, mark))
        t = np.array([t_ns])
        least = self._least(t, self._allowed(t, run), run, windows, mark)
        return Mark(t_ns, least[0].item())

    def ahead(
        self, until_ns: int, run: UsefulTime, windows: Windows | None, mark: Mark | None
    ) -> Callable[[float], float]:
        since_ns, least = (mark.t_ns, float(mark.value)) if mark is not None else (-1, math.inf)
        until = np.array([until_ns])
        if windows is None:
            arrived, borders_ns = (
                self._slack_ns(until_ns, 0.0),
                run.borders_between(since_ns, until_ns),
            )
        else:
            arrived = self._arrived(until, windows).item()
            borders_ns = self._borders(since_ns, until_ns, run, windows).tolist()
        borders_ns.append(run.tick_before_ns(until_ns))
        past_ns = [t_ns for t_ns in borders_ns if t_ns <= run.last_ns]
        later_ns = [t_ns for t_ns in borders_ns if run.last_ns < t_ns < until_ns]
        if windows is None:
            least = min([least, *(self._slack_ns(t_ns, run.at_ns(t_ns)) for t_ns in past_ns)])
            arrived_then = [self._slack_ns(t_ns, 0.0) for t_ns in later_ns]
        else:
            slack = self._slack(np.array(past_ns, np.int64), run, windows)
            least = min(least, float(slack.min(initial=math.inf)))
            arrived_then = self._arrived(np.array(later_ns, np.int64), windows).tolist()
        useful_then = run.ahead(later_ns, until_ns)

        def writes(useful_ns: float) -> float:
            allowed = self.capacity * (useful_ns / NS_PER_S)
            slack = min(least, arrived - allowed)
            if later_ns:
                for then, useful in zip(arrived_then, useful_then(useful_ns), strict=True):
                    slack = min(slack, then - self.capacity * (useful / NS_PER_S))
            return allowed + slack

        return writes

    def lost_s(self, t_ns: int, run: VcpuClock, windows: Windows | None) -> float:
        t = np.array([t_ns])
        backlog = self.rate * (active_ns(t, windows) / NS_PER_S) - self.writes(t, run, windows)
        return max(0.0, float(backlog[0]) / self.capacity)

    def _allowed(self, t_ns: IntArray, run: VcpuClock) -> FloatArray:
        return self.capacity * (run.at(t_ns) / NS_PER_S)

    def _arrived(self, t_ns: IntArray, windows: Windows | None) -> FloatArray:
        return self.rate * (active_ns(t_ns, windows) / NS_PER_S)

    def _slack(self, t_ns: IntArray, run: VcpuClock, windows: Windows | None) -> FloatArray:
        return self._arrived(t_ns, windows) - self._allowed(t_ns, run)

    def _slack_ns(self, t_ns: int, run_ns: float) -> float:
        """The slack at one time without windows, by which the clock has run so long."""
        return self.rate * (t_ns / NS_PER_S) - self.capacity * (run_ns / NS_PER_S)

    def _least_by(self, t_ns: int, run: VcpuClock, mark: Mark | None) -> float:
        """The smallest slack up to one time without windows."""
        since_ns, least = (mark.t_ns, mark.value) if mark is not None else (-1, math.inf)
        times_ns = run.borders_between(since_ns, t_ns)
        times_ns += [t_ns, run.tick_before_ns(t_ns)]
        return min([least, *(self._slack_ns(one, run.at_ns(one)) for one in times_ns)])

    def _borders(
        self, since_ns: int, until_ns: int, run: VcpuClock, windows: Windows | None
    ) -> IntArray:
        """The times after one time between which the slack is linear in the number of the tick."""
        borders = run.borders(since_ns)
        if windows is None:
            return borders
        edges = windows.edges(since_ns, until_ns + 1)
        return rising(np.concatenate([borders, run.tick_before(edges), run.tick_after(edges)]))

    def _least(
        self,
        t_ns: IntArray,
        allowed: FloatArray,
        run: VcpuClock,
        windows: Windows | None,
        mark: Mark | None,
    ) -> FloatArray:
        """The smallest slack up to each time. `allowed` is the work that run time allows by then."""
        since_ns, reached = (mark.t_ns, mark.value) if mark is not None else (-1, np.inf)
        borders = self._borders(since_ns, int(t_ns.max(initial=0)), run, windows)
        slack = np.concatenate([[reached], self._slack(borders, run, windows)])
        least = np.minimum.accumulate(slack)
        index = borders.searchsorted(t_ns, side="right")
        here = self._arrived(t_ns, windows) - allowed
        return np.minimum(
            least[index], np.minimum(here, self._slack(run.tick_before(t_ns), run, windows))
        )


@dataclass(frozen=True)
class Recorded:
    """A recorded write counter: linear between samples, CPU-bound after the last sample.

    Attributes:
        times_s, counts: float64 [samples], ascending.
        rate: page writes per second of run time after the last sample.
    """

    times_s: FloatArray
    counts: FloatArray
    rate: float

    @property
    def top_rate(self) -> float | None:
        return None

    def scaled(self, share: float) -> Recorded:
        return Recorded(self.times_s, self.counts * share, self.rate * share)

    def writes(
        self, t_ns: IntArray, run: VcpuClock, windows: Windows | None, mark: Mark | None = None
    ) -> FloatArray:
        recorded = np.interp(t_ns / NS_PER_S, self.times_s, self.counts)
        end_ns = np.full_like(t_ns, round(self.times_s[-1] * NS_PER_S))
        behind_ns = run.at(np.maximum(t_ns, end_ns)) - run.at(end_ns)
        return np.asarray(recorded + self.rate * (behind_ns / NS_PER_S))

    def writes_by(
        self, t_ns: int, run: VcpuClock, windows: Windows | None, mark: Mark | None
    ) -> float:
        return float(self.writes(np.array([t_ns]), run, windows, mark)[0])

    def mark(self, t_ns: int, run: VcpuClock, windows: Windows | None, mark: Mark | None) -> None:
        """Return None, because each value is found at once."""

    def ahead(
        self, until_ns: int, run: UsefulTime, windows: Windows | None, mark: Mark | None
    ) -> Callable[[float], float]:
        return partial(_writes_after, self, until_ns, run, windows, mark)

    def lost_s(self, t_ns: int, run: VcpuClock, windows: Windows | None) -> float:
        """Return the loss of a CPU-bound writer, as the record does not show the vCPUs' load."""
        return (t_ns - int(run.at(np.array([t_ns]))[0])) / NS_PER_S


def _writes_after(
    pace: Pace,
    until_ns: int,
    run: UsefulTime,
    windows: Windows | None,
    mark: Mark | None,
    useful_ns: float,
) -> float:
    run.set_at(until_ns, useful_ns)
    return pace.writes_by(until_ns, run, windows, mark)


def _active_run_ns(
    t_ns: IntArray, run: VcpuClock, windows: Windows | None, mark: Mark | None = None
) -> IntArray | FloatArray:
    return run.at(t_ns) if windows is None else windows.active_run_ns(t_ns, run, mark)
