"""Which rules does each version use?"""

from __future__ import annotations

from typing import Any

import pytest

from gpusim.qemu.expected_downtime import ExpectedDowntime, ExpectedDowntimeOnDemand
from gpusim.qemu.switchover import (
    EveryTurnSwitchoverRule,
    InclusiveSwitchoverRule,
    NextReadySwitchoverRule,
    SwitchoverRule,
)
from gpusim.qemu.sync_timer import SeedV2, SeedV3, SeedV4, SyncTimerRule
from gpusim.qemu.throttle import EarlyThrottleRule, ThrottleRule
from gpusim.qemu.versions import VERSIONS, Version, nearest
from gpusim.qemu.what_if import (
    FirstPassSyncTimerRule,
    OverCleanThrottleRule,
    ResponsiveThrottleRule,
)

FIVE_S_NS = 5 * 10**9
AS_MERGED: dict[str, Any] = {
    "throttle": ThrottleRule,
    "sync_timer": SyncTimerRule,
    "switchover": SwitchoverRule,
    "switchover_if_postcopy": None,
    "expected_downtime": ExpectedDowntime,
    "counts_every_sync": True,
    "pending_event": "migrate_pending_exact",
    "divides_whole_kilobytes": True,
    "misaligned_ms": 61.0,
    "has_multifd_with_postcopy": False,
    "fallback_sync_interval_ns": FIVE_S_NS,
    "counts_flushed_bytes": True,
    "clears_in_last_stage": True,
    "has_multifd": True,
    "channels_find_zero_pages": True,
    "syncs_channels_every_section": False,
    "has_preempt": True,
    "preempts_by_return_path": True,
    "has_page_hint": False,
    "prefers_postcopy": False,
    "has_postcopy_device": False,
    "lacks": (),
    "tracking": ("kvm_manual", "kvm_legacy", "dirty_ring", "tcg"),
}
AS_10_1 = {
    "switchover": InclusiveSwitchoverRule,
    "clears_in_last_stage": False,
    "has_multifd_with_postcopy": True,
    "has_page_hint": True,
    "prefers_postcopy": True,
}
AS_10_2 = {**AS_10_1, "has_postcopy_device": True}
AS_11_0 = {**AS_10_2, "divides_whole_kilobytes": False, "misaligned_ms": 1.0}
AS_11_1 = {
    **AS_11_0,
    "switchover": NextReadySwitchoverRule,
    "switchover_if_postcopy": EveryTurnSwitchoverRule,
    "expected_downtime": ExpectedDowntimeOnDemand,
    "counts_every_sync": False,
    "pending_event": "qemu_savevm_query_pending",
}
THE_OTHERS: dict[str, dict[str, Any]] = {
    "qemu_2_6": {
        "throttle": EarlyThrottleRule,
        "fallback_sync_interval_ns": None,
        "counts_flushed_bytes": False,
        "has_multifd": False,
        "has_preempt": False,
        "preempts_by_return_path": False,
        "sends_host_pages": False,
        "tracking": ("kvm_legacy", "tcg"),
        "lacks": (
            "avail_switchover_bandwidth",
            "throttle_trigger_threshold",
            "cpu_throttle_tailslow",
            "max_cpu_throttle",
        ),
    },
    "qemu_7_2": {
        "fallback_sync_interval_ns": None,
        "counts_flushed_bytes": False,
        "preempts_by_return_path": False,
        "channels_find_zero_pages": False,
        "syncs_channels_every_section": True,
        "lacks": ("avail_switchover_bandwidth",),
    },
    "qemu_8_2": {"fallback_sync_interval_ns": None, "channels_find_zero_pages": False},
    "qemu_9_1": {"fallback_sync_interval_ns": None},
    "qemu_9_2": {},
    "qemu_10_1": AS_10_1,
    "qemu_10_2": AS_10_2,
    "qemu_11_0": AS_11_0,
    "qemu_11_1": AS_11_1,
    "seed_v2": {"sync_timer": SeedV2},
    "seed_v3": {"sync_timer": SeedV3},
    "seed_v4": {"sync_timer": SeedV4},
    "what_if_first_pass": {"sync_timer": FirstPassSyncTimerRule},
    "what_if_responsive": {"throttle": ResponsiveThrottleRule},
    "what_if_over_clean": {"throttle": OverCleanThrottleRule},
    "what_if_tick_outside_lock": {"throttle_needs_big_lock": False},
    "what_if_11_1_fixed": {**AS_11_1, "switchover_if_postcopy": None},
}


@pytest.mark.parametrize(("name", "differs"), THE_OTHERS.items())
def test_composition(name: str, differs: dict[str, Any]) -> None:
    released = name.startswith("qemu_")
    assert VERSIONS[name] == Version(**{**AS_MERGED, **differs}, released=released)


@pytest.mark.parametrize(
    ("name", "channels_find_zero_pages", "syncs_channels_every_section"),
    [
        ("qemu_7_2", False, True),
        ("qemu_8_2", False, False),
        ("qemu_9_1", True, False),
        ("qemu_9_2", True, False),
    ],
)
def test_multifd(
    name: str, channels_find_zero_pages: bool, syncs_channels_every_section: bool
) -> None:
    version = VERSIONS[name]
    assert version.has_multifd
    assert version.channels_find_zero_pages == channels_find_zero_pages
    assert version.syncs_channels_every_section == syncs_channels_every_section


def test_the_table_above_names_all_versions() -> None:
    assert set(VERSIONS) == set(THE_OTHERS)


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ((8, 1), "qemu_7_2"),
        ((8, 2, 10), "qemu_8_2"),
        ((9, 0), "qemu_9_1"),
        ((9, 1), "qemu_9_1"),
        ((9, 2, 4), "qemu_9_2"),
        ((10, 0, 13), "qemu_9_2"),
        ((10, 1), "qemu_10_1"),
        ((10, 2, 4), "qemu_10_2"),
        ((11, 0, 3), "qemu_11_0"),
        ((11, 1, 3), "qemu_11_1"),
        ((12, 0), "qemu_11_1"),
    ],
)
def test_a_release_decides_as_the_newest_version_that_is_not_newer(
    release: tuple[int, ...], name: str
) -> None:
    assert nearest(release) == name
