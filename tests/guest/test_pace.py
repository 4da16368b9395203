"""Does each pace do the work of a queue that is served only while the vCPUs run?

The reference of a paced writer is the queue itself, event by event in fractions.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.guest.pace import CpuBound, Paced, Recorded, active_ns
from gpusim.guest.run_time import RunTime, WallTime, slice_ns
from gpusim.units import NS_PER_MS, NS_PER_S
from tests.guest.naive import SLOW_MACHINE, History, Windows, active, histories, queue, slices_of

FLOAT = 1e-12  # relative to the work that run time allows
MS = NS_PER_MS

rates = st.integers(0, 5_000_000)
windows_of = st.one_of(
    st.none(),
    st.lists(st.integers(0, 8 * NS_PER_S), min_size=2, max_size=8, unique=True).map(
        lambda edges: [
            (low, high) for low, high in zip(sorted(edges)[::2], sorted(edges)[1::2], strict=False)
        ]
    ),
)
sample_times = st.lists(st.integers(0, 10 * NS_PER_S), min_size=1, max_size=10).map(sorted)


def run_time_of(history: History) -> RunTime:
    run_time = RunTime()
    for at_ns, percent in history:
        run_time.throttle(at_ns, percent)
    return run_time


def with_events(times: list[int], history: History, windows: Windows) -> list[int]:
    """Return the times, those of the first slices, and those of the windows' edges."""
    some = [t for pair in slices_of(history, times[-1] + 1)[:20] for t in pair]
    edges = [t for window in windows or () for t in window]
    return sorted({0, *times, *some, *edges})


@given(rates, st.integers(0, 5_000_000), histories(), windows_of, sample_times)
@settings(SLOW_MACHINE, max_examples=200)
def test_paced_is_the_queue(
    rate: int, spare: int, history: History, windows: Windows, sample_times: list[int]
) -> None:
    capacity = max(1, rate + spare)
    times = with_events(sample_times, history, windows)
    pace, run_time = Paced(rate, capacity), run_time_of(history)
    done = pace.writes(np.array(times), run_time, active(windows))
    error = FLOAT * (1 + capacity * times[-1] / NS_PER_S)
    expected = queue(rate, capacity, history, windows, times)
    assert done == pytest.approx([float(work) for work in expected], rel=0, abs=error)
    for t, work in zip(times[-3:], expected[-3:], strict=False):
        arrived = rate * int(active_ns(np.array([t]), active(windows))[0]) / NS_PER_S
        late_s = (arrived - float(work)) / capacity
        assert pace.lost_s(t, run_time, active(windows)) == pytest.approx(
            late_s, rel=0, abs=2 * error / capacity
        )


@given(rates, st.integers(1, 5_000_000), histories(), windows_of, sample_times)
@SLOW_MACHINE
def test_paced_never_runs_ahead_of_its_work_or_its_vcpus(
    rate: int, spare: int, history: History, windows: Windows, sample_times: list[int]
) -> None:
    pace, run_time = Paced(rate, rate + spare), run_time_of(history)
    times = np.array(with_events(sample_times, history, windows))
    done = pace.writes(times, run_time, active(windows))
    error = FLOAT * (1 + pace.capacity * times[-1] / NS_PER_S)
    arrived = rate * active_ns(times, active(windows)) / NS_PER_S
    assert (done <= arrived + error).all(), "a negative backlog"
    assert (done <= rate * times / NS_PER_S + error).all()
    assert (np.diff(done) >= -error).all()
    assert (np.diff(done) <= pace.capacity * np.diff(run_time.at(times)) / NS_PER_S + error).all()


@given(rates, st.integers(1, 5_000_000), histories(min_size=1), windows_of, st.integers(1, 99))
@SLOW_MACHINE
def test_paced_work_of_the_past_does_not_change(
    rate: int, spare: int, history: History, windows: Windows, percent: int
) -> None:
    """A throttle that is set now changes no earlier work, bit for bit."""
    pace, run_time = Paced(rate, rate + spare), run_time_of(history)
    now = history[-1][0]
    times = np.linspace(0, now, 20).astype(np.int64)
    before = pace.writes(times, run_time, active(windows))
    run_time.throttle(now, percent)
    error = FLOAT * (1 + pace.capacity * now / NS_PER_S)
    assert pace.writes(times, run_time, active(windows)) == pytest.approx(before, rel=0, abs=error)


def test_paced_writes_at_its_rate_without_a_throttle() -> None:
    times = np.array([0, 1, NS_PER_S, 7 * NS_PER_S])
    done = Paced(1e6, 3e6).writes(times, RunTime(), None)
    assert done == pytest.approx(1e6 * times / NS_PER_S, rel=FLOAT, abs=1e-6)


def test_paced_catches_up_if_run_time_is_enough() -> None:
    """At 50 % a writer with three times the capacity ends every slice without a backlog."""
    run_time, pace = run_time_of([(0, 50)]), Paced(1e6, 3e6)
    ticks = np.arange(1, 50) * slice_ns(50)[0]
    assert pace.writes(ticks, run_time, None) == pytest.approx(1e6 * ticks / NS_PER_S, rel=1e-9)
    assert pace.lost_s(int(ticks[-1]), run_time, None) == pytest.approx(0, abs=1e-9)


def test_paced_falls_behind_if_run_time_is_too_short() -> None:
    """At 50 % a writer with 1.1 times the capacity does 0.55 of its work."""
    run_time, pace = run_time_of([(0, 50)]), Paced(1e6, 1.1e6)
    end = np.array([100 * slice_ns(50)[0]])
    assert pace.writes(end, run_time, None)[0] / (end[0] / 1e3) == pytest.approx(0.55, rel=1e-6)


def test_paced_at_99_percent_sleeps_990_ms_then_writes_its_backlog() -> None:
    run_time, pace = run_time_of([(0, 99)]), Paced(1000, 1_000_000)
    period, sleep = slice_ns(99)
    assert sleep == 990 * MS
    writes = lambda t: float(pace.writes(np.array([t]), run_time, None)[0])  # noqa: E731
    assert writes(sleep) == 0
    assert writes(sleep + MS // 2) == pytest.approx(500)  # at capacity
    assert writes(sleep + MS) == pytest.approx(991, rel=1e-5)  # caught up
    assert writes(period) == pytest.approx(1000)
    assert writes(period + sleep) == pytest.approx(1000)
    assert writes(2 * period) == pytest.approx(2000)


def test_paced_backlog_is_worked_off_after_its_window_has_closed() -> None:
    run_time, pace = run_time_of([(0, 99)]), Paced(1000, 1_000_000)
    done = pace.writes(np.array([500 * MS, 990 * MS, 999 * MS]), run_time, active([(0, 300 * MS)]))
    assert done == pytest.approx([0, 0, 300])


@given(rates, histories(), windows_of, sample_times)
@SLOW_MACHINE
def test_cpu_bound_is_run_time_inside_windows(
    rate: int, history: History, windows: Windows, sample_times: list[int]
) -> None:
    pace, run_time = CpuBound(rate), run_time_of(history)
    slices = slices_of(history, sample_times[-1] + 1)
    for t, done in zip(
        sample_times, pace.writes(np.array(sample_times), run_time, active(windows)), strict=True
    ):
        spans = [(low, min(high, t)) for low, high in windows or [(0, t)] if low < t]
        asleep = sum(
            max(0, min(wake, high) - max(tick, low)) for low, high in spans for tick, wake in slices
        )
        open_ns = sum(high - low for low, high in spans)
        assert done == pytest.approx(rate * (open_ns - asleep) / NS_PER_S, rel=FLOAT)
        assert pace.lost_s(t, run_time, active(windows)) == pytest.approx(
            asleep / NS_PER_S, rel=FLOAT
        )


def test_no_throttle_slows_wall_time() -> None:
    times = np.array([0, 5, 10**10])
    for pace in (CpuBound(1e6), Paced(1e6, 2e6)):
        assert pace.writes(times, WallTime(), None) == pytest.approx(times / 1e3, rel=FLOAT)
        assert pace.lost_s(10**10, WallTime(), None) == 0


@given(windows_of, st.integers(0, 10 * NS_PER_S))
@SLOW_MACHINE
def test_active_time_is_that_inside_windows(windows: Windows, t: int) -> None:
    expected = sum(max(0, min(high, t) - low) for low, high in windows or [(0, t)])
    assert active_ns(np.array([t]), active(windows)).tolist() == [expected]


def test_recorded_goes_straight_between_samples() -> None:
    pace = Recorded(np.array([0.0, 1.0, 3.0]), np.array([0.0, 100.0, 500.0]), 0)
    times = np.array([0, 0.25, 1, 2, 3, 9]) * NS_PER_S
    done = pace.writes(times.astype(np.int64), RunTime(), None)
    assert done == pytest.approx([0, 25, 100, 300, 500, 500])


@pytest.mark.parametrize("percent", [0, 50])
def test_recorded_is_cpu_bound_behind_the_last_sample(percent: int) -> None:
    """The throttle slows only writes after the record. Every sleep counts as lost."""
    pace = Recorded(np.array([0.0, 10.0]), np.array([0.0, 1000.0]), 60)
    run_time = run_time_of([(0, percent)])
    run_share = 1 - percent / 100
    times = np.array([4, 10, 20]) * NS_PER_S
    expected = [400, 1000, 1000 + 600 * run_share]
    assert pace.writes(times, run_time, None) == pytest.approx(expected, rel=1e-4)
    lost_s = pace.lost_s(20 * NS_PER_S, run_time, None)
    assert lost_s == pytest.approx(20 * (1 - run_share), rel=1e-4)
