"""The quantities by which a recording and a simulation are compared, from either side.

Throttle quantities count up to the VM's stop. The final sync can still set a throttle, but that
throttle slows no guest, so neither side counts it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpusim.engine.records import Result
from gpusim.formats.recording import Recording
from gpusim.formats.sync_record import find_syncs

THROTTLED = "set guest CPU throttled by "  # QEMU's arguments of the trace event cpu_throttle_set


@dataclass(frozen=True, kw_only=True)
class Quantities:
    """The compared quantities. The order of the fields is that of the table's rows.

    Attributes:
        total_time_s: from "new state setup" to "new state completed". None: it did not complete.
        dirty_sync_count: the count of syncs that QEMU reports. Since 11.1 it lacks fallback syncs
            and the final sync.
        syncs_made: all syncs, the setup's and the final one included.
        max_throttle_percent: highest throttle, percent.
        first_throttle_s: time of the first throttle. None: the guest was never throttled.
        transferred_bytes: at completion, or at the limit.
        converged: whether the migration completed.
        downtime_ms: from the VM's stop to the completion. None: it did not complete, or a
            simulation does not know how fast the link is without a rate limit.
    """

    total_time_s: float | None
    dirty_sync_count: int
    syncs_made: int
    max_throttle_percent: int
    first_throttle_s: float | None
    transferred_bytes: int
    converged: bool
    downtime_ms: float | None = None


def recorded_quantities(recording: Recording) -> Quantities:
    """Return the quantities that QEMU had.

    The total time comes from the trace events if there are any. QEMU's own total-time differs by at
    most a millisecond, with one exception: if the migration thread waits for the big lock after it
    completed, QEMU reads its clock late (20 ms in increment-5.qemu7.a). Source:
    migration/migration.c:migration_iteration_finish, migration_calculate_complete.
    """
    steps = throttle_steps(recording)
    return Quantities(
        total_time_s=recording.total_time_s,
        dirty_sync_count=_count_reported(recording),
        syncs_made=_count_made(recording),
        max_throttle_percent=max((percent for _, percent in steps), default=0),
        first_throttle_s=steps[0][0] if steps else None,
        transferred_bytes=max(sample.transferred_bytes or 0 for sample in recording.samples),
        converged=recording.completed,
        downtime_ms=None if recording.downtime_s is None else round(1000 * recording.downtime_s, 3),
    )


def _count_made(recording: Recording) -> int:
    """Count the trace's syncs. Without a trace, take QEMU's count, or what page counts show."""
    if recording.events:
        return sum(event.name == "migration_bitmap_sync_start" for event in recording.events)
    if recording.counts_every_sync:
        return _count_reported(recording)
    return 1 + len(find_syncs(recording))


def _count_reported(recording: Recording) -> int:
    """Return the highest count of query-migrate, or of QMP's last event before the end."""
    if recording.events and recording.counts_every_sync:
        return _count_made(recording)
    sampled = max(sample.ram.dirty_sync_count for sample in recording.samples if sample.ram)
    end_s = recording.events[-1].time_s if recording.events else 0.0
    passes = (
        number
        for number, time_s in recording.passes_s.items()
        if recording.completed or time_s <= end_s
    )
    return max([sampled, *passes])


def throttle_steps(recording: Recording) -> list[tuple[float, int]]:
    """Return (seconds, percent) of every throttle that QEMU set up to the VM's stop.

    QEMU 7.2 has no trace event cpu_throttle_set. There the n-th migration_throttle is the n-th
    increase by cpu-throttle-increment. With tailslow the increases depend on the dirty rate, so the
    samples give the percentages. Without a trace the samples give all, up to 0.2 s late.
    """
    sampled = [
        (sample.time_s, sample.cpu_throttle_percentage)
        for sample in recording.samples
        if sample.cpu_throttle_percentage
        and (recording.stop_s is None or sample.time_s < recording.stop_s)
    ]
    if not recording.events:
        return sampled
    events = recording.until_stop()
    traced = [
        (event.time_s, int(event.arguments.removeprefix(THROTTLED).rstrip("%")))
        for event in events
        if event.name == "cpu_throttle_set" and event.arguments.startswith(THROTTLED)
    ]
    increases_s = [event.time_s for event in events if event.name == "migration_throttle"]
    if traced or not increases_s:
        return traced
    initial = int(recording.parameters["cpu-throttle-initial"])
    if recording.parameters["cpu-throttle-tailslow"]:
        return [(increases_s[0], initial), *sampled]
    increment = int(recording.parameters["cpu-throttle-increment"])
    highest = int(recording.parameters["max-cpu-throttle"])
    return [
        (time_s, min(initial + place * increment, highest))
        for place, time_s in enumerate(increases_s)
    ]


def simulated_quantities(result: Result) -> Quantities:
    """Return the quantities that gpusim had."""
    throttled = [
        sync for sync in result.syncs if sync.kind != "final" and sync.cpu_throttle_percentage > 0
    ]
    converged = result.summary.verdict == "converged"
    return Quantities(
        total_time_s=result.summary.total_time_s if converged else None,
        dirty_sync_count=result.summary.dirty_sync_count,
        syncs_made=len(result.syncs),
        max_throttle_percent=max((sync.cpu_throttle_percentage for sync in throttled), default=0),
        first_throttle_s=throttled[0].time_s if throttled else None,
        transferred_bytes=result.summary.transferred_bytes,
        converged=converged,
        downtime_ms=result.summary.downtime_ms if converged else None,
    )
