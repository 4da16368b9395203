"""QEMU's versions, each a composition of rules. No other module asks for a version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpusim.qemu.parameters import Parameters
from gpusim.qemu.switchover import SwitchoverRule
from gpusim.qemu.sync_timer import FALLBACK_SYNC_INTERVAL_NS, SyncTimerRule
from gpusim.qemu.throttle import ThrottleRule


@dataclass(frozen=True, kw_only=True)
class Version:
    """What one QEMU does.

    Attributes:
        fallback_sync_interval_ns: None: it has no fallback sync.
        counts_flushed_bytes: the rate limit sees bytes when they are flushed, not when queued.
        has_avail_switchover_bandwidth: since 8.2.
        has_multifd: since 4.0.
        channels_find_zero_pages: zero-page-detection=multifd, the default since 9.0 (commit
            70c25c92e6); before, the migration thread finds them.
        syncs_channels_every_section: as ram_save_iterate does before 8.1 and, with
            multifd-flush-after-each-section, after; if not, as the cursor comes round (commit 294e5a4034).
        clears_in_last_stage: a chunk is cleared before its first page once the VM has stopped, too;
            10.1 skips it (ram.c:migration_bitmap_clear_dirty).
    """

    throttle: Callable[[Parameters], ThrottleRule] = ThrottleRule
    sync_timer: Callable[[], SyncTimerRule] = SyncTimerRule
    switchover: Callable[[], SwitchoverRule] = SwitchoverRule
    fallback_sync_interval_ns: int | None
    counts_flushed_bytes: bool
    has_avail_switchover_bandwidth: bool
    has_multifd: bool = True
    channels_find_zero_pages: bool = True
    syncs_channels_every_section: bool = False
    clears_in_last_stage: bool = True


VERSIONS = {
    # qemu-file.c counts rate_limit_used as it queues; 8.2 and later ask mig_stats after the flush.
    "qemu_7_2": Version(
        fallback_sync_interval_ns=None,
        counts_flushed_bytes=False,
        has_avail_switchover_bandwidth=False,
        channels_find_zero_pages=False,
        syncs_channels_every_section=True,
    ),
    "qemu_9_1": Version(
        fallback_sync_interval_ns=None,
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
