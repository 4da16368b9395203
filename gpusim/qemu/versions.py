"""QEMU's versions. Each is a composition of rules, and no other module tests for a version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from gpusim.qemu.parameters import Parameters
from gpusim.qemu.rules import SwitchoverPolicy, SyncTimerPolicy, ThrottlePolicy
from gpusim.qemu.switchover import InclusiveSwitchoverRule, SwitchoverRule
from gpusim.qemu.sync_timer import (
    FALLBACK_SYNC_INTERVAL_NS,
    SeedV2,
    SeedV3,
    SeedV4,
    SyncTimerRule,
    SyncTimerState,
)
from gpusim.qemu.throttle import EarlyThrottleRule, ThrottleRule
from gpusim.qemu.what_if import (
    FirstPassSyncTimerRule,
    OverCleanThrottleRule,
    ResponsiveThrottleRule,
)

TRACKING_MODES = ("kvm_manual", "kvm_legacy", "dirty_ring", "tcg")


@dataclass(frozen=True, kw_only=True)
class Version:
    """The behaviour of one QEMU version.

    Attributes:
        throttle, sync_timer, switchover: make the rules of a migration, see rules.py.
        foresees_ticks: if the timer's rule rejects a tick's sync now, then it rejects it later as
            well, whatever syncs come before. The engine then need not stop at that tick.
        released: False for a posted patch or a what-if rule.
        fallback_sync_interval_ns: interval of the fallback sync, or None if there is none.
        counts_flushed_bytes: the rate limit counts bytes when they are flushed, not when queued.
        lacks: parameters that the version lacks. They keep gpusim's defaults.
        tracking: the tracking modes that the version supports.
        has_multifd: the version has multifd (since 4.0).
        channels_find_zero_pages: zero-page-detection=multifd, the default since 9.0 (commit
            70c25c92e6). Before 9.0 the migration thread detects zero pages.
        syncs_channels_every_section: multifd channels sync after every section, as
            ram_save_iterate does before 8.1. Later versions sync when the cursor wraps (commit
            294e5a4034), unless multifd-flush-after-each-section is set.
        clears_in_last_stage: chunks are also cleared after the VM has stopped. 10.1 skips that
            (ram.c:migration_bitmap_clear_dirty).
    """

    throttle: Callable[[Parameters], ThrottlePolicy] = ThrottleRule
    sync_timer: Callable[[int, SyncTimerState | None], SyncTimerPolicy] = SyncTimerRule
    switchover: Callable[[], SwitchoverPolicy] = SwitchoverRule
    foresees_ticks: bool = True
    released: bool = True
    fallback_sync_interval_ns: int | None
    counts_flushed_bytes: bool = True
    clears_in_last_stage: bool = True
    has_multifd: bool = True
    channels_find_zero_pages: bool = True
    syncs_channels_every_section: bool = False
    lacks: tuple[str, ...] = ()
    tracking: tuple[str, ...] = TRACKING_MODES


_SWITCHOVER_BANDWIDTH = ("avail_switchover_bandwidth",)  # since 8.2
_LATER_THROTTLE = ("throttle_trigger_threshold", "cpu_throttle_tailslow", "max_cpu_throttle")

# Commit 52ac968ab2 added the fallback sync. 10.0 makes the same decisions.
_MERGED = Version(fallback_sync_interval_ns=FALLBACK_SYNC_INTERVAL_NS)

VERSIONS = {
    "qemu_2_6": Version(
        throttle=EarlyThrottleRule,
        fallback_sync_interval_ns=None,
        counts_flushed_bytes=False,
        has_multifd=False,
        tracking=("kvm_legacy", "tcg"),  # manual protect since 5.0, the dirty ring since 6.1
        lacks=_SWITCHOVER_BANDWIDTH + _LATER_THROTTLE,
    ),
    # qemu-file.c counts rate_limit_used when it queues. 8.2 and later read
    # mig_stats after the flush.
    "qemu_7_2": Version(
        fallback_sync_interval_ns=None,
        counts_flushed_bytes=False,
        channels_find_zero_pages=False,
        syncs_channels_every_section=True,
        lacks=_SWITCHOVER_BANDWIDTH,
    ),
    "qemu_8_2": Version(fallback_sync_interval_ns=None, channels_find_zero_pages=False),
    "qemu_9_1": Version(fallback_sync_interval_ns=None),
    "qemu_9_2": _MERGED,
    # Commits 7aaa1fc072 (the comparison) and fd0377150d (no clear in the last stage).
    "qemu_10_1": replace(_MERGED, switchover=InclusiveSwitchoverRule, clears_in_last_stage=False),
    # The posted versions of the series. They differ from 9.2 only in the timer.
    "seed_v2": replace(_MERGED, sync_timer=SeedV2, released=False),
    "seed_v3": replace(_MERGED, sync_timer=SeedV3, released=False),
    "seed_v4": replace(_MERGED, sync_timer=SeedV4, released=False),
    # In no QEMU, see what_if.py.
    "what_if_first_pass": replace(_MERGED, sync_timer=FirstPassSyncTimerRule, released=False),
    "what_if_responsive": replace(_MERGED, throttle=ResponsiveThrottleRule, released=False),
    "what_if_over_clean": replace(_MERGED, throttle=OverCleanThrottleRule, released=False),
}


def nearest(qemu: tuple[int, ...]) -> str:
    """Return the name of the version in VERSIONS that decides as a QEMU release does.

    For a release between two versions it is the older version.

    Args:
        qemu: (major, minor, ...).
    """
    known = {
        (int(major), int(minor)): name
        for name, rules in VERSIONS.items()
        if rules.released
        for major, minor in [name.removeprefix("qemu_").split("_")]
    }
    known[5, 0] = known[7, 2]  # the throttle's parameters came with 5.0 and 5.1
    known[9, 0] = known[9, 1]  # the channels find zero pages as in 9.1
    older = [version for version in known if version <= tuple(qemu[:2])]
    return known[max(older, default=min(known))]
