"""The cursor: the page at which the sender continues."""

from __future__ import annotations

import numpy as np

from gpusim.layout import CHUNK_PAGES, IntArray, Layout


class Cursor:
    """The place behind the last page that was taken. A sync never moves it.

    If a sync makes pages dirty between this place and the next dirty page, then the sender finds
    them in this pass.

    Attributes:
        chunk: the chunk of the place. It is the number of chunks at the end of the VM.
        page: the place, counted from the start of its chunk.
        wraps: how often the cursor has wrapped from the end of the VM to its first page.
        sees_end: a search has found no pending page ahead, and no sync has come since.

    Source: migration/ram.c:ram_find_and_save_block and find_dirty_block [7.2 to 10.1].
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        block_chunks = [-(-block // CHUNK_PAGES) for block in layout.blocks]
        self._block_end: IntArray = np.repeat(np.cumsum(block_chunks), block_chunks)
        self.chunk = self.page = self.wraps = 0
        self.sees_end = False
        self._synced_chunk: int | None = None

    @property
    def is_at_end(self) -> bool:
        """Whether no pending page lies ahead, as far as searches have found."""
        return self.sees_end or self.chunk == self._layout.chunks

    @property
    def guest_page(self) -> int:
        """The guest page behind the last page taken. It may be the number of pages."""
        if self.chunk == self._layout.chunks:
            return self._layout.pages
        return int(self._layout.chunk_first[self.chunk]) + self.page

    @property
    def is_before_all(self) -> bool:
        """Whether all pending pages of the cursor's own chunk lie ahead.

        They do, unless a sync has come while the cursor stood inside this chunk.
        """
        return not self.page or self.chunk != self._synced_chunk

    def note_sync(self) -> None:
        """Remember the chunk in which a sync may have left pending pages behind the cursor."""
        self._synced_chunk = self.chunk if self.page else None
        self.sees_end = False

    def move(self, chunk: int, page: int = 0) -> None:
        """Move to a page of a chunk, or to the next chunk if the page lies behind this one."""
        if page and page >= self._layout.chunk_pages[chunk]:
            chunk, page = chunk + 1, 0
        self.chunk, self.page = chunk, page
        self.sees_end = False

    def move_to_block_end(self, chunk: int) -> None:
        """Move behind the last page of the block that holds a chunk."""
        self.move(int(self._block_end[chunk]))
