"""Writes without replacement: each page of the set once per round, in a random order.

The set is cut into parts. A round deals its writes to the parts like cards, in an order that the
seed draws for each round. Inside a part the round goes through the pages in order, from a page that
the seed draws. So a page's place in the round is even and independent of its place in other rounds,
and the pages that were written between two times are a run or two of each part. A set with few
pages has a part per page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpusim.guest.placement import Placement
from gpusim.layout import (
    CHUNK_PAGES,
    CHUNK_SHIFT,
    FloatArray,
    IntArray,
    Layout,
    among,
    without_overlaps,
)
from gpusim.stream import Stream, ranks

FEWEST_PARTS = 1024  # of a set with so many pages. A larger set has a part per chunk or more
WRITTEN, UNWRITTEN = 0, 1  # in this round
PROTECTED, OLD, NEW = range(3)  # OLD: was no longer protected at the last sync. NEW: faulted since


@dataclass(frozen=True)
class Order:
    """The order of a round.

    Attributes:
        row: int64 [parts], the place of each part in a row of writes, one write to each part.
        last_row: int64 [parts], its place in the last row. The row has the parts with one page more.
        start: int64 [parts], the page of each part that the round writes first.
    """

    row: IntArray
    last_row: IntArray
    start: IntArray


@dataclass(frozen=True)
class Rounds:
    """A pattern that writes each page once per round.

    Attributes:
        pages: pages of the working set.
        first_write: writes before time 0.
        stream: draws the orders.
    """

    pages: int
    first_write: int
    stream: Stream

    @property
    def parts(self) -> int:
        """Number of parts."""
        return min(self.pages, max(FEWEST_PARTS, -(-self.pages // CHUNK_PAGES)))

    @property
    def sizes(self) -> IntArray:
        """Pages of each part, int64 [parts]. The first ones have one page more."""
        whole, more = divmod(self.pages, self.parts)
        return whole + (np.arange(self.parts) < more).astype(np.int64)

    def order(self, round_: int) -> Order:
        """Return the order of a round, which is counted from 0."""
        random = self.stream.block(round_, 3 * self.parts).reshape(3, self.parts)
        row, last_row = ranks(random[0]), ranks(random[1][: self.pages % self.parts])
        missing = np.full(self.parts - len(last_row), self.parts)  # no write of the last row
        start = (random[2] >> np.uint64(43)).astype(np.int64) * self.sizes >> 21
        return Order(row, np.concatenate([last_row, missing]), start)

    def written(self, order: Order, writes: IntArray, part: IntArray) -> IntArray:
        """Return how many pages of some parts the first writes of a round wrote, int64 [n].

        Args:
            order: of the round.
            writes: int64 [n], or one number.
            part: int64 [n].
        """
        rows = self.pages // self.parts * self.parts
        whole = np.maximum(np.minimum(writes, rows) - order.row[part] + self.parts - 1, 0)
        return np.asarray(whole // self.parts + (writes - rows > order.last_row[part]))


class RoundRuns:
    """The runs of pages that such a writer passes between two times.

    Args:
        layout: the page space.
        pattern: the pattern.
        placement: where the working set lies.
    """

    def __init__(self, layout: Layout, pattern: Rounds, placement: Placement) -> None:
        self._pattern, self._orders = pattern, dict[int, Order]()
        ends = np.cumsum(pattern.sizes)
        starts = ends - pattern.sizes
        own, guest, pages = placement.cut(starts)
        self._slot, slot_last, run = layout.cut(guest, guest + pages)
        lengths = slot_last - self._slot
        before = np.cumsum(lengths) - lengths
        own_first = own[run] + before - before[np.searchsorted(run, run)]
        self._part = np.searchsorted(starts, own_first, side="right") - 1
        self._size = pattern.sizes[self._part]
        self._first = own_first - starts[self._part]
        self._last = self._first + lengths
        self.chunk: IntArray = self._slot >> CHUNK_SHIFT

    @property
    def pages(self) -> IntArray:
        """Pages of each piece, int64 [pieces]."""
        return np.asarray(self._last - self._first)

    def between(self, low: IntArray, high: IntArray) -> tuple[IntArray, IntArray]:
        """Return the first slot, and the slot behind the last, of the runs between two counts.

        Args:
            low, high: writes since the first round began, int64 [pieces] or [1].
        """
        pages = self._pattern.pages
        low, high = (np.broadcast_to(count, self._slot.shape) for count in (low, high))
        from_round, to_round = low // pages, high // pages
        whole = to_round - from_round > 1
        found = [(self._slot[whole], (self._slot + self.pages)[whole])]
        for round_ in np.unique(np.concatenate([from_round[~whole], to_round[~whole]])).tolist():
            begin = np.clip(low - round_ * pages, 0, pages)
            end = np.clip(high - round_ * pages, 0, pages)
            order = self._order(round_)
            some = np.flatnonzero(~whole & (end > begin))
            done = [self._pattern.written(order, w[some], self._part[some]) for w in (begin, end)]
            start = order.start[self._part[some]]
            first, last, size = start + done[0], start + done[1], self._size[some]
            found += [self._overlap(some, first - turn, last - turn) for turn in (0, size)]
        first, last = (np.concatenate(side) for side in zip(*found, strict=True))
        return without_overlaps(first, last)  # two rounds may write the same pages of a piece

    def _overlap(
        self, some: IntArray, first: IntArray, last: IntArray
    ) -> tuple[IntArray, IntArray]:
        """The slots of the pages first <= page < last of a part in each of some pieces."""
        low, high = np.maximum(self._first[some], first), np.minimum(self._last[some], last)
        hit = high > low
        offset = (self._slot - self._first)[some]
        return (low + offset)[hit], (high + offset)[hit]

    def _order(self, round_: int) -> Order:
        if round_ not in self._orders:
            self._orders = {r: o for r, o in self._orders.items() if r >= round_ - 2}
            self._orders[round_] = self._pattern.order(round_)
        return self._orders[round_]


class RoundPages:
    """The pages of such a writer, see faults.Tracked.

    The state is the share of pages, in each group, that this round has written or not, and that
    are protected or not. A write takes any page that the round has not written yet.

    Args:
        pattern: the pattern.
        pages, chunk: int64 [pieces].
        writer: index of the writer.
        from_start: all pages are protected before the first sync or clear.
        lazy: each chunk is a group. Otherwise, all pages are one group.
        splits: count the pages that never faulted.
        pages_together: pages that are protected as one, so that the first visit to one faults.
    """

    is_shared = False

    def __init__(
        self,
        pattern: Rounds,
        pages: IntArray,
        chunk: IntArray,
        writer: int,
        *,
        from_start: bool,
        lazy: bool,
        splits: bool = False,
        pages_together: int = 1,
    ) -> None:
        self._all, self._writer, self._together = pattern.pages, writer, pages_together
        self._chunk, group = np.unique(chunk * lazy, return_inverse=True)
        self._pages = np.bincount(group, weights=pages)
        self._done = float(pattern.first_write % pattern.pages)  # writes of this round
        share = self._done / pattern.pages
        self._state = np.zeros((len(self._chunk), 2, 3))
        kind = PROTECTED if from_start else OLD
        self._state[:, WRITTEN, kind], self._state[:, UNWRITTEN, kind] = share, 1 - share
        self._is_new = np.full(len(self._chunk), splits and not from_start)
        # Share of pages that are protected and never faulted.
        self._unsplit = self._state.sum(axis=2) * (splits and from_start)

    def move(self, since_ns: int, until_ns: int) -> None:
        """Do nothing, because the set stays."""

    def faults(self, writes: FloatArray, writer: int) -> float:
        return self._after(writes[writer])[0]

    def splits(self, writes: FloatArray, writer: int, rounds: int) -> float:
        return self._split(rounds * writes[writer])[0] / rounds

    def write(self, writes: FloatArray, rounds: int) -> tuple[float, float]:
        splits, self._unsplit = self._split(rounds * writes[self._writer])
        faults, self._state, self._done = self._after(writes[self._writer])
        return faults, splits / rounds

    def clear(self, chunks: IntArray) -> None:
        """Protect what was not protected at the last sync."""
        mine = among(self._chunk, chunks)
        self._state[mine, :, PROTECTED] += self._state[mine, :, OLD]
        self._state[mine, :, OLD] = 0
        first = mine & self._is_new
        self._unsplit[first] = self._state[first].sum(axis=2)
        self._is_new[mine] = False

    def protect(self) -> None:
        self._state[:, :, PROTECTED] = self._state.sum(axis=2)
        self._state[:, :, OLD:] = 0

    def sync(self) -> None:
        self._state[:, :, OLD] += self._state[:, :, NEW]
        self._state[:, :, NEW] = 0

    def _rounds(self, writes: float) -> Iterator[tuple[float, float]]:
        """Yield, for each round that some writes reach, what they write of it.

        It ends after two whole rounds, which leave no page protected or unsplit.

        Yields:
            The share of the pages that the round has not written, and the writes of that round so
            far. 0: the round is over.
        """
        done, left = self._done, min(writes, 2 * self._all)
        while left > 0:
            some = min(left, self._all - done)
            share = some / (self._all - done)
            done, left = done + some, left - some
            if done >= self._all:
                done = 0.0
            yield share, done

    def _split(self, writes: float) -> tuple[float, FloatArray]:
        """Return how many pages some writes split, and the state after them."""
        unsplit, splits = self._unsplit.copy(), 0.0
        for share, done in self._rounds(writes) if unsplit.any() else ():
            moved = unsplit[:, UNWRITTEN] * share
            splits += float(self._pages @ moved)
            unsplit[:, UNWRITTEN] -= moved
            if not done:
                unsplit[:, UNWRITTEN], unsplit[:, WRITTEN] = unsplit[:, WRITTEN].copy(), 0.0
        return splits / self._together, unsplit

    def _after(self, writes: float) -> tuple[float, FloatArray, float]:
        """Return the faults of some writes, the state after them, and the writes of that round."""
        state, done, faults = self._state.copy(), self._done, 0.0
        for share, done in self._rounds(writes):
            moved = state[:, UNWRITTEN] * share
            faults += float(self._pages @ moved[:, PROTECTED])
            state[:, UNWRITTEN] -= moved
            state[:, WRITTEN, OLD] += moved[:, OLD]
            state[:, WRITTEN, NEW] += moved[:, PROTECTED] + moved[:, NEW]
            if not done:
                state[:, UNWRITTEN], state[:, WRITTEN] = state[:, WRITTEN].copy(), 0.0
        if writes > 2 * self._all:  # no page faults any more, and the place in the round is kept
            done = (self._done + writes) % self._all
            both, share = state.sum(axis=1), done / self._all
            state[:, WRITTEN], state[:, UNWRITTEN] = share * both, (1 - share) * both
        return faults / self._together, state, done
