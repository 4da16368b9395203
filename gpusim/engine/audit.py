"""The audit of a finished run: do its records agree with each other?

A fault is a bug of gpusim and not of the user. The audit reads the records, and the journal if one
was kept. It does not know the engine that made them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import pairwise

from gpusim.engine.journal import Journal, SyncEntry, is_audited
from gpusim.engine.records import EvacuatedGuest, Evacuation, Result
from gpusim.guest.reaper import Holds
from gpusim.text import Message
from gpusim.units import NS_PER_MS, NS_PER_S, PS_PER_NS

SLACK_S = 1e-6  # times are floats
MOST_SHOWN = 5
MOST_PERCENT = 100 + 1e-7  # floats
_OF_TOTAL_S = (
    "first_pass_s",
    "first_throttle_s",
    "time_at_max_throttle_s",
    "paused_s",
    "skipped_s",
    "remote_clear_s",
    "sync_stall_s",
    "main_loop_stall_s",
)
_OF_TOTAL_MS = ("downtime_ms", "longest_vcpu_stall_ms", "longest_main_loop_stall_ms")
_ENDS = {
    "converged": ("converged", "postcopy"),
    "time_limit": ("simulated_limit", "postcopy_paused"),
}


def audit(result: Result) -> list[Message]:
    """Return the faults of a finished run and of the attempts before it, as codes with data.

    The codes are not_finite, negative, beyond_total, count, numbering, order, conservation,
    overlap, parts, percent and verdict. The list is empty if the records agree.
    """
    runs = [*(attempt.result for attempt in result.before), result]
    return [fault for run in runs for fault in _faults(run)]


def audit_evacuation(evacuation: Evacuation) -> list[Message]:
    """Return the faults of an evacuation and of its guests' migrations, as `audit` does.

    The code link_capacity stands for guests that sent more than the link carries.
    """
    faults = [fault for guest in evacuation.guests for fault in audit(guest.result)]
    faults += _check_numbers(evacuation.summary)
    return faults + list(_check_sharing(evacuation))


def check_in_tests(result: Result | Evacuation) -> None:
    """Audit what a run returns if the environment has GPUSIM_AUDIT=1, as the tests do.

    Raises:
        AssertionError: the records disagree. It names the first faults.
    """
    if not is_audited():
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
    yield from _check_parts(run)
    if run.journal is not None:
        yield from _check_pages(run, run.journal)
        yield from _check_locks(run, run.journal)


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
        elif field.name.endswith("_percent") and value > MOST_PERCENT:
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
    parts += [("samples", sample.time_s) for sample in run.samples[-1:]]
    parts += [("pass_ends_s", end_s) for end_s in run.pass_ends_s[-1:]]
    parts += [(event.event, event.time_s) for event in run.events if summary.verdict != "aborted"]
    for name, value_s in parts:
        if value_s is not None and value_s > total_s * (1 + 1e-9) + SLACK_S:
            yield Message("beyond_total", {"field": name, "value": value_s, "total_s": total_s})


def _check_syncs(run: Result) -> Iterator[Message]:
    """Check that syncs are counted without gaps, are all there, and do not overlap.

    QEMU's count has all syncs, or it is 1 and the exact syncs that have ended.
    """
    counts = [sync.dirty_sync_count for sync in run.syncs]
    steps = [
        after == before + 1 if after != before else sync.kind != "exact" or sync is run.syncs[-1]
        for (before, after), sync in zip(pairwise(counts), run.syncs[1:], strict=True)
    ]
    if not all(steps) or counts[:1] not in ([], [1]):
        yield Message("numbering", {"counts": counts[-5:]})
    if counts and counts[-1] != run.summary.dirty_sync_count:
        yield Message("count", {"rows": counts[-1], "summary": run.summary.dirty_sync_count})
    if run.summary.bitmap_sync_count != len(counts):
        yield Message("count", {"rows": len(counts), "summary": run.summary.bitmap_sync_count})
    if run.summary.fallback_sync_count != sum(sync.kind == "fallback" for sync in run.syncs):
        yield Message("count", {"field": "fallback_sync_count"})
    for before, after in pairwise(run.syncs):
        if after.time_s < before.time_s + before.duration_ms / 1000 - SLACK_S:
            yield Message("overlap", {"sync": after.dirty_sync_count})


def _check_conservation(run: Result) -> Iterator[Message]:
    """Check that all pages that were dirty were sent, or are left."""
    summary = run.summary
    newly = sum(sync.newly_dirty_pages for sync in run.syncs)
    newly += summary.postcopy_added_pages or 0
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
        and (not converged or summary.downtime_ms is not None)
        and (converged or summary.postcopy_start_s is not None or summary.downtime_ms is None)
        and not (converged and summary.remaining_bytes)
        and summary.reason_code in _ENDS.get(summary.verdict or "", (summary.reason_code,))
    )
    if not sound:
        yield Message("verdict", {"verdict": summary.verdict, "code": summary.reason_code})


def _check_parts(run: Result) -> Iterator[Message]:
    """Check that parts add up to the whole at most: stalls, periods, and a sample's run time.

    The holds of the dirty rings' reaper are in the journal only.
    """
    summary, syncs = run.summary, run.syncs
    held_ms = [sync.duration_ms for sync in syncs if sync.kind != "final"]
    if run.journal is not None:
        reaps = run.journal.reaper_holds
        held_ms += [reap.held_ns / NS_PER_MS for reap in reaps for _ in range(reap.number)]
    elif summary.tracking == "dirty_ring":
        held_ms = [math.inf]
    periods = [sync for sync in syncs if sync.period_ms is not None]
    end_ms = syncs[-1].time_s * 1000 + syncs[-1].duration_ms if syncs else 0.0
    is_cut = summary.status == "incomplete" and summary.downtime_ms is None  # inside the switch
    final_ms = sum(sync.duration_ms for sync in syncs if sync.kind == "final")
    parts = {
        "main_loop_stall_s": (summary.main_loop_stall_s * 1000, sum(held_ms)),
        "longest_main_loop_stall_ms": (
            summary.longest_main_loop_stall_ms,
            max(held_ms, default=0.0),
        ),
        "sync_stall_s": (summary.sync_stall_s * 1000, sum(held_ms)),
        "final sync": (final_ms, math.inf if is_cut else summary.downtime_ms or 0.0),
        "period_ms": (sum(sync.period_ms or 0 for sync in periods), end_ms + 1),
        "bytes_xfer_period": (
            sum(sync.bytes_xfer_period or 0 for sync in periods),
            summary.transferred_bytes,
        ),
    }
    for name, (part, whole) in parts.items():
        if part > whole * (1 + 1e-9) + 1000 * SLACK_S:
            yield Message("parts", {"field": name, "part": part, "whole": whole})
    for sample in run.samples:
        if sample.guest_run_s > sample.time_s + SLACK_S:
            yield Message("parts", {"field": "guest_run_s", "part": sample.guest_run_s})


def _check_pages(run: Result, journal: Journal) -> Iterator[Message]:
    """Check between syncs: dirty pages after one, less those sent, are dirty before the next."""
    syncs = sorted(journal.syncs, key=lambda sync: sync.mutex_from_ns)
    for sync in syncs:
        if sync.pending_before + sync.newly_dirty != sync.pending_pages:
            yield Message("conservation", {"sync_ns": sync.start_ns, "newly": sync.newly_dirty})
    ends = [(sync.pending_before, sync.sent_pages) for sync in syncs[1:]]
    ends.append((journal.pending_pages, journal.sent_pages))
    for sync, (pending, sent) in zip(syncs, ends, strict=True):
        added = (run.summary.postcopy_added_pages or 0) * (sync is syncs[-1])
        if sync.pending_pages + added - (sent - sync.sent_pages) != pending:
            yield Message("conservation", {"after_sync_ns": sync.start_ns, "pages": pending})
    if journal.bitmap_pages != journal.pending_pages:
        yield Message("conservation", {"bits": journal.bitmap_pages, "of": journal.pending_pages})
    if [sync.newly_dirty for sync in journal.syncs] != [s.newly_dirty_pages for s in run.syncs]:
        yield Message("count", {"field": "newly_dirty_pages"})
    in_periods = sum(sync.bytes_dirty_period or 0 for sync in run.syncs)
    newly_bytes = sum(sync.newly_dirty for sync in syncs) * _page_bytes(run, journal)
    if in_periods > newly_bytes:
        yield Message("parts", {"field": "bytes_dirty_period", "part": in_periods})


def _page_bytes(run: Result, journal: Journal) -> int:
    """Return the size of a page. The first sync finds every page dirty."""
    return run.summary.vm_bytes // journal.syncs[0].pending_pages


def _check_locks(run: Result, journal: Journal) -> Iterator[Message]:
    """Check who holds the big lock and the bitmap's mutex when.

    The big lock has one holder at a time. The sender holds the mutex in a burst, so it sends nothing
    while a sync holds it. The parts of a whole sync lie within it.
    """
    total_ns = round(run.summary.total_time_s * NS_PER_S)
    syncs = sorted(journal.syncs, key=lambda sync: sync.start_ns)
    for before, after in pairwise(syncs):
        if after.start_ns < before.end_ns:
            yield Message("overlap", {"sync_ns": after.start_ns, "until_ns": before.end_ns})
    if not run.summary.paused_s:  # the reaper's times are the VM's
        yield from _check_reaper(journal.reaper_holds, syncs)
    for sync in syncs:
        times = [0, sync.start_ns, sync.mutex_from_ns, sync.mutex_until_ns, sync.end_ns]
        if sync.by_main_loop:
            times.insert(2, sync.start_ns + sync.protect_ns)
        if not sync.is_cut and (times != sorted(times) or sync.end_ns > total_ns):
            yield Message("parts", {"sync_ns": times, "total_ns": total_ns})
    for (_, until_ps), (from_ps, _) in pairwise(journal.sends):
        if from_ps < until_ps:
            yield Message("overlap", {"send_ps": from_ps, "until_ps": until_ps})
    starts = [from_ps for from_ps, _ in journal.sends]
    for sync in syncs:
        from_ps, until_ps = sync.mutex_from_ns * PS_PER_NS, sync.mutex_until_ns * PS_PER_NS
        place = bisect_left(starts, until_ps) - 1  # the last part that begins before the end
        if from_ps < until_ps and place >= 0 and journal.sends[place][1] > from_ps:
            yield Message("overlap", {"mutex_ps": from_ps, "send_ps": journal.sends[place]})
    # A remote clear and the page behind it are one step, so a run may end inside the last part.
    ends = [until_ps for _, until_ps in journal.sends[:-1]] + starts[-1:]
    if ends and max(ends) > (total_ns + 1) * PS_PER_NS:
        yield Message("beyond_total", {"field": "sends", "value": max(ends)})


def _check_reaper(reaps: Sequence[Holds], syncs: Sequence[SyncEntry]) -> Iterator[Message]:
    """Check that the reaper of dirty rings holds the big lock while no sync does."""
    holds = sorted(
        [(sync.start_ns, sync.end_ns) for sync in syncs if not sync.is_cut]
        + [
            (reap.first_ns + i * reap.every_ns, reap.first_ns + i * reap.every_ns + reap.held_ns)
            for reap in reaps
            for i in range(reap.number)
        ]
    )
    for (_, until_ns), (from_ns, _) in pairwise(holds):
        if from_ns < until_ns:
            yield Message("overlap", {"hold_ns": from_ns, "until_ns": until_ns})


def _check_sharing(evacuation: Evacuation) -> Iterator[Message]:
    """Check that guests migrate within the evacuation, few at a time, and share the link."""
    summary, guests = evacuation.summary, evacuation.guests
    for guest in guests:
        if not 0 <= guest.start_s <= guest.end_s <= summary.total_time_s + SLACK_S:
            yield Message("beyond_total", {"field": guest.name, "value": guest.end_s})
        at_once = [other for other in guests if other.start_s <= guest.start_s < other.end_s]
        if len(at_once) > summary.at_a_time:
            yield Message("overlap", {"guest": guest.name, "at_once": len(at_once)})
        yield from _check_capacity(evacuation, [guest], guest.start_s, guest.end_s)
    yield from _check_capacity(evacuation, guests, 0.0, summary.total_time_s)


def _check_capacity(
    evacuation: Evacuation, guests: Sequence[EvacuatedGuest], from_s: float, until_s: float
) -> Iterator[Message]:
    """Check that guests sent no more pages than the link carries in a time."""
    runs = [(guest.result, guest.result.journal) for guest in guests]
    sent = sum(run.summary.normal_pages * _page_bytes(run, own) for run, own in runs if own)
    steps = evacuation.link_bandwidth
    ends_s = [*(at_s for at_s, _ in steps[1:]), math.inf]
    most = sum(
        bandwidth * max(0.0, min(end_s, until_s) - max(at_s, from_s))
        for (at_s, bandwidth), end_s in zip(steps, ends_s, strict=True)
        if end_s > from_s and at_s < until_s
    )
    if sent > most * (1 + 1e-9) + 1:
        yield Message("link_capacity", {"from_s": from_s, "bytes": sent, "most": most})
