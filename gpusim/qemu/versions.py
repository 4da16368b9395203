"""QEMU's versions, each a composition of rules. No other module asks for a version."""

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
    """What one QEMU does.

    Attributes:
        throttle, sync_timer, switchover: make a migration's rules; rules.py says what those offer.
        foresees_ticks: a tick that its timer's rule does not want now it will not want later, whatever
            syncs come before; so nobody need stop to ask.
        released: False: a patch that was posted, or what somebody might do.
        fallback_sync_interval_ns: None: it has no fallback sync.
        counts_flushed_bytes: the rate limit sees bytes when they are flushed, not when queued.
        lacks: parameters that it does not have; they stay at gpusim's defaults.
        tracking: the modes that it knows.
        has_multifd: since 4.0.
        channels_find_zero_pages: zero-page-detection=multifd, the default since 9.0 (commit
            70c25c92e6); before, the migration thread finds them.
        syncs_channels_every_section: as ram_save_iterate does before 8.1 and, with
            multifd-flush-after-each-section, after; if not, as the cursor comes round (commit 294e5a4034).
        clears_in_last_stage: a chunk is cleared before its first page once the VM has stopped, too;
            10.1 skips it (ram.c:migration_bitmap_clear_dirty).
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

# Commit 52ac968ab2 added the fallback sync; 10.0 decides the same.
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
    # qemu-file.c counts rate_limit_used as it queues; 8.2 and later ask mig_stats after the flush.
    "qemu_7_2": Version(
        fallback_sync_interval_ns=None,
        counts_flushed_bytes=False,
        channels_find_zero_pages=False,
        syncs_channels_every_section=True,
        lacks=_SWITCHOVER_BANDWIDTH,
    ),
    "qemu_9_1": Version(fallback_sync_interval_ns=None),
    "qemu_9_2": _MERGED,
    # Commits 7aaa1fc072 (the comparison) and fd0377150d (no clear in the last stage).
    "qemu_10_1": replace(_MERGED, switchover=InclusiveSwitchoverRule, clears_in_last_stage=False),
    # The series before it was merged, on the QEMU it was written for: 9.1 and its own timer.
    "seed_v2": replace(_MERGED, sync_timer=SeedV2, released=False),
    "seed_v3": replace(_MERGED, sync_timer=SeedV3, released=False),
    "seed_v4": replace(_MERGED, sync_timer=SeedV4, released=False),
    # No QEMU's: see what_if.py.
    "what_if_first_pass": replace(_MERGED, sync_timer=FirstPassSyncTimerRule, released=False),
    "what_if_responsive": replace(_MERGED, throttle=ResponsiveThrottleRule, released=False),
    "what_if_over_clean": replace(_MERGED, throttle=OverCleanThrottleRule, released=False),
}


def nearest(qemu: tuple[int, ...]) -> str:
    """The released version here that decides as a QEMU does; for one between two, the older.

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
    known[8, 2] = known[9, 1]  # and the rate limit counts as in 9.1
    older = [version for version in known if version <= tuple(qemu[:2])]
    return known[max(older, default=min(known))]
