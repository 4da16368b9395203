"""Write faults: the first write to a protected page costs a fault and vCPU time.

The first write to a protected page leaves the guest's fast path. Under KVM it is a write fault or
an entry of Intel's page-modification log, under TCG the slow path of the TLB. Further writes are
free. QEMU and KVM protect these pages:

- Eager tracking protects all pages at every sync. With a dirty ring a thread also protects them once
  per second (reaper.py).
- Lazy tracking protects pages at a chunk's remote clear: those that its log held at the last sync.
  With KVM_DIRTY_LOG_INITIALLY_SET no page is protected before its chunk's first clear.

If KVM does not split huge pages beforehand, then the first fault of each page splits and is dearer.
Later faults of the page cost as elsewhere.

The memory may take fewer page writes than the vCPUs want. Then the writer's clock is slowed in the
same way, and faults cost nothing until the vCPUs want less than the memory takes.

A vCPU in a fault does not write, and so causes no further fault. Let n be the writes between two
syncs. They take n / rate + cost / vCPUs x faults(n) of run time. This function rises with n, so
there is one root to find.

KVM serves a part of each fault under a lock, one vCPU at a time. So the parts of all faults fit into
the run time one after the other. If they do not, then each fault also waits for the lock, and all
faults wait equally long. The wait is the root that fills the run time. If N vCPUs only fault, then
a fault takes the greater of its cost alone and N times its serial part. This is the asymptotic
bound of a closed queueing network: Denning and Buzen, "The Operational Analysis of Queueing Network
Models", ACM Computing Surveys 10(3), 1978.

Source: Linux arch/x86/kvm/mmu/mmu.c:fast_page_fault and arch/x86/kvm/vmx/vmx.c:handle_pml_full.
QEMU accel/tcg/cputlb.c:notdirty_write [7.2 to 10.1]. Eager: KVM_GET_DIRTY_LOG (kvm_legacy),
physical_memory_test_and_clear_dirty (tcg), accel/kvm/kvm-all.c:kvm_dirty_ring_reap. Lazy:
accel/kvm/kvm-all.c:kvm_log_clear_one_slot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gpusim.guest.pattern import Sequential
from gpusim.guest.reaper import Reaper
from gpusim.guest.run_time import RunTime, VcpuClock
from gpusim.guest.useful_time import UsefulTime
from gpusim.guest.windows import Mark
from gpusim.guest.writer import Writer
from gpusim.layout import FloatArray, IntArray, among
from gpusim.units import NS_PER_S
from gpusim.wall_limit import NO_LIMIT, WallLimit

BATCHES = 3  # clears between two syncs form batches, each at the time of its middle clear
SHORT_NS = 10 * NS_PER_S  # an estimate needs one batch between syncs that are no further apart
ROOT_STEPS, ROOT_ACCURACY = 100, 1e-12
WAIT_ACCURACY = 1e-9  # of the lock's time. Each try solves for all writers
SWEEPS = 50  # iterations over writers that share pages
KEPT_MARKS = 8  # of each writer. A draw begins at one of the last two
MOST_EDGES = 16  # of a writer between two syncs. With more, its windows are spread evenly


@dataclass(frozen=True, kw_only=True)
class Protection:
    """When pages are protected, and the cost of the first write to a protected page.

    Attributes:
        cost_ns: vCPU time of a fault that waits for no other vCPU.
        serial_ns: the part of cost_ns that one vCPU spends at a time, under KVM's mmu_lock.
        splits: the first fault of a page splits a huge page. It costs the next two instead.
        split_cost_ns, split_serial_ns: cost_ns and serial_ns of such a fault.
        lazy: pages are protected at their chunk's clear, not at the sync.
        from_start: all pages are protected before the first sync or clear.
        reaped: all pages are also protected once per second (dirty ring).
        reset_ns: with a dirty ring, the time to protect a page again.
        first_reap_ns: with a dirty ring, when the reaper first wakes, in the VM's time.
    """

    cost_ns: float = 0.0
    serial_ns: float = 0.0
    splits: bool = False
    split_cost_ns: float = 0.0
    split_serial_ns: float = 0.0
    lazy: bool = False
    from_start: bool = True
    reaped: bool = False
    reset_ns: float = 0.0
    first_reap_ns: int = NS_PER_S


class Tracked(Protocol):
    """The pages of all random writers or of one sequential writer, and which are protected."""

    @property
    def is_shared(self) -> bool:
        """Whether several writers may write one page, so that each one's faults depend on the others."""

    def move(self, since_ns: int, until_ns: int) -> None:
        """Move working sets to where they are, on average, in an interval."""

    def faults(self, writes: FloatArray, writer: int) -> float:
        """Return the faults of one writer if all writers write from now on.

        Args:
            writes: float64 [writers], writes of each writer.
            writer: the writer whose faults to count.
        """

    def splits(self, writes: FloatArray, writer: int, rounds: int) -> float:
        """Return how many of these faults are the first of their page, as a mean of equal rounds.

        Args:
            writes: float64 [writers], writes of each writer in a round.
            writer: the writer whose faults to count.
            rounds: number of rounds. Before each of them all pages are protected.
        """

    def write(self, writes: FloatArray, rounds: int) -> tuple[float, float]:
        """Let all writers write. Return the faults and the splits of all of them in a round.

        Args:
            writes: float64 [writers], writes of each writer in a round.
            rounds: number of rounds. The pages are left as after the last one.
        """

    def clear(self, chunks: IntArray) -> None:
        """Lazy tracking: clear chunks. It protects what their log held at the last sync."""

    def protect(self) -> None:
        """Eager tracking: protect all pages."""

    def sync(self) -> None:
        """Lazy tracking: read the log. It protects no page yet."""


class RandomPages:
    """The pages of random writers. Cells of one chunk with equal densities form a group.

    Args:
        chunk, pages: int64 [cells], chunk and pages of each cell.
        density: for each writer of the guest, float64 [cells], its share of writes per page. 0 if
            its writes are not tracked or are sequential.
        from_start: all pages are protected before the first sync or clear.
        lazy: each chunk has its own groups.
        moving: writer -> a function that returns its density in an interval. Its working set moves.
        splits: count the pages that never faulted.
        limit: is asked for each writer.

    Attributes:
        is_shared: see Tracked.
    """

    def __init__(
        self,
        chunk: IntArray,
        pages: IntArray,
        density: Sequence[FloatArray],
        *,
        from_start: bool,
        lazy: bool,
        moving: Mapping[int, Callable[[int, int], FloatArray]] | None = None,
        splits: bool = False,
        limit: WallLimit = NO_LIMIT,
    ) -> None:
        self._moving = moving or {}
        kind, example = np.zeros(len(chunk), np.int64), np.zeros(0, np.int64)
        for column in density:
            limit.check()
            values, index = np.unique(column, return_inverse=True)
            _, example, kind = np.unique(
                kind * len(values) + index, return_index=True, return_inverse=True
            )
        if self._moving:  # each cell differs from its neighbours at some time
            kind = example = np.arange(len(chunk))
        self._example = example
        kinds = max(1, len(example))
        group, index = np.unique(chunk * lazy * kinds + kind, return_inverse=True)
        self._chunk, self._kind = group // kinds, group % kinds
        self._pages = np.bincount(index, weights=pages, minlength=len(group))
        self._density = np.zeros((len(example), len(density)))
        for writer, column in enumerate(density):
            self._density[:, writer] = column[example]
        self._protected = np.full(len(group), float(from_start))  # share of each group's pages
        self._at_sync = self._protected.copy()
        self._is_new = np.full(len(group), not from_start)  # no page was ever protected
        # Share of pages that are protected and never faulted.
        self._unsplit = self._protected.copy() if splits else np.zeros(len(group))
        self._splits = splits
        self.is_shared = bool(self._moving) or bool(
            (np.count_nonzero(self._density, axis=1) > 1).any()
        )
        self._add_up()

    def move(self, since_ns: int, until_ns: int) -> None:
        for writer, density in self._moving.items():
            self._density[:, writer] = density(since_ns, until_ns)[self._example]

    def faults(self, writes: FloatArray, writer: int) -> float:
        """Return the faults of one writer, which has its share of a kind's first writes."""
        return self._first_writes(writes, writer, self._of_kind, 1)

    def splits(self, writes: FloatArray, writer: int, rounds: int) -> float:
        return self._first_writes(writes, writer, self._unsplit_of_kind, rounds) / rounds

    def write(self, writes: FloatArray, rounds: int) -> tuple[float, float]:
        written = -np.expm1(-(self._density @ writes))  # share of each kind's pages
        faults, splits = float(self._of_kind @ written), 0.0
        self._protected *= (1 - written)[self._kind]
        self._of_kind *= 1 - written
        if self._splits:
            ever = -np.expm1(-rounds * (self._density @ writes))
            splits = float(self._unsplit_of_kind @ ever) / rounds
            self._unsplit *= (1 - ever)[self._kind]
            self._unsplit_of_kind *= 1 - ever
        return faults, splits

    def clear(self, chunks: IntArray) -> None:
        mine = among(self._chunk, chunks)
        self._protected[mine] += 1 - self._at_sync[mine]
        if self._splits:
            self._unsplit[mine & self._is_new] = 1.0
            self._is_new[mine] = False
        self._add_up()

    def protect(self) -> None:
        self._protected[:] = 1.0
        self._add_up()

    def sync(self) -> None:
        self._at_sync = self._protected.copy()

    def _first_writes(
        self, writes: FloatArray, writer: int, pages: FloatArray, rounds: int
    ) -> float:
        """Return one writer's share of the first writes to some pages of each kind."""
        if not writes[writer]:
            return 0.0
        mean = rounds * (self._density @ writes)
        if mean.all():
            first = -np.expm1(-mean) / mean
        else:
            first = np.divide(-np.expm1(-mean), mean, out=np.ones_like(mean), where=mean > 0)
        return float(rounds * writes[writer] * (pages * self._density[:, writer]) @ first)

    def _add_up(self) -> None:
        """Sum the protected and the unsplit pages of each kind over all chunks."""
        self._of_kind = self._sum(self._protected)
        self._unsplit_of_kind = self._sum(self._unsplit)

    def _sum(self, share: FloatArray) -> FloatArray:
        kinds = np.bincount(self._kind, self._pages * share, minlength=len(self._density))
        return kinds.astype(np.float64)  # bincount returns integers if there is no group


class SequentialPages:
    """The pages of one sequential writer, in pieces of a thread's share.

    A page of a piece faults at its first visit after the piece was protected. The state is an
    interval of a thread's write counts for each piece: visits inside it are first visits.

    Args:
        pattern: the writer's pattern.
        first, last, share: int64 [pieces], a piece's pages in its thread's share, and pages of the
            share.
        chunk: int64 [pieces], chunk of each piece.
        writer: index of the writer.
        from_start: all pages are protected before the first sync or clear.
        splits: count the pages that never faulted.
        pages_together: pages that are protected as one, so that the first visit to one faults.
    """

    is_shared = False

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
        splits: bool = False,
        pages_together: int = 1,
    ) -> None:
        self._together = pages_together
        # As floats, so that numpy converts none of them for each trial.
        self._first, self._length = first.astype(np.float64), (last - first).astype(np.float64)
        self._share, self._chunk = share.astype(np.float64), chunk
        self._shares, self._share_of = np.unique(self._share, return_inverse=True)
        self._threads, self._writer = pattern.threads, writer
        self._done = self._at_sync = float(pattern.first_write)  # writes of each thread
        self._since = np.full(len(self._first), self._done)
        self._until: FloatArray = self._since + self._share * from_start
        self._is_new = np.full(len(self._first), not from_start)  # no page was ever protected
        self._split_since, self._split_until = self._since.copy(), self._until.copy()
        self._splits = splits
        # What _visits_before returned, by its argument, until the next write, clear or protection.
        self._visits_by_now: dict[int, FloatArray] = {}

    def move(self, since_ns: int, until_ns: int) -> None:
        """Do nothing, because a sequential writer's set stays."""

    def faults(self, writes: FloatArray, writer: int) -> float:
        return self._visits_between(self._since, self._until, writes[writer])

    def splits(self, writes: FloatArray, writer: int, rounds: int) -> float:
        if not self._splits:
            return 0.0
        since, until = self._split_since, self._split_until
        return self._visits_between(since, until, rounds * writes[writer]) / rounds

    def write(self, writes: FloatArray, rounds: int) -> tuple[float, float]:
        faults = self.faults(writes, self._writer)
        splits = self.splits(writes, self._writer, rounds)
        self._visits_by_now.clear()
        self._done += rounds * writes[self._writer] / self._threads
        return faults, splits

    def clear(self, chunks: IntArray) -> None:
        """Protect cleared pieces, except pages that faulted after the last sync read its log."""
        self._visits_by_now.clear()
        mine = among(self._chunk, chunks)
        faulted = self._until > self._at_sync
        end = np.where(faulted, self._at_sync, self._done) + self._share
        self._since[mine], self._until[mine] = self._done, end[mine]
        first = mine & self._is_new
        self._split_since[first], self._split_until[first] = self._done, end[first]
        self._is_new[mine] = False

    def protect(self) -> None:
        self._visits_by_now.clear()
        self._since[:] = self._done
        self._until = self._since + self._share

    def sync(self) -> None:
        self._at_sync = self._done

    def _visits_between(self, since: FloatArray, until: FloatArray, writes: float) -> float:
        """Return the visits of the next writes that lie between write counts of each piece."""
        if not writes:
            return 0.0
        done = self._done + writes / self._threads
        late = self._visits(done)
        early = self._visits_before(since)
        ended = ((until < done) & (until > self._done)).nonzero()[0]
        if len(ended):
            late[ended] = self._visits(until[ended], ended)
        late[until <= self._done] = 0.0  # all visited
        late -= early
        return float(np.maximum(late, 0, out=late).sum()) / self._together

    def _visits_before(self, since: FloatArray) -> FloatArray:
        """Return the visits by now, or by write counts if they are later. It keeps its answers.

        Args:
            since: one of this object's arrays.
        """
        if id(since) not in self._visits_by_now:
            visits = self._visits(self._done)
            began = np.flatnonzero(since > self._done)
            visits[began] = self._visits(since[began], began)
            self._visits_by_now[id(since)] = visits
        return self._visits_by_now[id(since)]

    def _visits(self, count: FloatArray | float, pieces: IntArray | None = None) -> FloatArray:
        """Return the visits to pieces among the first `count` writes of their thread.

        Args:
            count: the same for all pieces, or float64 [pieces].
            pieces: int64, indexes. None: all pieces.
        """
        if pieces is None:  # few shares differ, and a division takes most of the time
            rounds, place = np.divmod(count, self._shares)
            if len(self._shares) > 1:
                rounds, place = rounds[self._share_of], place[self._share_of]
            first, length = self._first, self._length
        else:
            rounds, place = np.divmod(count, self._share[pieces])
            first, length = self._first[pieces], self._length[pieces]
        visits = np.asarray(place - first)
        np.maximum(visits, 0, out=visits)
        np.minimum(visits, length, out=visits)
        visits += rounds * length
        return visits


@dataclass(kw_only=True)
class _Interval:
    """The time from now on to the next sync or clear, while the slowed writers are adjusted.

    Attributes:
        until_ns: its end.
        rounds: it consists of so many equal rounds.
        run_ns: run time of a round.
        start_ns, useful_ns: useful time of each slowed writer by its beginning and by its end.
        writes_by: the page writes of each slowed writer by its end, as a function of useful time.
        done: float64 [writers], page writes by its end.
    """

    until_ns: int
    rounds: int
    run_ns: float
    start_ns: dict[int, float]
    useful_ns: dict[int, float]
    writes_by: dict[int, Callable[[float], float]]
    done: FloatArray


class Faults:
    """The faults of a guest's writers, and the time that they take.

    Args:
        protection: when pages are protected, and what a fault costs.
        writers: the writers of the guest.
        pages: the pages of each writer. Random writers share one object.
        run_time: run time of the vCPUs.
        limit: is asked for each writer.
        joins_clears: for estimates. If two syncs are at most SHORT_NS apart, then the clears between
            them form one batch.

    Attributes:
        clocks: the clock of each writer: run time, or run time without faults. Faults do not slow a
            recorded pace.
        count: number of faults so far.
        reaper: empties the dirty rings. None: there are none.
        time_s: vCPU-seconds of all faults so far, with their waits for the lock.
    """

    def __init__(
        self,
        protection: Protection,
        writers: Sequence[Writer],
        pages: Sequence[Tracked],
        run_time: RunTime,
        limit: WallLimit = NO_LIMIT,
        *,
        joins_clears: bool = False,
    ) -> None:
        self._limit, self._joins_clears = limit, joins_clears
        self._protection, self._writers, self._pages = protection, writers, pages
        self._run_time = run_time
        self._parts = list({id(part): part for part in pages}.values())
        self._shares_pages = any(part.is_shared for part in self._parts)
        self._slowed = {
            i: UsefulTime(run_time)
            for i, w in enumerate(writers)
            if w.throttled
            and w.pace.top_rate is not None
            and (
                ((protection.cost_ns or protection.splits) and w.vcpus) or w.memory_rate is not None
            )
        }
        self.clocks: list[VcpuClock] = [self._slowed.get(i, run_time) for i in range(len(writers))]
        self.count = self.time_s = 0.0
        self._unprotected = 0.0  # faults since all pages were last protected
        self.reaper: Reaper | None = None
        if protection.reaped:
            self.reaper = Reaper(protection.first_reap_ns, protection.reset_ns)
        vcpus = sum(writers[i].writing_vcpus for i in self._slowed)
        longest_ns = protection.serial_ns * vcpus - protection.cost_ns
        if protection.splits:
            split_ns = protection.split_serial_ns * vcpus - protection.split_cost_ns
            longest_ns = max(longest_ns, split_ns)
        self._longest_wait_ns = longest_ns
        self._marks: list[list[Mark | None]] = [[None] for _ in writers]
        self._now_ns, self._done = 0, self._writes(0)

    def settle(self, now_ns: int, cleared_at_ns: IntArray) -> None:
        """Bring faults and clocks up to a sync that protects now. Arguments are those of `advance`."""
        self.advance(now_ns, cleared_at_ns)
        self.protect()

    def advance(self, now_ns: int, cleared_at_ns: IntArray) -> None:
        """Bring faults and clocks up to a time.

        Args:
            now_ns: the time.
            cleared_at_ns: int64 [chunks], when each chunk was cleared since the last call. -1 if it
                was not cleared.
        """
        for stop_ns, cleared in self._stops(now_ns, cleared_at_ns):
            self._advance(stop_ns)
            for part in self._parts if len(cleared) else ():
                part.clear(cleared)
        for i, marks in enumerate(self._marks):
            mark = self._writers[i].mark(now_ns, self.clocks[i], marks[-1])
            self._marks[i] = [*marks[1 - KEPT_MARKS :], mark]

    def protect(self) -> float:
        """Let a sync read the log now. Return the pages that eager tracking protects again."""
        for part in self._parts:
            if self._protection.lazy:
                part.sync()
            else:
                part.protect()
        pages, self._unprotected = self._unprotected, 0.0
        return pages

    def mark_before(self, t_ns: int, writer: int) -> Mark | None:
        """Return what a writer had reached when `advance` was last called for an earlier time.

        None: no such time is known any more.
        """
        known = [mark for mark in self._marks[writer] if mark is not None and mark.t_ns <= t_ns]
        return known[-1] if known else None

    def _stops(self, now_ns: int, cleared_at_ns: IntArray) -> list[tuple[int, IntArray]]:
        """The times up to now at which a window opens or closes, or chunks are cleared."""
        edges: set[int] = set()
        for windows in {w.windows for w in self._writers if w.windows is not None}:
            own = windows.edges(self._now_ns, now_ns).tolist()
            if not windows.cycle_ns or len(own) <= MOST_EDGES:
                edges.update(own)
        nothing = np.zeros(0, np.int64)
        stops = [(edge, nothing) for edge in edges]
        chunks = np.flatnonzero(cleared_at_ns >= 0)
        chunks = chunks[np.argsort(cleared_at_ns[chunks], kind="stable")]
        batches = 1 if self._joins_clears and now_ns - self._now_ns <= SHORT_NS else BATCHES
        for batch in np.array_split(chunks, min(batches, len(chunks)) or 1):
            if len(batch):
                stops.append((min(int(cleared_at_ns[batch[len(batch) // 2]]), now_ns), batch))
        return [*sorted(stops, key=lambda stop: stop[0]), (now_ns, nothing)]

    def _advance(self, until_ns: int) -> None:
        """Go on to a time without a sync or a clear. The reaper protects all pages on the way.

        It holds the big lock meanwhile, for which the throttle waits.
        """
        reaper = self.reaper
        while reaper is not None and reaper.wakes_ns <= until_ns:
            at_ns, rounds = reaper.next_reaps(self._now_ns, until_ns)
            self._go_on(at_ns, rounds)
            reaper.reap(at_ns, rounds, self.protect() / rounds)
            if reaper.held_until_ns > at_ns:
                self._run_time.hold(at_ns)
                self._run_time.release(reaper.held_until_ns, by_main_loop=False)
        self._go_on(until_ns)

    def _go_on(self, until_ns: int, rounds: int = 1) -> None:
        """Go on to a time in equal rounds. All pages are protected after each but the last."""
        if until_ns <= self._now_ns:
            return
        for part in self._parts:
            part.move(self._now_ns, until_ns)
        if self._slowed:
            wait_ns, done = self._slow(until_ns, rounds)
        else:
            wait_ns, done = 0.0, self._writes(until_ns)
        writes = np.maximum(done - self._done, 0) / rounds  # rounding can give -1e-12
        for part in self._parts:
            faults, splits = (rounds * count for count in part.write(writes, rounds))
            self.count += faults
            self._unprotected += faults
            self.time_s += (self._cost_ns(faults, splits) + faults * wait_ns) / NS_PER_S
        self._now_ns, self._done = until_ns, done

    def _slow(self, until_ns: int, rounds: int) -> tuple[float, FloatArray]:
        """Adjust the clocks of the slowed writers up to a time.

        Returns:
            A fault's wait for the lock, ns. Float64 [writers], the page writes by the time.
        """
        passed_ns = self._run_time.at_ns(until_ns) - self._run_time.at_ns(self._now_ns)
        start_ns = {i: clock.by_last_ns for i, clock in self._slowed.items()}
        interval = _Interval(
            until_ns=until_ns,
            rounds=rounds,
            run_ns=passed_ns / rounds,
            start_ns=start_ns,
            useful_ns={i: by_ns + passed_ns for i, by_ns in start_ns.items()},
            writes_by={
                i: self._writers[i].writes_ahead(until_ns, clock, self.mark_before(until_ns, i))
                for i, clock in self._slowed.items()
            },
            done=np.zeros(len(self._writers)),
        )
        for i in range(len(self._writers)):
            interval.done[i] = (
                interval.writes_by[i](interval.useful_ns[i])
                if i in self._slowed
                else self._writes_of(i, until_ns)
            )
        wait_ns = self._lock_wait_ns(interval)
        for i, clock in self._slowed.items():
            clock.set_at(until_ns, interval.useful_ns[i])
        return wait_ns, interval.done

    def _lock_wait_ns(self, interval: _Interval) -> float:
        """Adjust the writers. Return a fault's wait for the lock, ns."""

        def locked_ns(wait_ns: float) -> float:
            """Return the time that the lock is held if each fault waits so long."""
            writes, serial_ns = self._adjust(interval, wait_ns), 0.0
            for i, pages in enumerate(self._pages):
                serial_ns += self._protection.serial_ns * pages.faults(writes, i)
                if self._protection.splits:
                    dearer_ns = self._protection.split_serial_ns - self._protection.serial_ns
                    serial_ns += dearer_ns * pages.splits(writes, i, interval.rounds)
            return serial_ns

        longest_ns, run_ns = self._longest_wait_ns, interval.run_ns
        if longest_ns <= 0 or run_ns <= 0:
            self._adjust(interval, 0.0)
            return 0.0
        if locked_ns(0.0) <= run_ns:
            return 0.0
        # 1 / locked_ns is nearly a straight line, and root() wants values of its argument's size.
        wait_ns = root(
            lambda one: longest_ns * (run_ns / locked_ns(one) - 1), longest_ns, WAIT_ACCURACY
        )
        locked_ns(wait_ns)
        return wait_ns

    def _adjust(self, interval: _Interval, wait_ns: float) -> FloatArray:
        """Adjust the useful times until the writers agree, and return their writes in one round.

        Args:
            interval: its useful times and writes change.
            wait_ns: how long a fault waits for the lock.
        """
        until_ns, rounds, done = interval.until_ns, interval.rounds, interval.done
        writes = (done - self._done) / rounds
        for _ in range(SWEEPS):
            before = writes.tolist()
            for i in self._slowed:
                busy = self._busy_share(i, until_ns)
                useful_ns = self._useful_ns(i, writes, rounds, busy * interval.run_ns, wait_ns)
                round_ns = busy * (until_ns - self._now_ns) / rounds
                useful_ns = min(useful_ns, self._memory_ns(i, round_ns)) / busy
                interval.useful_ns[i] = interval.start_ns[i] + rounds * useful_ns
                done[i] = interval.writes_by[i](interval.useful_ns[i])
                writes[i] = (done[i] - self._done[i]) / rounds
            is_alone = len(self._slowed) == 1 or not self._shares_pages
            if is_alone or not _differ(writes, before):
                break
        return writes

    def _busy_share(self, writer: int, until_ns: int) -> float:
        """The share of the time from now on in which a writer is active. 1 if it never is."""
        windows = self._writers[writer].windows
        if windows is None or not windows.cycle_ns:
            return 1.0  # an interval has no edge inside
        low, high = windows.active_ns(np.array([self._now_ns, until_ns])).tolist()
        return (high - low) / (until_ns - self._now_ns) or 1.0

    def _memory_ns(self, writer: int, time_ns: float) -> float:
        """The useful time whose writes the memory takes in some time, which goes on in a sleep.

        The caches hold what the vCPUs write in the run slices, and the memory takes it in the
        sleeps. So the limit holds for the mean over a slice.
        """
        rate, top_rate = self._writers[writer].memory_rate, self._writers[writer].pace.top_rate
        return math.inf if rate is None or not top_rate else time_ns * rate / top_rate

    def _useful_ns(
        self, writer: int, writes: FloatArray, rounds: int, run_ns: float, wait_ns: float
    ) -> float:
        """Run time without faults, given the writes of the other writers.

        The method assumes that a paced writer is always busy, so that the result is never too
        large.
        """
        top_rate = self._writers[writer].pace.top_rate
        assert top_rate is not None
        vcpus, pages = self._writers[writer].writing_vcpus or math.inf, self._pages[writer]
        splits, trial = self._protection.splits, writes.copy()

        def late_ns(useful_ns: float) -> float:
            self._limit.check()
            trial[writer] = top_rate * (useful_ns / NS_PER_S)
            faults = pages.faults(trial, writer)
            split = pages.splits(trial, writer, rounds) if splits else 0.0
            return useful_ns + (self._cost_ns(faults, split) + faults * wait_ns) / vcpus - run_ns

        return run_ns if writes[writer] <= 0 else root(late_ns, run_ns, below=-run_ns)

    def _cost_ns(self, faults: float, splits: float) -> float:
        """Return the vCPU time of faults, some of which split, without their waits."""
        dearer_ns = self._protection.split_cost_ns - self._protection.cost_ns
        return self._protection.cost_ns * faults + dearer_ns * splits

    def _writes(self, t_ns: int) -> FloatArray:
        return np.array([self._writes_of(i, t_ns) for i in range(len(self._writers))])

    def _writes_of(self, writer: int, t_ns: int) -> float:
        self._limit.check()
        mark = self.mark_before(t_ns, writer)
        return self._writers[writer].writes_by(t_ns, self.clocks[writer], mark)


def _differ(writes: FloatArray, before: Sequence[float]) -> bool:
    """Whether writes changed by more than rounding."""
    return any(
        abs(now - then) > ROOT_ACCURACY * abs(then)
        for now, then in zip(writes.tolist(), before, strict=True)
    )


def root(
    rising: Callable[[float], float],
    high: float,
    accuracy: float = ROOT_ACCURACY,
    *,
    below: float | None = None,
) -> float:
    """Return the zero of a rising function by the Illinois variant of regula falsi.

    Args:
        rising: the function. It is below 0 at 0, and 0 or more at `high`.
        high: upper bound of the zero.
        accuracy: of the function's value at the result, relative to `high`.
        below: the function's value at 0, if the caller knows it.
    """
    low, below = 0.0, rising(0.0) if below is None else below
    above = rising(high)
    accuracy, last = accuracy * high, 0.0
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
