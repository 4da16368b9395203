"""vCPU run time under QEMU's throttle: slices of running and sleeping, in integer nanoseconds.

At each tick of the throttle timer every vCPU sleeps, then runs until the next tick. All vCPUs sleep
in phase. Between two changes of the throttle the slices have a closed form. A test compares it with
a timer for each tick, and both give the same integers.

Source: migration/cpu-throttle.c:cpu_throttle_timer_tick and cpu_throttle_thread [7.2 to 10.1].
"""

from __future__ import annotations

import bisect
from typing import Protocol

import numpy as np

from gpusim.layout import FloatArray, IntArray
from gpusim.units import NEVER_NS

TIMESLICE_NS = 10_000_000  # CPU_THROTTLE_TIMESLICE_NS


def slice_ns(percent: int) -> tuple[int, int]:
    """Return the period of the throttle's tick and the sleep in it, in ns.

    The arithmetic is C's double arithmetic, as in QEMU: 20 % is a period of 12.5 ms with a sleep of
    2.5 ms + 1 ns.

    Source: migration/cpu-throttle.c:cpu_throttle_timer_tick and cpu_throttle_thread [7.2 to 10.1].
    """
    share = percent / 100
    return int(TIMESLICE_NS / (1 - share)), int(share / (1 - share) * TIMESLICE_NS + 1)


class VcpuClock(Protocol):
    """The clock of a writer: its run time by a time, and the ticks that interrupt it."""

    def at(self, t_ns: IntArray) -> IntArray | FloatArray:
        """Return the run time at each time, in ns."""

    def tick_before(self, t_ns: IntArray) -> IntArray:
        """Return the last tick at or before each time, or 0 before the first tick."""

    def tick_after(self, t_ns: IntArray) -> IntArray:
        """Return the first tick after each time at the present throttle.

        If there is no tick, return the time itself.
        """

    def borders(self) -> IntArray:
        """Return times between which ticks are evenly spaced, and the last tick before each."""


class WallTime:
    """The clock of device writes, which no throttle slows. It always runs."""

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

    A change takes effect at the first tick after it. The first throttle ticks at once.

    Attributes:
        percent: the throttle that was set last. 0 before the first.
        ignores_throttle: the vCPUs never sleep, see qemu.process.Process.

    Source: migration/cpu-throttle.c:cpu_throttle_set [7.2 to 10.1].
    """

    def __init__(self) -> None:
        self.percent = 0
        self.ignores_throttle = False
        self._starts, self._periods, self._sleeps, self._run = [0], [NEVER_NS], [0], [0]

    def throttle(self, now_ns: int, percent: int) -> None:
        """Set the throttle.

        Args:
            now_ns: the time, not before that of an earlier call.
            percent: the throttle, 1 to 99.
        """
        if percent == self.percent:
            return
        first, self.percent = self.percent == 0, percent
        if self.ignores_throttle:
            return
        start = self._starts[-1]
        if first:
            self._append(now_ns, percent)
        elif now_ns < start:  # the last change has not taken effect at a tick
            for column in (self._starts, self._periods, self._sleeps, self._run):
                column.pop()
            self._append(start, percent)
        else:
            period = self._periods[-1]
            self._append(start + ((now_ns - start) // period + 1) * period, percent)

    def at(self, t_ns: IntArray) -> IntArray:
        """Return the run time at each time, in ns, int64 of any shape."""
        index = np.searchsorted(np.array(self._starts), t_ns, side="right") - 1
        period, sleep = np.array(self._periods)[index], np.array(self._sleeps)[index]
        slices, since_tick = np.divmod(t_ns - np.array(self._starts)[index], period)
        run = np.array(self._run)[index] + slices * (period - sleep)
        return np.asarray(run + np.maximum(since_tick - sleep, 0))

    def at_ns(self, t_ns: int) -> int:
        """Return the run time at one time, in ns."""
        index = bisect.bisect_right(self._starts, t_ns) - 1
        slices, since_tick = divmod(t_ns - self._starts[index], self._periods[index])
        sleep = self._sleeps[index]
        return (
            self._run[index] + slices * (self._periods[index] - sleep) + max(since_tick - sleep, 0)
        )

    def wakes_at_ns(self, t_ns: int) -> int:
        """Return when the vCPUs that sleep at a time wake, or the time itself if they run.

        A sleep that begins or ends exactly at the time does not count.
        """
        index = bisect.bisect_right(self._starts, t_ns) - 1
        since_tick = (t_ns - self._starts[index]) % self._periods[index]
        return t_ns + max(0, self._sleeps[index] - since_tick if since_tick else 0)

    def tick_before(self, t_ns: IntArray) -> IntArray:
        """Return the last tick at or before each time, or 0 before the first tick."""
        index = np.searchsorted(np.array(self._starts), t_ns, side="right") - 1
        start, period = np.array(self._starts)[index], np.array(self._periods)[index]
        return np.asarray(start + (t_ns - start) // period * period)

    def tick_after(self, t_ns: IntArray) -> IntArray:
        """Return the first tick after each time at the present throttle, see VcpuClock."""
        starts = np.array([*self._starts, NEVER_NS])
        index = np.searchsorted(starts, t_ns, side="right") - 1
        start, period = starts[index], np.array([*self._periods, NEVER_NS])[index]
        regular = np.where(
            period == NEVER_NS, NEVER_NS, start + ((t_ns - start) // period + 1) * period
        )
        after = np.minimum(regular, starts[np.minimum(index + 1, len(starts) - 1)])
        return np.where(after == NEVER_NS, t_ns, after)

    def borders(self) -> IntArray:
        """Return the starts of stretches with one throttle, and the last tick before each."""
        starts = np.array(self._starts)
        return np.unique(np.concatenate([starts, self.tick_before(np.maximum(starts - 1, 0))]))

    def longest_sleep_ns(self, until_ns: int) -> int:
        """Return the longest single sleep that began before `until_ns`.

        A sleep ends at `until_ns` at the latest, because vm_stop wakes sleeping vCPUs.
        """
        begun = bisect.bisect_left(self._starts, until_ns)
        return max(
            (
                min(sleep, until_ns - start)
                for start, sleep in zip(self._starts[:begun], self._sleeps, strict=False)
            ),
            default=0,
        )

    def _append(self, tick_ns: int, percent: int) -> None:
        """Use the slices of `percent` from the tick at `tick_ns` on."""
        period, sleep = slice_ns(percent)
        run = self.at_ns(tick_ns)
        self._starts.append(tick_ns)
        self._periods.append(period)
        self._sleeps.append(sleep)
        self._run.append(run)
