"""Find page writes of an unknown guest that explain QEMU's page counts.

QEMU does not count writes. At each sync it counts the pages that became dirty. This module follows
the bitmap through the recording in expected shares. For each sync it finds the number of writes
that makes the recorded number of pages newly dirty. The writes are spread evenly over all memory
that is not zero, and at a constant rate between two syncs. Their real places are not recorded. The
places do not matter if the simulated syncs happen at the recorded times, because each then finds
the recorded number of pages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gpusim.formats.sync_record import Sync
from gpusim.layout import CHUNK_PAGES, CHUNK_SHIFT, FloatArray

CELLS = 4096  # the bitmap is followed in at least so many pieces
MOST_WRITES = 16.0  # per page between two syncs. Then all pages but one in 9 million are written.
# Bytes of a page on the link. Source: migration/ram.c:save_normal_page, save_zero_page.
NORMAL_PAGE_BYTES, ZERO_PAGE_BYTES = 8 + 4096, 8 + 1
HALVINGS = 60  # of the bisection, which finds the writes to the last digit


def explain_writes(
    syncs: Sequence[Sync],
    pages: int,
    written: range,
    lazy: bool,
    link: Sequence[Sequence[float]],
) -> list[float]:
    """Return the page writes since the start by each sync.

    Args:
        syncs: with their page counts.
        pages: of the VM.
        written: the pages that are not zero. All writes go to these pages, evenly.
        lazy: whether KVM protects a page again when its chunk is sent (kvm_manual). Otherwise it
            does so at the sync.
        link: [seconds, sent bytes] pairs, both ascending.
    """
    bitmap = ExpectedBitmap(pages, written, lazy)
    total, sent, found = 0.0, 0.0, []
    times_s, sent_bytes = np.array(link).T
    last_s = 0.0
    for sync in syncs:
        inside = times_s[(times_s > last_s) & (times_s < sync.time_s)]
        knots_s = np.array([last_s, *inside, sync.time_s])
        by_then = np.interp(knots_s, times_s, sent_bytes) - np.interp(last_s, times_s, sent_bytes)
        length_s = max(sync.time_s - last_s, 1e-9)
        bitmap.send(
            sync.sent_pages - sent,
            by_then / max(float(by_then[-1]), 1e-9),
            (knots_s - last_s) / length_s,
        )
        sent, last_s = sync.sent_pages, sync.time_s
        total += bitmap.sync(sync.newly_dirty_pages) * len(written)
        found.append(total)
    return found


class ExpectedBitmap:
    """Expected pages of each piece of memory, by their state in QEMU's bitmap and KVM's log.

    A page is in one of three states: dirty and in the log of the last sync, dirty and not in this
    log, or clean and not in this log. A page that was sent since then stays in the log until the
    next sync.
    """

    def __init__(self, pages: int, written: range, lazy: bool) -> None:
        edges = np.unique(
            np.concatenate(
                [
                    np.linspace(0, pages, CELLS + 1).astype(np.int64),
                    np.arange(0, pages, CHUNK_PAGES),
                    [written.start, written.stop],
                ]
            )
        )
        size = np.diff(edges).astype(np.float64)
        self._chunk = edges[:-1] >> CHUNK_SHIFT
        self._written = (edges[:-1] >= written.start) & (edges[1:] <= written.stop)
        self._page_bytes = np.where(self._written, NORMAL_PAGE_BYTES, ZERO_PAGE_BYTES)
        self._lazy = lazy
        none = np.zeros_like(size)
        # At first all pages are dirty, and a lazy tracker's log holds all of them (INITIALLY_SET).
        self._logged, self._unlogged = (size, none) if lazy else (none, size)
        self._clean = none
        self._cursor = 0
        self._sent: FloatArray = none  # share of each piece's pages sent since the last sync
        self._left: FloatArray = none  # share of the interval after the piece's chunk is cleared
        self._cleared = np.zeros(len(size), np.bool_)

    def send(self, pages: float, sent_share: FloatArray, time_share: FloatArray) -> None:
        """Send so many pages from the cursor on.

        No page became dirty in QEMU's bitmap meanwhile.

        Args:
            pages: to send.
            sent_share: float64 [n], ascending from 0 to 1, share of the bytes sent by some times.
            time_share: float64 [n], ascending from 0 to 1, these times.
        """
        order = np.roll(np.arange(len(self._chunk)), -self._cursor)
        pending = (self._logged + self._unlogged)[order]
        ends = np.cumsum(pending)
        pages = min(pages, float(ends[-1]))
        begins = ends - pending
        self._sent = np.empty_like(pending)
        self._sent[order] = np.clip((pages - begins) / np.maximum(pending, 1e-9), 0.0, 1.0)
        # A page that was not sent before is zero outside the written memory.
        bytes_ahead = np.cumsum(pending * self._page_bytes[order])
        sent_bytes = float(np.interp(pages, np.append(0.0, ends), np.append(0.0, bytes_ahead)))
        begin_bytes = bytes_ahead - pending * self._page_bytes[order]
        first = np.full(self._chunk[-1] + 1, math.inf)
        np.minimum.at(
            first,
            self._chunk[order],
            np.where((begins < pages) & (pending > 0), begin_bytes, math.inf),
        )
        self._cleared = np.isfinite(first)[self._chunk]
        cleared_at = np.where(np.isfinite(first), first, 0.0) / max(sent_bytes, 1e-9)
        left = 1 - np.interp(cleared_at, sent_share, time_share)
        self._left = np.where(self._cleared, left[self._chunk], 0.0)
        place = int(np.searchsorted(ends, pages))
        self._cursor = int(order[min(place, len(ends) - 1)])

    def sync(self, newly_dirty_pages: int) -> float:
        """Find the writes per page that make so many pages newly dirty, and apply these writes."""
        low, high = 0.0, MOST_WRITES
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if self._newly_dirty(middle) < newly_dirty_pages:
                low = middle
            else:
                high = middle
        self._merge(low)
        return low

    def _hit(self, writes: float) -> tuple[FloatArray, FloatArray]:
        """Return the shares of pages written in the interval, and after their chunk was cleared."""
        whole = np.where(self._written, -math.expm1(-writes), 0.0)
        after_clear = np.where(self._written, -np.expm1(-writes * self._left), 0.0)
        return whole, after_clear

    def _newly_dirty(self, writes: float) -> float:
        whole, after_clear = self._hit(writes)
        sent_unlogged = self._unlogged * self._sent
        return float(
            (whole * (self._clean + sent_unlogged) + after_clear * self._logged * self._sent).sum()
        )

    def _merge(self, writes: float) -> None:
        """Apply a sync in shares, as docs/explanation/model.md describes for each kind of tracking.

        A page in the log is found again if it is written after its chunk was cleared. Every other
        page is found if it is written at all.
        """
        whole, after_clear = self._hit(writes)
        logged = np.where(self._cleared, after_clear, 1.0)
        kept_sent, kept_left = self._logged * self._sent, self._logged * (1 - self._sent)
        sent, left = self._unlogged * self._sent, self._unlogged * (1 - self._sent)
        found = self._logged * logged + (self._unlogged + self._clean) * whole
        missed = kept_left * (1 - logged) + left * (1 - whole)
        self._clean = kept_sent * (1 - logged) + (sent + self._clean) * (1 - whole)
        if self._lazy:
            self._logged, self._unlogged = found, missed
        else:
            self._unlogged = found + missed
