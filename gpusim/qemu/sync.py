"""What a dirty sync adds up: the period of more than a second in which dirty and sent bytes count.

A sync that closes no period resets nothing: its counts go on into a later one.
"""

from __future__ import annotations

from dataclasses import dataclass

PERIOD_MS = 1000


@dataclass(frozen=True, kw_only=True)
class Sync:
    """One sync that has ended, as rules are told it.

    Attributes:
        kind: setup, exact (the main loop's own), fallback (the timer's) or final (the VM is stopped).
        time_ns: when it ended, since the migrate command.
        dirty_sync_count: syncs so far, this one among them.
        newly_dirty_bytes: of pages that were clean before it.
        remaining_bytes: still to be sent.
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
        length_ms: of real time; more than 1000.
        dirty_bytes: of pages that became dirty in it (bytes_dirty_period).
        xfer_bytes: transferred in it (bytes_xfer_period).
        dirty_pages_rate: pages a second, truncated.
        clean_bytes: of RAM, clean in the bitmap: the mean of the period's start, after the sync that
            opened it, and of its end, before the sync that closed it. No rule of QEMU's asks for it.
        ram_bytes: of the VM.
    """

    length_ms: int
    dirty_bytes: int
    xfer_bytes: int
    dirty_pages_rate: int
    clean_bytes: int
    ram_bytes: int


class SyncAccounting:
    """RAMState's period fields.

    Attributes:
        dirty_sync_count: syncs so far.
        num_dirty_pages_period: newly dirty pages since the last period closed.

    Source: migration/ram.c:migration_bitmap_sync, migration_update_rates [7.2 to 10.1].
    """

    def __init__(self, page_bytes: int, ram_pages: int) -> None:
        self.dirty_sync_count = 0
        self.num_dirty_pages_period = 0
        self._page_bytes = page_bytes
        self._ram_pages = ram_pages
        self._clean_pages = 0  # when the open period began: at first every page is dirty
        self._time_last_bitmap_sync_ms: int | None = None
        self._bytes_xfer_prev = 0

    def begin(self, now_ms: int) -> None:
        """A sync begins. The first one starts the first period before its own work."""
        self.dirty_sync_count += 1
        if self._time_last_bitmap_sync_ms is None:
            self._time_last_bitmap_sync_ms = now_ms

    def period_ms(self, now_ms: int) -> int:
        """How long the open period has lasted."""
        assert self._time_last_bitmap_sync_ms is not None, "no sync has begun"
        return now_ms - self._time_last_bitmap_sync_ms

    def end(
        self, now_ms: int, newly_dirty_pages: int, transferred_bytes: int, pending_pages: int
    ) -> Period | None:
        """A sync ends: the period it closes, if more than 1000 ms have passed since the last did.

        Args:
            now_ms: real time, after the sync's own work.
            newly_dirty_pages: clean in the bitmap before and dirty now.
            transferred_bytes: since the migration began, as far as flushed.
            pending_pages: dirty in the bitmap now.
        """
        self.num_dirty_pages_period += newly_dirty_pages
        length_ms = self.period_ms(now_ms)
        if length_ms <= PERIOD_MS:
            return None
        clean_pages = self._ram_pages - pending_pages
        period = Period(
            length_ms=length_ms,
            dirty_bytes=self.num_dirty_pages_period * self._page_bytes,
            xfer_bytes=transferred_bytes - self._bytes_xfer_prev,
            dirty_pages_rate=self.num_dirty_pages_period * 1000 // length_ms,
            clean_bytes=(self._clean_pages + clean_pages + newly_dirty_pages)
            // 2
            * self._page_bytes,
            ram_bytes=self._ram_pages * self._page_bytes,
        )
        self._clean_pages = clean_pages
        self._time_last_bitmap_sync_ms = now_ms
        self._bytes_xfer_prev = transferred_bytes
        self.num_dirty_pages_period = 0
        return period
