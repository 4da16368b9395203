"""All writers of a VM: the writes between two times, in the page space.

The cells of the random writers are cut at chunk borders and at the borders of all bands, once.
Sequential threads leave runs of pages that were certainly written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gpusim.guest.drift import MovingCells
from gpusim.guest.faults import Faults, Protection, RandomPages, SequentialPages, Tracked
from gpusim.guest.pattern import Random, Sequential
from gpusim.guest.rounds import RoundPages, RoundRuns, Rounds
from gpusim.guest.run_time import RunTime
from gpusim.guest.windows import Mark
from gpusim.guest.writer import Writer
from gpusim.layout import CHUNK_SHIFT, FloatArray, IntArray, Layout, Writes, ZeroShares, rising
from gpusim.wall_limit import NO_LIMIT, WallLimit

T = TypeVar("T")
EMPTY = np.zeros(0, np.int64)
MOST_BYTES = 2**35  # of the shares of all writers. A mix has a few writers


class Guest:
    """The writes of a VM.

    Args:
        layout: the page space.
        writers: the writers.
        run_time: run time of the vCPUs.
        protection: when pages are write-protected, and what a fault costs. None: faults are free.
        limit: is asked between two writers or threads, here and in each method.
        pages_together: pages that are tracked as one, a power of two. A write to one of them counts
            as a write to all of them.
        joins_clears: see `Faults`.

    Attributes:
        run_time: run time of the vCPUs, with the throttle.
        faults: the write faults, and the time they take.

    Raises:
        MemoryError: there are too many writers.
        WallLimitReachedError: the limit is over. Every method may raise it.
    """

    def __init__(
        self,
        layout: Layout,
        writers: Sequence[Writer],
        run_time: RunTime,
        protection: Protection | None = None,
        limit: WallLimit = NO_LIMIT,
        pages_together: int = 1,
        *,
        joins_clears: bool = False,
    ) -> None:
        self._limit = limit
        self.run_time = run_time
        self._writers = writers
        self._together = pages_together
        self._random = [i for i, w in enumerate(writers) if isinstance(w.pattern, Random)]
        cells = _cells(layout, [writers[i] for i in self._random], limit)
        self._first, self._last = cells.first, cells.last
        self._pages_chunk = cells.first >> CHUNK_SHIFT
        self._groups = None
        if pages_together > 1:
            self._groups = _Groups(cells.first, cells.last, pages_together)
            self._first, self._last = self._groups.first, self._groups.last
        self._density = [
            column if column is None else self._of_cells(column) for column in cells.shares
        ]
        self._moving = dict(zip(self._random, cells.moving, strict=True))
        self._chunk = self._first >> CHUNK_SHIFT
        self._threads = [
            _Thread(layout, w, w.pattern, thread, i)
            for i, w in enumerate(writers)
            if isinstance(w.pattern, Sequential)
            for thread in _within(limit, range(w.pattern.threads))
        ]
        self._zero_cells = None
        if any(writer.zeroed_share for writer in writers):
            self._zero_cells = _cells(layout, writers, limit)
        self._rounds = {
            i: RoundRuns(layout, w.pattern, w.placement)
            for i, w in enumerate(writers)
            if isinstance(w.pattern, Rounds)
        }
        self.faults = self._faults(protection or Protection(), joins_clears=joins_clears)

    def settle(self, now_ns: int, cleared_at_ns: IntArray) -> None:
        """Count the faults up to a sync that protects now. See Faults.settle."""
        self.faults.settle(now_ns, cleared_at_ns)

    def writes(self, since_ns: int | IntArray, until_ns: int | IntArray) -> Writes:
        """Return the writes from `since_ns` to `until_ns`.

        Args:
            since_ns, until_ns: one time for all chunks, or int64 [chunks].
        """
        return self._writes_of(*self._at_borders(since_ns, until_ns))[0]

    def writes_around(
        self, since_ns: int, split_ns: IntArray, until_ns: int
    ) -> tuple[Writes, Writes]:
        """Return the writes before and after a time of each chunk.

        Args:
            since_ns, until_ns: one time for all chunks.
            split_ns: int64 [chunks], a time between them.
        """
        before, after = self._writes_of(*self._at_borders(since_ns, split_ns, until_ns))
        return before, after

    def _at_borders(
        self, *times_ns: int | IntArray
    ) -> tuple[list[IntArray], dict[int, list[FloatArray]]]:
        """The times, int64 [1] or [chunks], and what each writer whose set stays has done by them."""
        times = [np.atleast_1d(t_ns) for t_ns in times_ns]
        return times, {
            i: self._done(i, times)
            for i in _within(self._limit, range(len(self._writers)))
            if self._moving.get(i) is None
        }

    def _writes_of(
        self, times: list[IntArray], done: Mapping[int, list[FloatArray]]
    ) -> list[Writes]:
        """The writes of each interval between some times, see `_at_borders`."""
        return [
            self._between(*ends, {i: (by[place], by[place + 1]) for i, by in done.items()})
            for place, ends in enumerate(pairwise(times))
        ]

    def _between(
        self, since: IntArray, until: IntArray, done: Mapping[int, tuple[FloatArray, FloatArray]]
    ) -> Writes:
        """The writes of one interval."""
        mean = np.zeros(len(self._first))
        random = zip(self._random, self._density, strict=True)
        for writer, density in _within(self._limit, random):
            moving = self._moving[writer]
            if moving is not None:
                mean += self._of_cells(self._moved(moving, writer, since, until, self._pages_chunk))
            elif density is not None:
                mean += density * _between(*done[writer], self._chunk)
        runs = [t.runs(*done[t.writer]) for t in _within(self._limit, self._threads)]
        runs += [self._rounds_between(writer, *done[writer]) for writer in self._rounds]
        size = self._together
        return Writes(
            first=self._first,
            last=self._last,
            mean=mean,
            certain_first=np.concatenate([EMPTY, *(run[0] // size * size for run in runs)]),
            certain_last=np.concatenate([EMPTY, *(-(-run[1] // size) * size for run in runs)]),
            pages_together=size,
            zeroed=self._zeroed(since, until, done),
        )

    def writes_done(self, t_ns: int) -> list[float]:
        """Return the page writes of each writer up to a time that was settled."""
        times = np.array([t_ns])
        return [
            float(w.writes(times, clock, self._mark(i, times))[0])
            for i, (w, clock) in enumerate(zip(self._writers, self.faults.clocks, strict=True))
        ]

    def _zeroed(
        self, since: IntArray, until: IntArray, done: Mapping[int, tuple[FloatArray, FloatArray]]
    ) -> ZeroShares | None:
        """Which written pages are left zero: those whose last write leaves its page zero.

        A page's last write is each writer's with the probability of its part of the writes there.

        Args:
            since, until: int64 [1] or [chunks], the interval.
            done: of each writer whose set stays, see `_done`.
        """
        cells = self._zero_cells
        if cells is None:
            return None
        total, zeroing = np.zeros((2, len(cells.first)))
        for number, density in enumerate(cells.shares):
            moving, writer = cells.moving[number], self._writers[number]
            if moving is not None:
                mean = self._moved(moving, number, since, until, cells.first >> CHUNK_SHIFT)
            else:
                assert density is not None
                mean = density * _between(*done[number], cells.first >> CHUNK_SHIFT)
            total += mean
            zeroing += writer.zeroed_share * mean
        some = zeroing > 0
        return ZeroShares(
            first=cells.first[some], last=cells.last[some], share=zeroing[some] / total[some]
        )

    def lost_vcpu_s(self, t_ns: int) -> float:
        """Return the vCPU-seconds of work that were not done by a time, over all vCPUs."""
        return sum(
            writer.lost_vcpu_s(t_ns, self.run_time if writer.memory_rate is None else clock)
            for writer, clock in zip(self._writers, self.faults.clocks, strict=True)
        )

    def _faults(self, protection: Protection, *, joins_clears: bool) -> Faults:
        """Make the faults. KVM tracks the writes of vCPUs. Device writes never fault."""
        density = [np.zeros(len(self._first)) for _ in self._writers]
        moving: dict[int, Callable[[int, int], FloatArray]] = {}
        for i, column in zip(self._random, self._density, strict=True):
            if not self._writers[i].throttled:
                continue
            cells = self._moving[i]
            if cells is not None:
                moving[i] = partial(self._average, cells)
            elif column is not None:
                density[i] = column
        from_start = protection.from_start
        random = RandomPages(
            self._chunk,
            (self._last - self._first) // self._together,
            density,
            from_start=from_start,
            lazy=protection.lazy,
            moving=moving,
            splits=protection.splits,
            limit=self._limit,
        )
        pages: list[Tracked] = [random for _ in self._writers]
        for i, writer in _within(self._limit, enumerate(self._writers)):
            if isinstance(writer.pattern, Sequential) and writer.throttled:
                threads = [thread.pieces() for thread in self._threads if thread.writer == i]
                first, last, share, chunk = map(np.concatenate, zip(*threads, strict=True))
                pages[i] = SequentialPages(
                    writer.pattern,
                    first,
                    last,
                    share,
                    chunk,
                    i,
                    from_start=from_start,
                    splits=protection.splits,
                    pages_together=self._together,
                )
            if isinstance(writer.pattern, Rounds) and writer.throttled:
                runs = self._rounds[i]
                pages[i] = RoundPages(
                    writer.pattern,
                    runs.pages,
                    runs.chunk,
                    i,
                    from_start=from_start,
                    lazy=protection.lazy,
                    splits=protection.splits,
                    pages_together=self._together,
                )
        return Faults(
            protection,
            self._writers,
            pages,
            self.run_time,
            self._limit,
            joins_clears=joins_clears,
        )

    def _rounds_between(
        self, writer: int, low: FloatArray, high: FloatArray
    ) -> tuple[IntArray, IntArray]:
        """The runs of pages that a writer without replacement passes in an interval.

        Args:
            writer: index of the writer.
            low, high: see `_done`.
        """
        runs, pattern = self._rounds[writer], self._writers[writer].pattern
        assert isinstance(pattern, Rounds)
        return runs.between(
            *(
                pattern.first_write + np.floor(_of_chunk(done, runs.chunk)).astype(np.int64)
                for done in (low, high)
            )
        )

    def _mark(self, writer: int, since: IntArray) -> Mark | None:
        """What a writer had reached at a sync before an interval."""
        return self.faults.mark_before(int(since.min()), writer)

    def _of_cells(self, per_page: FloatArray) -> FloatArray:
        """A value per page of each cell, for groups of pages if pages are tracked together."""
        return per_page if self._groups is None else self._groups.add_up(per_page)

    def _average(self, cells: MovingCells, since_ns: int, until_ns: int) -> FloatArray:
        return self._of_cells(cells.average(since_ns, until_ns))

    def _moved(
        self, cells: MovingCells, writer: int, since: IntArray, until: IntArray, chunk: IntArray
    ) -> FloatArray:
        """The expected writes per page of a writer whose working set moves."""
        clock, mark = self.faults.clocks[writer], self._mark(writer, since)
        return cells.mean(
            since,
            until,
            chunk,
            lambda t: self._writers[writer].writes(t, clock, mark),
        )

    def _done(self, writer: int, times: Sequence[IntArray]) -> list[FloatArray]:
        """The page writes of a writer by each of some times.

        Args:
            writer: index of the writer.
            times: int64 [1] or [chunks] each. The results have the same shapes.
        """
        clock, mark = self.faults.clocks[writer], self._mark(writer, times[0])
        every = np.concatenate(times)
        others = (every != every[0]).nonzero()[0]  # most chunks were not cleared, and have one time
        found = self._writers[writer].writes(every[np.append(0, others)], clock, mark)
        done = np.full(len(every), found[0])
        done[others] = found[1:]
        ends = np.cumsum([len(one) for one in times])
        return np.split(done, ends[:-1])


def _of_chunk(value: FloatArray, chunk: IntArray) -> FloatArray:
    """A value [1] or [chunks] for each of some chunks, [1] or [n]."""
    return value if value.size == 1 else value[chunk]


def _between(low: FloatArray, high: FloatArray, chunk: IntArray) -> FloatArray:
    """The page writes of a writer in the intervals of some chunks. For low and high see `_done`."""
    # A paced writer's rounding may leave -1e-14.
    return np.maximum(_of_chunk(high, chunk) - _of_chunk(low, chunk), 0.0)


def _within(limit: WallLimit, items: Iterable[T]) -> Iterator[T]:
    """Yield the items while there is time."""
    for item in items:
        limit.check()
        yield item


class _Thread:
    """One sequential thread, and the pages that it passes between two times.

    Attributes:
        writer: index of its writer.
    """

    def __init__(
        self, layout: Layout, writer: Writer, pattern: Sequential, thread: int, place: int
    ) -> None:
        self.writer = place
        first, last = pattern.share(thread)
        own_first, own_last, guest_first = writer.placement.locate(first, last)
        slot_first, slot_last, _piece = layout.cut(guest_first, guest_first + own_last - own_first)
        # The pieces of a run that is cut at a chunk border follow each other in the thread's order.
        lengths = slot_last - slot_first
        ends = np.cumsum(lengths)
        self._own_first, self._own_last, self._slot = ends - lengths, ends, slot_first
        self._chunk = slot_first >> CHUNK_SHIFT
        self._pages = last - first
        self._pattern = pattern

    def pieces(self) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Return four arrays, int64 [pieces].

        They are the first page of a piece in the thread's share, the page behind its last, the
        pages of the share, and the chunk.
        """
        return (
            self._own_first,
            self._own_last,
            np.full(len(self._chunk), self._pages),
            self._chunk,
        )

    def runs(self, low: FloatArray, high: FloatArray) -> tuple[IntArray, IntArray]:
        """Return the first slot, and the slot behind the last, of the runs that the thread passes.

        Args:
            low, high: float64 [1] or [chunks], the writer's page writes by the beginning and by the
                end of the interval.
        """
        since, until = (
            self._pattern.first_write
            + np.floor(_of_chunk(done, self._chunk) / self._pattern.threads).astype(np.int64)
            for done in (low, high)
        )
        start = np.where(until - since >= self._pages, 0, since % self._pages)
        end = start + np.minimum(until - since, self._pages)
        parts = [self._overlap(start, end), self._overlap(start - self._pages, end - self._pages)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _overlap(self, start: IntArray, end: IntArray) -> tuple[IntArray, IntArray]:
        """The slots of the thread's pages start <= page < end in each piece."""
        first, last = np.maximum(self._own_first, start), np.minimum(self._own_last, end)
        some = last > first
        offset = (self._slot - self._own_first)[some]
        return first[some] + offset, last[some] + offset


@dataclass(frozen=True)
class _Cells:
    """The pages of some writers, cut into cells.

    Attributes:
        first, last: int64 [cells], first slot and slot behind the last.
        shares: of each writer, float64 [cells], its share of writes per page. None: its set moves.
        moving: of each writer, its cells if its set moves.
    """

    first: IntArray
    last: IntArray
    shares: list[FloatArray | None]
    moving: list[MovingCells | None]


def _cells(layout: Layout, writers: Sequence[Writer], limit: WallLimit) -> _Cells:
    """Cut the pages of writers into cells. The pages of a writer that is not random are alike."""
    firsts, lasts, values = [], [], []
    for writer in _within(limit, writers):
        first, last, value = _pieces(layout, writer)
        order = np.argsort(first)
        firsts.append(first[order])
        lasts.append(last[order])
        values.append(value[order])
    if not writers:
        return _Cells(EMPTY, EMPTY, [], [])
    borders = rising(np.concatenate([*firsts, *lasts]))
    low, high = borders[:-1], borders[1:]
    if 2 * 8 * len(low) * len(writers) > MOST_BYTES:  # the shares, and the same for the faults
        raise MemoryError(f"{len(writers)} writers over {len(low)} ranges of pages")
    found: list[tuple[IntArray, NDArray[np.bool_]]] = []
    covered: NDArray[np.bool_] = np.zeros(len(low), np.bool_)
    for writer, first, last, value in _within(
        limit, zip(writers, firsts, lasts, values, strict=True)
    ):
        index = np.searchsorted(first, low, side="right") - 1
        inside = (index >= 0) & (low < last[index])
        found.append((index, inside))
        covered |= inside if writer.drift else inside & (value[index] > 0)
    shares: list[FloatArray | None] = []
    moving: list[MovingCells | None] = []
    for writer, first, value, place in _within(
        limit, zip(writers, firsts, values, found, strict=True)
    ):
        index, inside = place[0][covered], place[1][covered]
        if writer.drift is None:
            shares.append(np.where(inside, value[index], 0.0))
            moving.append(None)
            continue
        assert isinstance(writer.pattern, Random)
        cell = np.flatnonzero(inside)
        own = index[cell]
        page = value[own].astype(np.int64) + low[covered][cell] - first[own]
        cells = MovingCells(writer.drift, writer.pattern.bands, cell, page, int(covered.sum()))
        shares.append(None)
        moving.append(cells)
    return _Cells(low[covered], high[covered], shares, moving)


def _pieces(layout: Layout, writer: Writer) -> tuple[IntArray, IntArray, FloatArray | IntArray]:
    """The pieces of a writer inside chunks.

    Returns:
        First slot and slot behind the last, int64 [pieces]. The share of writes per page, float64
        [pieces]. If the working set moves, then the first page in its range, int64 [pieces].
    """
    if not isinstance(writer.pattern, Random):
        cuts, guest, pages = writer.placement.cut(np.zeros(1, np.int64))
        first, last, _run = layout.cut(guest, guest + pages)
        return first, last, np.full(len(first), 1 / writer.pattern.pages)
    if writer.drift is not None:
        borders = writer.drift.borders(writer.pattern.bands)
        cuts, guest, pages = writer.placement.cut(borders)
        first, last, run = layout.cut(guest, guest + pages)
        before = np.cumsum(last - first) - (last - first)
        return first, last, cuts[run] + before - before[np.searchsorted(run, run)]
    own_first, own_last, density = writer.pattern.runs()
    cuts, guest, pages = writer.placement.cut(own_first)
    first, last, run = layout.cut(guest, guest + pages)
    return first, last, density[np.searchsorted(own_last, cuts[run], side="right")]


class _Groups:
    """Cells of whole groups of pages, each a group or many equal ones.

    Args:
        first, last: int64 [cells], cells of pages, see `_cells`.
        size: pages of a group.

    Attributes:
        first, last: int64 [groups], the same of groups.
    """

    def __init__(self, first: IntArray, last: IntArray, size: int) -> None:
        low, high = -(-first // size) * size, last // size * size
        inside = np.flatnonzero(high > low)
        # The ends of a cell share their groups with other cells.
        head = np.flatnonzero(first < low)
        tail = np.flatnonzero((high < last) & (high >= first))
        self._cell = np.concatenate([inside, head, tail])
        begin = np.concatenate([low[inside], low[head] - size, high[tail]])
        end = np.concatenate([high[inside], low[head], high[tail] + size])
        self._pages = np.concatenate(
            [
                np.full(len(inside), size),
                np.minimum(last, low)[head] - first[head],
                (last - high)[tail],
            ]
        )
        self.first, self._place = np.unique(begin, return_inverse=True)
        self.last: IntArray = np.zeros(len(self.first), np.int64)
        self.last[self._place] = end

    def add_up(self, per_page: FloatArray) -> FloatArray:
        """Return the sum over each group's pages of a value per page, float64 [groups].

        Args:
            per_page: float64 [cells].
        """
        weights = self._pages * per_page[self._cell]
        return np.asarray(np.bincount(self._place, weights, len(self.first)), np.float64)
