"""Simulated time: one integer-nanosecond clock with timers that fire in a fixed order.

Passive: the simulation owns the loop and says how far time runs. It knows no rule of QEMU's but one:
timers of QEMU_CLOCK_VIRTUAL_RT stand still while the VM is stopped
(util/qemu-timer.c:qemu_clock_get_ns, system/cpu-timers.c:cpu_get_clock).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np

from gpusim.layout import IntArray
from gpusim.units import NEVER_NS


class Timer:
    """A timer of one clock, re-armed as often as wanted; it fires once for each `arm`."""

    def __init__(
        self, clock: Clock, fire: Callable[[], None], priority: int, freezes: bool
    ) -> None:
        self._clock, self._fire, self._priority, self._freezes = clock, fire, priority, freezes
        self.at_ns: int | None = None  # None: not armed
        self._sequence = 0  # of the latest arming
        self._armed_ns = 0  # when that was

    def arm(self, at_ns: int) -> None:
        """Fire at `at_ns`, or at once if that has passed; replaces an earlier arming."""
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
    """Virtual wall-clock time since the migrate command.

    Attributes:
        now_ns: the time it is.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self._heap: list[tuple[int, int, int, Timer]] = []
        self._sequence = 0
        self._stopped_at_ns: int | None = None
        self._stops: list[int] = []
        self._starts: list[int] = []  # of the stops that are over

    @property
    def vm_runs(self) -> bool:
        """Whether the VM is not stopped."""
        return self._stopped_at_ns is None

    def vm_ns(self, t_ns: int) -> int:
        """QEMU_CLOCK_VIRTUAL_RT: the time it is for the VM, which stands still while it is stopped."""
        return int(self.vm_times_ns(np.array([t_ns]))[0]) if self._stops else t_ns

    def vm_times_ns(self, times_ns: IntArray) -> IntArray:
        """The same for many times, int64."""
        if not self._stops:
            return times_ns
        stops, ends = np.array(self._stops), np.array([*self._starts, NEVER_NS])[: len(self._stops)]
        stood = np.maximum(0, np.minimum(times_ns[:, None], ends) - stops)
        times: IntArray = times_ns - stood.sum(axis=1)
        return times

    def timer(self, fire: Callable[[], None], *, priority: int, freezes: bool) -> Timer:
        """A new timer, not armed.

        Args:
            fire: called when it is due, with `now_ns` at the due time.
            priority: of timers due together the lower number fires first.
            freezes: a VIRTUAL_RT timer, which stands still while the VM is stopped.
        """
        return Timer(self, fire, priority, freezes)

    def next_ns(self) -> int | None:
        """When the next timer fires, None if none will."""
        timer = self._first()
        return None if timer is None else timer.at_ns

    def run_to(self, t_ns: int) -> None:
        """Let time run to `t_ns`, firing what is due by then in (time, priority, arming) order."""
        while (due := self.next_ns()) is not None and due <= t_ns:
            timer = self._first()
            assert timer is not None
            self.now_ns = max(self.now_ns, due)
            timer.fire()
        self.now_ns = max(self.now_ns, t_ns)

    def stop_vm(self) -> None:
        """The VM stops: timers that freeze stand still from now on."""
        if self._stopped_at_ns is None:
            self._stopped_at_ns = self.now_ns
            self._stops.append(self.now_ns)

    def start_vm(self) -> None:
        """The VM runs again: timers that freeze are due later by the time they stood still."""
        if self._stopped_at_ns is None:
            return
        stopped_at_ns, self._stopped_at_ns = self._stopped_at_ns, None
        self._starts.append(self.now_ns)
        for _, _, _, timer in sorted(e for e in self._heap if self._live(e) and e[3]._freezes):
            assert timer.at_ns is not None
            timer.arm(timer.at_ns + self.now_ns - max(stopped_at_ns, timer._armed_ns))

    def _push(self, at_ns: int, priority: int, timer: Timer) -> None:
        self._sequence += 1
        timer._sequence = self._sequence
        heapq.heappush(self._heap, (at_ns, priority, self._sequence, timer))

    def _live(self, entry: tuple[int, int, int, Timer]) -> bool:
        """Whether a heap entry is its timer's latest arming."""
        return entry[3].at_ns is not None and entry[3]._sequence == entry[2]

    def _first(self) -> Timer | None:
        """The timer that fires next; armings that were replaced or cancelled are dropped on the way."""
        while self._heap and not self._live(self._heap[0]):
            heapq.heappop(self._heap)
        if self._stopped_at_ns is None:
            return self._heap[0][3] if self._heap else None
        running = [e for e in self._heap if self._live(e) and not e[3]._freezes]
        return min(running)[3] if running else None
