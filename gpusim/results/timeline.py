"""State over time on a regular grid, resampled from the samples of a result.

Between two samples, bytes and vCPU run time are straight lines, and throttle and sync count are
steps. If samples share a time then the last one holds from that time on.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpusim.engine.records import Result, SyncRecord
from gpusim.results.turning_points import samples_of

Timeline: TypeAlias = dict[str, NDArray[Any]]
FloatArray: TypeAlias = NDArray[np.float64]

MAX_ROWS = 10_000
MIN_ROWS = 101  # also for a run of a few milliseconds
STEP_S = 0.1  # QEMU's window (BUFFER_DELAY), within which QEMU decides nothing

# Digits after the point: nanoseconds for what the engine counts in nanoseconds.
DECIMALS = {"time_s": 9, "guest_run_s": 9, "guest_speed_percent": 3}


def timeline(result: Result) -> Timeline:
    """Return the columns of timeline.csv and .npz, all of one length, at most MAX_ROWS.

    Returns:
        time_s: float64, from 0 to the end of the simulated time in equal steps.
        remaining_bytes, transferred_bytes: int64, linear between samples.
        cpu_throttle_percentage: int64, as of the latest sample.
        dirty_sync_count: int64, the count that QEMU reports, as of the latest sample.
        bitmap_sync_count: int64, syncs that have begun, as of the latest sample.
        guest_run_s: float64, vCPU run time so far.
        guest_speed_percent: float64, its slope since the row before, in percent of wall time. The
            first row repeats the second.
        dirty_pages_rate: int64, pages per second in the last closed period. 0 before it.

    Raises:
        ValueError: the result has no samples.
    """
    if not result.samples:
        raise ValueError("a result without samples has no timeline")
    time_s = _grid(result.summary.simulated_s)
    known = samples_of(result)
    samples = {
        name: np.array([getattr(sample, name) for sample in known])
        for name in ("time_s", *_COLUMNS)
    }
    latest = _latest(samples["time_s"], time_s)
    columns: Timeline = {"time_s": time_s}
    for name, linear in _COLUMNS.items():
        column = (
            _lines(samples["time_s"], samples[name], time_s, latest) if linear else samples[name]
        )
        column = column if linear else column[latest]
        columns[name] = column if name in DECIMALS else np.rint(column).astype(np.int64)
    columns["guest_speed_percent"] = _speed_percent(time_s, columns["guest_run_s"])
    columns["dirty_pages_rate"] = _dirty_pages_rate(result.syncs, time_s)
    for name, digits in DECIMALS.items():
        columns[name] = np.round(columns[name], digits)
    return columns


# Field of a TimelineSample -> whether it is a straight line between samples, else a step.
_COLUMNS = {
    "remaining_bytes": True,
    "transferred_bytes": True,
    "cpu_throttle_percentage": False,
    "dirty_sync_count": False,
    "bitmap_sync_count": False,
    "guest_run_s": True,
}


def _grid(end_s: float) -> FloatArray:
    if end_s <= 0:
        return np.zeros(1)
    rows = min(max(math.ceil(end_s / STEP_S) + 1, MIN_ROWS), MAX_ROWS)
    return np.linspace(0.0, end_s, rows)


def _latest(sample_s: FloatArray, time_s: FloatArray) -> NDArray[np.intp]:
    """Return the index of the last sample at or before each time, or of the first sample."""
    return np.maximum(np.searchsorted(sample_s, time_s, side="right") - 1, 0)


def _lines(
    sample_s: FloatArray, values: NDArray[Any], time_s: FloatArray, latest: NDArray[np.intp]
) -> FloatArray:
    following = np.minimum(latest + 1, len(sample_s) - 1)
    span_s = sample_s[following] - sample_s[latest]
    since_s = np.maximum(time_s - sample_s[latest], 0.0)
    share = np.divide(since_s, span_s, out=np.zeros_like(time_s), where=span_s > 0)
    rise = (values[following] - values[latest]).astype(np.float64)
    between: FloatArray = values[latest] + rise * np.minimum(share, 1.0)
    return between


def _speed_percent(time_s: FloatArray, run_s: FloatArray) -> FloatArray:
    if len(time_s) < 2:
        return np.full(len(time_s), 100.0)
    percent = 100.0 * np.diff(run_s) / np.diff(time_s)
    return np.concatenate((percent[:1], percent))


def _dirty_pages_rate(syncs: list[SyncRecord], time_s: FloatArray) -> NDArray[np.int64]:
    closed = [(s.time_s, s.dirty_pages_rate) for s in syncs if s.dirty_pages_rate is not None]
    rates = np.array([0, *(rate for _, rate in closed)], dtype=np.int64)
    return rates[np.searchsorted([when for when, _ in closed], time_s, side="right")]
