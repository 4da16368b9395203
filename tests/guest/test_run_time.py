"""Is vCPU run time what QEMU's throttle leaves, at every nanosecond and for every history?

One reference goes from tick to tick without the closed form. The other one, TickedRunTime, has a
timer for each tick.
"""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.engine.clock import Clock
from gpusim.guest.latency import WakeupLatency
from gpusim.guest.run_time import RunTime, WallTime, slice_ns
from gpusim.guest.useful_time import UsefulTime
from gpusim.stream import Purpose, Stream
from gpusim.units import NEVER_NS, NS_PER_MS, NS_PER_S
from tests.guest.naive import SLOW_MACHINE, History, histories, slices_of
from tests.guest.ticked_run_time import TickedRunTime

DOUBLE_NS = 2  # error of a slice by C's doubles and its extra 1 ns
PERCENTS = range(1, 100)

MS = NS_PER_MS
TABLE = {  # sleep and period in ms (cpu_throttle_thread, cpu_throttle_timer_tick)
    20: (2.5, 12.5),
    30: (4.29, 14.29),
    50: (10, 20),
    70: (23.3, 33.3),
    90: (90, 100),
    99: (990, 1000),
}


def latency(mean_ns: int, seed: int) -> WakeupLatency:
    return WakeupLatency(mean_ns, Stream(seed, 0, Purpose.THROTTLE_LATENCY))


def closed_form(history: History) -> RunTime:
    run_time = RunTime()
    for at_ns, percent in history:
        run_time.throttle(at_ns, percent)
    return run_time


def times_around(history: History, extra: list[int]) -> list[int]:
    """Return times around changes, ticks and wake-ups, 1 ns before and after each."""
    end = (history[-1][0] if history else 0) + 3 * NS_PER_S
    marks = {0, end, *extra, *(at for at, _ in history)}
    for tick, wake in slices_of(history, end)[:60]:
        marks |= {tick, wake}
    return sorted({max(0, mark + d) for mark in marks for d in (-1, 0, 1)})


@pytest.mark.parametrize("percent", TABLE)
def test_slices_of_the_table(percent: int) -> None:
    period, sleep = slice_ns(percent)
    assert sleep / MS == pytest.approx(TABLE[percent][0], rel=2e-3)
    assert period / MS == pytest.approx(TABLE[percent][1], rel=2e-3)


def test_slices_are_those_of_c_doubles() -> None:
    """At 20 % a sleep is 2.5 ms + 1 ns. At 99 % the period is 1 ns shorter, by rounding."""
    assert slice_ns(20) == (12_500_000, 2_500_001)
    assert slice_ns(50) == (20_000_000, 10_000_001)
    assert slice_ns(99) == (999_999_999, 990_000_000)


@pytest.mark.parametrize("percent", PERCENTS)
def test_a_slice_runs_ten_ms(percent: int) -> None:
    period, sleep = slice_ns(percent)
    share = Fraction(percent, 100)
    assert abs(period - 10 * MS / (1 - share)) <= DOUBLE_NS
    assert abs(sleep - share / (1 - share) * 10 * MS) <= DOUBLE_NS
    assert abs(period - sleep - 10 * MS) <= DOUBLE_NS


@given(histories(), st.lists(st.integers(0, 20 * NS_PER_S), max_size=5))
@settings(SLOW_MACHINE, max_examples=80)
def test_run_time_is_the_sum_over_slices(history: History, extra: list[int]) -> None:
    run_time = closed_form(history)
    times = times_around(history, extra)
    slices = slices_of(history, times[-1] + 1)
    expected = [t - sum(max(0, min(wake, t) - tick) for tick, wake in slices) for t in times]
    assert run_time.at(np.array(times)).tolist() == expected
    assert [run_time.at_ns(t) for t in times] == expected


@given(histories(), st.lists(st.integers(0, 20 * NS_PER_S), max_size=5))
@settings(SLOW_MACHINE, max_examples=60)
def test_one_time_is_answered_as_in_an_array(history: History, extra: list[int]) -> None:
    clock = UsefulTime(run_time := closed_form(history))
    times = sorted(times_around(history, extra))
    for t in times[1::2]:
        if t > clock.last_ns:
            clock.set_at(t, clock.at_ns(t) * 0.75)
    for one in (run_time, clock):
        array, borders = np.array(times), one.borders()
        assert [one.at_ns(t) for t in times] == one.at(array).tolist()
        assert [one.tick_before_ns(t) for t in times] == one.tick_before(array).tolist()
        for since, until in itertools.pairwise([-1, *times]):
            between = set(borders[(borders > since) & (borders <= until)].tolist())
            found = {*one.borders_between(since, until), one.tick_before_ns(until)}
            assert between <= found
    assert [run_time.tick_after_ns(t) for t in times] == run_time.tick_after(array).tolist()


@given(histories(), st.lists(st.integers(0, 20 * NS_PER_S), max_size=5))
@settings(SLOW_MACHINE, max_examples=60)
def test_closed_form_is_the_ticked_mode(history: History, extra: list[int]) -> None:
    """The comparison runs at every time, with the history up to that time."""
    clock, closed = Clock(), RunTime()
    ticked = TickedRunTime(
        lambda fire, priority: clock.timer(fire, priority=priority, freezes=True),
        lambda: clock.now_ns,
    )
    changes = list(history)
    for t in times_around(history, extra):
        while changes and changes[0][0] <= t:
            at_ns, percent = changes.pop(0)
            clock.run_to(at_ns)
            for run_time in (ticked, closed):
                run_time.throttle(at_ns, percent)
        clock.run_to(t)
        array = np.array([t])
        assert closed.percent == ticked.percent
        assert closed.at_ns(t) == ticked.at_ns(t)
        assert closed.tick_before(array) == ticked.tick_before(array)
        assert closed.tick_after(array) == ticked.tick_after(array)
        assert closed.longest_sleep_ns(t) == ticked.longest_sleep_ns(t)
        borders = closed.borders()
        assert set(borders[borders <= t]) <= set(ticked.borders())


@given(histories())
@SLOW_MACHINE
def test_when_sleepers_wake(history: History) -> None:
    run_time = closed_form(history)
    times = times_around(history, [])
    slices = slices_of(history, times[-1])
    for t in times:
        wakes = [wake for tick, wake in slices if tick < t < wake]
        assert run_time.wakes_at_ns(t) == (wakes[0] if wakes else t)


@given(histories())
@SLOW_MACHINE
def test_ticks_before_and_behind(history: History) -> None:
    run_time = closed_form(history)
    times = times_around(history, [])
    ticks = [0, *(tick for tick, _ in slices_of(history, times[-1] + 2 * NS_PER_S))]
    before = [max(tick for tick in ticks if tick <= t) for t in times]
    behind = [min((tick for tick in ticks if tick > t), default=t) for t in times]
    assert run_time.tick_before(np.array(times)).tolist() == before
    assert run_time.tick_after(np.array(times)).tolist() == behind


@given(histories(), st.integers(0, 20 * NS_PER_S))
@SLOW_MACHINE
def test_longest_sleep(history: History, until_ns: int) -> None:
    sleeps = [min(wake, until_ns) - tick for tick, wake in slices_of(history, until_ns)]
    assert closed_form(history).longest_sleep_ns(until_ns) == max(sleeps, default=0)


@given(histories(), st.lists(st.integers(0, 30 * NS_PER_S), min_size=2, max_size=20))
@SLOW_MACHINE
def test_run_time_never_falls_and_never_outruns_time(history: History, times: list[int]) -> None:
    times = sorted(times)
    run = closed_form(history).at(np.array(times))
    assert (np.diff(run) >= 0).all()
    assert (np.diff(run) <= np.diff(times)).all()
    assert run[0] <= times[0]


@given(histories(min_size=1), st.integers(0, 20 * NS_PER_S), st.integers(1, 99))
@SLOW_MACHINE
def test_a_change_leaves_the_past_alone(history: History, after_ns: int, percent: int) -> None:
    """Run time by now does not depend on a throttle that is set now or later."""
    now = history[-1][0] + after_ns
    run_time = closed_form(history)
    times = np.array([t for t in times_around(history, [now]) if t <= now])
    before = run_time.at(times)
    run_time.throttle(now, percent)
    assert np.array_equal(run_time.at(times), before)


@pytest.mark.parametrize("percent", PERCENTS)
def test_run_fraction_goes_to_one_less_the_throttle(percent: int) -> None:
    run_time = closed_form([(0, percent)])
    hour = 3600 * NS_PER_S
    assert run_time.at_ns(hour) / hour == pytest.approx(1 - percent / 100, abs=1e-6 + 1 / 3600)


def test_the_first_set_ticks_at_once_a_later_one_at_the_next_tick() -> None:
    run_time = closed_form([(7, 50), (8, 90)])
    assert run_time.at_ns(7 + 20 * MS) == 7 + 10 * MS - 1
    assert run_time.at_ns(7 + 120 * MS) == 7 + 10 * MS - 1 + 10 * MS - 1


def test_a_set_at_the_very_tick_is_seen_at_the_next() -> None:
    run_time = closed_form([(0, 50), (20 * MS, 90)])
    assert run_time.at_ns(40 * MS) == 2 * (10 * MS - 1)
    assert run_time.at_ns(140 * MS) == 2 * (10 * MS - 1) + 10 * MS - 1


def test_of_two_sets_between_ticks_the_later_counts() -> None:
    times = np.arange(0, NS_PER_S, MS)
    three, two = (
        closed_form([(0, 20), (1 * MS, 50), (2 * MS, 90)]),
        closed_form([(0, 20), (2 * MS, 90)]),
    )
    assert np.array_equal(three.at(times), two.at(times))


def test_without_a_throttle_it_always_runs() -> None:
    times = np.array([0, 1, 10**15])
    for clock in (RunTime(), WallTime()):
        assert np.array_equal(clock.at(times), times)
        assert np.array_equal(clock.tick_after(times), times)
        assert clock.tick_before(times).tolist() == [0, 0, 0]
        assert clock.borders().tolist() == [0]
    assert RunTime().longest_sleep_ns(NEVER_NS) == 0


Sync = tuple[int, int, bool, int | None]  # gap before, length, of the main loop, new throttle


@st.composite
def syncs(draw: st.DrawFn) -> list[Sync]:
    """Return syncs that hold the big lock for a part of a slice or for many slices."""
    length = st.sampled_from([1, 3 * MS, 12 * MS, 95 * MS, 282 * MS, 1100 * MS])
    gap = st.one_of(st.integers(1, 6 * NS_PER_S), st.sampled_from([10 * MS, 5 * NS_PER_S]))
    percent = st.one_of(st.none(), st.integers(1, 99))
    one = st.tuples(gap, length, st.booleans(), percent)
    return draw(st.lists(one, min_size=1, max_size=8))


@given(st.integers(1, 99), syncs(), st.sampled_from([0, 50_000, 3 * MS]))
@settings(SLOW_MACHINE, max_examples=60)
def test_holds_of_the_big_lock_give_what_ticks_one_by_one_give(
    percent: int, syncs: list[Sync], latency_ns: int
) -> None:
    clock = Clock()
    closed = RunTime(latency(latency_ns, 5))
    ticked = TickedRunTime(
        lambda fire, priority: clock.timer(fire, priority=priority, freezes=True),
        lambda: clock.now_ns,
        latency(latency_ns, 5),
    )
    both = (closed, ticked)
    clock.run_to(NS_PER_S)
    for run_time in both:
        run_time.throttle(NS_PER_S, percent)
    for gap_ns, length_ns, by_main_loop, change in syncs:
        clock.run_to(clock.now_ns + gap_ns)
        start_ns = clock.now_ns
        if closed.is_tick(start_ns):  # tests/engine/test_ticked.py has what is due together
            continue
        for run_time in both:
            run_time.hold(start_ns, due_ns=start_ns if by_main_loop else None)
        clock.run_to(start_ns + length_ns)
        for run_time in both:
            if change is not None:
                run_time.throttle(clock.now_ns, change)
            run_time.release(clock.now_ns, by_main_loop=by_main_loop)
        assert closed.at_ns(clock.now_ns) == ticked.at_ns(clock.now_ns)
    for _ in range(20):
        clock.run_to(clock.now_ns + 97 * MS)
        assert closed.at_ns(clock.now_ns) == ticked.at_ns(clock.now_ns)


def locked(percent: int, sync_ns: int, cycles: int = 10) -> float:
    """Return the run share under syncs 5 s apart of which the first sets the throttle."""
    run_time, now_ns = RunTime(latency(50_000, 1)), 0
    run_time.throttle(now_ns, percent)
    for _ in range(cycles):
        now_ns += 5 * NS_PER_S
        run_time.hold(now_ns, due_ns=now_ns)
        now_ns += sync_ns
        run_time.release(now_ns, by_main_loop=True)
    return run_time.at_ns(now_ns) / now_ns


@pytest.mark.parametrize("percent", [80, 90, 95, 98, 99])
def test_syncs_that_start_in_the_run_slice_keep_doing_so(percent: int) -> None:
    """The formula is not in gpusim: it follows from the lock and those who wait for it."""
    share = (0.05 * (100 - percent) + 0.3) / 5.3
    assert locked(percent, 300 * MS) == pytest.approx(share, rel=0.02)


def test_a_tick_behind_a_sync_in_the_sleep_is_lost() -> None:
    """The vCPU wakes at the sync's end and runs for a whole period. A waiting thread loses none."""
    ran = []
    for by_main_loop in (True, False):
        run_time = RunTime()
        run_time.throttle(0, 95)
        run_time.hold(100 * MS, due_ns=100 * MS if by_main_loop else None)
        run_time.release(400 * MS, by_main_loop=by_main_loop)
        ran.append(run_time.at_ns(600 * MS))
    assert ran == pytest.approx([200 * MS, 10 * MS], abs=DOUBLE_NS)
