"""What is each QEMU made of?"""

from __future__ import annotations

import pytest

from gpusim.qemu.switchover import SwitchoverRule
from gpusim.qemu.sync_timer import SyncTimerRule
from gpusim.qemu.throttle import ThrottleRule
from gpusim.qemu.versions import VERSIONS

FIVE_S_NS = 5 * 10**9


@pytest.mark.parametrize(
    ("name", "interval_ns", "counts_flushed_bytes", "has_avail_switchover_bandwidth"),
    [
        ("qemu_7_2", None, False, False),
        ("qemu_9_1", None, True, True),
        ("qemu_9_2", FIVE_S_NS, True, True),
    ],
)
def test_composition(
    name: str,
    interval_ns: int | None,
    counts_flushed_bytes: bool,
    has_avail_switchover_bandwidth: bool,
) -> None:
    version = VERSIONS[name]
    assert version.fallback_sync_interval_ns == interval_ns
    assert version.counts_flushed_bytes == counts_flushed_bytes
    assert version.has_avail_switchover_bandwidth == has_avail_switchover_bandwidth
    assert version.throttle is ThrottleRule
    assert version.sync_timer is SyncTimerRule
    assert version.switchover is SwitchoverRule


@pytest.mark.parametrize(
    ("name", "channels_find_zero_pages", "syncs_channels_every_section"),
    [("qemu_7_2", False, True), ("qemu_9_1", True, False), ("qemu_9_2", True, False)],
)
def test_multifd(
    name: str, channels_find_zero_pages: bool, syncs_channels_every_section: bool
) -> None:
    version = VERSIONS[name]
    assert version.has_multifd
    assert version.channels_find_zero_pages == channels_find_zero_pages
    assert version.syncs_channels_every_section == syncs_channels_every_section


def test_the_table_above_names_all_versions() -> None:
    assert set(VERSIONS) == {"qemu_7_2", "qemu_9_1", "qemu_9_2"}
