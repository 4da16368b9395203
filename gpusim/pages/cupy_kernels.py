"""The primitives on an NVIDIA GPU: the host part of kernels/paint.cu.

The bitmaps stay on the device. A draw packs its cells into one buffer of pinned memory, uploads it
in one copy and downloads its counts in one copy. Buffers grow to the largest draw and are reused.
CuPy is imported and the kernels are compiled when the first device is opened. CuPy caches the
compiled kernels. Only addresses of the device pass between the methods here, so that an error that
keeps their frames keeps no memory of the device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpusim.layout import CHUNK_SHIFT, CHUNK_WORDS, IntArray, U64Array
from gpusim.pages.budget import Budget
from gpusim.pages.draw import Cells, certain_cells
from gpusim.pages.obstacles import (
    OUT_OF_MEMORY,
    BackendError,
    DeviceError,
    device_obstacle,
    kernel_obstacle,
    one_line_of,
)
from gpusim.pages.primitives import ChunkTaken, Counts, Op, Step

SOURCE = Path(__file__).parent / "kernels" / "paint.cu"
PAINT_THREADS, TAKE_THREADS = 512, 1024  # as in paint.cu
INVERTED_BIT, COUNT_SHIFT = 8, 16  # of a cell's packed word, as in paint.cu
CHUNK_COLUMNS, CELL_COLUMNS = 2, 4  # words of the kernel paint per chunk and per cell
WORD_BYTES = 8
NULL = 0
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind


class Device(Protocol):
    """A device: memory, copies and launches, executed in order.

    There is one buffer on the host for both directions. The order is `room`, `send`, `launch`,
    `receive`.
    """

    def zeros(self, words: int) -> Any:
        """Allocate a zeroed array of uint64 on the device.

        Raises:
            MemoryError: the array does not fit.
        """

    def address(self, array: Any, word: int = 0) -> int:
        """Return the address of a word of an array of the device."""

    def clear(self, address: int, words: int) -> None:
        """Set words of the device to zero, without waiting for it."""

    def room(self, words: int) -> U64Array:
        """Return the host's buffer, uint64 [words] or more. Its words may be overwritten."""

    def send(self, words: int) -> int:
        """Copy the first words of the buffer to the device. Return the address of the copy.

        The copy is valid until the next call of `send`.
        """

    def receive(self, address: int, words: int) -> U64Array:
        """Return words of the device after all launched kernels have finished."""

    def launch(self, kernel: str, blocks: int, threads: int, *arguments: Any) -> None:
        """Run a kernel. Arguments are addresses of the device, np.int32 values or NULL."""

    def close(self) -> None:
        """Free all memory. It raises no error."""


class CupyDevice:
    """The current CUDA device.

    Raises:
        BackendError: the kernels cannot be compiled or loaded now.
        DeviceError: the device fails. Every method but `close` may raise it.
        MemoryError: memory of the device, or pinned memory of the host, is used up.
    """

    def __init__(self) -> None:
        import cupy

        self._cupy, self._runtime = cupy, cupy.cuda.runtime
        self._errors = (self._runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError)
        self._host = np.zeros(0, np.uint64)
        self._sent: Any = None
        module: Any = None
        try:
            module = cupy.RawModule(code=SOURCE.read_text(), options=("-std=c++17",)).module
            self._kernels = {name: module.get_function(name) for name in ("paint", "take")}
            self._stream = cupy.cuda.get_current_stream()
        except self._errors as error:
            _never_free(module)
            raise BackendError(device_obstacle(error)) from error
        except MemoryError:
            raise
        except Exception as error:  # CuPy raises many kinds while it compiles
            raise BackendError(kernel_obstacle(error)) from error

    def zeros(self, words: int) -> Any:
        try:
            array = self._cupy.empty(words, np.uint64)
        except self._errors as error:
            raise self._explained(error) from error
        except MemoryError as error:
            raise MemoryError(f"GPU: {str(error).rstrip('.')}") from error
        try:
            self.clear(self.address(array), words)
        except BaseException:
            del array  # the error keeps this frame
            raise
        return array

    def address(self, array: Any, word: int = 0) -> int:
        return int(array.data.ptr) + WORD_BYTES * word

    def clear(self, address: int, words: int) -> None:
        try:
            self._runtime.memsetAsync(address, 0, WORD_BYTES * words, self._stream.ptr)
        except self._errors as error:
            raise self._explained(error) from error

    def room(self, words: int) -> U64Array:
        if words > len(self._host):
            try:
                self._stream.synchronize()  # a copy may still use the buffer
                size = words + words // 4
                memory = self._cupy.cuda.alloc_pinned_memory(WORD_BYTES * size)
            except self._errors as error:
                raise self._explained(error, "pinned memory of the host") from error
            self._host = np.frombuffer(memory, np.uint64, size)
        return self._host

    def send(self, words: int) -> int:
        if self._sent is None or words > len(self._sent):
            self._sent = None  # free the old buffer before the new one is allocated
            self._sent = self.zeros(len(self._host))
        to, size = self.address(self._sent), WORD_BYTES * words
        try:
            self._runtime.memcpyAsync(to, self._host.ctypes.data, size, TO_DEVICE, self._stream.ptr)
        except self._errors as error:
            raise self._explained(error) from error
        return to

    def receive(self, address: int, words: int) -> U64Array:
        host = self.room(words)
        try:
            self._runtime.memcpyAsync(
                host.ctypes.data, address, WORD_BYTES * words, TO_HOST, self._stream.ptr
            )
            self._stream.synchronize()
        except self._errors as error:
            raise self._explained(error) from error
        return host[:words].copy()

    def launch(self, kernel: str, blocks: int, threads: int, *arguments: Any) -> None:
        try:
            self._kernels[kernel]((blocks,), (threads,), arguments)
        except self._errors as error:
            raise self._explained(error) from error

    def close(self) -> None:
        self._sent, self._host = None, np.zeros(0, np.uint64)
        try:
            self._stream.synchronize()  # a device that was lost cannot free memory either
            self._cupy.get_default_memory_pool().free_all_blocks()
            self._cupy.get_default_pinned_memory_pool().free_all_blocks()
        except self._errors:
            _never_free(self._kernels)

    def _explained(self, error: Any, what: str = "GPU") -> Exception:
        """Return what to raise for an error of CUDA."""
        if error.status == OUT_OF_MEMORY:
            return MemoryError(f"{what}: {one_line_of(error)}")
        return DeviceError(device_obstacle(error))


class CupyKernels:
    """See primitives.Kernels. The bitmaps are arrays of the device."""

    def __init__(self, chunks: int, *, log: bool, zero: bool, device: Device) -> None:
        self._device = device
        self.dirty: Any = None
        self.log: Any = None
        self.zero: Any = None
        words = chunks * CHUNK_WORDS
        try:
            self.dirty = device.zeros(words)
            self.log = device.zeros(words) if log else None
            self.zero = device.zeros(words) if zero else None
            self._counts: Any = device.zeros(1)
            self._taken: Any = device.zeros(4)
        except BaseException:
            self.close()
            raise

    def fill(self, bitmap: Any, first: IntArray, last: IntArray) -> None:
        """Set the pages of runs by a merge of certain cells, see primitives.Kernels."""
        step = Step(Op.MERGE, certain_cells(first, last), np.unique(first >> CHUNK_SHIFT))
        address = self._address(bitmap)
        del bitmap  # an error keeps the frames that it passes
        self._paint([step], address, NULL)

    def paint(self, steps: Sequence[Step]) -> list[Counts]:
        """Draw and merge the steps of one draw, in order."""
        return self._paint(steps, self._address(self.dirty), self._address(self.zero))

    def clear_chunks(self, first: int, last: int) -> None:
        """Clear the pending pages of chunks first <= chunk < last."""
        address = self._address(self.dirty, first * CHUNK_WORDS)
        self._device.clear(address, (last - first) * CHUNK_WORDS)

    def clear_in_chunk(self, chunk: int, page: int, budgets: Sequence[Budget]) -> ChunkTaken:
        """Take pending pages of a chunk, see primitives.Kernels."""
        device, words = self._device, 3 * len(budgets)
        device.room(words)[:words].reshape(-1, 3)[:] = budgets
        limits = device.send(words)
        dirty, zero = (self._address(one, chunk * CHUNK_WORDS) for one in (self.dirty, self.zero))
        device.launch(
            "take",
            1,
            TAKE_THREADS,
            dirty,
            zero,
            np.int32(page),
            limits,
            np.int32(len(budgets)),
            device.address(self._taken),
        )
        behind, normal, zeros, ended = device.receive(device.address(self._taken), 4).tolist()
        return ChunkTaken(behind, normal, zeros, bool(ended))

    def read(self, bitmap: Any, first: int, last: int) -> U64Array:
        """Return the words of chunks on the host, see primitives.Kernels."""
        address, words = self._address(bitmap, first * CHUNK_WORDS), (last - first) * CHUNK_WORDS
        del bitmap
        return self._device.receive(address, words).reshape(-1, CHUNK_WORDS)

    def close(self) -> None:
        """Free the device's memory."""
        self.dirty = self.log = self.zero = self._counts = self._taken = None
        self._device.close()

    def _address(self, array: Any, word: int = 0) -> int:
        return NULL if array is None else self._device.address(array, word)

    def _paint(self, steps: Sequence[Step], dirty: int, zero: int) -> list[Counts]:
        """Upload all steps in one copy, launch each step, download all counts in one copy.

        Args:
            steps: the steps.
            dirty, zero: addresses of the bitmaps. zero may be NULL.
        """
        device = self._device
        host = device.room(sum(_count_words(step) for step in steps)).view(np.int64)
        columns, words = [], 0
        for step in steps:
            offsets, words = _pack(step, host, words)
            columns.append(offsets)
        sent = device.send(words)
        counted = 2 * sum(len(step.chunks) for step in steps)
        if counted > len(self._counts):
            self._counts = None
            self._counts = device.zeros(counted + counted // 4)
        counts = device.address(self._counts)
        log = self._address(self.log)
        for step, offsets in zip(steps, columns, strict=True):
            size = len(step.chunks)
            table = [NULL if at is None else sent + WORD_BYTES * at for at in offsets]
            own = (counts, counts + WORD_BYTES * size)
            counts += 2 * WORD_BYTES * size
            if size:
                op = np.int32(step.op)
                device.launch("paint", size, PAINT_THREADS, op, *table, dirty, log, zero, *own)
        found = device.receive(device.address(self._counts), counted).view(np.int64)
        changed, at = [], 0
        for step in steps:
            size = len(step.chunks)
            changed.append(Counts(found[at : at + size], found[at + size : at + 2 * size]))
            at += 2 * size
        return changed


def draw_bytes_of(chunks: int, cells: int, *, steps: int, masks: int) -> int:
    """Return the memory of a GPU that a draw needs at most, for its cells and counts.

    Args:
        chunks, cells: of the VM.
        steps: of a draw.
        masks: number of steps with a mask.
    """
    per_chunk = 1 + 2 * CHUNK_COLUMNS + len(Counts._fields)  # see `_pack`
    words = steps * chunks * per_chunk + (steps + masks) * cells * CELL_COLUMNS
    size = WORD_BYTES * words
    return size + size // 4  # a buffer that grows gets a quarter more than it needs


def _never_free(modules: Any) -> None:
    """Keep loaded kernels until the process ends. CuPy prints an error if it cannot unload them."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(modules))


def _count_words(step: Step) -> int:
    """The words that `_pack` writes."""
    both = [step.cells] if step.mask is None else [step.cells, step.mask]
    per_chunk = 1 + CHUNK_COLUMNS * len(both)
    return per_chunk * len(step.chunks) + CELL_COLUMNS * sum(len(cells.first) for cells in both)


def _pack(step: Step, host: IntArray, at: int) -> tuple[list[int | None], int]:
    """Write the arguments of the kernel `paint` to the host's buffer.

    These are the number of each chunk. Then for the cells, and again for those of the mask: per
    chunk its first cell and the cell behind its last, per cell the first slot, the slot behind the
    last, the packed threshold, inversion and count, and the key.

    Args:
        step: the step.
        host: int64, the buffer.
        at: the first word to write.

    Returns:
        The first word of each argument, None without a mask, and the word behind the last.
    """
    chunks = step.chunks
    columns: list[IntArray | None] = [chunks, *step.cells.of_chunks(chunks)]
    columns += _cell_columns(step.cells)
    if step.mask is None:
        columns += [None] * (CHUNK_COLUMNS + CELL_COLUMNS)
    else:
        columns += [*step.mask.of_chunks(chunks), *_cell_columns(step.mask)]
    offsets: list[int | None] = []
    for column in columns:
        offsets.append(None if column is None else at)
        if column is not None:
            host[at : at + len(column)] = column
            at += len(column)
    return offsets, at


def _cell_columns(cells: Cells) -> list[IntArray]:
    packed = cells.count << COUNT_SHIFT
    packed |= cells.threshold
    packed |= cells.inverted.astype(np.int64) << INVERTED_BIT
    return [cells.first, cells.last, packed, cells.key.view(np.int64)]
