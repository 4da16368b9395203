"""Pages without bitmaps: runs of normal and of zero pages, taken from the front."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpusim.layout import Taken


class FakePages:
    """What the sender knows of pages, and no more.

    Args:
        runs: (is_zero, pages), in the order of sending.
        clear_every: a remote clear is due with each page whose number is a multiple; 0: never.
        shortsighted: promises one page at a time, so that the sender takes one window at a time.

    Attributes:
        takes: pages of each take.
    """

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
        self._taken = 0
        self.takes: list[int] = []

    def dirty(self, pages: int) -> None:
        """So many normal pages are to be sent again."""
        if pages:
            self._runs.append([False, pages])
            self.pending += pages

    def run_ahead(self) -> tuple[bool, int]:
        if not self._runs:
            return False, 0
        is_zero, pages = self._runs[0]
        return bool(is_zero), 1 if self._shortsighted else pages

    def take(self, budgets: Sequence[tuple[int, int, int]]) -> Taken:
        left = [limit for limit, _, _ in budgets]
        taken, clears = [0, 0], []
        while self._runs:
            is_zero, pages = self._runs[0]
            costs = [budget[1 + is_zero] for budget in budgets]
            fits = min([pages] + [x // cost for x, cost in zip(left, costs, strict=True) if cost])
            clears += self._clears(taken, is_zero, fits)
            taken[is_zero] += fits
            self._taken += fits
            left = [x - fits * cost for x, cost in zip(left, costs, strict=True)]
            self._runs[0][1] -= fits
            if fits < pages:
                break
            self._runs.pop(0)
        self.pending -= sum(taken)
        self.takes.append(sum(taken))
        columns = np.array(clears, np.int64).reshape(-1, 3)
        return Taken(
            normal=taken[0],
            zero=taken[1],
            cleared=columns[:, 0],
            normal_before=columns[:, 1],
            zero_before=columns[:, 2],
        )

    def _clears(self, taken: list[int], is_zero: int, fits: int) -> list[tuple[int, int, int]]:
        """Chunk, normal and zero pages before it, of the chunks that begin in the next pages."""
        every = self._clear_every
        if not every:
            return []
        starts = range(-(-self._taken // every) * every, self._taken + fits, every)
        return [
            (
                start // every,
                taken[0] + (0 if is_zero else start - self._taken),
                taken[1] + (start - self._taken if is_zero else 0),
            )
            for start in starts
        ]
