"""When a writer is active: windows that are given, or on and off times in turn.

On and off times are the field's ON/OFF source: the writer is active for an on time, then idle for an
off time, again and again. Each time has its mean length, or the seed draws it from an exponential
distribution. The position in the cycle at time 0 is the phase.

Windows are known as far as somebody asks, so that a run costs nothing for the time after its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpusim.guest.run_time import VcpuClock
from gpusim.layout import FloatArray, IntArray
from gpusim.stream import Stream

DRAWN_CYCLES = 4  # mean cycles after which a drawn cycle is very likely over: 1 of 11 is longer
DRAWN_TOGETHER = 64  # cycles drawn in one call at first


@dataclass(frozen=True)
class Mark:
    """What a pace had reached at a time. Later values need nothing that lies before it.

    Attributes:
        t_ns: the time.
        value: run time in windows (CPU-bound), or the smallest slack (paced).
    """

    t_ns: int
    value: int | float


class Windows:
    """Times at which a writer is active.

    Args:
        pairs: [from, until) in ns, ascending.

    Attributes:
        cycle_ns: after so long a time every window has very likely come round. 0: windows end.
    """

    cycle_ns = 0

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        borders = np.array(pairs, np.int64).reshape(-1, 2)
        self._set(borders[:, 0], borders[:, 1])

    @property
    def opens_at_start(self) -> bool:
        """Whether the writer is active at time 0."""
        opens, _ = self.between(0, 1)
        return bool(len(opens)) and int(opens[0]) == 0

    @property
    def last_change_ns(self) -> int:
        """When the last window closes. 0: windows never end."""
        return int(self._closes[-1])

    def between(self, since_ns: int, until_ns: int) -> tuple[IntArray, IntArray]:
        """Return the windows, int64 [n] each, that close after `since_ns` and open before `until_ns`."""
        self._reach(until_ns)
        low = int(np.searchsorted(self._closes, since_ns, side="right"))
        high = int(np.searchsorted(self._opens, until_ns))
        return self._opens[low:high], self._closes[low:high]

    def edges(self, since_ns: int, until_ns: int) -> IntArray:
        """Return the times at which a window opens or closes, since_ns < t < until_ns, ascending."""
        opens, closes = self.between(since_ns, until_ns)
        edges = np.unique(np.concatenate([opens, closes]))
        return edges[(edges > since_ns) & (edges < until_ns)]

    def active_ns(self, t_ns: IntArray) -> IntArray:
        """Return how many ns of the windows have passed by each time, int64 of any shape."""
        self._reach(int(t_ns.max(initial=0)))
        if not len(self._opens):
            return np.zeros_like(t_ns)
        index = np.maximum(np.searchsorted(self._opens, t_ns, side="right") - 1, 0)
        inside = np.clip(t_ns, self._opens[index], self._closes[index]) - self._opens[index]
        return np.asarray(self._before[index] + inside)

    def active_run_ns(
        self, t_ns: IntArray, run: VcpuClock, mark: Mark | None = None
    ) -> IntArray | FloatArray:
        """Return how much of the windows' time the clock has run by each time.

        Args:
            t_ns: int64, times of any shape.
            run: the clock.
            mark: the value at an earlier time, to start from. None: at time 0.
        """
        since_ns, reached = (mark.t_ns, mark.value) if mark is not None else (0, 0)
        opens, closes = self.between(since_ns, int(t_ns.max(initial=0)) + 1)
        if not len(opens):
            return np.full_like(t_ns, reached, np.asarray(reached).dtype)
        opens = np.maximum(opens, since_ns)
        at_open = run.at(opens)
        lengths = run.at(closes[:-1]) - at_open[:-1]
        before = reached + np.concatenate([np.zeros(1, lengths.dtype), np.cumsum(lengths)])
        index = np.maximum(np.searchsorted(opens, t_ns, side="right") - 1, 0)
        inside = run.at(np.clip(t_ns, opens[index], closes[index])) - at_open[index]
        return np.asarray(before[index] + inside)

    def _reach(self, t_ns: int) -> None:
        """Know all windows that open before a time, and what lies between them."""

    def _set(self, opens: IntArray, closes: IntArray) -> None:
        self._opens, self._closes = opens, closes
        self._before = np.concatenate([[0], np.cumsum(closes - opens)])[: len(opens)]


class OnOff(Windows):
    """On and off times in turn.

    Args:
        on_ns, off_ns: mean length of an on time and of an off time, above 0.
        phase: position in the cycle at time 0, from 0 to 1. An on time starts at 0.
        stream: draws exponential lengths. None: all lengths are their mean.
        inside: [from, until) in ns. The writer is also idle outside of them. None: no such limit.
    """

    def __init__(
        self,
        on_ns: int,
        off_ns: int,
        phase: float,
        *,
        stream: Stream | None = None,
        inside: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self._on_ns, self._off_ns, self._stream = on_ns, off_ns, stream
        self._inside = inside
        self.cycle_ns = (DRAWN_CYCLES if stream else 1) * (on_ns + off_ns)
        position_ns = min(int(phase * (on_ns + off_ns)), on_ns + off_ns - 1)
        # An exponential rest of a time has the mean of the whole time, whatever has passed of it.
        self._next_ns = 0  # the start of the next cycle that is not known yet
        if stream is None:
            self._next_ns = -position_ns
        elif position_ns >= on_ns:
            self._next_ns = int(stream.exponential(1)[0] * off_ns)
        self._together = DRAWN_TOGETHER
        self._set(np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._reach(1)

    @property
    def last_change_ns(self) -> int:
        return int(self._inside[-1][1]) if self._inside else 0

    def _reach(self, t_ns: int) -> None:
        while self._next_ns < t_ns:
            on, off = self._draw()
            ends = self._next_ns + np.cumsum(on + off)
            opens = ends - on - off
            self._next_ns = int(ends[-1])
            opens, closes = self._cut(opens, opens + on)
            self._set(np.append(self._opens, opens), np.append(self._closes, closes))

    def _draw(self) -> tuple[IntArray, IntArray]:
        """The lengths of the next cycles, int64 [n] each."""
        count, self._together = self._together, min(2 * self._together, 2**16)
        if self._stream is None:
            return np.full(count, self._on_ns), np.full(count, self._off_ns)
        lengths = self._stream.exponential(2 * count).reshape(2, count)
        means = np.array([[self._on_ns], [self._off_ns]])
        on, off = np.maximum(1, (means * lengths).astype(np.int64))
        return on, off

    def _cut(self, opens: IntArray, closes: IntArray) -> tuple[IntArray, IntArray]:
        """Keep what lies after time 0 and inside the given windows."""
        pairs = self._inside if self._inside is not None else [(0, np.iinfo(np.int64).max)]
        parts = [(np.maximum(opens, low), np.minimum(closes, high)) for low, high in pairs]
        opens, closes = (np.concatenate(side) for side in zip(*parts, strict=True))
        some = np.flatnonzero(closes > opens)
        order = some[np.argsort(opens[some], kind="stable")]
        return opens[order], closes[order]
