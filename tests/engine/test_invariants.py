"""Do the records of a migration agree with each other, whatever happens and whenever?"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim import AttemptConfig, Config, Result, TrackingConfig, WriterConfig, simulate
from gpusim.qemu.versions import TRACKING_MODES, VERSIONS
from tests.engine.scenarios import config
from tests.engine.ticked import simulate_ticked
from tests.guest.naive import SLOW_MACHINE

ACTIONS = st.sampled_from([
    {"do": "pause"}, {"do": "resume"}, {"do": "cancel"}, {"set": {"max_bandwidth": 70_000_000}},
    {"set": {"downtime_limit": 40, "cpu_throttle_increment": 35}}, {"set": {"max_cpu_throttle": 60}},
])  # fmt: skip
WHEN = st.one_of(
    st.builds(lambda at: {"at": at}, st.floats(0, 25)),
    # on the grid of the timer, and during a fallback sync
    st.builds(lambda tick, late: {"at": 0.7 * tick + late}, st.integers(1, 30), st.floats(0, 0.3)),
    st.builds(lambda count: {"at_sync": count}, st.integers(1, 25)),
)
SCHEDULES = st.lists(st.builds(lambda when, action: when | action, WHEN, ACTIONS), max_size=4)


@st.composite
def migrations(draw: st.DrawFn) -> Config:
    """Draw short migrations of every version, with syncs that take time and with a schedule."""
    able = (name for name, v in VERSIONS.items() if "max_cpu_throttle" not in v.lacks)
    version = draw(st.sampled_from(sorted(able)))
    timer = VERSIONS[version].fallback_sync_interval_ns is not None
    tracking = TrackingConfig(
        mode=draw(st.sampled_from(sorted(set(TRACKING_MODES) & set(VERSIONS[version].tracking)))),
        initially_set=draw(st.booleans()),
        listeners_ms=draw(st.sampled_from([0.0, 90.0, 900.0])),
        misaligned_ms=draw(st.sampled_from([0.0, 40.0])),
        waits_for_burst=draw(st.booleans()),
        protect_ns_per_page=draw(st.sampled_from([0.0, 300.0])),
        first_write_cost_ns=draw(st.sampled_from([0.0, 3000.0])),
    )
    base = config(
        "512MiB",
        WriterConfig(
            working_set="200MiB", page_writes_per_s=draw(st.sampled_from([5e3, 4e4, 3e5]))
        ),
        bandwidth=draw(st.sampled_from(["60MB/s", "unlimited"])),
        tracking=tracking,
        limit_s=draw(st.floats(1, 40)),
        max_bandwidth=draw(st.sampled_from([0, 60_000_000])),
        version=version,
        **({"fallback_sync_interval": "700ms"} if timer else {}),
    )
    link = replace(
        base.link, bandwidth="60MB/s" if not base.migration.max_bandwidth else base.link.bandwidth
    )
    vm = replace(base.vm, zero_percent=draw(st.sampled_from([0.0, 30.0])))
    schedules = draw(st.lists(SCHEDULES, min_size=1, max_size=2))
    if len(schedules) == 1:
        return replace(base, vm=vm, link=link, schedule=schedules[0])
    attempts = [AttemptConfig(schedule=schedules[0]), AttemptConfig(after=1, schedule=schedules[1])]
    return replace(base, vm=vm, link=link, attempts=attempts)


@settings(SLOW_MACHINE, max_examples=50, derandomize=True)
@given(migrations())
def test_records_agree(made: Config) -> None:
    found = simulate(made)
    for result in (*(attempt.result for attempt in found.before), found):
        assert_sound(result)
    ticked = simulate_ticked(made)
    assert (ticked.events, ticked.syncs) == (found.events, found.syncs)


def assert_sound(result: Result) -> None:
    summary, syncs = result.summary, result.syncs
    names = [event.event for event in result.events]
    times = [event.time_s for event in result.events]
    assert times == sorted(times)
    counts = [sync.dirty_sync_count for sync in syncs]
    if VERSIONS[summary.qemu_version].counts_every_sync:
        assert counts == list(range(1, len(syncs) + 1))
    else:
        exact = [sync.kind == "exact" for sync in syncs]
        ended = list(accumulate(exact, initial=1))[1:]
        assert counts[:-1] == ended[:-1]
        # The end of the run may cut an exact sync, which QEMU then never counts.
        assert counts[-1:] == ended[-1:] or (exact[-1] and counts[-1] == ended[-1] - 1)
    assert summary.bitmap_sync_count == len(syncs)
    for before, after in pairwise(syncs):  # syncs do not overlap
        assert after.time_s >= before.time_s + before.duration_ms / 1000 - 1e-9
    pages = 2**17
    sent = summary.normal_pages + summary.zero_pages
    newly = sum(sync.newly_dirty_pages for sync in syncs)
    assert pages + newly == sent + summary.remaining_bytes // 4096
    assert 0 <= summary.sync_stall_s <= summary.total_time_s + 1e-9
    assert 0 <= summary.main_loop_stall_s <= summary.total_time_s + 1e-9
    assert 0 <= summary.paused_s <= summary.total_time_s + 1e-9
    assert summary.guest_cpu_lost_s >= 0
    if summary.verdict == "converged":
        assert names[-1] == "migrate_set_state"
        assert result.events[-1].arguments == {"new_state": "completed"}
        assert "qmp_enter_migrate_cancel" not in names
    if summary.verdict in ("cancelled", "aborted"):
        assert names.count("qmp_enter_migrate_cancel") == 1
        assert summary.total_time_s == pytest.approx(times[-1 - (summary.verdict == "aborted")])
