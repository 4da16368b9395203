"""State per chunk: how many pages are pending, and which remote clears are due."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpusim.layout import IntArray


class PendingPages:
    """How many pages of each chunk are pending.

    Attributes:
        normal, zero: int64 [chunks], pending pages with and without content.
        total: their sum, QEMU's migration_dirty_pages.
    """

    def __init__(self, normal: IntArray, zero: IntArray) -> None:
        self.normal, self.zero = normal, zero
        self.total = int(normal.sum() + zero.sum())

    def of(self, chunks: slice | IntArray) -> IntArray:
        """Return the pending pages of some chunks, int64 [n]."""
        pages: IntArray = self.normal[chunks] + self.zero[chunks]
        return pages

    def run_after(self, chunk: int, *, counts_own: bool) -> tuple[bool, int]:
        """Return whether the pages of a chunk are zero pages, and how many equal pages follow.

        Args:
            chunk: the chunk.
            counts_own: count the pages of the chunk itself, because none lies behind the cursor.
        """
        zero, normal = self.zero[chunk:], self.normal[chunk:]
        if not len(zero) or (zero[0] and normal[0]):
            return False, 0
        is_zero = bool(zero[0])
        other = np.flatnonzero(normal if is_zero else zero)
        end = int(other[0]) if len(other) else len(zero)
        return is_zero, int((zero if is_zero else normal)[not counts_own : end].sum())


class RemoteClears:
    """Lazy tracking: the chunks that KVM clears before their first page is sent.

    Args:
        chunks: number of chunks.
        lazy: chunks are cleared at all.
        protected_from_start: all pages were write-protected before the first sync, so that a
            clear before that sync protects none.

    Attributes:
        due: bool [chunks], the chunks that are not cleared yet.

    Source: migration/ram.c:migration_clear_memory_region_dirty_bitmap [7.2 to 10.1].
    """

    def __init__(self, chunks: int, *, lazy: bool, protected_from_start: bool) -> None:
        self.due: NDArray[np.bool_] = np.zeros(chunks, np.bool_)
        self._lazy, self._all_protected = lazy, protected_from_start
        self._unprotected = np.full(chunks, not protected_from_start)  # no clear has been there

    def start(self) -> None:
        """Let the clears of all chunks become due."""
        self.due[:] = self._lazy

    def sync(self) -> None:
        """Let the clears of all chunks become due again after a sync."""
        self._all_protected = False
        self.start()

    def protected(
        self, chunks: slice | IntArray, normal: IntArray, zero: IntArray
    ) -> tuple[IntArray, IntArray]:
        """Return the pages that clears protect, int64 [n], and those protected for the first time.

        A clear protects the pages that the last sync found written. The first clear of a chunk finds
        no entry in KVM's page tables for its zero pages, because the guest has not touched them. In
        the chunk in which the cursor stood, the result counts a few pages more.

        Args:
            chunks: the chunks.
            normal, zero: int64 [n], pending pages of each chunk, with and without content.
        """
        if self._all_protected:
            return np.zeros_like(normal), np.zeros_like(normal)
        is_first = self._unprotected[chunks]
        protected = normal + np.where(is_first, 0, zero)
        return protected, protected * is_first

    def clear(self, chunks: IntArray) -> None:
        """Clear chunks, so that their clears are no longer due."""
        self.due[chunks] = self._unprotected[chunks] = False
