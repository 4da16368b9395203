"""What the first write to a protected page costs the guest: a fault, and vCPU time.

After a page was protected, the first write to it leaves the guest's fast path: a write fault or an
entry of Intel's page-modification log under KVM, the slow path of the TLB under TCG; further writes
are free (Linux: arch/x86/kvm/mmu/mmu.c:fast_page_fault, arch/x86/kvm/vmx/vmx.c:handle_pml_full;
QEMU: accel/tcg/cputlb.c:notdirty_write, same in 7.2 to 10.1). Which pages are protected when:

- eager: all of them, from every sync on (kvm_legacy: KVM_GET_DIRTY_LOG; tcg:
  physical_memory_test_and_clear_dirty), with a dirty ring from every second on
  (accel/kvm/kvm-all.c:kvm_dirty_ring_reaper_thread);
- lazy: at a chunk's remote clear the pages that its log held at the last sync
  (accel/kvm/kvm-all.c:kvm_log_clear_one_slot); with KVM_DIRTY_LOG_INITIALLY_SET none before its first.

A vCPU that faults does not write, and what it does not write does not fault. From one look to the
next both follow from n, the writes done: they take n / rate + cost / vCPUs x faults(n) of run time,
which rises with n, so one root is all there is to find.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gpusim.guest.pattern import Sequential
from gpusim.guest.run_time import RunTime, VcpuClock
from gpusim.guest.writer import Writer
from gpusim.layout import FloatArray, IntArray
from gpusim.units import NS_PER_S

REAPER_NS = NS_PER_S  # kvm_dirty_ring_reaper_thread sleeps so long between two reaps
BATCHES = 3  # of a look's clears: each is taken at the time of its middle one
ROOT_STEPS, ROOT_ACCURACY = 100, 1e-12
SWEEPS = 50  # over writers that share pages


@dataclass(frozen=True, kw_only=True)
class Protection:
    """When pages are protected, and what the first write to one costs.

    Attributes:
        cost_ns: vCPU time of a first write, ns.
        lazy: at their chunk's clear instead of at the sync.
        from_start: before the first sync or clear, too.
        reaped: once a second as well (dirty ring).
    """

    cost_ns: float = 0.0
    lazy: bool = False
    from_start: bool = True
    reaped: bool = False


class UsefulTime:
    """Run time less the time spent in faults: the clock of a writer that faults slow.

    Between two knots it is a straight line over run time; behind the last one nothing faults.
    """

    def __init__(self, run: RunTime) -> None:
        self._run = run
        self._times, self._run_ns = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self._useful_ns, self._slopes = np.zeros(1), np.ones(1)
        self._bends: IntArray = np.zeros(1, np.int64)  # knots and the ticks around them, ascending

    def bend(self, t_ns: int, useful_ns: float) -> None:
        """Set it at a time behind 0: that of the last knot, or a later one."""
        kept = np.searchsorted(self._times, t_ns)
        run_ns, slopes = self._run.at_ns(t_ns), self._slopes[:kept]
        passed_ns = run_ns - int(self._run_ns[kept - 1])
        if passed_ns:
            slopes[-1] = (useful_ns - self._useful_ns[kept - 1]) / passed_ns
        if kept == len(self._times):
            self._note(t_ns)
        self._times = np.append(self._times[:kept], t_ns)
        self._run_ns = np.append(self._run_ns[:kept], run_ns)
        self._useful_ns = np.append(self._useful_ns[:kept], useful_ns)
        self._slopes = np.append(slopes, 1.0)

    def at(self, t_ns: IntArray) -> FloatArray:
        """Useful time, ns, at each time."""
        knot = np.searchsorted(self._times, t_ns, side="right") - 1
        since_ns = self._run.at(t_ns) - self._run_ns[knot]
        return np.asarray(self._useful_ns[knot] + since_ns * self._slopes[knot])

    def tick_before(self, t_ns: IntArray) -> IntArray:
        return self._run.tick_before(t_ns)

    def tick_after(self, t_ns: IntArray) -> IntArray:
        return self._run.tick_after(t_ns)

    def borders(self) -> IntArray:
        """Those of run time, the knots, and the ticks around each: the line bends there."""
        others = self._run.borders()
        return np.insert(self._bends, np.searchsorted(self._bends, others), others)

    def _note(self, t_ns: int) -> None:
        """A knot more: it and its ticks lie near the end of those that there are."""
        t = np.array([t_ns])
        new = np.concatenate([self.tick_before(t), t, self.tick_after(t)])
        tail = np.searchsorted(self._bends, new[0])
        late = np.unique(np.concatenate([self._bends[tail:], new]))
        self._bends = np.concatenate([self._bends[:tail], late])


class Tracked(Protocol):
    """Pages and which of them are protected, of all random writers or of one sequential writer."""

    def faults(self, writes: FloatArray, writer: int) -> float:
        """Faults of one writer, if each writer did so many writes from now on."""

    def write(self, writes: FloatArray) -> float:
        """Let each writer do so many writes; faults of all of them."""

    def clear(self, chunks: IntArray) -> None:
        """Lazy: protect at the chunks' clear what their log held at the last look."""

    def protect(self) -> None:
        """Eager: protect everything."""

    def look(self) -> None:
        """Lazy: the log is read, and nothing is protected yet."""


class RandomPages:
    """Pages that random writers write: cells of one chunk that are written alike are one group.

    Args:
        chunk, pages: int64 [cells].
        density: of each of the guest's writers, float64 [cells]: its share of writes a page; 0 of one
            whose writes are not tracked, or not here.
        from_start: protected before the first look or clear.
        lazy: groups are told apart by chunk.
    """

    def __init__(
        self,
        chunk: IntArray,
        pages: IntArray,
        density: Sequence[FloatArray],
        *,
        from_start: bool,
        lazy: bool,
    ) -> None:
        kind, example = np.zeros(len(chunk), np.int64), np.zeros(0, np.int64)
        for column in density:
            values, index = np.unique(column, return_inverse=True)
            _, example, kind = np.unique(
                kind * len(values) + index, return_index=True, return_inverse=True
            )
        kinds = max(1, len(example))
        group, index = np.unique(chunk * lazy * kinds + kind, return_inverse=True)
        self._chunk, self._kind = group // kinds, group % kinds
        self._pages = np.bincount(index, weights=pages, minlength=len(group))
        self._density = np.zeros((len(example), len(density)))
        for writer, column in enumerate(density):
            self._density[:, writer] = column[example]
        self._protected = np.full(len(group), float(from_start))  # share of each group's pages
        self._at_look = self._protected.copy()
        self._add_up()

    def faults(self, writes: FloatArray, writer: int) -> float:
        """A kind's first writes are shared out by who writes how much of it."""
        mean = self._density @ writes
        first = np.divide(-np.expm1(-mean), mean, out=np.ones_like(mean), where=mean > 0)
        return float(writes[writer] * (self._of_kind * self._density[:, writer]) @ first)

    def write(self, writes: FloatArray) -> float:
        written = -np.expm1(-(self._density @ writes))  # share of each kind's pages
        faults = float(self._of_kind @ written)
        self._protected *= (1 - written)[self._kind]
        self._of_kind *= 1 - written
        return faults

    def clear(self, chunks: IntArray) -> None:
        mine = np.isin(self._chunk, chunks)
        self._protected[mine] += 1 - self._at_look[mine]
        self._add_up()

    def protect(self) -> None:
        self._protected[:] = 1.0
        self._add_up()

    def look(self) -> None:
        self._at_look = self._protected.copy()

    def _add_up(self) -> None:
        """Protected pages of each kind, all chunks together."""
        weights = self._pages * self._protected
        kinds = np.bincount(self._kind, weights, minlength=len(self._density))
        self._of_kind = kinds.astype(np.float64)  # integers where there is nothing to count


class SequentialPages:
    """Pages that one sequential writer's threads go round, in pieces of a thread's share.

    A page of a piece faults at its first visit since the piece was protected, so what is kept is
    between which counts of a thread's writes a visit is such a first one.

    Args:
        pattern: of the writer.
        first, last, share: int64 [pieces], a piece's pages in its thread's share, and pages of that.
        chunk: int64 [pieces].
        writer: its place among the writers.
        from_start: protected before the first look or clear.
    """

    def __init__(
        self,
        pattern: Sequential,
        first: IntArray,
        last: IntArray,
        share: IntArray,
        chunk: IntArray,
        writer: int,
        *,
        from_start: bool,
    ) -> None:
        self._first, self._last, self._share, self._chunk = first, last, share, chunk
        self._threads, self._writer = pattern.threads, writer
        self._done = self._at_look = float(pattern.first_write)  # writes of each thread
        self._since = np.full(len(self._first), self._done)
        self._until = self._since + self._share * from_start

    def faults(self, writes: FloatArray, writer: int) -> float:
        done = self._done + writes[writer] / self._threads
        low, high = np.maximum(self._since, self._done), np.minimum(self._until, done)
        return float(np.maximum(self._visits(high) - self._visits(low), 0).sum())

    def write(self, writes: FloatArray) -> float:
        faults = self.faults(writes, self._writer)
        self._done += writes[self._writer] / self._threads
        return faults

    def clear(self, chunks: IntArray) -> None:
        """Pages that faulted since the last look are not in its log, and stay as they are."""
        mine = np.isin(self._chunk, chunks)
        faulted = self._until > self._at_look
        end = np.where(faulted, self._at_look, self._done) + self._share
        self._since[mine], self._until[mine] = self._done, end[mine]

    def protect(self) -> None:
        self._since[:] = self._done
        self._until = self._since + self._share

    def look(self) -> None:
        self._at_look = self._done

    def _visits(self, count: FloatArray) -> FloatArray:
        """Visits to each piece before a thread's write of a number."""
        rounds, place = np.divmod(count, self._share)
        length = self._last - self._first
        return np.asarray(rounds * length + np.clip(place - self._first, 0, length))


class Faults:
    """The faults of a guest's writers, and the time they cost.

    Args:
        writers: of the guest.
        pages: that each of them writes; random writers share theirs.
        run_time: of the vCPUs.

    Attributes:
        clocks: of each writer: run time, or what faults leave of it. A recorded pace is as recorded.
        count: faults so far.
    """

    def __init__(
        self,
        protection: Protection,
        writers: Sequence[Writer],
        pages: Sequence[Tracked],
        run_time: RunTime,
    ) -> None:
        self._protection, self._writers, self._pages = protection, writers, pages
        self._run_time = run_time
        self._parts = list({id(part): part for part in pages}.values())
        self._slowed = {
            i: UsefulTime(run_time)
            for i, w in enumerate(writers)
            if protection.cost_ns and w.throttled and w.vcpus and w.pace.top_rate is not None
        }
        self.clocks: list[VcpuClock] = [self._slowed.get(i, run_time) for i in range(len(writers))]
        self.count = 0.0
        self._now_ns, self._done = 0, self._writes(0)

    @property
    def time_s(self) -> float:
        """vCPU-seconds that all faults took."""
        return self.count * self._protection.cost_ns / NS_PER_S

    def settle(self, now_ns: int, cleared_at_ns: IntArray) -> None:
        """Bring faults and clocks up to a look.

        Args:
            cleared_at_ns: int64 [chunks], when each was cleared since the last look; -1: it was not.
        """
        for stop_ns, cleared in self._stops(now_ns, cleared_at_ns):
            self._advance(stop_ns)
            for part in self._parts if len(cleared) else ():
                part.clear(cleared)
        for part in self._parts:
            if self._protection.lazy:
                part.look()
            else:
                part.protect()

    def _stops(self, now_ns: int, cleared_at_ns: IntArray) -> list[tuple[int, IntArray]]:
        """Times up to now at which a window opens or closes, or chunks are cleared."""
        windows = [window for writer in self._writers for window in writer.windows or ()]
        edges = {edge for window in windows for edge in window if self._now_ns < edge < now_ns}
        nothing = np.zeros(0, np.int64)
        stops = [(edge, nothing) for edge in edges]
        chunks = np.flatnonzero(cleared_at_ns >= 0)
        chunks = chunks[np.argsort(cleared_at_ns[chunks], kind="stable")]
        for batch in np.array_split(chunks, min(BATCHES, len(chunks)) or 1):
            if len(batch):
                stops.append((min(int(cleared_at_ns[batch[len(batch) // 2]]), now_ns), batch))
        return [*sorted(stops, key=lambda stop: stop[0]), (now_ns, nothing)]

    def _advance(self, until_ns: int) -> None:
        """Go on to a time up to which nothing is protected; all of it once a second, if reaped."""
        if until_ns <= self._now_ns:
            return
        rounds = -(-(until_ns - self._now_ns) // REAPER_NS) if self._protection.reaped else 1
        if self._slowed:
            self._slow(until_ns, rounds)
        done = self._writes(until_ns)
        writes = (done - self._done) / rounds
        for part in self._parts:
            self.count += rounds * part.write(writes)
            if self._protection.reaped:
                part.protect()
        self._now_ns, self._done = until_ns, done

    def _slow(self, until_ns: int, rounds: int) -> None:
        """Bend the clocks of the writers that faults slow, until their writes agree."""
        run_ns = (self._run_time.at_ns(until_ns) - self._run_time.at_ns(self._now_ns)) / rounds
        now = np.array([self._now_ns])
        start = {i: float(clock.at(now)[0]) for i, clock in self._slowed.items()}
        writes = (self._writes(until_ns) - self._done) / rounds
        for _ in range(SWEEPS):
            before = writes.copy()
            for i, clock in self._slowed.items():
                useful_ns = self._useful_ns(i, writes, run_ns)
                clock.bend(until_ns, start[i] + rounds * useful_ns)
                writes[i] = (self._writes_of(i, until_ns) - self._done[i]) / rounds
            if len(self._slowed) == 1 or np.allclose(writes, before, rtol=ROOT_ACCURACY, atol=0):
                break

    def _useful_ns(self, writer: int, writes: FloatArray, run_ns: float) -> float:
        """What faults leave of a stretch of run time, if the other writers write so much.

        A paced writer is taken to be busy all the time, so that what it has time for is never too much.
        """
        top_rate = self._writers[writer].pace.top_rate
        assert top_rate is not None
        cost_ns = self._protection.cost_ns / self._writers[writer].vcpus
        trial = writes.copy()

        def late_ns(useful_ns: float) -> float:
            trial[writer] = top_rate * (useful_ns / NS_PER_S)
            return useful_ns + cost_ns * self._pages[writer].faults(trial, writer) - run_ns

        return run_ns if writes[writer] <= 0 else root(late_ns, run_ns)

    def _writes(self, t_ns: int) -> FloatArray:
        return np.array([self._writes_of(i, t_ns) for i in range(len(self._writers))])

    def _writes_of(self, writer: int, t_ns: int) -> float:
        return float(self._writers[writer].writes(np.array([t_ns]), self.clocks[writer])[0])


def root(rising: Callable[[float], float], high: float) -> float:
    """Where a rising function becomes zero that is `-high` at 0 and not below zero at `high`.

    The secant's rule with a bracket (Illinois).
    """
    low, below, above = 0.0, rising(0.0), rising(high)
    accuracy, last = ROOT_ACCURACY * high, 0.0
    for _ in range(ROOT_STEPS):
        if above <= accuracy:
            return high
        middle = high - above * (high - low) / (above - below)
        value = rising(middle)
        if abs(value) <= accuracy or not low < middle < high:
            return middle
        if value > 0:
            high, above = middle, value
            below = below / 2 if last > 0 else below
        else:
            low, below = middle, value
            above = above / 2 if last < 0 else above
        last = math.copysign(1.0, value)
    return high
