"""The counts of dirty syncs: a period lasts more than a second and counts dirty and sent bytes.

A sync that closes no period resets no count. Its counts belong to the period that a later sync
closes. QEMU reports a count of syncs, dirty-sync-count. Since 11.1 it is not the number of syncs.
"""

from __future__ import annotations

from dataclasses import dataclass

PERIOD_MS = 1000
FIRST_PASS_COUNT = 1  # dirty_sync_count in the first pass


@dataclass(frozen=True, kw_only=True)
class Sync:
    """One sync that has ended, as rules see it.

    Attributes:
        kind: "setup", "exact" (by the main loop), "fallback" (by the timer) or "final" (the VM is
            stopped).
        time_ns: time from the migrate command to its end.
        dirty_sync_count: the count that QEMU reports after it. Up to 11.0 it is the number of syncs
            so far, including this one. Since 11.1 only exact syncs add to it.
        newly_dirty_bytes: bytes of pages that were clean before it.
        remaining_bytes: bytes that are still to be sent.
    """

    kind: str
    time_ns: int
    dirty_sync_count: int
    newly_dirty_bytes: int
    remaining_bytes: int


@dataclass(frozen=True, kw_only=True)
class Period:
    """One closed period.

    Attributes:
        length_ms: length in real time, more than 1000.
        dirty_bytes: bytes of pages that became dirty in the period (bytes_dirty_period).
        xfer_bytes: bytes transferred in the period (bytes_xfer_period).
        dirty_pages_rate: pages per second, truncated.
        clean_bytes: clean bytes in the bitmap. It is the mean of two values: after the sync that
            opened the period, and before the sync that closed it. QEMU's rules do not use it.
        ram_bytes: bytes of RAM of the VM.
    """

    length_ms: int
    dirty_bytes: int
    xfer_bytes: int
    dirty_pages_rate: int
    clean_bytes: int
    ram_bytes: int


class SyncAccounting:
    """The period fields of QEMU's RAMState.

    Args:
        page_bytes: bytes of a guest page.
        ram_pages: pages of the VM.
        counts_every_sync: every sync adds to dirty_sync_count when it begins. If not, then the
            count starts at 1, and only an exact sync adds to it, when it has ended.

    Attributes:
        dirty_sync_count: the count that QEMU reports.
        bitmap_sync_count: number of syncs that have begun.
        dirty_bytes_last_sync: bytes left after the last sync that the count has.
        dirty_pages_rate: of the last closed period, in pages per second. 0 before the first.
        num_dirty_pages_period: newly dirty pages since the last period closed.

    Source: migration/ram.c:migration_bitmap_sync, migration_update_rates [7.2 to 11.1]. The count:
    the first statement of migration_bitmap_sync [to 11.0], and
    migration.c:migrate_init, migration_iteration_go_next [11.1, commit 9519d3667a].
    """

    def __init__(self, page_bytes: int, ram_pages: int, *, counts_every_sync: bool = True) -> None:
        self._counts_every_sync = counts_every_sync
        self.dirty_sync_count = 0 if counts_every_sync else FIRST_PASS_COUNT
        self.bitmap_sync_count = 0
        self.dirty_bytes_last_sync = 0
        self.dirty_pages_rate = 0
        self.num_dirty_pages_period = 0
        self._page_bytes = page_bytes
        self._ram_pages = ram_pages
        self._clean_pages = 0  # at the start of the open period. At first every page is dirty.
        self._time_last_bitmap_sync_ms: int | None = None
        self._bytes_xfer_prev = 0

    def begin(self, now_ms: int) -> None:
        """Begin a sync. The first sync starts the first period before its own work."""
        self.bitmap_sync_count += 1
        self.dirty_sync_count += self._counts_every_sync
        if self._time_last_bitmap_sync_ms is None:
            self._time_last_bitmap_sync_ms = now_ms

    def counts(self, kind: str) -> bool:
        """Return whether the count has a sync of this kind. QEMU sends MIGRATION_PASS for it."""
        return self._counts_every_sync or kind == "exact"

    def period_ms(self, now_ms: int) -> int:
        """Return the length of the open period."""
        assert self._time_last_bitmap_sync_ms is not None, "no sync has begun"
        return now_ms - self._time_last_bitmap_sync_ms

    def end(
        self,
        now_ms: int,
        newly_dirty_pages: int,
        transferred_bytes: int,
        pending_pages: int,
        kind: str,
    ) -> Period | None:
        """End a sync. Return the period that it closes, or None if that is not over 1000 ms long.

        Args:
            now_ms: real time after the sync's own work.
            newly_dirty_pages: pages that were clean in the bitmap before the sync and are dirty
                now.
            transferred_bytes: flushed bytes since the migration began.
            pending_pages: dirty pages in the bitmap now.
            kind: of the sync, see Sync.
        """
        if self.counts(kind):
            self.dirty_sync_count += not self._counts_every_sync
            self.dirty_bytes_last_sync = pending_pages * self._page_bytes
        self.num_dirty_pages_period += newly_dirty_pages
        length_ms = self.period_ms(now_ms)
        if length_ms <= PERIOD_MS:
            return None
        clean_pages = self._ram_pages - pending_pages
        mean_clean_pages = (self._clean_pages + clean_pages + newly_dirty_pages) // 2
        period = Period(
            length_ms=length_ms,
            dirty_bytes=self.num_dirty_pages_period * self._page_bytes,
            xfer_bytes=transferred_bytes - self._bytes_xfer_prev,
            dirty_pages_rate=self.num_dirty_pages_period * 1000 // length_ms,
            clean_bytes=mean_clean_pages * self._page_bytes,
            ram_bytes=self._ram_pages * self._page_bytes,
        )
        self.dirty_pages_rate = period.dirty_pages_rate
        self._clean_pages = clean_pages
        self._time_last_bitmap_sync_ms = now_ms
        self._bytes_xfer_prev = transferred_bytes
        self.num_dirty_pages_period = 0
        return period
