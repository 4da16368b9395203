"""A guest that nobody watched, from what QEMU counted: page writes that explain its sync records.

QEMU does not count writes. It counts the pages that are dirty at a sync and were clean before. So the
bitmap is followed through the recording in expected shares, and for each sync the number of writes is
found that makes the recorded number of pages newly dirty, spread evenly over all memory that is not
zero. Where the writes really went is not recorded, and does not matter as long as syncs fall when
they fell: each gives what it gave. Between them the writes go straight on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gpusim.formats.sync_record import Sync
from gpusim.layout import CHUNK_PAGES, CHUNK_SHIFT, FloatArray

CELLS = 4096  # pieces in which the bitmap is followed, at least
MOST_WRITES = 16.0  # to a page between two syncs: then all but one in 9 million are written
HALVINGS = 60  # of the search for the writes: to the last digit


def writes(syncs: Sequence[Sync], pages: int, written: range, lazy: bool) -> list[float]:
    """Page writes since the start by each sync.

    Args:
        pages: of the VM.
        written: the pages that are not zero; all writes go there, evenly.
        lazy: pages are protected anew when their chunk is sent (kvm_manual), else at the sync.
    """
    bitmap = ExpectedBitmap(pages, written, lazy)
    total, sent, found = 0.0, 0.0, []
    for sync in syncs:
        bitmap.send(sync.sent_pages - sent)
        sent = sync.sent_pages
        total += bitmap.sync(sync.newly_dirty_pages) * len(written)
        found.append(total)
    return found


class ExpectedBitmap:
    """How many pages of each piece of memory are to be sent, and what KVM's log holds of them.

    Pages of a piece are of three kinds: to be sent and in the log of the last sync, to be sent and not
    in it, clean and not in it. Those that were sent since keep their place in the log until the next.
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
        self._lazy = lazy
        none = np.zeros_like(size)
        # All pages are to be sent; a lazy tracker's log holds them all (INITIALLY_SET).
        self._logged, self._unlogged = (size, none) if lazy else (none, size)
        self._clean = none
        self._cursor = 0
        self._sent: FloatArray = none  # share of each piece's pages sent since the last sync
        self._left: FloatArray = (
            none  # share of the interval that is left when its chunk is cleared
        )
        self._cleared = np.zeros(len(size), np.bool_)

    def send(self, pages: float) -> None:
        """Send so many pages from the cursor on; since the last sync nothing became dirty."""
        order = np.roll(np.arange(len(self._chunk)), -self._cursor)
        there = (self._logged + self._unlogged)[order]
        ends = np.cumsum(there)
        pages = min(pages, float(ends[-1]))
        begins = ends - there
        self._sent = np.empty_like(there)
        self._sent[order] = np.clip((pages - begins) / np.maximum(there, 1e-9), 0.0, 1.0)
        first = np.full(self._chunk[-1] + 1, math.inf)
        np.minimum.at(
            first, self._chunk[order], np.where((begins < pages) & (there > 0), begins, math.inf)
        )
        self._cleared = np.isfinite(first)[self._chunk]
        left = 1 - np.where(np.isfinite(first), first, 0.0) / max(pages, 1e-9)
        self._left = np.where(self._cleared, left[self._chunk], 0.0)
        place = int(np.searchsorted(ends, pages))
        self._cursor = int(order[min(place, len(ends) - 1)])

    def sync(self, newly_dirty_pages: int) -> float:
        """Find the writes to a page that make so many newly dirty, and let them."""
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
        """Shares of pages written in the interval, and behind their chunk's clear."""
        whole = np.where(self._written, -math.expm1(-writes), 0.0)
        behind = np.where(self._written, -np.expm1(-writes * self._left), 0.0)
        return whole, behind

    def _newly_dirty(self, writes: float) -> float:
        whole, behind = self._hit(writes)
        sent_unlogged = self._unlogged * self._sent
        return float(
            (whole * (self._clean + sent_unlogged) + behind * self._logged * self._sent).sum()
        )

    def _merge(self, writes: float) -> None:
        """What design.md's table of trackings says, in shares: a page in the log is cleared with its
        chunk, and is found again if it is written behind that; any other if it is written at all."""
        whole, behind = self._hit(writes)
        logged = np.where(self._cleared, behind, 1.0)
        kept_sent, kept_left = self._logged * self._sent, self._logged * (1 - self._sent)
        sent, left = self._unlogged * self._sent, self._unlogged * (1 - self._sent)
        found = self._logged * logged + (self._unlogged + self._clean) * whole
        missed = kept_left * (1 - logged) + left * (1 - whole)
        self._clean = kept_sent * (1 - logged) + (sent + self._clean) * (1 - whole)
        if self._lazy:
            self._logged, self._unlogged = found, missed
        else:
            self._unlogged = found + missed
