"""All writers of a VM: the writes between two times, in the page space.

The cells of the random writers are cut at chunk borders and at the borders of all bands, once.
Sequential threads leave runs of pages that were certainly written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from gpusim.guest.faults import Faults, Protection, RandomPages, SequentialPages, Tracked
from gpusim.guest.pattern import Random, Sequential
from gpusim.guest.run_time import RunTime, VcpuClock
from gpusim.guest.writer import Writer, thread_positions
from gpusim.layout import CHUNK_SHIFT, FloatArray, IntArray, Layout, Writes
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
    ) -> None:
        self._limit = limit
        self.run_time = run_time
        self._writers = writers
        self._together = pages_together
        self._random = [i for i, w in enumerate(writers) if isinstance(w.pattern, Random)]
        self._first, self._last, self._density = _cells(
            layout, [writers[i] for i in self._random], limit
        )
        if pages_together > 1:
            self._first, self._last, self._density = _groups(
                self._first, self._last, self._density, pages_together
            )
        self._chunk = self._first >> CHUNK_SHIFT
        self._threads = [
            _Thread(layout, w, w.pattern, thread, i)
            for i, w in enumerate(writers)
            if isinstance(w.pattern, Sequential)
            for thread in _within(limit, range(w.pattern.threads))
        ]
        self.faults = self._faults(protection or Protection())

    def settle(self, now_ns: int, cleared_at_ns: IntArray) -> None:
        """Count the faults up to a sync that protects now. See Faults.settle."""
        self.faults.settle(now_ns, cleared_at_ns)

    def writes(self, since_ns: int | IntArray, until_ns: int | IntArray) -> Writes:
        """Return the writes from `since_ns` to `until_ns`.

        Args:
            since_ns, until_ns: one time for all chunks, or int64 [chunks].
        """
        since, until = np.asarray(since_ns), np.asarray(until_ns)
        mean = np.zeros(len(self._first))
        random = zip(self._random, self._density, strict=True)
        for writer, density in _within(self._limit, random):
            mean += density * self._per_cell(writer, since, until)
        runs = [
            t.runs(since, until, self.faults.clocks[t.writer])
            for t in _within(self._limit, self._threads)
        ]
        size = self._together
        return Writes(
            first=self._first,
            last=self._last,
            mean=mean,
            certain_first=np.concatenate([EMPTY, *(run[0] // size * size for run in runs)]),
            certain_last=np.concatenate([EMPTY, *(-(-run[1] // size) * size for run in runs)]),
            pages_together=size,
        )

    def lost_vcpu_s(self, t_ns: int) -> float:
        """Return the vCPU-seconds of work that were not done by a time, over all vCPUs."""
        return sum(writer.lost_vcpu_s(t_ns, self.run_time) for writer in self._writers)

    def _faults(self, protection: Protection) -> Faults:
        """Make the faults. KVM tracks the writes of vCPUs. Device writes never fault."""
        density = [np.zeros(len(self._first)) for _ in self._writers]
        for i, column in zip(self._random, self._density, strict=True):
            density[i] = column * self._writers[i].throttled
        from_start = protection.from_start
        random = RandomPages(
            self._chunk,
            (self._last - self._first) // self._together,
            density,
            from_start=from_start,
            lazy=protection.lazy,
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
                    pages_together=self._together,
                )
        return Faults(protection, self._writers, pages, self.run_time, self._limit)

    def _per_cell(self, writer: int, since: IntArray, until: IntArray) -> FloatArray:
        """The page writes of a writer in the interval of each cell's chunk, float64 [cells]."""
        clock = self.faults.clocks[writer]
        done = [self._writers[writer].writes(np.atleast_1d(t), clock) for t in (since, until)]
        low, high = (d if d.size == 1 else d[self._chunk] for d in done)
        return np.maximum(high - low, 0.0)  # a paced writer's rounding may leave -1e-14


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
        self._writer, self._pattern = writer, pattern

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

    def runs(self, since: IntArray, until: IntArray, clock: VcpuClock) -> tuple[IntArray, IntArray]:
        """Return the first slot, and the slot behind the last, of the runs that the thread passes.

        Args:
            since, until: one time in ns, or int64 [chunks].
            clock: the writer's clock.
        """
        if since.ndim or until.ndim:
            since = np.broadcast_to(since, until.shape) if until.ndim else since
            until = np.broadcast_to(until, since.shape)
            since, until = since[self._chunk], until[self._chunk]
        low, high = (
            thread_positions(self._writer, self._pattern, np.atleast_1d(t), clock)
            for t in (since, until)
        )
        start = np.where(high - low >= self._pages, 0, low % self._pages)
        end = start + np.minimum(high - low, self._pages)
        parts = [self._overlap(start, end), self._overlap(start - self._pages, end - self._pages)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _overlap(self, start: IntArray, end: IntArray) -> tuple[IntArray, IntArray]:
        """The slots of the thread's pages start <= page < end in each piece."""
        first, last = np.maximum(self._own_first, start), np.minimum(self._own_last, end)
        some = last > first
        offset = (self._slot - self._own_first)[some]
        return first[some] + offset, last[some] + offset


def _cells(
    layout: Layout, writers: Sequence[Writer], limit: WallLimit
) -> tuple[IntArray, IntArray, list[FloatArray]]:
    """Cut the pages of all random writers into cells.

    Returns:
        First slot and slot behind the last, int64 [cells]. For each writer its share of writes per
        page, float64 [cells].
    """
    firsts, lasts, densities = [], [], []
    for writer in _within(limit, writers):
        assert isinstance(writer.pattern, Random)
        runs = [writer.placement.locate(b.first, b.last) for b in writer.pattern.bands]
        density = np.concatenate([
            np.full(len(run[0]), b.share / (b.last - b.first))
            for run, b in zip(runs, writer.pattern.bands, strict=True)
        ])  # fmt: skip
        guest = np.concatenate([run[2] for run in runs])
        pages = np.concatenate([run[1] - run[0] for run in runs])
        first, last, run_index = layout.cut(guest, guest + pages)
        order = np.argsort(first)
        firsts.append(first[order])
        lasts.append(last[order])
        densities.append(density[run_index[order]])
    if not writers:
        return EMPTY, EMPTY, []
    borders = np.unique(np.concatenate([*firsts, *lasts]))
    low, high = borders[:-1], borders[1:]
    if 2 * 8 * len(low) * len(writers) > MOST_BYTES:  # the shares, and the same for the faults
        raise MemoryError(f"{len(writers)} writers over {len(low)} ranges of pages")
    shares = []
    for first, last, density in _within(limit, zip(firsts, lasts, densities, strict=True)):
        index = np.searchsorted(first, low, side="right") - 1
        inside = (index >= 0) & (low < last[index])
        shares.append(np.where(inside, density[index], 0.0))
    covered = np.zeros(len(low), bool)
    for share in _within(limit, shares):
        covered |= share > 0
    return low[covered], high[covered], [share[covered] for share in _within(limit, shares)]


def _groups(
    first: IntArray, last: IntArray, densities: Sequence[FloatArray], size: int
) -> tuple[IntArray, IntArray, list[FloatArray]]:
    """Turn cells of pages into cells of whole groups of pages, each a group or many equal ones.

    Args:
        first, last: int64 [cells], cells of pages, see `_cells`.
        densities: of each writer, float64 [cells], share of its writes per page.
        size: pages of a group.

    Returns:
        The same of groups. The shares are per group.
    """
    low, high = -(-first // size) * size, last // size * size
    inside = np.flatnonzero(high > low)
    # The ends of a cell share their groups with other cells.
    head = np.flatnonzero(first < low)
    tail = np.flatnonzero((high < last) & (high >= first))
    cell = np.concatenate([inside, head, tail])
    begin = np.concatenate([low[inside], low[head] - size, high[tail]])
    end = np.concatenate([high[inside], low[head], high[tail] + size])
    pages = np.concatenate([
        np.full(len(inside), size), np.minimum(last, low)[head] - first[head], (last - high)[tail]
    ])  # fmt: skip
    starts, place = np.unique(begin, return_inverse=True)
    ends = np.zeros(len(starts), np.int64)
    ends[place] = end
    shares = [
        np.asarray(np.bincount(place, pages * one[cell], len(starts)), np.float64)
        for one in densities
    ]
    return starts, ends, shares
