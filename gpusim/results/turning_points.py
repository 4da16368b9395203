"""The turning points of a migration: ends of passes, throttle increases and the stop of the VM."""

from __future__ import annotations

from gpusim.engine.records import Result, Summary, SyncRecord


def pass_borders(result: Result) -> list[float]:
    """Return the times in seconds at which passes begin and end: one more than passes."""
    return [0.0, *result.pass_ends_s, result.summary.simulated_s]


def rises(result: Result) -> list[tuple[SyncRecord | None, SyncRecord]]:
    """Return (first, second) of the two syncs behind each throttle increase.

    The second sync raised the throttle. The first sync, if known, counted the first high period.
    """
    found: list[tuple[SyncRecord | None, SyncRecord]] = []
    before = 0
    high: SyncRecord | None = None
    for sync in result.syncs:
        if sync.kind == "final":  # The VM has stopped, so the throttle has no effect.
            break
        if sync.cpu_throttle_percentage > before:
            found.append((high, sync))
            before, high = sync.cpu_throttle_percentage, None
        elif sync.dirty_rate_high_cnt == 0:
            high = None
        elif high is None:
            high = sync
    return found


def stop_s(summary: Summary) -> float:
    """Return when QEMU stopped the VM, or the end of the run if it did not."""
    return max(summary.simulated_s - (summary.downtime_ms or 0.0) / 1e3, 0.0)
