"""How many page writes a writer has done by a time: CPU-bound, paced or recorded.

Each pace is a pure function of time and of run time, never a sum over slices, so that its value does
not depend on when somebody looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gpusim.guest.run_time import VcpuClock
from gpusim.layout import FloatArray, IntArray
from gpusim.units import NS_PER_S

Windows = Sequence[tuple[int, int]] | None


def active_ns(t_ns: IntArray, windows: Windows) -> IntArray:
    """How much of the windows, ns, has passed by each time."""
    if windows is None:
        return t_ns
    total = np.zeros_like(t_ns)
    for low, high in windows:
        total = total + np.clip(t_ns, low, high) - low
    return total


class Pace(Protocol):
    """Page writes done by a time."""

    @property
    def top_rate(self) -> float | None:
        """Page writes a second while it works; None: as recorded, whatever its clock says."""

    def writes(self, t_ns: IntArray, run: VcpuClock, windows: Windows) -> FloatArray:
        """Page writes since the migrate command, float64, at each time."""

    def lost_s(self, t_ns: int, run: VcpuClock, windows: Windows) -> float:
        """Seconds of one vCPU's work that were not done by a time."""


@dataclass(frozen=True)
class CpuBound:
    """As fast as its vCPUs run: `rate` page writes a second of run time, while a window is open."""

    rate: float

    @property
    def top_rate(self) -> float | None:
        return self.rate

    def writes(self, t_ns: IntArray, run: VcpuClock, windows: Windows) -> FloatArray:
        return self.rate * (_active_run_ns(t_ns, run, windows) / NS_PER_S)

    def lost_s(self, t_ns: int, run: VcpuClock, windows: Windows) -> float:
        t = np.array([t_ns])
        return float((active_ns(t, windows) - _active_run_ns(t, run, windows))[0]) / NS_PER_S


@dataclass(frozen=True)
class Paced:
    """Work arrives at `rate` while a window is open, and is caught up at `capacity` when late.

    The guest does min(backlog + arrived, capacity x run time) and keeps the rest. With A(t) arrived
    and C(t) what run time would have allowed, that is C(t) + min over s <= t of A(s) - C(s): the
    reflection of a queue. Since capacity >= rate, the minimum lies where a sleep begins or at t, and
    between two borders it is linear in the number of the tick: a closed form.
    """

    rate: float
    capacity: float

    @property
    def top_rate(self) -> float | None:
        return self.capacity

    def writes(self, t_ns: IntArray, run: VcpuClock, windows: Windows) -> FloatArray:
        return self._allowed(t_ns, run) + self._least(t_ns, run, windows)

    def lost_s(self, t_ns: int, run: VcpuClock, windows: Windows) -> float:
        t = np.array([t_ns])
        backlog = self.rate * (active_ns(t, windows) / NS_PER_S) - self.writes(t, run, windows)
        return max(0.0, float(backlog[0]) / self.capacity)

    def _allowed(self, t_ns: IntArray, run: VcpuClock) -> FloatArray:
        return self.capacity * (run.at(t_ns) / NS_PER_S)

    def _slack(self, t_ns: IntArray, run: VcpuClock, windows: Windows) -> FloatArray:
        return self.rate * (active_ns(t_ns, windows) / NS_PER_S) - self._allowed(t_ns, run)

    def _least(self, t_ns: IntArray, run: VcpuClock, windows: Windows) -> FloatArray:
        """The least slack up to each time."""
        borders = run.borders()
        if windows is not None:
            edges = np.array(windows, dtype=np.int64).ravel()
            around = [run.tick_before(edges), run.tick_after(edges)]
            borders = np.unique(np.concatenate([borders, *around]))
        least = np.minimum.accumulate(self._slack(borders, run, windows))
        index = np.searchsorted(borders, t_ns, side="right") - 1
        here = np.minimum(
            self._slack(t_ns, run, windows), self._slack(run.tick_before(t_ns), run, windows)
        )
        return np.minimum(least[index], here)


@dataclass(frozen=True)
class Recorded:
    """A write counter over time, straight lines between its samples; behind the last, CPU-bound.

    Attributes:
        times_s, counts: float64 [samples], rising.
        rate: page writes a second of run time behind the last sample.
    """

    times_s: FloatArray
    counts: FloatArray
    rate: float

    @property
    def top_rate(self) -> float | None:
        return None

    def writes(self, t_ns: IntArray, run: VcpuClock, windows: Windows) -> FloatArray:
        recorded = np.interp(t_ns / NS_PER_S, self.times_s, self.counts)
        end_ns = np.full_like(t_ns, round(self.times_s[-1] * NS_PER_S))
        behind_ns = run.at(np.maximum(t_ns, end_ns)) - run.at(end_ns)
        return np.asarray(recorded + self.rate * (behind_ns / NS_PER_S))

    def lost_s(self, t_ns: int, run: VcpuClock, windows: Windows) -> float:
        """As of a CPU-bound writer: the record does not tell how busy it was."""
        return (t_ns - int(run.at(np.array([t_ns]))[0])) / NS_PER_S


def _active_run_ns(t_ns: IntArray, run: VcpuClock, windows: Windows) -> IntArray | FloatArray:
    if windows is None:
        return run.at(t_ns)
    total: IntArray | FloatArray = np.zeros_like(t_ns)
    for low, high in windows:
        total = total + run.at(np.clip(t_ns, low, high)) - run.at(np.full_like(t_ns, low))
    return total
