"""Where a migration took a turn, as the records say: where passes end, and which syncs slowed the guest.

Shared by whoever tells or draws a run; it reads records and decides nothing.
"""

from __future__ import annotations

from gpusim.engine.records import Result, Summary, SyncRecord


def pass_borders(result: Result) -> list[float]:
    """Where passes begin and end, in seconds: one more than there are passes."""
    return [0.0, *result.pass_ends_s, result.summary.total_time_s]


def rises(result: Result) -> list[tuple[SyncRecord | None, SyncRecord]]:
    """The syncs that raised the throttle, each with the one that counted the first high period."""
    found: list[tuple[SyncRecord | None, SyncRecord]] = []
    before = 0
    high: SyncRecord | None = None
    for sync in result.syncs:
        if sync.kind == "final":  # the VM has stopped: it does not count
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
    """When the VM was stopped; the end of the run if it was not."""
    return max(summary.total_time_s - (summary.downtime_ms or 0.0) / 1e3, 0.0)
