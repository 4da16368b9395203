"""Measures the primitives and a draw, in multiples of memcpy measured in the same process.

A row is a median over repeats, after a warm-up and with the device synchronised. It is given as a
multiple of copying one bitmap of the same size on the same device. Beside it stands the floor: the
same multiple for the bytes that must move at least, each read once and each written once.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpusim.layout import CHUNK_PAGES, Layout, Writes
from gpusim.pages import backends
from gpusim.pages.draw import Cells, cells_of, certain_cells
from gpusim.pages.pages import Pages
from gpusim.pages.primitives import Op, Step

MEANS = (0.001, 1 / 64, 0.05, 0.69, 5.0)  # writes per page. 0.69 uses all planes and costs most
TAKES = (100_000, 15_000_000)  # pages
LINE_PAGES = 512  # pages of a cache line of 64 bytes
ENOUGH_S = 5.0  # time for the repeats of one row
NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement.

    Attributes:
        times_memcpy: the median in multiples of memcpy. None for a whole run.
        floor_times_memcpy: the bytes that must move, in multiples of those of memcpy. None: unknown.
        split_s: parts of the time of a whole run, in seconds.
    """

    backend: str
    pages: int
    what: str
    repeats: int
    median_ms: float
    least_ms: float
    most_ms: float
    times_memcpy: float | None = None
    floor_times_memcpy: float | None = None
    split_s: dict[str, float] = field(default_factory=dict)


def make_row(backend: str, pages: int, what: str, times_ms: list[float], **more: Any) -> Row:
    """Return the row of some repeats. `more` are other fields of the row."""
    return Row(
        backend=backend,
        pages=pages,
        what=what,
        repeats=len(times_ms),
        median_ms=statistics.median(times_ms),
        least_ms=min(times_ms),
        most_ms=max(times_ms),
        **more,
    )


def count_bytes(pages: int) -> int:
    """Return the most memory at a time: dirty and log, and those of a second `Pages` or memcpy."""
    return 4 * -(-pages // CHUNK_PAGES) * CHUNK_PAGES // 8


def measure(backend: str, pages: int, threads: int, repeats: int) -> Iterator[Row]:
    """Yield the rows of one backend and size.

    Args:
        backend: one of BACKENDS.
        pages: of the VM.
        threads: CPU threads over chunks.
        repeats: of each row, fewer if they take longer than ENOUGH_S.
    """
    bench = _Bench(backend, pages, threads, repeats)
    try:
        yield from bench.rows()
    finally:
        bench.kernels.close()


class _Bench:
    """Bitmaps of one size on one backend, and the measurements on them."""

    def __init__(self, backend: str, pages: int, threads: int, repeats: int) -> None:
        self.backend, self.pages, self.threads, self.repeats = backend, pages, threads, repeats
        self.layout = Layout([pages])
        self.chunks = np.arange(self.layout.chunks)
        self.kernels = backends.make_kernels(
            backend, self.layout.chunks, log=True, zero=False, threads=threads
        )
        self.synchronise: Callable[[], Any] = lambda: None
        if backend == "cupy":
            import cupy

            self.synchronise = cupy.cuda.Device().synchronize
        self.memcpy_ms = self.time(_copy(backend, self.layout.chunks))

    def rows(self) -> Iterator[Row]:
        """Yield the rows of memcpy, the primitives, draws and takes."""
        count, kernels, chunks = self.layout.chunks, self.kernels, self.chunks
        yield self.row("memcpy of one bitmap", self.memcpy_ms, 1.0)
        first = chunks * CHUNK_PAGES
        for what, last, floor in (
            ("merge, one page per chunk", first + 1, 0.5),
            ("merge, every page", first + self.layout.chunk_pages, 1.0),
        ):
            yield self.paint(what, [(Op.MERGE, certain_cells(first, last))], floor)
        for mean in MEANS:
            floor = 0.5 + 0.5 * -math.expm1(-LINE_PAGES * mean)
            steps = [(Op.MERGE, self.cells(mean))]
            yield self.paint(f"draw, {mean:.3g} writes per page", steps, floor)
        lazy = [(Op.CLEAR_LOG, self.cells(1 / 64)), (Op.MERGE_LOG, self.cells(1 / 64))]
        yield self.paint("lazy draw, 0.0156 twice", lazy, 3.0)
        times_ms = self.time(lambda: cells_of(self.writes(1 / 64), 1, 1, 0))
        yield self.row("integers of a draw (host)", times_ms, None)
        times_ms = self.time(lambda: kernels.clear_chunks(0, count))
        yield self.row("clear all chunks", times_ms, 0.5)
        yield from self.rows_of_pages()

    def rows_of_pages(self) -> Iterator[Row]:
        """Yield the rows that include the counts on the host."""
        pages = Pages(
            self.layout,
            zero_first=NOTHING,
            zero_last=NOTHING,
            lazy=False,
            initially_set=False,
            seed=1,
            backend=self.backend,
            threads=self.threads,
        )
        writes = self.writes(1 / 64)
        times_ms = self.time(lambda: pages.sync(writes))
        yield self.row("draw that changes nothing", times_ms, 0.0)
        for count in TAKES:
            if 2 * count < self.pages:
                most = min(self.repeats, self.pages // count - 1)
                times_ms = self.time(lambda count=count: pages.take([(count, 1, 1)]), most=most)  # type: ignore[misc]
                yield self.row(f"take of {count} pages", times_ms, 0.5 * count / self.pages)
                pages.sync(_write_everything(self.layout))
        pages.close()

    def paint(self, what: str, steps: list[tuple[Op, Cells]], floor: float) -> Row:
        """Measure a draw on bitmaps in which nothing is dirty before each repeat."""
        draw = [Step(op, cells, self.chunks) for op, cells in steps]
        times_ms = self.time(
            lambda: self.kernels.paint(draw),
            prepare=lambda: self.kernels.clear_chunks(0, self.layout.chunks),
        )
        return self.row(what, times_ms, floor)

    def writes(self, mean: float) -> Writes:
        """Return random writes all over the VM, `mean` per page."""
        first = self.chunks * CHUNK_PAGES
        last = first + self.layout.chunk_pages
        means = np.full(len(first), mean)
        return Writes(
            first=first, last=last, mean=means, certain_first=NOTHING, certain_last=NOTHING
        )

    def cells(self, mean: float) -> Cells:
        """Return the cells of such writes."""
        return cells_of(self.writes(mean), seed=1, draw=1, step=0)

    def time(
        self,
        work: Callable[[], Any],
        prepare: Callable[[], Any] = lambda: None,
        most: int | None = None,
    ) -> list[float]:
        """Return the milliseconds of each repeat. The first call is not counted."""
        times_ms: list[float] = []
        started = time.perf_counter()
        for repeat in range((most or self.repeats) + 1):
            prepare()
            self.synchronise()
            start = time.perf_counter()
            work()
            self.synchronise()
            if repeat:
                times_ms.append(1e3 * (time.perf_counter() - start))
                if time.perf_counter() - started > ENOUGH_S:
                    break
        return times_ms

    def row(self, what: str, times_ms: list[float], floor: float | None) -> Row:
        """Return the row of some repeats."""
        memcpy_ms = statistics.median(self.memcpy_ms)
        return make_row(
            self.backend, self.pages, what, times_ms,
            times_memcpy=statistics.median(times_ms) / memcpy_ms, floor_times_memcpy=floor,
        )  # fmt: skip


def _copy(backend: str, chunks: int) -> Callable[[], Any]:
    """Return a function that copies one bitmap on the backend's own device."""
    words = chunks * CHUNK_PAGES // 64
    if backend == "cupy":
        import cupy

        # cupy.zeros, unlike cupy.ones, launches no kernel that CuPy would have to compile.
        source, target = cupy.zeros(words, np.uint64), cupy.zeros(words, np.uint64)
        return lambda: target.data.copy_from_device_async(source.data, source.nbytes)
    host_source, host_target = np.ones(words, np.uint64), np.zeros(words, np.uint64)
    return lambda: np.copyto(host_target, host_source)


def _write_everything(layout: Layout) -> Writes:
    first = np.arange(layout.chunks) * CHUNK_PAGES
    return Writes(
        first=NOTHING,
        last=NOTHING,
        mean=np.zeros(0),
        certain_first=first,
        certain_last=first + layout.chunk_pages,
    )
