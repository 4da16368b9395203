"""Does the audit find a fault of each kind in records that were sound?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from gpusim import Result, TrackingConfig, WriterConfig, simulate
from gpusim.engine.audit import audit
from tests.engine.scenarios import config

TRACKING = TrackingConfig(mode="kvm_legacy", listeners_ms=20.0, protect_ns_per_page=300.0)


@cache
def sound() -> Result:
    """Return a run with exact, fallback and final syncs."""
    made = config(
        "256MiB",
        WriterConfig(working_set="100MiB", page_writes_per_s=1e4),
        bandwidth="60MB/s",
        max_bandwidth=0,
        fallback_sync_interval="700ms",
        tracking=TRACKING,
    )
    return simulate(made)


def with_sync(result: Result, number: int, **changes: float) -> Result:
    """Change one row of the syncs."""
    syncs = list(result.syncs)
    syncs[number] = replace(syncs[number], **changes)
    return replace(result, syncs=syncs)


def with_entry(result: Result, number: int, **changes: int) -> Result:
    """Change one sync of the journal."""
    assert result.journal is not None
    syncs = list(result.journal.syncs)
    syncs[number] = syncs[number]._replace(**changes)
    return replace(result, journal=replace(result.journal, syncs=syncs))


def with_send(result: Result, from_ps: int, until_ps: int) -> Result:
    """Add a part of a burst to the journal."""
    assert result.journal is not None
    sends = sorted([*result.journal.sends, (from_ps, until_ps)])
    return replace(result, journal=replace(result.journal, sends=sends))


def with_summary(result: Result, **changes: float | str) -> Result:
    return replace(result, summary=replace(result.summary, **changes))


def send_inside_a_merge(result: Result) -> Result:
    assert result.journal is not None
    merge = next(sync for sync in result.journal.syncs if sync.by_main_loop)
    return with_send(result, merge.mutex_from_ns * 1000, merge.mutex_until_ns * 1000)


def one_bit_more(result: Result) -> Result:
    assert result.journal is not None
    journal = replace(result.journal, bitmap_pages=result.journal.bitmap_pages + 1)
    return replace(result, journal=journal)


DAMAGES: dict[str, tuple[str, Callable[[Result], Result]]] = {
    "a page is lost in a sync": ("conservation", lambda r: with_entry(r, 2, pending_pages=1)),
    "a page is sent twice": (
        "conservation",
        lambda r: with_entry(r, 2, sent_pages=r.journal.syncs[2].sent_pages + 1),
    ),
    "the bitmap has another bit": ("conservation", one_bit_more),
    "rows and journal differ": ("count", lambda r: with_sync(r, 2, newly_dirty_pages=7)),
    "two syncs hold the big lock": (
        "overlap",
        lambda r: with_entry(r, 2, end_ns=r.journal.syncs[3].start_ns + 1),
    ),
    "the sender sends in a merge": ("overlap", send_inside_a_merge),
    "a burst ends after the run": ("beyond_total", lambda r: with_send(r, 10**15, 10**15 + 1)),
    "a part outlasts its sync": ("parts", lambda r: with_entry(r, 2, protect_ns=10**12)),
    "stalls outlast syncs": ("parts", lambda r: with_summary(r, sync_stall_s=1.5)),
    "a period is longer than the run": ("parts", lambda r: with_sync(r, 2, period_ms=10**9)),
    "a clear is longer than the run": ("beyond_total", lambda r: with_summary(r, remote_clear_s=1e3)),
    "a percentage above 100": ("percent", lambda r: with_summary(r, guest_cpu_lost_percent=100.1)),
    "a number that is none": ("not_finite", lambda r: with_summary(r, paused_s=float("nan"))),
    "a time below 0": ("negative", lambda r: with_summary(r, paused_s=-1.0)),
    "a gap in the numbers": ("numbering", lambda r: with_sync(r, 2, dirty_sync_count=9)),
    "a row before the one above": ("order", lambda r: with_sync(r, 2, time_s=0.0)),
    "a verdict without its reason": ("verdict", lambda r: with_summary(r, verdict="time_limit")),
}  # fmt: skip


def test_a_sound_run_has_no_fault() -> None:
    result = sound()
    assert {sync.kind for sync in result.syncs} == {"setup", "exact", "fallback", "final"}
    assert audit(result) == []


@pytest.mark.parametrize(("code", "damage"), DAMAGES.values(), ids=list(DAMAGES))
def test_a_damaged_record_has_a_fault(code: str, damage: Callable[[Result], Result]) -> None:
    assert code in {fault.code for fault in audit(damage(sound()))}


def test_no_journal_is_kept_if_nobody_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUSIM_AUDIT")
    writer = WriterConfig(working_set="1MiB", page_writes_per_s=100)
    assert simulate(config("16MiB", writer)).journal is None
