"""When the main loop syncs, and when it stops the VM."""

from __future__ import annotations

from gpusim.qemu.parameters import Parameters


def switchover_bandwidth(
    measured: float, parameters: Parameters, *, in_whole_kilobytes: bool
) -> float:
    """Return the bytes per second that QEMU expects for the switchover.

    Args:
        measured: bandwidth of the last window. QEMU ignores it if avail-switchover-bandwidth is set.
        parameters: migration parameters.
        in_whole_kilobytes: avail-switchover-bandwidth counts in whole bytes per millisecond.

    Source: migration/migration.c:migration_update_counters [7.2 to 11.1]. QEMU divides the
    parameter by 1000 as an integer up to 10.2, and as a double since 11.0 (commit b6a6d91b9e).
    """
    available = parameters.avail_switchover_bandwidth
    if available and in_whole_kilobytes:
        return float(available // 1000 * 1000)
    return float(available or measured)


def threshold_size(
    measured: float, parameters: Parameters, *, in_whole_kilobytes: bool = True
) -> int:
    """Return the bytes that fit the downtime limit.

    Args:
        measured, parameters, in_whole_kilobytes: as for `switchover_bandwidth`.

    Source: migration/migration.c:migration_update_counters [7.2 to 11.1].
    """
    bandwidth = switchover_bandwidth(measured, parameters, in_whole_kilobytes=in_whole_kilobytes)
    return int(bandwidth / 1000 * parameters.downtime_limit_ms)


class SwitchoverRule:
    """QEMU's decisions in one turn of the main loop.

    Source: migration/migration.c:migration_iteration_run [9.0 to 10.0]. In 7.2
    ram.c:ram_save_pending makes the same comparison.
    """

    def wants_sync(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Return whether the estimate is low enough for a sync."""
        return estimate_bytes < threshold_bytes

    def ready(self, pending_bytes: int, threshold_bytes: int) -> bool:
        """Return whether the pending memory fits the downtime limit."""
        return pending_bytes == 0 or pending_bytes < threshold_bytes

    def acts(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Return whether a turn with this estimate does more than send."""
        return self.wants_sync(estimate_bytes, threshold_bytes) or self.ready(
            estimate_bytes, threshold_bytes
        )


class InclusiveSwitchoverRule(SwitchoverRule):
    """QEMU 10.1 to 11.0: pending memory that equals the threshold is ready, too.

    `wants_sync` is still false at the threshold. So an estimate that equals the threshold completes
    without an exact sync.

    Source: migration/migration.c:migration_iteration_run [10.1 to 11.0], since commit 7aaa1fc072.
    """

    def ready(self, pending_bytes: int, threshold_bytes: int) -> bool:
        """Return whether the pending memory fits the downtime limit."""
        return pending_bytes <= threshold_bytes


class NextReadySwitchoverRule(InclusiveSwitchoverRule):
    """QEMU 11.1: an estimate that equals the threshold syncs, too.

    QEMU also syncs if no byte is left for precopy, whatever the threshold is. Without the
    capability postcopy-ram all pages are left for precopy, so this says nothing new.

    Source: migration/migration.c:migration_iteration_next_ready [11.1, commits ff86cf43df,
    455a6167f2].
    """

    def wants_sync(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Return whether the estimate is low enough for a sync."""
        return estimate_bytes <= threshold_bytes


class EveryTurnSwitchoverRule(NextReadySwitchoverRule):
    """QEMU 11.1 with the capability postcopy-ram: every turn of the main loop syncs.

    RAM then reports all its pages as left for post-copy and none for precopy. Every turn finds no
    byte left for precopy, and syncs, although post-copy never starts.

    Source: migration/migration.c:migration_iteration_next_ready,
    ram.c:ram_state_pending [11.1, commit ff86cf43df].
    """

    def wants_sync(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Return True."""
        return True
