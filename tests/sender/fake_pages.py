"""Pages without bitmaps: runs of normal and of zero pages, taken from the front."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpusim.layout import IntArray, Taken


class FakePages:
    """A minimal SendablePages.

    Args:
        runs: (is_zero, pages), in sending order.
        clear_every: a remote clear is due at every multiple of this page number. 0: never. A clear
            protects this many pages for the first time, or all pending pages if there are fewer.
        shortsighted: `run_ahead` returns one page, so that the sender takes one window at a time.

    Attributes:
        takes: number of pages of each take.
    """

    at_end = False

    def __init__(
        self,
        runs: Sequence[tuple[bool, int]],
        *,
        clear_every: int = 0,
        shortsighted: bool = False,
    ) -> None:
        self._runs = [list(run) for run in runs if run[1]]
        self.pending = sum(pages for _, pages in runs)
        self._clear_every, self._shortsighted = clear_every, shortsighted
        self._taken = self._cleared = 0
        self.takes: list[int] = []

    def dirty(self, pages: int) -> None:
        """Append normal pages that are dirty again."""
        if pages:
            self._runs.append([False, pages])
            self.pending += pages

    @property
    def mixes_kinds(self) -> bool:
        return len({is_zero for is_zero, _ in self._runs}) > 1

    def run_ahead(self, *, wraps: bool = True) -> tuple[bool, int]:
        if not self._runs:
            return False, 0
        is_zero, pages = self._runs[0]
        return bool(is_zero), 1 if self._shortsighted else pages

    def clears_ahead(self, pages: int) -> tuple[IntArray, IntArray, IntArray]:
        every = self._clear_every
        last = self._taken + pages
        starts = range(self._cleared * every, last, every) if every else ()
        before = np.array(starts, np.int64) - self._taken
        protected = np.minimum(every, self.pending - before)
        return before, protected, protected

    def take(
        self,
        budgets: Sequence[tuple[int, int, int]],
        *,
        clear: tuple[int, int, int] = (0, 0, 0),
        wraps: bool = True,
    ) -> Taken:
        left = [limit for limit, _, _ in budgets]
        taken, clears, every = [0, 0], [], self._clear_every
        while self._runs:
            is_zero, run = self._runs[0]
            due = bool(every) and self._taken == self._cleared * every
            alike = min(run, (self._cleared + due) * every - self._taken) if every else run
            protected = min(every, self.pending - sum(taken))
            held = clear[0] + clear[2] * protected if due else 0
            fits = _fits(budgets, left, bool(is_zero), alike, held)
            if not fits:
                break
            if due:
                clears.append((self._cleared, *taken, protected))
                self._cleared += 1
                left[-1] -= held
            left = [x - fits * b[1 + is_zero] for x, b in zip(left, budgets, strict=True)]
            taken[is_zero] += fits
            self._taken += fits
            self._runs[0][1] -= fits
            if not self._runs[0][1]:
                self._runs.pop(0)
        self.pending -= sum(taken)
        self.takes.append(sum(taken))
        columns = np.array(clears, np.int64).reshape(-1, 4)
        return Taken(
            normal=taken[0],
            zero=taken[1],
            cleared=columns[:, 0],
            normal_before=columns[:, 1],
            zero_before=columns[:, 2],
            protected=columns[:, 3],
            first_protected=columns[:, 3],
        )


def _fits(
    budgets: Sequence[tuple[int, int, int]], left: list[int], is_zero: bool, alike: int, held: int
) -> int:
    """How many pages all budgets last for. A clear that begins is finished, with one page."""
    if min(left) < 0:
        return 0
    left = [*left[:-1], left[-1] - held]
    if held and left[-1] < max(budgets[-1][1:]):
        left, budgets, alike = left[:-1], budgets[:-1], 1
    costs = [budget[1 + is_zero] for budget in budgets]
    return min([alike] + [x // cost for x, cost in zip(left, costs, strict=True) if cost])
