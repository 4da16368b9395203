"""The clock of a writer that waits in first writes. `faults.py` sets its breakpoints."""

from __future__ import annotations

import numpy as np

from gpusim.guest.run_time import RunTime
from gpusim.layout import FloatArray, IntArray, rising


class UsefulTime:
    """Run time without the time in faults: the clock of a writer that faults slow down.

    It is linear in run time between two breakpoints. After the last breakpoint it has no faults.

    Args:
        run: run time of the vCPUs.
    """

    def __init__(self, run: RunTime) -> None:
        self._run = run
        self._times, self._run_ns = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self._useful_ns, self._slopes = np.zeros(1), np.ones(1)
        # Breakpoints and the ticks around them, ascending.
        self._borders: IntArray = np.zeros(1, np.int64)

    def set_at(self, t_ns: int, useful_ns: float) -> None:
        """Set the useful time at a time above 0, which makes the time the last breakpoint.

        Args:
            t_ns: the last breakpoint's time, or a later one.
            useful_ns: useful time by then.
        """
        kept = np.searchsorted(self._times, t_ns)
        run_ns, slopes = self._run.at_ns(t_ns), self._slopes[:kept]
        passed_ns = run_ns - int(self._run_ns[kept - 1])
        if passed_ns:
            slopes[-1] = (useful_ns - self._useful_ns[kept - 1]) / passed_ns
        if kept == len(self._times):
            self._note(t_ns)
        self._times = np.append(self._times[:kept], t_ns)
        self._run_ns = np.append(self._run_ns[:kept], run_ns)
        self._useful_ns = np.append(self._useful_ns[:kept], useful_ns)
        self._slopes = np.append(slopes, 1.0)

    def at(self, t_ns: IntArray) -> FloatArray:
        """Return the useful time at each time, float64 ns."""
        breakpoint_ = np.searchsorted(self._times, t_ns, side="right") - 1
        since_ns = self._run.at(t_ns) - self._run_ns[breakpoint_]
        return np.asarray(self._useful_ns[breakpoint_] + since_ns * self._slopes[breakpoint_])

    def tick_before(self, t_ns: IntArray) -> IntArray:
        return self._run.tick_before(t_ns)

    def tick_after(self, t_ns: IntArray) -> IntArray:
        return self._run.tick_after(t_ns)

    def borders(self) -> IntArray:
        """Return the borders of run time, the breakpoints, and the ticks around each breakpoint."""
        others = self._run.borders()
        return np.insert(self._borders, np.searchsorted(self._borders, others), others)

    def _note(self, t_ns: int) -> None:
        """Add a breakpoint and its ticks, which lie near the end of the borders."""
        t = np.array([t_ns])
        new = np.concatenate([self.tick_before(t), t, self.tick_after(t)])
        tail = np.searchsorted(self._borders, new[0])
        late = rising(np.concatenate([self._borders[tail:], new]))
        self._borders = np.concatenate([self._borders[:tail], late])
