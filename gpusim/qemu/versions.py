"""QEMU's versions, each a composition of rules. No other module asks for a version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpusim.qemu.parameters import Parameters
from gpusim.qemu.switchover import SwitchoverRule
from gpusim.qemu.sync_timer import (
    FALLBACK_SYNC_INTERVAL_NS,
    SeedV3,
    SeedV4,
    SyncTimerRule,
    SyncTimerState,
)
from gpusim.qemu.throttle import ThrottleRule


@dataclass(frozen=True, kw_only=True)
class Version:
    """What one QEMU does.

    Attributes:
        released: False: a patch that was posted, or what somebody might do.
        fallback_sync_interval_ns: None: it has no fallback sync.
        counts_flushed_bytes: the rate limit sees bytes when they are flushed, not when queued.
        has_avail_switchover_bandwidth: since 8.2.
    """

    throttle: Callable[[Parameters], ThrottleRule] = ThrottleRule
    sync_timer: Callable[[SyncTimerState | None], SyncTimerRule] = SyncTimerRule
    switchover: Callable[[], SwitchoverRule] = SwitchoverRule
    released: bool = True
    fallback_sync_interval_ns: int | None
    counts_flushed_bytes: bool
    has_avail_switchover_bandwidth: bool


VERSIONS = {
    # qemu-file.c counts rate_limit_used as it queues; 8.2 and later ask mig_stats after the flush.
    "qemu_7_2": Version(
        fallback_sync_interval_ns=None,
        counts_flushed_bytes=False,
        has_avail_switchover_bandwidth=False,
    ),
    "qemu_9_1": Version(
        fallback_sync_interval_ns=None,
        counts_flushed_bytes=True,
        has_avail_switchover_bandwidth=True,
    ),
    # The series as posted, on the QEMU of its day (9.1).
    "seed_v3": Version(
        sync_timer=SeedV3,
        released=False,
        fallback_sync_interval_ns=FALLBACK_SYNC_INTERVAL_NS,
        counts_flushed_bytes=True,
        has_avail_switchover_bandwidth=True,
    ),
    "seed_v4": Version(
        sync_timer=SeedV4,
        released=False,
        fallback_sync_interval_ns=FALLBACK_SYNC_INTERVAL_NS,
        counts_flushed_bytes=True,
        has_avail_switchover_bandwidth=True,
    ),
    # Commit 52ac968ab2 added the fallback sync; 10.0 decides the same.
    "qemu_9_2": Version(
        fallback_sync_interval_ns=FALLBACK_SYNC_INTERVAL_NS,
        counts_flushed_bytes=True,
        has_avail_switchover_bandwidth=True,
    ),
}
