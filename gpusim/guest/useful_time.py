"""The clock of a writer that waits in first writes. `faults.py` sets its breakpoints."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

import numpy as np

from gpusim.guest.run_time import RunTime
from gpusim.layout import FloatArray, IntArray, rising

TIME, RUN, TICK_BEFORE, TICK_AFTER = range(4)
USEFUL, SLOPE = range(2)


class UsefulTime:
    """Run time without the time in faults: the clock of a writer that faults slow down.

    It is linear in run time between two breakpoints. After the last breakpoint it has no faults.

    Args:
        run: run time of the vCPUs.
    """

    def __init__(self, run: RunTime) -> None:
        self._run = run
        # Of each breakpoint, in ns: its time, the run time by then, and the ticks around it. And the
        # useful time by then, and useful time per run time after it.
        self._times_ns, self._useful = np.zeros((4, 64), np.int64), np.zeros((2, 64))
        self._useful[SLOPE, 0] = 1.0
        # The same once more, because one time is found in a list in a tenth of the time.
        self._times, self._ticks = [0], [(0, 0)]
        self._points = [(0, 0.0, 1.0)]  # run time, useful time and slope

    @property
    def _count(self) -> int:
        return len(self._times)

    @property
    def last_ns(self) -> int:
        """Return the time of the last breakpoint."""
        return self._times[-1]

    @property
    def by_last_ns(self) -> float:
        """Return the useful time by the last breakpoint."""
        return self._points[-1][1]

    def set_at(self, t_ns: int, useful_ns: float) -> None:
        """Set the useful time at a time above 0, which makes the time the last breakpoint.

        Args:
            t_ns: the last breakpoint's time, or a later one.
            useful_ns: useful time by then.
        """
        kept = bisect.bisect_left(self._times, t_ns)
        run_ns = self._run.at_ns(t_ns)
        slope = self._useful[SLOPE, kept - 1] = self._slope_before(kept, run_ns, useful_ns)
        self._points[kept - 1] = (*self._points[kept - 1][:2], slope)
        if kept == self._count:
            if kept == self._times_ns.shape[1]:
                self._times_ns, self._useful = (
                    np.concatenate([one, np.zeros_like(one)], axis=1)
                    for one in (self._times_ns, self._useful)
                )
            ticks = self._run.tick_before_ns(t_ns), self._run.tick_after_ns(t_ns)
            self._times_ns[:, kept] = t_ns, run_ns, *ticks
            self._times.append(t_ns)
            self._ticks.append(ticks)
        self._times_ns[RUN, kept] = run_ns
        self._useful[:, kept] = useful_ns, 1.0
        self._points[kept:] = [(run_ns, useful_ns, 1.0)]

    def at_ns(self, t_ns: int) -> float:
        """Return the useful time at one time, ns."""
        run_ns, useful_ns, slope = self._points[bisect.bisect_right(self._times, t_ns) - 1]
        return useful_ns + (self._run.at_ns(t_ns) - run_ns) * slope

    def at(self, t_ns: IntArray) -> FloatArray:
        """Return the useful time at each time, float64 ns."""
        index = self._times_ns[TIME, : self._count].searchsorted(t_ns, side="right") - 1
        since_ns = self._run.at(t_ns) - self._times_ns[RUN].take(index)
        useful_ns, slope = self._useful.take(index, axis=1)
        return np.asarray(useful_ns + since_ns * slope)

    def ahead(self, times_ns: Sequence[int], until_ns: int) -> Callable[[float], list[float]]:
        """Return the useful time at each time as a function of the useful time at a later time.

        Args:
            times_ns: times between the last breakpoint and `until_ns`.
            until_ns: the later time, which would be the next breakpoint.
        """
        by_last_run_ns, by_last_ns, _ = self._points[-1]
        since_ns = [self._run.at_ns(t_ns) - by_last_run_ns for t_ns in times_ns]
        run_ns, count = self._run.at_ns(until_ns), self._count

        def useful_then(useful_ns: float) -> list[float]:
            slope = self._slope_before(count, run_ns, useful_ns)
            return [by_last_ns + since * slope for since in since_ns]

        return useful_then

    def tick_before(self, t_ns: IntArray) -> IntArray:
        return self._run.tick_before(t_ns)

    def tick_before_ns(self, t_ns: int) -> int:
        return self._run.tick_before_ns(t_ns)

    def tick_after(self, t_ns: IntArray) -> IntArray:
        return self._run.tick_after(t_ns)

    def borders(self, since_ns: int = -1) -> IntArray:
        """Return the borders of run time, the breakpoints, and the ticks around each breakpoint."""
        times_ns = self._times_ns[:, : self._count]
        first = int(times_ns[TIME].searchsorted(since_ns, side="right"))
        own = times_ns[[TIME, TICK_BEFORE, TICK_AFTER], max(0, first - 1) :].ravel()
        return rising(np.concatenate([own[own > since_ns], self._run.borders(since_ns)]))

    def borders_between(self, since_ns: int, until_ns: int) -> list[int]:
        """Return the borders since_ns < t <= until_ns, see VcpuClock."""
        first = max(0, bisect.bisect_right(self._times, since_ns) - 1)
        own = zip(self._times[first:], self._ticks[first:], strict=True)
        found = [t for time_ns, ticks in own for t in (time_ns, *ticks) if since_ns < t <= until_ns]
        return found + self._run.borders_between(since_ns, until_ns)

    def _slope_before(self, index: int, run_ns: int, useful_ns: float) -> float:
        """Return useful time per run time before a breakpoint, given both at it."""
        run_before_ns, useful_before_ns, slope = self._points[index - 1]
        passed_ns = run_ns - run_before_ns
        return (useful_ns - useful_before_ns) / passed_ns if passed_ns else slope
