"""The primitives of every device: operations on bitmaps with one bit per page.

Page p of a chunk is bit p % 64 of word p // 64. The primitives see only integers, so that every
device gives the same bits and counts. They know no cursor, no counts per chunk and no time.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from gpusim.layout import IntArray, U64Array
from gpusim.pages.budget import Budget
from gpusim.pages.draw import Cells


class Op(enum.IntEnum):
    """How a tile of written pages is merged. B: pending pages, K: the log, Z: zero pages.

    Every operation but ZERO also clears the tile from Z, and counts the pending pages that lose
    their zero bit.
    """

    MERGE = 0  # eager tracking: new = tile & ~B, B |= tile
    CLEAR_LOG = 1  # lazy tracking, written before the chunk's clear: K = tile & ~K
    MERGE_LOG = 2  # lazy tracking, written after the clear: K |= tile, new = K & ~B, B |= K
    ZERO = 3  # pages that the writes of the step before leave zero: Z |= tile & mask


class Step(NamedTuple):
    """One merge of a draw.

    Attributes:
        op: how the tiles are merged.
        cells: cells sorted by chunk. Cells of other chunks are ignored. No cell is empty. In a
            chunk, drawn cells do not overlap: those with a threshold, a count, or not inverted.
            Certain cells may overlap any cell.
        chunks: int64 [n], ascending. A chunk without a cell gets an empty tile.
        mask: for ZERO only: cells of a second tile, as `cells`.
    """

    op: Op
    cells: Cells
    chunks: IntArray
    mask: Cells | None = None


class Counts(NamedTuple):
    """The changes that a step made in each of its chunks.

    Attributes:
        new: int64 [n], newly dirty pages. 0 for CLEAR_LOG and ZERO.
        unzeroed: int64 [n], pending zero pages before, less pending zero pages after.
    """

    new: IntArray
    unzeroed: IntArray


class ChunkTaken(NamedTuple):
    """The pages that were taken of one chunk.

    Attributes:
        behind: the page behind the last page taken. It is the first page to take if none was.
        normal, zero: number of pages of each kind.
        is_over: a budget ended, and a pending page ahead was not taken.
    """

    behind: int
    normal: int
    zero: int
    is_over: bool


class Kernels(Protocol):
    """The bitmaps of a VM on one device.

    Attributes:
        dirty: B, uint64 [chunks, 4096].
        log: K, the same shape. None without lazy tracking.
        zero: Z, the same shape. None if the VM has no zero pages.
    """

    dirty: Any
    log: Any
    zero: Any

    def fill(self, bitmap: Any, first: IntArray, last: IntArray) -> None:
        """Set the pages of runs.

        Args:
            bitmap: one of the bitmaps.
            first, last: int64 [runs], slots first <= page < last. Each run lies inside one chunk,
                and runs are ascending.
        """

    def paint(self, steps: Sequence[Step]) -> list[Counts]:
        """Draw and merge the steps of one draw, in order."""

    def clear_chunks(self, first: int, last: int) -> None:
        """Clear the pending pages of chunks first <= chunk < last."""

    def clear_in_chunk(self, chunk: int, page: int, budgets: Sequence[Budget]) -> ChunkTaken:
        """Take pending pages of a chunk in order while every budget lasts.

        Args:
            chunk: the chunk.
            page: the first page to take, below CHUNK_PAGES.
            budgets: one to four budgets. A page costs at most 2^44.
        """

    def read(self, bitmap: Any, first: int, last: int) -> U64Array:
        """Return chunks first <= chunk < last on the host, uint64 [last - first, 4096]."""

    def close(self) -> None:
        """Free the device's memory. The kernels cannot be used any more."""
