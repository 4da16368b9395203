"""The audit of a finished run: do its records agree with each other?

A fault is a bug of gpusim and not of the user. The audit reads the records only. It knows neither
the configuration nor the engine that made them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import pairwise

from gpusim.engine.records import Evacuation, Result
from gpusim.text import Message

SLACK_S = 1e-6  # times are floats
MOST_SHOWN = 5
MOST_PERCENT = {"link_used_percent": 101.0}  # section headers are counted but take no time
_OF_TOTAL_S = (
    "first_pass_s",
    "first_throttle_s",
    "time_at_max_throttle_s",
    "paused_s",
    "sync_stall_s",
    "main_loop_stall_s",
)
_OF_TOTAL_MS = ("downtime_ms", "longest_vcpu_stall_ms", "longest_main_loop_stall_ms")
_ENDS = {"converged": "converged", "time_limit": "simulated_limit"}


def audit(result: Result) -> list[Message]:
    """Return the faults of a finished run and of the attempts before it, as codes with data.

    The codes are not_finite, negative, beyond_total, count, numbering, order, conservation,
    overlap, percent and verdict. The list is empty if the records agree.
    """
    runs = [*(attempt.result for attempt in result.before), result]
    return [fault for run in runs for fault in _faults(run)]


def audit_evacuation(evacuation: Evacuation) -> list[Message]:
    """Return the faults of an evacuation and of its guests' migrations, as `audit` does."""
    faults = [fault for guest in evacuation.guests for fault in audit(guest.result)]
    faults += _check_numbers(evacuation.summary)
    total_s = evacuation.summary.total_time_s
    for guest in evacuation.guests:
        if not 0 <= guest.start_s <= guest.end_s <= total_s + SLACK_S:
            faults.append(Message("beyond_total", {"field": guest.name, "value": guest.end_s}))
    return faults


def check_in_tests(result: Result | Evacuation) -> None:
    """Audit what a run returns if the environment has GPUSIM_AUDIT=1, as the tests do.

    Raises:
        AssertionError: the records disagree. It names the first faults.
    """
    if os.environ.get("GPUSIM_AUDIT") != "1":
        return
    faults = audit(result) if isinstance(result, Result) else audit_evacuation(result)
    if faults:
        first = ", ".join(f"{fault.code} {fault.data}" for fault in faults[:MOST_SHOWN])
        raise AssertionError(f"the audit of the run found {len(faults)} faults: {first}")


def _faults(run: Result) -> Iterator[Message]:
    yield from _check_numbers(run.summary)
    yield from _check_durations(run)
    yield from _check_syncs(run)
    yield from _check_conservation(run)
    yield from _check_order(run)
    yield from _check_verdict(run)


def _check_numbers(summary: object) -> Iterator[Message]:
    """Check that every number is finite and not negative, and that percentages are at most 100."""
    for field in fields(summary):  # type: ignore[arg-type]
        value = getattr(summary, field.name)
        if not isinstance(value, int | float):
            continue
        if not math.isfinite(value):
            yield Message("not_finite", {"field": field.name, "value": value})
        elif value < 0:
            yield Message("negative", {"field": field.name, "value": value})
        elif field.name.endswith("_percent") and value > MOST_PERCENT.get(field.name, 100 + 1e-7):
            yield Message("percent", {"field": field.name, "value": value})


def _check_durations(run: Result) -> Iterator[Message]:
    """Check that no part lasts longer than the run."""
    summary, total_s = run.summary, run.summary.total_time_s
    parts = [(name, getattr(summary, name)) for name in _OF_TOTAL_S]
    parts += [(name, (getattr(summary, name) or 0) / 1000) for name in _OF_TOTAL_MS]
    parts += [
        (f"sync {sync.dirty_sync_count}", sync.time_s + sync.duration_ms / 1000)
        for sync in run.syncs
    ]
    for name, value_s in parts:
        if value_s is not None and value_s > total_s * (1 + 1e-9) + SLACK_S:
            yield Message("beyond_total", {"field": name, "value": value_s, "total_s": total_s})


def _check_syncs(run: Result) -> Iterator[Message]:
    """Check that syncs are numbered without gaps, are all there, and do not overlap."""
    counts = [sync.dirty_sync_count for sync in run.syncs]
    if counts and counts != list(range(counts[0], counts[0] + len(counts))):
        yield Message("numbering", {"counts": counts[-5:]})
    if counts and counts[-1] != run.summary.dirty_sync_count:
        yield Message("count", {"rows": counts[-1], "summary": run.summary.dirty_sync_count})
    if run.summary.fallback_sync_count != sum(sync.kind == "fallback" for sync in run.syncs):
        yield Message("count", {"field": "fallback_sync_count"})
    for before, after in pairwise(run.syncs):
        if after.time_s < before.time_s + before.duration_ms / 1000 - SLACK_S:
            yield Message("overlap", {"sync": after.dirty_sync_count})


def _check_conservation(run: Result) -> Iterator[Message]:
    """Check that all pages that were dirty were sent, or are left."""
    summary = run.summary
    newly = sum(sync.newly_dirty_pages for sync in run.syncs)
    left = summary.normal_pages + summary.zero_pages - newly
    # The page size is not recorded. All pages, and those that are left, have one size.
    sent_bytes = summary.vm_bytes - summary.remaining_bytes
    if left * sent_bytes < 0 or (left == 0) != (sent_bytes == 0) or (left and sent_bytes % left):
        yield Message("conservation", {"pages": left, "bytes": sent_bytes})


def _check_order(run: Result) -> Iterator[Message]:
    """Check that times and counters never fall."""
    columns: dict[str, Sequence[float]] = {
        "syncs": [sync.time_s for sync in run.syncs],
        "events": [event.time_s for event in run.events],
        "samples": [sample.time_s for sample in run.samples],
        "transferred_bytes": [sample.transferred_bytes for sample in run.samples],
        "pass_ends_s": run.pass_ends_s,
    }
    for name, values in columns.items():
        if any(not before <= after for before, after in pairwise(values)):
            yield Message("order", {"field": name})


def _check_verdict(run: Result) -> Iterator[Message]:
    """Check that status, verdict, reason and downtime belong together."""
    summary = run.summary
    converged = summary.verdict == "converged"
    sound = (
        (summary.verdict is None) == (summary.status == "incomplete")
        and converged == (summary.downtime_ms is not None)
        and not (converged and summary.remaining_bytes)
        and _ENDS.get(summary.verdict or "", summary.reason_code) == summary.reason_code
    )
    if not sound:
        yield Message("verdict", {"verdict": summary.verdict, "code": summary.reason_code})
