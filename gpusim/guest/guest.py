"""All writers of a VM together: what was written between two times, as writes on the page space.

The cells of the random writers, cut by chunk borders and by the borders of all bands, are made once.
Sequential threads leave runs of pages that were certainly written.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpusim.guest.faults import Faults, Protection, RandomPages, SequentialPages, Tracked
from gpusim.guest.pattern import Random, Sequential
from gpusim.guest.run_time import RunTime, VcpuClock
from gpusim.guest.writer import Writer, thread_positions
from gpusim.layout import CHUNK_SHIFT, FloatArray, IntArray, Layout, Writes

EMPTY = np.zeros(0, np.int64)


class Guest:
    """What the VM writes.

    Args:
        protection: of its pages, whose first writes fault.

    Attributes:
        run_time: of its vCPUs; the throttle is set there.
        faults: those first writes, and the time they took.
    """

    def __init__(
        self,
        layout: Layout,
        writers: Sequence[Writer],
        run_time: RunTime,
        protection: Protection | None = None,
    ) -> None:
        self.run_time = run_time
        self._writers = writers
        self._random = [i for i, w in enumerate(writers) if isinstance(w.pattern, Random)]
        self._first, self._last, self._density = _cells(layout, [writers[i] for i in self._random])
        self._chunk = self._first >> CHUNK_SHIFT
        self._threads = [
            _Thread(layout, w, w.pattern, thread, i)
            for i, w in enumerate(writers)
            if isinstance(w.pattern, Sequential)
            for thread in range(w.pattern.threads)
        ]
        self.faults = self._faults(protection or Protection())

    def settle(self, now_ns: int, cleared_at_ns: IntArray) -> None:
        """Bring the time that faults took up to a look, before its writes; see Faults.settle."""
        self.faults.settle(now_ns, cleared_at_ns)

    def writes(self, since_ns: int | IntArray, until_ns: int | IntArray) -> Writes:
        """What was written from `since_ns` to `until_ns`.

        Args:
            since_ns, until_ns: one time for all chunks, or int64 [chunks], one for each.
        """
        since, until = np.asarray(since_ns), np.asarray(until_ns)
        mean = np.zeros(len(self._first))
        for writer, density in zip(self._random, self._density, strict=True):
            mean += density * self._per_cell(writer, since, until)
        runs = [t.runs(since, until, self.faults.clocks[t.writer]) for t in self._threads]
        return Writes(
            first=self._first,
            last=self._last,
            mean=mean,
            certain_first=np.concatenate([EMPTY, *(run[0] for run in runs)]),
            certain_last=np.concatenate([EMPTY, *(run[1] for run in runs)]),
        )

    def lost_vcpu_s(self, t_ns: int) -> float:
        """vCPU-seconds of work not done by a time, summed over vCPUs."""
        return sum(writer.lost_vcpu_s(t_ns, self.run_time) for writer in self._writers)

    def _faults(self, protection: Protection) -> Faults:
        """What the writers' vCPUs write is tracked; what a device writes is not, and never faults."""
        density = [np.zeros(len(self._first)) for _ in self._writers]
        for i, column in zip(self._random, self._density, strict=True):
            density[i] = column * self._writers[i].throttled
        from_start = protection.from_start
        random = RandomPages(
            self._chunk,
            self._last - self._first,
            density,
            from_start=from_start,
            lazy=protection.lazy,
        )
        pages: list[Tracked] = [random for _ in self._writers]
        for i, writer in enumerate(self._writers):
            if isinstance(writer.pattern, Sequential) and writer.throttled:
                threads = [thread.pieces() for thread in self._threads if thread.writer == i]
                first, last, share, chunk = map(np.concatenate, zip(*threads, strict=True))
                pages[i] = SequentialPages(
                    writer.pattern, first, last, share, chunk, i, from_start=from_start
                )
        return Faults(protection, self._writers, pages, self.run_time)

    def _per_cell(self, writer: int, since: IntArray, until: IntArray) -> FloatArray:
        """Page writes of a writer in the interval of each cell's chunk."""
        clock = self.faults.clocks[writer]
        done = [self._writers[writer].writes(np.atleast_1d(t), clock) for t in (since, until)]
        low, high = (d if d.size == 1 else d[self._chunk] for d in done)
        return np.maximum(high - low, 0.0)  # a paced writer's rounding may leave -1e-14


class _Thread:
    """One sequential thread: which pages it passed between two times.

    Attributes:
        writer: its place among the guest's writers.
    """

    def __init__(
        self, layout: Layout, writer: Writer, pattern: Sequential, thread: int, place: int
    ) -> None:
        self.writer = place
        first, last = pattern.share(thread)
        own_first, own_last, guest_first = writer.placement.locate(first, last)
        slot_first, slot_last, _piece = layout.cut(guest_first, guest_first + own_last - own_first)
        # Pieces of a run that was cut at a chunk border follow one another in the thread's order.
        lengths = slot_last - slot_first
        ends = np.cumsum(lengths)
        self._own_first, self._own_last, self._slot = ends - lengths, ends, slot_first
        self._chunk = slot_first >> CHUNK_SHIFT
        self._pages = last - first
        self._writer, self._pattern = writer, pattern

    def pieces(self) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Of each piece: first page and behind the last in the thread's share, pages of that, chunk."""
        return (
            self._own_first,
            self._own_last,
            np.full(len(self._chunk), self._pages),
            self._chunk,
        )

    def runs(self, since: IntArray, until: IntArray, clock: VcpuClock) -> tuple[IntArray, IntArray]:
        """Slots, first and behind the last, of the runs passed in each piece's interval."""
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
        """Slots of the thread's pages start <= page < end, in each piece."""
        first, last = np.maximum(self._own_first, start), np.minimum(self._own_last, end)
        some = last > first
        offset = (self._slot - self._own_first)[some]
        return first[some] + offset, last[some] + offset


def _cells(
    layout: Layout, writers: Sequence[Writer]
) -> tuple[IntArray, IntArray, list[FloatArray]]:
    """Cut the pages of all random writers into cells: slots, and each writer's share of writes a page."""
    firsts, lasts, densities = [], [], []
    for writer in writers:
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
    shares = []
    for first, last, density in zip(firsts, lasts, densities, strict=True):
        index = np.searchsorted(first, low, side="right") - 1
        inside = (index >= 0) & (low < last[index])
        shares.append(np.where(inside, density[index], 0.0))
    covered = np.any(shares, axis=0)
    return low[covered], high[covered], [share[covered] for share in shares]
