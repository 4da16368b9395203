"""What every device does for the pages: four primitives over bitmaps of one bit a page.

Page p of a chunk is bit p % 64 of word p // 64. Kernels see integers only, so that every device
gives the same bits and counts; they know no cursor, no counts a chunk and no time.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from gpusim.layout import IntArray, U64Array
from gpusim.pages.budget import Budget
from gpusim.pages.draw import Cells


class Op(enum.IntEnum):
    """How a tile is merged. B are the pages to send, K is the log, Z the zero pages.

    In each of them Z &= ~tile, and pages that lose their zero bit while they are to be sent are
    counted.
    """

    MERGE = 0  # eager: new = tile & ~B, B |= tile
    CLEAR_LOG = 1  # lazy, tile written before the chunk's clear: K = tile & ~K
    MERGE_LOG = 2  # lazy, tile written after it: K |= tile, new = K & ~B, B |= K


class Step(NamedTuple):
    """One drawing of a look.

    Attributes:
        op: how it is merged.
        cells: sorted by chunk; those of other chunks are passed over. None is empty. Of the cells
            of one chunk, those that are drawn (a threshold, a count, or not inverted) do not
            overlap; certain ones may overlap any.
        chunks: int64 [n], ascending; a chunk without a cell gets an empty tile.
    """

    op: Op
    cells: Cells
    chunks: IntArray


class Counts(NamedTuple):
    """What a step changed, a chunk of it.

    Attributes:
        new: int64 [n], pages newly dirty (0 for CLEAR_LOG).
        unzeroed: int64 [n], pages to send that were zero and are not any more.
    """

    new: IntArray
    unzeroed: IntArray


class Kernels(Protocol):
    """The bitmaps of a VM, of `chunks` chunks, on one device.

    Attributes:
        dirty: B, uint64 [chunks, 4096].
        log: K, the same shape, lazy tracking only.
        zero: Z, the same shape, if there are zero pages.
    """

    dirty: Any
    log: Any
    zero: Any

    def fill(self, bitmap: Any, first: IntArray, last: IntArray) -> None:
        """Set the pages of runs, slots first <= page < last, each inside one chunk, in order."""

    def paint(self, steps: Sequence[Step]) -> list[Counts]:
        """Draw and merge the steps of one look, in order."""

    def clear_chunks(self, first: int, last: int) -> None:
        """Nothing in chunks first <= chunk < last is to be sent any more."""

    def clear_in_chunk(
        self, chunk: int, page: int, budgets: Sequence[Budget]
    ) -> tuple[int, int, int]:
        """Take pages to be sent from `page` on, in order, while every budget lasts.

        Args:
            page: where to begin, below CHUNK_PAGES.
            budgets: of this chunk; one to four, costs a page at most 2^44.

        Returns:
            the first page to be sent that was not taken, or CHUNK_PAGES if all were; normal pages
            taken; zero pages taken.
        """

    def read(self, bitmap: Any, first: int, last: int) -> U64Array:
        """Words of chunks first <= chunk < last on the host: uint64 [last - first, 4096]."""

    def close(self) -> None:
        """Give the device's memory back; the kernels cannot be used any more."""
