"""Plants faults in cupy_kernels.py, and reports which of them the played device notices.

`python -m tests.parity.planted` prints one line of JSON per fault. Each fault replaces one piece of
the source. The damaged module then draws and takes, and the result is compared with numpy's.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gpusim.pages import cupy_kernels
from gpusim.pages.budget import Budget
from gpusim.pages.numpy_kernels import NumpyKernels
from gpusim.pages.primitives import Op, Step
from tests.parity.devices import load, random_cells, random_words, state
from tests.parity.fake_cuda import machine  # before CuPy

CHUNKS = 3
LONGEST_S = 20
PIECES = {  # name of a fault -> a piece of the source, and what stands there instead
    "no synchronize after the download": (
        "            self._stream.synchronize()\n        except self._errors as error:\n"
        "            raise self._explained(error) from error\n        return host",
        "        except self._errors as error:\n"
        "            raise self._explained(error) from error\n        return host",
    ),
    "no copy of the buffer": ("return host[:words].copy()", "return host[:words]"),
    "half of the upload": ("size = self.address(self._sent), WORD_BYTES * words", "size = self.address(self._sent), 4 * words"),
    "half of the download": ("WORD_BYTES * words, TO_HOST", "4 * words, TO_HOST"),
    "half of an array cleared": ("address, 0, WORD_BYTES * words", "address, 0, 4 * words"),
    "more than an array cleared": ("address, 0, WORD_BYTES * words", "address, 0, 16 * words"),
    "the wrong chunk cleared": ("self.dirty, first * CHUNK_WORDS", "self.dirty, 0 * first"),
    "the direction of the upload": ("size, TO_DEVICE", "size, TO_HOST"),
    "the buffer of the device freed": ("        return to\n", "        self._sent = None\n        self._cupy.get_default_memory_pool().free_all_blocks()\n        return to\n"),
    "the counts freed": ("        counts = device.address(self._counts)\n", "        counts = device.address(self._counts)\n        self._counts = device.zeros(1 + counted)\n"),
    "first and last of a cell": ("[cells.first, cells.last,", "[cells.last, cells.first,"),
    "low and high of a chunk": ("*step.cells.of_chunks(chunks)]", "*step.cells.of_chunks(chunks)[::-1]]"),
    "log and zero bitmap": ("dirty, log, zero, *own", "dirty, zero, log, *own"),
    "counts of new and unzeroed": ("(counts, counts + WORD_BYTES * size)", "(counts + WORD_BYTES * size, counts)"),
    "the place of the second step": ("counts += 2 * WORD_BYTES * size", "counts += WORD_BYTES * size"),
    "the columns of the mask": ("*_cell_columns(step.mask)", "*_cell_columns(step.cells)"),
    "number and limits of budgets": ("            limits,\n            np.int32(len(budgets)),\n", "            np.int32(len(budgets)),\n            limits,\n"),
    "the page of a take": ("np.int32(page)", "np.int32(page + 1)"),
    "too few threads": ("size, PAINT_THREADS, op", "size, PAINT_THREADS // 2, op"),
    "too few blocks": ('"paint", size,', '"paint", size - 1,'),
    "too small counts": ("device.zeros(counted + counted // 4)", "device.zeros(counted // 4)"),
    "too small a buffer": ("self._sent = self.zeros(len(self._host))", "self._sent = self.zeros(words // 2)"),
    "the inversion lost": ("packed |= cells.inverted.astype(np.int64) << INVERTED_BIT", "pass"),
}  # fmt: skip


def worked(kernels: Any) -> list[np.ndarray]:
    """Return counts and bitmaps after draws of every kind, takes and clears."""
    for number, bitmap in enumerate((kernels.dirty, kernels.log, kernels.zero)):
        load(bitmap, random_words(CHUNKS, number))
    few = np.array([0, 2])
    cells = [random_cells(CHUNKS, 3 + op, cells_a_chunk=6) for op in Op]
    steps = [Step(op, cells[op], few if op % 2 else np.arange(CHUNKS)) for op in Op]
    mask = random_cells(CHUNKS, 9, cells_a_chunk=8)
    steps[Op.ZERO] = steps[Op.ZERO]._replace(mask=mask)
    counts = kernels.paint(steps)
    found = [np.array(kernels.clear_in_chunk(1, 70, [Budget(70_000, 1, 1), Budget(9**9, 2, 1)]))]
    counts += kernels.paint(steps[:1])
    kernels.clear_chunks(1, 2)
    return [*found, *state(kernels, CHUNKS), *(np.concatenate(one) for one in counts)]


def damaged(piece: str, planted: str) -> ModuleType:
    """Return cupy_kernels with another piece of source."""
    source = Path(cupy_kernels.__file__).read_text()
    assert source.count(piece) == 1, piece
    module = ModuleType("damaged")
    module.__file__ = cupy_kernels.__file__
    exec(compile(source.replace(piece, planted), "damaged", "exec"), module.__dict__)
    return module


def noticed(module: ModuleType, right: list[np.ndarray]) -> str:
    """Return how the difference from numpy shows, or ""."""
    try:
        kernels = module.CupyKernels(CHUNKS, log=True, zero=True, device=module.CupyDevice())
        found = worked(kernels)
        kernels.close()
    except Exception as error:
        return type(error).__name__
    same = all(np.array_equal(one, other) for one, other in zip(found, right, strict=True))
    return "" if same else "another result"


def report(fault: str, module: ModuleType, right: list[np.ndarray]) -> None:
    """Print what a fault does, in a fork, because a kernel may crash or not end."""
    child = os.fork()
    if child == 0:
        machine.process = os.getpid()
        signal.alarm(LONGEST_S)  # wrong counts may let a kernel run for hours
        line = {"fault": fault, "noticed": noticed(module, right)}
        print(json.dumps(line), flush=True)
        os._exit(0)
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        print(json.dumps({"fault": fault, "noticed": "killed"}), flush=True)


def main() -> None:
    """Print what each fault does. Without a fault, the result is numpy's."""
    import cupy

    cupy.cuda.set_allocator(None)  # CuPy's pool rounds sizes up
    right = worked(NumpyKernels(CHUNKS, log=True, zero=True, threads=1))
    noticed(cupy_kernels, right)  # opens the device for all forks
    report("none", cupy_kernels, right)
    for fault, (piece, planted) in PIECES.items():
        report(fault, damaged(piece, planted), right)


if __name__ == "__main__":
    main()
