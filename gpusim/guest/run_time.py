"""vCPU run time under QEMU's throttle: slices of running and sleeping, in integer nanoseconds.

At each tick of the throttle timer every vCPU sleeps, then runs until the next tick
(migration/cpu-throttle.c:cpu_throttle_timer_tick, cpu_throttle_thread; same in 7.2 to 10.1). All
vCPUs sleep in phase. Between two changes of the throttle the slices have a closed form; in the
tick-by-tick mode each slice is a timer on the clock, and both give the same integers.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Protocol

import numpy as np

from gpusim.layout import FloatArray, IntArray
from gpusim.units import NEVER_NS

TIMESLICE_NS = 10_000_000  # CPU_THROTTLE_TIMESLICE_NS


def slice_ns(percent: int) -> tuple[int, int]:
    """Period of the throttle's tick and the sleep in it, ns.

    In C's double arithmetic, as QEMU does it: 20 % is 12.5 ms with 2.5 ms + 1 ns asleep.

    Source: migration/cpu-throttle.c:cpu_throttle_timer_tick, cpu_throttle_thread.
    """
    share = percent / 100
    return int(TIMESLICE_NS / (1 - share)), int(share / (1 - share) * TIMESLICE_NS + 1)


class VcpuClock(Protocol):
    """A clock that a writer lives by: ns of running by a time, and the ticks that interrupt it."""

    def at(self, t_ns: IntArray) -> IntArray | FloatArray:
        """Run time, ns, at each time."""

    def tick_before(self, t_ns: IntArray) -> IntArray:
        """The last tick at or before each time; the start of time where there was none."""

    def tick_after(self, t_ns: IntArray) -> IntArray:
        """The first tick behind each time, as the throttle is now; the time itself if there is none."""

    def borders(self) -> IntArray:
        """Times between which ticks are evenly spaced, the last tick before each among them."""


class WallTime:
    """The clock of what no throttle slows: it always runs."""

    def at(self, t_ns: IntArray) -> IntArray:
        return t_ns

    def tick_before(self, t_ns: IntArray) -> IntArray:
        return np.zeros_like(t_ns)

    def tick_after(self, t_ns: IntArray) -> IntArray:
        return t_ns

    def borders(self) -> IntArray:
        return np.zeros(1, np.int64)


class RunTime:
    """Run time of the vCPUs since the migrate command, under a throttle that changes.

    A change is seen at the first tick after it; the first one ticks at once
    (migration/cpu-throttle.c:cpu_throttle_set).

    Attributes:
        percent: the throttle that was set last; 0 before the first.
        ignores_throttle: it is set, but the vCPUs never sleep (process.Process).
    """

    def __init__(self) -> None:
        self.percent = 0
        self.ignores_throttle = False
        self._starts, self._periods, self._sleeps, self._run = [0], [NEVER_NS], [0], [0]

    def throttle(self, now_ns: int, percent: int) -> None:
        """Set the throttle at `now_ns`, which never goes back."""
        if percent == self.percent:
            return
        first, self.percent = self.percent == 0, percent
        if self.ignores_throttle:
            return
        start = self._starts[-1]
        if first:
            self._append(now_ns, percent)
        elif now_ns < start:  # no tick has seen the last change
            for column in (self._starts, self._periods, self._sleeps, self._run):
                column.pop()
            self._append(start, percent)
        else:
            period = self._periods[-1]
            self._append(start + ((now_ns - start) // period + 1) * period, percent)

    def at(self, t_ns: IntArray) -> IntArray:
        """Run time, ns, at each time; int64 of any shape."""
        index = np.searchsorted(np.array(self._starts), t_ns, side="right") - 1
        period, sleep = np.array(self._periods)[index], np.array(self._sleeps)[index]
        slices, since_tick = np.divmod(t_ns - np.array(self._starts)[index], period)
        run = np.array(self._run)[index] + slices * (period - sleep)
        return np.asarray(run + np.maximum(since_tick - sleep, 0))

    def at_ns(self, t_ns: int) -> int:
        """Run time, ns, at one time."""
        index = bisect.bisect_right(self._starts, t_ns) - 1
        slices, since_tick = divmod(t_ns - self._starts[index], self._periods[index])
        sleep = self._sleeps[index]
        return (
            self._run[index] + slices * (self._periods[index] - sleep) + max(since_tick - sleep, 0)
        )

    def wakes_at_ns(self, t_ns: int) -> int:
        """When the vCPUs that sleep at a time wake; the time itself if they run.

        A sleep that begins or ends just then is none.
        """
        index = bisect.bisect_right(self._starts, t_ns) - 1
        since_tick = (t_ns - self._starts[index]) % self._periods[index]
        return t_ns + max(0, self._sleeps[index] - since_tick if since_tick else 0)

    def tick_before(self, t_ns: IntArray) -> IntArray:
        """The last tick at or before each time, 0 before the first."""
        index = np.searchsorted(np.array(self._starts), t_ns, side="right") - 1
        start, period = np.array(self._starts)[index], np.array(self._periods)[index]
        return np.asarray(start + (t_ns - start) // period * period)

    def tick_after(self, t_ns: IntArray) -> IntArray:
        """The first tick behind each time, as the throttle is now; the time itself if there is none."""
        starts = np.array([*self._starts, NEVER_NS])
        index = np.searchsorted(starts, t_ns, side="right") - 1
        start, period = starts[index], np.array([*self._periods, NEVER_NS])[index]
        regular = np.where(
            period == NEVER_NS, NEVER_NS, start + ((t_ns - start) // period + 1) * period
        )
        after = np.minimum(regular, starts[np.minimum(index + 1, len(starts) - 1)])
        return np.where(after == NEVER_NS, t_ns, after)

    def borders(self) -> IntArray:
        """Starts of the stretches with one throttle, and the last tick before each, ascending."""
        starts = np.array(self._starts)
        return np.unique(np.concatenate([starts, self.tick_before(np.maximum(starts - 1, 0))]))

    def longest_sleep_ns(self, until_ns: int) -> int:
        """The longest single sleep that began before `until_ns`, cut there: vm_stop wakes sleepers."""
        begun = bisect.bisect_left(self._starts, until_ns)
        return max(
            (
                min(sleep, until_ns - start)
                for start, sleep in zip(self._starts[:begun], self._sleeps, strict=False)
            ),
            default=0,
        )

    def _append(self, tick_ns: int, percent: int) -> None:
        """From the tick at `tick_ns` on, slices are those of `percent`."""
        period, sleep = slice_ns(percent)
        run = self.at_ns(tick_ns)
        self._starts.append(tick_ns)
        self._periods.append(period)
        self._sleeps.append(sleep)
        self._run.append(run)


class TickedRunTime(RunTime):
    """The same run time, slice by slice: every tick is a timer on the clock. For tests.

    Args:
        timer: makes a timer of the simulation's clock from what it shall call.
        now_ns: reads that clock.
    """

    def __init__(
        self, timer: Callable[[Callable[[], None]], ArmedTimer], now_ns: Callable[[], int]
    ) -> None:
        super().__init__()
        self._timer, self._now_ns = timer(self._tick), now_ns
        self._changes: list[tuple[int, int]] = []  # since when which percent

    def throttle(self, now_ns: int, percent: int) -> None:
        if percent == self.percent:
            return
        first, self.percent = self.percent == 0, percent
        if self.ignores_throttle:
            return
        self._changes.append((now_ns, percent))
        if first:
            self._timer.arm(now_ns)

    def _tick(self) -> None:
        now_ns = self._now_ns()
        seen = [percent for since_ns, percent in self._changes if since_ns < now_ns]
        percent = seen[-1] if seen else self._changes[0][1]
        self._append(now_ns, percent)
        self._timer.arm(now_ns + slice_ns(percent)[0])


class ArmedTimer(Protocol):
    """What TickedRunTime needs of a timer."""

    def arm(self, at_ns: int) -> None:
        """Fire at a time."""
