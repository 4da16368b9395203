"""Do write faults take the time that a naive machine takes, page by page and write by write?

The machine has a protection bit and a log bit per page, as KVM does, and a vCPU per writer. Random
writers are compared with its mean over seeds, sequential writers with every step.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.guest.faults import Protection
from gpusim.guest.guest import Guest
from gpusim.guest.pace import CpuBound, Pace, Paced, Recorded
from gpusim.guest.pattern import Random, Sequential, hot_cold, uniform
from gpusim.guest.placement import contiguous
from gpusim.guest.run_time import RunTime
from gpusim.guest.useful_time import UsefulTime
from gpusim.guest.writer import Writer
from gpusim.layout import FloatArray, IntArray, Layout
from gpusim.units import NS_PER_MS, NS_PER_S
from tests.guest.naive import SLOW_MACHINE, History, active, histories, slices_of

MS = NS_PER_MS
LAYOUT = Layout([1500, 1000, 500])  # three chunks
COST_NS = 100_000
RATE = 20_000  # 50 us per write, so a fault costs as much as two writes
SEEDS = 12
KVM_MANUAL = Protection(cost_ns=COST_NS, lazy=True, from_start=False)
KVM_MANUAL_PROTECTED = Protection(cost_ns=COST_NS, lazy=True)
KVM_LEGACY = Protection(cost_ns=COST_NS)
DIRTY_RING = Protection(cost_ns=COST_NS, reaped=True)
SPLIT = {"splits": True, "split_cost_ns": 4.0 * COST_NS}
NOTHING_CLEARED = np.full(LAYOUT.chunks, -1, np.int64)


@dataclass
class Sync:
    """A sync, and the chunks cleared since the sync before: chunk -> ns."""

    at_ns: int
    cleared: dict[int, int]

    @property
    def times(self) -> IntArray:
        return np.array([self.cleared.get(chunk, -1) for chunk in range(LAYOUT.chunks)])


EAGER = [Sync(at_ns * MS, {}) for at_ns in (120, 180, 300, 460)]
LAZY = [
    Sync(150 * MS, {0: 20 * MS, 1: 70 * MS, 2: 110 * MS}),
    Sync(200 * MS, {0: 180 * MS}),
    Sync(320 * MS, {0: 210 * MS, 1: 230 * MS}),
    Sync(460 * MS, {0: 420 * MS, 1: 321 * MS, 2: 459 * MS}),
]


def writer(
    pattern: Random | Sequential, pages: int, pace: Pace | None = None, start: int = 0
) -> Writer:
    return Writer(
        name="w",
        pattern=pattern,
        pace=pace or CpuBound(RATE),
        placement=contiguous(start, pages),
        windows=None,
        throttled=True,
        vcpus=1,
    )


def after_each_sync(
    writers: Sequence[Writer], protection: Protection, syncs: Sequence[Sync]
) -> FloatArray:
    """Return the faults and the writes of each writer up to each sync."""
    guest = Guest(LAYOUT, writers, RunTime(), protection)
    found = []
    for sync in syncs:
        guest.settle(sync.at_ns, sync.times)
        now = np.array([sync.at_ns])
        done = [w.writes(now, c)[0] for w, c in zip(writers, guest.faults.clocks, strict=True)]
        found.append([guest.faults.count, *done])
    return np.array(found)


class Machine:
    """The naive machine."""

    def __init__(self, protection: Protection) -> None:
        pages = np.arange(LAYOUT.pages)
        self.chunk = np.searchsorted(LAYOUT.chunk_first, pages, side="right") - 1
        self.protection, self.faults = protection, 0
        self.protected = np.full(LAYOUT.pages, protection.from_start)
        self.log = ~self.protected
        self.unsplit = np.full(LAYOUT.pages, protection.splits)
        self.read = self.log.copy()  # the log at the last sync
        self.entries = 0  # faults since a ring was last empty
        self.holds: list[tuple[int, int]] = []
        self.in_rings: list[int] = []  # at each sync

    def run(self, picks: Sequence[Callable[[], int]], syncs: Sequence[Sync]) -> FloatArray:
        """Return the same as `after_each_sync`."""
        events = [(sync.at_ns, -1) for sync in syncs]
        events += [(at, chunk) for sync in syncs for chunk, at in sync.cleared.items()]
        if self.protection.reaped:
            events.append((self.protection.first_reap_ns, -2))
        events.sort()
        next_write, writes = [(0, i) for i in range(len(picks))], [0] * len(picks)
        found = []
        while events and events[0][0] <= syncs[-1].at_ns:
            at_ns, what = events.pop(0)
            while next_write[0][0] < at_ns:
                now, i = heapq.heappop(next_write)
                then = now + round(NS_PER_S / RATE) + self.write(picks[i]())
                heapq.heappush(next_write, (then, i))
                writes[i] += 1
            if what >= 0:
                self.clear(what)
            else:
                self.read = self.log.copy()
                self.protected |= not self.protection.lazy
                in_rings, self.entries = self.entries, 0
            if what == -2:
                held_ns = round(in_rings * self.protection.reset_ns)
                self.holds.append((at_ns, held_ns))
                bisect.insort(events, (at_ns + held_ns + NS_PER_S, -2))
            if what == -1:
                found.append([self.faults, *writes])
                self.in_rings.append(in_rings)
        return np.array(found, float)

    def write(self, page: int) -> int:
        """Write a page. Return the cost."""
        if not self.protected[page]:
            return 0
        splits = self.unsplit[page]
        self.protected[page], self.unsplit[page], self.log[page] = False, False, True
        self.faults, self.entries = self.faults + 1, self.entries + 1
        return int(self.protection.split_cost_ns if splits else self.protection.cost_ns)

    def clear(self, chunk: int) -> None:
        """Remove from the log what it held at the last sync, and protect it."""
        again = self.read & (self.chunk == chunk)
        self.log &= ~again
        self.protected |= again


def picker(pattern: Random, start: int, seed: int, writes: int = 40_000) -> Callable[[], int]:
    """Return a function that draws the pages of a random writer."""
    random = np.random.default_rng(seed)
    bands = random.choice(len(pattern.bands), writes, p=[band.share for band in pattern.bands])
    first = np.array([band.first for band in pattern.bands])[bands]
    length = np.array([band.last - band.first for band in pattern.bands])[bands]
    pages = iter((start + first + (random.random(writes) * length).astype(int)).tolist())
    return lambda: next(pages)


@pytest.mark.parametrize(
    ("protection", "syncs"),
    [(KVM_LEGACY, EAGER), (KVM_MANUAL, LAZY), (KVM_MANUAL_PROTECTED, LAZY)],
)
@pytest.mark.parametrize(
    "places",
    [
        [(uniform(2900), 0)],
        [(hot_cold(2000, 300, 0.8), 1000)],
        [(hot_cold(1800, 400, 0.7), 0), (uniform(2000), 1000)],  # they share 800 pages
    ],
)
def test_random_writers_are_the_mean_of_a_machine(
    places: list[tuple[Random, int]], protection: Protection, syncs: list[Sync]
) -> None:
    writers = [writer(p, p.bands[-1].last, start=start) for p, start in places]
    naive = np.mean(
        [
            Machine(protection).run(
                [picker(p, start, 100 * seed + i) for i, (p, start) in enumerate(places)], syncs
            )
            for seed in range(SEEDS)
        ],
        axis=0,
    )
    ours = after_each_sync(writers, protection, syncs)
    assert naive[-1, 0] > 1000  # faults take much of the time
    assert naive[-1, 1] < 0.95 * RATE * syncs[-1].at_ns / NS_PER_S
    assert ours == pytest.approx(naive, rel=0.02, abs=12)


@pytest.mark.parametrize(
    ("protection", "syncs"),
    [(KVM_LEGACY, EAGER), (KVM_MANUAL, LAZY), (KVM_MANUAL_PROTECTED, LAZY)],
)
@pytest.mark.parametrize(("pages", "first_write"), [(700, 0), (2900, 1400), (2200, 90_000)])
def test_a_sequential_writer_is_the_machine(
    pages: int, first_write: int, protection: Protection, syncs: list[Sync]
) -> None:
    """Exact except for the writes around a clear, which the machine does at the end of a write."""
    writes = itertools.count(first_write)
    naive = Machine(protection).run([lambda: next(writes) % pages], syncs)
    ours = after_each_sync([writer(Sequential(pages, 1, first_write), pages)], protection, syncs)
    assert ours == pytest.approx(naive, rel=0.01, abs=12)


@pytest.mark.parametrize(
    ("protection", "syncs"),
    [(KVM_LEGACY, EAGER), (KVM_MANUAL, LAZY), (KVM_MANUAL_PROTECTED, LAZY),
     (DIRTY_RING, [Sync(2 * NS_PER_S, {})])],
)  # fmt: skip
@pytest.mark.parametrize("is_random", [True, False])
def test_the_first_fault_of_a_page_splits(
    is_random: bool, protection: Protection, syncs: list[Sync]
) -> None:
    """It costs four times as much. Later faults of the page do not.

    The rounds of a dirty ring count as equal, although most splits are in the first one.
    """
    protection, writes = replace(protection, **SPLIT), itertools.count()
    pattern = uniform(2000) if is_random else Sequential(2000, 1, 0)
    naive = np.mean(
        [
            Machine(protection).run(
                [picker(uniform(2000), 0, seed) if is_random else lambda: next(writes) % 2000],
                syncs,
            )
            for seed in range(SEEDS if is_random else 1)
        ],
        axis=0,
    )
    ours = after_each_sync([writer(pattern, 2000)], protection, syncs)
    assert ours == pytest.approx(naive, rel=0.05 if protection.reaped else 0.02, abs=12)


def test_a_dirty_ring_is_reaped_every_second() -> None:
    """Two seconds without a sync cause twice the faults of one second."""
    pattern, syncs = uniform(2900), [Sync(2 * NS_PER_S, {})]
    naive = Machine(DIRTY_RING).run([picker(pattern, 0, 1)], syncs)
    ours = after_each_sync([writer(pattern, 2900)], DIRTY_RING, syncs)
    assert ours == pytest.approx(naive, rel=0.02)
    never = after_each_sync([writer(pattern, 2900)], KVM_LEGACY, syncs)
    assert ours[0, 0] > 1.9 * never[0, 0]


@pytest.mark.parametrize("pattern", [uniform(2900), Sequential(2900, 1, 700)])
@pytest.mark.parametrize("first_ms", [1, 400, 1000])
def test_the_reaper_holds_the_lock_for_each_page_of_the_last_second(
    pattern: Random | Sequential, first_ms: int
) -> None:
    """It sleeps for a second after each hold. A sync finds what came after the last reap."""
    protection = replace(DIRTY_RING, reset_ns=40_000.0, first_reap_ns=first_ms * MS)
    syncs = [Sync(at_ns * MS, {}) for at_ns in (1300, 2800, 9900)]
    writes = itertools.count(700)
    if isinstance(pattern, Random):
        pick = picker(pattern, 0, 1, writes=200_000)
    else:
        pick = lambda: next(writes) % 2900  # noqa: E731
    naive = Machine(protection)
    expected = naive.run([pick], syncs)
    guest = Guest(LAYOUT, [writer(pattern, 2900)], RunTime(), protection)
    reaper = guest.faults.reaper
    assert reaper is not None
    found, entries = [], []
    for sync in syncs:
        guest.faults.advance(sync.at_ns, sync.times)
        reaper.begin_sync()
        entries.append(guest.faults.protect())
        found.append(guest.faults.count)
        reaper.end_sync(sync.at_ns)
    assert found == pytest.approx(expected[:, 0], rel=0.02)
    assert entries == pytest.approx(naive.in_rings, rel=0.03, abs=12)
    holds = [
        (hold.first_ns + i * hold.every_ns, hold.held_ns)
        for hold in reaper.holds
        for i in range(hold.number)
    ]
    assert len(holds) == len(naive.holds)
    for (at_ns, held_ns), (naive_at_ns, naive_held_ns) in zip(holds, naive.holds, strict=True):
        assert at_ns == pytest.approx(naive_at_ns, abs=12 * MS)
        assert held_ns == pytest.approx(naive_held_ns, abs=4 * MS)


def test_reaps_between_syncs_are_few_steps() -> None:
    """A thousand seconds without a sync are about ten steps, and not a thousand."""
    protection = replace(DIRTY_RING, reset_ns=40_000.0)
    faults = Guest(LAYOUT, [writer(uniform(2900), 2900)], RunTime(), protection).faults
    faults.advance(1000 * NS_PER_S, NOTHING_CLEARED)
    assert faults.reaper is not None
    assert 850 < sum(hold.number for hold in faults.reaper.holds) < 950
    assert len(faults.reaper.holds) < 14


def exact_writes(rate: float, cost_s: float, pages: int, run_s: float) -> float:
    """Solve n / rate + cost x pages x (1 - exp(-n / pages)) = run_s for n with Lambert's W.

    With x = n / pages, t = rate x run_s / pages, a = cost x rate: x = t - a + W(a exp(a - t)). W
    lies between 0 and a. Bisection of W + ln(W) finds it with 40 digits.
    """
    with localcontext() as context:
        context.prec = 40
        a = Decimal(cost_s) * Decimal(rate)
        t = Decimal(rate) * Decimal(run_s) / pages
        low, high = Decimal(0), a
        for _ in range(150):
            middle = (low + high) / 2
            low, high = (middle, high) if middle + middle.ln() < a.ln() + a - t else (low, middle)
        return float((t - a + high) * pages)


@pytest.mark.parametrize("cost_ns", [1, 224, 50_000, 5_000_000, 10**9])
@pytest.mark.parametrize("run_ms", [1, 150, 4_000, 600_000])
def test_one_band_is_lamberts_w(cost_ns: int, run_ms: int) -> None:
    protection = Protection(cost_ns=cost_ns)
    found = after_each_sync([writer(uniform(3000), 3000)], protection, [Sync(run_ms * MS, {})])
    expected = exact_writes(RATE, cost_ns / 1e9, 3000, run_ms / 1e3)
    assert found[0, 1] == pytest.approx(expected, rel=1e-9)
    faults = 3000 * -np.expm1(-expected / 3000)
    assert found[0, 0] == pytest.approx(faults, rel=1e-9)


def test_faults_are_spread_over_the_vcpus() -> None:
    """Four vCPUs do four times the writes and faults of one."""
    one = after_each_sync([writer(uniform(750), 750)], KVM_LEGACY, EAGER)
    four = replace(writer(uniform(3000), 3000, CpuBound(4 * RATE)), vcpus=4)
    assert after_each_sync([four], KVM_LEGACY, EAGER) == pytest.approx(4 * one)


def test_writers_without_faults() -> None:
    """Device writes cause no faults. Faults of a recorded writer do not change its writes."""
    device = replace(writer(uniform(3000), 3000), throttled=False)
    found = after_each_sync([device], KVM_LEGACY, EAGER)
    assert found[-1].tolist() == [0, RATE * 0.46]
    record = writer(uniform(3000), 3000, Recorded(np.array([0, 9.0]), np.array([0, 9e4]), RATE))
    found = after_each_sync([record], KVM_LEGACY, EAGER)
    assert found[-1, 0] > 2500
    assert found[-1, 1] == pytest.approx(4600)


def test_a_paced_writer_has_what_time_is_left() -> None:
    """With spare time it does all its work. Otherwise it works like a CPU-bound writer."""
    syncs = [Sync(s * NS_PER_S, {}) for s in (1, 2, 3)]
    easy = writer(uniform(3000), 3000, Paced(RATE / 20, RATE))
    found = after_each_sync([easy], KVM_LEGACY, syncs)
    assert found[:, 1] == pytest.approx([1000, 2000, 3000])
    assert found[0, 0] == pytest.approx(3000 * -np.expm1(-1 / 3))
    busy = writer(uniform(3000), 3000, Paced(RATE, RATE))
    bound = after_each_sync([writer(uniform(3000), 3000)], KVM_LEGACY, syncs)
    assert after_each_sync([busy], KVM_LEGACY, syncs) == pytest.approx(bound)


def test_the_clock_has_breakpoints_at_window_edges() -> None:
    """A writer whose window opens in an interval writes as one that starts there."""
    late = replace(writer(uniform(3000), 3000), windows=active([(70 * MS, 150 * MS)]))
    other = replace(writer(uniform(3000), 3000), windows=active([(0, 80 * MS)]))
    found = after_each_sync([late], KVM_LEGACY, [Sync(300 * MS, {})])
    assert found == pytest.approx(after_each_sync([other], KVM_LEGACY, [Sync(300 * MS, {})]))


@st.composite
def schedules(draw: st.DrawFn) -> list[Sync]:
    at = sorted(draw(st.lists(st.integers(1, 2000), min_size=1, max_size=6, unique=True)))
    syncs = []
    for since, until in zip([0, *at[:-1]], at, strict=True):
        times = st.integers(since * MS, until * MS)
        syncs.append(Sync(until * MS, draw(st.dictionaries(st.integers(0, 2), times))))
    return syncs


PATTERNS = st.sampled_from([
    uniform(2900), hot_cold(3000, 7, 0.9), Sequential(2900, 3, 17), Sequential(40, 1, 0),
])  # fmt: skip
PROTECTIONS = st.sampled_from([KVM_LEGACY, KVM_MANUAL, KVM_MANUAL_PROTECTED, DIRTY_RING])


def pages_of(pattern: Random | Sequential) -> int:
    return pattern.pages if isinstance(pattern, Sequential) else pattern.bands[-1].last


@given(PATTERNS, PROTECTIONS, schedules(), histories(), st.floats(0.01, 1e8), st.booleans())
@settings(SLOW_MACHINE, max_examples=100)
def test_faults_and_useful_time_add_up(
    pattern: Random | Sequential,
    protection: Protection,
    syncs: list[Sync],
    history: History,
    cost_ns: float,
    splits: bool,
) -> None:
    """Under any throttle neither falls, and their sum is the run time."""
    run_time = RunTime()
    protection = replace(protection, cost_ns=cost_ns, splits=splits, split_cost_ns=3 * cost_ns)
    guest = Guest(LAYOUT, [writer(pattern, pages_of(pattern))], run_time, protection)
    history, useful_ns, faults = list(history), 0.0, 0.0
    for sync in syncs:
        while history and history[0][0] <= sync.at_ns:
            run_time.throttle(*history.pop(0))
        cleared = sync.times if protection.lazy else NOTHING_CLEARED
        guest.settle(sync.at_ns, cleared)
        now_ns = float(guest.faults.clocks[0].at(np.array([sync.at_ns]))[0])
        run_ns = run_time.at_ns(sync.at_ns)
        assert useful_ns <= now_ns <= run_ns
        assert faults <= guest.faults.count
        lost_ns = guest.faults.time_s * NS_PER_S
        assert now_ns + lost_ns == pytest.approx(run_ns, rel=1e-6, abs=1)
        if not splits:
            assert lost_ns == pytest.approx(cost_ns * guest.faults.count)
        useful_ns, faults = now_ns, guest.faults.count


@given(PATTERNS, PROTECTIONS, st.integers(1, 5000), st.integers(1, 5000))
def test_more_time_is_more_writes(
    pattern: Random | Sequential, protection: Protection, less_ms: int, more_ms: int
) -> None:
    one = writer(pattern, pages_of(pattern))
    found = [
        after_each_sync([one], protection, [Sync(ms * MS, {})])[0]
        for ms in sorted((less_ms, more_ms))
    ]
    assert (found[0] <= found[1] * (1 + 1e-9)).all()


@given(PATTERNS, PROTECTIONS, schedules())
def test_free_faults_change_no_write(
    pattern: Random | Sequential, protection: Protection, syncs: list[Sync]
) -> None:
    """Writes are equal to the bit, and faults are still counted."""
    free, plain = (
        Guest(LAYOUT, [writer(pattern, pages_of(pattern))], RunTime(), p)
        for p in (replace(protection, cost_ns=0.0), None)
    )
    since_ns = 0
    for sync in syncs:
        free.settle(sync.at_ns, sync.times if protection.lazy else NOTHING_CLEARED)
        ours, theirs = (g.writes(since_ns, sync.at_ns) for g in (free, plain))
        assert (ours.mean == theirs.mean).all()
        assert (ours.certain_first == theirs.certain_first).all()
        assert (ours.certain_last == theirs.certain_last).all()
        since_ns = sync.at_ns
    assert free.faults.time_s == 0
    assert protection is KVM_MANUAL or free.faults.count > 0


@given(histories(), st.dictionaries(st.integers(1, 3000), st.floats(0.05, 1), max_size=6),
       st.integers(0, 10**6), st.integers(0, 10**6), st.booleans(), st.booleans())  # fmt: skip
@settings(SLOW_MACHINE, max_examples=100)
def test_writes_ahead_are_the_writes_once_the_useful_time_is_set(
    history: History,
    bends: dict[int, float],
    rate: int,
    spare: int,
    windowed: bool,
    marked: bool,
) -> None:
    run_time, useful, mark = RunTime(), 0.0, None
    for at_ns, percent in history:
        run_time.throttle(at_ns, percent)
    clock = UsefulTime(run_time)
    windows = active(((300 * MS, 900 * MS), (2000 * MS, 9000 * MS)) if windowed else None)
    before_ns = 0
    for at in sorted(bends):
        run_ns = run_time.at_ns(at * MS) - run_time.at_ns(before_ns)
        tries = [
            (pace, own, pace.ahead(at * MS, clock, windows, own))
            for pace, own in ((Paced(rate, rate + spare), mark), (CpuBound(rate), None))
        ]
        guesses = [useful + share * run_ns for share in (1.0, bends[at])]
        found = [[writes(guess) for guess in guesses] for *_, writes in tries]
        for place, guess in enumerate(guesses):
            clock.set_at(at * MS, guess)
            now = np.array([at * MS])
            for (pace, own, _), ours in zip(tries, found, strict=True):
                assert ours[place] == pace.writes(now, clock, windows, own)[0]
                assert ours[place] == pace.writes_by(at * MS, clock, windows, own)
        useful, before_ns = guesses[-1], at * MS
        if marked:
            mark = Paced(rate, rate + spare).mark(at * MS, clock, windows, mark)


@given(histories(), st.lists(st.tuples(st.integers(1, 3000), st.floats(0.05, 1)), max_size=6),
       st.integers(0, 10**6), st.integers(1, 10**6), st.booleans())  # fmt: skip
@settings(SLOW_MACHINE, max_examples=150)
def test_a_paced_writer_on_useful_time_is_its_queue(
    history: History, bends: list[tuple[int, float]], rate: int, spare: int, windowed: bool
) -> None:
    """The closed form is the smallest slack over all borders."""
    run_time, useful = RunTime(), 0.0
    for at_ns, percent in history:
        run_time.throttle(at_ns, percent)
    clock = UsefulTime(run_time)
    windows = ((300 * MS, 900 * MS), (2000 * MS, 9000 * MS)) if windowed else None
    edges = [edge for window in windows or () for edge in window]
    knots = {at * MS: share for at, share in bends} | dict.fromkeys(edges, 0.5)
    before_ns = 0
    for at_ns in sorted(knots):
        useful += knots[at_ns] * (run_time.at_ns(at_ns) - run_time.at_ns(before_ns))
        clock.set_at(at_ns, useful)
        before_ns = at_ns
    times = np.arange(0, 4000, 37) * MS
    ticks = [t for pair in slices_of(history, 4 * NS_PER_S) for t in pair]
    every = np.array(sorted({0, *knots, *ticks, *times.tolist()}))
    pace = Paced(rate, rate + spare)
    slack = pace._slack(every, clock, active(windows))
    least = np.minimum.accumulate(slack)[np.searchsorted(every, times)]
    allowed = (rate + spare) * clock.at(times) / NS_PER_S
    assert pace.writes(times, clock, active(windows)) == pytest.approx(
        allowed + least, rel=0, abs=1e-9 * (1 + 4 * (rate + spare))
    )
