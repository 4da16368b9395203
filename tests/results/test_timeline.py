"""Does the regular grid agree with the samples?"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.engine.records import Result, TimelineSample
from gpusim.results.timeline import MAX_ROWS, MIN_ROWS, STEP_S, timeline
from tests.results.conftest import FakeMigration


def migration(samples: list[TimelineSample]) -> Result:
    template = FakeMigration(working_set_bytes=0).run()
    summary = replace(template.summary, total_time_s=samples[-1].time_s)
    return Result(summary=summary, samples=samples)


def sample(
    time_s: float, remaining: int = 0, throttle: int = 0, run_s: float | None = None
) -> TimelineSample:
    return TimelineSample(
        time_s=time_s,
        remaining_bytes=remaining,
        transferred_bytes=1000 - remaining,
        cpu_throttle_percentage=throttle,
        dirty_sync_count=1 + throttle // 10,
        bitmap_sync_count=1 + throttle // 10,
        guest_run_s=time_s if run_s is None else run_s,
    )


@st.composite
def sample_lists(draw: st.DrawFn) -> list[TimelineSample]:
    """Samples as a run makes them: time, bytes sent and syncs only grow, and some share a time."""
    steps = draw(
        st.lists(
            st.tuples(
                st.integers(0, 10**13),  # ns
                st.integers(0, 2**45),  # bytes sent
                st.integers(0, 2**45),  # remaining
                st.integers(0, 1),  # syncs
                st.integers(0, 99),  # throttle
            ),
            min_size=1,
            max_size=30,
        )
    )
    steps[0] = (0, *steps[0][1:])
    time_ns = list(accumulate(step[0] for step in steps))
    sent = list(accumulate(step[1] for step in steps))
    syncs = list(accumulate(step[3] for step in steps))
    run_ns = accumulate(step[0] * (100 - step[4]) // 100 for step in steps)
    return [
        TimelineSample(
            time_s=time_ns[index] / 1e9,
            remaining_bytes=step[2],
            transferred_bytes=sent[index],
            cpu_throttle_percentage=step[4],
            dirty_sync_count=syncs[index],
            bitmap_sync_count=syncs[index],
            guest_run_s=run / 1e9,
        )
        for index, (step, run) in enumerate(zip(steps, run_ns, strict=True))
    ]


@settings(deadline=None)
@given(sample_lists())
def test_any_run_becomes_a_regular_grid(samples: list[TimelineSample]) -> None:
    columns = timeline(migration(samples))
    time_s, total_s = columns["time_s"], samples[-1].time_s
    assert len({len(column) for column in columns.values()}) == 1
    assert 1 <= len(time_s) <= MAX_ROWS
    assert time_s[0] == 0
    assert time_s[-1] == pytest.approx(total_s, abs=1e-9)
    if total_s > 1e-3:
        assert np.all(np.diff(time_s) > 0)
        assert np.allclose(np.diff(time_s), total_s / (len(time_s) - 1), atol=2e-9)
    assert np.all(np.diff(columns["transferred_bytes"]) >= 0)
    assert np.all(np.diff(columns["dirty_sync_count"]) >= 0)
    assert np.all(np.diff(columns["guest_run_s"]) >= -1e-9)
    for name in ("remaining_bytes", "transferred_bytes", "dirty_sync_count"):
        assert columns[name].dtype == np.int64
        assert columns[name][-1] == getattr(samples[-1], name)
        assert columns[name].min() >= min(getattr(sample, name) for sample in samples)
        assert columns[name].max() <= max(getattr(sample, name) for sample in samples)
    assert all(np.isfinite(column).all() for column in columns.values())


def test_bytes_are_straight_lines_and_the_later_of_two_samples_holds() -> None:
    samples = [
        sample(0, 1000),
        sample(10, 0),
        sample(10, 500, throttle=20),
        sample(20, 0, throttle=20),
    ]
    columns = timeline(migration(samples))
    at = {float(time_s): row for row, time_s in enumerate(columns["time_s"])}
    assert columns["remaining_bytes"][at[5.0]] == 500
    assert columns["remaining_bytes"][at[10.0] - 1] == pytest.approx(10)
    assert columns["remaining_bytes"][at[10.0]] == 500
    assert columns["cpu_throttle_percentage"][at[10.0] - 1] == 0
    assert columns["cpu_throttle_percentage"][at[10.0]] == 20
    assert columns["dirty_sync_count"][at[10.0]] == 3


def test_the_guests_speed_is_the_slope_of_its_run_time() -> None:
    columns = timeline(migration([sample(0), sample(10), sample(20, throttle=80, run_s=12.0)]))
    speed = columns["guest_speed_percent"]
    assert np.allclose(speed[columns["time_s"] <= 10], 100.0)
    assert np.allclose(speed[columns["time_s"] > 10], 20.0)


def test_the_dirty_rate_is_that_of_the_last_closed_period(result: Result) -> None:
    columns = timeline(result)
    closed = [sync for sync in result.syncs if sync.dirty_pages_rate is not None]
    assert columns["dirty_pages_rate"][0] == 0
    assert columns["dirty_pages_rate"][-1] == closed[-1].dirty_pages_rate
    after = np.flatnonzero(columns["time_s"] >= closed[1].time_s)[0]
    assert columns["dirty_pages_rate"][after] == closed[1].dirty_pages_rate


@pytest.mark.parametrize(
    ("total_s", "rows"), [(0.05, MIN_ROWS), (50.0, 50 / STEP_S + 1), (1e6, MAX_ROWS)]
)
def test_rows_follow_qemus_windows_within_limits(total_s: float, rows: float) -> None:
    assert len(timeline(migration([sample(0), sample(total_s)]))["time_s"]) == rows


def test_a_run_of_no_time_is_one_row() -> None:
    columns = timeline(migration([sample(0, 1000), sample(0, 500)]))
    assert columns["remaining_bytes"].tolist() == [500]
    assert columns["guest_speed_percent"].tolist() == [100.0]


def test_a_result_without_samples_is_refused(result: Result) -> None:
    with pytest.raises(ValueError, match="no timeline"):
        timeline(replace(result, samples=[]))
