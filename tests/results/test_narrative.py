"""Does the narrative hold the facts of the records, for every way a migration can go?"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from gpusim.engine.records import Event, Result, SyncRecord
from gpusim.results.narrative import find_steps, narrate
from gpusim.results.turning_points import pass_borders, rises
from gpusim.text import format_duration, format_moment
from tests.golden import check_golden
from tests.results.runs import CONFIG, RUNS, fake


def steps_of(result: Result, config: Any = CONFIG) -> dict[str, Any]:
    """Code -> data of each step."""
    return {step.code: step.data for step in find_steps(result, config)}


@pytest.mark.parametrize("name", RUNS)
def test_every_run_is_told_in_at_most_ten_paragraphs(name: str) -> None:
    for config in (CONFIG, None):
        steps = find_steps(RUNS[name](), config)
        lines = narrate(RUNS[name](), config)
        assert 4 <= len(lines) == len(steps) <= 10
        for line in lines:
            assert line[0].isupper() or line[0].isdigit()
            assert line.endswith(".")
            assert ".." not in line
            assert not re.search(r"None|nan|inf\b|  |;", line)


def test_the_texts_are_those_of_the_golden_file() -> None:
    names = ("converged", "never_throttled_no_fallback", "not_converged", "incomplete")
    text = "\n\n".join("\n".join([f"# {name}", *narrate(RUNS[name](), CONFIG)]) for name in names)
    check_golden("narrative", f"{text}\n")


@pytest.mark.parametrize("name", RUNS)
def test_the_codes_follow_from_the_summary(name: str) -> None:
    result = RUNS[name]()
    summary, steps = result.summary, steps_of(RUNS[name]())
    ended = summary.first_pass_s is not None and len(result.syncs) > 1
    assert ("first_pass" in steps) == ended
    assert ("throttle_start" in steps) == bool(summary.max_throttle_percent)
    assert ("never_throttled" in steps) != bool(summary.max_throttle_percent)
    assert ("converged" in steps) == (summary.verdict == "converged")
    assert ("stopped" in steps) == (summary.verdict is None)
    assert steps["sent"]["summary"] == summary
    if summary.fallback_sync_count:
        assert len(steps["fallback_syncs"]["times_s"]) == summary.fallback_sync_count
        assert steps["fallback_syncs"]["syncs"] == len(result.syncs)
    else:
        assert "no_fallback_sync" in steps
    if "converged" in steps:
        assert steps["converged"]["downtime_limit_ms"] == 400
        assert steps["converged"]["downtime_ms"] == summary.downtime_ms


def test_the_throttles_reasons_are_two_periods_above_the_threshold() -> None:
    """FakeMigration does not count high periods as QEMU does, so the syncs are written here."""
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
        sync(20, 1, 0, 4 * gib),  # not high, and the count stays
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
    steps = steps_of(result)
    start = steps["throttle_start"]
    assert (start["time_s"], start["percent"], start["trigger_percent"]) == (30, 20, 50)
    assert [sync.time_s for sync in start["periods"]] == [10, 30]
    later = steps["throttle_increases"]
    assert (later["increases"], later["time_s"], later["percent"]) == (1, 50, 30)
    fallback = steps["fallback_syncs"]
    assert fallback["times_s"] == [30]
    assert (fallback["increases_at_fallback_syncs"], fallback["increases"]) == (1, 2)
    assert not fallback["only_fallback_syncs"]
    text = "\n".join(narrate(result, CONFIG))
    assert "6 GiB dirtied, 10 GiB sent in 4 s (60 %) and 8 GiB dirtied" in text


def test_few_passes_are_told_one_by_one_and_many_as_a_group() -> None:
    base = fake(link_rate=1e8, write_rate=1.5e8)
    summary = replace(base.summary, total_time_s=100.0)
    few = replace(base, summary=summary, pass_ends_s=[10.0, 20.5, 40.25])
    assert pass_borders(few) == [0.0, 10.0, 20.5, 40.25, 100.0]
    assert steps_of(few)["later_passes"]["ends_s"] == [10.0, 20.5, 40.25]
    assert "20.5 s and 40.25 s" in narrate(few)[2]
    ends_s = [10.0 + step**2 for step in range(9)]
    text = narrate(replace(base, summary=summary, pass_ends_s=ends_s))[2]
    lengths = [after - before for before, after in pairwise(ends_s)]
    for part in ("11 s", "74 s", format_duration(min(lengths)), format_duration(max(lengths))):
        assert part in text


def test_settings_that_are_off_have_codes_of_their_own() -> None:
    never = fake(working_set_bytes=0, fallback_s=1e18)
    off = {
        "migration": {"auto_converge": False, "fallback_sync_interval": "never"},
        "link": {"bandwidth": 2.5e9},
    }
    steps = steps_of(never, off)
    assert {"auto_converge_off", "fallback_timer_off"} <= {*steps}
    assert "2.5 GB/s" in narrate(never, off)[0]
    rule = {"migration": {"throttle_rule": {"target": "my_rules:Throttle"}}}
    assert steps_of(never, rule)["rule_never_throttled"]["rule"] == "my_rules:Throttle"
    throttled = fake(link_rate=1e8, write_rate=1.5e8)
    assert steps_of(throttled, rule)["throttle_start"]["rule"] == "my_rules:Throttle"


@pytest.mark.parametrize(
    ("time_s", "total_s", "text"),
    [(860.0, 1155.6, "14.33 min"), (0.05, 6.9, "0.05 s"), (3600.0, 86400.0, "1 h")],
)
def test_moments_have_the_unit_of_the_run(time_s: float, total_s: float, text: str) -> None:
    assert format_moment(time_s, total_s) == text


def test_actions_are_told_in_order_and_at_most_six() -> None:
    base = fake()
    found: list[tuple[str, dict[str, Any]]] = [
        ("qmp_enter_migrate_set_parameters", {"downtime_limit": 500, "max_bandwidth": "1GB/s"}),
        ("vm_state_notify", {"running": 0, "reason": "paused"}),
        ("vm_state_notify", {"running": 1, "reason": "running"}),
        ("qmp_enter_migrate_cancel", {}),
    ]
    events = [
        Event(time_s=float(place), event=name, arguments=arguments)
        for place, (name, arguments) in enumerate(found, start=1)
    ]
    result = replace(base, events=[*base.events, *events])
    assert steps_of(result)["actions"]["events"] == events
    (text,) = [line for line in narrate(result) if "resumed" in line]
    assert "downtime_limit was set to 500 and max_bandwidth was set to 1GB/s" in text
    assert re.search("the VM was paused.* the VM was resumed.* was cancelled", text)
    (many,) = [line for line in narrate(replace(base, events=events * 5)) if "resumed" in line]
    assert many.count("At ") == 5
    assert "15 more actions" in many


@pytest.mark.parametrize(
    ("stated", "vcpus", "devices", "ms"),
    [("auto", 10, 1, 91.0), ("auto", 32, 0, 74.4), (0.0, 32, 1, 0.0), (12.5, 32, 1, 12.5)],
)
def test_the_end_tells_the_downtime_that_is_not_for_ram(
    stated: float | str, vcpus: int, devices: int, ms: float
) -> None:
    vm = CONFIG["vm"] | {"vcpus": vcpus, "vfio_devices": devices}
    config = CONFIG | {"vm": vm, "link": CONFIG["link"] | {"non_ram_downtime_ms": stated}}
    step = steps_of(RUNS["converged"](), config)["converged"]
    assert step["non_ram_downtime_ms"] == pytest.approx(ms)
    (text,) = (line for line in narrate(RUNS["converged"](), config) if "stopped the VM" in line)
    assert ("link.non_ram_downtime_ms" in text) == (ms > 0)
