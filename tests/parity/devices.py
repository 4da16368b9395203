"""The devices of the parity suite: numpy, numba, paint.cu on the CPU, and a real GPU.

The suite needs no Hydra, no Hypothesis and no plugin of pytest, so that `pytest -m gpu` runs on a
CUDA machine with only cupy, numpy and pytest.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from gpusim.layout import CHUNK_SHIFT, CHUNK_WORDS, IntArray, U64Array
from gpusim.pages.backends import make_kernels, obstacle
from gpusim.pages.cupy_kernels import CupyKernels
from gpusim.pages.draw import Cells
from gpusim.pages.primitives import Kernels
from tests.compilers import REQUIRED
from tests.parity.shim import ShimDevice

GPU = pytest.param("cupy", marks=pytest.mark.gpu)
OTHERS = ["numba", "shim", GPU]  # compared with numpy
DEVICES = ["numpy", *OTHERS]
NO_POOL = "GPUSIM_TEST_NO_POOL"  # allocate each array separately, so that memcheck finds its end


def need(name: str) -> None:
    """Skip a test whose backend cannot be used, or fail if the backend is required."""
    found = obstacle(name)
    if found is None:
        return
    variable = "GPUSIM_REQUIRE_GPU" if name == "cupy" else REQUIRED
    if os.environ.get(variable) == "1":
        pytest.fail(f"{variable}=1, but {found}")
    pytest.skip(str(found))


def make(
    name: str, chunks: int, *, log: bool = False, zero: bool = False, threads: int = 1
) -> Kernels:
    """Make empty bitmaps on a device."""
    if name == "shim":
        return CupyKernels(chunks, log=log, zero=zero, device=ShimDevice())
    need(name)
    if name == "cupy" and os.environ.get(NO_POOL) == "1":
        import cupy

        cupy.cuda.set_allocator(None)
    return make_kernels(name, chunks, log=log, zero=zero, threads=threads)


def load(bitmap: Any, words: U64Array) -> None:
    """Fill a bitmap of a device with words."""
    if isinstance(bitmap, np.ndarray):
        bitmap.reshape(-1)[:] = words.reshape(-1)
    else:
        bitmap.set(np.ascontiguousarray(words).reshape(-1))


def state(kernels: Kernels, chunks: int) -> list[U64Array]:
    """Return copies of the bitmaps on the host: dirty, log, zero, as far as they exist."""
    bitmaps = (kernels.dirty, kernels.log, kernels.zero)
    return [kernels.read(b, 0, chunks).copy() for b in bitmaps if b is not None]


def random_words(chunks: int, seed: int) -> U64Array:
    """Return random words of which half the bits are set."""
    random = np.random.Generator(np.random.Philox(seed))
    return random.integers(0, 2**64, (chunks, CHUNK_WORDS), dtype=np.uint64)


def cells_from(rows: list[tuple]) -> Cells:
    """Return cells from rows (first, last, threshold, count, key, inverted)."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    first, last, threshold, count = (np.array(c, dtype=np.int64) for c in columns[:4])
    return Cells(
        first=first,
        last=last,
        threshold=threshold,
        count=count,
        key=np.array(columns[4], dtype=np.uint64),
        inverted=np.array(columns[5], dtype=np.bool_),
    )


def random_cells(chunks: int, seed: int, *, cells_a_chunk: float = 3) -> Cells:
    """Return cells of every kind in most chunks, with certain runs over some of them."""
    random = np.random.Generator(np.random.Philox(seed))
    pages = chunks << CHUNK_SHIFT
    borders = np.unique(random.integers(0, pages, round(cells_a_chunk * chunks)))
    borders = np.union1d(borders, np.arange(chunks + 1) << CHUNK_SHIFT)
    first, last = borders[:-1], borders[1:]
    kept = random.random(len(first)) < 0.85
    first, last = first[kept], last[kept]
    runs = random.integers(0, pages, chunks // 2)
    run_ends = np.minimum(
        runs + random.integers(1, 100_000, len(runs)), ((runs >> CHUNK_SHIFT) + 1) << CHUNK_SHIFT
    )
    drawn, certain = len(first), len(runs)
    threshold = random.choice([0, 0, 0, 1, 2, 77, 128, 170, 255], drawn)
    count = random.choice([0, 1, 30, 500, 2000, 9000], drawn)
    inverted = random.random(drawn) < 0.4
    nothing = np.zeros(certain, np.int64)
    order = np.argsort(np.concatenate([first, runs]) >> CHUNK_SHIFT, kind="stable")
    return Cells(
        first=np.concatenate([first, runs])[order],
        last=np.concatenate([last, run_ends])[order],
        threshold=np.concatenate([threshold, nothing]).astype(np.int64)[order],
        count=np.concatenate([count, nothing]).astype(np.int64)[order],
        key=random.integers(0, 2**64, drawn + certain, dtype=np.uint64)[order],
        inverted=np.concatenate([inverted, np.ones(certain, np.bool_)])[order],
    )


def random_chunks(chunks: int, seed: int) -> IntArray:
    """Return some chunks, ascending."""
    random = np.random.Generator(np.random.Philox(seed))
    return np.flatnonzero(random.random(chunks) < 0.8)
