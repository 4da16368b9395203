"""The cursor: the page at which the sender continues."""

from __future__ import annotations

import numpy as np

from gpusim.layout import CHUNK_PAGES, IntArray, Layout


class Cursor:
    """A position in the VM. A sync never moves it.

    Attributes:
        chunk: the chunk of the next page. It is the number of chunks at the end of the VM.
        page: the next page, counted from the start of its chunk.
        wraps: how often the cursor has wrapped from the end of the VM to its first page.

    Source: migration/ram.c:ram_find_and_save_block and find_dirty_block [7.2 to 10.1].
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        block_chunks = [-(-block // CHUNK_PAGES) for block in layout.blocks]
        self._block_end: IntArray = np.repeat(np.cumsum(block_chunks), block_chunks)
        self.chunk = self.page = self.wraps = 0
        self._synced_chunk: int | None = None

    @property
    def is_at_end(self) -> bool:
        """Whether the cursor stands behind the last page of the VM."""
        return self.chunk == self._layout.chunks

    @property
    def guest_page(self) -> int:
        """The next guest page. At the end of the VM it is the number of pages."""
        if self.is_at_end:
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

    def move(self, chunk: int, page: int = 0) -> None:
        """Move to a page of a chunk."""
        self.chunk, self.page = chunk, page

    def wrap(self) -> None:
        """Move from the end of the VM to its first page."""
        self.move(0)
        self.wraps += 1

    def move_to_block_end(self, chunk: int) -> None:
        """Move behind the last page of the block that holds a chunk."""
        self.move(int(self._block_end[chunk]))
