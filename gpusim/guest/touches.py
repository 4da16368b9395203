"""What a guest touches after the switch to post-copy: its writes and its reads.

A touch of a missing page stops a thread of the guest until the page is there. Touches follow the
patterns of the writers. They go by the useful time of the guest, which stands still during a stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gpusim.guest.guest import Guest
from gpusim.guest.pattern import Random
from gpusim.guest.run_time import RunTime
from gpusim.guest.writer import Writer
from gpusim.layout import FloatArray, IntArray, Layout, runs_in_pieces
from gpusim.wall_limit import NO_LIMIT, WallLimit


def touching(writers: Sequence[Writer], done: Sequence[float], vm_ns: int) -> list[Writer]:
    """Return writers that write and read as a guest's writers do after the switch.

    A writer that goes through its pages in order reads each page beside its write, so its reads touch
    no page more.

    Args:
        writers: of the guest.
        done: page writes of each writer up to the switch, where it goes on.
        vm_ns: the VM's time at the switch.
    """
    found, clock = list[Writer](), RunTime()
    for writer, count in zip(writers, done, strict=True):
        pattern = writer.pattern
        if isinstance(pattern, Random):
            more = 1.0 + writer.reads_per_write
            rate = None if writer.memory_rate is None else writer.memory_rate * more
            pace = writer.pace.scaled(more)
            found.append(replace(writer, pace=pace, memory_rate=rate, reader=None))
        else:
            own = float(writer.writes(np.array([vm_ns]), clock)[0])
            threads = getattr(pattern, "threads", 1)
            first_write = pattern.first_write + round((count - own) / threads)
            moved = replace(pattern, first_write=first_write)
            found.append(replace(writer, pattern=moved, reader=None))
        if writer.reader is not None:
            found.append(writer.reader)
    return found


class Touches:
    """The touches of some writers, per piece of RAM.

    Args:
        layout: the page space.
        writers: as `touching` makes them.
        limit: see Guest.
    """

    def __init__(
        self, layout: Layout, writers: Sequence[Writer], limit: WallLimit = NO_LIMIT
    ) -> None:
        self._guest = Guest(layout, writers, RunTime(), limit=limit)
        writes = self._guest.writes(0, 1)  # its cells are those of any interval
        self._first, self._last = writes.first, writes.last
        self._cells: IntArray = np.zeros(0, np.int64)
        self._inside: FloatArray = np.zeros(0)
        self._pieces = self._cells, self._cells

    @property
    def borders(self) -> IntArray:
        """The slots at which a piece must end, int64 [n]."""
        return np.concatenate([self._first, self._last])

    def use_pieces(self, first: IntArray, last: IntArray) -> None:
        """Set the pieces, int64 [pieces] each. They end at `borders`."""
        self._pieces, self._inside = (first, last), np.zeros(len(first))
        middle = (first + last) // 2
        self._cells = np.maximum(0, np.searchsorted(self._first, middle, side="right") - 1)
        if len(self._first):
            own_first, own_last = self._first[self._cells], self._last[self._cells]
            self._inside = ((own_first <= middle) & (middle < own_last)).astype(np.float64)

    def between(self, since_ns: int, until_ns: int) -> tuple[FloatArray, FloatArray]:
        """Return the touches between two times of the VM.

        Returns:
            float64 [pieces] each: random touches of each page, on average, and pages that were
            touched in order.
        """
        writes = self._guest.writes(since_ns, until_ns)
        if len(writes.first):
            mean = writes.mean[self._cells] * self._inside
        else:
            mean = np.zeros(len(self._inside))
        passed = runs_in_pieces(*self._pieces, writes.certain_first, writes.certain_last)
        return mean, passed
