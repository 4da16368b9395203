"""Run time tick by tick, the reference for the closed form of RunTime.

QEMU's parts are here one by one: the timer's tick, the vCPU that falls asleep and wakes, its flag
throttle_thread_scheduled, and the big lock with those who wait for it.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

import numpy as np

from gpusim.guest.latency import WakeupLatency
from gpusim.guest.run_time import STRETCH_NS, RunTime
from gpusim.layout import IntArray


class When(IntEnum):
    """What comes first of things at one time. The sync timer has the priority 0."""

    WAKE = -3
    HOLD = -2
    RELEASE = -1
    TICK = 1


class ArmedTimer(Protocol):
    def arm(self, at_ns: int) -> None:
        """Fire at a time."""

    def cancel(self) -> None:
        """Do not fire."""


class TickedRunTime(RunTime):
    """A RunTime in which every tick and every wake-up is a timer on a clock.

    Args:
        timer: makes a timer of a priority that calls a function when it fires.
        now_ns: reads the clock.
        latency: see RunTime.
    """

    def __init__(
        self,
        timer: Callable[[Callable[[], None], int], ArmedTimer],
        now_ns: Callable[[], int],
        latency: WakeupLatency | None = None,
    ) -> None:
        super().__init__(latency)
        self._make_timer, self._now_ns = timer, now_ns
        self._tick_timer = timer(self._fire_tick, When.TICK)
        self._wake_timer = timer(self._fire_wake, When.WAKE)
        self._tick_at_ns = self._wakes_at_ns = -1
        self._changes: list[tuple[int, int]] = []  # (ns, percent)
        self._is_held = self._is_scheduled = self._waits = self._is_kicked = False
        self._late = 0
        self._released_ns = -1
        self._from: list[int] = []  # of each sleep
        self._until: list[int] = []  # of each sleep that is over
        self._slept = [0]  # before each sleep, and after the last one that is over
        self._ticks: list[int] = []

    def throttle(self, now_ns: int, percent: int) -> None:
        if percent == self.percent:
            return
        self.percent = percent
        if not self.ignores_throttle:
            self._do_at(now_ns, lambda: self._set(percent), When.RELEASE)

    def hold(self, now_ns: int, *, due_ns: int | None = None) -> None:
        self._do_at(now_ns, lambda: self._take_lock(due_ns), When.HOLD)

    def release(self, now_ns: int, *, by_main_loop: bool) -> None:
        self._do_at(now_ns, lambda: self._give_lock(by_main_loop), When.RELEASE)

    def at_ns(self, t_ns: int) -> int:
        past = bisect.bisect_left(self._from, t_ns)
        if not past:
            return t_ns
        last = past - 1  # only this sleep may still go on
        end = self._until[last] if last < len(self._until) else t_ns
        return t_ns - self._slept[last] - (min(end, t_ns) - self._from[last])

    def at(self, t_ns: IntArray) -> IntArray:
        return np.array([self.at_ns(int(t)) for t in t_ns.ravel()], np.int64).reshape(t_ns.shape)

    def wakes_at_ns(self, t_ns: int) -> int:
        is_asleep = self._is_scheduled and self._from[-1] < t_ns < self._wakes_at_ns
        return self._wakes_at_ns if is_asleep else t_ns

    def is_tick(self, t_ns: int) -> bool:
        return t_ns in self._from

    def tick_before(self, t_ns: IntArray) -> IntArray:
        ticks = np.array([0, *self._ticks])
        return np.asarray(ticks[np.searchsorted(ticks, t_ns, side="right") - 1])

    def tick_after(self, t_ns: IntArray) -> IntArray:
        ticks = np.array([*self._ticks, max(self._tick_at_ns, 0)])
        index = np.searchsorted(ticks, t_ns, side="right")
        return np.where(index < len(ticks), ticks[np.minimum(index, len(ticks) - 1)], t_ns)

    def tick_before_ns(self, t_ns: int) -> int:
        return int(self.tick_before(np.array([t_ns]))[0])

    def tick_after_ns(self, t_ns: int) -> int:
        return int(self.tick_after(np.array([t_ns]))[0])

    def borders_between(self, since_ns: int, until_ns: int) -> list[int]:
        return [t for t in self.borders(since_ns).tolist() if t <= until_ns]

    def borders(self, since_ns: int = -1) -> IntArray:
        return np.unique([t for t in (0, *self._ticks) if t > since_ns])

    def longest_sleep_ns(self, until_ns: int) -> int:
        until = [*self._until, max(self._wakes_at_ns, until_ns)][: len(self._from)]
        sleeps = zip(self._from, until, strict=True)
        return max((min(end, until_ns) - start for start, end in sleeps if start < until_ns),
                   default=0)  # fmt: skip

    def _do_at(self, at_ns: int, do: Callable[[], None], when: When) -> None:
        if at_ns > self._now_ns():
            self._make_timer(do, when).arm(at_ns)
        else:
            do()

    def _set(self, percent: int) -> None:
        self._changes.append((self._now_ns(), percent))
        if len(self._changes) == 1:
            self._late = self._draw(percent)
            self._tick(percent)
        elif not self._is_held:
            self._late = self._draw(percent)

    def _take_lock(self, due_ns: int | None) -> None:
        now_ns = self._now_ns()
        if not self._changes or not self.needs_big_lock:
            return
        if due_ns is not None:
            is_recent = self._released_ns < self._ticks[-1] < now_ns
            if is_recent and self._ticks[-1] - self._late >= due_ns:
                self._take_back_tick()
            if self._ticks[-1] < now_ns and self._tick_at_ns - self._late < due_ns:
                self._tick(self._changes[-1][1])
        self._is_held = True
        self._held_ns = now_ns
        self._is_kicked = self._is_scheduled and self._from[-1] == now_ns

    def _take_back_tick(self) -> None:
        """Let the last tick come after the sync that was due before it."""
        self._tick_at_ns = self._ticks.pop()
        assert self._from.pop() == self._tick_at_ns
        if not self._is_scheduled:  # its sleep is over already
            self._until.pop()
            self._slept.pop()
        self._wake_timer.cancel()
        self._is_scheduled = False

    def _give_lock(self, by_main_loop: bool) -> None:
        now_ns = self._now_ns()
        if not self._is_held:
            return
        self._is_held = False
        if self._held_ns == now_ns:  # a hold without length
            self._waits = False
            if self._changes[-1][0] == now_ns > self._changes[0][0]:
                self._late = self._draw(self._changes[-1][1])
            return
        if self._is_kicked:
            self._wakes_at_ns += now_ns - self._held_ns
            self._wake_timer.arm(self._wakes_at_ns)
        self._released_ns = now_ns
        waits, self._waits = self._waits, False
        is_due = self._tick_at_ns - self._late <= now_ns
        if waits and not by_main_loop:
            self._wake()
        percent = self._changes[-1][1]
        self._late = self._draw(percent)
        if is_due:
            self._tick(percent)
        else:
            self._tick_timer.arm(self._tick_at_ns)
        if waits and by_main_loop:
            self._wake()

    def _fire_tick(self) -> None:
        if not self._is_held:  # of a change at the same time, the tick knows nothing
            earlier = [percent for at_ns, percent in self._changes if at_ns < self._now_ns()]
            self._tick(earlier[-1])

    def _fire_wake(self) -> None:
        if self._is_held and not self._is_kicked:
            self._waits = True
        elif not self._is_held:
            self._wake()

    def _tick(self, percent: int) -> None:
        """Schedule every vCPU whose flag is not set, and arm the timer."""
        now_ns = self._now_ns()
        period, sleep = self.tick_cost.slice_ns(percent)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._ticks.append(now_ns)
            self._from.append(now_ns)
            self._wakes_at_ns = now_ns + sleep + self._late
            self._wake_timer.arm(self._wakes_at_ns)
        self._tick_at_ns = now_ns + period + self._late
        self._tick_timer.arm(self._tick_at_ns)

    def _wake(self) -> None:
        self._is_scheduled = False
        self._until.append(self._now_ns())
        slept_ns = self._until[-1] - self._from[len(self._until) - 1]
        self._slept.append(self._slept[-1] + slept_ns)

    def _draw(self, percent: int) -> int:
        return self._latency.draw_ns(STRETCH_NS // self.tick_cost.slice_ns(percent)[0])
