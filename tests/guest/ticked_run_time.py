"""Run time tick by tick, the reference for the closed form of RunTime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gpusim.guest.run_time import RunTime, slice_ns


class ArmedTimer(Protocol):
    def arm(self, at_ns: int) -> None:
        """Fire at a time."""


class TickedRunTime(RunTime):
    """A RunTime in which every tick is a timer on a clock.

    Args:
        timer: makes a timer that calls a function when it fires.
        now_ns: reads the clock.
    """

    def __init__(
        self, timer: Callable[[Callable[[], None]], ArmedTimer], now_ns: Callable[[], int]
    ) -> None:
        super().__init__()
        self._timer, self._now_ns = timer(self._tick), now_ns
        self._changes: list[tuple[int, int]] = []  # (ns, percent from then on)

    def throttle(self, now_ns: int, percent: int) -> None:
        if percent == self.percent:
            return
        is_first, self.percent = self.percent == 0, percent
        if self.ignores_throttle:
            return
        self._changes.append((now_ns, percent))
        if is_first:
            self._timer.arm(now_ns)

    def _tick(self) -> None:
        now_ns = self._now_ns()
        earlier = [percent for from_ns, percent in self._changes if from_ns < now_ns]
        percent = earlier[-1] if earlier else self._changes[0][1]
        self._append(now_ns, percent)
        self._timer.arm(now_ns + slice_ns(percent)[0])
