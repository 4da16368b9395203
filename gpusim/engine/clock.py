"""Simulated time: one integer-nanosecond clock whose timers fire in a fixed order.

The clock is passive: the loop of the migration says how far time runs. One rule of QEMU is here:
timers of QEMU_CLOCK_VIRTUAL_RT stand still while the VM is stopped
(util/qemu-timer.c:qemu_clock_get_ns, system/cpu-timers.c:cpu_get_clock).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from enum import IntEnum

import numpy as np

from gpusim.layout import IntArray
from gpusim.units import NEVER_NS


class Priority(IntEnum):
    """Which of the timers that are due together fires first."""

    SYNC_TIMER = 0
    THROTTLE_TICK = 1
    MANAGEMENT = 2
    REAPER = 3


class Timer:
    """A timer of one clock. It fires once for each `arm`.

    Attributes:
        at_ns: when it fires, or None while it is not armed.
    """

    def __init__(
        self, clock: Clock, fire: Callable[[], None], priority: int, freezes: bool
    ) -> None:
        self._clock, self._fire, self._priority, self._freezes = clock, fire, priority, freezes
        self.at_ns: int | None = None
        self._sequence = 0  # of the latest arming
        self._armed_ns = 0  # time of the latest arming

    def arm(self, at_ns: int) -> None:
        """Fire at `at_ns`, or at once if that time has passed. This replaces an earlier arming."""
        self.at_ns, self._armed_ns = at_ns, self._clock.now_ns
        self._clock._push(at_ns, self._priority, self)

    def cancel(self) -> None:
        """Do not fire."""
        self.at_ns = None

    def fire(self) -> None:
        """Fire now."""
        self.at_ns = None
        self._fire()


class Clock:
    """The host's time since the migrate command, and the VM's time, which stands still in a pause.

    Attributes:
        now_ns: the present time.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self._heap: list[tuple[int, int, int, Timer]] = []
        self._sequence = 0
        self._stopped_at_ns: int | None = None
        self._stops: list[int] = []
        self._starts: list[int] = []  # ends of the stops that are over

    @property
    def vm_runs(self) -> bool:
        """Whether the VM runs."""
        return self._stopped_at_ns is None

    def vm_ns(self, t_ns: int) -> int:
        """Return the VM's time (QEMU_CLOCK_VIRTUAL_RT) at a host's time."""
        return int(self.vm_times_ns(np.array([t_ns]))[0]) if self._stops else t_ns

    def vm_times_ns(self, times_ns: IntArray) -> IntArray:
        """Return the VM's time at each host's time, int64 [n]."""
        if not self._stops:
            return times_ns
        stops, ends = np.array(self._stops), np.array([*self._starts, NEVER_NS])[: len(self._stops)]
        stood = np.maximum(0, np.minimum(times_ns[:, None], ends) - stops)
        times: IntArray = times_ns - stood.sum(axis=1)
        return times

    def timer(self, fire: Callable[[], None], *, priority: int, freezes: bool) -> Timer:
        """Return a new timer, not armed.

        Args:
            fire: is called when the timer is due, with `now_ns` at the due time.
            priority: of timers that are due together, the lower number fires first.
            freezes: the timer stands still while the VM is stopped (VIRTUAL_RT).
        """
        return Timer(self, fire, priority, freezes)

    def next_ns(self) -> int | None:
        """Return when the next timer fires, or None if none will."""
        timer = self._first()
        return None if timer is None else timer.at_ns

    def run_to(self, t_ns: int) -> None:
        """Let time run to `t_ns`, and fire what is due in (time, priority, arming) order."""
        while (due := self.next_ns()) is not None and due <= t_ns:
            timer = self._first()
            assert timer is not None
            self.now_ns = max(self.now_ns, due)
            timer.fire()
        self.now_ns = max(self.now_ns, t_ns)

    def skip_to(self, t_ns: int) -> None:
        """Let time pass to `t_ns` at the end of a run, without a timer that fires."""
        self.now_ns = max(self.now_ns, t_ns)

    def stop_vm(self) -> None:
        """Stop the VM. Timers that freeze stand still from now on."""
        if self._stopped_at_ns is None:
            self._stopped_at_ns = self.now_ns
            self._stops.append(self.now_ns)

    def start_vm(self) -> None:
        """Start the VM again. Timers that freeze are due later by the time they stood still."""
        if self._stopped_at_ns is None:
            return
        stopped_at_ns, self._stopped_at_ns = self._stopped_at_ns, None
        self._starts.append(self.now_ns)
        for _, _, _, timer in sorted(e for e in self._heap if _is_live(e) and e[3]._freezes):
            assert timer.at_ns is not None
            timer.arm(timer.at_ns + self.now_ns - max(stopped_at_ns, timer._armed_ns))

    def _push(self, at_ns: int, priority: int, timer: Timer) -> None:
        self._sequence += 1
        timer._sequence = self._sequence
        heapq.heappush(self._heap, (at_ns, priority, self._sequence, timer))

    def _first(self) -> Timer | None:
        """Return the timer that fires next, and drop replaced and cancelled armings before it."""
        while self._heap and not _is_live(self._heap[0]):
            heapq.heappop(self._heap)
        if self._stopped_at_ns is None:
            return self._heap[0][3] if self._heap else None
        running = [e for e in self._heap if _is_live(e) and not e[3]._freezes]
        return min(running)[3] if running else None


def _is_live(entry: tuple[int, int, int, Timer]) -> bool:
    """Return whether a heap entry is its timer's latest arming."""
    return entry[3].at_ns is not None and entry[3]._sequence == entry[2]
