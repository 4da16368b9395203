"""Host pages of the sender: QEMU sends the pending target pages of one without a break.

A host page is a page of hugetlbfs. Chunks consist of whole host pages.

Source: migration/ram.c:ram_save_host_page [7.2 to 11.1].
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpusim.layout import CHUNK_PAGES, IntArray
from gpusim.pages.chunks import PendingPages
from gpusim.pages.cursor import Cursor
from gpusim.pages.primitives import Kernels


def host_page_ends(
    counts: PendingPages,
    cursor: Cursor,
    kernels: Kernels,
    *,
    has_bits: bool,
    size: int,
    number: int,
) -> IntArray:
    """Return how many pages are pending up to the end of each of the next host pages, int64 [n].

    Only host pages with pending pages count. The rest of one in which the cursor stands counts, too.
    Behind the last page of the VM the first one follows.

    Args:
        counts, cursor, kernels: the state of the pages.
        has_bits: the kernels have bits. Otherwise the pages of a chunk count as spread evenly over
            its host pages ahead.
        size: target pages of a host page, a power of two from 8 to CHUNK_PAGES.
        number: of host pages, at most.
    """
    found: list[IntArray] = []
    left = number
    for chunk in _chunks_ahead(counts, cursor):
        page = cursor.page if chunk == cursor.chunk else 0
        if not has_bits or (size == CHUNK_PAGES and not page):
            pages = _spread(int(counts.of(np.array([chunk]))[0]), page, size)
        else:
            pages = _count(kernels, chunk, page, size)
        found.append(pages[pages > 0][:left])
        left -= len(found[-1])
        if not left:
            break
    if left and has_bits and cursor.page and counts.of(np.array([cursor.chunk]))[0]:
        own = cursor.chunk  # at last the pages of its chunk that the cursor has passed
        behind = _count(kernels, own, 0, size) - _count(kernels, own, cursor.page, size)
        found.append(behind[behind > 0][:left])
    return np.cumsum(np.concatenate([np.zeros(0, np.int64), *found]))


def _chunks_ahead(counts: PendingPages, cursor: Cursor) -> Iterator[int]:
    """Yield the chunks with pending pages from the cursor on, around to the cursor's own."""
    pending = np.flatnonzero(counts.normal + counts.zero)
    split = int(np.searchsorted(pending, cursor.chunk))
    yield from pending[split:].tolist()
    yield from pending[:split].tolist()


def _spread(pending: int, page: int, size: int) -> IntArray:
    """Spread the pending pages of a chunk over its host pages from a page on, int64 [n]."""
    ahead = np.clip(np.arange(0, CHUNK_PAGES + 1, size) - page, 0, None)
    spread: IntArray = np.diff(pending * ahead // max(1, int(ahead[-1])))
    return spread


def _count(kernels: Kernels, chunk: int, page: int, size: int) -> IntArray:
    """Count the pending pages of each host page of a chunk from a page on, int64 [n]."""
    words = kernels.read(kernels.dirty, chunk, chunk + 1)[0].copy()
    words[: page // 64] = 0
    words[page // 64] &= ~np.uint64(0) << np.uint64(page % 64)
    bits = np.bitwise_count(words.view(np.uint8)).reshape(CHUNK_PAGES // size, -1)
    counts: IntArray = bits.sum(axis=1, dtype=np.int64)
    return counts
