"""The turning points of a migration: ends of passes, throttle increases, the stop of the VM, post-copy.

After a switch to post-copy the guest runs at the target, without the throttle. `samples_of` is the
state over time with that phase.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpusim.engine.records import Result, Summary, SyncRecord, TimelineSample


def pass_borders(result: Result) -> list[float]:
    """Return the times in seconds at which passes begin and end: one more than passes.

    A switch to post-copy ends the last pass.
    """
    switch_s = result.summary.postcopy_start_s
    last_s = result.summary.simulated_s if switch_s is None else switch_s
    return [0.0, *(end_s for end_s in result.pass_ends_s if end_s < last_s), last_s]


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
    if summary.postcopy_start_s is not None:
        return summary.postcopy_start_s
    return max(summary.simulated_s - (summary.downtime_ms or 0.0) / 1e3, 0.0)


def resume_s(summary: Summary) -> float:
    """Return when the guest ran at the target. Only after a switch to post-copy."""
    return stop_s(summary) + (summary.postcopy_blackout_ms or 0.0) / 1e3


def has_recovered(summary: Summary) -> bool:
    """Return whether the guest ran as fast as before when post-copy ended."""
    slow_until_s = resume_s(summary) + (summary.postcopy_recovery_s or 0.0)
    return summary.verdict == "converged" or slow_until_s < summary.simulated_s - 1e-6


def sending_s(summary: Summary) -> float:
    """Return when post-copy began to send, which is the end of the downtime that QEMU reports."""
    return summary.simulated_s - (summary.postcopy_time_s or 0.0)


def lost_links(result: Result) -> list[tuple[float, float]]:
    """Return (start, end) of each time in post-copy in which the link was lost."""
    states = [
        (event.time_s, event.arguments["new_state"])
        for event in result.events
        if event.event == "migrate_set_state"
    ]
    found = []
    lost_s: float | None = None
    for time_s, state in states:
        if state == "postcopy-paused":
            lost_s = time_s
        elif state == "postcopy-active" and lost_s is not None:
            found.append((lost_s, time_s))
            lost_s = None
    return found if lost_s is None else [*found, (lost_s, result.summary.simulated_s)]


def samples_of(result: Result) -> list[TimelineSample]:
    """Return the samples of a result, with the steps of post-copy among them.

    After the switch the throttle is 0, and guest_run_s grows with the speed of each step.
    """
    switched_s, steps = result.summary.postcopy_start_s, result.postcopy
    if switched_s is None or not steps or not result.samples:
        return result.samples
    edges_s = np.array([sending_s(result.summary), *(step.time_s for step in steps)])
    speeds = np.array([step.guest_speed_percent / 100 for step in steps])
    ran_s = np.concatenate([[0.0], np.cumsum(speeds * np.diff(edges_s))])
    known_s = [sample.time_s for sample in result.samples]
    sent = np.interp(edges_s[1:], known_s, [one.transferred_bytes for one in result.samples])
    last = result.samples[-1]
    more = [
        replace(
            last,
            time_s=step.time_s,
            remaining_bytes=step.missing_bytes,
            transferred_bytes=round(float(bytes_)),
        )
        for step, bytes_ in zip(steps, sent, strict=True)
        if step.time_s < last.time_s
    ]
    return [
        replace(
            sample,
            cpu_throttle_percentage=0,
            guest_run_s=sample.guest_run_s + float(np.interp(sample.time_s, edges_s, ran_s)),
        )
        if sample.time_s >= switched_s
        else sample
        for sample in sorted([*result.samples, *more], key=lambda sample: sample.time_s)
    ]
