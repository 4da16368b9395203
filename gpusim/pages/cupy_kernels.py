"""The primitives on an NVIDIA GPU: the host part of kernels/paint.cu.

The bitmaps stay on the device. A draw uploads its cells in one copy and downloads its counts in one
copy, both through pinned memory. Buffers grow to the largest draw and are reused. CuPy is imported
and the kernels are compiled when the first device is opened. CuPy caches the compiled kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpusim.layout import CHUNK_SHIFT, CHUNK_WORDS, IntArray, U64Array
from gpusim.pages.budget import Budget
from gpusim.pages.draw import Cells, certain_cells
from gpusim.pages.primitives import ChunkTaken, Counts, Op, Step

SOURCE = Path(__file__).parent / "kernels" / "paint.cu"
PAINT_THREADS, TAKE_THREADS = 512, 1024  # as in paint.cu
INVERTED_BIT, COUNT_SHIFT = 8, 16  # of a cell's packed word, as in paint.cu
NULL = 0


class Device(Protocol):
    """A device: memory, copies and launches, executed in order."""

    def zeros(self, words: int) -> Any:
        """Allocate a zeroed array of uint64 on the device.

        Raises:
            MemoryError: the array does not fit.
        """

    def clear(self, array: Any) -> None:
        """Set an array to zero."""

    def upload(self, words: U64Array) -> Any:
        """Copy words to the device. They stay valid until the next upload.

        There is one pinned buffer, so a download must come before the next upload.
        """

    def download(self, array: Any) -> U64Array:
        """Copy an array of words to the host after all launched kernels have finished."""

    def launch(self, kernel: str, blocks: int, threads: int, *arguments: Any) -> None:
        """Run a kernel. Arguments are arrays of the device, np.int32 values or NULL."""

    def close(self) -> None:
        """Free all memory."""


class CupyDevice:
    """The current CUDA device.

    Raises:
        Exception: CuPy's error if the driver, the device or NVRTC is missing. backends.py turns it
            into an Obstacle.
    """

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        module = cupy.RawModule(code=SOURCE.read_text(), options=("-std=c++17",))
        self._kernels = {name: module.get_function(name) for name in ("paint", "take")}
        self._pinned = self._host(1)
        self._uploaded: Any = self.zeros(1)

    def zeros(self, words: int) -> Any:
        return self._cupy.zeros(words, np.uint64)

    def clear(self, array: Any) -> None:
        array.data.memset_async(0, array.nbytes)

    def upload(self, words: U64Array) -> Any:
        self._make_room(len(words))
        if len(words) > len(self._uploaded):
            self._uploaded = None  # free the old buffer before the new one is allocated
            self._uploaded = self.zeros(len(self._pinned))
        self._pinned[: len(words)] = words
        stream = self._cupy.cuda.get_current_stream()
        self._uploaded.data.copy_from_host_async(self._pinned.ctypes.data, words.nbytes, stream)
        return self._uploaded

    def download(self, array: Any) -> U64Array:
        self._make_room(len(array))
        stream = self._cupy.cuda.get_current_stream()
        array.data.copy_to_host_async(self._pinned.ctypes.data, array.nbytes, stream)
        stream.synchronize()
        return self._pinned[: len(array)].copy()

    def launch(self, kernel: str, blocks: int, threads: int, *arguments: Any) -> None:
        self._kernels[kernel]((blocks,), (threads,), arguments)

    def close(self) -> None:
        self._uploaded = None
        self._pinned = np.zeros(0, np.uint64)
        self._cupy.get_default_memory_pool().free_all_blocks()
        self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    def _make_room(self, words: int) -> None:
        if words > len(self._pinned):
            self._cupy.cuda.get_current_stream().synchronize()  # a copy may still read the buffer
            self._pinned = self._host(words + words // 4)

    def _host(self, words: int) -> U64Array:
        memory = self._cupy.cuda.alloc_pinned_memory(8 * words)
        return np.frombuffer(memory, np.uint64, words)


class CupyKernels:
    """See primitives.Kernels. The bitmaps are arrays of the device."""

    def __init__(self, chunks: int, *, log: bool, zero: bool, device: Device) -> None:
        self._device = device
        words = chunks * CHUNK_WORDS
        self.dirty: Any = device.zeros(words)
        self.log: Any = device.zeros(words) if log else None
        self.zero: Any = device.zeros(words) if zero else None
        self._counts: Any = device.zeros(1)
        self._taken: Any = device.zeros(4)

    def fill(self, bitmap: Any, first: IntArray, last: IntArray) -> None:
        """Set the pages of runs by a merge of certain cells, see primitives.Kernels."""
        step = Step(Op.MERGE, certain_cells(first, last), np.unique(first >> CHUNK_SHIFT))
        self._paint([step], bitmap, None)

    def paint(self, steps: Sequence[Step]) -> list[Counts]:
        """Draw and merge the steps of one draw, in order."""
        return self._paint(steps, self.dirty, self.zero)

    def clear_chunks(self, first: int, last: int) -> None:
        """Clear the pending pages of chunks first <= chunk < last."""
        self._device.clear(self._rows(self.dirty, first, last))

    def clear_in_chunk(self, chunk: int, page: int, budgets: Sequence[Budget]) -> ChunkTaken:
        """Take pending pages of a chunk, see primitives.Kernels."""
        limits = self._device.upload(np.array(budgets, np.uint64).ravel())
        own = [
            NULL if bitmap is None else self._rows(bitmap, chunk, chunk + 1)
            for bitmap in (self.dirty, self.zero)
        ]
        count = np.int32(len(budgets))
        self._device.launch(
            "take", 1, TAKE_THREADS, *own, np.int32(page), limits, count, self._taken
        )
        behind, normal, zero, ended = self._device.download(self._taken).tolist()
        return ChunkTaken(behind, normal, zero, bool(ended))

    def read(self, bitmap: Any, first: int, last: int) -> U64Array:
        """Return the words of chunks on the host, see primitives.Kernels."""
        return self._device.download(self._rows(bitmap, first, last)).reshape(-1, CHUNK_WORDS)

    def close(self) -> None:
        """Free the device's memory."""
        self.dirty = self.log = self.zero = self._counts = self._taken = None
        self._device.close()

    def _rows(self, bitmap: Any, first: int, last: int) -> Any:
        return bitmap[first * CHUNK_WORDS : last * CHUNK_WORDS]

    def _paint(self, steps: Sequence[Step], dirty: Any, zero: Any) -> list[Counts]:
        """Upload all steps in one copy, launch each step, download all counts in one copy."""
        parts = [part for step in steps for part in _packed(step)]
        sent = self._device.upload(np.concatenate(parts))
        ends = np.cumsum([len(part) for part in parts]).tolist()
        borders = list(zip([0, *ends[:-1]], ends, strict=True))
        sizes = [len(step.chunks) for step in steps]
        if 2 * sum(sizes) > len(self._counts):
            self._counts = None
            self._counts = self._device.zeros(2 * sum(sizes))
        columns = len(parts) // len(steps)
        bitmaps = [NULL if bitmap is None else bitmap for bitmap in (dirty, self.log, zero)]
        done = 0
        for i, (step, size) in enumerate(zip(steps, sizes, strict=True)):
            own = borders[i * columns : (i + 1) * columns]
            table = [sent[low:high] if high > low else NULL for low, high in own]
            counts = [self._counts[at : at + size] for at in (done, done + size)]
            done += 2 * size
            if size:
                op = np.int32(step.op)
                self._device.launch("paint", size, PAINT_THREADS, op, *table, *bitmaps, *counts)
        found = self._device.download(self._counts[:done]).view(np.int64)
        each = np.split(found, np.cumsum([2 * size for size in sizes])[:-1])
        return [Counts(*counts.reshape(2, -1)) for counts in each]


def _packed(step: Step) -> list[U64Array]:
    """The arguments of the kernel `paint`, uint64 arrays.

    The number of each chunk. Then for the cells, and again for those of the mask: per chunk its
    first cell and the cell behind its last. Per cell the first slot, the slot behind the last, the
    packed threshold, inversion and count, and the key. Without a mask its arrays are empty.
    """
    columns: list[NDArray[Any]] = [step.chunks, *_cell_columns(step.cells, step.chunks)]
    nothing = np.zeros(0, np.uint64)
    columns += [nothing] * 6 if step.mask is None else _cell_columns(step.mask, step.chunks)
    return [column.astype(np.uint64) for column in columns]


def _cell_columns(cells: Cells, chunks: IntArray) -> list[NDArray[Any]]:
    packed = cells.threshold | cells.inverted.astype(np.int64) << INVERTED_BIT
    packed |= cells.count << COUNT_SHIFT
    return [*cells.of_chunks(chunks), cells.first, cells.last, packed, cells.key]
