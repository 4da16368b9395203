"""Is a writer with on and off times active when it should be, at a cost that follows decisions?

The reference lists every window from time 0 on. A writer's marks must not change a value.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.guest.pace import CpuBound, Paced
from gpusim.guest.run_time import RunTime
from gpusim.guest.windows import Mark, OnOff, Windows
from gpusim.stream import Purpose, Stream
from gpusim.units import NS_PER_MS, NS_PER_S
from tests.guest.naive import SLOW_MACHINE, histories

MS, S = NS_PER_MS, NS_PER_S
lengths = st.integers(1, 2 * S)


def drawn(seed: int = 1, on_ns: int = 3 * S, off_ns: int = S, phase: float = 0.5) -> OnOff:
    return OnOff(on_ns, off_ns, phase, stream=Stream(seed, 0, Purpose.CYCLE_LENGTHS))


@given(lengths, lengths, st.floats(0, 0.999), st.integers(0, 60 * S))
@settings(SLOW_MACHINE, max_examples=50)
def test_fixed_cycles_have_a_closed_form(on_ns: int, off_ns: int, phase: float, t: int) -> None:
    cycle_ns = on_ns + off_ns
    before_ns = int(phase * cycle_ns)

    def since_cycle_0(at_ns: int) -> int:
        cycles, rest_ns = divmod(at_ns, cycle_ns)
        return cycles * on_ns + min(rest_ns, on_ns)

    expected = since_cycle_0(t + before_ns) - since_cycle_0(before_ns)
    if t < 2000 * cycle_ns:
        assert OnOff(on_ns, off_ns, phase).active_ns(np.array([t])).tolist() == [expected]


@given(histories(), st.data())
@settings(SLOW_MACHINE, max_examples=60)
def test_marks_change_no_value(history: list, data: st.DataObject) -> None:
    run_time = RunTime()
    for at_ns, percent in history:
        run_time.throttle(at_ns, percent)
    windows = OnOff(data.draw(st.integers(10 * MS, S)), data.draw(st.integers(10 * MS, S)), 0.3)
    times = np.array(data.draw(st.lists(st.integers(0, 9 * S), min_size=3, max_size=6).map(sorted)))
    for pace in (CpuBound(1e6), Paced(1e6, 2e6)):
        whole = pace.writes(times, run_time, windows)
        mark: Mark | None = None
        for place in range(len(times)):
            later = pace.writes(times[place:], run_time, windows, mark)
            assert later == pytest.approx(whole[place:], rel=1e-12, abs=1e-6)
            mark = pace.mark(int(times[place]), run_time, windows, mark)


@given(st.lists(st.integers(0, 30 * S), min_size=1, max_size=5), st.integers(0, 99))
@SLOW_MACHINE
def test_drawn_windows_do_not_depend_on_who_asks(times: list[int], seed: int) -> None:
    asked = drawn(seed)
    for t in times:
        asked.active_ns(np.array([t]))
    fresh = drawn(seed)
    assert asked.between(0, 40 * S)[0].tolist() == fresh.between(0, 40 * S)[0].tolist()


def test_drawn_lengths_have_their_means_and_deviations() -> None:
    """Of an exponential length, the deviation is the mean."""
    opens, closes = drawn().between(0, 40_000 * S)
    for found, mean_s in ((closes - opens, 3), (opens[1:] - closes[:-1], 1)):
        count = len(found)
        assert count > 9000
        assert found.mean() == pytest.approx(mean_s * S, rel=5 / count**0.5)
        assert found.std() == pytest.approx(mean_s * S, rel=10 / count**0.5)


def test_the_share_of_seeds_that_start_in_an_on_time_is_the_share_of_on_time() -> None:
    phases = [float(Stream(seed, 0, Purpose.CYCLE_PHASE).uniform(1)[0]) for seed in range(2000)]
    for make in (lambda seed, phase: OnOff(3 * S, S, phase), lambda s, p: drawn(s, phase=p)):
        starts = sum(make(seed, phase).opens_at_start for seed, phase in enumerate(phases))
        assert starts / 2000 == pytest.approx(0.75, abs=5 * (0.75 * 0.25 / 2000) ** 0.5)


def test_on_and_off_times_stop_outside_of_given_windows() -> None:
    windows = OnOff(2 * S, S, 0.0, inside=[(S, 4 * S), (10 * S, 11 * S)])
    opens, closes = windows.between(0, 100 * S)
    assert list(zip((opens // S).tolist(), (closes // S).tolist(), strict=True)) == [
        (1, 2), (3, 4), (10, 11),
    ]  # fmt: skip
    assert windows.last_change_ns == 11 * S


def test_windows_of_a_day_are_known_only_as_far_as_they_are_asked_for() -> None:
    windows = OnOff(10 * MS, 10 * MS, 0.0)
    windows.active_ns(np.array([S]))
    assert len(windows._opens) < 200


def test_given_windows_open_and_close() -> None:
    windows = Windows([(0, S), (2 * S, 3 * S)])
    assert windows.opens_at_start
    assert windows.edges(0, 3 * S).tolist() == [S, 2 * S]
    assert windows.last_change_ns == 3 * S
