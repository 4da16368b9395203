"""Does the story say what the records say, for every way a migration can go?"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from gpusim.engine.records import Event, Result, SyncRecord
from gpusim.results.narrative import story
from gpusim.results.turning_points import pass_borders, rises
from gpusim.text import format_duration, format_moment
from gpusim.units import format_bytes
from tests.results.runs import CONFIG, RUNS, fake


def told(result: Result) -> str:
    return "\n".join(story(result, CONFIG))


@pytest.mark.parametrize("name", RUNS)
def test_every_way_to_go_is_told_in_ten_lines(name: str) -> None:
    for config in (CONFIG, None):
        lines = story(RUNS[name](), config)
        assert 4 <= len(lines) <= 10
        for line in lines:
            assert line[0].isupper() or line[0].isdigit()
            assert line.endswith(".")
            assert ".." not in line
            assert not re.search(r"None|nan|inf\b|  ", line)


@pytest.mark.parametrize("name", RUNS)
def test_what_is_lost_sent_and_counted_is_that_of_the_summary(name: str) -> None:
    result = RUNS[name]()
    summary, text = result.summary, told(RUNS[name]())
    assert format_bytes(summary.vm_bytes) in text
    assert f"{format_bytes(summary.transferred_bytes)} went over the wire" in text
    assert f"{summary.resent_pages:,} of them had been sent before" in text
    if summary.max_throttle_percent:
        assert format_duration(summary.longest_vcpu_stall_ms / 1e3) in text
        assert f"{summary.max_throttle_percent} %" in text
        assert f"{summary.guest_cpu_lost_percent:.3g} %" in text
    else:
        assert "never slowed down" in text
    faults = f"First writes to {summary.write_faults:,} protected pages took it"
    assert (faults in text) == (summary.guest_fault_s > 0)
    if summary.fallback_sync_count:
        assert f"{summary.fallback_sync_count} of the {len(result.syncs)} syncs" in text
    else:
        assert "fallback timer" in text
    if summary.verdict == "converged":
        assert "the downtime limit of 400 ms" in text
        assert format_duration((summary.downtime_ms or 0) / 1e3) in text
    else:
        assert summary.reason.strip("; .")[:60] in text


def test_the_throttles_reasons_are_two_periods_above_the_threshold() -> None:
    """What FakeMigration does not do: count high periods as QEMU does."""
    base = fake(link_rate=1e8, write_rate=1.5e8)
    row = next(sync for sync in base.syncs if sync.period_ms)
    gib = 2**30

    def sync(
        time_s: float, high: int, throttle: int, dirty: int, kind: str = "exact"
    ) -> SyncRecord:
        changes = {
            "time_s": time_s,
            "dirty_rate_high_cnt": high,
            "cpu_throttle_percentage": throttle,
            "bytes_dirty_period": dirty,
            "bytes_xfer_period": 10 * gib,
            "period_ms": 4000,
            "kind": kind,
        }
        return replace(row, **changes)

    syncs = [
        sync(1, 0, 0, gib, "setup"),
        sync(10, 1, 0, 6 * gib),
        sync(20, 1, 0, 4 * gib),  # not high; the count stays
        sync(30, 0, 20, 8 * gib, "fallback"),
        sync(40, 1, 20, 7 * gib),
        sync(50, 0, 30, 9 * gib),
        sync(60, 0, 40, 9 * gib, "final"),  # traced, but the VM has stopped
    ]
    result = replace(base, syncs=syncs, summary=replace(base.summary, total_time_s=100.0))
    assert [(first and first.time_s, last.time_s) for first, last in rises(result)] == [
        (10, 30),
        (40, 50),
    ]
    text = told(result)
    assert "At 30 s QEMU began to slow the guest down, by a throttle of 20 %" in text
    assert "more than 50 % of what it sent" in text
    assert (
        "(6 GiB dirtied, 10 GiB sent in 4 s, 60 %; 8 GiB dirtied, 10 GiB sent in 4 s, 80 %)" in text
    )
    assert "once more" in text
    assert "at 50 s, took the throttle to 30 %" in text
    assert "1 of the 7 syncs was added by the fallback timer, at 30 s" in text
    assert "1 of the throttle's 2 steps came at them" in text


def test_few_passes_are_told_one_by_one_and_many_as_a_group() -> None:
    base = fake(link_rate=1e8, write_rate=1.5e8)
    summary = replace(base.summary, total_time_s=100.0)
    few = replace(base, summary=summary, pass_ends_s=[10.0, 20.5, 40.25])
    assert "Passes 2 to 3 ended at 20.5 s and 40.25 s; in pass 4 the run ended." in told(few)
    assert pass_borders(few) == [0.0, 10.0, 20.5, 40.25, 100.0]
    ends_s = [10.0 + step**2 for step in range(9)]
    many = replace(base, summary=summary, pass_ends_s=ends_s)
    lengths = [after - before for before, after in pairwise(ends_s)]
    assert f"Passes 2 to {len(ends_s)} ended between 11 s and 74 s" in told(many)
    assert (
        f"shortest after {format_duration(min(lengths))}, the longest after {format_duration(max(lengths))}"
        in (told(many))
    )


def test_what_was_switched_off_is_said() -> None:
    never = fake(working_set_bytes=0, fallback_s=1e18)
    off = {
        "migration": {"auto_converge": False, "fallback_sync_interval": "never"},
        "link": {"bandwidth": 2.5e9},
    }
    text = "\n".join(story(never, off))
    assert "auto-converge is off" in text
    assert "was switched off" in text
    assert "over a link of 2.5 GB/s" in text


@pytest.mark.parametrize(
    ("time_s", "total_s", "text"),
    [(860.0, 1155.6, "14.33 min"), (0.05, 6.9, "0.05 s"), (3600.0, 86400.0, "1 h")],
)
def test_moments_have_the_unit_of_the_run(time_s: float, total_s: float, text: str) -> None:
    assert format_moment(time_s, total_s) == text


def test_what_was_done_to_it_is_told() -> None:
    base = fake()
    found = [
        ("qmp_enter_migrate_set_parameters", {"downtime_limit": 500, "max_bandwidth": "1GB/s"}),
        ("vm_state_notify", {"running": 0, "reason": "paused"}),
        ("vm_state_notify", {"running": 1, "reason": "running"}),
        ("qmp_enter_migrate_cancel", {}),
    ]
    events = [
        Event(time_s=float(place), event=name, arguments=said)
        for place, (name, said) in enumerate(found, start=1)
    ]
    text = told(replace(base, events=events))
    assert "downtime_limit was set to 500, max_bandwidth was set to 1GB/s; " in text
    assert re.search("the VM was paused; .* the VM was resumed; .* it was cancelled", text)
    many = told(replace(base, events=events * 5))
    assert many.count("the VM was paused") == 1
    assert "; and so on; " in many
