"""A writer: a pattern of pages, a pace, and a place in guest memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpusim.guest.pace import Pace, Recorded
from gpusim.guest.pattern import Random, Sequential
from gpusim.guest.placement import Placement
from gpusim.guest.run_time import VcpuClock, WallTime
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
        placement: where its working set lies.
        windows: [from, until) in ns in which it is active. None: always.
        throttled: False for device writes, which no vCPU throttle slows.
        vcpus: vCPUs that it keeps busy. Its loss counts for each of them.
    """

    name: str
    pattern: Random | Sequential
    pace: Pace
    placement: Placement
    windows: tuple[tuple[int, int], ...] | None
    throttled: bool
    vcpus: float

    @property
    def opens_at_start(self) -> bool:
        """Whether the writer is active when the migration starts."""
        return self.windows is None or self.windows[0][0] == 0

    @property
    def last_change_ns(self) -> int:
        """When its last window opens or closes, or its record ends. 0: it never changes."""
        if isinstance(self.pace, Recorded):
            return int(self.pace.times_s[-1] * NS_PER_S)
        return self.windows[-1][1] if self.windows else 0

    @property
    def writing_vcpus(self) -> float:
        """The most vCPUs that write at once. A sequential thread writes on one vCPU at a time."""
        if isinstance(self.pattern, Sequential):
            return min(self.vcpus, self.pattern.threads)
        return self.vcpus

    def runs(self) -> list[tuple[int, int]]:
        """Return the guest pages of its working set as runs first <= page < last."""
        lengths = self.placement.own_last - self.placement.own_first
        first = self.placement.guest_first
        return list(zip(first.tolist(), (first + lengths).tolist(), strict=True))

    def writes(self, t_ns: IntArray, run_time: VcpuClock) -> FloatArray:
        """Return the page writes since the migrate command at each time, float64."""
        return self.pace.writes(t_ns, self._clock(run_time), self.windows)

    def lost_vcpu_s(self, t_ns: int, run_time: VcpuClock) -> float:
        """Return the vCPU-seconds of its work that were not done by a time."""
        return self.vcpus * self.pace.lost_s(t_ns, self._clock(run_time), self.windows)

    def _clock(self, run_time: VcpuClock) -> VcpuClock:
        return run_time if self.throttled else WALL_TIME


def thread_positions(
    writer: Writer, pattern: Sequential, t_ns: IntArray, run_time: VcpuClock
) -> IntArray:
    """Return the number of pages that each thread of a sequential writer has written, int64.

    Args:
        writer, pattern: the writer and its pattern.
        t_ns: int64, the times.
        run_time: the writer's clock.
    """
    done = writer.writes(t_ns, run_time) / pattern.threads
    return pattern.first_write + np.floor(done).astype(np.int64)
