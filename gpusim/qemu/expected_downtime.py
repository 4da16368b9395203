"""The expected-downtime that query-migrate shows. QEMU decides nothing by it, but managers do."""

from __future__ import annotations

from gpusim.qemu.parameters import Parameters
from gpusim.qemu.sync import FIRST_PASS_COUNT, SyncAccounting

UNKNOWN_MS = 2**63 - 1  # INT64_MAX, which QEMU 11.1 shows if the bandwidth is 0
LEAST_WINDOW_BYTES = 10_000  # a window with fewer bytes changes nothing


class ExpectedDowntime:
    """Up to QEMU 11.0: a value that the end of a window replaces.

    The window must have sent more than 10 kB, and a period must have found dirty pages. The first
    value is the downtime limit.

    Args:
        parameters: migration parameters at the start.

    Source: migration/migration.c:migration_update_counters, migration_connect [7.2 to 11.0].
    """

    def __init__(self, parameters: Parameters) -> None:
        self._ms = parameters.downtime_limit_ms

    def end_window(self, sent_bytes: int, bandwidth: float, accounting: SyncAccounting) -> None:
        """Note the end of a window.

        Args:
            sent_bytes: bytes that the window sent.
            bandwidth: bytes per second that QEMU expects for the switchover.
            accounting: has the dirty bytes of the last sync.
        """
        if accounting.dirty_pages_rate and sent_bytes > LEAST_WINDOW_BYTES and bandwidth:
            self._ms = int(1000 * accounting.dirty_bytes_last_sync / bandwidth)

    def ms(self, parameters: Parameters, bandwidth: float, accounting: SyncAccounting) -> int:
        """Return what query-migrate shows now.

        Args:
            parameters: migration parameters.
            bandwidth: bytes per second that QEMU expects for the switchover. 0: no window ended.
            accounting: has the reported count and the dirty bytes of the last sync that it has.
        """
        return self._ms


class ExpectedDowntimeOnDemand(ExpectedDowntime):
    """QEMU 11.1: computed when it is asked for. It is the downtime limit in the first pass.

    Source: migration/migration.c:migration_downtime_calc_expected [11.1, commits dd4fe8844b,
    54a814cc09].
    """

    def ms(self, parameters: Parameters, bandwidth: float, accounting: SyncAccounting) -> int:
        if accounting.dirty_sync_count <= FIRST_PASS_COUNT:
            return parameters.downtime_limit_ms
        if not bandwidth:
            return UNKNOWN_MS
        return int(1000 * accounting.dirty_bytes_last_sync / bandwidth)
