"""Many windows of 100 ms that are alike, and what remote clears add to some of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpusim.layout import IntArray
from gpusim.sender.link import PS_PER_S, UNITS

WINDOW_PS = PS_PER_S // 10  # BUFFER_DELAY, 100 ms


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """What every window is like while all pages are alike.

    Attributes:
        pages, bursts, sent_units, busy_ps: of one window; busy_ps without its sleep.
        last_burst_page, last_burst_ps: pages and time before its last burst.
        slept_ps: how long a window is that sleeps.
    """

    pages: int
    bursts: int
    sent_units: int
    busy_ps: int
    last_burst_page: int
    last_burst_ps: int
    slept_ps: int

    @property
    def length_ps(self) -> int:
        """Of a window without clears."""
        return self.slept_ps if self.busy_ps < WINDOW_PS else self.busy_ps

    def bandwidth(self, longer_ps: int = 0) -> float:
        """Bytes a second."""
        return self.sent_units * PS_PER_S / (UNITS * (self.length_ps + longer_ps))

    def longer_ps(self, held_ps: IntArray) -> IntArray:
        """By how much windows are longer that clears hold up for some time: sleep gives way first."""
        busy = self.busy_ps + held_ps
        longer: IntArray = np.where(busy < WINDOW_PS, self.slept_ps, busy) - self.length_ps
        return longer


class Delays:
    """How much later the pages of a take go because of its remote clears.

    Args:
        before: int64 [n], pages taken before each clear, rising.
        held_ps: int64 [n], what each takes.
        plan: of the windows that the take consists of; None: it is part of a burst.
    """

    def __init__(self, before: IntArray, held_ps: IntArray, plan: WindowPlan | None) -> None:
        self._before, self._plan = before, plan
        self._held = _sums(held_ps)
        if plan is not None:
            window = before // plan.pages
            starts = np.flatnonzero(np.diff(window, prepend=-1))
            self._window = window[starts]
            self._longer = _sums(plan.longer_ps(_sums_between(held_ps, starts)))
            early = np.where(before % plan.pages < plan.last_burst_page, held_ps, 0)
            late = plan.last_burst_ps + _sums_between(early, starts) >= WINDOW_PS
            self._fewer_bursts = self._window[late]

    @property
    def total_ps(self) -> int:
        """Of all clears."""
        return int(self._held[-1])

    def at(self, pages: IntArray) -> IntArray:
        """What is added until so many pages have been sent, int64 [n] ps."""
        held: IntArray = self._held[np.searchsorted(self._before, pages)]
        if self._plan is None:
            return held
        window = pages // self._plan.pages
        before = self._held[np.searchsorted(self._before, window * self._plan.pages)]
        delays: IntArray = self._longer[np.searchsorted(self._window, window)] + held - before
        return delays

    def of_windows(self, windows: int) -> int:
        """By how much the first windows are longer, ps."""
        return int(self._longer[np.searchsorted(self._window, windows)])

    def windows_in(self, room_ps: int, windows: int) -> int:
        """How many of the windows end within some time, each with the bursts of the plan."""
        assert self._plan is not None
        length_ps, longer = self._plan.length_ps, self._longer
        ends = (self._window + 1) * length_ps + longer[1:]
        ended = int(np.searchsorted(ends, room_ps, side="right"))
        windows = min([windows, *self._window[ended : ended + 1], *self._fewer_bursts[:1]])
        return int(min(windows, (room_ps - int(longer[ended])) // length_ps))


def _sums(values: IntArray) -> IntArray:
    """Running totals, from 0 on."""
    return np.concatenate([[0], np.cumsum(values)])


def _sums_between(values: IntArray, starts: IntArray) -> IntArray:
    """The sum from each start to the next."""
    sums: IntArray = np.diff(_sums(values)[np.append(starts, len(values))])
    return sums
