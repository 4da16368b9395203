"""trace.json.gz: a migration on tracks, for https://ui.perfetto.dev or chrome://tracing.

Records become slices, counters and instants of the Trace Event Format, with times in microseconds.
The file depends only on the records, byte for byte.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from gpusim.engine.records import Event, Result, SyncRecord
from gpusim.files import whole_file
from gpusim.policies.names import decider_name
from gpusim.results.timeline import Timeline
from gpusim.results.turning_points import (
    lost_links,
    pass_borders,
    resume_s,
    rises,
    samples_of,
    sending_s,
    stop_s,
)

TraceEvent: TypeAlias = dict[str, Any]

PROCESS = 1
PASSES, SYNCS, FALLBACK_SYNCS, THROTTLE, STOPPED, DECISIONS, POSTCOPY, TARGET = range(1, 9)
TRACKS = {
    PASSES: "passes",
    SYNCS: "QEMU's own syncs",
    FALLBACK_SYNCS: "fallback syncs",
    THROTTLE: "throttle",
    STOPPED: "downtime",
    DECISIONS: "other decisions",
    POSTCOPY: "post-copy",
    TARGET: "guest at the target",
}
_SYNC_EVENTS = {"migration_bitmap_sync_start", "migration_bitmap_sync_end"}  # shown as slices


def write_trace(result: Result, columns: Timeline, path: Path) -> None:
    """Write `trace_events` as gzipped JSON.

    Args:
        result: the migration.
        columns: its timeline.
        path: of the file.

    Raises:
        OSError: the file cannot be written.
    """
    summary = result.summary
    document = {
        "displayTimeUnit": "ms",
        "otherData": {
            "gpusim": summary.gpusim_version,
            "qemu": summary.qemu_version,
            "verdict": summary.verdict or summary.status,
            "reason": summary.reason,
        },
        "traceEvents": trace_events(result, columns),
    }
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    with (
        whole_file(path) as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
    ):
        packed.write(text.encode())


def trace_events(result: Result, columns: Timeline) -> list[TraceEvent]:
    """Return metadata first, then all events by time, with outer slices before inner slices.

    Source: Trace Event Format (Google, 2016): phases M, X, C and i.
    """
    events = [*_slices(result), *_counters(result, columns), *_instants(result.events)]
    events.sort(key=lambda event: (event["ts"], -event.get("dur", 0.0)))
    return [*_names(result), *events]


def _names(result: Result) -> Iterator[TraceEvent]:
    name = f"migration, {decider_name(result.summary.qemu_version, result.summary.policies)}"
    yield {"ph": "M", "pid": PROCESS, "name": "process_name", "args": {"name": name}}
    for track, name in TRACKS.items():
        if track in (POSTCOPY, TARGET) and result.summary.postcopy_start_s is None:
            continue
        head = {"ph": "M", "pid": PROCESS, "tid": track}
        yield {**head, "name": "thread_name", "args": {"name": name}}
        yield {**head, "name": "thread_sort_index", "args": {"sort_index": track}}


def _us(time_s: float) -> float:
    return round(time_s * 1e6, 3)


def _slice(track: int, name: str, start_s: float, end_s: float, **arguments: Any) -> TraceEvent:
    start_us = _us(start_s)
    return {
        "ph": "X",
        "pid": PROCESS,
        "tid": track,
        "cat": TRACKS[track],
        "name": name,
        "ts": start_us,
        "dur": max(round(_us(end_s) - start_us, 3), 0.0),
        "args": arguments,
    }


def _slices(result: Result) -> Iterator[TraceEvent]:
    total_s = result.summary.simulated_s
    for number, (start_s, end_s) in enumerate(pairwise(pass_borders(result)), start=1):
        yield _slice(PASSES, f"pass {number}", start_s, end_s)
    for sync in result.syncs:
        yield _sync_slice(sync)
    stopped_s = stop_s(result.summary)
    levels = [(raised.time_s, raised.cpu_throttle_percentage) for _, raised in rises(result)]
    for (start_s, percent), (end_s, _) in pairwise([*levels, (stopped_s, 0)]):
        name = f"throttle {percent} %"
        yield _slice(THROTTLE, name, start_s, end_s, cpu_throttle_percentage=percent)
    if result.summary.postcopy_start_s is not None:
        yield from _postcopy_slices(result)
    elif result.summary.downtime_ms is not None:
        yield _slice(
            STOPPED, "VM stopped", stopped_s, total_s, downtime_ms=result.summary.downtime_ms
        )


def _postcopy_slices(result: Result) -> Iterator[TraceEvent]:
    """Yield the standstill of the guest, with QEMU's downtime in it, and the phase after it."""
    summary = result.summary
    stopped_s, since_s, total_s = stop_s(summary), sending_s(summary), summary.simulated_s
    resumed_s = min(resume_s(summary), total_s)
    blackout_ms = summary.postcopy_blackout_ms or 0.0
    yield _slice(STOPPED, "guest stands still", stopped_s, resumed_s, blackout_ms=blackout_ms)
    yield _slice(STOPPED, "VM stopped", stopped_s, since_s, downtime_ms=summary.downtime_ms)
    yield _slice(
        POSTCOPY,
        "post-copy",
        since_s,
        total_s,
        missing_bytes=summary.postcopy_bytes,
        requests=summary.postcopy_requests,
        latency_ms=summary.postcopy_latency_ms,
    )
    slow_s = min(resumed_s + (summary.postcopy_recovery_s or 0.0), total_s)
    if slow_s > resumed_s:
        yield _slice(TARGET, "guest slowed", resumed_s, slow_s)
    for lost_s, found_s in lost_links(result):
        yield _slice(POSTCOPY, "link lost", max(lost_s, since_s), found_s)


def _sync_slice(sync: SyncRecord) -> TraceEvent:
    track = FALLBACK_SYNCS if sync.kind == "fallback" else SYNCS
    arguments = {
        "dirty_sync_count": sync.dirty_sync_count,
        "newly_dirty_pages": sync.newly_dirty_pages,
        "remaining_bytes": sync.remaining_bytes,
        "threshold_size": sync.threshold_bytes,
        "cpu_throttle_percentage": sync.cpu_throttle_percentage,
        "dirty_rate_high_cnt": sync.dirty_rate_high_cnt,
        "pass": sync.pass_number,
    }
    if sync.period_ms is not None:
        arguments |= {
            "period_ms": sync.period_ms,
            "bytes_dirty_period": sync.bytes_dirty_period or 0,
            "bytes_xfer_period": sync.bytes_xfer_period or 0,
        }
    end_s = sync.time_s + sync.duration_ms / 1e3
    return _slice(track, f"{sync.kind} sync", sync.time_s, end_s, **arguments)


def _counter(name: str, time_s: float, value: float) -> TraceEvent:
    return {
        "ph": "C",
        "pid": PROCESS,
        "name": name,
        "ts": _us(time_s),
        "args": {"value": value},
    }


def _counters(result: Result, columns: Timeline) -> Iterator[TraceEvent]:
    """Yield four counters, and two of post-copy. A counter that changes in steps has one event each."""
    samples = samples_of(result)
    for sample in samples:
        yield _counter("remaining bytes", sample.time_s, sample.remaining_bytes)
    throttle = [(sample.time_s, sample.cpu_throttle_percentage) for sample in samples]
    yield from _steps("throttle %", throttle)
    rates = [(s.time_s, s.dirty_pages_rate) for s in result.syncs if s.dirty_pages_rate is not None]
    yield from _steps("dirty pages rate (pages/s)", rates)
    times_s, speeds = columns["time_s"].tolist(), columns["guest_speed_percent"].tolist()
    since_s = [0.0, *times_s[:-1]]  # A row has the speed since the row before.
    rounded = [(time_s, round(speed, 1)) for time_s, speed in zip(since_s, speeds, strict=True)]
    if result.postcopy:  # its steps are shorter than the rows
        switched_s = stop_s(result.summary)
        rounded = [one for one in rounded if one[0] < switched_s]
        starts_s = [sending_s(result.summary), *(step.time_s for step in result.postcopy[:-1])]
        rounded.append((switched_s, 0.0))
        rounded += [
            (start_s, round(step.guest_speed_percent, 1))
            for start_s, step in zip(starts_s, result.postcopy, strict=True)
        ]
    yield from _steps("guest speed %", rounded[1:] or rounded)
    yield from _steps("requests", [(one.time_s, one.requests) for one in result.postcopy])
    latencies = [(one.time_s, round(one.latency_ms or 0.0, 3)) for one in result.postcopy]
    yield from _steps("latency (ms)", latencies)


def _steps(name: str, samples: list[tuple[float, Any]]) -> Iterator[TraceEvent]:
    last = None
    for time_s, value in samples:
        if value != last:
            yield _counter(name, time_s, value)
            last = value


def _instants(events: list[Event]) -> Iterator[TraceEvent]:
    for event in events:
        if event.event not in _SYNC_EVENTS:
            yield {
                "ph": "i",
                "s": "t",  # scope: one track
                "pid": PROCESS,
                "tid": DECISIONS,
                "cat": TRACKS[DECISIONS],
                "name": event.event,
                "ts": _us(event.time_s),
                "args": {name: _plain(value) for name, value in event.arguments.items()},
            }


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: no numpy number, and null for infinity."""
    number = value.item() if hasattr(value, "item") else value
    return None if isinstance(number, float) and not math.isfinite(number) else number
