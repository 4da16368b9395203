"""A working set that moves: it shifts by a step once per period, round and round in a range.

The pages of the range are numbered from 0. At time 0 the working set starts at page `offset`. After
j steps it starts at (offset + j x step) mod range. The range is a whole number of steps, so the set
has a few places. A page is in a part of the set for some steps in a row, then out of it for the rest
of the round. So the writes to a page are those of a few intervals, however many steps there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpusim.guest.pattern import Band
from gpusim.layout import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How a working set moves.

    Attributes:
        period_ns: time between two steps.
        first_step_ns: when the first step comes, from 1 to period_ns.
        step_pages: pages of a step.
        places: steps of a round.
        offset: where the working set starts at time 0, in pages of the range.
    """

    period_ns: int
    first_step_ns: int
    step_pages: int
    places: int
    offset: int

    @property
    def range_pages(self) -> int:
        """Pages of the range."""
        return self.step_pages * self.places

    def starts_ns(self, step: IntArray) -> IntArray:
        """Return when each step comes. Step 0 is the place at time 0."""
        return self.first_step_ns + (step - 1) * self.period_ns

    def step_at(self, t_ns: int) -> int:
        """Return the steps up to a time."""
        return (t_ns - self.first_step_ns) // self.period_ns + 1

    def borders(self, bands: Sequence[Band]) -> IntArray:
        """Return all pages of the range at which a band may begin or end, ascending."""
        edges = np.array(sorted({edge for band in bands for edge in (band.first, band.last)}))
        edges = np.unique((self.offset + edges) % self.step_pages)
        rounds = np.arange(self.places) * self.step_pages
        return np.unique(np.append((rounds[:, None] + edges).ravel(), [0, self.range_pages]))

    def split(self, pages: int) -> list[tuple[int, int]]:
        """Return the pages of the range that a set of so many pages covers at time 0, as runs."""
        low = self.offset
        high = low + pages
        if high <= self.range_pages:
            return [(low, high)]
        return [(low, self.range_pages), (0, high - self.range_pages)]


class MovingCells:
    """The cells of a writer whose working set moves.

    Args:
        drift: how it moves.
        bands: the parts of the set, and the writes of each.
        cell: int64 [n], indexes of its cells among those of the guest.
        page: int64 [n], first page of each in the range. No band ever begins or ends inside a cell.
        cells: number of cells of the guest.
    """

    def __init__(
        self, drift: Drift, bands: Sequence[Band], cell: IntArray, page: IntArray, cells: int
    ) -> None:
        self._drift, self._cell, self._cells = drift, cell, cells
        page = page - drift.offset
        self._bands = []
        for band in bands:
            # The first step in which the page is in the band, and how many steps it stays there.
            step = (page - band.last) // drift.step_pages + 1
            steps = (page - band.first) // drift.step_pages - step + 1
            self._bands.append((band.share / (band.last - band.first), step, steps))

    def mean(
        self,
        since_ns: IntArray,
        until_ns: IntArray,
        chunk: IntArray,
        writes: Callable[[IntArray], FloatArray],
    ) -> FloatArray:
        """Return the expected writes per page, float64 [cells of the guest].

        Args:
            since_ns, until_ns: int64 [1] or [chunks].
            chunk: int64 [cells of the guest].
            writes: the writer's writes by some times.
        """
        own = chunk[self._cell]
        since, until = (
            t[own] if t.size > 1 else np.broadcast_to(t, own.shape) for t in (since_ns, until_ns)
        )
        mean = np.zeros(self._cells)
        for density, some, low, high in self._stays(since, until):
            done = writes(high) - writes(low)
            mean[self._cell[some]] += density * np.maximum(done, 0.0)
        return mean

    def average(self, since_ns: int, until_ns: int) -> FloatArray:
        """Return the mean share of the writes per page in an interval, float64 [cells of the guest]."""
        since, until = (np.full(len(self._cell), t) for t in (since_ns, until_ns))
        mean = np.zeros(self._cells)
        for density, some, low, high in self._stays(since, until):
            mean[self._cell[some]] += density * ((high - low) / (until_ns - since_ns))
        return mean

    def _stays(
        self, since: IntArray, until: IntArray
    ) -> Iterator[tuple[float, IntArray, IntArray, IntArray]]:
        """Yield when cells are in a band: its density, cells, and the times of coming and going."""
        drift = self._drift
        if not len(since):
            return
        steps_from, steps_to = drift.step_at(int(since.min())), drift.step_at(int(until.max()))
        for density, step, steps in self._bands:
            first = (steps_from - int((step + steps).max())) // drift.places
            last = -((int(step.min()) - steps_to) // drift.places)
            for round_ in range(first, last + 1):
                comes = drift.starts_ns(step + round_ * drift.places)
                goes = comes + steps * drift.period_ns
                low, high = np.maximum(comes, since), np.minimum(goes, until)
                some = np.flatnonzero(high > low)
                if len(some):
                    yield density, some, low[some], high[some]
