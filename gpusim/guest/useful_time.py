"""The clock of a writer that waits in first writes. `faults.py` sets its breakpoints."""

from __future__ import annotations

from collections.abc import Callable

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
        self._count = 1

    @property
    def last_ns(self) -> int:
        """Return the time of the last breakpoint."""
        return int(self._times_ns[TIME, self._count - 1])

    @property
    def by_last_ns(self) -> float:
        """Return the useful time by the last breakpoint."""
        return float(self._useful[USEFUL, self._count - 1])

    def set_at(self, t_ns: int, useful_ns: float) -> None:
        """Set the useful time at a time above 0, which makes the time the last breakpoint.

        Args:
            t_ns: the last breakpoint's time, or a later one.
            useful_ns: useful time by then.
        """
        kept = int(self._times_ns[TIME, : self._count].searchsorted(t_ns))
        run_ns = self._run.at_ns(t_ns)
        self._useful[SLOPE, kept - 1] = self._slope_before(kept, run_ns, useful_ns)
        if kept == self._count:
            if kept == self._times_ns.shape[1]:
                self._times_ns, self._useful = (
                    np.concatenate([one, np.zeros_like(one)], axis=1)
                    for one in (self._times_ns, self._useful)
                )
            t = np.array([t_ns])
            before, after = self._run.tick_before(t)[0], self._run.tick_after(t)[0]
            self._times_ns[:, kept] = t_ns, run_ns, before, after
            self._count += 1
        self._times_ns[RUN, kept] = run_ns
        self._useful[:, kept] = useful_ns, 1.0

    def at(self, t_ns: IntArray) -> FloatArray:
        """Return the useful time at each time, float64 ns."""
        index = self._times_ns[TIME, : self._count].searchsorted(t_ns, side="right") - 1
        since_ns = self._run.at(t_ns) - self._times_ns[RUN].take(index)
        useful_ns, slope = self._useful.take(index, axis=1)
        return np.asarray(useful_ns + since_ns * slope)

    def ahead(self, t_ns: IntArray, until_ns: int) -> Callable[[float], FloatArray]:
        """Return the useful time at each time as a function of the useful time at a later time.

        Args:
            t_ns: int64, times between the last breakpoint and `until_ns`.
            until_ns: the later time, which would be the next breakpoint.
        """
        last = self._count - 1
        since_ns = self._run.at(t_ns) - self._times_ns[RUN, last]
        by_last_ns, run_ns = self.by_last_ns, self._run.at_ns(until_ns)
        return lambda useful_ns: (
            by_last_ns + since_ns * self._slope_before(last + 1, run_ns, useful_ns)
        )

    def tick_before(self, t_ns: IntArray) -> IntArray:
        return self._run.tick_before(t_ns)

    def tick_after(self, t_ns: IntArray) -> IntArray:
        return self._run.tick_after(t_ns)

    def borders(self, since_ns: int = -1) -> IntArray:
        """Return the borders of run time, the breakpoints, and the ticks around each breakpoint."""
        times_ns = self._times_ns[:, : self._count]
        first = int(times_ns[TIME].searchsorted(since_ns, side="right"))
        own = times_ns[[TIME, TICK_BEFORE, TICK_AFTER], max(0, first - 1) :].ravel()
        return rising(np.concatenate([own[own > since_ns], self._run.borders(since_ns)]))

    def _slope_before(self, index: int, run_ns: int, useful_ns: float) -> float:
        """Return useful time per run time before a breakpoint, given both at it."""
        passed_ns = run_ns - int(self._times_ns[RUN, index - 1])
        if not passed_ns:
            return float(self._useful[SLOPE, index - 1])
        return (useful_ns - float(self._useful[USEFUL, index - 1])) / passed_ns
