"""A writer: a pattern of pages, a pace, and a place in guest memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpusim.guest.drift import Drift
from gpusim.guest.pace import Pace, Recorded, active_ns
from gpusim.guest.pattern import Random, Sequential
from gpusim.guest.placement import Placement
from gpusim.guest.rounds import Rounds
from gpusim.guest.run_time import VcpuClock, WallTime
from gpusim.guest.useful_time import UsefulTime
from gpusim.guest.windows import Mark, Windows
from gpusim.layout import FloatArray, IntArray
from gpusim.units import NS_PER_S

WALL_TIME = WallTime()


@dataclass(frozen=True, kw_only=True)
class Writer:
    """One source of writes.

    Attributes:
        name: its name in the config.
        pattern: the pages that it writes.
        pace: how fast it writes.
        placement: where its working set lies. If the set moves, where the range lies.
        windows: when it is active. None: always.
        throttled: False for device writes, which no vCPU throttle slows.
        vcpus: vCPUs that it keeps busy. Its loss counts for each of them.
        drift: how its working set moves. None: it stays.
        memory_rate: the most page writes per second that the memory takes. None: no limit.
        zeroed_share: share of its writes that leave their page zero.
        reads_per_write: page reads of the same pages, per page write. Only post-copy asks for them.
        reader: reads other pages. None: there is none.
    """

    name: str
    pattern: Random | Sequential | Rounds
    pace: Pace
    placement: Placement
    windows: Windows | None
    throttled: bool
    vcpus: float
    drift: Drift | None = None
    memory_rate: float | None = None
    zeroed_share: float = 0.0
    reads_per_write: float = 1.0
    reader: Writer | None = None

    @property
    def opens_at_start(self) -> bool:
        """Whether the writer is active when the migration starts."""
        return self.windows is None or self.windows.opens_at_start

    @property
    def last_change_ns(self) -> int:
        """When its last window closes, or its record ends. 0: it never changes, or does so for ever."""
        if isinstance(self.pace, Recorded):
            return int(self.pace.times_s[-1] * NS_PER_S)
        return self.windows.last_change_ns if self.windows is not None else 0

    @property
    def writing_vcpus(self) -> float:
        """The most vCPUs that write at once. A sequential thread writes on one vCPU at a time."""
        if isinstance(self.pattern, Sequential):
            return min(self.vcpus, self.pattern.threads)
        return self.vcpus

    @property
    def cycle_ns(self) -> int:
        """After so long a time its windows have very likely come round. 0: it has no cycle.

        A working set that moves writes no less after a step, so a step is no reason to wait.
        """
        return self.windows.cycle_ns if self.windows is not None else 0

    def runs(self) -> list[tuple[int, int]]:
        """Return the guest pages of its working set at time 0 as runs first <= page < last."""
        parts = [(0, int(self.placement.own_last[-1]))]
        if self.drift is not None:
            assert isinstance(self.pattern, Random)
            parts = self.drift.split(self.pattern.bands[-1].last)
        runs: list[tuple[int, int]] = []
        for part in parts:
            own_first, own_last, first = self.placement.locate(*part)
            last = first + own_last - own_first
            runs += zip(first.tolist(), last.tolist(), strict=True)
        return runs

    def writes(self, t_ns: IntArray, run_time: VcpuClock, mark: Mark | None = None) -> FloatArray:
        """Return the page writes since the migrate command at each time, float64. See Pace."""
        return self.pace.writes(t_ns, self._clock(run_time), self.windows, mark)

    def writes_by(self, t_ns: int, run_time: VcpuClock, mark: Mark | None = None) -> float:
        """Return the page writes by one time. See Pace."""
        return self.pace.writes_by(t_ns, self._clock(run_time), self.windows, mark)

    def mark(self, t_ns: int, run_time: VcpuClock, mark: Mark | None) -> Mark | None:
        """Return what it has reached, see Pace."""
        return self.pace.mark(t_ns, self._clock(run_time), self.windows, mark)

    def writes_ahead(
        self, until_ns: int, clock: UsefulTime, mark: Mark | None
    ) -> Callable[[float], float]:
        """Return the page writes by a time as a function of the useful time then. See Pace.ahead."""
        return self.pace.ahead(until_ns, clock, self.windows, mark)

    def lost_vcpu_s(self, t_ns: int, run_time: VcpuClock) -> float:
        """Return the vCPU-seconds of its work that were not done by a time.

        Args:
            t_ns: the time.
            run_time: run time of the vCPUs. If the memory is a limit: the writer's clock.
        """
        if self.memory_rate is not None and self.pace.top_rate:
            t = np.array([t_ns])
            top_rate = min(self.memory_rate, self.pace.top_rate)
            busy_share = min(self.pace.rate, top_rate) / top_rate  # a paced writer idles in between
            wanted_s = busy_share * (float(active_ns(t, self.windows)[0]) / NS_PER_S)
            done_s = float(self.writes(t, run_time)[0]) / top_rate
            return self.vcpus * max(0.0, wanted_s - done_s)
        return self.vcpus * self.pace.lost_s(t_ns, self._clock(run_time), self.windows)

    def _clock(self, run_time: VcpuClock) -> VcpuClock:
        return run_time if self.throttled else WALL_TIME
