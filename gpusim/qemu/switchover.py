"""When the main loop syncs, and when it stops the VM."""

from __future__ import annotations

from gpusim.qemu.parameters import Parameters


def threshold_size(bandwidth_bytes_per_s: float, parameters: Parameters) -> int:
    """Return the bytes that fit the downtime limit.

    Args:
        bandwidth_bytes_per_s: bandwidth of the last window. QEMU ignores it if
            avail-switchover-bandwidth is set.
        parameters: migration parameters.

    Source: migration/migration.c:migration_update_counters [7.2 to 10.1].
    """
    bandwidth = parameters.avail_switchover_bandwidth or bandwidth_bytes_per_s
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
    """QEMU 10.1: pending memory that equals the threshold is ready, too.

    `wants_sync` is still false at the threshold.

    Source: migration/migration.c:migration_iteration_run [10.1], since commit 7aaa1fc072.
    """

    def ready(self, pending_bytes: int, threshold_bytes: int) -> bool:
        """Return whether the pending memory fits the downtime limit."""
        return pending_bytes <= threshold_bytes
