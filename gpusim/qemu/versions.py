"""QEMU's versions. Each is a composition of rules, and no other module tests for a version."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from gpusim.qemu.expected_downtime import ExpectedDowntime, ExpectedDowntimeOnDemand
from gpusim.qemu.parameters import Parameters
from gpusim.qemu.rules import (
    BandwidthPolicy,
    SwitchoverPolicy,
    SyncTimer,
    ThrottlePolicy,
)
from gpusim.qemu.switchover import (
    EveryTurnSwitchoverRule,
    InclusiveSwitchoverRule,
    NextReadySwitchoverRule,
    SwitchoverRule,
)
from gpusim.qemu.sync_timer import (
    FALLBACK_SYNC_INTERVAL_NS,
    SeedV2,
    SeedV3,
    SeedV4,
    SyncTimerRule,
    SyncTimerState,
)
from gpusim.qemu.throttle import EarlyThrottleRule, ThrottleRule
from gpusim.qemu.version_text import parse_version
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
        switchover_if_postcopy: makes the switchover rule if the capability postcopy-ram is on.
            None: the same rule.
        expected_downtime: makes what query-migrate shows as expected-downtime.
        bandwidth: makes the rule that estimates the switchover's bandwidth. None: that of the last
            window, as in every QEMU (gpusim.qemu.bandwidth.LastWindow).
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
        counts_every_sync: dirty-sync-count and the event MIGRATION_PASS have every sync. Since 11.1
            they have only the main loop's exact syncs, see sync.SyncAccounting.
        pending_event: the trace event of an exact sync's pending bytes.
        divides_whole_kilobytes: see switchover.switchover_bandwidth.
        sends_host_pages: QEMU sends a page of hugetlbfs without a break (since 2.9), with the rate
            limit inside (since 5.0, ram.c:ram_save_host_page, commit 97e1e06780).
        misaligned_ms: the time of a sync for misaligned RAM blocks, in the guest of the mail that
            config/schema.py names. Since 11.0 one clear per block replaces one clear per page
            (ram.c:physical_memory_sync_dirty_bitmap, commit e8a6d158db).
        has_multifd_with_postcopy: multifd and postcopy-ram may both be on (since 10.1,
            options.c:migrate_caps_check).
        has_preempt: the version has postcopy-preempt (since 7.1).
        preempts_by_return_path: requested pages are sent by a thread of their own (since 8.0). Before,
            the migration thread sends them when it has written its buffer.
        has_page_hint: with postcopy-preempt the background goes on behind a requested page (since
            10.1, commit 20d8262281).
        prefers_postcopy: a turn that may complete switches to post-copy if that was ordered (since
            10.1, migration.c:migration_iteration_run, commit 7aaa1fc072). Before, it completes.
        has_postcopy_device: the state is postcopy-device until the target has loaded its devices
            (since 10.2).
        throttle_needs_big_lock: the throttle's tick and the end of a vCPU's sleep wait while a sync
            holds the big lock, as in every QEMU.
    """

    throttle: Callable[[Parameters], ThrottlePolicy] = ThrottleRule
    sync_timer: Callable[[int, SyncTimerState | None], SyncTimer] = SyncTimerRule
    switchover: Callable[[], SwitchoverPolicy] = SwitchoverRule
    switchover_if_postcopy: Callable[[], SwitchoverPolicy] | None = None
    expected_downtime: Callable[[Parameters], ExpectedDowntime] = ExpectedDowntime
    bandwidth: Callable[[], BandwidthPolicy] | None = None
    foresees_ticks: bool = True
    released: bool = True
    fallback_sync_interval_ns: int | None
    counts_flushed_bytes: bool = True
    clears_in_last_stage: bool = True
    counts_every_sync: bool = True
    pending_event: str = "migrate_pending_exact"
    divides_whole_kilobytes: bool = True
    sends_host_pages: bool = True
    misaligned_ms: float = 61.0
    has_multifd: bool = True
    has_multifd_with_postcopy: bool = False
    has_preempt: bool = True
    preempts_by_return_path: bool = True
    has_page_hint: bool = False
    prefers_postcopy: bool = False
    has_postcopy_device: bool = False
    throttle_needs_big_lock: bool = True
    channels_find_zero_pages: bool = True
    syncs_channels_every_section: bool = False
    lacks: tuple[str, ...] = ()
    tracking: tuple[str, ...] = TRACKING_MODES


_SWITCHOVER_BANDWIDTH = ("avail_switchover_bandwidth",)  # since 8.2
_LATER_THROTTLE = ("throttle_trigger_threshold", "cpu_throttle_tailslow", "max_cpu_throttle")

# Commit 52ac968ab2 added the fallback sync. 10.0 makes the same decisions.
_MERGED = Version(fallback_sync_interval_ns=FALLBACK_SYNC_INTERVAL_NS)
# Commits 7aaa1fc072 (the comparison) and fd0377150d (no clear in the last stage).
_10_1 = replace(
    _MERGED,
    switchover=InclusiveSwitchoverRule,
    clears_in_last_stage=False,
    has_multifd_with_postcopy=True,
    has_page_hint=True,
    prefers_postcopy=True,
)
_10_2 = replace(_10_1, has_postcopy_device=True)
_11_0 = replace(_10_2, divides_whole_kilobytes=False, misaligned_ms=1.0)
# Besides, the final sync comes before QEMU inactivates the disks (commit 3c11e33016). The downtime
# is the same sum, so this changes no time of gpusim.
_11_1 = replace(
    _11_0,
    switchover=NextReadySwitchoverRule,
    switchover_if_postcopy=EveryTurnSwitchoverRule,
    expected_downtime=ExpectedDowntimeOnDemand,
    counts_every_sync=False,
    pending_event="qemu_savevm_query_pending",
)

_SERIES = re.compile(
    r"(?:patch|series|v)[-_ ]?v?([234])"
)  # the posted versions of the fallback sync

VERSIONS = {
    "qemu_2_6": Version(
        throttle=EarlyThrottleRule,
        fallback_sync_interval_ns=None,
        counts_flushed_bytes=False,
        has_multifd=False,
        has_preempt=False,
        preempts_by_return_path=False,
        sends_host_pages=False,
        tracking=("kvm_legacy", "tcg"),  # manual protect since 5.0, the dirty ring since 6.1
        lacks=_SWITCHOVER_BANDWIDTH + _LATER_THROTTLE,
    ),
    # qemu-file.c counts rate_limit_used when it queues. 8.2 and later read
    # mig_stats after the flush.
    "qemu_7_2": Version(
        fallback_sync_interval_ns=None,
        counts_flushed_bytes=False,
        preempts_by_return_path=False,
        channels_find_zero_pages=False,
        syncs_channels_every_section=True,
        lacks=_SWITCHOVER_BANDWIDTH,
    ),
    "qemu_8_2": Version(fallback_sync_interval_ns=None, channels_find_zero_pages=False),
    "qemu_9_1": Version(fallback_sync_interval_ns=None),
    "qemu_9_2": _MERGED,
    "qemu_10_1": _10_1,
    "qemu_10_2": _10_2,  # changes nothing in precopy
    "qemu_11_0": _11_0,
    "qemu_11_1": _11_1,
    # The posted versions of the series. They differ from 9.2 only in the timer.
    "seed_v2": replace(_MERGED, sync_timer=SeedV2, released=False),
    "seed_v3": replace(_MERGED, sync_timer=SeedV3, released=False),
    "seed_v4": replace(_MERGED, sync_timer=SeedV4, released=False),
    # In no QEMU, see what_if.py.
    "what_if_first_pass": replace(_MERGED, sync_timer=FirstPassSyncTimerRule, released=False),
    "what_if_responsive": replace(_MERGED, throttle=ResponsiveThrottleRule, released=False),
    "what_if_over_clean": replace(_MERGED, throttle=OverCleanThrottleRule, released=False),
    # The throttle's timer in a thread of its own, and the sleep without the big lock.
    "what_if_tick_outside_lock": replace(_MERGED, throttle_needs_big_lock=False, released=False),
    # 11.1 that syncs for want of precopy bytes only if bytes are left for the stop of the VM. RAM
    # has none of these, so postcopy-ram changes nothing.
    "what_if_11_1_fixed": replace(_11_1, switchover_if_postcopy=None, released=False),
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


def find_version(text: object) -> str | None:
    """Return the version that a text means: "qemu_8_2" for "8.2.2", "seed_v3" for "patch_v3"."""
    series = _SERIES.fullmatch(str(text))
    if series:
        return f"seed_v{series[1]}"
    try:
        return nearest(parse_version(text))
    except ValueError:
        return None
