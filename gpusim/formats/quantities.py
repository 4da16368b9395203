"""The six quantities that a recording and a simulation are compared by, from either side.

Throttle figures are those up to the VM's stop: a throttle set by the final sync slows nobody, and
does not count on either side.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpusim.engine.records import Result
from gpusim.formats.recording import Recording

THROTTLED = "set guest CPU throttled by "


@dataclass(frozen=True, kw_only=True)
class Quantities:
    """What is judged. The fields' order is that of the rows.

    Attributes:
        total_time_s: from "new state setup" to "new state completed"; None: it did not complete.
        dirty_sync_count: all syncs, setup and final included.
        first_throttle_s: None: never throttled.
        transferred_bytes: when it completed, or at the limit.
    """

    total_time_s: float | None
    dirty_sync_count: int
    max_throttle_percent: int
    first_throttle_s: float | None
    transferred_bytes: int
    converged: bool


def measured(recording: Recording) -> Quantities:
    """What QEMU did.

    The total time is taken from the events where there are some. QEMU's own total-time agrees with them within a
    millisecond, except where the migration thread had to wait for the big lock after completing (20
    ms in increment-5.qemu7.a): it reads its clock only after that (migration/migration.c:
    migration_iteration_finish, migration_calculate_complete).
    """
    steps = throttles(recording)
    return Quantities(
        total_time_s=recording.total_time_s,
        dirty_sync_count=_sync_count(recording),
        max_throttle_percent=max((percent for _, percent in steps), default=0),
        first_throttle_s=steps[0][0] if steps else None,
        transferred_bytes=max(sample.transferred_bytes or 0 for sample in recording.samples),
        converged=recording.completed,
    )


def _sync_count(recording: Recording) -> int:
    """The trace's syncs; without one, query-migrate's count, or what QMP told behind its last answer."""
    if recording.events:
        return sum(event.name == "migration_bitmap_sync_start" for event in recording.events)
    sampled = max(sample.ram.dirty_sync_count for sample in recording.samples if sample.ram)
    return max([sampled, *recording.passes_s]) if recording.completed else sampled


def throttles(recording: Recording) -> list[tuple[float, int]]:
    """(seconds, percent) of every time QEMU set the throttle, up to the VM's stop.

    QEMU 7.2 has no cpu_throttle_set. There the n-th migration_throttle is the n-th step of the
    ladder; with tailslow the steps depend on the dirty rate, and the samples say how far it came.
    Without a trace the samples say it all, up to 0.2 s too late.
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
    told = [
        (event.time_s, int(event.arguments.removeprefix(THROTTLED).rstrip("%")))
        for event in events
        if event.name == "cpu_throttle_set" and event.arguments.startswith(THROTTLED)
    ]
    steps = [event.time_s for event in events if event.name == "migration_throttle"]
    if told or not steps:
        return told
    if recording.parameters["cpu-throttle-tailslow"]:
        return [(steps[0], int(recording.parameters["cpu-throttle-initial"])), *sampled]
    initial = int(recording.parameters["cpu-throttle-initial"])
    increment = int(recording.parameters["cpu-throttle-increment"])
    highest = int(recording.parameters["max-cpu-throttle"])
    return [
        (time_s, min(initial + place * increment, highest)) for place, time_s in enumerate(steps)
    ]


def simulated(result: Result) -> Quantities:
    """What gpusim did."""
    throttled = [
        sync for sync in result.syncs if sync.kind != "final" and sync.cpu_throttle_percentage > 0
    ]
    converged = result.summary.verdict == "converged"
    return Quantities(
        total_time_s=result.summary.total_time_s if converged else None,
        dirty_sync_count=result.summary.dirty_sync_count,
        max_throttle_percent=max((sync.cpu_throttle_percentage for sync in throttled), default=0),
        first_throttle_s=throttled[0].time_s if throttled else None,
        transferred_bytes=result.summary.transferred_bytes,
        converged=converged,
    )
