"""When the main loop asks the tracker for the truth, and when it stops the VM."""

from __future__ import annotations

from gpusim.qemu.parameters import Parameters


def threshold_size(bandwidth_bytes_per_s: float, parameters: Parameters) -> int:
    """How many bytes fit the downtime limit, at the last window's bandwidth or the one that was set.

    Source: migration/migration.c:migration_update_counters [7.2 to 10.1].
    """
    bandwidth = parameters.avail_switchover_bandwidth or bandwidth_bytes_per_s
    return int(bandwidth / 1000 * parameters.downtime_limit_ms)


class SwitchoverRule:
    """One turn of the main loop.

    Source: migration/migration.c:migration_iteration_run [9.0 to 10.0]; in 7.2
    ram.c:ram_save_pending syncs by the same comparison.
    """

    def wants_sync(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Whether the estimate is low enough to sync and ask again."""
        return estimate_bytes < threshold_bytes

    def ready(self, pending_bytes: int, threshold_bytes: int) -> bool:
        """Whether the rest fits the downtime limit."""
        return pending_bytes == 0 or pending_bytes < threshold_bytes

    def acts(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Whether a turn with this estimate does anything but send."""
        return self.wants_sync(estimate_bytes, threshold_bytes) or self.ready(
            estimate_bytes, threshold_bytes
        )


class InclusiveSwitchoverRule(SwitchoverRule):
    """QEMU 10.1: a rest that just fits is ready; the sync is still asked for strictly below.

    Source: migration/migration.c:migration_iteration_run [10.1], since commit 7aaa1fc072.
    """

    def ready(self, pending_bytes: int, threshold_bytes: int) -> bool:
        """Whether the rest fits the downtime limit."""
        return pending_bytes <= threshold_bytes
