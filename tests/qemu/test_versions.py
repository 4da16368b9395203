"""Which rules does each version use?"""

from __future__ import annotations

from typing import Any

import pytest

from gpusim.qemu.switchover import InclusiveSwitchoverRule, SwitchoverRule
from gpusim.qemu.sync_timer import SeedV2, SeedV3, SeedV4, SyncTimerRule
from gpusim.qemu.throttle import EarlyThrottleRule, ThrottleRule
from gpusim.qemu.versions import VERSIONS, Version
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
    "fallback_sync_interval_ns": FIVE_S_NS,
    "counts_flushed_bytes": True,
    "clears_in_last_stage": True,
    "has_multifd": True,
    "channels_find_zero_pages": True,
    "syncs_channels_every_section": False,
    "lacks": (),
    "tracking": ("kvm_manual", "kvm_legacy", "dirty_ring", "tcg"),
}
THE_OTHERS: dict[str, dict[str, Any]] = {
    "qemu_2_6": {
        "throttle": EarlyThrottleRule,
        "fallback_sync_interval_ns": None,
        "counts_flushed_bytes": False,
        "has_multifd": False,
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
        "channels_find_zero_pages": False,
        "syncs_channels_every_section": True,
        "lacks": ("avail_switchover_bandwidth",),
    },
    "qemu_8_2": {"fallback_sync_interval_ns": None, "channels_find_zero_pages": False},
    "qemu_9_1": {"fallback_sync_interval_ns": None},
    "qemu_9_2": {},
    "qemu_10_1": {"switchover": InclusiveSwitchoverRule, "clears_in_last_stage": False},
    "seed_v2": {"sync_timer": SeedV2},
    "seed_v3": {"sync_timer": SeedV3},
    "seed_v4": {"sync_timer": SeedV4},
    "what_if_first_pass": {"sync_timer": FirstPassSyncTimerRule},
    "what_if_responsive": {"throttle": ResponsiveThrottleRule},
    "what_if_over_clean": {"throttle": OverCleanThrottleRule},
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
